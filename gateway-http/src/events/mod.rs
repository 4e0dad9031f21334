//! `GET /v1/events`: the events of channels as server-sent events, for who only reads.
//!
//! The stream is a [`Link`](chappe_gateway::link::Link) like any other: it signs in and subscribes
//! by frames of its own making, and what the kernel sends becomes text. An event's id is the
//! cursor, so `Last-Event-ID` resumes on any gateway.

mod link;
mod pipe;
mod text;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use chappe_gateway::frontend::Kernel;
use chappe_protocol::{
    ChannelId, Cursor, ErrorCode, WireError,
    command::{ChannelFrom, Channels, Subscribe},
    limits,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use hyper::body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use self::{link::EventLink, pipe::Reader};
use crate::{
    front::LAST_EVENT_ID,
    meter,
    problem::{self, Problem},
    request,
    rest::App,
};

/// Counts the open streams.
pub(crate) struct EventStreams(Arc<Semaphore>);

impl EventStreams {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS))))
    }

    fn enter(&self) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            WireError::with_message(ErrorCode::Overloaded, "there are too many event streams")
                .retry_after(FULL_RETRY_MS)
        })?;
        meter::event_streams().increment(1.0);
        Ok(Place { _permit: permit })
    }
}

/// Handles the route.
pub(crate) async fn stream<K: Kernel>(
    app: Arc<App<K>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    if parts.method != Method::GET {
        return Err(ErrorCode::MethodNotAllowed.into());
    }
    let token = request::bearer(&parts.headers)?;
    let cursor = last_event_id(&parts.headers)?;
    let query = request::query_pairs(&parts)?;
    let subscriptions = subscriptions(&query, cursor)?;
    let place = app.event_streams.enter()?;

    let (writer, mut reader) = pipe::pipe();
    let peer: SocketAddr = request::client(&parts);
    let make = Box::new(move || {
        Ok(Box::new(EventLink::new(peer, &token, subscriptions, writer)) as Box<_>)
    });
    app.kernel.connect(peer.ip(), make).map_err(problem::refused)?;
    // The status says whether the stream came about, so it waits for the kernel's answer.
    match timeout(OPEN_TIMEOUT, reader.opened()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(ErrorCode::Unavailable.into()),
    }

    let mut response = Response::new(Body::new(EventBody { reader, _place: place }));
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Problem> {
    let Some(text) = headers.get(LAST_EVENT_ID).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let cursor = text.to_str().ok().and_then(|text| Cursor::parse(text).ok());
    let refuse = || Problem::with_message(ErrorCode::Invalid, "Last-Event-ID is not a cursor");
    cursor.map(Some).ok_or_else(refuse)
}

/// What the stream subscribes to, in one command or two: all of the caller's channels have no
/// place for a cursor, so the ones that it holds go first.
fn subscriptions(
    query: &[(String, String)],
    cursor: Option<Cursor>,
) -> Result<Vec<Subscribe>, Problem> {
    let refuse = |what| Problem::with_message(ErrorCode::Invalid, what);
    let mut asked = query.iter().filter(|(name, _)| name == "channels");
    let (Some((_, channels)), None) = (asked.next(), asked.next()) else {
        return Err(refuse("channels is `mine` or a list of ids, separated by commas"));
    };
    let incarnation = cursor.as_ref().map(|cursor| cursor.incarnation);
    let held = cursor.map(|cursor| cursor.channels).unwrap_or_default();
    let these = |channels| Subscribe { channels: Channels::These(channels), incarnation };

    if channels == "mine" {
        let held = held.into_iter().map(|(id, rev)| ChannelFrom { id, from: Some(rev) });
        let held: Vec<_> = held.collect();
        let mine = Subscribe { channels: Channels::Mine, incarnation: None };
        return Ok(if held.is_empty() { vec![mine] } else { vec![these(held), mine] });
    }
    let mut named = Vec::new();
    for id in channels.split(',') {
        let id: ChannelId = id.parse().map_err(|_| refuse("a channel is named by its id"))?;
        if named.len() == limits::SUBSCRIPTIONS_MAX {
            return Err(ErrorCode::TooManySubscriptions.into());
        }
        let from = held.iter().find(|(channel, _)| *channel == id).map(|(_, rev)| *rev);
        named.push(ChannelFrom { id, from });
    }
    Ok(vec![these(named)])
}

/// The body of the response: what the link wrote, as it comes.
struct EventBody {
    reader: Reader,
    _place: Place,
}

struct Place {
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.reader.poll_text(cx).map(|text| {
            let text = text?;
            meter::event_bytes(text.len());
            Some(Ok(Frame::data(text)))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        meter::event_streams().decrement(1.0);
    }
}

const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store"),
    // Some proxies collect a response before they pass it on, unless told.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// How long the kernel may take to sign in and subscribe. Its own deadlines are shorter.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const FULL_RETRY_MS: u64 = 5_000;

//! A link over a WebSocket, plain or in TLS.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use chappe_protocol::{CloseCode, Encoding};
use futures_util::{Sink, Stream};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{MESSAGE_BYTES_MAX, OUTBOUND_BYTES_MAX};
use crate::{
    error::{Closed, Error},
    target::Target,
};

/// Bytes of each read, kept by every connection: the library's 128 KiB would cost a load generator
/// a gigabyte for 8,000 users.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// What is gathered before a write, so that a burst of commands leaves in few system calls.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// A byte stream that a WebSocket can run on.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A WebSocket that speaks one of the two subprotocols.
pub(crate) struct WsLink {
    stream: WebSocketStream<Box<dyn Duplex>>,
    encoding: Encoding,
    unflushed: bool,
    closing: bool,
}

impl WsLink {
    /// Upgrades a connected byte stream.
    pub(crate) async fn open(
        stream: Box<dyn Duplex>,
        target: &Target,
        encoding: Encoding,
    ) -> Result<Self, Error> {
        // The scheme is of no account here: TLS, if any, is below.
        let url = format!("ws://{}{}", target.authority(), target.path);
        let mut request = url.into_client_request().map_err(|e| Error::Config(e.to_string()))?;
        let subprotocol = http::HeaderValue::from_static(encoding.subprotocol());
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(OUTBOUND_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (stream, _response) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| match error {
                tungstenite::Error::Http(response) => Error::Unreachable(format!(
                    "the address answers with HTTP status {}",
                    response.status()
                )),
                error => Error::Unreachable(error.to_string()),
            })?;
        Ok(Self { stream, encoding, unflushed: false, closing: false })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.stream).poll_ready(cx).map_err(broken)
    }

    pub(super) fn start_send(&mut self, frame: Vec<u8>) -> Result<(), Closed> {
        let message = match self.encoding {
            Encoding::MessagePack => Message::Binary(frame.into()),
            Encoding::Json => Message::Text(
                Bytes::from(frame)
                    .try_into()
                    .map_err(|_| Closed::broken("a frame is not UTF-8"))?,
            ),
        };
        self.unflushed = true;
        Pin::new(&mut self.stream).start_send(message).map_err(broken)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(broken)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        loop {
            let message = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(Closed::broken("the server hung up"))),
            };
            match message {
                Message::Text(text) => return Poll::Ready(Ok(text.into())),
                Message::Binary(bytes) => return Poll::Ready(Ok(bytes)),
                Message::Close(frame) => return Poll::Ready(Err(closed(frame))),
                // The library has queued the pong; it must also leave.
                Message::Ping(_) => {
                    self.unflushed = true;
                    if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode) -> Poll<()> {
        if !self.closing {
            let frame = CloseFrame { code: code.number().into(), reason: code.name().into() };
            match Pin::new(&mut self.stream).poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            if Pin::new(&mut self.stream).start_send(Message::Close(Some(frame))).is_err() {
                return Poll::Ready(());
            }
            self.closing = true;
        }
        if ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        // What still arrives is not wanted any more; the peer's close frame ends it.
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Poll::Ready(()),
                Some(Ok(_)) => {}
            }
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(frame) => Closed {
            code: Some(frame.code.into()),
            reason: frame.reason.as_str().to_owned(),
            reconnect_after_ms: None,
        },
        None => Closed::broken("the server closed without a code"),
    }
}

// By value: this is what `map_err` calls.
#[allow(clippy::needless_pass_by_value)]
fn broken(error: tungstenite::Error) -> Closed {
    Closed::broken(error.to_string())
}

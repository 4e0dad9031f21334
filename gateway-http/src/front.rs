//! What every request passes before its route: is it for this host, from a page that may ask,
//! within the limits of a head, and without a token in its URL.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use chappe_gateway::frontend::Kernel;
use chappe_protocol::ErrorCode;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    request::Parts,
};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use crate::{
    config::{Config, HEAD_BYTES_MAX, HEADERS_MAX, LAST_EVENT_ID_BYTES_MAX, Rest},
    meter,
    network::client_address,
    problem::{self, Problem},
    request::{self, Client},
    rest::{self, App},
    routes::{EVENTS_PATH, WEBSOCKET_PATH},
    upgrade::{Accepted, TakeSocket, Upgrade},
};

/// What all connections share.
pub(crate) struct Shared<K> {
    app: Arc<App<K>>,
    router: TowerToHyperService<axum::Router>,
    upgrade: Option<Upgrade>,
}

/// One connection's way through the checks to its routes.
pub(crate) struct Front<K> {
    shared: Arc<Shared<K>>,
    peer: SocketAddr,
    taken: Mutex<Option<TakeSocket>>,
}

/// The answer to a request: there at once where no route needs to run.
pub(crate) enum Answer {
    Ready(Option<Response<Body>>),
    Running(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// Where a browser's request comes from.
enum Origin {
    /// From no page, or from our own.
    Own,
    /// From another page that may ask.
    Allowed(HeaderValue),
}

impl<K: Kernel> Shared<K> {
    pub(crate) fn new(app: Arc<App<K>>, upgrade: Option<Upgrade>) -> Self {
        let router = TowerToHyperService::new(match app.config.rest {
            Rest::Served => rest::router(&app),
            Rest::Absent => rest::absent(),
        });
        Self { app, router, upgrade }
    }

    pub(crate) fn kernel(&self) -> &K {
        &self.app.kernel
    }

    fn config(&self) -> &Config {
        &self.app.config
    }
}

impl<K: Kernel> Front<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, peer: SocketAddr) -> Self {
        Self { shared, peer, taken: Mutex::new(None) }
    }

    /// Who takes the socket, once a request was answered with `101`.
    pub(crate) fn into_taken(self) -> Option<TakeSocket> {
        self.taken.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a request to leave HTTP that was read without hyper, or nothing where hyper
    /// shall read it and answer.
    pub(crate) fn express(&self, mut parts: Parts) -> Option<Accepted> {
        let (_, client) = self.check(&mut parts).ok()?;
        self.upgrade(&parts, client).ok()?.ok()
    }

    fn answer(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let (mut parts, body) = request.into_parts();
        let (origin, client) = self.check(&mut parts)?;
        if parts.method == Method::OPTIONS {
            return Ok(Answer::ready(origin.allow(options())));
        }
        if parts.uri.path() == WEBSOCKET_PATH {
            return Ok(match self.upgrade(&parts, client)? {
                Ok(accepted) => self.switch(accepted),
                Err(refusal) => Answer::ready((*refusal).map(Body::from)),
            });
        }
        parts.extensions.insert(Client(client));
        let request = Request::from_parts(parts, Body::new(body));
        let routed = self.shared.router.call(request);
        Ok(Answer::Running(Box::pin(async move {
            let Ok(response) = routed.await;
            origin.allow(response)
        })))
    }

    /// What every request passes. Gives its page and its client.
    fn check(&self, parts: &mut Parts) -> Result<(Origin, SocketAddr), Problem> {
        check_head(parts)?;
        check_host(parts, &self.shared.config().hosts)?;
        check_url(parts)?;
        let origin = self.check_origin(&parts.headers)?;
        if matches!(origin, Origin::Own) {
            parts.headers.remove(header::ORIGIN);
        }
        let client =
            client_address(self.peer, &parts.headers, &self.shared.config().trusted_proxies);
        if client != self.peer && opens_connection(parts) {
            self.shared.kernel().admit(client.ip()).map_err(problem::refused)?;
        }
        Ok((origin, client))
    }

    fn upgrade(
        &self,
        parts: &Parts,
        client: SocketAddr,
    ) -> Result<Result<Accepted, Box<Response<Bytes>>>, Problem> {
        let upgrade = self.shared.upgrade.as_ref().ok_or(ErrorCode::NotFound)?;
        if parts.method != Method::GET {
            return Err(Problem::from(ErrorCode::MethodNotAllowed).allow("GET"));
        }
        // A body would end up in front of the first frame.
        let has_body = parts.headers.contains_key(header::TRANSFER_ENCODING)
            || parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        if has_body {
            return Err(Problem::with_message(ErrorCode::Malformed, "an upgrade has no body"));
        }
        Ok(upgrade(parts, client))
    }

    fn switch(&self, accepted: Accepted) -> Answer {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = accepted.headers;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.take);
        Answer::ready(response)
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<Origin, Problem> {
        let mut lines = headers.get_all(header::ORIGIN).into_iter();
        let Some(origin) = lines.next() else { return Ok(Origin::Own) };
        let text = origin.to_str().ok().filter(|_| lines.next().is_none());
        let Some(text) = text.filter(|text| *text != "null") else {
            return Err(ErrorCode::OriginForbidden.into());
        };
        // Nothing but a token signs a request in, and a page can only send one that it holds. So
        // a page that was served under this very host may ask, also by a name that we do not know.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = text.split_once("://").map(|(_, authority)| authority);
        if authority.is_some() && authority == host {
            return Ok(Origin::Own);
        }
        if self.shared.kernel().origin_allowed(text) {
            return Ok(Origin::Allowed(origin.clone()));
        }
        Err(ErrorCode::OriginForbidden.into())
    }
}

impl<K: Kernel> Service<Request<Incoming>> for Front<K> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.answer(request).unwrap_or_else(|problem| {
            meter::refused(problem.number());
            Answer::ready(problem.into_response())
        })
    }
}

impl Answer {
    fn ready(mut response: Response<Body>) -> Self {
        never_sniff(&mut response);
        Self::Ready(Some(response))
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
            Self::Running(running) => running.as_mut().poll(cx).map(|mut response| {
                never_sniff(&mut response);
                Ok(response)
            }),
        }
    }
}

impl Origin {
    /// Lets the page that asked read the response.
    fn allow(self, mut response: Response<Body>) -> Response<Body> {
        if let Self::Allowed(origin) = self {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
            for (name, value) in CORS_HEADERS {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        response
    }
}

fn check_head(parts: &Parts) -> Result<(), Problem> {
    let too_large = |what| {
        let problem = Problem::with_message(ErrorCode::FrameTooLarge, what);
        Err(problem.status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
    };
    if parts.headers.len() > HEADERS_MAX {
        return too_large("a request has at most 100 headers");
    }
    let mut bytes = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    for (name, value) in &parts.headers {
        if name == LAST_EVENT_ID && value.len() <= LAST_EVENT_ID_BYTES_MAX {
            continue;
        }
        bytes += name.as_str().len() + value.len() + 4; // ": " and the end of the line
    }
    if bytes > HEAD_BYTES_MAX {
        return too_large("a request's head has at most 16 KiB");
    }
    Ok(())
}

fn check_host(parts: &Parts, served: &[String]) -> Result<(), Problem> {
    let bad = |what| Err(Problem::with_message(ErrorCode::Malformed, what));
    let mut lines = parts.headers.get_all(header::HOST).into_iter();
    let host = match (lines.next(), lines.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) if parts.version == Version::HTTP_10 && served.is_empty() => return Ok(()),
        _ => return bad("a request has one Host"),
    };
    let Some(host) = host else { return bad("the Host cannot be read") };
    if parts.uri.authority().is_some_and(|authority| authority.as_str() != host) {
        return bad("the Host is not that of the URL");
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if served.is_empty() || served.iter().any(|served| served.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let problem = Problem::with_message(ErrorCode::NotFound, "this host is not served here");
    Err(problem.status(StatusCode::MISDIRECTED_REQUEST))
}

/// URLs end up in logs, histories and `Referer`: a token in one is as good as published.
fn check_url(parts: &Parts) -> Result<(), Problem> {
    if parts.uri.query().is_none() {
        return Ok(());
    }
    let names_token = |name: &str| TOKEN_NAMES.iter().any(|token| name.eq_ignore_ascii_case(token));
    let looks_like_jwt = |value: &str| value.starts_with("eyJ") && value.contains('.');
    let pairs = request::query_pairs(parts)?;
    if pairs.iter().any(|(name, value)| names_token(name) || looks_like_jwt(value)) {
        return Err(ErrorCode::TokenInUrl.into());
    }
    Ok(())
}

/// Whether a request becomes a connection to the kernel.
fn opens_connection(parts: &Parts) -> bool {
    matches!(parts.uri.path(), WEBSOCKET_PATH | EVENTS_PATH)
}

fn options() -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

fn never_sniff(response: &mut Response<Body>) {
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
}

const TOKEN_NAMES: [&str; 8] =
    ["token", "access_token", "id_token", "jwt", "authorization", "auth", "api_key", "apikey"];

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

const CORS_HEADERS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, idempotency-key, idempotency-age-ms, last-event-id",
    ),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "location, retry-after"),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

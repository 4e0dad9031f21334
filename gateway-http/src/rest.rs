//! The router: each route of the table becomes one command to the kernel.

use std::{convert::Infallible, future::Future, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter},
};
use chappe_gateway::frontend::{Call, Kernel};
use chappe_protocol::{ErrorCode, UserId, reply::Reply};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    batch,
    config::Config,
    events::{self, EventStreams},
    meter, page,
    problem::Problem,
    request,
    routes::{self, ROUTES, Route, Verb},
};

/// What the handlers share.
pub(crate) struct App<K> {
    pub(crate) kernel: K,
    pub(crate) config: Arc<Config>,
    pub(crate) event_streams: EventStreams,
}

/// The router over all routes but the upgrade, which never reaches it.
pub(crate) fn router<K: Kernel>(app: &Arc<App<K>>) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        router = router.route(path, commands_at(app, path));
    }
    router
        .route(routes::BATCH_PATH, one(app, Method::POST, routes::BATCH_PATH, batch::publish))
        .route(
            routes::SESSIONS_PATH,
            one(app, Method::DELETE, routes::SESSIONS_PATH, close_sessions),
        )
        .route(routes::EVENTS_PATH, one(app, Method::GET, routes::EVENTS_PATH, events::stream))
        .route(routes::PAGE_PATH, one(app, Method::GET, routes::PAGE_PATH, page::page))
        .fallback(|| async { Problem::from(ErrorCode::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::from(ErrorCode::MethodNotAllowed) })
}

/// No route at all.
pub(crate) fn absent() -> Router {
    Router::new().fallback(|| async { Problem::from(ErrorCode::NotFound) })
}

/// The routes of one path, by method; those of one method are told apart by their query.
fn commands_at<K: Kernel>(app: &Arc<App<K>>, path: &'static str) -> MethodRouter {
    let mut methods = MethodRouter::new();
    for verb in [Verb::Get, Verb::Post, Verb::Put, Verb::Patch, Verb::Delete] {
        let mut candidates =
            ROUTES.iter().filter(move |route| (route.path, route.verb) == (path, verb)).peekable();
        if candidates.peek().is_none() {
            continue;
        }
        let candidates: Arc<[&'static Route]> = candidates.collect();
        let app = Arc::clone(app);
        methods = methods.on(verb.filter(), move |request: Request| {
            let (app, candidates) = (Arc::clone(&app), Arc::clone(&candidates));
            measured(path, async move { run(&app, &candidates, request).await })
        });
    }
    methods
}

/// A path with one method and a handler of its own.
fn one<K, H, F>(
    app: &Arc<App<K>>,
    method: Method,
    path: &'static str,
    handler: H,
) -> MethodRouter<(), Infallible>
where
    K: Kernel,
    H: Fn(Arc<App<K>>, Request) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let app = Arc::clone(app);
    let filter = MethodFilter::try_from(method).expect("each of our methods has a filter");
    MethodRouter::new()
        .on(filter, move |request: Request| measured(path, handler(Arc::clone(&app), request)))
}

/// Carries out the command of the first route whose query is there.
async fn run<K: Kernel>(
    app: &App<K>,
    candidates: &[&'static Route],
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let token = request::bearer(&parts.headers)?;
    let (nonce, age_ms) = request::idempotency(&parts.headers)?;
    let query = request::query_pairs(&parts)?;
    let route = select(candidates, &query);
    let captures = captures(&mut parts).await?;
    let body = match route.body {
        routes::Body::None => bytes::Bytes::new(),
        routes::Body::Object => {
            request::check_body_headers(&parts.headers)?;
            request::read_body(body, app.config.body_timeout).await?
        }
    };
    let command = request::decode(route, &captures, &query, &body)?.command;
    let peer = request::client(&parts).ip();
    let reply = app.kernel.call(Call { token, peer, nonce, age_ms, command }).await?;
    Ok(success(route, &reply))
}

fn select(candidates: &[&'static Route], query: &[(String, String)]) -> &'static Route {
    let chosen = candidates.iter().find(|route| match route.selected_by {
        Some(field) => query.iter().any(|(name, _)| name == field),
        None => true,
    });
    chosen.expect("the last route of a path and method stands without a condition")
}

async fn captures(parts: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let unreadable = |_| Problem::with_message(ErrorCode::Malformed, "the path cannot be read");
    let captures = RawPathParams::from_request_parts(parts, &()).await.map_err(unreadable)?;
    Ok(captures.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn success(route: &Route, reply: &Reply) -> Response {
    let status = StatusCode::from_u16(route.success).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    let mut response = json(status, reply);
    if let (StatusCode::CREATED, "create_channel", Reply::Change(change)) =
        (status, route.command, reply)
        && let Ok(location) = HeaderValue::from_str(&format!("/v1/channels/{}", change.channel))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Closes a user's sessions, for a back end that signed him out.
async fn close_sessions<K: Kernel>(
    app: Arc<App<K>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let token = request::bearer(&parts.headers)?;
    let captures = captures(&mut parts).await?;
    let user: Option<UserId> = captures.first().and_then(|(_, user)| user.parse().ok());
    let Some(user) = user else {
        return Err(Problem::with_message(ErrorCode::Invalid, "user is not an id"));
    };
    app.kernel.close_sessions(token, user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A JSON answer that no cache keeps.
pub(crate) fn json<T: serde::Serialize>(status: StatusCode, body: &T) -> Response {
    let mut bytes = Vec::new();
    chappe_protocol::Encoding::Json.encode(body, &mut bytes);
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn measured(
    path: &'static str,
    answer: impl Future<Output = Result<Response, Problem>>,
) -> Response {
    let began = Instant::now();
    let response = match answer.await {
        Ok(response) => response,
        Err(problem) => {
            meter::refused(problem.number());
            problem.into_response()
        }
    };
    meter::answered(path, response.status(), began.elapsed());
    response
}

impl Verb {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

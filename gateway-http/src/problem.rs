//! Errors as `application/problem+json`: the codes of the protocol's table, with their status.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use chappe_gateway::frontend::ConnectRefused;
use chappe_protocol::{DecodeError, ErrorCode, WireError};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// A refused request.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Box<WireError>,
    status: StatusCode,
    allow: Option<&'static str>,
    body_unread: bool,
}

impl Problem {
    pub(crate) fn with_message(code: ErrorCode, message: &str) -> Self {
        WireError::with_message(code, message).into()
    }

    /// The same problem with a status that says more to HTTP than the code's own.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same problem, naming the methods that there are.
    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The same problem, behind which the connection closes: what comes next on it would be the
    /// body that nobody reads.
    pub(crate) fn body_unread(mut self) -> Self {
        self.body_unread = true;
        self
    }

    /// The code's number: the label of metrics.
    pub(crate) fn number(&self) -> u16 {
        self.error.code
    }

    /// The error alone, where it stands in an answer and is not the answer.
    pub(crate) fn into_error(self) -> WireError {
        *self.error
    }

    /// The whole answer as bytes, for a client that is turned away before hyper reads from it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n\
             retry-after: {}\r\nconnection: close\r\n\r\n",
            self.status.as_u16(),
            body.len(),
            self.retry_after_seconds().unwrap_or(1),
        )
        .into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    fn body(&self) -> Vec<u8> {
        let title = ErrorCode::from_number(self.error.code).map_or("", ErrorCode::message);
        let details = Details {
            r#type: format!("urn:chappe:error:{}", self.error.name),
            title,
            status: self.status.as_u16(),
            detail: &self.error.message,
            error: &self.error,
        };
        serde_json::to_vec(&details).unwrap_or_default()
    }

    /// Whole seconds, rounded up, so that a client that obeys does not come too early.
    fn retry_after_seconds(&self) -> Option<u64> {
        self.error.retry_after_ms.map(|wait_ms| wait_ms.div_ceil(1000))
    }
}

/// RFC 9457, and beside its members the error as all other transports write it.
#[derive(Serialize)]
struct Details<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    error: &'a WireError,
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Self {
        let status = ErrorCode::from_number(error.code)
            .and_then(|code| StatusCode::from_u16(code.http_status()).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error: Box::new(error), status, allow: None, body_unread: false }
    }
}

impl From<ErrorCode> for Problem {
    fn from(code: ErrorCode) -> Self {
        WireError::new(code).into()
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        WireError::with_message(error.code, error.message).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after_seconds();
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.body_unread {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}

/// The code for a connection that the kernel does not take.
pub(crate) fn refused(refused: ConnectRefused) -> ErrorCode {
    match refused {
        ConnectRefused::Draining => ErrorCode::Draining,
        ConnectRefused::TooMany => ErrorCode::TooManyConnections,
    }
}

const MEDIA_TYPE: &str = "application/problem+json";

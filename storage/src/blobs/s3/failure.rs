//! Why an attempt failed: from the client's many errors to the few that make a difference.
//!
//! Nothing of a request is repeated here, neither address nor name nor key.

use std::error::Error;

use minio::s3::error::{Error as S3Error, NetworkError, S3ServerError, ValidationErr};
use minio::s3::minio_error_response::MinioErrorCode;

use super::super::BlobError;

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NotFound,
    /// The range begins at the end or behind it.
    Range,
    /// No space, or no more of it for us.
    Full,
    /// Whoever makes a bucket has it already.
    BucketExists,
    /// It may pass by itself.
    Transient,
    /// It will be the same again.
    Refused,
}

impl Failure {
    pub(super) fn transient(what: impl Into<String>) -> Self {
        Self { kind: Kind::Transient, what: what.into() }
    }

    pub(super) fn refused(what: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, what: what.into() }
    }

    /// The connection failed, for the reason at the root of `error`: what lies above it only says
    /// where to.
    pub(super) fn lost(error: &(dyn Error + 'static)) -> Self {
        let mut root = error;
        while let Some(source) = root.source() {
            root = source;
        }
        Self::transient(root.to_string())
    }

    pub(super) fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }

    fn of_status(status: u16) -> Self {
        let kind = match status {
            404 => Kind::NotFound,
            416 => Kind::Range,
            507 => Kind::Full,
            408 | 429 | 500.. => Kind::Transient,
            _ => Kind::Refused,
        };
        Self { kind, what: format!("the server answered {status}") }
    }

    fn of_code(code: &MinioErrorCode) -> Self {
        // The client writes codes that it does not know itself in lower case.
        let name = code.to_string();
        let kind = match name.to_ascii_lowercase().as_str() {
            "nosuchkey" => Kind::NotFound,
            "invalidrange" => Kind::Range,
            "bucketalreadyownedbyyou" | "bucketalreadyexists" => Kind::BucketExists,
            "quotaexceeded" | "xminiostoragefull" | "xminioadminbucketquotaexceeded" => Kind::Full,
            "internalerror"
            | "internal"
            | "serviceunavailable"
            | "slowdown"
            | "slowdownread"
            | "slowdownwrite"
            | "requesttimeout"
            | "operationaborted"
            | "toomanyrequests"
            | "xminioservernotinitialized" => Kind::Transient,
            _ => Kind::Refused,
        };
        Self { kind, what: format!("the server answered {name}") }
    }
}

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        match error {
            S3Error::S3Server(S3ServerError::S3Error(answer)) => Self::of_code(&answer.code()),
            S3Error::S3Server(S3ServerError::InvalidServerResponse {
                http_status_code, ..
            }) => Self::of_status(http_status_code),
            S3Error::S3Server(S3ServerError::HttpError(status, _))
            | S3Error::Network(NetworkError::ServerError(status)) => Self::of_status(status),
            S3Error::Network(NetworkError::ReqwestError(error)) => Self::lost(&error),
            S3Error::Validation(error) => error.into(),
            S3Error::DriveIo(error) => Self::refused(error.to_string()),
        }
    }
}

impl From<ValidationErr> for Failure {
    fn from(error: ValidationErr) -> Self {
        match error {
            ValidationErr::HttpError(error) => Self::lost(&error),
            _ => Self::refused("the client refused the call or the server's answer"),
        }
    }
}

impl From<Failure> for BlobError {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            Kind::NotFound => Self::NotFound,
            Kind::Range => Self::Range,
            Kind::Full => Self::NoSpace,
            Kind::BucketExists | Kind::Transient | Kind::Refused => Self::Unavailable(failure.what),
        }
    }
}

//! What can go wrong, in the terms of what a caller does about it.

use chappe_protocol::{CloseCode, ErrorCode, Retry, WireError};

/// Why a command, or the client as a whole, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server refused the command. Nothing happened, unless the code is `unknown`.
    #[error("{} ({}): {}", .0.name, .0.code, .0.message)]
    Refused(WireError),
    /// No server answers at the address, or the link failed before the session began.
    #[error("cannot reach the server: {0}")]
    Unreachable(String),
    /// The server's certificate is not one that the client was told to trust.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    /// The connection ended and will not be made again.
    #[error("{0}")]
    Closed(Closed),
    /// The command's deadline passed. When `in_doubt`, it was sent at least once and may have
    /// taken effect; otherwise nothing happened.
    #[error("no answer in time{}", if *.in_doubt { "; it may have happened" } else { "" })]
    TimedOut {
        /// It was sent, and its fate is not known.
        in_doubt: bool,
    },
    /// The client's own queue of commands is full; nothing was sent.
    #[error("too many commands wait for an answer")]
    Overloaded,
    /// The client was closed before the command was answered.
    #[error("the client was closed{}", if *.in_doubt { "; the command may have happened" } else { "" })]
    Ended {
        /// It was sent, and its fate is not known.
        in_doubt: bool,
    },
    /// The peer does not speak the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// No token could be had to sign in with.
    #[error("no token: {0}")]
    Token(String),
    /// The URL, the certificate file or the fingerprint is not usable.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// The error code, if a server refused it and this version knows the number.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => ErrorCode::from_number(error.code),
            _ => None,
        }
    }

    /// Whether the command may have taken effect although it did not succeed.
    pub fn in_doubt(&self) -> bool {
        match self {
            Self::Refused(error) => error.code == ErrorCode::Unknown.number(),
            Self::TimedOut { in_doubt } | Self::Ended { in_doubt } => *in_doubt,
            _ => false,
        }
    }

    /// Whether the server could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Untrusted(_))
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close code, absent when the link just broke.
    pub code: Option<u16>,
    /// What the peer or the transport said about it.
    pub reason: String,
    /// How long the server asked to wait before the next connection, in milliseconds.
    pub reconnect_after_ms: Option<u64>,
}

impl Closed {
    /// A link that broke without a word.
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into(), reconnect_after_ms: None }
    }

    /// The close code, if this version knows the number.
    pub fn known(&self) -> Option<CloseCode> {
        self.code.and_then(CloseCode::from_number)
    }

    /// Whether a client connects again by itself: as the code says, and always when the link
    /// broke or the code is unknown.
    pub fn reconnects(&self) -> bool {
        self.known().is_none_or(CloseCode::reconnects)
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.known(), self.code) {
            (Some(code), _) => {
                write!(f, "closed by the server: {} ({})", code.name(), code.number())?;
            }
            (None, Some(number)) => write!(f, "closed by the server ({number})")?,
            (None, None) => write!(f, "the connection broke")?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// Whether a refusal is worth another attempt with the same nonce.
pub(crate) fn is_retried(error: &WireError) -> bool {
    match ErrorCode::from_number(error.code) {
        Some(code) => code.retry() == Retry::Again,
        None => error.code / 1000 == 1, // a code of a later version: its range says it
    }
}

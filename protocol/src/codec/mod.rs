//! The two encodings of a frame, JSON and MessagePack.
//!
//! Reading happens in two steps. A scan walks the bytes without building anything: it finds where
//! a frame ends, bounds its depth and its maps, and refuses what the encoding does not allow.
//! Only then serde builds the frame, so that nothing is ever allocated by a declared length and
//! no recursion goes deeper than the limit.

mod json;
mod msgpack;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    code::ErrorCode,
    frame::{self, ClientFrame, Incoming, OkFrame},
};

/// How frames are written on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text, ids as strings. WebSocket subprotocol `chappe.v1.json`, HTTP.
    Json,
    /// Named maps. WebSocket subprotocol `chappe.v1.msgpack`, QUIC.
    MessagePack,
}

/// A frame that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The code of the answer.
    pub code: ErrorCode,
    /// The frame's id, as far as it could be told.
    pub id: Option<u32>,
    /// What is wrong. Never repeats the input.
    pub message: String,
}

impl DecodeError {
    fn new(code: ErrorCode) -> Self {
        Self { code, id: None, message: code.message().to_owned() }
    }
}

impl Encoding {
    /// The WebSocket subprotocol of this encoding.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "chappe.v1.json",
            Self::MessagePack => "chappe.v1.msgpack",
        }
    }

    /// Splits off the first frame of `bytes`: several may share a WebSocket message.
    ///
    /// Returns the frame and the rest. Fails if the first value is not complete, not allowed by
    /// the encoding, too deep, or not a map whose command bodies are maps.
    pub fn split_frame(self, bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
        let length = match self {
            Self::Json => json::scan(bytes)?,
            Self::MessagePack => msgpack::scan(bytes)?,
        };
        let (frame, rest) = bytes.split_at(length);
        Ok((frame, if self == Self::Json { rest.trim_ascii_start() } else { rest }))
    }

    /// Reads one client frame. Trailing bytes are refused.
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
        self.decode_scanned(bytes)
    }

    /// Reads one server frame. Trailing bytes are refused.
    pub fn decode_server(self, bytes: &[u8]) -> Result<Incoming, DecodeError> {
        self.decode_scanned(bytes)
    }

    /// Reads the body of an `ok` as `T`.
    pub fn decode_ok<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        self.decode_scanned::<OkFrame<T>>(bytes).map(|frame| frame.ok)
    }

    /// Appends the encoding of `frame` to `out`.
    ///
    /// Panics if the frame cannot be encoded, which no frame of this crate can cause.
    pub fn encode<T: Serialize>(self, frame: &T, out: &mut Vec<u8>) {
        let written = match self {
            Self::Json => serde_json::to_writer(&mut *out, frame).map_err(|e| e.to_string()),
            Self::MessagePack => {
                let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
                frame.serialize(&mut serializer).map_err(|e| e.to_string())
            }
        };
        assert!(written.is_ok(), "every frame can be encoded");
    }

    fn decode_scanned<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        let (frame, rest) = self.split_frame(bytes)?;
        if !rest.is_empty() {
            return Err(DecodeError::new(ErrorCode::Malformed));
        }
        let decoded = match self {
            Self::Json => serde_json::from_slice(frame).map_err(|e| e.to_string()),
            Self::MessagePack => rmp_serde::from_slice(frame).map_err(|e| e.to_string()),
        };
        decoded.map_err(|error| self.explain(&error, frame))
    }

    /// Turns serde's words into a code, and into words that do not repeat the input.
    fn explain(self, error: &str, frame: &[u8]) -> DecodeError {
        let id = match self {
            Self::Json => json::find_id(frame),
            Self::MessagePack => msgpack::find_id(frame),
        };
        let (code, message) = explanation(error);
        DecodeError { code, id, message }
    }
}

fn explanation(error: &str) -> (ErrorCode, String) {
    if error.contains(frame::NO_COMMAND) {
        return (ErrorCode::UnknownCommand, frame::NO_COMMAND.to_owned());
    }
    for known in [frame::TWO_COMMANDS, frame::NO_ID] {
        if error.contains(known) {
            return (ErrorCode::Invalid, known.to_owned());
        }
    }
    for (start, code) in VALUE_RULES {
        if error.contains(start) {
            return (*code, code.message().to_owned());
        }
    }
    // serde names fields, which are ours; what it says of values would repeat the input.
    let field = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| error.split_once(start).map(|(_, rest)| (start, rest)))
        .and_then(|(start, rest)| rest.split_once('`').map(|(name, _)| format!("{start}{name}`")));
    (ErrorCode::Invalid, field.unwrap_or_else(|| ErrorCode::Invalid.message().to_owned()))
}

/// How the rules of [`crate::value`] begin, and their codes.
const VALUE_RULES: &[(&str, ErrorCode)] = &[
    ("text must not be empty", ErrorCode::TextInvalid),
    ("text is longer", ErrorCode::TextInvalid),
    ("text holds", ErrorCode::TextInvalid),
    ("data is larger", ErrorCode::DataTooLarge),
    ("a channel name", ErrorCode::NameInvalid),
    ("a topic", ErrorCode::TopicInvalid),
    ("a reaction", ErrorCode::EmojiInvalid),
    ("a nonce", ErrorCode::NonceInvalid),
];

#[cfg(test)]
mod tests;

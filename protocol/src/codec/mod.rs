//! The two encodings of a frame, JSON and MessagePack.
//!
//! Reading happens in two steps. A scan walks the bytes without building anything: it finds where
//! a frame ends, bounds its depth and its maps, and refuses what either encoding does not allow.
//! Only then serde builds the frame, so that nothing is ever allocated by a declared length and
//! no recursion goes deeper than the limit. An error never repeats what was sent.

mod fault;
mod json;
mod msgpack;
mod nesting;
mod strict;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::fault::Fault;
use crate::{
    code::ErrorCode,
    frame::{ClientFrame, Incoming, OkFrame, WireError},
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
    /// What is wrong, with the field's name where there is one. Never repeats the input.
    pub message: String,
}

impl DecodeError {
    fn new(code: ErrorCode) -> Self {
        Self { code, id: None, message: code.message().to_owned() }
    }

    fn malformed(message: &str) -> Self {
        Self { code: ErrorCode::Malformed, id: None, message: message.to_owned() }
    }
}

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> Self {
        Self::with_message(error.code, error.message)
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
    /// the encoding, too deep, or not a map; then nothing after it can be told apart either.
    pub fn split_frame(self, bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
        let length = match self {
            Self::Json => json::scan(bytes)?,
            Self::MessagePack => msgpack::scan(bytes)?,
        };
        let (frame, rest) = bytes.split_at(length);
        Ok((frame, if self == Self::Json { rest.trim_ascii_start() } else { rest }))
    }

    /// Reads the first client frame of `bytes`, and leaves in `bytes` what follows it: nothing
    /// when the frame's end cannot be told.
    pub fn take_client(self, bytes: &mut &[u8]) -> Result<ClientFrame, DecodeError> {
        let (frame, rest) = self.split_frame(std::mem::take(bytes))?;
        *bytes = rest;
        self.read_client(frame)
    }

    /// Reads one client frame. Trailing bytes are refused.
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
        self.read_client(self.whole(bytes)?)
    }

    /// Reads one server frame. Trailing bytes are refused.
    pub fn decode_server(self, bytes: &[u8]) -> Result<Incoming, DecodeError> {
        self.decode(bytes)
    }

    /// Reads the body of an `ok` as `T`.
    pub fn decode_ok<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        self.decode::<OkFrame<T>>(bytes).map(|frame| frame.ok)
    }

    /// Reads one map as `T`, with the strictness of a frame: what a REST request brings.
    /// Trailing bytes are refused.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        self.read_scanned(self.whole(bytes)?).map_err(|fault| DecodeError {
            code: fault.code(),
            id: None,
            message: fault.to_string(),
        })
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

    fn whole(self, bytes: &[u8]) -> Result<&[u8], DecodeError> {
        let (frame, rest) = self.split_frame(bytes)?;
        if rest.is_empty() { Ok(frame) } else { Err(DecodeError::new(ErrorCode::Malformed)) }
    }

    fn read_client(self, frame: &[u8]) -> Result<ClientFrame, DecodeError> {
        let decoded: ClientFrame = self.read_scanned(frame).map_err(|fault| DecodeError {
            code: fault.code(),
            id: self.read_scanned::<WithId>(frame).ok().map(|frame| frame.id),
            message: fault.to_string(),
        })?;
        match decoded.command.check() {
            Ok(()) => Ok(decoded),
            Err(invalid) => Err(DecodeError {
                code: invalid.code,
                id: Some(decoded.id),
                message: format!("{}: {invalid}", decoded.command.name()),
            }),
        }
    }

    fn read_scanned<T: DeserializeOwned>(self, map: &[u8]) -> Result<T, Fault> {
        match self {
            Self::Json => {
                let text = std::str::from_utf8(map)
                    .map_err(|_| Fault::malformed("the frame is not UTF-8"))?;
                strict::read(&mut serde_json::Deserializer::from_str(text))
            }
            Self::MessagePack => strict::read(&mut rmp_serde::Deserializer::from_read_ref(map)),
        }
    }
}

/// What a frame that was refused is asked for: whom to answer.
#[derive(Deserialize)]
struct WithId {
    id: u32,
}

#[cfg(test)]
mod tests;

//! Requests and responses as bytes: MessagePack with named fields, so that a field can be added.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Request, Response};

/// Bytes that are not a request or response of this version.
#[derive(Debug, thiserror::Error)]
#[error("not a frame of the uplink: {0}")]
pub struct DecodeError(#[from] rmp_serde::decode::Error);

/// What travels on an uplink.
pub trait Frame: Serialize + DeserializeOwned {
    /// Appends the encoding to `out`.
    ///
    /// Panics if it cannot be encoded, which no frame of this crate can cause.
    fn encode(&self, out: &mut Vec<u8>) {
        let written = rmp_serde::encode::write_named(out, self);
        assert!(written.is_ok(), "every frame of the uplink can be encoded");
    }

    /// Reads one frame.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }

    /// Takes one frame from the beginning of `bytes`.
    fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::deserialize(&mut rmp_serde::Deserializer::new(bytes))?)
    }

    /// The revision of the event that this frame delivers, if it delivers one.
    fn event_rev(&self) -> Option<u64> {
        None
    }
}

impl Frame for Request {}

impl Frame for Response {
    fn event_rev(&self) -> Option<u64> {
        match self {
            Self::Event { event, .. } => Some(event.rev.get()),
            _ => None,
        }
    }
}

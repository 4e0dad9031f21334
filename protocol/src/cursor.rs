//! Where a client is: everything that it needs to resume on any gateway.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    id::{ChannelId, Incarnation, Rev},
    limits,
};

/// The last revision that a client holds of each of its channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The incarnation that the revisions belong to; another one's are answered with `reset`.
    pub incarnation: Incarnation,
    /// Channels with the last revision held, at most 1,000.
    pub channels: Vec<(ChannelId, Rev)>,
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct ParseCursorError;

impl Cursor {
    /// The opaque text form, as the `id` of a server-sent event: base64url of MessagePack.
    pub fn to_text(&self) -> String {
        let bytes = rmp_serde::to_vec(self).expect("numbers can always be encoded");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Result<Self, ParseCursorError> {
        if text.len() > limits::FRAME_BYTES_MAX {
            return Err(ParseCursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseCursorError)?;
        let cursor: Self = rmp_serde::from_slice(&bytes).map_err(|_| ParseCursorError)?;
        // A cursor has one spelling: anything else, trailing bytes included, is not ours.
        if cursor.channels.len() > limits::SUBSCRIPTIONS_MAX || cursor.to_text() != text {
            return Err(ParseCursorError);
        }
        Ok(cursor)
    }
}

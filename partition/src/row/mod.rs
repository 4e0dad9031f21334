//! The rows that facts are projected to: what each table's value says, and its bytes.
//!
//! A value is one MessagePack blob. Fields stand by position; later versions append fields.

mod channel;
mod checkpoint;
mod event;
mod inbox;
mod message;

use bytes::Bytes;
use chappe_protocol::{Message, id::POSITION_MAX};
use chappe_storage::store::{Key, Stamp};
use serde::{Deserialize, Serialize};

pub use channel::{ChannelRow, HeadRow, MemberRow};
pub use checkpoint::CheckpointRow;
pub use event::{Detail, EventRow};
pub use inbox::{ListedRow, MentionRow, OutboxRow, ReadMarkerRow, Relayed, RelayedRow};

/// The bytes of a row are not what its table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row cannot be decoded")]
pub struct RowError;

/// A row's value, by table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowValue {
    /// A message as it is.
    Message(Message),
    /// A reference to what happened at a revision.
    Event(EventRow),
    /// Where a channel stands.
    Head(HeadRow),
    /// A channel's settings.
    Channel(ChannelRow),
    /// A member, present or former.
    Member(MemberRow),
    /// A channel in a user's list.
    Listed(ListedRow),
    /// How far a user read.
    ReadMarker(ReadMarkerRow),
    /// A mention of a user.
    Mention(MentionRow),
    /// How far a channel's facts were relayed into an inbox.
    Relayed(RelayedRow),
    /// A fact on its way into an inbox.
    Outbox(OutboxRow),
    /// How far a partition is projected.
    Checkpoint(CheckpointRow),
}

/// A row with the stamp that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampedRow {
    /// What it includes.
    pub stamp: Stamp,
    /// Its value.
    pub value: RowValue,
}

impl RowValue {
    /// Reads the value of the row under `key`.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Self, RowError> {
        Ok(match key {
            Key::Message(_, seq) => Self::Message(message::decode(*seq, bytes)?),
            Key::Event(..) => Self::Event(EventRow::decode(bytes)?),
            Key::Head(_) => Self::Head(from_bytes(bytes)?),
            Key::Channel(_) => Self::Channel(from_bytes(bytes)?),
            Key::Member(..) => Self::Member(from_bytes(bytes)?),
            Key::ChannelOfUser(..) => Self::Listed(from_bytes(bytes)?),
            Key::ReadMarker(..) => Self::ReadMarker(from_bytes(bytes)?),
            Key::Mention(..) => Self::Mention(from_bytes(bytes)?),
            Key::Relayed { .. } => Self::Relayed(from_bytes(bytes)?),
            Key::Outbox { .. } => Self::Outbox(from_bytes(bytes)?),
            Key::Checkpoint(_) => Self::Checkpoint(from_bytes(bytes)?),
        })
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes.into()
    }

    /// Appends its bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(message) => message::encode(message, out),
            Self::Event(row) => row.encode(out),
            Self::Head(row) => to_bytes(row, out),
            Self::Channel(row) => to_bytes(row, out),
            Self::Member(row) => to_bytes(row, out),
            Self::Listed(row) => to_bytes(row, out),
            Self::ReadMarker(row) => to_bytes(row, out),
            Self::Mention(row) => to_bytes(row, out),
            Self::Relayed(row) => to_bytes(row, out),
            Self::Outbox(row) => to_bytes(row, out),
            Self::Checkpoint(row) => to_bytes(row, out),
        }
    }
}

impl StampedRow {
    /// Reads a row as a store gave it.
    pub fn decode(key: &Key, row: &chappe_storage::store::Row) -> Result<Self, RowError> {
        // The other side of `Stamp::at`'s assertion: what a store gives is checked.
        if row.stamp.0 >= POSITION_MAX << 11 {
            return Err(RowError);
        }
        Ok(Self { stamp: row.stamp, value: RowValue::decode(key, &row.value)? })
    }
}

fn to_bytes<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let written = value.serialize(&mut rmp_serde::Serializer::new(out));
    assert!(written.is_ok(), "every row can be encoded");
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RowError> {
    rmp_serde::from_slice(bytes).map_err(|_| RowError)
}

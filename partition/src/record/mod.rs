//! The records of a partition's log: what each one says, and how it is written.
//!
//! A record is a format byte, a kind byte and MessagePack. A reader that meets a format or a kind
//! that it does not know, or a record that it cannot decode to the last byte, must stop: nothing
//! here guesses or skips. The log itself guards the bytes by a checksum; records carry none.

mod codec;
mod fact;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use chappe_protocol::Incarnation;
use chappe_uplink::Generation;

pub use codec::{RecordError, decode, encode};
pub use fact::{
    Archived, ChannelAdded, ChannelRemoved, Created, Deleted, Digest, Edited, Erased, Fact,
    FactBody, MemberAdded, MemberRemoved, Mentioned, MessageCreated, NewMember, Nothing, Reacted,
    ReadMarked, RoleSet, SessionsClosed, Unarchived, Unreacted, Updated,
};

/// The format that this version writes.
pub const FORMAT: u8 = 1;

/// What every broker of this version can read: a recorded [`Record::Level`] above it stops it.
pub const LEVEL_MAX: u32 = 1;

/// The identity of a log, drawn at random when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage(pub u128);

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An entry of a partition's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Offset 0, written when the log is created.
    Genesis(Genesis),
    /// A broker wants to lead. Its epoch is the offset of this record.
    Claim(Claim),
    /// What a leader decided.
    Fact(Arc<Fact>),
    /// Proof that the leader leads, when there was nothing else to append.
    Beat(Mark),
    /// The leader hands over: its epoch ends here.
    Release(Mark),
    /// An operator took the log over into a new incarnation: ends the epoch.
    Adopt(Adopt),
    /// From here on, records may be of kinds that only brokers of this level can read.
    Level(Mark, u32),
    /// The partition is closed for clients (stage 1), then for every fact (stage 2).
    Seal(Mark, u8),
    /// The partition is open again.
    Unseal(Mark),
}

/// The first record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Genesis {
    /// The log's identity.
    pub lineage: Lineage,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A broker's claim to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The log that it believes this to be.
    pub lineage: Lineage,
    /// The incarnation that it believes to be in force.
    pub incarnation: Incarnation,
    /// The broker process.
    pub leader: u64,
    /// Where it can be reached, for people.
    pub address: String,
}

/// An operator's decision to go on with this log as a new incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopt {
    /// The log.
    pub lineage: Lineage,
    /// The incarnation that begins here.
    pub incarnation: Incarnation,
}

/// What every record of a leader carries: whose it is, and its place among that leader's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The leadership.
    pub generation: Generation,
    /// Its number within the epoch, from 1 without a gap.
    pub n: u64,
    /// Milliseconds since 1970 UTC, for display; never less than the record's before.
    pub ts: u64,
    /// Milliseconds of leadership since the log began.
    pub tick: u64,
}

impl Record {
    /// The mark of a record that a leader numbers.
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Fact(fact) => Some(&fact.mark),
            Self::Beat(mark)
            | Self::Release(mark)
            | Self::Level(mark, _)
            | Self::Seal(mark, _)
            | Self::Unseal(mark) => Some(mark),
            Self::Genesis(_) | Self::Claim(_) | Self::Adopt(_) => None,
        }
    }
}

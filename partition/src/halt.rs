//! Why a partition stops for good: what it read is not what it was promised. It never guesses and
//! never skips; an operator decides how to go on.

use chappe_protocol::{ChannelId, Incarnation, Rev};
use chappe_storage::log::Offset;

use crate::{
    project::MissingRow,
    record::{Lineage, RecordError},
};

/// Why a partition stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The log has no record where one must be.
    #[error("the log has a gap: expected offset {expected}, found {found}")]
    Gap {
        /// The offset that comes next.
        expected: Offset,
        /// What came.
        found: Offset,
    },
    /// A record that cannot be taken in.
    #[error("the record at offset {offset} cannot be taken in: {what}")]
    Poison {
        /// Where.
        offset: Offset,
        /// Why.
        what: Poison,
    },
    /// The log is another one than the store's.
    #[error(
        "the log is of lineage {found}, the store of {expected}: restore it, or run `chappe log adopt`"
    )]
    OtherLineage {
        /// The store's.
        expected: Lineage,
        /// The log's.
        found: Lineage,
    },
    /// The checkpoint belongs to another incarnation than the one in force.
    #[error("the checkpoint is of incarnation {found}, in force is {expected}")]
    OtherIncarnation {
        /// In force.
        expected: Incarnation,
        /// The checkpoint's.
        found: Incarnation,
    },
    /// The log does not begin with a genesis record.
    #[error("the log does not begin with a genesis record; create it first")]
    NoGenesis,
    /// The log begins above what is to be replayed first.
    #[error(
        "the log begins at offset {start}, but replay has to begin at {needed}: restore it, or run \
         `chappe log adopt`"
    )]
    Trimmed {
        /// The log's first record.
        start: Offset,
        /// The first that is needed.
        needed: Offset,
    },
    /// The log ends below what is known to have been durable.
    #[error(
        "the log ends at offset {end}, but offset {highest} was durable: it was truncated; restore it, \
         or run `chappe log adopt`"
    )]
    Truncated {
        /// The log's end.
        end: Offset,
        /// The highest that was durable.
        highest: Offset,
    },
    /// The record before the checkpoint is another one than was projected.
    #[error(
        "the record at offset {offset} is not the one that was projected: restore the log, or run \
         `chappe log adopt`"
    )]
    OtherRecord {
        /// Where.
        offset: Offset,
    },
    /// The log cannot be read at a place where it must be.
    #[error("the log cannot be read: {0}")]
    Damaged(String),
    /// The store gave something that it was never given.
    #[error("the store is damaged: {0}")]
    Store(String),
    /// The store lacks a row that a fact changes.
    #[error(transparent)]
    MissingRow(#[from] MissingRow),
}

/// Why a record cannot be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] RecordError),
    /// A level that this version does not reach.
    #[error("level {0} is above what this version reads")]
    Level(u32),
    /// A log has one genesis, at its beginning.
    #[error("a genesis record stands in the middle of the log")]
    MisplacedGenesis,
    /// A counted fact does not follow its channel's last.
    #[error("revision {found} of channel {channel} follows {last}")]
    Revision {
        /// The channel.
        channel: ChannelId,
        /// Its last revision.
        last: Rev,
        /// The fact's.
        found: Rev,
    },
    /// A row that the fact makes is larger than the store takes.
    #[error("a row of {bytes} bytes is larger than the store takes")]
    RowTooLarge {
        /// Its size.
        bytes: usize,
    },
}

//! The store port: rows under typed keys, each with the stamp that it includes.
//!
//! The store is the projection of the log: everything in a stamped table can be written again
//! from there. A backend promises:
//!
//! - **Stamps decide.** A write with an older stamp than the row's changes nothing, whenever it
//!   comes. Equal stamps carry equal bytes, so which of the two stays is all one; only of a
//!   checkpoint two processes may write different ones, and then the larger bytes stay. A removal
//!   beats the write of its own stamp.
//! - **Durable.** [`Store::write`] returns `Ok` only when every row is durable.
//! - **Not atomic.** A write that failed may have been applied, in part too. It is made again with
//!   the same stamps.
//! - **One blob per row.** A value replaces the row's whole value.
//!
//! The conditional tables ([`UniqueKey`]) are the exception: they have no stamps, and are never
//! written by a projection.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg_attr(not(feature = "runtime"), allow(dead_code))] // the byte form is the backends'
mod key;
#[cfg(feature = "runtime")]
pub mod lsm;
#[cfg(feature = "scylla")]
pub mod scylla;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, Seq, UserId};

pub use key::{Key, Table, UniqueKey};

/// What a row includes: `incarnation · 2^40 + rev` (or offset, for checkpoints).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The stamp of a fact at `rev`.
    pub const fn of(incarnation: Incarnation, rev: Rev) -> Self {
        Self::at(incarnation, rev.get())
    }

    /// The stamp of a position, which stays below 2^40.
    pub const fn at(incarnation: Incarnation, position: u64) -> Self {
        assert!(position < chappe_protocol::id::POSITION_MAX && incarnation.0 <= 1_000);
        Self(((incarnation.0 as u64) << 40) + position)
    }

    /// The incarnation in it.
    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 40) as u32)
    }

    /// The position in it.
    pub const fn position(self) -> u64 {
        self.0 & (chappe_protocol::id::POSITION_MAX - 1)
    }
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it includes.
    pub stamp: Stamp,
    /// Its bytes.
    pub value: Bytes,
}

/// One row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Which row.
    pub key: Key,
    /// What it will include.
    pub stamp: Stamp,
    /// Its bytes, or none to remove it: only for rows whose key no later stamp writes again
    /// (a relayed outbox row).
    pub value: Option<Bytes>,
}

/// A range of rows, in the order that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Messages below `seq`, highest first.
    MessagesBefore(ChannelId, Seq),
    /// Messages above `seq`, lowest first.
    MessagesAfter(ChannelId, Seq),
    /// Events above `rev`, lowest first.
    EventsAfter(ChannelId, Rev),
    /// Events at or below `rev`, highest first: a channel's recent past, for its nonces.
    EventsUpTo(ChannelId, Rev),
    /// Members above `user`, lowest first; from the first with none.
    Members(ChannelId, Option<UserId>),
    /// A user's channels above `channel`, lowest first; from the first with none.
    ChannelsByUser(UserId, Option<ChannelId>),
    /// A user's mentions in a channel above `seq`, lowest first.
    Mentions(UserId, ChannelId, Seq),
    /// A partition's outbox, in the order of source channel, target and source revision.
    Outbox(PartitionId),
}

/// A read or write that did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The backend did not answer, or not in time. A write may have been applied.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A row is larger than the backend takes. Nothing will change that.
    #[error("a row of {bytes} bytes is larger than the store takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// The outcome of claiming a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the caller's, now or since an earlier claim with the same value.
    Yes,
    /// It holds this value.
    Taken(Bytes),
}

/// The largest value of a row that every backend takes.
pub const ROW_BYTES_MAX: usize = 1024 * 1024;

/// A table store.
///
/// Every future is safe to drop; a dropped write may have been applied.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes rows. See the module for what holds.
    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError>;

    /// Reads one row.
    async fn get(&self, key: Key) -> Result<Option<Row>, StoreError>;

    /// Reads several rows, in the order asked.
    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError>;

    /// Reads at most `limit` rows of a range.
    async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError>;

    /// Sets a unique key that nobody holds. Linearizable per key. Claiming it again with the same
    /// value succeeds.
    async fn claim(&self, key: UniqueKey, value: Bytes) -> Result<Claimed, StoreError>;

    /// Reads a unique key. Linearizable per key.
    async fn claimed(&self, key: UniqueKey) -> Result<Option<Bytes>, StoreError>;

    /// Frees a unique key if it holds `value`; otherwise changes nothing.
    async fn release(&self, key: UniqueKey, value: Bytes) -> Result<(), StoreError>;

    /// At most `limit` rows of a whole table, in an order of the backend's own: those after the
    /// row of `after`, or the first ones. None at all only at the end.
    ///
    /// Page after page, each from the last row of the one before, brings every row that was there
    /// all the time, once; also over restarts. What is written meanwhile may come or not.
    async fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError>;

    /// The same of the channels' names and what they hold.
    async fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError>;

    /// Drops the events of a channel up to `rev`, as far as whole buckets allow.
    async fn expire_events(&self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError>;
}

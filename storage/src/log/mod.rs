//! The log port: partitions of records, each with a dense offset.
//!
//! ```text
//!   start (first kept)                    end (next to be written)
//!     |                                      |
//!     v                                      v
//!     [ 4 ][ 5 ][ 6 ][ 7 ][ 8 ][ 9 ][ 10 ]   11 …
//!       \____ readable: durable ________/
//! ```
//!
//! A backend promises:
//!
//! - **Order.** Records of one partition get offsets in the order in which they were appended
//!   through one [`Appender`]; acknowledgements come in that order, per partition.
//! - **Durability.** [`Acked`] with an offset is given only after the record is durable
//!   (`fdatasync`, or `acks=all`). Only durable records are ever read.
//! - **Density.** Offsets of a partition have no gap, whoever wrote.
//! - **Doubt.** An append that failed after it was accepted may or may not be in the log, and may
//!   even turn up later; a reader decides by the records' own content.
//! - **Refusal.** An append that was refused by [`Appender::append`] is not in the log and never
//!   will be.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "runtime")]
pub mod segment;

#[cfg(feature = "runtime")]
use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::PartitionId;
#[cfg(feature = "runtime")]
use tokio::sync::mpsc;

/// A record's place in its partition. The first record's is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub offset: Offset,
    /// Its bytes, whose checksum was right.
    pub record: Bytes,
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first record that is kept; equal to `end` when there is none.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
}

/// The outcome of one append, in the order of the appends of its partition.
#[derive(Debug)]
pub struct Acked {
    /// The partition.
    pub partition: PartitionId,
    /// The token that the append was made with.
    pub token: u64,
    /// The record's offset, once it is durable; or why that is not certain.
    pub result: Result<Offset, AppendError>,
}

/// The outcomes of an appender's appends, batch by batch. As many can wait as there are bytes in
/// flight, so the channel's own limit is never what holds a backend up.
#[cfg(feature = "runtime")]
pub type Acks = mpsc::Receiver<Vec<Acked>>;

/// The log takes no append now. Nothing was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The bytes in flight are at their limit; it clears as acknowledgements come.
    #[error("the log's queue is full")]
    Full,
    /// There is no space. Appends are taken again once there is.
    #[error("the log's disk is full")]
    NoSpace,
    /// A write failed; nothing is taken before a restart.
    #[error("the log failed and needs a restart")]
    Failed,
    /// The record is larger than the log takes.
    #[error("the record is larger than the log takes")]
    TooLarge,
}

/// It is not certain whether an accepted record is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an append may or may not be in the log: {0}")]
pub struct AppendError(pub String);

/// A read that brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the first that is kept.
    #[error("the log is trimmed to {start}")]
    Trimmed {
        /// The first that is kept.
        start: Offset,
    },
    /// The record there is damaged.
    #[error("the log is damaged at offset {at} of partition {partition}: {what}")]
    Damaged {
        /// The partition.
        partition: PartitionId,
        /// The record.
        at: Offset,
        /// What is wrong with it.
        what: String,
    },
    /// The backend did not answer.
    #[error("the log cannot be read: {0}")]
    Unavailable(String),
}

/// A partitioned log.
#[cfg(feature = "runtime")]
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// How many partitions there are. Fixed when the log is created.
    fn partitions(&self) -> u32;

    /// A way to append, for one caller, and the outcomes of what it appends.
    ///
    /// Each call starts a queue of its own with its own limit. Order is promised among the appends
    /// of one appender.
    fn appender(&self) -> (Box<dyn Appender>, Acks);

    /// The durable records of `partition` from `from` on, at most about `bytes_max` bytes of them
    /// but at least one, if there is one. Empty at the end of the log; does not wait.
    ///
    /// Safe to drop.
    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError>;

    /// First and next offset of a partition. Safe to drop.
    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, ReadError>;

    /// Allows everything below `below` to be forgotten. What is forgotten when is the backend's
    /// affair (whole segments, once they are older than the retention); reads of a record that is
    /// still there go on working. Never forgets at or above `below`.
    async fn trim(&self, partition: PartitionId, below: Offset) -> Result<(), ReadError>;
}

/// Appends records. Not a future: the caller hands over and goes on; [`Acks`] tells the outcome.
pub trait Appender: Send + 'static {
    /// Hands one record over. `token` comes back with its outcome.
    ///
    /// On `Ok` exactly one [`Acked`] will follow the next [`flush`](Self::flush), also when the log
    /// fails or is closed. On `Err` nothing was accepted and none will.
    fn append(
        &mut self,
        partition: PartitionId,
        token: u64,
        record: Bytes,
    ) -> Result<(), AppendRefused>;

    /// Sends on their way what was appended since the last call, so that they can share a commit.
    /// They may leave earlier, and without it late.
    fn flush(&mut self);
}

//! The ownership port: which partitions this process is to lead.
//!
//! Ownership is about liveness: somebody leads each partition, and soon somebody else when he is
//! gone. It is no proof: two processes may believe for a while that they own the same partition.
//! What keeps them apart is the claim in the log.
//!
//! A backend promises:
//!
//! - **One change after another.** For each partition the changes alternate: [`Change::Assigned`],
//!   then [`Change::Revoked`] or [`Change::Lost`], then perhaps `Assigned` again.
//! - **A hand-over waits.** After `Revoked` nobody else is given the partition before
//!   [`Ownership::release`], or a deadline. After `Lost` somebody else may have it already.
//! - **A commit is a proof of the present.** [`Ownership::commit`] returns `Ok` only if this
//!   process owned the partition when the commit was taken, which was after the call. Whoever was
//!   deposed by a claim and still seems to own the partition claims again only after one.
//! - **A commit is remembered.** [`Ownership::committed`] gives what was committed last, by
//!   whoever owned the partition then, or an older commit of it. It is a copy for those who cannot
//!   reach the store, which is the truth.
//! - **Limits.** The changes of a process that does not read them are bounded: it leaves instead,
//!   and the changes end.

mod all;
#[cfg(feature = "kafka")]
pub mod kafka;

use async_trait::async_trait;
use chappe_protocol::PartitionId;
use tokio::sync::mpsc;

pub use self::all::All;
use crate::log::Offset;

/// What became of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// This process is to lead it.
    Assigned(PartitionId),
    /// Somebody else is to lead it, who waits for [`Ownership::release`].
    Revoked(PartitionId),
    /// Somebody else may lead it already. There is nothing to hand over.
    Lost(PartitionId),
}

/// The changes, in order. They end when this process has left.
pub type Changes = mpsc::Receiver<Change>;

/// Why a commit was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// This process does not own the partition. A change says so, or soon will.
    #[error("this process does not own the partition")]
    NotOwner,
    /// Partitions are being given out anew. Another try may succeed.
    #[error("the owners are being decided anew")]
    Deciding,
    /// Nobody answered. It may have been taken or not.
    #[error("ownership cannot be confirmed: {0}")]
    Unavailable(String),
}

/// How far a partition is projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Everything below is in the store.
    pub offset: Offset,
    /// What a successor needs beside it, in words of the owner's; at most [`NOTE_BYTES_MAX`].
    pub note: String,
}

/// The longest note that every backend takes (Kafka's `offset.metadata.max.bytes` is 4,096).
pub const NOTE_BYTES_MAX: usize = 4_096;

/// Which partitions this process is to lead.
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// Makes known how far `partition` is projected, and proves with it that this process owns
    /// it. Dropping it leaves open whether it was taken.
    async fn commit(&self, partition: PartitionId, progress: Progress) -> Result<(), CommitError>;

    /// What was committed for `partition`, if anything was. Safe to drop.
    async fn committed(&self, partition: PartitionId) -> Result<Option<Progress>, CommitError>;

    /// Says that a revoked partition is handed over. Means nothing for one that is not revoked.
    fn release(&self, partition: PartitionId);

    /// Gives up all partitions, each with its hand-over, and waits until they can be given to
    /// others. The changes go on meanwhile: somebody must read them and release.
    async fn leave(&self);
}

//! Ownership by a consumer group of Kafka: a partition that is assigned is one to lead.
//!
//! ```text
//!   Kafka ──rebalance──> member thread ──Assigned, Revoked, Lost──> changes
//!                          |  waits  <───────── release ───────────┘
//!                          └─ commits, one request at a time
//! ```
//!
//! Membership only: what is assigned is paused, and nothing is ever fetched through the group.
//! Kafka's own tools therefore show who leads what, and the committed offsets how far each
//! partition is projected. Assignment is cooperative and sticky: what does not move goes on.
//!
//! A commit carries the member's id and its generation, so that one who was thrown out is told so.
//! Kafka does not look whether the partition is the member's; this side does, before and after.

mod committed;
mod config;
mod held;
mod member;
mod members;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use chappe_protocol::PartitionId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use self::committed::Committed;
pub use self::config::{GroupConfig, JoinError};
use self::held::Held;
pub use self::members::{MembersError, members};
use super::{Changes, CommitError, NOTE_BYTES_MAX, Ownership, Progress};

/// A member of the group. Dropping it leaves the group without waiting for that.
pub struct Group {
    config: GroupConfig,
    held: Arc<Held>,
    committed: Committed,
    /// Closed when the member has left.
    left: watch::Receiver<()>,
}

impl Group {
    /// Joins the group. Returns at once; that Kafka answers is seen by the changes.
    pub fn join(config: GroupConfig) -> Result<(Self, Changes), JoinError> {
        config.check()?;
        // A partition changes hands twice, unread, before its member is thought to be dead.
        let (sender, changes) = mpsc::channel(4 * config.partitions as usize);
        let held = Arc::new(Held::new(config.partitions, sender));
        let (ended, left) = watch::channel(());
        member::start(config.clone(), Arc::clone(&held), ended)?;
        let committed = Committed::default();
        Ok((Self { config, held, committed, left }, changes))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.held.leave();
    }
}

#[async_trait]
impl Ownership for Group {
    async fn commit(&self, partition: PartitionId, progress: Progress) -> Result<(), CommitError> {
        assert!(progress.note.len() <= NOTE_BYTES_MAX, "a note fits");
        let (answer, answered) = oneshot::channel();
        self.held.ask(partition, progress, answer)?;
        match timeout(self.config.call_timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CommitError::NotOwner),
            Err(_) => Err(CommitError::Unavailable("no answer in time".to_owned())),
        }
    }

    async fn committed(&self, partition: PartitionId) -> Result<Option<Progress>, CommitError> {
        self.committed.of(partition, &self.config).await
    }

    fn release(&self, partition: PartitionId) {
        self.held.release(partition);
    }

    async fn leave(&self) {
        self.held.leave();
        let mut left = self.left.clone();
        // It never changes, it only ends.
        left.changed().await.ok();
    }
}

//! Ownership where there is one process only: it owns everything.

use async_trait::async_trait;
use chappe_protocol::PartitionId;
use tokio::sync::mpsc;

use super::{Change, Changes, CommitError, Ownership, Progress};

/// Owns all partitions from the beginning. What proves it is the lock on the data.
#[derive(Debug)]
pub struct All {
    partitions: u32,
    /// Its end is the end of the changes.
    changes: std::sync::Mutex<Option<mpsc::Sender<Change>>>,
}

impl All {
    /// Owns that many partitions.
    #[must_use]
    pub fn new(partitions: u32) -> (Self, Changes) {
        let (sender, changes) = mpsc::channel(partitions.max(1) as usize);
        for partition in (0..partitions).map(PartitionId) {
            let told = sender.try_send(Change::Assigned(partition));
            assert!(told.is_ok(), "there is a place for each partition");
        }
        (Self { partitions, changes: Some(sender).into() }, changes)
    }
}

#[async_trait]
impl Ownership for All {
    async fn commit(&self, partition: PartitionId, _: Progress) -> Result<(), CommitError> {
        if partition.0 < self.partitions { Ok(()) } else { Err(CommitError::NotOwner) }
    }

    /// The store is in the same process: nobody needs a copy.
    async fn committed(&self, _: PartitionId) -> Result<Option<Progress>, CommitError> {
        Ok(None)
    }

    fn release(&self, _: PartitionId) {}

    /// Nobody waits for what is given up, so nothing is revoked.
    async fn leave(&self) {
        self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Offset;

    #[tokio::test]
    async fn one_process_owns_everything_at_once_until_it_leaves() {
        let (all, mut changes) = All::new(3);
        for partition in 0..3 {
            assert_eq!(changes.try_recv(), Ok(Change::Assigned(PartitionId(partition))));
        }
        assert!(changes.try_recv().is_err());
        let progress = Progress { offset: Offset(7), note: String::new() };
        assert_eq!(all.commit(PartitionId(2), progress.clone()).await, Ok(()));
        assert_eq!(all.commit(PartitionId(3), progress).await, Err(CommitError::NotOwner));
        all.leave().await;
        assert_eq!(changes.recv().await, None);
    }
}

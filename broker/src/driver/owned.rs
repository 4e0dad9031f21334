//! Which of a driver's partitions are this process's to lead, and what the ownership's backend is
//! told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chappe_partition::{Assignment, Leadership, Now, Partition, Standing};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::Offset,
    ownership::{CommitError, Ownership},
};
use tokio::{task::spawn_local, time::timeout};

use super::inbox::{Inbox, Input};

/// A checkpoint is told, and a deposed leader's ownership tried to be proved, this often.
const COMMIT_EVERY_MS: u64 = 1_000;
/// A commit without an answer by then is given up.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Owned {
    ownership: Arc<dyn Ownership>,
    /// The log that is led.
    pub(super) assignment: Assignment,
    leadership: Leadership,
    inbox: Inbox,
    partitions: BTreeSet<PartitionId>,
    commits: BTreeMap<PartitionId, Commits>,
    looked_ms: u64,
}

/// What was told of a partition's checkpoint.
#[derive(Default)]
struct Commits {
    told: Option<Offset>,
    under_way: bool,
}

impl Owned {
    pub(super) fn new(
        ownership: Arc<dyn Ownership>,
        assignment: Assignment,
        leadership: Leadership,
        inbox: Inbox,
    ) -> Self {
        let (partitions, commits) = Default::default();
        Self { ownership, assignment, leadership, inbox, partitions, commits, looked_ms: 0 }
    }

    pub(super) fn gain(&mut self, partition: PartitionId) {
        self.partitions.insert(partition);
        self.commits.remove(&partition);
    }

    pub(super) fn lose(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// A partition is handed over.
    pub(super) fn release(&self, partition: PartitionId) {
        self.ownership.release(partition);
    }

    /// Whether a deposed leader may claim again now that its ownership is proved.
    pub(super) fn may_claim_again(&self, partition: &Partition, now: Now) -> bool {
        self.partitions.contains(&partition.id()) && partition.may_claim_again(now)
    }

    /// Tells how far partitions are projected, and proves what deposed leaders need proved: a
    /// commit does both.
    pub(super) fn look(&mut self, partitions: &[Partition], now: Now) {
        if now.boot_ms < self.looked_ms + COMMIT_EVERY_MS {
            return;
        }
        self.looked_ms = now.boot_ms;
        for partition in partitions.iter().filter(|one| self.partitions.contains(&one.id())) {
            let checkpoint = partition.checkpoint();
            let commits = self.commits.entry(partition.id()).or_default();
            let is_news = partition.standing() == Standing::Leading
                && checkpoint.is_some_and(|offset| commits.told != Some(offset));
            let proves = self.leadership != Leadership::Lock && partition.may_claim_again(now);
            if commits.under_way || !(is_news || proves) {
                continue;
            }
            commits.under_way = true;
            let (id, offset) = (partition.id(), checkpoint.unwrap_or(Offset(0)));
            let (ownership, inbox) = (Arc::clone(&self.ownership), self.inbox.clone());
            spawn_local(async move {
                let late = || Err(CommitError::Unavailable("no answer in 10 s".to_owned()));
                let committed = timeout(TIMEOUT, ownership.commit(id, offset)).await;
                let committed = committed.unwrap_or_else(|_| late()).map(|()| offset);
                inbox.push(Input::Committed(id, committed));
            });
        }
    }

    /// The outcome of a commit. Whether it proves that the partition is owned.
    pub(super) fn committed(
        &mut self,
        partition: PartitionId,
        outcome: Result<Offset, CommitError>,
    ) -> bool {
        let Some(commits) = self.commits.get_mut(&partition) else { return false };
        commits.under_way = false;
        match outcome {
            Ok(offset) => {
                commits.told = Some(offset);
                true
            }
            Err(error) => {
                tracing::debug!(%partition, %error, "a checkpoint was not told; it will be later");
                false
            }
        }
    }
}

//! Which of a driver's partitions are this process's to lead, and what the ownership's backend is
//! told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use bytes::Bytes;
use chappe_partition::{Assignment, Leadership, Now, Partition, Standing};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::Offset,
    ownership::{CommitError, Ownership, Progress},
};
use chappe_uplink::Generation;
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
    /// What is under way was begun after a deposition.
    proves: bool,
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

    /// Whether a partition is this process's to lead.
    pub(super) fn holds(&self, partition: PartitionId) -> bool {
        self.partitions.contains(&partition)
    }

    /// Says in the process's log that it leads a partition now, or no longer. Where leadership
    /// cannot move, there is nothing to follow.
    pub(super) fn log(&self, partition: PartitionId, generation: Option<Generation>) {
        if self.leadership == Leadership::Lock {
            return;
        }
        match generation {
            Some(generation) => tracing::info!(%partition, epoch = generation.epoch, "leads"),
            None => tracing::info!(%partition, "leads no more"),
        }
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
            (commits.under_way, commits.proves) = (true, proves);
            let id = partition.id();
            let noted = partition.checkpoint_noted().map(|row| BASE64.encode(row));
            let progress = checkpoint.zip(noted).map(|(offset, note)| Progress { offset, note });
            let (ownership, inbox) = (Arc::clone(&self.ownership), self.inbox.clone());
            spawn_local(async move {
                let late = || Err(CommitError::Unavailable("no answer in 10 s".to_owned()));
                let committed = timeout(TIMEOUT, commit(&*ownership, id, progress)).await;
                inbox.push(Input::Committed(id, committed.unwrap_or_else(|_| late())));
            });
        }
    }

    /// The checkpoint that was told last of a partition, whoever told it.
    pub(super) fn noted(
        &self,
        partition: PartitionId,
    ) -> impl Future<Output = Option<Bytes>> + use<> {
        let ownership = Arc::clone(&self.ownership);
        async move {
            match timeout(TIMEOUT, ownership.committed(partition)).await.ok()? {
                Ok(told) => told.and_then(|told| BASE64.decode(told.note).ok()).map(Bytes::from),
                Err(error) => {
                    tracing::debug!(%partition, %error, "no noted checkpoint");
                    None
                }
            }
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
                commits.proves
            }
            Err(error) => {
                tracing::debug!(%partition, %error, "a checkpoint was not told; it will be later");
                false
            }
        }
    }
}

/// Tells how far a partition is projected. Whoever does not know proves only that he owns it, and
/// leaves what was told before.
async fn commit(
    ownership: &dyn Ownership,
    partition: PartitionId,
    progress: Option<Progress>,
) -> Result<Offset, CommitError> {
    let progress = match progress {
        Some(progress) => progress,
        None => ownership
            .committed(partition)
            .await?
            .unwrap_or(Progress { offset: Offset(0), note: String::new() }),
    };
    let offset = progress.offset;
    ownership.commit(partition, progress).await.map(|()| offset)
}

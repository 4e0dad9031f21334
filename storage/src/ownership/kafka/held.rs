//! What a member holds, what waits to be handed over, and which commits wait for an answer.
//!
//! Knows nothing of Kafka. The member's thread moves it on; the port's calls look and ask.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chappe_protocol::PartitionId;
use tokio::sync::{mpsc, oneshot};

use crate::ownership::{Change, CommitError, Progress};

type Answer = oneshot::Sender<Result<(), CommitError>>;

/// What a member holds.
pub(super) struct Held {
    partitions: u32,
    state: Mutex<State>,
    /// A release came.
    released: Condvar,
    /// There is something to commit, or there never will be.
    asked: Condvar,
}

struct State {
    held: BTreeMap<PartitionId, Stand>,
    /// Commits that wait for the next request: the highest offset of each partition.
    wanted: BTreeMap<PartitionId, Wanted>,
    /// Those of the request under way.
    asked: BTreeMap<PartitionId, Wanted>,
    takes_commits: bool,
    is_leaving: bool,
    /// Gone when nothing more is told.
    changes: Option<mpsc::Sender<Change>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Leads,
    HandsOver,
    Released,
}

struct Wanted {
    progress: Progress,
    answers: Vec<Answer>,
}

impl Held {
    pub(super) fn new(partitions: u32, changes: mpsc::Sender<Change>) -> Self {
        let (released, asked) = <_>::default();
        Self { partitions, state: Mutex::new(State::new(changes)), released, asked }
    }

    /// These are the member's now.
    pub(super) fn assigned(&self, partitions: &[PartitionId]) {
        let mut state = self.lock();
        for partition in partitions.iter().filter(|partition| partition.0 < self.partitions) {
            if state.held.insert(*partition, Stand::Leads).is_none() {
                state.tell(Change::Assigned(*partition));
            }
        }
    }

    /// These are to be handed over: waits until they are, at most `patience`. They are the
    /// member's until [`gave_up`](Self::gave_up). Returns those that were not released.
    pub(super) fn hand_over(
        &self,
        partitions: &[PartitionId],
        patience: Duration,
    ) -> Vec<PartitionId> {
        let mut state = self.lock();
        for partition in partitions {
            if let Some(stand @ Stand::Leads) = state.held.get_mut(partition) {
                *stand = Stand::HandsOver;
                state.tell(Change::Revoked(*partition));
            }
        }
        let hands_over =
            |state: &State, id: &PartitionId| state.held.get(id) == Some(&Stand::HandsOver);
        // Without a reader nobody will release anything.
        let waits = |state: &mut State| {
            state.changes.as_ref().is_some_and(|changes| !changes.is_closed())
                && partitions.iter().any(|partition| hands_over(state, partition))
        };
        let waited = self.released.wait_timeout_while(state, patience, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        partitions.iter().copied().filter(|partition| hands_over(&state, partition)).collect()
    }

    /// These are no longer the member's. Nobody is told again of one that was revoked.
    pub(super) fn gave_up(&self, partitions: &[PartitionId]) {
        let mut state = self.lock();
        for partition in partitions {
            state.forget(*partition);
        }
    }

    /// All is lost.
    pub(super) fn lost_all(&self) {
        let held: Vec<_> = self.lock().held.keys().copied().collect();
        self.gave_up(&held);
    }

    /// Asks for a commit.
    pub(super) fn ask(
        &self,
        partition: PartitionId,
        progress: Progress,
        answer: Answer,
    ) -> Result<(), CommitError> {
        let mut state = self.lock();
        if !state.held.contains_key(&partition) || state.is_leaving {
            return Err(CommitError::NotOwner);
        }
        let new = || Wanted { progress: progress.clone(), answers: Vec::new() };
        let wanted = state.wanted.entry(partition).or_insert_with(new);
        if wanted.progress.offset < progress.offset {
            wanted.progress = progress;
        }
        // Those that gave up are not answered, and do not add up.
        wanted.answers.retain(|answer| !answer.is_closed());
        wanted.answers.push(answer);
        self.asked.notify_one();
        Ok(())
    }

    /// Waits for the commits of the next request. None when there will be no more.
    pub(super) fn next_request(&self) -> Option<Vec<(PartitionId, Progress)>> {
        let has_none = |state: &mut State| state.wanted.is_empty() && state.takes_commits;
        let waited = self.asked.wait_while(self.lock(), has_none);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.asked.is_empty(), "one request at a time");
        if !std::mem::replace(&mut state.takes_commits, true) {
            return None;
        }
        state.asked = std::mem::take(&mut state.wanted);
        Some(state.asked.iter().map(|(id, wanted)| (*id, wanted.progress.clone())).collect())
    }

    /// Answers the request under way. What was given up meanwhile was answered then.
    pub(super) fn answer(&self, result: Result<(), CommitError>) {
        let asked = std::mem::take(&mut self.lock().asked);
        for answer in asked.into_values().flat_map(|wanted| wanted.answers) {
            // Whoever gave up waiting does not want to know.
            answer.send(result.clone()).ok();
        }
    }

    /// Ends the requests, once.
    pub(super) fn close_commits(&self) {
        self.lock().takes_commits = false;
        self.asked.notify_one();
    }

    /// Says that a partition is handed over.
    pub(super) fn release(&self, partition: PartitionId) {
        if let Some(stand @ Stand::HandsOver) = self.lock().held.get_mut(&partition) {
            *stand = Stand::Released;
            self.released.notify_one();
        }
    }

    pub(super) fn leave(&self) {
        self.lock().is_leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.lock().is_leaving
    }

    /// Ends the changes.
    pub(super) fn end(&self) {
        self.lost_all();
        self.lock().changes = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(changes: mpsc::Sender<Change>) -> Self {
        let (held, wanted, asked) = <_>::default();
        let changes = Some(changes);
        Self { held, wanted, asked, takes_commits: true, is_leaving: false, changes }
    }

    fn forget(&mut self, partition: PartitionId) {
        if self.held.remove(&partition) == Some(Stand::Leads) {
            self.tell(Change::Lost(partition));
        }
        let waiting = [self.wanted.remove(&partition), self.asked.remove(&partition)];
        for answer in waiting.into_iter().flatten().flat_map(|wanted| wanted.answers) {
            answer.send(Err(CommitError::NotOwner)).ok();
        }
    }

    fn tell(&mut self, change: Change) {
        let Some(changes) = &self.changes else { return };
        if changes.try_send(change).is_err() {
            // An owner that does not listen leads nothing: the group is to give it to others.
            tracing::error!("nobody reads what this process is to lead: it leaves the group");
            self.changes = None;
            self.is_leaving = true;
        }
    }
}

//! What the store and the log were asked and have not answered, numbered in the order of asking.

use std::collections::BTreeMap;

use chappe_protocol::{ChannelId, SessionId};
use chappe_storage::store::Key;

use crate::{expiry::ExpiryJob, names::NameJob, read::Page};

pub(crate) struct Jobs {
    next: u64,
    open: BTreeMap<u64, Job>,
}

/// What an answer is for.
pub(crate) enum Job {
    /// The log's bounds or records, for a takeover or over a jump.
    Log,
    /// The checkpoint, to take over from.
    Checkpoint,
    /// The store's checkpoint, for a leadership that rests on a noted one.
    Noted,
    /// A channel's state.
    Load(ChannelId),
    /// A row that a session's command needs.
    Row(ChannelId, SessionId, Key),
    /// A name that a session's command needs, or that is to be freed.
    Name(NameJob),
    /// A page for a reader.
    Page(Box<Page>),
    /// The partition's outbox, to go on with.
    Outbox,
    /// The rows that a batch of facts changes, their writing, their checkpoint.
    Projection,
    /// A channel's oldest events, and whether they go.
    Expiry(ExpiryJob),
    /// The removal of outbox rows that were sent.
    Sent,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self { next: 1, open: BTreeMap::new() }
    }

    pub(crate) fn begin(&mut self, job: Job) -> u64 {
        let token = self.next;
        self.next += 1;
        self.open.insert(token, job);
        token
    }

    /// Goes on with a job that was just ended, under its old number: what it read first is as old
    /// as that, so a fact that was projected since must stay in the tail until it is over.
    pub(crate) fn go_on(&mut self, token: u64, job: Job) -> u64 {
        assert!(token < self.next, "only what was begun goes on");
        let before = self.open.insert(token, job);
        assert!(before.is_none(), "a job goes on once");
        token
    }

    /// The job with this token, unless it was dropped meanwhile.
    pub(crate) fn end(&mut self, token: u64) -> Option<Job> {
        self.open.remove(&token)
    }

    /// The oldest that is open.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.open.keys().next().copied()
    }

    /// What the next one will be called.
    pub(crate) const fn upcoming(&self) -> u64 {
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether an answer with this token is waited for.
    pub(crate) fn is_open(&self, token: u64) -> bool {
        self.open.contains_key(&token)
    }

    /// Drops all: their answers will be ignored.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Job> + use<> {
        std::mem::take(&mut self.open).into_values()
    }
}

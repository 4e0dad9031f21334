//! What comes back from the store, and the commands that waited for it.
//!
//! A command that needs a row or a name waits, and with it its session's later commands for that
//! channel; other sessions go on.

use std::collections::VecDeque;

use chappe_protocol::{ChannelId, ErrorCode, SessionId};
use chappe_storage::store::{Key, StoreError};
use chappe_uplink::Refusal;

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::Now,
    halt::Halt,
    jobs::Job,
    partition::Partition,
    project::{Touch, project, stamp, touches},
    row::{RowValue, StampedRow},
    slot::{Parked, Slot, Waiting},
};

impl Partition {
    /// Gives what [`Action::ReadStore`] asked for.
    pub fn handle_found(&mut self, now: Now, token: u64, found: Result<StoreFound, StoreError>) {
        if let Err(StoreError::Damaged(what)) = found {
            if self.jobs.is_open(token) {
                self.halt_by(now, Halt::Store(what)); // answers this one, too
            }
            return;
        }
        let Some(job) = self.jobs.end(token) else { return };
        let found = found.ok();
        match job {
            Job::Checkpoint => self.checkpoint_found(now, found),
            Job::Noted => self.noted_compared(now, found),
            Job::Load(channel) => self.load_found(now, token, channel, found),
            Job::Row(channel, session, key) => self.row_found(now, channel, session, key, found),
            Job::Name(job) => self.name_found(now, job, found),
            Job::Page(page) => self.page_found(now, token, *page, found),
            Job::Outbox => self.outbox_found(now, found),
            Job::Projection => self.projection_found(now, found),
            Job::Expiry(job) => self.expiry_found(now, job, found),
            Job::Sent | Job::Log => {}
        }
        self.forget_projected();
        self.proceed(now);
    }

    /// Says how [`Action::WriteStore`], [`Action::ReleaseName`] or [`Action::ExpireEvents`] ended.
    pub fn handle_written(&mut self, now: Now, token: u64, result: Result<(), StoreError>) {
        match self.jobs.end(token) {
            Some(Job::Projection) => self.projection_written(now, result),
            Some(Job::Sent) => self.sent_removed(now, result),
            Some(Job::Expiry(job)) => self.events_expired(job, result),
            Some(Job::Name(job)) => self.name_released(now, job, result),
            _ => {}
        }
        self.forget_projected();
        self.proceed(now);
    }

    /// Reads a row for a command, which waits with its session.
    pub(crate) fn want_row(&mut self, key: Key, channel: ChannelId, session: SessionId) {
        let token = self.jobs.begin(Job::Row(channel, session, key));
        let read = StoreRead::Rows(vec![key]);
        self.actions.push_back(Action::ReadStore { token, read });
    }

    /// Lets a session's commands for a channel wait, this one first.
    pub(crate) fn park(&mut self, channel: ChannelId, session: SessionId, waiting: Waiting) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.parked.push(Parked { session, commands: VecDeque::from([waiting]) });
        self.parked += 1;
    }

    /// The commands of a session go on, before anything that came later.
    pub(crate) fn unpark(&mut self, now: Now, channel: ChannelId, session: SessionId) {
        for waiting in self.parked_of(channel, session).into_iter().rev() {
            self.ready.push_front(waiting);
        }
        self.proceed(now);
    }

    /// The command at the head is refused; the session's others go on.
    pub(crate) fn refuse_parked(
        &mut self,
        now: Now,
        channel: ChannelId,
        session: SessionId,
        refusal: &Refusal,
    ) {
        let mut commands = self.parked_of(channel, session);
        if let Some(to) = commands.pop_front().and_then(|waiting| waiting.to()) {
            self.answer(now, to, Err(refusal.clone()));
        }
        for waiting in commands.into_iter().rev() {
            self.ready.push_front(waiting);
        }
        self.proceed(now);
    }

    fn parked_of(&mut self, channel: ChannelId, session: SessionId) -> VecDeque<Waiting> {
        let Some(slot) = self.slots.get_mut(&channel) else { return VecDeque::new() };
        let Some(at) = slot.parked.iter().position(|parked| parked.session == session) else {
            return VecDeque::new();
        };
        let parked = slot.parked.swap_remove(at);
        self.parked -= parked.commands.len();
        parked.commands
    }

    fn row_found(
        &mut self,
        now: Now,
        channel: ChannelId,
        session: SessionId,
        key: Key,
        found: Option<StoreFound>,
    ) {
        let Some(StoreFound::Rows(rows)) = found else {
            let refusal =
                Refusal::new(ErrorCode::StoreUnavailable).retry_after(STORE_UNAVAILABLE_MS);
            return self.refuse_parked(now, channel, session, &refusal);
        };
        let row = rows.into_iter().flatten().next();
        let Ok(row) = row.map(|row| StampedRow::decode(&key, &row)).transpose() else {
            return self.halt_by(now, Halt::Store(format!("a row of {:?}", key.table())));
        };
        let Some(slot) = self.slots.get(&channel) else { return };
        let row = lay_over(slot, &key, row);
        self.hot.keep(key, row);
        self.unpark(now, channel, session);
    }
}

/// Lays the tail of a channel over one of its rows.
pub(crate) fn lay_over(slot: &Slot, key: &Key, row: Option<StampedRow>) -> Option<RowValue> {
    let mut row = row;
    for fact in &slot.tail {
        let stamp = stamp(fact);
        if row.as_ref().is_some_and(|row| row.stamp >= stamp) {
            continue;
        }
        let mut touched = false;
        // The partition stands in the keys of the outbox alone, which nobody reads this way.
        let partition = chappe_protocol::PartitionId(0);
        touches(fact, partition, &mut |touch: Touch| touched |= touch.key == *key);
        if touched {
            let old = row.take().map(|row| row.value);
            let offset = chappe_storage::log::Offset(0);
            row = project(fact, offset, key, old).ok().map(|value| StampedRow { stamp, value });
        }
    }
    row.map(|row| row.value)
}

/// What a store that cannot be read tells to wait.
pub(crate) const STORE_UNAVAILABLE_MS: u64 = 500;

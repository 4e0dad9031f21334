//! Loading a channel: its settings, its head, its members and the nonces of the last ten minutes,
//! read in steps, with the facts that the store lacks laid over them. Only that channel waits.

use std::collections::BTreeMap;

use chappe_protocol::{
    ChannelId, ErrorCode, Rev, UserId, id::POSITION_MAX, limits::NONCE_WINDOW_MS,
};
use chappe_storage::store::{Key, Row, Scan};
use chappe_uplink::Refusal;

use crate::{
    action::{Action, StoreFound, StoreRead},
    channel::{ChannelState, MemberState},
    config::Now,
    halt::{Halt, Poison},
    jobs::Job,
    partition::Partition,
    project::{Touch, project, stamp, touches},
    row::{EventRow, HeadRow, RowValue, StampedRow},
    rows_wanted::STORE_UNAVAILABLE_MS,
    slot::{Slot, State},
};

/// What has been read of a channel so far.
#[derive(Default)]
pub(crate) struct Load {
    step: Step,
    channel: Option<StampedRow>,
    head: Option<StampedRow>,
    members: BTreeMap<UserId, StampedRow>,
    /// The newest first.
    events: Vec<(Rev, EventRow)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Rows,
    Members {
        after: Option<UserId>,
    },
    Events {
        up_to: Rev,
    },
}

impl Partition {
    /// Begins to load a channel.
    pub(crate) fn load(&mut self, now: Now, channel: ChannelId) {
        let load = Box::new(Load::default());
        let read = load.read(channel);
        self.slot(channel, now.boot_ms).state = State::Loading(load);
        let token = self.jobs.begin(Job::Load(channel));
        self.actions.push_back(Action::ReadStore { token, read });
    }

    pub(crate) fn load_found(
        &mut self,
        now: Now,
        token: u64,
        channel: ChannelId,
        found: Option<StoreFound>,
    ) {
        let window_from = self.lead.tick(now).saturating_sub(NONCE_WINDOW_MS);
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        let State::Loading(load) = &mut slot.state else { return };
        let Some(found) = found else { return self.load_failed(now, channel) };
        match load.take(channel, found, window_from) {
            Ok(true) => {}
            Ok(false) => {
                let read = load.read(channel);
                let token = self.jobs.go_on(token, Job::Load(channel));
                return self.actions.push_back(Action::ReadStore { token, read });
            }
            Err(halt) => return self.halt_by(now, halt),
        }
        let State::Loading(load) = std::mem::replace(&mut slot.state, State::Unknown) else {
            return;
        };
        let state = match load.finish(channel, slot, self.config.seed, window_from) {
            Ok(state) => state,
            Err(halt) => return self.halt_by(now, halt),
        };
        self.nonces += state.nonces.len();
        slot.told = slot.told.max(state.head.rev); // nothing of it is in flight
        slot.state = State::Known(Box::new(state));
        self.parked -= slot.waiting.len();
        for waiting in std::mem::take(&mut slot.waiting).into_iter().rev() {
            self.ready.push_front(waiting);
        }
    }

    fn load_failed(&mut self, now: Now, channel: ChannelId) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.state = State::Unknown;
        let waiting = std::mem::take(&mut slot.waiting);
        self.parked -= waiting.len();
        let refusal = Refusal::new(ErrorCode::StoreUnavailable).retry_after(STORE_UNAVAILABLE_MS);
        for to in waiting.iter().filter_map(crate::slot::Waiting::to) {
            self.answer(now, to, Err(refusal.clone()));
        }
    }
}

impl Load {
    /// What is to be read next.
    fn read(&self, channel: ChannelId) -> StoreRead {
        match self.step {
            Step::Rows => StoreRead::Rows(vec![Key::Channel(channel), Key::Head(channel)]),
            Step::Members { after } => StoreRead::Scan(Scan::Members(channel, after), PAGE_ROWS),
            Step::Events { up_to } => StoreRead::Scan(Scan::EventsUpTo(channel, up_to), PAGE_ROWS),
        }
    }

    /// Takes what was read. Says whether that was all.
    fn take(
        &mut self,
        channel: ChannelId,
        found: StoreFound,
        window_from: u64,
    ) -> Result<bool, Halt> {
        match (self.step, found) {
            (Step::Rows, StoreFound::Rows(rows)) => {
                let mut rows = rows.into_iter();
                let mut next = |key| -> Result<Option<StampedRow>, Halt> {
                    rows.next().flatten().map(|row| decode(&key, &row)).transpose()
                };
                self.channel = next(Key::Channel(channel))?;
                self.head = next(Key::Head(channel))?;
                self.step = match &self.channel {
                    Some(_) => Step::Members { after: None },
                    None => Step::Events { up_to: self.head().rev },
                };
                Ok(self.channel.is_none() && self.head.is_none())
            }
            (Step::Members { .. }, StoreFound::Scanned(rows)) => {
                let full = rows.len() == PAGE_ROWS;
                let mut last = None;
                for (key, row) in rows {
                    let Key::Member(_, user) = key else { continue };
                    last = Some(user);
                    self.members.insert(user, decode(&key, &row)?);
                }
                self.step = if full {
                    Step::Members { after: last }
                } else {
                    Step::Events { up_to: self.head().rev }
                };
                Ok(false)
            }
            (Step::Events { .. }, StoreFound::Scanned(rows)) => {
                let full = rows.len() == PAGE_ROWS;
                for (key, row) in rows {
                    let Key::Event(_, rev) = key else { continue };
                    let RowValue::Event(row) = decode(&key, &row)?.value else { continue };
                    if row.tick < window_from || rev == Rev::ZERO {
                        return Ok(true);
                    }
                    self.step = Step::Events { up_to: Rev::new(rev.get() - 1) };
                    self.events.push((rev, row));
                }
                Ok(!full)
            }
            _ => Ok(true),
        }
    }

    fn head(&self) -> HeadRow {
        match self.head.as_ref().map(|row| &row.value) {
            Some(RowValue::Head(head)) => *head,
            _ => HeadRow::default(),
        }
    }

    /// The state, with the tail laid over what was read.
    fn finish(
        mut self,
        channel: ChannelId,
        slot: &Slot,
        seed: u64,
        window_from: u64,
    ) -> Result<ChannelState, Halt> {
        self.follow_on(channel, slot)?;
        for fact in &slot.tail {
            let stamp = stamp(fact);
            let mut failed = None;
            let partition = chappe_protocol::PartitionId(0); // of no consequence for these rows
            touches(fact, partition, &mut |Touch { key, .. }| {
                let Some(old) = self.row(&key) else { return };
                if failed.is_some() || old.as_ref().is_some_and(|old| old.stamp >= stamp) {
                    return;
                }
                let offset = chappe_storage::log::Offset(0);
                match project(fact, offset, &key, old.map(|old| old.value)) {
                    Ok(value) => self.set(&key, StampedRow { stamp, value }),
                    Err(missing) => failed = Some(missing),
                }
            });
            if let Some(missing) = failed {
                return Err(Halt::MissingRow(missing));
            }
        }
        let mut state = ChannelState::empty(seed);
        state.head = self.head();
        if let Some(RowValue::Channel(row)) = self.channel.map(|row| row.value) {
            state.meta = Some(row);
        }
        if !state.meta.as_ref().is_some_and(|meta| meta.deleted) {
            for (user, row) in self.members {
                let RowValue::Member(row) = row.value else { continue };
                if let Some(member) = MemberState::of(row) {
                    state.members.insert(user, member);
                }
            }
        }
        let first_in_tail = slot.tail.front().map_or(Rev::new(POSITION_MAX - 1), |fact| fact.rev);
        for (rev, row) in self.events.iter().rev().filter(|(rev, _)| *rev < first_in_tail) {
            if let Some(nonce) = &row.nonce {
                state.nonces.insert(row.by, nonce, *rev, row.tick);
            }
        }
        for fact in slot.tail.iter().filter(|fact| fact.mark.tick >= window_from) {
            if let Some(nonce) = &fact.nonce {
                state.nonces.insert(fact.by, nonce, fact.rev, fact.mark.tick);
            }
        }
        Ok(state)
    }

    /// The tail goes on where the store's head is, or below: a gap is poison.
    fn follow_on(&self, channel: ChannelId, slot: &Slot) -> Result<(), Halt> {
        let Some(first) = slot.tail.front() else { return Ok(()) };
        let last = self.head().rev;
        if first.rev <= last.next() {
            return Ok(());
        }
        let found = first.rev;
        let offset = chappe_storage::log::Offset(0);
        Err(Halt::Poison { offset, what: Poison::Revision { channel, last, found } })
    }

    /// The row under `key`, if this is one that a state is made of.
    fn row(&self, key: &Key) -> Option<Option<StampedRow>> {
        match key {
            Key::Channel(_) => Some(self.channel.clone()),
            Key::Head(_) => Some(self.head.clone()),
            Key::Member(_, user) => Some(self.members.get(user).cloned()),
            _ => None,
        }
    }

    fn set(&mut self, key: &Key, row: StampedRow) {
        match key {
            Key::Channel(_) => self.channel = Some(row),
            Key::Head(_) => self.head = Some(row),
            Key::Member(_, user) => drop(self.members.insert(*user, row)),
            _ => {}
        }
    }
}

fn decode(key: &Key, row: &Row) -> Result<StampedRow, Halt> {
    StampedRow::decode(key, row).map_err(|_| Halt::Store(format!("a row of {:?}", key.table())))
}

const PAGE_ROWS: usize = 1_000;

//! When it is certain: offsets are dense, so a record is confirmed when it and all before it are
//! acknowledged at the offsets that follow each other. At a jump the missing offsets are read
//! first, and anything there that is not void or our own ends this leadership.

use std::collections::VecDeque;

use bytes::Bytes;
use chappe_storage::log::{AppendError, Entry, Offset, ReadError};
use chappe_uplink::Refusal;

use crate::{
    action::Action,
    config::{Leadership, Now},
    count::Verdict,
    halt::{Halt, Poison},
    jobs::Job,
    partition::{Partition, Phase},
    projection::Step,
    record::{Record, decode},
    slot::State,
};

/// The records on their way, and where the next one is expected.
#[derive(Default)]
pub(crate) struct Flight {
    /// The offset after the last confirmed record.
    pub(crate) next: Offset,
    pub(crate) confirmed_n: u64,
    queue: VecDeque<InFlight>,
    /// Acknowledgements that wait until the offsets before them were read.
    acks: VecDeque<(u64, Offset)>,
    /// When the log is asked again after it did not answer.
    pub(crate) read_again_ms: Option<u64>,
}

/// A record that the log has taken.
pub(crate) struct InFlight {
    pub(crate) token: u64,
    pub(crate) record: Record,
    pub(crate) bytes: usize,
    pub(crate) crc: u32,
    pub(crate) handed_over_ms: u64,
}

impl Flight {
    pub(crate) fn push(&mut self, flight: InFlight) {
        self.queue.push_back(flight);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// What is on its way, oldest first.
    pub(crate) fn queue(&self) -> impl Iterator<Item = &InFlight> {
        self.queue.iter()
    }

    /// Starts over: the next record is expected at `next`.
    pub(crate) fn restart(&mut self, next: Offset) {
        *self = Self { next, ..Self::default() };
    }

    /// When the claim was handed over, which alone is in flight.
    pub(crate) fn claim_handed_over(&mut self) -> Option<u64> {
        self.queue.pop_front().map(|flight| flight.handed_over_ms)
    }

    /// Whether a jump is being read.
    fn jumps(&self) -> bool {
        !self.acks.is_empty()
    }
}

impl Partition {
    /// Says how an accepted append ended.
    pub fn handle_acked(&mut self, now: Now, token: u64, result: Result<Offset, AppendError>) {
        if !self.is_of_term(token) {
            return; // of a leadership that has ended
        }
        match (&self.phase, result) {
            (Phase::Claiming, result) => self.claim_acked(now, result),
            (Phase::Leading | Phase::HandingOver { .. }, Ok(offset)) => {
                self.acked(now, token, offset);
            }
            (Phase::Leading | Phase::HandingOver { .. }, Err(_)) => self.depose(now),
            _ => {}
        }
        self.proceed(now);
    }

    fn acked(&mut self, now: Now, token: u64, offset: Offset) {
        if self.flight.jumps() {
            return self.flight.acks.push_back((token, offset));
        }
        if offset < self.flight.next {
            return self.depose(now);
        }
        if offset > self.flight.next {
            self.flight.acks.push_back((token, offset));
            let from = self.flight.next;
            return self.read_log(from, offset);
        }
        match self.flight.queue.pop_front() {
            Some(flight) if flight.token == token => self.confirm(now, flight),
            // Not the record that comes next: something was counted twice, or not at all.
            _ => self.depose(now),
        }
    }

    /// Asks for the missing offsets again, if it is time.
    pub(crate) fn read_jump(&mut self, now: Now) {
        if self.flight.read_again_ms.is_some_and(|at| at > now.boot_ms) {
            return;
        }
        self.flight.read_again_ms = None;
        if let Some((_, until)) = self.flight.acks.front().copied() {
            let from = self.flight.next;
            self.read_log(from, until);
        }
    }

    /// The missing offsets of a jump.
    pub(crate) fn jump_read(&mut self, now: Now, read: Result<Vec<Entry>, ReadError>) {
        let Some((_, until)) = self.flight.acks.front().copied() else { return };
        let entries = match read {
            Ok(entries) => entries,
            Err(ReadError::Unavailable(_)) => {
                self.flight.read_again_ms = Some(now.boot_ms + READ_AGAIN_MS);
                return;
            }
            Err(error) => return self.halt_by(now, Halt::Damaged(error.to_string())),
        };
        let before = self.flight.next;
        for entry in entries {
            if entry.offset >= until || !self.leads() {
                break;
            }
            self.step_over(now, &entry);
        }
        if !self.leads() {
            return;
        }
        if self.flight.next == before {
            self.flight.read_again_ms = Some(now.boot_ms + READ_AGAIN_MS);
            return;
        }
        if self.flight.next < until {
            return self.read_jump(now);
        }
        for (token, offset) in std::mem::take(&mut self.flight.acks) {
            if self.leads() {
                self.acked(now, token, offset);
            }
        }
    }

    /// Takes one record of a jump.
    fn step_over(&mut self, now: Now, entry: &Entry) {
        let expected = self.flight.next;
        if entry.offset != expected {
            return self.halt_by(now, Halt::Gap { expected, found: entry.offset });
        }
        let record = match decode(&entry.record) {
            Ok(record) => record,
            Err(error) => {
                let what = Poison::Unreadable(error);
                return self.halt_by(now, Halt::Poison { offset: expected, what });
            }
        };
        let n = record.mark().map(|mark| mark.n);
        let ours = self.flight.queue.front().and_then(|flight| flight.record.mark());
        let mut count = self.count;
        match count.take(expected, &record) {
            Err(halt) => self.halt_by(now, halt),
            Ok(Verdict::Claimed | Verdict::Adopted) => self.depose(now),
            Ok(Verdict::Void) => {
                self.tally.voided += 1;
                self.flight.next = expected.next();
                self.projection.note(Step::of(expected, &entry.record, self.count));
            }
            // Our own, acknowledged late or twice: it counts where it stands.
            Ok(Verdict::Counts) if n.is_some() && n == ours.map(|mark| mark.n) => {
                if let Some(flight) = self.flight.queue.pop_front() {
                    self.confirm(now, flight);
                }
            }
            Ok(Verdict::Counts) => self.depose(now),
        }
    }

    /// The record stands at the next offset, durable.
    fn confirm(&mut self, now: Now, flight: InFlight) {
        let offset = self.flight.next;
        match self.count.take(offset, &flight.record) {
            Err(halt) => return self.halt_by(now, halt),
            Ok(Verdict::Counts) => {}
            Ok(_) => return self.depose(now),
        }
        self.flight.next = offset.next();
        self.flight.confirmed_n = self.count.last_n;
        self.back_off_ms = 0;
        self.lease.prove(flight.handed_over_ms);
        let fact = match &flight.record {
            Record::Fact(fact) => Some(std::sync::Arc::clone(fact)),
            _ => None,
        };
        let step = Step {
            offset,
            crc: flight.crc,
            bytes: flight.bytes,
            count: self.count,
            since_ms: now.boot_ms,
            fact,
        };
        self.projection.push(step);
        if matches!(flight.record, Record::Release(_)) {
            self.released(now);
        }
    }

    /// Another leads, or might: what is in flight is in doubt, and what was decided is forgotten.
    pub(crate) fn depose(&mut self, now: Now) {
        if matches!(self.phase, Phase::HandingOver { .. }) {
            return self.let_go(now); // it was to be led by another anyway
        }
        self.tally.deposed += 1;
        self.drop_leadership(now);
        let again_ms = now.boot_ms + self.next_back_off();
        self.phase = Phase::Deposed { again_ms };
        if self.config.leadership != Leadership::Lock {
            self.actions.push_back(Action::Leads(None));
            self.drain_ready(now);
        }
    }

    /// Forgets what was decided and not confirmed, and answers what waited for it.
    pub(crate) fn drop_leadership(&mut self, now: Now) {
        self.release(now); // what is confirmed stays so
        self.term += 1;
        self.drop_answers(now);
        self.drop_offer(now);
        self.drain_slots(now);
        self.drop_jobs(now);
        self.freeing = Default::default();
        self.expiry.interrupt();
        self.projection.interrupt();
        if self.noted.take().is_some() {
            self.projection.reset(); // nothing of it may reach the store
        }
        self.relay.stop();
        self.hot.clear();
        self.nonces = 0;
        for flight in std::mem::take(&mut self.flight.queue) {
            // Only what is confirmed may be shown or projected.
            if let Record::Fact(fact) = &flight.record
                && let Some(slot) = self.slots.get_mut(&fact.channel)
            {
                while slot.tail.back().is_some_and(|last| last.rev >= fact.rev) {
                    slot.tail.pop_back();
                }
            }
        }
        self.flight.acks.clear();
        self.lead.n = self.flight.confirmed_n;
        for slot in self.slots.values_mut() {
            slot.state = State::Unknown;
            slot.newest.clear();
            slot.reading = 0;
        }
    }

    /// What the store was asked will not be heard of: whoever waits for a page asks again.
    pub(crate) fn drop_jobs(&mut self, now: Now) {
        for job in self.jobs.clear() {
            if let Job::Page(page) = job {
                self.retry(now, page.to(), Refusal::resend());
            }
        }
        self.forget_projected(); // no read misses it any more
    }

    fn next_back_off(&mut self) -> u64 {
        self.back_off_ms = (self.back_off_ms * 2).clamp(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS);
        let spread = (self.config.seed ^ self.term.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 33;
        self.back_off_ms + spread % (self.back_off_ms / 4 + 1)
    }
}

impl Step {
    /// The step over a record that was read and has no effect.
    pub(crate) fn of(offset: Offset, record: &Bytes, count: crate::count::Count) -> Self {
        let crc = crc32c::crc32c(record);
        Self { offset, crc, bytes: 0, count, since_ms: 0, fact: None }
    }
}

/// The back-off before a deposed leader claims again.
const BACK_OFF_MIN_MS: u64 = 200;
const BACK_OFF_MAX_MS: u64 = 5_000;
/// A log that did not answer is asked again after this time.
pub(crate) const READ_AGAIN_MS: u64 = 100;

//! One record at a time is offered to the log, and nothing is decided until the log has taken or
//! refused it: numbers and revisions are used up only by what was taken.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::{ChannelId, ErrorCode, Incarnation, reply::Change};
use chappe_storage::log::AppendRefused;
use chappe_uplink::{Generation, Refusal};

use crate::{
    action::Action,
    answers::Out,
    config::Now,
    confirm::InFlight,
    partition::{Partition, Phase},
    record::{Fact, FactBody, Mark, Record, encode},
    slot::To,
};

/// What the leader has decided so far, in flight or confirmed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lead {
    pub(crate) generation: Generation,
    /// The last number used up.
    pub(crate) n: u64,
    pub(crate) ts: u64,
    pub(crate) tick: u64,
    /// The tick and the time at which this leadership began.
    pub(crate) since: (u64, u64),
    /// The stage of the seal that later commands are under.
    pub(crate) seal: u8,
    /// When a record was last taken by the log.
    pub(crate) appended_ms: u64,
    /// No beat is offered before: the log took none.
    pub(crate) beat_again_ms: u64,
}

impl Default for Lead {
    fn default() -> Self {
        let generation = Generation { incarnation: Incarnation(0), epoch: 0 };
        Self {
            generation,
            n: 0,
            ts: 0,
            tick: 0,
            since: (0, 0),
            seal: 0,
            appended_ms: 0,
            beat_again_ms: 0,
        }
    }
}

impl Lead {
    /// The tick now: it runs on the leader's own clock, so that neither a wall clock nor a gap
    /// between leaders moves it.
    pub(crate) fn tick(&self, now: Now) -> u64 {
        let (tick, boot_ms) = self.since;
        self.tick.max(tick + now.boot_ms.saturating_sub(boot_ms))
    }

    /// The mark of the next record.
    pub(crate) fn mark(&self, now: Now) -> Mark {
        let ts = self.ts.max(now.wall_ms);
        Mark { generation: self.generation, n: self.n + 1, ts, tick: self.tick(now) }
    }
}

/// A record that the log was asked to take.
pub(crate) struct Offered {
    flight: InFlight,
    /// Who asked for the fact.
    to: Option<To>,
}

impl Partition {
    /// Says whether the log took the record of the last [`Action::Append`].
    pub fn handle_appended(&mut self, now: Now, result: Result<(), AppendRefused>) {
        let Some(offered) = self.offered.take() else { return };
        match result {
            Ok(()) => self.taken(now, offered),
            Err(refused) => self.refused(now, offered, refused),
        }
        self.proceed(now);
    }

    /// Offers a record. `to` is who asked for it, if it is a fact.
    pub(crate) fn offer(&mut self, now: Now, record: Record, to: Option<To>) {
        assert!(self.offered.is_none(), "one record is offered at a time");
        self.scratch.clear();
        encode(&record, &mut self.scratch);
        let n = record.mark().map_or(0, |mark| mark.n);
        let token = self.term << TERM_SHIFT | n;
        let flight = InFlight {
            token,
            crc: crc32c::crc32c(&self.scratch),
            bytes: self.scratch.len(),
            handed_over_ms: now.boot_ms,
            record,
        };
        self.offered = Some(Offered { flight, to });
        let record = self.keep_scratch();
        self.actions.push_back(Action::Append { token, record });
    }

    /// Whether a fact of this channel is on its way into the log.
    pub(crate) fn is_in_doubt(&self, channel: ChannelId) -> bool {
        let offered = self.offered.as_ref().map(|offered| &offered.flight);
        self.flight.queue().chain(offered).any(|flight| match &flight.record {
            Record::Fact(fact) => fact.channel == channel,
            _ => false,
        })
    }

    /// The scratch buffer's bytes to give away. Some twenty records share a piece of memory.
    fn keep_scratch(&mut self) -> Bytes {
        if self.records.capacity() < self.scratch.len() {
            self.records.reserve(self.scratch.len().max(RECORDS_BYTES));
        }
        self.records.extend_from_slice(&self.scratch);
        self.records.split().freeze()
    }

    /// Whether this token is of the present term.
    pub(crate) const fn is_of_term(&self, token: u64) -> bool {
        token >> TERM_SHIFT == self.term
    }

    fn taken(&mut self, now: Now, offered: Offered) {
        let Offered { flight, to } = offered;
        self.lead.appended_ms = now.boot_ms;
        if let Some(mark) = flight.record.mark() {
            self.lead.n = mark.n;
            self.lead.ts = mark.ts;
            self.lead.tick = mark.tick;
        }
        match &flight.record {
            Record::Fact(fact) => {
                let fact = Arc::clone(fact);
                self.flight.push(flight);
                self.decided(&fact, to);
            }
            Record::Seal(_, stage) => {
                self.lead.seal = *stage;
                self.flight.push(flight);
            }
            Record::Unseal(_) => {
                self.lead.seal = 0;
                self.flight.push(flight);
            }
            _ => self.flight.push(flight),
        }
    }

    /// Leadership ended before the log was handed what is on offer: it will not be.
    pub(crate) fn drop_offer(&mut self, now: Now) {
        let Some(offered) = self.offered.take() else { return };
        self.actions.retain(|action| !matches!(action, Action::Append { .. }));
        if let Some(to) = offered.to {
            self.retry(now, to, Refusal::resend());
        }
    }

    /// A fact is on its way: it is part of the state that later commands are decided against.
    fn decided(&mut self, fact: &Arc<Fact>, to: Option<To>) {
        let Some(slot) = self.slots.get_mut(&fact.channel) else { return };
        let mut nonces = self.nonces;
        if let Some(state) = slot.known_mut() {
            nonces -= state.nonces.len();
            state.nonces.expire(fact.mark.tick);
            state.apply(fact);
            nonces += state.nonces.len();
        }
        self.nonces = nonces;
        let makes_room = self.hot.apply(slot, fact);
        slot.tail.push_back(Arc::clone(fact));
        let event = slot.is_heard().then(|| crate::event::live(slot, &self.hot, fact)).flatten();
        if let Some(slot) = makes_room.and_then(|channel| self.slots.get_mut(&channel)) {
            slot.newest.pop_front();
        }
        let to = to.map(|to| (to, change(fact)));
        self.push(Out::Fact { channel: fact.channel, rev: fact.rev, event, to });
    }

    /// Nothing happened: the number and the revision are free again.
    fn refused(&mut self, now: Now, offered: Offered, refused: AppendRefused) {
        match &offered.flight.record {
            Record::Claim(_) => return self.claim_refused(now),
            Record::Fact(fact) => self.name_not_needed(fact),
            Record::Release(_) => self.phase = Phase::HandingOver { until_ms: now.boot_ms },
            Record::Beat(_) => self.lead.beat_again_ms = now.boot_ms + BEAT_AGAIN_MS,
            _ => {}
        }
        let Some(to) = offered.to else { return };
        let refusal = match refused {
            AppendRefused::Full => Refusal::new(ErrorCode::Overloaded).retry_after(FULL_MS),
            AppendRefused::NoSpace | AppendRefused::Failed => {
                Refusal::new(ErrorCode::LogUnavailable).retry_after(LOG_UNAVAILABLE_MS)
            }
            AppendRefused::TooLarge => {
                Refusal::new(ErrorCode::Invalid).because("the command is larger than the log takes")
            }
        };
        self.answer(now, to, Err(refusal));
    }
}

/// What the command that caused `fact` is answered.
pub(crate) fn change(fact: &Fact) -> Change {
    let seq = match &fact.body {
        FactBody::Nothing(body) => body.seq,
        FactBody::ReadMarked(body) => Some(body.seq),
        _ => fact.message(),
    };
    Change { channel: fact.channel, rev: fact.rev, seq, at: fact.mark.ts, inbox: None }
}

/// Numbers of an epoch stay below this many bits, terms of a process above.
const TERM_SHIFT: u32 = 44;
/// Memory taken at a time for records on their way. Each partition holds one piece of it.
const RECORDS_BYTES: usize = 8 * 1024;
/// A beat that the log did not take is offered again after this time.
const BEAT_AGAIN_MS: u64 = 100;
/// What a full log queue tells to wait.
const FULL_MS: u64 = 50;
/// What a log that takes no writes tells to wait.
pub(crate) const LOG_UNAVAILABLE_MS: u64 = 1_000;

//! Taking a partition over: look, claim, look again, replay, lead.
//!
//! The claim comes before the replay, so that nothing can be appended that the replay does not see
//! or that is not void. The log and the checkpoint are compared before the claim (a claim must not
//! lengthen a truncated log) and after it (another may have led in between).

use std::sync::Arc;

use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::{AppendError, Bounds, Entry, Offset, ReadError},
    store::{Key, Row},
};
use chappe_uplink::Generation;

use crate::{
    action::{Action, StoreFound, StoreRead},
    append::Lead,
    config::{Assignment, Leadership, Now},
    confirm::READ_AGAIN_MS,
    count::{Count, Verdict},
    halt::{Halt, Poison},
    jobs::Job,
    noted::Noted,
    partition::{Partition, Phase},
    projection::Step,
    record::{Claim, Fact, Record, decode},
    row::{CheckpointRow, RowValue, StampedRow},
    slot::State,
};

/// What the log and the store were asked, and have answered so far.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    checkpoint: Option<Option<CheckpointRow>>,
    /// A copy of it, as the store does not answer.
    noted: Option<CheckpointRow>,
    bounds: Option<Bounds>,
    /// The offset of the claim, once it was acknowledged.
    epoch: Option<Offset>,
    /// When to ask again, as something did not answer.
    again_ms: Option<u64>,
}

/// How far the replay is.
#[derive(Debug)]
pub(crate) struct Replay {
    next: Offset,
    /// Our claim, where it ends.
    epoch: Offset,
    /// What the record before the checkpoint must be; not replayed itself.
    crc: Option<u32>,
    again_ms: Option<u64>,
}

impl Partition {
    /// The partition is this process's to lead.
    pub fn handle_assigned(&mut self, now: Now, assignment: Assignment) {
        if !matches!(self.phase, Phase::Idle | Phase::Deposed { .. }) {
            return;
        }
        // The projection went on: nothing that it is still to hear of is about this leadership.
        self.drop_leadership(now);
        self.assignment = Some(assignment);
        self.behind_since_ms = None; // the patience of an earlier takeover is not this one's
        self.count = Count::new(assignment.lineage, Incarnation(1));
        self.flight.restart(Offset(0));
        self.slots.clear();
        self.hot.clear();
        self.projection.reset();
        self.ask(now, None);
    }

    /// Says where the log begins and ends.
    pub fn handle_bounds(&mut self, now: Now, token: u64, bounds: Result<Bounds, ReadError>) {
        if self.jobs.end(token).is_none() {
            return; // it was asked again since
        }
        let Phase::Asking(asking) = &mut self.phase else { return };
        match bounds {
            Ok(bounds) => asking.bounds = Some(bounds),
            Err(ReadError::Unavailable(_)) => {
                asking.again_ms = Some(now.boot_ms + READ_AGAIN_MS);
            }
            Err(error) => return self.halt_by(now, Halt::Damaged(error.to_string())),
        }
        self.compare(now);
    }

    /// Gives records that [`Action::ReadLog`] asked for.
    pub fn handle_log(&mut self, now: Now, token: u64, read: Result<Vec<Entry>, ReadError>) {
        if self.jobs.end(token).is_none() {
            return; // of a leadership that has ended
        }
        match self.phase {
            Phase::Replaying(_) => self.replay(now, read),
            Phase::Leading | Phase::HandingOver { .. } => self.jump_read(now, read),
            _ => {}
        }
        self.proceed(now);
    }

    /// The store's checkpoint, or why there is none.
    pub(crate) fn checkpoint_found(&mut self, now: Now, found: Option<StoreFound>) {
        let Phase::Asking(asking) = &mut self.phase else { return };
        let key = Key::Checkpoint(self.config.id);
        match found {
            Some(StoreFound::Checkpoint(row)) => {
                match checkpoint_in(self.config.id, row) {
                    Ok(row) => asking.checkpoint = Some(row),
                    Err(halt) => return self.halt_by(now, halt),
                }
                self.trusts_notes = true;
            }
            // An older one means a longer replay, and no other rows: equal stamps, equal bytes.
            Some(StoreFound::Noted(bytes)) => {
                if let Ok(RowValue::Checkpoint(row)) = RowValue::decode(&key, &bytes) {
                    asking.noted = Some(row);
                }
            }
            _ => {}
        }
        if asking.checkpoint.is_none() && asking.noted.is_none() {
            asking.again_ms = Some(now.boot_ms + READ_AGAIN_MS);
        }
        self.compare(now);
    }

    /// The log did not take the claim.
    pub(crate) fn claim_refused(&mut self, now: Now) {
        self.depose(now);
    }

    /// The claim's outcome.
    pub(crate) fn claim_acked(&mut self, now: Now, result: Result<Offset, AppendError>) {
        let Ok(epoch) = result else { return self.depose(now) };
        self.lease.begin(now);
        if let Some(handed_over_ms) = self.flight.claim_handed_over() {
            self.lease.prove(handed_over_ms);
        }
        if self.flight.next > Offset(0) {
            // Under the lock nobody else wrote: what we had confirmed still stands.
            let next = self.flight.next;
            self.replay_from(Replay { next, epoch, crc: None, again_ms: None });
        } else {
            self.ask(now, Some(epoch));
        }
    }

    /// Asks or claims again, where something did not answer or it is time to.
    pub(crate) fn retry_takeover(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Asking(asking) if asking.again_ms.is_some_and(|at| at <= now.boot_ms) => {
                let epoch = asking.epoch;
                self.ask(now, epoch);
            }
            Phase::Replaying(replay) if replay.again_ms.is_some_and(|at| at <= now.boot_ms) => {
                replay.again_ms = None;
                let (from, until) = (replay.next, replay.epoch.next());
                self.read_log(from, until);
            }
            Phase::Deposed { again_ms }
                if *again_ms <= now.boot_ms
                    && self.config.leadership == Leadership::Lock
                    && self.flight.next > Offset(0) =>
            {
                self.claim(now);
            }
            Phase::Deposed { again_ms }
                if *again_ms <= now.boot_ms && self.config.leadership == Leadership::Lock =>
            {
                self.ask(now, None);
            }
            Phase::Leading | Phase::HandingOver { .. } if self.flight.read_again_ms.is_some() => {
                self.read_jump(now);
            }
            _ => {}
        }
        self.compare_noted(now);
    }

    /// Whether a deposed leader may be assigned again: its back-off is over. (In a cluster the
    /// driver first proves, by an offset commit, that it still holds the assignment.)
    pub fn may_claim_again(&self, now: Now) -> bool {
        matches!(self.phase, Phase::Deposed { again_ms } if again_ms <= now.boot_ms)
    }

    pub(crate) fn takeover_due(&self, now: Now) -> Option<u64> {
        match &self.phase {
            Phase::Asking(asking) => asking.again_ms,
            Phase::Replaying(replay) => replay.again_ms,
            // After that, in a cluster, it is for the driver to assign it.
            Phase::Deposed { again_ms } => Some(*again_ms)
                .filter(|at| self.config.leadership == Leadership::Lock || *at > now.boot_ms),
            Phase::Leading | Phase::HandingOver { .. } => {
                let noted = self.noted.as_ref().and_then(Noted::due);
                [self.flight.read_again_ms, noted].into_iter().flatten().min()
            }
            _ => None,
        }
    }

    fn ask(&mut self, now: Now, epoch: Option<Offset>) {
        self.phase = Phase::Asking(Box::new(Asking { epoch, ..Asking::default() }));
        self.drop_jobs(now); // what was asked before is not asked any more
        let token = self.jobs.begin(Job::Log);
        self.actions.push_back(Action::ReadBounds { token });
        let token = self.jobs.begin(Job::Checkpoint);
        let read = StoreRead::Checkpoint { or_noted: self.trusts_notes };
        self.actions.push_back(Action::ReadStore { token, read });
    }

    /// Whether a log that seems truncated may only seem so: a node of the log that is cut off from
    /// the others goes on telling an end that has long been passed. Not where there is one node.
    fn may_be_behind(&mut self, now: Now, halt: &Halt) -> bool {
        if self.config.leadership == Leadership::Lock || !matches!(halt, Halt::Truncated { .. }) {
            return false;
        }
        let since = *self.behind_since_ms.get_or_insert(now.boot_ms);
        now.boot_ms < since + BEHIND_MS
    }

    fn ask_later(&mut self, now: Now) {
        if let Phase::Asking(asking) = &mut self.phase {
            asking.again_ms = Some(now.boot_ms + READ_AGAIN_MS);
        }
    }

    /// Asks the log for the records from `from` on, below `until`.
    pub(crate) fn read_log(&mut self, from: Offset, until: Offset) {
        let token = self.jobs.begin(Job::Log);
        self.actions.push_back(Action::ReadLog { token, from, until });
    }

    /// Goes on once both have answered.
    fn compare(&mut self, now: Now) {
        let Phase::Asking(asking) = &self.phase else { return };
        let Asking { checkpoint, noted, bounds: Some(bounds), epoch, .. } = **asking else {
            return;
        };
        let Some(found) = checkpoint.or(noted.map(Some)) else { return };
        let is_copy = checkpoint.is_none();
        // A copy may be too old to go on from, and never leads over an adoption; only the store's
        // own says that all is lost.
        let is_older = |row: &CheckpointRow| {
            self.assignment.is_some_and(|it| row.incarnation < it.incarnation)
        };
        let checked = self.check(found.as_ref(), bounds);
        let is_older = found.as_ref().is_some_and(is_older);
        if is_copy && (checked.is_err() || is_older) {
            // A log that seems short is one that a node behind the others told of, most often.
            let may_fit = matches!(checked, Err(Halt::Truncated { .. })) && !is_older;
            self.trusts_notes = may_fit;
            return self.ask_later(now);
        }
        if let Err(halt) = checked {
            if self.may_be_behind(now, &halt) {
                return self.ask_later(now);
            }
            return self.halt_by(now, halt);
        }
        self.behind_since_ms = None;
        let checkpoint = found;
        let Some(epoch) = epoch else { return self.claim(now) };
        self.noted = checkpoint.filter(|_| is_copy).map(Noted::new);
        let replay = match checkpoint {
            None => Replay { next: Offset(0), epoch, crc: None, again_ms: None },
            Some(row) => {
                self.count = Count::at(&row);
                self.projection.resume(&row);
                let crc = Some(row.crc);
                Replay { next: Offset(row.offset - 1), epoch, crc, again_ms: None }
            }
        };
        self.replay_from(replay);
    }

    /// Whether the log is the one that the checkpoint was made of.
    fn check(&self, checkpoint: Option<&CheckpointRow>, bounds: Bounds) -> Result<(), Halt> {
        let Bounds { start, end } = bounds;
        let Some(row) = checkpoint else {
            if start > Offset(0) {
                return Err(Halt::Trimmed { start, needed: Offset(0) });
            }
            return if end == Offset(0) { Err(Halt::NoGenesis) } else { Ok(()) };
        };
        let Some(Assignment { lineage, incarnation }) = self.assignment else { return Ok(()) };
        if row.lineage != lineage {
            return Err(Halt::OtherLineage { expected: lineage, found: row.lineage });
        }
        // An adoption may stand behind an older one. If none does, our claim will not count.
        if row.incarnation > incarnation {
            return Err(Halt::OtherIncarnation { expected: incarnation, found: row.incarnation });
        }
        if row.offset == 0 {
            return Err(Halt::Store("a checkpoint at offset 0".to_owned()));
        }
        let needed = Offset(row.offset - 1);
        if start > needed {
            return Err(Halt::Trimmed { start, needed });
        }
        let highest = Offset(row.highest);
        if end <= highest {
            return Err(Halt::Truncated { end, highest });
        }
        Ok(())
    }

    fn claim(&mut self, now: Now) {
        let Some(Assignment { lineage, incarnation }) = self.assignment else { return };
        self.term += 1;
        self.phase = Phase::Claiming;
        let (leader, address) = (self.config.leader, self.config.address.clone());
        let claim = Claim { lineage, incarnation, leader, address };
        self.offer(now, Record::Claim(claim), None);
    }

    fn replay_from(&mut self, replay: Replay) {
        let (from, until) = (replay.next, replay.epoch.next());
        self.phase = Phase::Replaying(replay);
        self.read_log(from, until);
    }

    fn replay(&mut self, now: Now, read: Result<Vec<Entry>, ReadError>) {
        let entries = match read {
            Ok(entries) => entries,
            Err(ReadError::Unavailable(_)) => Vec::new(),
            Err(error) => return self.halt_by(now, Halt::Damaged(error.to_string())),
        };
        let nothing = entries.is_empty();
        for entry in entries {
            match self.replay_one(now, &entry) {
                Ok(None) => {}
                Ok(Some(excused)) => return self.begin_leading(now, excused),
                Err(halt) => return self.halt_by(now, halt),
            }
        }
        let Phase::Replaying(replay) = &mut self.phase else { return };
        if nothing {
            replay.again_ms = Some(now.boot_ms + READ_AGAIN_MS);
            return;
        }
        let (from, until) = (replay.next, replay.epoch.next());
        self.read_log(from, until);
    }

    /// Takes one record. Gives, at our own claim, whether it stands directly after a release.
    fn replay_one(&mut self, now: Now, entry: &Entry) -> Result<Option<bool>, Halt> {
        let Phase::Replaying(replay) = &mut self.phase else { return Ok(None) };
        let offset = entry.offset;
        if offset != replay.next {
            return Err(Halt::Gap { expected: replay.next, found: offset });
        }
        replay.next = offset.next();
        if let Some(crc) = replay.crc.take() {
            let same = crc == crc32c::crc32c(&entry.record);
            return if same { Ok(None) } else { Err(Halt::OtherRecord { offset }) };
        }
        let epoch = replay.epoch;
        let record = decode(&entry.record)
            .map_err(|error| Halt::Poison { offset, what: Poison::Unreadable(error) })?;
        if offset == Offset(0) && !matches!(record, Record::Genesis(_)) {
            return Err(Halt::NoGenesis);
        }
        let excused = self.count.released;
        let verdict = self.count.take(offset, &record)?;
        self.tally.voided += u64::from(verdict == Verdict::Void);
        let mut step = Step::of(offset, &entry.record, self.count);
        match record {
            Record::Fact(fact) if verdict == Verdict::Counts => {
                self.replay_fact(now, offset, &fact)?;
                step.bytes = entry.record.len();
                step.since_ms = now.boot_ms;
                step.fact = Some(fact);
                self.projection.push(step);
            }
            _ => self.projection.note(step),
        }
        if offset < epoch {
            return Ok(None);
        }
        // Our own claim: if it does not count, this is not the log that we were assigned.
        match (verdict, self.assignment) {
            (Verdict::Claimed, _) => Ok(Some(excused)),
            (_, Some(Assignment { incarnation, .. })) => {
                Err(Halt::OtherIncarnation { expected: incarnation, found: self.count.incarnation })
            }
            (_, None) => Ok(None),
        }
    }

    /// A fact that the store may lack.
    fn replay_fact(&mut self, now: Now, offset: Offset, fact: &Arc<Fact>) -> Result<(), Halt> {
        let slot = self.slot(fact.channel, now.boot_ms);
        if let Some(last) = slot.tail.back().map(|last| last.rev)
            && last.next() != fact.rev
        {
            let (channel, found) = (fact.channel, fact.rev);
            return Err(Halt::Poison { offset, what: Poison::Revision { channel, last, found } });
        }
        slot.tail.push_back(Arc::clone(fact));
        // Under the lock reads went on: what they loaded is older. What is being loaded will have
        // the tail laid over it.
        if let Some(state) = slot.known() {
            let nonces = state.nonces.len();
            slot.state = State::Unknown;
            slot.newest.clear();
            self.nonces -= nonces;
        }
        Ok(())
    }

    fn begin_leading(&mut self, now: Now, excused: bool) {
        let Phase::Replaying(Replay { epoch, .. }) = self.phase else { return };
        if excused {
            self.lease.excuse();
        }
        let incarnation = self.count.incarnation;
        let generation = Generation { incarnation, epoch: epoch.0 };
        self.lead = Lead {
            generation,
            n: 0,
            ts: self.count.last_ts,
            tick: self.count.last_tick,
            since: (self.count.last_tick, now.boot_ms),
            seal: self.count.seal,
            appended_ms: now.boot_ms,
            beat_again_ms: 0,
        };
        self.flight.restart(epoch.next());
        // Whoever heard an earlier leadership attaches again to this one.
        for slot in self.slots.values_mut() {
            slot.pipes.clear();
            slot.attaching = 0;
            slot.used_ms = now.boot_ms;
        }
        self.phase = Phase::Leading;
        self.actions.push_back(Action::Leads(Some(generation)));
        self.read_outbox();
        self.compare_noted(now);
    }
}

/// The checkpoint in a row of the store.
pub(crate) fn checkpoint_in(
    partition: PartitionId,
    row: Option<Row>,
) -> Result<Option<CheckpointRow>, Halt> {
    let Some(row) = row else { return Ok(None) };
    match StampedRow::decode(&Key::Checkpoint(partition), &row) {
        Ok(StampedRow { value: RowValue::Checkpoint(row), .. }) => Ok(Some(row)),
        _ => Err(Halt::Store("the checkpoint".to_owned())),
    }
}

/// So long a log may seem to end before what was confirmed.
const BEHIND_MS: u64 = 30_000;

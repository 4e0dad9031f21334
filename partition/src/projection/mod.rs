//! The projector: turns confirmed facts into rows, batch by batch, and advances the checkpoint
//! over what is durable.
//!
//! One batch is under way at a time, so facts on one row are projected one after another and the
//! checkpoint never has a hole below it. A batch takes the oldest facts there are, reads the rows
//! that they change, writes what they became, frees the names they gave up, and tells the members
//! of channels they deleted; only then is it done. A store that fails is asked again with the same
//! rows and the same stamps.

mod batch;
mod checkpoint;
mod members;

use std::{collections::VecDeque, sync::Arc};

use chappe_protocol::{ChannelId, ChannelName, PartitionId, Rev};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Stamp, StoreError},
};

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::{Bounds, Now},
    count::Count,
    halt::{Halt, Poison},
    id_map::{IdMap, id_map},
    jobs::Job,
    partition::{Partition, Phase},
    record::Fact,
    row::{CheckpointRow, OutboxRow, RowValue},
    tail::Projected,
};

use batch::Batch;
use members::Members;

pub(crate) struct Projection {
    partition: PartitionId,
    /// Confirmed records that are not projected, in the order of their offsets. Those without a
    /// fact stand for all before them without one.
    steps: VecDeque<Step>,
    /// The bytes of the facts among them.
    bytes: usize,
    facts: usize,
    /// A fact whose effect somebody waits for: it is not left to linger.
    urgent: bool,
    stage: Stage,
    /// Everything up to here is in the store.
    durable: Option<Durable>,
    /// Facts became durable since the checkpoint was written.
    unsaved: bool,
    /// The checkpoint in the store.
    saved: Option<Offset>,
    saved_ms: u64,
    trimmed_ms: u64,
    again_ms: Option<u64>,
    back_off_ms: u64,
}

/// A confirmed record.
pub(crate) struct Step {
    pub(crate) offset: Offset,
    pub(crate) crc: u32,
    /// Of a fact's record.
    pub(crate) bytes: usize,
    /// What the log says, this record included.
    pub(crate) count: Count,
    /// When it was confirmed.
    pub(crate) since_ms: u64,
    pub(crate) fact: Option<Arc<Fact>>,
}

/// How far the store is.
#[derive(Debug, Clone, Copy)]
struct Durable {
    /// The last record that is projected.
    offset: Offset,
    crc: u32,
    count: Count,
}

enum Stage {
    Idle,
    Reading(Box<Batch>),
    Writing(Box<Batch>, Vec<Mutation>),
    /// Freeing names, one at a time.
    Freeing(Box<Batch>),
    /// Telling the members of a deleted channel.
    Telling(Box<Batch>, Members),
    Saving(Durable, Mutation),
}

/// An outbox row that was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sendable {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    pub(crate) row: OutboxRow,
}

impl Projection {
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            steps: VecDeque::new(),
            bytes: 0,
            facts: 0,
            urgent: false,
            stage: Stage::Idle,
            durable: None,
            unsaved: false,
            saved: None,
            saved_ms: 0,
            trimmed_ms: 0,
            again_ms: None,
            back_off_ms: 0,
        }
    }

    /// Forgets everything: another takeover begins.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.partition);
    }

    /// Goes on from a checkpoint.
    pub(crate) fn resume(&mut self, row: &CheckpointRow) {
        self.saved = Some(Offset(row.offset));
        let offset = Offset(row.offset - 1);
        self.durable = Some(Durable { offset, crc: row.crc, count: Count::at(row) });
    }

    /// What is under way will not be heard of; it is done again.
    pub(crate) fn interrupt(&mut self) {
        self.stage = Stage::Idle;
    }

    /// A fact is confirmed, or another record that counts.
    pub(crate) fn push(&mut self, step: Step) {
        let Some(fact) = &step.fact else { return self.note(step) };
        self.bytes += step.bytes;
        self.facts += 1;
        self.urgent |= batch::is_urgent(fact);
        self.steps.push_back(step);
    }

    /// A record without effect on any row is passed.
    pub(crate) fn note(&mut self, step: Step) {
        match self.steps.back_mut() {
            Some(last) if last.fact.is_none() => *last = step,
            _ => self.steps.push_back(step),
        }
    }

    pub(crate) fn backlog(&self) -> (usize, Option<u64>) {
        let oldest = self.steps.iter().find(|step| step.fact.is_some());
        (self.bytes, oldest.map(|step| step.since_ms))
    }

    pub(crate) const fn checkpoint(&self) -> Option<Offset> {
        self.saved
    }

    /// When there is something to do.
    pub(crate) fn due(&self, bounds: &Bounds) -> Option<u64> {
        if !matches!(self.stage, Stage::Idle) || self.again_ms.is_some() {
            return self.again_ms;
        }
        let checkpoint = self.unsaved.then(|| self.saved_ms + bounds.checkpoint_ms);
        let facts = self.backlog().1.map(|since| {
            let full = self.urgent || self.bytes >= bounds.projection_bytes;
            if full { 0 } else { since + bounds.projection_linger_ms }
        });
        // Beats and claims alone are no hurry, but replay must not grow with them for ever.
        let behind = self.durable.is_some_and(|at| self.saved != Some(at.offset.next()))
            || self.steps.front().is_some_and(|step| step.fact.is_none());
        let idle = behind.then(|| self.saved_ms + IDLE_CHECKPOINT_MS.min(bounds.refresh_ms));
        [checkpoint, facts, idle].into_iter().flatten().min()
    }

    /// Passes records without facts: they are durable at once.
    fn pass(&mut self) {
        while let Some(front) = self.steps.front()
            && front.fact.is_none()
            && let Some(step) = self.steps.pop_front()
        {
            self.durable = Some(Durable::of(&step));
        }
    }

    fn failed(&mut self, now: Now) {
        self.back_off_ms = (self.back_off_ms * 2).clamp(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS);
        self.again_ms = Some(now.boot_ms + self.back_off_ms);
    }

    fn succeeded(&mut self) {
        self.back_off_ms = 0;
        self.again_ms = None;
    }
}

impl Durable {
    const fn of(step: &Step) -> Self {
        Self { offset: step.offset, crc: step.crc, count: step.count }
    }
}

impl Partition {
    /// Begins a batch or a checkpoint if one is due, or goes on with one that failed.
    pub(crate) fn project(&mut self, now: Now) {
        if matches!(self.phase, Phase::Halted(_)) {
            return;
        }
        if let Some(again_ms) = self.projection.again_ms {
            if again_ms > now.boot_ms {
                return;
            }
            self.projection.again_ms = None;
            return self.resume_projection(now);
        }
        if !matches!(self.projection.stage, Stage::Idle) {
            return;
        }
        self.projection.pass();
        let bounds = &self.config.bounds;
        if self.projection.due(bounds).is_none_or(|due| due > now.boot_ms) {
            return;
        }
        if self.projection.facts > 0 && !self.checkpoint_first(now) {
            self.begin_batch(now);
        } else {
            self.save(now);
        }
    }

    fn begin_batch(&mut self, now: Now) {
        let batch = Batch::take(&self.projection.steps, self.projection.partition);
        self.projection.urgent = false;
        if batch.wanted.is_empty() {
            return self.fold_batch(now, batch);
        }
        let wanted = batch.wanted.clone();
        self.projection.stage = Stage::Reading(Box::new(batch));
        self.ask_store(StoreRead::Rows(wanted));
    }

    fn ask_store(&mut self, read: StoreRead) {
        let token = self.jobs.begin(Job::Projection);
        self.actions.push_back(Action::ReadStore { token, read });
    }

    fn write_store(&mut self, rows: Vec<Mutation>) {
        let token = self.jobs.begin(Job::Projection);
        self.actions.push_back(Action::WriteStore { token, rows });
    }

    /// The store failed: the same again.
    fn resume_projection(&mut self, now: Now) {
        match &self.projection.stage {
            Stage::Idle => self.project(now),
            Stage::Reading(batch) => {
                let wanted = batch.wanted.clone();
                self.ask_store(StoreRead::Rows(wanted));
            }
            Stage::Writing(_, rows) => {
                let rows = rows.clone();
                self.write_store(rows);
            }
            Stage::Freeing(_) => self.free_next(now),
            Stage::Telling(_, members) => {
                let read = members.read();
                self.ask_store(read);
            }
            Stage::Saving(_, row) => {
                let rows = vec![row.clone()];
                self.write_store(rows);
            }
        }
    }

    /// The store failed at what a batch needs.
    pub(crate) fn projection_failed(&mut self, now: Now) {
        self.projection.failed(now);
    }

    /// Rows that the projection asked for.
    pub(crate) fn projection_found(&mut self, now: Now, found: Option<StoreFound>) {
        let Some(found) = found else { return self.projection.failed(now) };
        self.projection.succeeded();
        match (std::mem::replace(&mut self.projection.stage, Stage::Idle), found) {
            (Stage::Reading(mut batch), StoreFound::Rows(rows)) => {
                if let Err(halt) = batch.give(rows) {
                    return self.halt_by(now, halt);
                }
                self.fold_batch(now, *batch);
            }
            (Stage::Telling(batch, members), StoreFound::Scanned(rows)) => {
                self.tell_members(now, batch, members, rows);
            }
            (stage, _) => self.projection.stage = stage,
        }
    }

    /// Rows that the projection wrote, or did not.
    pub(crate) fn projection_written(&mut self, now: Now, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.projection.succeeded(),
            Err(StoreError::TooLarge { bytes }) => {
                let offset = self.projection.steps.front().map_or(Offset(0), |step| step.offset);
                let what = Poison::RowTooLarge { bytes };
                return self.halt_by(now, Halt::Poison { offset, what });
            }
            Err(_) => return self.projection.failed(now),
        }
        match std::mem::replace(&mut self.projection.stage, Stage::Idle) {
            Stage::Writing(batch, _) => {
                self.projection.stage = Stage::Freeing(batch);
                self.free_next(now);
            }
            Stage::Telling(batch, members) => self.go_on_telling(now, batch, members),
            Stage::Saving(durable, _) => self.saved(now, durable),
            stage => self.projection.stage = stage,
        }
    }

    fn fold_batch(&mut self, now: Now, mut batch: Batch) {
        let steps = self.projection.steps.iter().take(batch.steps);
        match batch.fold(steps, &mut self.scratch) {
            Ok(rows) => {
                self.projection.stage = Stage::Writing(Box::new(batch), rows.clone());
                self.write_store(rows);
            }
            Err(halt) => self.halt_by(now, halt),
        }
    }

    /// All names of the batch are free: what is left are deleted channels' members.
    pub(crate) fn names_freed(&mut self, now: Now) {
        match std::mem::replace(&mut self.projection.stage, Stage::Idle) {
            Stage::Freeing(batch) => self.next_deleted(now, batch),
            stage => self.projection.stage = stage,
        }
    }

    /// Everything that the batch says is in the store.
    fn batch_done(&mut self, now: Now, batch: &Batch) {
        let mut last_of: IdMap<ChannelId, Rev> = id_map(0);
        for step in self.projection.steps.drain(..batch.steps) {
            self.projection.durable = Some(Durable::of(&step));
            let Some(fact) = &step.fact else { continue };
            self.projection.bytes -= step.bytes;
            self.projection.facts -= 1;
            last_of.insert(fact.channel, fact.rev);
        }
        self.projection.unsaved = true;
        let reads_below = self.jobs.upcoming();
        for (channel, up_to) in last_of {
            self.retained.push(Projected { reads_below, channel, up_to });
        }
        self.forget_projected();
        let sends = !batch.outbox.is_empty();
        self.relay.offer(&batch.outbox);
        if sends {
            return self.save(now); // a relay waits for the checkpoint
        }
        self.project(now);
    }

    /// Drops projected facts that no read under way may have missed.
    pub(crate) fn forget_projected(&mut self) {
        let oldest = self.jobs.oldest();
        while let Some(projected) = self.retained.pop(oldest) {
            let Some(slot) = self.slots.get_mut(&projected.channel) else { continue };
            while slot.tail.front().is_some_and(|fact| fact.rev <= projected.up_to) {
                slot.tail.pop_front();
            }
        }
    }

    /// The value of a row that the batch under way writes, if it does.
    pub(crate) fn batch_row(&self, key: &Key) -> Option<&RowValue> {
        match &self.projection.stage {
            Stage::Freeing(batch) => batch.row(key),
            _ => None,
        }
    }

    /// The next name that the batch under way gives up.
    pub(crate) fn next_freed(&mut self) -> Option<(ChannelId, ChannelName)> {
        match &mut self.projection.stage {
            Stage::Freeing(batch) => batch.freed.front().cloned(),
            _ => None,
        }
    }

    /// That name is free, or another's by now.
    pub(crate) fn freed(&mut self) {
        if let Stage::Freeing(batch) = &mut self.projection.stage {
            batch.freed.pop_front();
        }
    }
}

/// A checkpoint over records without facts is written this often.
const IDLE_CHECKPOINT_MS: u64 = 60_000;
/// The back-off while the store fails.
const BACK_OFF_MIN_MS: u64 = 100;
const BACK_OFF_MAX_MS: u64 = 5_000;

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
mod run;

use std::{collections::VecDeque, sync::Arc};

use chappe_protocol::PartitionId;
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Stamp},
};

use crate::{
    config::{Bounds, Now},
    count::Count,
    record::Fact,
    row::{CheckpointRow, OutboxRow},
};

use batch::Batch;
pub(crate) use batch::Freed;
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
    /// The leadership is over and nothing more comes: nothing lingers, the checkpoint included.
    ended: bool,
    stage: Stage,
    /// Everything up to here is in the store.
    durable: Option<Durable>,
    /// Facts became durable since the checkpoint was written.
    unsaved: bool,
    /// The checkpoint in the store.
    noted: Option<CheckpointRow>,
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
    Saving(Durable, CheckpointRow, Mutation),
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
            ended: false,
            stage: Stage::Idle,
            durable: None,
            unsaved: false,
            noted: None,
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
        self.noted = Some(*row);
        let offset = Offset(row.offset - 1);
        self.durable = Some(Durable { offset, crc: row.crc, count: Count::at(row) });
    }

    /// Nothing is confirmed any more: what is here is brought home at once, so that whoever takes
    /// over has nothing to replay.
    pub(crate) const fn end(&mut self) {
        self.ended = true;
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

    pub(crate) const fn facts(&self) -> usize {
        self.facts
    }

    pub(crate) fn checkpoint(&self) -> Option<Offset> {
        self.noted.map(|row| Offset(row.offset))
    }

    /// The stage of the seal in the store's checkpoint.
    pub(crate) fn saved_seal(&self) -> Option<u8> {
        self.noted.map(|row| row.seal)
    }

    /// Whether every confirmed fact is in the store.
    pub(crate) const fn is_drained(&self) -> bool {
        self.facts == 0
    }

    /// Whether everything that was confirmed is in the store, and the checkpoint is behind it.
    pub(crate) fn is_saved(&self) -> bool {
        self.steps.is_empty() && !self.is_unsaved() && matches!(self.stage, Stage::Idle)
    }

    /// Whether the checkpoint lacks something that is durable.
    fn is_unsaved(&self) -> bool {
        self.durable.is_some_and(|at| self.checkpoint() != Some(at.offset.next()))
    }

    /// Whether the seal is another than the checkpoint says, and no fact is left before it.
    fn lacks_seal(&self) -> bool {
        let newest = self.steps.back().map(|step| step.count).or(self.durable.map(|at| at.count));
        let stage = newest.map_or(0, |count| count.seal);
        self.facts == 0 && stage != self.saved_seal().unwrap_or(0)
    }

    pub(crate) const fn noted(&self) -> Option<&CheckpointRow> {
        self.noted.as_ref()
    }

    /// When there is something to do.
    pub(crate) fn due(&self, bounds: &Bounds) -> Option<u64> {
        if !matches!(self.stage, Stage::Idle) || self.again_ms.is_some() {
            return self.again_ms;
        }
        let checkpoint = self.unsaved.then(|| self.saved_ms + bounds.checkpoint_ms);
        let facts = self.backlog().1.map(|since| {
            let full = self.urgent || self.ended || self.bytes >= bounds.projection_bytes;
            if full { 0 } else { since + bounds.projection_linger_ms }
        });
        // Beats and claims alone are no hurry, but replay must not grow with them for ever.
        let behind =
            self.is_unsaved() || self.steps.front().is_some_and(|step| step.fact.is_none());
        let idle = behind.then(|| match self.ended {
            true => 0,
            false => self.saved_ms + IDLE_CHECKPOINT_MS.min(bounds.refresh_ms),
        });
        // Whoever sealed it waits for that.
        let seal = self.lacks_seal().then_some(0);
        [checkpoint, facts, idle, seal].into_iter().flatten().min()
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

/// A checkpoint over records without facts is written this often.
const IDLE_CHECKPOINT_MS: u64 = 60_000;
/// The back-off while the store fails.
const BACK_OFF_MIN_MS: u64 = 100;
const BACK_OFF_MAX_MS: u64 = 5_000;

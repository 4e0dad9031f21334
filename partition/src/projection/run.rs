//! Running the projection: what is asked of the store, in which order, and what its answers lead
//! to.

use chappe_protocol::{ChannelId, Rev};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, StoreError},
};

use super::{Durable, Freed, Stage, batch::Batch};
use crate::{
    action::{Action, StoreFound, StoreRead},
    config::Now,
    halt::{Halt, Poison},
    id_map::{IdMap, id_map},
    jobs::Job,
    partition::{Partition, Phase},
    row::RowValue,
    tail::Projected,
};

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

    pub(super) fn ask_store(&mut self, read: StoreRead) {
        let token = self.jobs.begin(Job::Projection);
        self.actions.push_back(Action::ReadStore { token, read });
    }

    pub(super) fn write_store(&mut self, rows: Vec<Mutation>) {
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
            Stage::Saving(_, _, row) => {
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
            Stage::Saving(durable, row, _) => self.saved(now, durable, row),
            stage => self.projection.stage = stage,
        }
    }

    fn fold_batch(&mut self, now: Now, mut batch: Batch) {
        let steps = self.projection.steps.iter().take(batch.steps);
        match batch.fold(steps) {
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
    pub(super) fn batch_done(&mut self, now: Now, batch: &Batch) {
        let mut last_of: IdMap<ChannelId, Rev> = id_map(0);
        for step in self.projection.steps.drain(..batch.steps) {
            self.projection.durable = Some(Durable::of(&step));
            let Some(fact) = &step.fact else { continue };
            self.projection.bytes -= step.bytes;
            self.projection.facts -= 1;
            last_of.insert(fact.channel, fact.rev);
            self.expiry.projected(fact);
        }
        self.projection.unsaved = true;
        let reads_below = self.jobs.upcoming();
        for (channel, up_to) in last_of {
            self.retained.push(Projected { reads_below, channel, up_to });
        }
        self.forget_projected();
        self.expire_events();
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
    pub(crate) fn next_freed(&mut self) -> Option<Freed> {
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

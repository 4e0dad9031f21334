//! The checkpoint: how far the store is, and enough to tell at the next takeover whether the log
//! is still the same.

use chappe_storage::log::Offset;

use super::{Durable, Stage};
use crate::{action::Action, config::Now, partition::Partition, row::CheckpointRow};

impl Partition {
    /// Whether the checkpoint goes before the next batch: it is overdue.
    pub(super) fn checkpoint_first(&self, now: Now) -> bool {
        let projection = &self.projection;
        projection.unsaved && projection.saved_ms + self.config.bounds.checkpoint_ms <= now.boot_ms
    }

    /// Writes the checkpoint.
    pub(super) fn save(&mut self, now: Now) {
        self.projection.pass();
        let Some(durable) = self.projection.durable else { return };
        if self.projection.checkpoint() == Some(durable.offset.next()) {
            self.projection.unsaved = false;
            return;
        }
        let row = self.checkpoint_row(&durable);
        let mutation = row.write(self.config.id, row.incarnation);
        self.projection.stage = Stage::Saving(durable, row, mutation.clone());
        self.projection.saved_ms = now.boot_ms;
        self.write_store(vec![mutation]);
    }

    fn checkpoint_row(&self, durable: &Durable) -> CheckpointRow {
        let Durable { offset, crc, count } = *durable;
        CheckpointRow {
            lineage: count.lineage,
            incarnation: count.incarnation,
            level: count.level,
            seal: count.seal,
            offset: offset.next().0,
            epoch: count.epoch,
            last_n: count.last_n,
            last_ts: count.last_ts,
            last_tick: count.last_tick,
            released: count.released,
            highest: offset.0.max(self.flight.next.0.saturating_sub(1)),
            crc,
        }
    }

    /// The checkpoint is in the store.
    pub(super) fn saved(&mut self, now: Now, durable: Durable, row: CheckpointRow) {
        let saved = durable.offset.next();
        self.projection.noted = Some(row);
        self.projection.unsaved =
            self.projection.durable.is_some_and(|newest| newest.offset > durable.offset);
        self.relay.below(saved);
        if self.projection.trimmed_ms + self.config.bounds.trim_ms <= now.boot_ms {
            self.projection.trimmed_ms = now.boot_ms;
            // The record before the checkpoint is what a takeover recognises the log by.
            let below = Offset(saved.0 - 1).min(self.relay.lowest());
            if below > Offset(0) {
                self.actions.push_back(Action::Trim { below });
            }
        }
        self.send_relays(now);
        self.project(now);
    }
}

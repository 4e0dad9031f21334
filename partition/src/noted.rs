//! A leadership that rests on a checkpoint from elsewhere than the store.
//!
//! When the store does not answer, a takeover goes on from the checkpoint that an earlier leader
//! noted with the ownership's backend, so that a store that is down stops no failover. The note is
//! no truth: the store may have been restored from before it, or the log together with the note.
//! Until the store's own checkpoint was compared with it, the store is neither read nor written;
//! and where the two do not fit, the leadership ends and the next one begins from the store's.

use chappe_storage::log::Offset;

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::{Assignment, Now},
    confirm::READ_AGAIN_MS,
    halt::Halt,
    jobs::Job,
    partition::Partition,
    row::CheckpointRow,
    takeover::checkpoint_in,
};

/// The note, and what came of comparing it.
#[derive(Debug)]
pub(crate) struct Noted {
    row: CheckpointRow,
    /// When the store is asked again.
    again_ms: Option<u64>,
    /// Since when the store's checkpoint knows records that are not in the log as it was claimed.
    suspected_ms: Option<u64>,
}

impl Noted {
    pub(crate) const fn new(row: CheckpointRow) -> Self {
        Self { row, again_ms: None, suspected_ms: None }
    }

    pub(crate) const fn due(&self) -> Option<u64> {
        self.again_ms
    }
}

impl Partition {
    /// Whether the store may be read and written. While it may not, the driver answers every such
    /// call with [`chappe_storage::store::StoreError::Unavailable`], but for
    /// [`StoreRead::Checkpoint`].
    pub const fn may_use_store(&self) -> bool {
        self.noted.is_none()
    }

    /// Asks the store for its checkpoint, if this leadership does without it so far.
    pub(crate) fn compare_noted(&mut self, now: Now) {
        let Some(noted) = &mut self.noted else { return };
        if noted.again_ms.is_some_and(|at| at > now.boot_ms) || !self.leads() {
            return;
        }
        let Some(noted) = &mut self.noted else { return };
        noted.again_ms = Some(u64::MAX); // it is being asked
        let token = self.jobs.begin(Job::Noted);
        let read = StoreRead::Checkpoint { or_noted: false };
        self.actions.push_back(Action::ReadStore { token, read });
    }

    /// The store's checkpoint, or none if it still does not answer.
    pub(crate) fn noted_compared(&mut self, now: Now, found: Option<StoreFound>) {
        let Some(noted) = &mut self.noted else { return };
        noted.again_ms = Some(now.boot_ms + READ_AGAIN_MS);
        let Some(StoreFound::Checkpoint(row)) = found else { return };
        let row = match checkpoint_in(self.config.id, row) {
            Ok(row) => row,
            Err(halt) => return self.halt_by(now, halt),
        };
        self.trusts_notes = true;
        let Some(noted) = &mut self.noted else { return };
        let Some(Assignment { lineage, incarnation }) = self.assignment else { return };
        let fits = row.is_some_and(|row| {
            row.lineage == lineage
                && row.incarnation == incarnation
                && row.offset >= noted.row.offset
        });
        let Some(row) = row.filter(|_| fits) else {
            // The takeover says what is wrong with it, or replays what the store lacks.
            self.trusts_notes = false;
            return self.depose(now);
        };
        let epoch = self.lead.generation.epoch;
        if row.highest < epoch {
            self.noted = None;
            self.read_outbox();
            return;
        }
        // Somebody confirmed records where our claim or its followers lie: a later leader, and then
        // our next append finds his claim; or the log was truncated before we claimed.
        let since = *noted.suspected_ms.get_or_insert(now.boot_ms);
        if self.lease.proof().is_some_and(|proof| proof > since) {
            let (end, highest) = (Offset(epoch), Offset(row.highest));
            self.halt_by(now, Halt::Truncated { end, highest });
        }
    }
}

//! Sealing: a partition that is to be exported takes no more changes, and says how far it is.
//!
//! Stage 1 refuses clients and goes on taking what is relayed from other partitions; once all
//! outboxes are empty, stage 2 lets no fact count any more. The seal is in the log: it outlives
//! every leader until it is opened again.

use crate::{
    config::Now,
    partition::{Partition, Phase},
    record::Record,
};

/// How far a partition is sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealing {
    /// The stage that is confirmed, 0 when it is open; none while it does not lead.
    pub stage: Option<u8>,
    /// Every fact is projected and every outbox row delivered and removed.
    pub drained: bool,
    /// The stage in the store's checkpoint; none without one.
    pub saved: Option<u8>,
}

impl Partition {
    /// Closes the partition for clients (stage 1) or for every fact (stage 2), or opens it again
    /// (stage 0). Says whether a record was offered: it is not where the partition does not lead,
    /// has something on offer, or is at that stage or above already.
    pub fn handle_seal(&mut self, now: Now, stage: u8) -> bool {
        let sealed = self.lead.seal;
        let is_step = if stage == 0 { sealed > 0 } else { stage > sealed && stage <= 2 };
        if !matches!(self.phase, Phase::Leading) || self.offered.is_some() || !is_step {
            return false;
        }
        let mark = self.lead.mark(now);
        let record = if stage == 0 { Record::Unseal(mark) } else { Record::Seal(mark, stage) };
        self.offer(now, record, None);
        true
    }

    /// How far it is sealed.
    pub fn sealing(&self) -> Sealing {
        let leads = matches!(self.phase, Phase::Leading);
        Sealing {
            stage: leads.then_some(self.count.seal),
            drained: leads
                && self.flight.is_empty()
                && self.projection.is_drained()
                && self.relay.is_empty(),
            saved: self.projection.saved_seal(),
        }
    }
}

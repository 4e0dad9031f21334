//! Beats and the planned end of a leadership.

use crate::{
    action::Action,
    config::Now,
    partition::{Partition, Phase},
    record::Record,
};

impl Partition {
    /// The partition is to be led by another: decide nothing more, let what is in flight come
    /// home, then release it. The projection goes on with what it has.
    pub fn handle_revoked(&mut self, now: Now) {
        match self.phase {
            Phase::Leading => {
                self.phase = Phase::HandingOver { until_ms: now.boot_ms + HAND_OVER_MS };
                self.hand_over(now);
                self.proceed(now);
            }
            Phase::HandingOver { .. } => {}
            Phase::Halted(_) => self.actions.push_back(Action::HandedOver),
            _ => self.let_go(now),
        }
    }

    /// The partition is another's to lead already: there is nothing to hand over.
    pub fn handle_lost(&mut self, now: Now) {
        match self.phase {
            Phase::Idle | Phase::Halted(_) => {}
            _ => {
                self.tally.deposed += u64::from(self.leads());
                self.let_go(now);
            }
        }
    }

    /// Appends a beat when a live lease is wanted and nothing else was appended.
    pub(crate) fn beat(&mut self, now: Now) {
        let due = self.beat_due().is_some_and(|due| due <= now.boot_ms);
        if due && self.offered.is_none() {
            let mark = self.lead.mark(now);
            self.offer(now, Record::Beat(mark), None);
        }
    }

    pub(crate) fn beat_due(&self) -> Option<u64> {
        if !matches!(self.phase, Phase::Leading) {
            return None;
        }
        // A partition's last record is never trimmed: a takeover recognises the log by it. An idle
        // one follows it up now and then, or it would keep everybody else's records, too.
        let refresh = self.lead.appended_ms.saturating_add(self.config.bounds.refresh_ms);
        let wanted =
            self.noted.is_some() || self.heard || self.parked > 0 || !self.answers.is_empty();
        let beat_ms = self.lease.beat_ms().filter(|_| wanted);
        let due = beat_ms.map_or(refresh, |beat_ms| refresh.min(self.lead.appended_ms + beat_ms));
        Some(due.max(self.lead.beat_again_ms))
    }

    /// Releases the partition once nothing is in flight, or gives up in time.
    pub(crate) fn hand_over(&mut self, now: Now) {
        let Phase::HandingOver { until_ms } = self.phase else { return };
        if now.boot_ms >= until_ms {
            return self.let_go(now);
        }
        // Whose own first wait is not over must not excuse his successor from one.
        if self.flight.is_empty() && self.offered.is_none() && self.lease.speaks(now) {
            let mark = self.lead.mark(now);
            self.lease.release(); // what leaves from here on leaves behind it
            self.offer(now, Record::Release(mark), None);
        }
    }

    pub(crate) const fn hand_over_due(&self) -> Option<u64> {
        match self.phase {
            Phase::HandingOver { until_ms } => Some(until_ms),
            _ => None,
        }
    }

    /// The release is durable.
    pub(crate) fn released(&mut self, now: Now) {
        self.let_go(now);
    }

    /// It leads no longer, and will not again unless it is assigned again.
    pub(crate) fn let_go(&mut self, now: Now) {
        self.drop_leadership(now);
        self.projection.end();
        self.phase = Phase::Idle;
        self.actions.push_back(Action::Leads(None));
        self.actions.push_back(Action::HandedOver);
        self.drain_ready(now);
    }
}

/// How long a hand-over waits for what is in flight.
const HAND_OVER_MS: u64 = 500;

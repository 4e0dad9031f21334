//! What a leader may show, and since when: its lease and its first wait.
//!
//! The proof of leadership is a confirmed append, dated by its hand-over to the log. An answer
//! leaves only while the newest proof is younger than the lease.

use crate::config::{Leadership, Now};

#[derive(Debug, Clone)]
pub(crate) struct Lease {
    leadership: Leadership,
    /// When the newest confirmed append was handed over.
    proof_ms: Option<u64>,
    /// Nothing leaves before; none until the claim was acknowledged.
    silent_until_ms: Option<u64>,
    /// A release is being handed over: another may lead from now on.
    released: bool,
}

impl Lease {
    pub(crate) const fn new(leadership: Leadership) -> Self {
        Self { leadership, proof_ms: None, silent_until_ms: None, released: false }
    }

    /// The claim was acknowledged: the first wait begins.
    pub(crate) fn begin(&mut self, now: Now) {
        let wait = match self.leadership {
            Leadership::Lease { first_wait_ms, .. } => first_wait_ms,
            Leadership::Lock => 0,
        };
        *self = Self { silent_until_ms: Some(now.boot_ms + wait), ..Self::new(self.leadership) };
    }

    /// Replay showed that the record before the claim is a release.
    pub(crate) fn excuse(&mut self) {
        self.silent_until_ms = self.silent_until_ms.map(|_| 0);
    }

    /// An append that was handed over at `handed_over_ms` is confirmed.
    pub(crate) fn prove(&mut self, handed_over_ms: u64) {
        self.proof_ms = self.proof_ms.max(Some(handed_over_ms));
    }

    /// When the newest confirmed append was handed over.
    pub(crate) const fn proof(&self) -> Option<u64> {
        self.proof_ms
    }

    /// Another may lead: nothing is shown any more.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    /// Whether the first wait is over or was excused: before, nothing leaves at all.
    pub(crate) fn speaks(&self, now: Now) -> bool {
        self.silent_until_ms.is_some_and(|until| now.boot_ms >= until)
    }

    /// Whether reads, refusals and attach answers may leave.
    pub(crate) fn live(&self, now: Now) -> bool {
        let proved = match self.leadership {
            Leadership::Lock => true,
            Leadership::Lease { lease_ms, .. } => {
                self.proof_ms.is_some_and(|proof| now.boot_ms < proof + lease_ms)
            }
        };
        proved && !self.released && self.speaks(now)
    }

    /// When the first wait ends, if it has not.
    pub(crate) fn silent_until(&self, now: Now) -> Option<u64> {
        self.silent_until_ms.filter(|until| *until > now.boot_ms)
    }

    /// How long without an append until a beat is due.
    pub(crate) const fn beat_ms(&self) -> Option<u64> {
        match self.leadership {
            Leadership::Lock => None,
            Leadership::Lease { beat_ms, .. } => Some(beat_ms),
        }
    }
}

//! The process's budget of facts that are in the log and not yet in the store.
//!
//! At half of it clients' commands are refused, loudly and with a time to wait: the other half is
//! for what was accepted already and for the relays, which only make the backlog smaller.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What all drivers of the process share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    age_ms_max: u64,
    bytes: AtomicUsize,
    /// When the oldest fact of each driver was confirmed; [`NONE`] without any.
    oldest_ms: Box<[AtomicU64]>,
}

const NONE: u64 = u64::MAX;
/// The store gets this long to catch up before a client tries again.
const RETRY_AFTER_MS: u64 = 1_000;

impl Budget {
    pub(crate) fn new(bytes_max: usize, age_ms_max: u64, drivers: usize) -> Self {
        let oldest_ms = (0..drivers).map(|_| AtomicU64::new(NONE)).collect();
        Self { bytes_max, age_ms_max, bytes: AtomicUsize::new(0), oldest_ms }
    }

    /// A driver's backlog went from `before` to `now` bytes, and its oldest fact is this old.
    pub(crate) fn report(&self, driver: usize, before: usize, now: usize, oldest_ms: Option<u64>) {
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
        self.oldest_ms[driver].store(oldest_ms.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// How long a client has to wait, if half of the budget is used.
    pub(crate) fn retry_after_ms(&self, now_ms: u64) -> Option<u64> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let oldest = self.oldest_ms.iter().map(|oldest| oldest.load(Ordering::Relaxed)).min();
        let age_ms = oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest));
        let behind = bytes > self.bytes_max / 2 || age_ms > self.age_ms_max / 2;
        behind.then_some(RETRY_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_bytes_or_of_the_age_is_the_limit() {
        let budget = Budget::new(100, 1_000, 2);
        budget.report(0, 0, 30, Some(5_000));
        budget.report(1, 0, 20, None);
        assert_eq!(budget.retry_after_ms(5_500), None);
        assert_eq!(budget.retry_after_ms(5_501), Some(RETRY_AFTER_MS));
        budget.report(1, 20, 21, None);
        assert_eq!(budget.retry_after_ms(5_000), Some(RETRY_AFTER_MS));
        budget.report(0, 30, 0, None);
        assert_eq!(budget.retry_after_ms(9_000), None);
    }
}

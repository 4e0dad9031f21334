//! A token bucket in eight bytes.

use crate::config::Rate;

/// How far the future is spent already: the time at which the bucket would be full again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes `cost`, or says how many milliseconds to wait for it. A cost above the burst is as
    /// much as a whole burst: it is rare, not impossible.
    pub(crate) fn take(&mut self, rate: Rate, cost: u32, now_ms: u64) -> Result<(), u64> {
        let now_ns = now_ms * 1_000_000;
        let unit_ns = 1_000_000_000 / u64::from(rate.per_second.max(1));
        let burst_ns = u64::from(rate.burst.max(1)) * unit_ns;
        let cost_ns = (u64::from(cost) * unit_ns).min(burst_ns);
        let spent_ns = self.full_at_ns.saturating_sub(now_ns) + cost_ns;
        if spent_ns > burst_ns {
            return Err((spent_ns - burst_ns).div_ceil(1_000_000).max(1));
        }
        self.full_at_ns = now_ns + spent_ns;
        Ok(())
    }

    /// Nothing is spent: forgetting it changes nothing.
    pub(crate) fn is_full(self, now_ms: u64) -> bool {
        self.full_at_ns <= now_ms * 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_burst_is_spent_and_comes_back_with_time() {
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.take(RATE, 1, 1_000), Ok(()));
        }
        assert_eq!(bucket.take(RATE, 1, 1_000), Err(100));
        assert_eq!(bucket.take(RATE, 1, 1_099), Err(1));
        assert_eq!(bucket.take(RATE, 1, 1_100), Ok(()));
        assert!(!bucket.is_full(1_599) && bucket.is_full(1_600));
    }

    #[test]
    fn a_refusal_costs_nothing_and_says_how_long_to_wait_for_that_cost() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 4, 0), Ok(()));
        assert_eq!(bucket.take(RATE, 3, 0), Err(200));
        assert_eq!(bucket.take(RATE, 1, 0), Ok(()));
    }

    #[test]
    fn a_cost_above_the_burst_needs_a_full_bucket() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 50, 0), Ok(()));
        assert_eq!(bucket.take(RATE, 50, 499), Err(1));
        assert_eq!(bucket.take(RATE, 50, 500), Ok(()));
    }
}

//! How long to wait before the next attempt: exponential with full jitter, so that a thousand
//! clients of one lost server do not come back in step.

/// A small generator (SplitMix64) seeded by the owner: the core draws no randomness of its own.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number up to and including `max`.
    pub(super) fn up_to(&mut self, max: u64) -> u64 {
        self.next() % max.saturating_add(1).max(1)
    }
}

/// The shape of the waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait is at most this, in milliseconds; each further one twice as long.
    pub base_ms: u64,
    /// No wait is longer.
    pub cap_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base_ms: 100, cap_ms: 10_000 }
    }
}

impl Backoff {
    /// The wait before attempt number `attempts + 1`, at least what the server asked for.
    pub(super) fn wait_ms(self, attempts: u32, asked_ms: Option<u64>, random: &mut Random) -> u64 {
        let doubled = self.base_ms.saturating_mul(1 << attempts.min(20));
        match asked_ms {
            // The server spread its clients already; a little more so that they do not meet.
            Some(asked_ms) => asked_ms.saturating_add(random.up_to(self.base_ms)),
            None => random.up_to(doubled.min(self.cap_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_spread() {
        let backoff = Backoff { base_ms: 100, cap_ms: 1_000 };
        let mut random = Random::new(7);
        for (attempts, max_ms) in [(0, 100), (1, 200), (3, 800), (4, 1_000), (60, 1_000)] {
            let waits: Vec<u64> =
                (0..1_000).map(|_| backoff.wait_ms(attempts, None, &mut random)).collect();
            assert!(waits.iter().all(|wait| *wait <= max_ms), "attempt {attempts}");
            assert!(waits.iter().any(|wait| *wait > max_ms * 9 / 10), "attempt {attempts}");
            assert!(waits.iter().any(|wait| *wait < max_ms / 10), "attempt {attempts}");
        }
    }

    #[test]
    fn what_the_server_asks_is_the_least() {
        let backoff = Backoff::default();
        let mut random = Random::new(7);
        assert!(backoff.wait_ms(0, Some(30_000), &mut random) >= 30_000);
    }
}

//! Says that the store fails, and why: once when it begins, and once when it has ended. The cores
//! only wait and ask again, so nobody else says it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chappe_storage::store::StoreError;

/// A store that fails now and then is one that fails: it has to go without for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Whether the store fails, for all threads of a process.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// Looked at after each call, without the lock.
    is_on: AtomicBool,
    lasts: Mutex<Option<Lasts>>,
}

#[derive(Debug, Clone, Copy)]
struct Lasts {
    since: Instant,
    /// The newest call that failed.
    until: Instant,
}

/// What is said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begins,
    /// It lasted so long.
    Ended(Duration),
}

impl Outage {
    /// A call of the store ended at `now`.
    pub(crate) fn heard<T>(&self, now: Instant, outcome: &Result<T, StoreError>) {
        // Any other error is about what was asked, and is said by whoever asked.
        let error = match outcome {
            Err(error @ StoreError::Unavailable(_)) => Some(error),
            _ => None,
        };
        match (self.turn(now, error.is_some()), error) {
            (Some(Said::Begins), Some(error)) => tracing::warn!(
                %error,
                "the store fails; what is confirmed waits in the log, and calls are made again"
            ),
            (Some(Said::Ended(after)), _) => {
                tracing::info!(?after, "the store answers again");
            }
            _ => {}
        }
    }

    fn turn(&self, now: Instant, failed: bool) -> Option<Said> {
        if !failed && !self.is_on.load(Relaxed) {
            return None;
        }
        let mut lasts = self.lasts.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *lasts, failed) {
            (Some(lasts), true) => {
                lasts.until = lasts.until.max(now);
                None
            }
            (none, true) => {
                *none = Some(Lasts { since: now, until: now });
                self.is_on.store(true, Relaxed);
                Some(Said::Begins)
            }
            (Some(Lasts { since, until }), false) if now.duration_since(*until) >= QUIET => {
                let after = until.duration_since(*since);
                *lasts = None;
                self.is_on.store(false, Relaxed);
                Some(Said::Ended(after))
            }
            (_, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_so_is_its_end_however_the_store_wavers() {
        let (outage, began) = (Outage::default(), Instant::now());
        let at = |s, failed| outage.turn(began + Duration::from_secs(s), failed);
        assert_eq!(at(0, false), None, "it never failed");
        assert_eq!(at(1, true), Some(Said::Begins));
        for (s, failed) in [(1, true), (2, false), (4, true), (5, false), (8, false)] {
            assert_eq!(at(s, failed), None, "at {s} s");
        }
        assert_eq!(at(9, false), Some(Said::Ended(Duration::from_secs(3))));
        assert_eq!(at(9, false), None);
        assert_eq!(at(20, true), Some(Said::Begins), "another one");
    }
}

//! One call: its place among the others, its attempts, its end.
//!
//! What S3 is asked here can all be asked again: an object is put, a part is put, an upload is
//! begun, completed or aborted. Only failures that may pass by themselves are worth it.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Place;
use super::failure::Failure;

impl Place {
    /// Makes attempts until one succeeds, fails for good, or `limit` is over.
    pub(super) async fn call<T, A, F>(&self, limit: Duration, attempt: A) -> Result<T, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let end = Instant::now() + limit;
        let permit = timeout_at(end, self.calls.acquire()).await;
        let _permit = permit.map_err(|_| Failure::transient("too many calls at a time"))?;
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            let failure = match one(end.min(Instant::now() + limit / 2), attempt()).await {
                Err(failure) if failure.is_transient() && Instant::now() + pause < end => failure,
                outcome => return outcome,
            };
            tracing::debug!(what = failure.what, "a blob call is tried again");
            sleep_until(Instant::now() + pause).await;
            pause *= 4;
        }
        one(end, attempt()).await
    }
}

/// An attempt, given up at `end`.
async fn one<T>(
    end: Instant,
    attempt: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(end, attempt)
        .await
        .unwrap_or_else(|_| Err(Failure::transient("the server did not answer in time")))
}

const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; four times as long before the third.
const PAUSE: Duration = Duration::from_millis(100);

//! The requests to the cluster: a call waits for its turn, makes its requests and repeats those that
//! may pass, all within the time of a call.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use scylla::errors::{BadQuery, ExecutionError, PrepareError, RequestAttemptError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::StoreError;
use super::link::{Connector, Link};
use super::retry::may_pass;
use super::{ScyllaOptions, ScyllaOptionsError};

pub(super) struct Cluster {
    connector: Arc<Connector>,
    call: Duration,
    in_flight: Semaphore,
}

impl Cluster {
    pub(super) fn new(options: ScyllaOptions) -> Result<Self, ScyllaOptionsError> {
        Ok(Self {
            call: options.call,
            connector: Arc::new(Connector::new(options)?),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })
    }

    /// When a call that begins now ends at the latest.
    pub(super) fn end_of_call(&self) -> Instant {
        Instant::now() + self.call
    }

    /// The session, which is made if there is none yet.
    pub(super) async fn link(&self, end: Instant) -> Result<Arc<Link>, StoreError> {
        self.connector.link(end).await
    }

    /// Makes a request that may be made twice, until it is answered or will not be.
    pub(super) async fn ask<T, F>(
        &self,
        end: Instant,
        mut request: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, ExecutionError>>,
    {
        let mut pause = RETRY_PAUSE_MIN;
        for attempt in 1.. {
            match self.once(end, request()).await? {
                Ok(answer) => return Ok(answer),
                Err(error) if attempt == ATTEMPTS_MAX || !may_pass(&error) => {
                    return Err(failure(&error));
                }
                Err(error) => tracing::debug!(attempt, %error, "the store is asked again"),
            }
            // Half of it is left to chance, so that those who failed together do not return so.
            let wait = pause.mul_f64(0.5 + 0.5 * chance());
            timeout_at(end, sleep(wait)).await.map_err(|_| silent())?;
            pause *= 4;
        }
        Err(silent())
    }

    /// Makes a request when it is its turn. What came of it may be unknown.
    pub(super) async fn once<T>(
        &self,
        end: Instant,
        request: impl Future<Output = Result<T, ExecutionError>>,
    ) -> Result<Result<T, ExecutionError>, StoreError> {
        let turn = timeout_at(end, self.in_flight.acquire()).await.map_err(|_| silent())?;
        let _turn = turn.map_err(|_| silent())?;
        // The driver's future is large.
        timeout_at(end, Box::pin(request)).await.map_err(|_| silent())
    }
}

/// What a request's failure means to a caller.
pub(super) fn failure(error: &ExecutionError) -> StoreError {
    match error {
        ExecutionError::LastAttemptError(
            RequestAttemptError::CqlResultParseError(_)
            | RequestAttemptError::CqlErrorParseError(_)
            | RequestAttemptError::BodyExtensionsParseError(_)
            | RequestAttemptError::UnexpectedResponse(_),
        ) => StoreError::Damaged(error.to_string()),
        ExecutionError::BadQuery(BadQuery::SerializationError(_))
        | ExecutionError::PrepareError(PrepareError::PreparedStatementIdsMismatch) => {
            StoreError::Unavailable(format!("its tables are of another form: {error}"))
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

pub(super) fn silent() -> StoreError {
    StoreError::Unavailable("it did not answer in time".to_owned())
}

/// Between 0 and 1; spreads pauses and nothing else.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// Requests of this process that wait for their answers at once, over all nodes: what comes on top
/// waits here, and not in the servers' queues.
const IN_FLIGHT_MAX: usize = 256;
/// How often a request is made.
const ATTEMPTS_MAX: u32 = 5;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);

//! Which failures are worth another try: of the driver at once on another node, and of ours after
//! a pause. A try sends the same bytes again, the stamp in them.

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::retry::{RequestInfo, RetryDecision, RetryPolicy, RetrySession};

/// The driver's part: the next node, if this one could not serve and the statement may be sent
/// twice. A time-out is not retried here: a slow cluster would only get more to do at once.
#[derive(Debug)]
pub(super) struct NextNode;

struct Tries(u32);

impl RetryPolicy for NextNode {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(Tries(0))
    }
}

impl RetrySession for Tries {
    fn decide_should_retry(&mut self, request: RequestInfo<'_>) -> RetryDecision {
        if !request.is_idempotent || request.consistency.is_serial() || self.0 >= NODES_MAX {
            return RetryDecision::DontRetry;
        }
        let is_the_nodes = match request.error {
            RequestAttemptError::BrokenConnectionError(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(error, _) => matches!(
                error,
                DbError::Unavailable { .. }
                    | DbError::IsBootstrapping
                    | DbError::Overloaded
                    | DbError::ServerError
            ),
            _ => false,
        };
        if !is_the_nodes {
            return RetryDecision::DontRetry;
        }
        self.0 += 1;
        RetryDecision::RetryNextTarget(None)
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Our part: whether the cluster may serve the same request a little later.
pub(super) fn may_pass(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::RequestTimeout(_) | ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(error) => match error {
            RequestAttemptError::BrokenConnectionError(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(error, _) => matches!(
                error,
                DbError::Unavailable { .. }
                    | DbError::IsBootstrapping
                    | DbError::Overloaded
                    | DbError::ServerError
                    | DbError::RateLimitReached { .. }
                    | DbError::ReadTimeout { .. }
                    | DbError::ReadFailure { .. }
                    | DbError::WriteTimeout { .. }
                    | DbError::WriteFailure { .. }
            ),
            _ => false,
        },
        _ => false,
    }
}

/// Other nodes that are tried within one request.
const NODES_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::{BadQuery, WriteType};
    use scylla::statement::Consistency;

    use super::*;

    fn database(error: DbError) -> RequestAttemptError {
        RequestAttemptError::DbError(error, String::new())
    }

    fn write_timeout(write_type: WriteType) -> DbError {
        let consistency = Consistency::LocalQuorum;
        DbError::WriteTimeout { consistency, received: 1, required: 2, write_type }
    }

    #[test]
    fn what_the_cluster_may_do_later_is_tried_again_and_a_wrong_statement_is_not() {
        let last = |error| ExecutionError::LastAttemptError(database(error));
        assert!(may_pass(&ExecutionError::RequestTimeout(Duration::from_secs(1))));
        assert!(may_pass(&last(write_timeout(WriteType::UnloggedBatch))));
        assert!(may_pass(&last(DbError::Overloaded)));
        for never in [DbError::Invalid, DbError::SyntaxError, DbError::Unauthorized] {
            assert!(!may_pass(&last(never)));
        }
        assert!(!may_pass(&BadQuery::PartitionKeyExtraction.into()));
    }
}

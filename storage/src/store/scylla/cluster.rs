//! The session with the cluster, made by the first call that needs it, and the requests on it.
//!
//! Until there is a session, calls fail at once but for one every so often, which tries to connect;
//! so a process starts, and says what is wrong, while the store is down. A session that was made
//! finds its nodes again by itself. A call waits for its turn, makes its requests and repeats those
//! that may pass, all within the time of a call.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{
    BadQuery, ExecutionError, MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};
use scylla::statement::Consistency;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::StoreError;
use super::retry::may_pass;
use super::schema;
use super::statements::Statements;
use super::versions;
use super::{ScyllaOptions, ScyllaOptionsError};

pub(super) struct Cluster {
    builder: SessionBuilder,
    reads: ExecutionProfileHandle,
    serial_read: Consistency,
    options: ScyllaOptions,
    link: Mutex<Option<Arc<Link>>>,
    /// Held by the call that connects.
    trying: AsyncMutex<Trying>,
    in_flight: Semaphore,
}

/// A session whose schema is the one that this process needs.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) statements: Statements,
}

/// The tries to connect so far.
struct Trying {
    next: Instant,
    pause: Duration,
    /// Why the last one failed.
    why: String,
}

impl Cluster {
    pub(super) fn new(options: ScyllaOptions) -> Result<Self, ScyllaOptionsError> {
        Ok(Self {
            builder: options.session()?,
            reads: options.reads(),
            serial_read: options.serial_read(),
            options,
            link: Mutex::default(),
            trying: AsyncMutex::new(Trying {
                next: Instant::now(),
                pause: CONNECT_PAUSE_MIN,
                why: "it was not tried yet".to_owned(),
            }),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })
    }

    /// When a call that begins now ends at the latest.
    pub(super) fn end_of_call(&self) -> Instant {
        Instant::now() + self.options.call
    }

    /// The session, which is made if there is none yet.
    pub(super) async fn link(&self, end: Instant) -> Result<Arc<Link>, StoreError> {
        if let Some(link) = self.linked() {
            return Ok(link);
        }
        timeout_at(end, self.connected()).await.map_err(|_| silent())?
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

    async fn connected(&self) -> Result<Arc<Link>, StoreError> {
        let mut trying = self.trying.lock().await;
        if let Some(link) = self.linked() {
            return Ok(link);
        }
        if Instant::now() < trying.next {
            return Err(StoreError::Unavailable(format!("as just now: {}", trying.why)));
        }
        trying.next = Instant::now() + trying.pause; // before the try, which may be dropped
        trying.pause = (trying.pause * 2).min(CONNECT_PAUSE_MAX);
        let limit = self.options.request * CONNECT_REQUESTS;
        let tried = tokio::time::timeout(limit, Box::pin(self.connect())).await;
        match tried.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(link) => {
                let link = Arc::new(link);
                trying.pause = CONNECT_PAUSE_MIN;
                *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(why) => {
                trying.why = format!("{}: {why}", self.options.nodes.join(", "));
                trying.next = Instant::now() + trying.pause;
                Err(StoreError::Unavailable(trying.why.clone()))
            }
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let session = connect(&self.builder).await?;
        let datacenters = datacenters(&session);
        if self.options.datacenter.is_none() && datacenters.len() > 1 {
            // Quorums of different ones do not meet.
            let names = datacenters.join(", ");
            return Err(format!("the cluster has the data centres {names}: one has to be named"));
        }
        let keyspace = &self.options.keyspace;
        let found =
            versions::newest(&session, keyspace).await.map_err(|error| error.to_string())?;
        if found < Some(schema::VERSION) {
            let found = found.map_or("missing".to_owned(), |found| format!("at version {found}"));
            return Err(format!(
                "the schema in keyspace {keyspace} is {found} and has to be at {}: \
                 run `chappe schema apply`",
                schema::VERSION
            ));
        }
        let statements = Statements::prepare(&session, keyspace, &self.reads, self.serial_read);
        let statements = statements.await.map_err(|error| error.to_string())?;
        Ok(Link { session, statements })
    }

    fn linked(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Connects, and says in one line what is wrong where it cannot.
pub(super) async fn connect(builder: &SessionBuilder) -> Result<Session, String> {
    Box::pin(builder.build()).await.map_err(|error| match &error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(pool)) => {
            pool.to_string()
        }
        _ => error.to_string(),
    })
}

/// The names of the cluster's data centres.
pub(super) fn datacenters(session: &Session) -> Vec<String> {
    let cluster = session.get_cluster_state();
    let names = cluster.get_nodes_info().iter().filter_map(|node| node.datacenter.clone());
    names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
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
/// Between two tries to connect.
const CONNECT_PAUSE_MIN: Duration = Duration::from_millis(250);
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Requests after each other in which a session is made: it connects, reads the cluster, its own
/// version and prepares.
const CONNECT_REQUESTS: u32 = 4;

//! The session with the cluster, made when the first call needs it.
//!
//! A try to connect is nobody's own: it goes on when the call that began it is dropped, and all that
//! wait share what comes of it. After one that failed, calls fail at once for a while, with what it
//! found; so a process starts, and says what is wrong, while the store is down. A session that was
//! made finds its nodes again by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{MetadataError, NewSessionError};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::StoreError;
use super::cluster::silent;
use super::dump::Dumps;
use super::schema;
use super::statements::Statements;
use super::versions;
use super::{ScyllaOptions, ScyllaOptionsError};

/// A session whose schema is the one that this process needs.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) statements: Statements,
    /// Those that go through whole tables, prepared when they are first needed.
    pub(super) dumps: OnceCell<Dumps>,
    pub(super) keyspace: String,
    /// How reads are made.
    pub(super) reads: ExecutionProfileHandle,
}

/// Makes the one session.
pub(super) struct Connector {
    builder: SessionBuilder,
    reads: ExecutionProfileHandle,
    options: ScyllaOptions,
    state: Mutex<State>,
}

struct State {
    link: Option<Arc<Link>>,
    trying: Option<Try>,
    /// None before the first failure.
    failed: Option<Failure>,
}

/// A try that several calls wait for.
type Try = Shared<BoxFuture<'static, Result<Arc<Link>, StoreError>>>;

struct Failure {
    why: StoreError,
    /// Not to be tried again before this time, and the time after it the next time.
    next: Instant,
    pause: Duration,
}

impl Connector {
    pub(super) fn new(options: ScyllaOptions) -> Result<Self, ScyllaOptionsError> {
        Ok(Self {
            builder: options.session()?,
            reads: options.reads(),
            options,
            state: Mutex::new(State { link: None, trying: None, failed: None }),
        })
    }

    /// The session, which is made if there is none yet.
    pub(super) async fn link(self: &Arc<Self>, end: Instant) -> Result<Arc<Link>, StoreError> {
        let trying = {
            let mut state = self.lock();
            if let Some(link) = &state.link {
                return Ok(Arc::clone(link));
            }
            // One that ended without a word went down with its runtime.
            state.trying.take_if(|trying| trying.peek().is_some());
            match (&state.trying, &state.failed) {
                (Some(trying), _) => trying.clone(),
                (None, Some(failed)) if Instant::now() < failed.next => {
                    return Err(failed.why.clone());
                }
                (None, _) => state.trying.insert(self.begin()).clone(),
            }
        };
        timeout_at(end, trying).await.map_err(|_| silent())?
    }

    fn begin(self: &Arc<Self>) -> Try {
        let connector = Arc::clone(self);
        let task = tokio::spawn(async move {
            let limit = connector.options.request * CONNECT_REQUESTS;
            let tried = timeout(limit, connector.connect()).await;
            connector.end(tried.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
        let stopped = |_| StoreError::Unavailable("the try to connect was stopped".to_owned());
        task.map(move |ended| ended.map_err(stopped)?).boxed().shared()
    }

    fn end(&self, tried: Result<Link, String>) -> Result<Arc<Link>, StoreError> {
        let mut state = self.lock();
        state.trying = None;
        let tried = tried.map(Arc::new).map_err(|why| {
            let why = format!("{}: {why}", self.options.nodes.join(", "));
            tracing::warn!(%why, "the store is not to be reached");
            StoreError::Unavailable(why)
        });
        match &tried {
            Ok(link) => state.link = Some(Arc::clone(link)),
            Err(why) => {
                let pause = state.failed.as_ref().map_or(PAUSE_MIN, |failed| failed.pause);
                state.failed = Some(Failure {
                    why: why.clone(),
                    next: Instant::now() + pause,
                    pause: (pause * 2).min(PAUSE_MAX),
                });
            }
        }
        tried
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
        let serial = self.options.serial_read();
        let statements = Statements::prepare(&session, keyspace, &self.reads, serial);
        let statements = Box::pin(statements).await.map_err(|error| error.to_string())?;
        let (keyspace, reads) = (keyspace.clone(), self.reads.clone());
        Ok(Link { session, statements, dumps: OnceCell::new(), keyspace, reads })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Between two tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Requests after each other in which a session is made: it connects, reads the cluster, its own
/// version and prepares.
const CONNECT_REQUESTS: u32 = 4;

//! Creating the schema and bringing it up to date.
//!
//! Any number of processes may do so at once. Each change may be made twice, and all are made at one
//! node, the first by its id: it makes them one after another, where two nodes of Cassandra that
//! create the same table at the same time make two tables of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{
    LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::statement::unprepared::Statement;

use super::check::{Difference, Found, SchemaError};
use super::cluster::failure;
use super::link::connect;
use super::retry::may_pass;
use super::schema::{VERSION, steps};
use super::{ScyllaOptions, versions};

/// How many copies of each row the cluster keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// So many in every data centre.
    Everywhere(u32),
    /// So many in each of these.
    Datacenters(BTreeMap<String, u32>),
}

impl fmt::Display for Replication {
    /// As CQL has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{'class': 'NetworkTopologyStrategy'")?;
        match self {
            Self::Everywhere(copies) => write!(f, ", 'replication_factor': {copies}")?,
            Self::Datacenters(names) => {
                for (name, copies) in names {
                    write!(f, ", '{}': {copies}", name.replace('\'', "''"))?;
                }
            }
        }
        write!(f, "}}")
    }
}

/// Creates what is missing and mends what the store cannot be used with. Returns the changes that
/// were made. The keyspace is created only if its replication is given.
///
/// Returns when all nodes agree on the schema. May be done again after an error.
pub async fn apply(
    options: &ScyllaOptions,
    replication: Option<&Replication>,
) -> Result<Vec<String>, SchemaError> {
    let session = connect(&options.session()?).await.map_err(SchemaError::Unreachable)?;
    let keyspace = &options.keyspace;
    let mut changes = Changes { session: &session, node: first_node(&session), made: Vec::new() };
    let mut found = Found::read(&session, keyspace).await?;
    if !found.has_keyspace() {
        let replication = replication.ok_or_else(|| SchemaError::NoKeyspace(keyspace.clone()))?;
        let create =
            format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}");
        changes.make(create).await?;
    }
    for step in steps(keyspace) {
        if Some(step.version) > found.version || !found.has_table(step.table) {
            changes.make(step.statement).await?;
        }
    }
    let done = found.version.unwrap_or(0);
    for version in done + 1..=VERSION {
        let remembered = versions::remember(&session, keyspace, version).await;
        remembered.map_err(|error| failure(&error))?;
    }
    found = Found::read(&session, keyspace).await?;
    for difference in found.differences(&session, options) {
        if let Some(statement) = mending(keyspace, &difference) {
            changes.make(statement).await?;
        }
    }
    Ok(changes.made)
}

/// The change that mends a difference with which the store cannot be used.
fn mending(keyspace: &str, difference: &Difference) -> Option<String> {
    match difference {
        Difference::NotDurable => {
            Some(format!("ALTER KEYSPACE {keyspace} WITH durable_writes = true"))
        }
        Difference::Kept { table, option, expected, .. } if difference.is_required() => {
            Some(format!("ALTER TABLE {keyspace}.{table} WITH {option} = '{expected}'"))
        }
        _ => None,
    }
}

struct Changes<'a> {
    session: &'a Session,
    node: Option<Arc<dyn LoadBalancingPolicy>>,
    made: Vec<String>,
}

impl Changes<'_> {
    async fn make(&mut self, text: String) -> Result<(), SchemaError> {
        let mut statement = Statement::new(&text);
        statement.set_load_balancing_policy(self.node.clone());
        statement.set_request_timeout(Some(CHANGE_MAX));
        for attempt in 1.. {
            match self.session.query_unpaged(statement.clone(), ()).await {
                Ok(_) => break,
                Err(error) if already_made(&error) => break,
                Err(error) if attempt < ATTEMPTS_MAX && may_pass(&error) => {
                    tracing::warn!(attempt, %error, "a change of the schema is made again");
                }
                Err(error) => {
                    return Err(SchemaError::Refused { statement: text, why: error.to_string() });
                }
            }
        }
        self.made.push(text);
        Ok(())
    }
}

/// The node at which all processes make their changes.
fn first_node(session: &Session) -> Option<Arc<dyn LoadBalancingPolicy>> {
    let cluster = session.get_cluster_state();
    let nodes = cluster.get_nodes_info().iter().filter(|node| node.is_enabled());
    let first = nodes.min_by_key(|node| (!node.is_connected(), node.host_id))?;
    let first = NodeIdentifier::Node(Arc::clone(first));
    Some(SingleTargetLoadBalancingPolicy::new(first, None))
}

fn already_made(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::AlreadyExists { .. },
            _
        ))
    )
}

/// One change: a node under load takes seconds for it.
const CHANGE_MAX: Duration = Duration::from_secs(30);
const ATTEMPTS_MAX: u32 = 3;

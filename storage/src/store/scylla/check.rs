//! What a keyspace has, and how that differs from what the store needs.

use std::collections::BTreeMap;
use std::fmt;

use scylla::client::session::Session;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use scylla::value::CqlValue;

use super::super::StoreError;
use super::cluster::failure;
use super::link::{connect, datacenters};
use super::row::strange;
use super::schema::{self, Layout, Type, VERSION};
use super::{ScyllaOptions, ScyllaOptionsError, versions};

/// The schema could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The options are none.
    #[error(transparent)]
    Options(#[from] ScyllaOptionsError),
    /// No node of the cluster was to be reached.
    #[error("the store is not to be reached: {0}")]
    Unreachable(String),
    /// A read of the schema failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no keyspace, and nobody said how it is to be replicated.
    #[error("keyspace {0} does not exist; its replication has to be given for it to be created")]
    NoKeyspace(String),
    /// A change failed.
    #[error("`{statement}` failed: {why}")]
    Refused {
        /// The change.
        statement: String,
        /// What the cluster said.
        why: String,
    },
}

/// What differs from the schema that the store needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The keyspace does not exist.
    Keyspace,
    /// The keyspace's writes do not go to the commit log.
    NotDurable,
    /// The cluster has several data centres, and none was named.
    Datacenters(Vec<String>),
    /// A table does not exist.
    Table(&'static str),
    /// A table has other columns than it should have.
    Columns {
        /// The table.
        table: &'static str,
        /// Its columns.
        found: String,
        /// Those of the schema.
        expected: String,
    },
    /// The newest version that was applied is older than the one needed.
    Version(Option<u32>),
    /// A table is kept in another way.
    Kept {
        /// The table.
        table: &'static str,
        /// The option of the table.
        option: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl Difference {
    /// Whether the store must not be used like this. What is not required is an operator's choice.
    pub fn is_required(&self) -> bool {
        match self {
            Self::Kept { option, .. } => REQUIRED_OPTIONS.contains(option),
            _ => true,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyspace => write!(f, "the keyspace does not exist"),
            Self::NotDurable => write!(
                f,
                "the keyspace has durable_writes = false, which loses acknowledged writes"
            ),
            Self::Datacenters(names) => write!(
                f,
                "the cluster has the data centres {}, and none is named in the configuration",
                names.join(", ")
            ),
            Self::Table(table) => write!(f, "table {table} does not exist"),
            Self::Columns { table, found, expected } => {
                write!(f, "table {table} has the columns {found} instead of {expected}")
            }
            Self::Version(None) => write!(f, "no version of the schema was applied"),
            Self::Version(Some(found)) => {
                write!(f, "the schema is at version {found} and has to be at {VERSION}")
            }
            Self::Kept { table, option, found, expected } => {
                let must = if self.is_required() { "must be" } else { "is better" };
                write!(f, "table {table} has {option} = {found}, which {must} {expected}")
            }
        }
    }
}

/// What differs in the cluster from the schema of this process.
pub async fn check(options: &ScyllaOptions) -> Result<Vec<Difference>, SchemaError> {
    let session = connect(&options.session()?).await.map_err(SchemaError::Unreachable)?;
    Ok(Found::read(&session, &options.keyspace).await?.differences(&session, options))
}

/// What a keyspace has.
pub(super) struct Found {
    /// None where there is no keyspace.
    durable: Option<bool>,
    tables: BTreeMap<String, FoundTable>,
    pub(super) version: Option<u32>,
}

#[derive(Default)]
struct FoundTable {
    /// Column, type and part of the key, in the key's order.
    columns: Vec<(String, i32, String, String)>,
    compaction: String,
    gc_grace_s: i32,
    ttl_s: i32,
    /// Cassandra's alone.
    read_repair: Option<String>,
}

impl Found {
    pub(super) async fn read(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let keyspaces = describe(session, "keyspaces", keyspace).await?;
        let durable = keyspaces.first().map(|keyspace| {
            keyspace.get("durable_writes").and_then(CqlValue::as_boolean) != Some(false)
        });
        let mut tables = BTreeMap::new();
        for table in describe(session, "tables", keyspace).await? {
            let found = FoundTable {
                columns: Vec::new(),
                compaction: compaction_class(&table),
                gc_grace_s: int(&table, "gc_grace_seconds"),
                ttl_s: int(&table, "default_time_to_live"),
                read_repair: table.get("read_repair").and_then(CqlValue::as_text).cloned(),
            };
            tables.insert(text(&table, "table_name"), found);
        }
        for column in describe(session, "columns", keyspace).await? {
            if let Some(table) = tables.get_mut(&text(&column, "table_name")) {
                let place = int(&column, "position");
                let (kind, name) = (text(&column, "kind"), text(&column, "column_name"));
                table.columns.push((kind, place, name, text(&column, "type")));
            }
        }
        for table in tables.values_mut() {
            // In the key's order: a partition's columns before those that order its rows.
            table.columns.sort_by_key(|(kind, place, ..)| (key_part(kind), *place));
        }
        let version = versions::newest(session, keyspace).await?;
        Ok(Self { durable, tables, version })
    }

    pub(super) fn has_keyspace(&self) -> bool {
        self.durable.is_some()
    }

    pub(super) fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    pub(super) fn differences(
        &self,
        session: &Session,
        options: &ScyllaOptions,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        let datacenters = datacenters(session);
        if datacenters.len() > 1 && options.datacenter.is_none() {
            differences.push(Difference::Datacenters(datacenters));
        }
        match self.durable {
            None => return [differences, vec![Difference::Keyspace]].concat(),
            Some(false) => differences.push(Difference::NotDurable),
            Some(true) => {}
        }
        for table in schema::tables() {
            match self.tables.get(table.name) {
                None => differences.push(Difference::Table(table.name)),
                Some(found) => found.differences(&table, &mut differences),
            }
        }
        if self.version < Some(VERSION) {
            differences.push(Difference::Version(self.version));
        }
        differences
    }
}

impl FoundTable {
    fn differences(&self, table: &Layout, differences: &mut Vec<Difference>) {
        let expected = columns(table);
        let found = self.columns.iter().map(|(kind, _, name, is)| (kind.as_str(), name, is));
        let found = found.map(|(kind, name, is)| column(kind, name, is)).collect::<Vec<_>>();
        if found != expected {
            let (found, expected) = (found.join(", "), expected.join(", "));
            differences.push(Difference::Columns { table: table.name, found, expected });
        }
        let compaction = table.compaction.class();
        let mut kept = |option, found: String, expected: String| {
            if found != expected {
                differences.push(Difference::Kept { table: table.name, option, found, expected });
            }
        };
        kept("default_time_to_live", self.ttl_s.to_string(), "0".to_owned());
        if let Some(read_repair) = &self.read_repair {
            kept("read_repair", read_repair.clone(), "BLOCKING".to_owned());
        }
        kept("compaction", self.compaction.clone(), compaction.to_owned());
        kept("gc_grace_seconds", self.gc_grace_s.to_string(), table.gc_grace_s.to_string());
    }
}

fn columns(table: &Layout) -> Vec<String> {
    let part = |kind, columns: &[schema::Column]| {
        let column = |schema::Column(name, is): &schema::Column| column(kind, name, is.cql());
        columns.iter().map(column).collect::<Vec<_>>()
    };
    let value = column("regular", "value", Type::VALUE);
    [part("partition_key", table.partition), part("clustering", table.clustering), vec![value]]
        .concat()
}

fn column(kind: &str, name: &str, is: &str) -> String {
    format!("{name} {is} ({kind})")
}

fn key_part(kind: &str) -> u8 {
    match kind {
        "partition_key" => 0,
        "clustering" => 1,
        _ => 2,
    }
}

/// The rows of one of the tables in which a cluster describes itself. Which columns they have
/// differs between the servers.
async fn describe(
    session: &Session,
    table: &str,
    keyspace: &str,
) -> Result<Vec<BTreeMap<String, CqlValue>>, StoreError> {
    let text = format!("SELECT * FROM system_schema.{table} WHERE keyspace_name = '{keyspace}'");
    let mut statement = Statement::new(text);
    statement.set_consistency(Consistency::One); // every node has all of it
    statement.set_is_idempotent(true);
    let answer = session.query_unpaged(statement, ()).await.map_err(|error| failure(&error))?;
    named(&answer.into_rows_result().map_err(strange)?)
}

fn named(answer: &QueryRowsResult) -> Result<Vec<BTreeMap<String, CqlValue>>, StoreError> {
    let names = answer.column_specs().iter().map(|column| column.name().to_owned());
    let names = names.collect::<Vec<_>>();
    let rows = answer.rows::<scylla::value::Row>().map_err(strange)?;
    rows.map(|row| {
        let values = names.iter().cloned().zip(row.map_err(strange)?.columns);
        Ok(values.filter_map(|(name, value)| Some((name, value?))).collect())
    })
    .collect()
}

fn text(row: &BTreeMap<String, CqlValue>, column: &str) -> String {
    row.get(column).and_then(CqlValue::as_text).cloned().unwrap_or_default()
}

fn int(row: &BTreeMap<String, CqlValue>, column: &str) -> i32 {
    row.get(column).and_then(CqlValue::as_int).unwrap_or_default()
}

/// The last part of the class's name, which Cassandra gives in full.
fn compaction_class(table: &BTreeMap<String, CqlValue>) -> String {
    let Some(CqlValue::Map(options)) = table.get("compaction") else { return String::new() };
    let class = options.iter().find(|(name, _)| name.as_text().is_some_and(|name| name == "class"));
    let class = class.and_then(|(_, value)| value.as_text());
    class.and_then(|class| class.rsplit('.').next()).unwrap_or_default().to_owned()
}

/// A table whose rows end by themselves forgets, and one whose reads do not mend what they found
/// uneven may show a row and then not.
pub(super) const REQUIRED_OPTIONS: [&str; 2] = ["default_time_to_live", "read_repair"];

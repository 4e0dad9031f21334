//! Going through whole tables, in the order in which the cluster places their rows.
//!
//! A page begins behind a row's key and needs nothing else, so that it can be asked for after a
//! restart: first what is left of that row's partition, then the partitions that share its token,
//! then those of higher tokens.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev, Seq, UserId};
use futures_util::future::try_join_all;
use scylla::errors::PrepareError;
use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row as Columns};
use tokio::time::Instant;

use super::super::{Key, Row, StoreError, Table};
use super::ScyllaStore;
use super::claims::{self, CHANNEL_NAME};
use super::link::Link;
use super::read::limit_field;
use super::row::{self, Field, key_fields, position, strange};
use super::schema::{self, Column, Layout, Order};
use super::statements::Prepare;

/// The statements, by the table's number; the last are those of the unique keys.
pub(super) struct Dumps {
    tables: Vec<DumpStatements>,
    claims: DumpStatements,
}

/// Those of one table. A partition is given by the fields of its key.
struct DumpStatements {
    /// Limit: from the beginning.
    first: PreparedStatement,
    /// Partition, the rest of a row's key, limit: behind that row. None where a partition is a row.
    within: Option<PreparedStatement>,
    /// Partition: the partitions that have its token, itself too.
    beside: PreparedStatement,
    /// Partition, limit: all of it.
    whole: PreparedStatement,
    /// Partition, limit: what has higher tokens.
    rest: PreparedStatement,
    /// Columns that give the partition.
    partition: usize,
}

impl Dumps {
    async fn prepare(prepare: Prepare<'_>) -> Result<Self, PrepareError> {
        let layouts = schema::STAMPED.map(schema::stamped);
        let tables = layouts.iter().map(|layout| DumpStatements::prepare(&prepare, layout, STAMP));
        Ok(Self {
            tables: try_join_all(tables).await?,
            claims: DumpStatements::prepare(&prepare, &schema::CLAIMS, "").await?,
        })
    }
}

impl DumpStatements {
    /// `also` is read beside key and value.
    async fn prepare(
        prepare: &Prepare<'_>,
        layout: &Layout,
        also: &str,
    ) -> Result<Self, PrepareError> {
        let names = |of: &[Column]| of.iter().map(|Column(name, _)| *name).collect::<Vec<_>>();
        let (partition, clustering) = (names(layout.partition), names(layout.clustering));
        let key = [&partition[..], &clustering[..]].concat().join(", ");
        let marks = |of: &[&str]| vec!["?"; of.len()].join(", ");
        let token = format!("token({})", partition.join(", "));
        let place = format!("token({})", marks(&partition));
        let equal = partition.iter().map(|name| format!("{name} = ?")).collect::<Vec<_>>();
        let equal = equal.join(" AND ");
        let by = match layout.order {
            Order::LowestFirst => '>',
            Order::HighestFirst => '<',
        };
        let rows = format!("SELECT {key}, value{also} FROM {{}}");
        let read = |text: String| async move { prepare.read(layout, &text).await };
        let behind = format!("({}) {by} ({})", clustering.join(", "), marks(&clustering));
        let within = match clustering.is_empty() {
            true => None,
            false => Some(read(format!("{rows} WHERE {equal} AND {behind} LIMIT ?")).await?),
        };
        let partitions = format!("SELECT DISTINCT {} FROM {{}}", partition.join(", "));
        Ok(Self {
            first: read(format!("{rows} LIMIT ?")).await?,
            within,
            beside: read(format!("{partitions} WHERE {token} = {place}")).await?,
            whole: read(format!("{rows} WHERE {equal} LIMIT ?")).await?,
            rest: read(format!("{rows} WHERE {token} > {place} LIMIT ?")).await?,
            partition: partition.len(),
        })
    }
}

impl ScyllaStore {
    pub(super) async fn dump_table(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let (link, end) = self.dumping().await?;
        let statements = &dumps(&link).await?.tables[table as usize];
        let after = after.map(|key| key_fields(&key));
        let rows = self.rows_behind(&link, end, statements, after, limit).await?;
        rows.into_iter().map(|columns| dumped(table, columns)).collect()
    }

    pub(super) async fn dump_claimed_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let (link, end) = self.dumping().await?;
        let statements = &dumps(&link).await?.claims;
        let mut after = after.map(|name| claims::key_fields(CHANNEL_NAME, &name));
        loop {
            let rows = self.rows_behind(&link, end, statements, after, limit).await?;
            let claims = rows.into_iter().map(claim).collect::<Result<Vec<_>, _>>()?;
            let Some((kind, name, _)) = claims.last() else { return Ok(Vec::new()) };
            after = Some(claims::key_fields(kind, name));
            let names = claims.into_iter().filter(|(kind, ..)| kind == CHANNEL_NAME);
            let names = names.map(|(_, name, value)| (name, value)).collect::<Vec<_>>();
            // A page that has other kinds alone is not the end.
            if !names.is_empty() {
                return Ok(names);
            }
        }
    }

    async fn dumping(&self) -> Result<(Arc<Link>, Instant), StoreError> {
        let end = self.cluster.end_of_call();
        Ok((self.cluster.link(end).await?, end))
    }

    /// At most `limit` rows behind the one with this key.
    async fn rows_behind(
        &self,
        link: &Link,
        end: Instant,
        statements: &DumpStatements,
        after: Option<Vec<Field>>,
        limit: usize,
    ) -> Result<Vec<Columns>, StoreError> {
        let Some(mut key) = after else {
            return self.some_rows(link, end, &statements.first, Vec::new(), limit).await;
        };
        let mut rows = Vec::new();
        if let Some(within) = &statements.within {
            rows = self.some_rows(link, end, within, key.clone(), limit).await?;
        }
        key.truncate(statements.partition);
        if rows.len() < limit {
            let beside = self.beside(link, end, statements, &key).await?;
            for partition in beside {
                let left = limit - rows.len();
                rows.extend(self.some_rows(link, end, &statements.whole, partition, left).await?);
            }
        }
        if rows.len() < limit {
            let left = limit - rows.len();
            rows.extend(self.some_rows(link, end, &statements.rest, key, left).await?);
        }
        Ok(rows)
    }

    /// The partitions that follow this one and have its token. There is practically never one.
    async fn beside(
        &self,
        link: &Link,
        end: Instant,
        statements: &DumpStatements,
        partition: &[Field],
    ) -> Result<Vec<Vec<Field>>, StoreError> {
        let answer = self.all(link, end, &statements.beside, partition).await?;
        let found = columns(&answer)?.into_iter().map(fields);
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        match found.iter().position(|other| other == partition) {
            Some(own) => Ok(found.split_off(own + 1)),
            None => Ok(found),
        }
    }

    /// At most `limit` rows of a statement that takes the limit last.
    async fn some_rows(
        &self,
        link: &Link,
        end: Instant,
        statement: &PreparedStatement,
        mut values: Vec<Field>,
        limit: usize,
    ) -> Result<Vec<Columns>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        values.push(limit_field(limit));
        let mut rows = Vec::new();
        let mut page = PagingState::start();
        loop {
            let (answer, next) = self.page(link, end, statement, &values, page).await?;
            rows.extend(columns(&answer)?);
            match next {
                Some(next) if rows.len() < limit => page = next,
                _ => return Ok(rows),
            }
        }
    }
}

/// The statements, prepared now if they were not before.
async fn dumps(link: &Link) -> Result<&Dumps, StoreError> {
    let Link { session, keyspace, reads, .. } = link;
    let prepared = link
        .dumps
        .get_or_try_init(|| Box::pin(Dumps::prepare(Prepare { session, keyspace, reads })));
    prepared.await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn columns(answer: &QueryRowsResult) -> Result<Vec<Columns>, StoreError> {
    answer.rows::<Columns>().map_err(strange)?.map(|row| row.map_err(strange)).collect()
}

/// Columns of a key, as they are bound.
fn fields(columns: Columns) -> Result<Vec<Field>, StoreError> {
    let field = |column| match column {
        Some(CqlValue::Varint(id)) => row::id(&id).map(Field::Id),
        Some(CqlValue::BigInt(number)) => Ok(Field::Number(number)),
        Some(CqlValue::Text(text)) => Ok(Field::Text(text)),
        _ => Err(strange("a key has another column")),
    };
    columns.columns.into_iter().map(field).collect()
}

/// A row of a stamped table: its key, its value and the time of its writing.
fn dumped(table: Table, mut columns: Columns) -> Result<(Key, Row), StoreError> {
    let (written, value) = (columns.columns.pop().flatten(), columns.columns.pop().flatten());
    let Some(CqlValue::Blob(value)) = value else {
        return Err(strange("a row has no value"));
    };
    let written = written.and_then(|written| written.as_bigint());
    let key = fields(columns)?;
    Ok((key_of(table, &key)?, row::row((Some(&value), written))?))
}

fn claim(columns: Columns) -> Result<(String, String, Bytes), StoreError> {
    let mut columns = columns.columns.into_iter().flatten();
    match (columns.next(), columns.next(), columns.next()) {
        (Some(CqlValue::Text(kind)), Some(CqlValue::Text(name)), Some(CqlValue::Blob(value))) => {
            Ok((kind, name, value.into()))
        }
        _ => Err(strange("a claim has another column")),
    }
}

/// The key with these fields: the other way round of [`key_fields`].
fn key_of(table: Table, fields: &[Field]) -> Result<Key, StoreError> {
    let channel = |id: &u64| ChannelId::new(*id);
    let user = |id: &u64| UserId::new(*id);
    let seq = |number: &i64| position(*number).map(Seq::new);
    let rev = |number: &i64| position(*number).map(Rev::new);
    let partition = |number: &i64| {
        u32::try_from(*number)
            .map(PartitionId)
            .map_err(|_| strange("a partition has no such number"))
    };
    Ok(match (table, fields) {
        (Table::Messages, [Field::Id(of), _, Field::Number(n)]) => {
            Key::Message(channel(of), seq(n)?)
        }
        (Table::Events, [Field::Id(of), _, Field::Number(n)]) => Key::Event(channel(of), rev(n)?),
        (Table::Heads, [Field::Id(of)]) => Key::Head(channel(of)),
        (Table::Channels, [Field::Id(of)]) => Key::Channel(channel(of)),
        (Table::Members, [Field::Id(of), Field::Id(who)]) => Key::Member(channel(of), user(who)),
        (Table::ChannelsByUser, [Field::Id(who), Field::Id(of)]) => {
            Key::ChannelOfUser(user(who), channel(of))
        }
        (Table::ReadMarkers, [Field::Id(who), Field::Id(of)]) => {
            Key::ReadMarker(user(who), channel(of))
        }
        (Table::Mentions, [Field::Id(who), Field::Id(of), Field::Number(n)]) => {
            Key::Mention(user(who), channel(of), seq(n)?)
        }
        (Table::Relayed, [Field::Id(inbox), Field::Id(source)]) => {
            Key::Relayed { inbox: channel(inbox), source: channel(source) }
        }
        (
            Table::Outbox,
            [Field::Number(of), Field::Id(source), Field::Id(target), Field::Number(n)],
        ) => Key::Outbox {
            partition: partition(of)?,
            source: channel(source),
            target: channel(target),
            rev: rev(n)?,
        },
        (Table::Checkpoints, [Field::Number(of)]) => Key::Checkpoint(partition(of)?),
        _ => return Err(strange("a key has other columns")),
    })
}

/// What is read of a stamped row beside key and value.
const STAMP: &str = ", WRITETIME(value)";

//! Writing rows: those of one partition in unlogged batches, the partitions side by side.

use bytes::Bytes;
use chappe_protocol::ChannelId;
use foldhash::fast::RandomState;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use indexmap::IndexMap;
use indexmap::map::Entry;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::time::Instant;

use super::super::{Key, Mutation, ROW_BYTES_MAX, Stamp, StoreError};
use super::ScyllaStore;
use super::buckets::{index_of, index_row};
use super::link::Link;
use super::row::{Field, Partition, key_fields, written};
use super::statements::Statements;

impl ScyllaStore {
    pub(super) async fn write_rows(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        let rows = newest(batch)?;
        if rows.is_empty() {
            return Ok(());
        }
        let end = self.cluster.end_of_call();
        let link = self.cluster.link(end).await?;
        let (requests, buckets) = self.requests(&link.statements, rows);
        let (link, requests) = (&*link, stream::iter(requests));
        let writes = requests.map(|request| self.send(link, end, request));
        writes.buffer_unordered(WRITES_OF_ONE_CALL).try_collect::<()>().await?;
        for (bucket, stamp) in buckets {
            self.indexed.add(bucket, stamp);
        }
        Ok(())
    }

    /// The requests that write the rows, and the buckets that are in the index after them.
    fn requests(
        &self,
        statements: &Statements,
        rows: IndexMap<Key, Change, RandomState>,
    ) -> (Vec<Request>, Vec<(Partition, Stamp)>) {
        let mut partitions = IndexMap::<Partition, Vec<(Key, Change)>, RandomState>::default();
        for (key, change) in rows {
            partitions.entry(Partition::of(&key)).or_default().push((key, change));
        }
        let mut requests = Vec::with_capacity(partitions.len());
        let mut buckets = Vec::new();
        for (partition, rows) in partitions {
            let newest = rows.iter().map(|(_, change)| change.stamp).max();
            if let Some(stamp) = newest
                && partition.is_bucket()
                && !self.indexed.holds(&partition, stamp)
            {
                let mut index = Request::default();
                index.push(&statements.buckets.put, index_row(&partition, stamp));
                requests.push(index);
                buckets.push((partition, stamp));
            }
            split(statements, rows, &mut requests);
        }
        (requests, buckets)
    }

    async fn send(&self, link: &Link, end: Instant, request: Request) -> Result<(), StoreError> {
        let Request { mut statements, mut values, .. } = request;
        if let ([_], [_]) = (&statements[..], &values[..])
            && let (Some(statement), Some(values)) = (statements.pop(), values.pop())
        {
            let write = || link.session.execute_unpaged(&statement, &values);
            return self.cluster.ask(end, write).await.map(drop);
        }
        let statements = statements.into_iter().map(BatchStatement::from).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        self.cluster.ask(end, || link.session.batch(&batch, &values)).await.map(drop)
    }

    /// Removes the buckets of events of a channel below `kept_from`, and their rows in the index.
    ///
    /// A bucket is dropped at the newest stamp that is in it: what a later incarnation writes there
    /// stays. It leaves the index after its rows, so that nothing of it is forgotten on the way.
    pub(super) async fn drop_buckets(
        &self,
        channel: ChannelId,
        kept_from: i64,
    ) -> Result<(), StoreError> {
        let end = self.cluster.end_of_call();
        let link = self.cluster.link(end).await?;
        let Link { session, statements, .. } = &*link;
        loop {
            let lowest = self.lowest_buckets(&link, end, channel, kept_from).await?;
            let full = lowest.len() == super::read::BUCKETS_LISTED;
            for (bucket, indexed_at) in lowest {
                let partition =
                    Partition { table: super::super::Table::Events, of: channel.get(), bucket };
                self.indexed.remove(&partition);
                let place = vec![Field::Id(channel.get()), Field::Number(bucket)];
                let newest = self.newest_event(&link, end, &place).await?;
                if let Some(newest) = newest {
                    let values = [vec![written(newest)], place].concat();
                    let drop_rows = || session.execute_unpaged(&statements.drop_events, &values);
                    self.cluster.ask(end, drop_rows).await?;
                }
                let stamp = newest.map_or(indexed_at, |newest| newest.max(indexed_at));
                let mut values = vec![written(stamp)];
                values.extend(index_of(channel, partition.table));
                values.push(Field::Number(bucket));
                let leave = || session.execute_unpaged(&statements.buckets.remove, &values);
                self.cluster.ask(end, leave).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }
}

/// What a row becomes.
struct Change {
    stamp: Stamp,
    value: Option<Bytes>,
}

/// One change for each row: of several only the newest can stay, and of equal stamps the removal.
fn newest(batch: Vec<Mutation>) -> Result<IndexMap<Key, Change, RandomState>, StoreError> {
    let mut rows = IndexMap::with_capacity_and_hasher(batch.len(), RandomState::default());
    for Mutation { key, stamp, value } in batch {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        if bytes > ROW_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes });
        }
        match rows.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(Change { stamp, value })),
            Entry::Occupied(mut entry) => {
                let old: &mut Change = entry.get_mut();
                if stamp > old.stamp || (stamp == old.stamp && value.is_none()) {
                    *old = Change { stamp, value };
                }
            }
        }
    }
    Ok(rows)
}

/// Rows of one partition, sent together.
#[derive(Default)]
struct Request {
    statements: Vec<PreparedStatement>,
    values: Vec<Vec<Field>>,
    bytes: usize,
}

impl Request {
    fn push(&mut self, statement: &PreparedStatement, values: Vec<Field>) {
        self.statements.push(statement.clone());
        self.values.push(values);
    }
}

/// The rows of one partition as requests of a bounded size.
fn split(statements: &Statements, rows: Vec<(Key, Change)>, requests: &mut Vec<Request>) {
    let mut request = Request::default();
    for (key, Change { stamp, value }) in rows {
        let of = statements.of(key.table());
        let bytes = ROW_OVERHEAD_BYTES + value.as_ref().map_or(0, Bytes::len);
        let is_full = request.bytes + bytes > BATCH_BYTES_MAX || request.values.len() == BATCH_ROWS;
        if is_full && !request.values.is_empty() {
            requests.push(std::mem::take(&mut request));
        }
        request.bytes += bytes;
        let mut values = vec![written(stamp)];
        let statement = match value {
            Some(value) => {
                values.push(Field::Bytes(value));
                &of.put
            }
            None => &of.remove,
        };
        values.extend(key_fields(&key));
        request.push(statement, values);
    }
    requests.push(request);
}

/// Rows of a batch. With more of them a node works longer on one, and wins little.
const BATCH_ROWS: usize = 64;
/// Bytes of a batch: what ScyllaDB takes without a warning.
const BATCH_BYTES_MAX: usize = 96 * 1024;
/// What a row costs beside its value.
const ROW_OVERHEAD_BYTES: usize = 64;
/// Requests of one call that are on their way at once.
const WRITES_OF_ONE_CALL: usize = 64;

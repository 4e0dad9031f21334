//! The store of a cluster: tables in ScyllaDB or Cassandra.
//!
//! ```text
//!   write ──> newest change of each row ──> by partition ──> unlogged batches, USING TIMESTAMP = stamp
//!   get, scan ──> the replicas of the row, a second one when the first is slow
//!   claim, release ──> conditions, by turns; an answer that was lost is read back
//! ```
//!
//! The servers decide by the stamps: a cell's write time is its row's stamp, the later one wins, and
//! of a value and a removal at the same stamp the removal. So a write can be made any number of
//! times, by the driver, by this store and by its caller, and in any order. Writes and reads are
//! those of a quorum of the data centre, so that a read meets every write that was answered.
//!
//! Stamps lie below the present time in microseconds, as ScyllaDB insists, and no statement on a
//! stamped table lets a server choose a time: one such write would hide all later ones.
//!
//! The tables are made by [`apply`] and looked at by [`check`]; the store changes none.

mod apply;
mod buckets;
mod check;
mod claims;
mod cluster;
mod dump;
mod link;
mod options;
mod read;
mod retry;
mod row;
mod schema;
mod statements;
mod versions;
mod write;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev};

use super::key::BUCKET;
use super::{Claimed, Key, Mutation, Row, Scan, Store, StoreError, Table, UniqueKey};
use buckets::Indexed;
use claims::Turns;
use cluster::Cluster;

pub use apply::{Replication, apply};
pub use check::{Difference, SchemaError, check};
pub use options::{ScyllaLogin, ScyllaOptions, ScyllaOptionsError, ScyllaTls, UniqueScope};
pub use schema::VERSION as SCHEMA_VERSION;

/// A store in the tables of a keyspace, shared by all processes that use it.
pub struct ScyllaStore {
    cluster: Cluster,
    indexed: Indexed,
    turns: Turns,
}

impl ScyllaStore {
    /// The store in a cluster, which is not connected to yet. Reads the authorities of its TLS.
    pub fn new(options: ScyllaOptions) -> Result<Self, ScyllaOptionsError> {
        Ok(Self {
            cluster: Cluster::new(options)?,
            indexed: Indexed::default(),
            turns: Turns::default(),
        })
    }

    /// Whether the cluster answers, and its schema is at hand.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.read_row(Key::Checkpoint(PartitionId(0))).await.map(drop)
    }
}

#[async_trait]
impl Store for ScyllaStore {
    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        self.write_rows(batch).await
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, StoreError> {
        self.read_row(key).await
    }

    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError> {
        self.read_rows(keys).await
    }

    async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.read_range(scan, limit).await
    }

    async fn claim(&self, key: UniqueKey, value: Bytes) -> Result<Claimed, StoreError> {
        self.claim_key(&key, value).await
    }

    async fn claimed(&self, key: UniqueKey) -> Result<Option<Bytes>, StoreError> {
        self.claimed_key(&key).await
    }

    async fn release(&self, key: UniqueKey, value: Bytes) -> Result<(), StoreError> {
        self.release_key(&key, value).await
    }

    async fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        self.dump_table(table, after, limit).await
    }

    async fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        self.dump_claimed_names(after, limit).await
    }

    async fn expire_events(&self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError> {
        self.drop_buckets(channel, ((up_to.get() + 1) / BUCKET) as i64).await
    }
}

//! A store whose rows are apart from those of all other tests in the same tables.
//!
//! The ids that place a row in the cluster are changed by a mask, one to one, and changed back in
//! what is read. The order within a partition rests on other ids, which stay.

use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev, UserId};

use super::super::ScyllaStore;
use crate::store::{Claimed, Key, Mutation, Row, Scan, Store, StoreError, Table, UniqueKey};

pub(super) struct Apart {
    store: ScyllaStore,
    mask: u64,
}

impl Apart {
    pub(super) fn new(store: ScyllaStore, mask: u64) -> Self {
        Self { store, mask }
    }

    fn channel(&self, channel: ChannelId) -> ChannelId {
        ChannelId::new(channel.get() ^ self.mask)
    }

    fn user(&self, user: UserId) -> UserId {
        UserId::new(user.get() ^ self.mask)
    }

    fn partition(&self, partition: PartitionId) -> PartitionId {
        PartitionId(partition.0 ^ self.mask as u32)
    }

    /// There and back.
    fn key(&self, key: Key) -> Key {
        match key {
            Key::Message(channel, seq) => Key::Message(self.channel(channel), seq),
            Key::Event(channel, rev) => Key::Event(self.channel(channel), rev),
            Key::Head(channel) => Key::Head(self.channel(channel)),
            Key::Channel(channel) => Key::Channel(self.channel(channel)),
            Key::Member(channel, user) => Key::Member(self.channel(channel), user),
            Key::ChannelOfUser(user, channel) => Key::ChannelOfUser(self.user(user), channel),
            Key::ReadMarker(user, channel) => Key::ReadMarker(self.user(user), channel),
            Key::Mention(user, channel, seq) => Key::Mention(self.user(user), channel, seq),
            Key::Relayed { inbox, source } => Key::Relayed { inbox: self.channel(inbox), source },
            Key::Outbox { partition, source, target, rev } => {
                Key::Outbox { partition: self.partition(partition), source, target, rev }
            }
            Key::Checkpoint(partition) => Key::Checkpoint(self.partition(partition)),
        }
    }

    fn scanned(&self, scan: Scan) -> Scan {
        match scan {
            Scan::MessagesBefore(channel, seq) => Scan::MessagesBefore(self.channel(channel), seq),
            Scan::MessagesAfter(channel, seq) => Scan::MessagesAfter(self.channel(channel), seq),
            Scan::EventsAfter(channel, rev) => Scan::EventsAfter(self.channel(channel), rev),
            Scan::EventsUpTo(channel, rev) => Scan::EventsUpTo(self.channel(channel), rev),
            Scan::Members(channel, user) => Scan::Members(self.channel(channel), user),
            Scan::ChannelsByUser(user, channel) => Scan::ChannelsByUser(self.user(user), channel),
            Scan::Mentions(user, channel, seq) => Scan::Mentions(self.user(user), channel, seq),
            Scan::Outbox(partition) => Scan::Outbox(self.partition(partition)),
        }
    }

    /// The lineage is one row, and so becomes a name here; a test of its own has the row itself.
    fn unique(&self, key: UniqueKey) -> UniqueKey {
        UniqueKey::ChannelName(match key {
            UniqueKey::ChannelName(name) => format!("{:016x}/name/{name}", self.mask),
            UniqueKey::Lineage => format!("{:016x}/lineage", self.mask),
            UniqueKey::Migration => format!("{:016x}/migration", self.mask),
        })
    }
}

#[async_trait]
impl Store for Apart {
    async fn write(&self, mut batch: Vec<Mutation>) -> Result<(), StoreError> {
        for mutation in &mut batch {
            mutation.key = self.key(mutation.key);
        }
        self.store.write(batch).await
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, StoreError> {
        self.store.get(self.key(key)).await
    }

    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get_many(keys.into_iter().map(|key| self.key(key)).collect()).await
    }

    async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let rows = self.store.scan(self.scanned(scan), limit).await?;
        Ok(rows.into_iter().map(|(key, row)| (self.key(key), row)).collect())
    }

    async fn claim(&self, key: UniqueKey, value: Bytes) -> Result<Claimed, StoreError> {
        self.store.claim(self.unique(key), value).await
    }

    async fn claimed(&self, key: UniqueKey) -> Result<Option<Bytes>, StoreError> {
        self.store.claimed(self.unique(key)).await
    }

    async fn release(&self, key: UniqueKey, value: Bytes) -> Result<(), StoreError> {
        self.store.release(self.unique(key), value).await
    }

    /// Of everybody's rows: whole tables are dumped in a keyspace of one's own.
    async fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.dump(table, after, limit).await
    }

    async fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        self.store.dump_names(after, limit).await
    }

    async fn expire_events(&self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError> {
        self.store.expire_events(self.channel(channel), up_to).await
    }
}

//! A store that stops answering after so many calls, as its process's end would look to it. Each
//! test uses a part.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::{ChannelId, Rev};
use chappe_storage::store::{
    Claimed, Key, Mutation, Row, Scan, Store, StoreError, Table, UniqueKey,
};

pub(crate) struct Frail {
    store: Arc<dyn Store>,
    left: AtomicU32,
}

impl Frail {
    /// Answers so many calls.
    pub(crate) fn after(store: Arc<dyn Store>, calls: u32) -> Self {
        Self { store, left: calls.into() }
    }

    /// Answers so many more.
    pub(crate) fn allow(&self, calls: u32) {
        self.left.store(calls, Relaxed);
    }

    fn answers(&self) -> Result<&dyn Store, StoreError> {
        let left = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| StoreError::Unavailable("it fell over".to_owned()))?;
        Ok(&*self.store)
    }
}

#[async_trait]
impl Store for Frail {
    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        self.answers()?.write(batch).await
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, StoreError> {
        self.answers()?.get(key).await
    }

    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError> {
        self.answers()?.get_many(keys).await
    }

    async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.answers()?.scan(scan, limit).await
    }

    async fn claim(&self, key: UniqueKey, value: Bytes) -> Result<Claimed, StoreError> {
        self.answers()?.claim(key, value).await
    }

    async fn claimed(&self, key: UniqueKey) -> Result<Option<Bytes>, StoreError> {
        self.answers()?.claimed(key).await
    }

    async fn release(&self, key: UniqueKey, value: Bytes) -> Result<(), StoreError> {
        self.answers()?.release(key, value).await
    }

    async fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        self.answers()?.dump(table, after, limit).await
    }

    async fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        self.answers()?.dump_names(after, limit).await
    }

    async fn expire_events(&self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError> {
        self.answers()?.expire_events(channel, up_to).await
    }
}

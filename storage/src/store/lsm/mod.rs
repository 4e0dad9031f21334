//! The embedded store: one ordered keyspace of an LSM tree on the local disk.
//!
//! ```text
//!   write, claim, release ──> queue ──> one thread: compares stamps, commits a group, syncs it
//!   get, scan, claimed ──────────────────────────> tree (what is visible is durable)
//! ```
//!
//! Whatever waits in the queue when a commit ends becomes the next group: concurrent writes share
//! one `fdatasync`. Only that thread changes rows, so comparing a stamp and writing the row, or
//! finding a name free and claiming it, cannot be torn apart. A group enters the tree after its
//! sync; a reader never sees what a power cut could still take back.
//!
//! New rows of a channel that come together are kept together (`bundle.rs`), as the tree takes one
//! large entry for little more than a small one.
//!
//! A removed row leaves nothing behind that would remember its stamp. That is enough for the rows
//! that may be removed (see [`Mutation::value`]) and for expired events, whose facts lie far below
//! the checkpoint.

mod bundle;
mod ends;
mod group;
mod open;
mod read;
mod tree;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_protocol::{ChannelId, Rev};
use tokio::sync::Semaphore;

use super::{
    Claimed, Key, Mutation, ROW_BYTES_MAX, Row, Scan, Store, StoreError, Table, UniqueKey,
};
use group::{Change, Rows};
use tree::Tree;
use writer::Writer;

pub use crate::folder::OpenError;
pub use open::LsmOptions;

/// A store in a directory of its own, which it locks.
///
/// Dropping it waits until what was handed over is committed.
pub struct LsmStore {
    writer: Writer,
    tree: Arc<Tree>,
    /// How many reads may occupy a thread of the runtime's blocking pool.
    reads: Arc<Semaphore>,
}

impl LsmStore {
    /// Opens the store in `dir`, or makes one if there is none, with the default limits.
    ///
    /// Blocks: it replays the journal.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(dir, LsmOptions::default())
    }

    /// The same with other limits.
    pub fn open_with(dir: impl AsRef<Path>, options: LsmOptions) -> Result<Self, OpenError> {
        let tree = Arc::new(open::open(dir.as_ref(), &options)?);
        let writer = Writer::start(Arc::clone(&tree)).map_err(OpenError::from)?;
        Ok(Self { writer, tree, reads: Arc::new(Semaphore::new(READS_MAX)) })
    }

    /// Runs a read on the blocking pool, as it may wait for the disk.
    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tree) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Unavailable("it is closed".to_owned()))?;
        let tree = Arc::clone(&self.tree);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit; // held to the end of the read, even if nobody waits for it
            read(&tree)
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("a read was stopped with its runtime".to_owned()))
        })
    }
}

#[async_trait]
impl Store for LsmStore {
    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        let bytes = batch.iter().map(|row| row.value.as_ref().map_or(0, Bytes::len));
        if let Some(bytes) = bytes.max().filter(|bytes| *bytes > ROW_BYTES_MAX) {
            return Err(StoreError::TooLarge { bytes });
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.writer.submit(Change::Rows(batch)).await.map(drop)
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, StoreError> {
        let rows = self.read(move |tree| tree.rows(&[key])).await?;
        Ok(rows.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError> {
        self.read(move |tree| tree.rows(&keys)).await
    }

    async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.read(move |tree| tree.scan(scan, limit)).await
    }

    async fn claim(&self, key: UniqueKey, value: Bytes) -> Result<Claimed, StoreError> {
        let key = unique_bytes(&key, &value)?;
        self.writer.submit(Change::Claim { key, value: value.to_vec().into() }).await
    }

    async fn claimed(&self, key: UniqueKey) -> Result<Option<Bytes>, StoreError> {
        let key = unique_bytes(&key, &[])?;
        self.read(move |tree| Ok(tree.get(&key)?.map(|value| Bytes::copy_from_slice(&value)))).await
    }

    async fn release(&self, key: UniqueKey, value: Bytes) -> Result<(), StoreError> {
        let key = unique_bytes(&key, &value)?;
        let release = Change::Release { key, value: value.to_vec().into() };
        self.writer.submit(release).await.map(drop)
    }

    async fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        self.read(move |tree| tree.dump(table, after, limit)).await
    }

    async fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        self.read(move |tree| tree.dump_names(after, limit)).await
    }

    async fn expire_events(&self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError> {
        for (first, last) in read::expired(channel, up_to) {
            let mut first = Bound::Included(first);
            loop {
                let range = (first, Bound::Included(last.clone()));
                let page = move |tree: &Tree| tree.keys(range, EXPIRED_PAGE_KEYS);
                let page = self.read(page).await?;
                let Some(key) = page.last() else { break };
                first = Bound::Excluded(key.to_vec());
                let is_last = page.len() < EXPIRED_PAGE_KEYS;
                self.writer.submit(Change::Expire(page)).await?;
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn unique_bytes(key: &UniqueKey, value: &[u8]) -> Result<fjall::UserKey, StoreError> {
    let key = key.to_bytes();
    let bytes = key.len().max(value.len());
    if key.len() > UNIQUE_KEY_BYTES_MAX || value.len() > ROW_BYTES_MAX {
        return Err(StoreError::TooLarge { bytes });
    }
    Ok(key.into())
}

/// Reads at work at once. Each occupies a thread while it waits for the disk.
const READS_MAX: usize = 32;
/// The tree takes keys of up to 65,535 bytes; no name comes near.
const UNIQUE_KEY_BYTES_MAX: usize = 4096;
/// Keys of expired rows and bundles that are removed with one commit.
const EXPIRED_PAGE_KEYS: usize = 1024;

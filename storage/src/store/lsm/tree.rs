//! The tree: reads of committed rows, the commit of a group, and what a failure of either means.
//!
//! Everything here blocks. Only the writer's thread commits.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, LsmError, PersistMode, UserKey, UserValue};

use super::super::StoreError;
use super::super::key::KeyBytes;
use super::group::Committed;

/// An open tree.
pub(super) struct Tree {
    // Before the lock, so that the files are closed when it is let go.
    rows: Keyspace,
    database: Database,
    dir: PathBuf,
    disk_free_bytes_min: u64,
    /// Locked for as long as the tree is open.
    _lock: File,
}

impl Tree {
    pub(super) fn new(
        (database, rows): (Database, Keyspace),
        dir: PathBuf,
        disk_free_bytes_min: u64,
        lock: File,
    ) -> Self {
        Self { rows, database, dir, disk_free_bytes_min, _lock: lock }
    }

    /// The rows of a range of keys.
    pub(super) fn range(&self, range: RangeInclusive<KeyBytes>) -> fjall::Iter {
        self.rows.range(range)
    }

    /// Writes and removes rows, all or none, and returns when they are durable.
    pub(super) fn commit(
        &self,
        changes: impl Iterator<Item = (UserKey, Option<UserValue>)>,
    ) -> Result<(), StoreError> {
        let mut changes = changes.peekable();
        if changes.peek().is_none() {
            return Ok(()); // what the answers rest on was durable before
        }
        self.check_space()?;
        self.wait_for_flushes()?;
        // The sync is part of the commit: rows enter the tree after it.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.rows, key, value),
                None => batch.remove(&self.rows, key),
            }
        }
        batch.commit().map_err(tree_error)
    }

    /// Refuses while the disk is nearly full. The tree takes no write after one that failed, and a
    /// flush in the background needs space too: so it is not left to fail.
    fn check_space(&self) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.dir)
            .map_err(|error| tree_error(fjall::Error::Io(error.into())))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < self.disk_free_bytes_min {
            return Err(disk_full());
        }
        Ok(())
    }

    /// Waits while flushes lag behind. A commit would wait by itself, but for ever if the flushing
    /// failed meanwhile: it begins to at four waiting memtables, and one commit adds one at most.
    fn wait_for_flushes(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        while self.rows.sealed_memtable_count() > SEALED_MEMTABLES_MAX {
            // Says so if the flushing has failed; there is nothing to write out.
            self.database.persist(PersistMode::Buffer).map_err(tree_error)?;
            if started.elapsed() > FLUSH_WAIT_MAX {
                return Err(StoreError::Unavailable("flushes to disk lag behind".to_owned()));
            }
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }
}

impl Committed for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.rows.get(key).map_err(tree_error)
    }
}

/// What an error of the tree means to a caller.
pub(super) fn tree_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(),
                io::ErrorKind::UnexpectedEof => StoreError::Damaged(error.to_string()),
                _ => StoreError::Unavailable(error.to_string()),
            }
        }
        fjall::Error::Poisoned => StoreError::Unavailable(
            "an earlier write or flush failed, so nothing is written before a restart".to_owned(),
        ),
        fjall::Error::Locked | fjall::Error::KeyspaceDeleted => {
            StoreError::Unavailable(error.to_string())
        }
        damage => StoreError::Damaged(damage.to_string()),
    }
}

fn disk_full() -> StoreError {
    StoreError::Unavailable("the disk is full".to_owned())
}

/// Memtables that may wait for their flush before commits wait for them.
const SEALED_MEMTABLES_MAX: usize = 1;
/// How long a commit waits for flushes.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(30);
const FLUSH_POLL: Duration = Duration::from_millis(2);

//! The tree: reads of committed rows, the commit of a group, and what a failure of either means.
//!
//! Everything here blocks. Only the writer's thread commits.

use std::io;
use std::ops::{RangeBounds, RangeInclusive};
use std::time::{Duration, Instant};

use fjall::{
    AbstractTree, Database, Keyspace, LsmError, PersistMode, Readable, Snapshot, UserKey, UserValue,
};

use super::super::StoreError;
use super::super::key::{KeyBytes, Sequence};
use super::group::Rows;
use crate::folder::Folder;

/// An open tree.
pub(super) struct Tree {
    // The order of the fields is that of their drop: the folder is let go once the files are closed.
    rows: Keyspace,
    database: Database,
    folder: Folder,
    disk_free_bytes_min: u64,
}

impl Tree {
    pub(super) fn new(
        database: Database,
        rows: Keyspace,
        folder: Folder,
        disk_free_bytes_min: u64,
    ) -> Self {
        Self { rows, database, folder, disk_free_bytes_min }
    }

    /// The rows as they are now, whatever is committed meanwhile.
    pub(super) fn view(&self) -> View<'_> {
        View { rows: &self.rows, snapshot: self.database.snapshot() }
    }

    /// Refuses while the disk is nearly full. The tree takes no write after one that failed, and a
    /// flush in the background needs space too: so it is not left to fail.
    fn check_space(&self) -> Result<(), StoreError> {
        let free_bytes = self.folder.free_bytes().map_err(|error| tree_error(error.into()))?;
        if free_bytes < self.disk_free_bytes_min {
            return Err(disk_full());
        }
        Ok(())
    }

    /// Waits while flushes or compactions lag behind. A commit would wait by itself, but for ever
    /// if these had failed: it begins to at four memtables or thirty runs, and one commit adds one
    /// at most.
    fn wait_for_flushes(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        let lags = || {
            self.rows.sealed_memtable_count() > SEALED_MEMTABLES_MAX
                || self.rows.tree.l0_run_count() > LEVEL_0_RUNS_MAX
        };
        while lags() {
            // Tells whether they failed; there is nothing to write out.
            self.database.persist(PersistMode::Buffer).map_err(tree_error)?;
            if started.elapsed() > FLUSH_WAIT_MAX {
                return Err(StoreError::Unavailable("flushes to disk lag behind".to_owned()));
            }
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }
}

/// The committed rows of one moment.
pub(super) struct View<'a> {
    rows: &'a Keyspace,
    snapshot: Snapshot,
}

impl View<'_> {
    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.snapshot.get(self.rows, key).map_err(tree_error)
    }

    /// The entries of a range of keys.
    pub(super) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> fjall::Iter {
        self.snapshot.range(self.rows, range)
    }

    /// The first bundle that ends at or above a position, and its key.
    pub(super) fn bundle(
        &self,
        sequence: Sequence,
        position: u64,
    ) -> Result<Option<(UserKey, UserValue)>, StoreError> {
        let range = sequence.bundle_bytes(position)..=sequence.bundle_bytes(u64::MAX);
        self.range(range).next().map(|entry| entry.into_inner().map_err(tree_error)).transpose()
    }
}

impl Rows for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.rows.get(key).map_err(tree_error)
    }

    fn end(&self, sequence: Sequence) -> Result<Option<u64>, StoreError> {
        let view = self.view();
        let last = |range: RangeInclusive<KeyBytes>| {
            let last = view.range(range).next_back();
            last.map(|entry| entry.key().map_err(tree_error)).transpose()
        };
        let row = last(sequence.row_bytes(0)..=sequence.row_bytes(u64::MAX))?;
        let bundle = last(sequence.bundle_bytes(0)..=sequence.bundle_bytes(u64::MAX))?;
        let row = row.and_then(|key| Sequence::of(&key));
        let bundle = bundle.and_then(|key| Sequence::of_bundle(&key));
        Ok(row.into_iter().chain(bundle).map(|(_, position)| position).max())
    }

    fn bundle(
        &self,
        sequence: Sequence,
        position: u64,
    ) -> Result<Option<(UserKey, UserValue)>, StoreError> {
        self.view().bundle(sequence, position)
    }

    fn commit(
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
/// Runs that may wait for their compaction before commits wait for them.
const LEVEL_0_RUNS_MAX: usize = 16;
/// How long a commit waits for either.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(30);
const FLUSH_POLL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, "it")
    }

    #[test]
    fn a_full_disk_is_named_wherever_it_was_met() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert_eq!(tree_error(fjall::Error::Io(io_error(kind))), disk_full());
            let beneath = fjall::Error::Storage(LsmError::Io(io_error(kind)));
            assert_eq!(tree_error(beneath), disk_full());
        }
    }

    #[test]
    fn damage_is_told_from_a_disk_that_does_not_answer() {
        for damage in [
            fjall::Error::Storage(LsmError::InvalidTrailer),
            fjall::Error::InvalidTrailer,
            fjall::Error::Unrecoverable,
            fjall::Error::Io(io_error(io::ErrorKind::UnexpectedEof)),
        ] {
            assert!(matches!(tree_error(damage), StoreError::Damaged(_)));
        }
        for other in [fjall::Error::Io(io_error(io::ErrorKind::Other)), fjall::Error::Poisoned] {
            assert!(matches!(tree_error(other), StoreError::Unavailable(_)));
        }
    }
}

//! Opening the store: its folder, its tree and its limits.
//!
//! `DIR/tree/` holds the tree's own files.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};

use super::super::StoreError;
use super::tree::{Tree, tree_error};
use crate::folder::{Folder, OpenError};

/// The limits of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsmOptions {
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: u64,
    /// How large the table in memory grows before it is flushed, in bytes. Three such tables may
    /// be held at a time.
    pub memtable_bytes: u64,
    /// Disk space of the journals above which they are flushed away, in bytes; at least 64 MiB.
    pub journal_bytes_max: u64,
    /// Files that are kept open at most; at least 10.
    pub open_files_max: usize,
    /// Writes are refused while less than this is free on the disk, in bytes, so that a flush
    /// still has room.
    pub disk_free_bytes_min: u64,
}

impl Default for LsmOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 * MIB,
            memtable_bytes: 16 * MIB,
            journal_bytes_max: 256 * MIB,
            open_files_max: 128,
            disk_free_bytes_min: 128 * MIB,
        }
    }
}

pub(super) fn open(dir: &Path, options: &LsmOptions) -> Result<Tree, OpenError> {
    let folder = Folder::lock(dir, FORMAT)?;
    folder.upgrade(FORMAT_1)?;
    if !folder.is_made(&[TREE])? {
        make(&folder, options)?;
    }
    let (database, rows) = open_tree(&folder, options)?;
    Ok(Tree::new(database, rows, folder, options.disk_free_bytes_min))
}

/// Makes the tree from nothing, as it cannot finish a directory that it only began.
fn make(folder: &Folder, options: &LsmOptions) -> Result<(), OpenError> {
    match fs::remove_dir_all(folder.join(TREE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => drop(open_tree(folder, options)?),
    }
    Ok(folder.set_made()?)
}

fn open_tree(folder: &Folder, options: &LsmOptions) -> Result<(Database, Keyspace), OpenError> {
    let database = Database::builder(folder.join(TREE))
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes_max)
        .max_cached_files(Some(options.open_files_max))
        .worker_threads(WORKERS)
        .journal_compression(CompressionType::None) // it would save a disk what costs a processor
        .open()
        .map_err(open_error)?;
    // Filters stay on every level: a new row's stamp is looked for before it is written.
    let rows = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(LEVEL_0_TABLES)))
    };
    let rows = database.keyspace(ROWS, rows).map_err(open_error)?;
    Ok((database, rows))
}

fn open_error(error: fjall::Error) -> OpenError {
    match error {
        fjall::Error::Locked => OpenError::Locked,
        fjall::Error::InvalidVersion(_) => OpenError::Format,
        other => match tree_error(other) {
            StoreError::Damaged(what) => OpenError::Damaged(what),
            other => OpenError::Io(io::Error::other(other)),
        },
    }
}

const FORMAT: &str = "chappe store 2\n";
/// The format before rows were kept in bundles. It is this one, without any.
const FORMAT_1: &str = "chappe store 1\n";
const TREE: &str = "tree";
const ROWS: &str = "rows";
/// Threads that flush and compact. With more than one, `fjall` 3.1 keeps the first for flushes and
/// has it hand compactions to itself without a pause while another is at one: a processor for
/// nothing. With one a flush can wait behind a compaction, which `wait_for_flushes` bounds.
const WORKERS: usize = 1;
/// Flushed tables that are merged into the next level at once. All channels that are written to lie
/// in every one of them, so each merge rewrites that level: with twice the default it is rewritten
/// half as often, and a read looks into four tables more at most.
const LEVEL_0_TABLES: u8 = 8;
const MIB: u64 = 1024 * 1024;

//! Opening the store: its lock, its format and its limits.
//!
//! ```text
//!   DIR/lock     held while the store is open
//!   DIR/format   written last when the store is made; without it nothing here was ever promised
//!   DIR/tree/    the tree's own files
//! ```
//!
//! Another format is refused, never guessed at.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions};

use super::super::StoreError;
use super::tree::{Tree, tree_error};

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

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("the store is in use by another process")]
    Locked,
    /// It was written by another version.
    #[error("the store has a format that this version does not read; it reads format {FORMAT}")]
    Format,
    /// The directory holds something else.
    #[error("the directory holds files that are not a store's")]
    Foreign,
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The disk is full, cannot be read, or is not ours to write.
    #[error("the store cannot be opened: {0}")]
    Io(#[from] io::Error),
}

pub(super) fn open(dir: &Path, options: &LsmOptions) -> Result<Tree, OpenError> {
    fs::create_dir_all(dir)?;
    let lock = lock(dir)?;
    if !is_made(dir)? {
        make(dir, options)?;
    }
    let tree = open_tree(dir, options)?;
    Ok(Tree::new(tree, dir.to_owned(), options.disk_free_bytes_min, lock))
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let lock = File::options().create(true).write(true).truncate(false).open(dir.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether a store was made here, to its end.
fn is_made(dir: &Path) -> Result<bool, OpenError> {
    match fs::read(dir.join(FORMAT_FILE)) {
        Ok(found) if found == format_line().as_bytes() => Ok(true),
        Ok(_) => Err(OpenError::Format),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a store. The tree's files come first, as it cannot finish a directory that it began.
fn make(dir: &Path, options: &LsmOptions) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if ![LOCK, TREE, FORMAT_NEW].iter().any(|ours| name == *ours) {
            return Err(OpenError::Foreign);
        }
    }
    match fs::remove_dir_all(dir.join(TREE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => drop(open_tree(dir, options)?),
    }
    let mut format = File::create(dir.join(FORMAT_NEW))?;
    format.write_all(format_line().as_bytes())?;
    format.sync_all()?;
    fs::rename(dir.join(FORMAT_NEW), dir.join(FORMAT_FILE))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn open_tree(dir: &Path, options: &LsmOptions) -> Result<(Database, fjall::Keyspace), OpenError> {
    let database = Database::builder(dir.join(TREE))
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes_max)
        .max_cached_files(Some(options.open_files_max))
        .worker_threads(WORKERS)
        .open()
        .map_err(open_error)?;
    // Filters stay on every level: a new row's stamp is looked for before it is written.
    let rows = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
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

fn format_line() -> String {
    format!("chappe store {FORMAT}\n")
}

const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK: &str = "lock";
const TREE: &str = "tree";
const ROWS: &str = "rows";
/// Threads that flush and compact: one for each, so that neither waits for the other.
const WORKERS: usize = 2;
const MIB: u64 = 1024 * 1024;

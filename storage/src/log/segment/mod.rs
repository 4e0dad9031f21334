//! The embedded backend of the log port: one journal for all partitions, in segment files.
//!
//! ```text
//!   log/ lock                          held while a process has the log open
//!        format                        version of the layout, number of partitions
//!        00000000000000000007.segment  [header][batch][batch]…      sealed
//!        00000000000000000008.segment  [header][batch][batch]·····  newest, length set ahead
//!
//!   appenders ──> queue ──> writer thread: batch, write, fdatasync ──> map ──> readers
//!                                                                 └──> outcomes
//! ```
//!
//! All partitions share the journal because a disk syncs one file far faster than sixty-four. An
//! index in memory says where a partition's records are. A record is readable, and acknowledged,
//! after the `fdatasync` that covers it.
//!
//! What it refuses: a second process; a layout or a number of partitions that is not its own; to
//! open when something that was durable is damaged (only the torn end of the newest segment is
//! mended); appends after a failed write or sync, until it is opened again; appends while the disk
//! is full. Limits: damage to the very last batch before an idle marker cannot be told from a
//! write that a crash cut off, and a segment that somebody removed at the newest end is not missed.

mod batch;
mod config;
mod disk;
mod entry;
mod file_system;
mod format;
mod header;
mod map;
mod queue;
mod reader;
mod recover;
mod scan;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use chappe_protocol::PartitionId;

pub use self::config::{OpenError, SegmentConfig};
use self::disk::Disk;
use self::file_system::FileSystem;
use self::map::Map;
use self::queue::{Mode, Queue, SegmentAppender};
use self::reader::Indexes;
use self::recover::{End, recover};
use self::writer::Writer;
use crate::log::{Acks, Appender, Bounds, Entry, Log, Offset, ReadError};

/// A log in segment files.
///
/// Dropping it writes and acknowledges what was accepted, and waits for that: a few milliseconds
/// at most. Its appenders refuse afterwards.
pub struct SegmentLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Released last.
    _lock: Box<dyn Send + Sync>,
}

/// What the writer, the appenders and the readers have in common.
struct Shared {
    disk: Arc<dyn Disk>,
    config: SegmentConfig,
    partitions: u32,
    queue: Arc<Queue>,
    map: RwLock<Map>,
    indexes: Indexes,
}

impl SegmentLog {
    /// Opens the log in a folder, or creates it there. Reads the newest segments, so it blocks
    /// for about a second per GiB of `verify_bytes_max`.
    pub fn open(dir: &Path, partitions: u32, config: SegmentConfig) -> Result<Self, OpenError> {
        config.check(partitions)?;
        let disk = FileSystem::open(dir)?;
        let Some(lock) = disk.lock()? else { return Err(OpenError::Locked(dir.to_owned())) };
        let (shared, end) = Shared::recover(Arc::new(disk), partitions, config)?;
        let writer = Writer::new(Arc::clone(&shared), end);
        let thread = thread::Builder::new().name("log".to_owned());
        let writer = thread.spawn(move || writer.run())?;
        Ok(Self { shared, writer: Some(writer), _lock: lock })
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // It cannot be told to anyone here that it panicked; the panic itself was seen.
            writer.join().ok();
        }
    }
}

#[async_trait]
impl Log for SegmentLog {
    fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    fn appender(&self) -> (Box<dyn Appender>, Acks) {
        let queue = Arc::clone(&self.shared.queue);
        let (appender, acks) =
            SegmentAppender::new(queue, self.shared.partitions, &self.shared.config);
        (Box::new(appender), acks)
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let bounds = self.shared.bounds(partition);
        if from >= bounds.end {
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        let read = move || reader::read(&shared, partition, from, bytes_max);
        match tokio::task::spawn_blocking(read).await {
            Ok(entries) => entries,
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, ReadError> {
        Ok(self.shared.bounds(partition))
    }

    /// Returns when the mark is durable, or at once when the disk is full: then it holds from now
    /// on, and is written down when there is space.
    async fn trim(&self, partition: PartitionId, below: Offset) -> Result<(), ReadError> {
        let Some(change) = self.shared.raise_mark(partition, below) else { return Ok(()) };
        match self.shared.queue.trim_recorded(change).await {
            Mode::Open | Mode::NoSpace => Ok(()),
            Mode::Failed | Mode::Closed => {
                Err(ReadError::Unavailable("the log takes no trim marks now".to_owned()))
            }
        }
    }
}

impl Shared {
    fn recover(
        disk: Arc<dyn Disk>,
        partitions: u32,
        config: SegmentConfig,
    ) -> Result<(Arc<Self>, End), OpenError> {
        let recovered = recover(&*disk, partitions, &config)?;
        let segments = recovered.map.segments.len();
        tracing::info!(segments, checked = recovered.indexes.len() + 1, "the log is open");
        let indexes = Indexes::new(config.indexes_max);
        for (number, index) in recovered.indexes {
            indexes.insert(number, Arc::new(index));
        }
        let queue = Arc::new(Queue::new());
        let map = RwLock::new(recovered.map);
        let shared = Self { disk, config, partitions, queue, map, indexes };
        Ok((Arc::new(shared), recovered.end))
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        assert!(partition.0 < self.partitions, "the log has no such partition");
        self.map().bounds(partition)
    }

    /// Raises a trim mark, at most to the partition's end. Returns the number of the change, or
    /// none if the mark is there already.
    fn raise_mark(&self, partition: PartitionId, below: Offset) -> Option<u64> {
        let end = self.bounds(partition).end;
        let below = below.min(end).0;
        let mut map = self.map_mut();
        let mark = &mut map.marks[partition.0 as usize];
        if *mark >= below {
            return None;
        }
        *mark = below;
        drop(map);
        Some(self.queue.trim_changed())
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A log in memory that tests may trim, cut and mistrust. Each test uses a part.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chappe_partition::record::{Record, decode};
use chappe_protocol::PartitionId;
use chappe_storage::log::{
    Acked, Acks, AppendRefused, Appender, Bounds, Entry, Log, Offset, ReadError,
};
use tokio::sync::mpsc;

/// Shared by all who hold a copy of it.
#[derive(Clone)]
pub(crate) struct MemoryLog(Arc<Vec<Mutex<Kept>>>);

#[derive(Default)]
struct Kept {
    start: u64,
    records: Vec<Bytes>,
    /// So many looks at its bounds are answered by a node that has only so many records.
    behind: (u32, u64),
}

impl MemoryLog {
    pub(crate) fn new(partitions: u32) -> Self {
        Self(Arc::new((0..partitions).map(|_| Mutex::default()).collect()))
    }

    /// Loses what stands at `end` and behind it.
    pub(crate) fn cut(&self, partition: PartitionId, end: u64) {
        self.kept(partition).records.truncate(end as usize);
    }

    /// The next `looks` are answered by a node that is behind.
    pub(crate) fn seems_to_end(&self, partition: PartitionId, looks: u32, end: u64) {
        self.kept(partition).behind = (looks, end);
    }

    pub(crate) fn end(&self, partition: PartitionId) -> u64 {
        self.kept(partition).records.len() as u64
    }

    pub(crate) fn last(&self, partition: PartitionId) -> Record {
        decode(self.kept(partition).records.last().unwrap()).unwrap()
    }

    fn kept(&self, partition: PartitionId) -> MutexGuard<'_, Kept> {
        self.0[partition.0 as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn partitions(&self) -> u32 {
        self.0.len() as u32
    }

    fn appender(&self) -> (Box<dyn Appender>, Acks) {
        let (acks, receiver) = mpsc::channel(65_536);
        (Box::new(MemoryAppender { log: self.clone(), acked: Vec::new(), acks }), receiver)
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let kept = self.kept(partition);
        if from.0 < kept.start {
            return Err(ReadError::Trimmed { start: Offset(kept.start) });
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (at, record) in kept.records.iter().enumerate().skip(from.0 as usize) {
            if bytes > 0 && bytes + record.len() > bytes_max {
                break;
            }
            bytes += record.len();
            entries.push(Entry { offset: Offset(at as u64), record: record.clone() });
        }
        Ok(entries)
    }

    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, ReadError> {
        let mut kept = self.kept(partition);
        let (start, mut end) = (Offset(kept.start), Offset(kept.records.len() as u64));
        if let (looks @ 1.., seen) = kept.behind {
            kept.behind = (looks - 1, seen);
            end = end.min(Offset(seen));
        }
        Ok(Bounds { start, end })
    }

    async fn trim(&self, partition: PartitionId, below: Offset) -> Result<(), ReadError> {
        let mut kept = self.kept(partition);
        kept.start = kept.start.max(below.0.min(kept.records.len() as u64));
        Ok(())
    }
}

struct MemoryAppender {
    log: MemoryLog,
    acked: Vec<Acked>,
    acks: mpsc::Sender<Vec<Acked>>,
}

impl Appender for MemoryAppender {
    fn append(
        &mut self,
        partition: PartitionId,
        token: u64,
        record: Bytes,
    ) -> Result<(), AppendRefused> {
        let mut kept = self.log.kept(partition);
        kept.records.push(record);
        let result = Ok(Offset(kept.records.len() as u64 - 1));
        drop(kept);
        self.acked.push(Acked { partition, token, result });
        Ok(())
    }

    fn flush(&mut self) {
        let acked = std::mem::take(&mut self.acked);
        if !acked.is_empty() {
            // The other end goes when its broker does.
            drop(self.acks.try_send(acked));
        }
    }
}

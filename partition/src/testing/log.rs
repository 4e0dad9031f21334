//! A partition's log in memory.

use bytes::Bytes;
use chappe_storage::log::{Bounds, Entry, Offset, ReadError};

/// A partition's log. What was trimmed cannot be read, but is kept for tests to look at.
#[derive(Debug, Default, Clone)]
pub struct SimLog {
    start: u64,
    records: Vec<Bytes>,
    /// It does not answer.
    pub down: bool,
}

/// Records that one read gives.
const READ_RECORDS: usize = 7;

impl SimLog {
    /// Appends a record.
    pub fn push(&mut self, record: Bytes) -> Offset {
        self.records.push(record);
        Offset(self.records.len() as u64 - 1)
    }

    /// What it holds.
    pub fn bounds(&self) -> Bounds {
        Bounds { start: Offset(self.start), end: self.end() }
    }

    /// The next offset.
    pub fn end(&self) -> Offset {
        Offset(self.records.len() as u64)
    }

    /// A few records from `from` on, below `until`.
    pub fn read(&self, from: Offset, until: Offset) -> Result<Vec<Entry>, ReadError> {
        if self.down {
            return Err(ReadError::Unavailable("it is down".to_owned()));
        }
        if from.0 < self.start {
            return Err(ReadError::Trimmed { start: Offset(self.start) });
        }
        let offsets = (from.0..until.0.min(self.end().0)).take(READ_RECORDS);
        Ok(offsets
            .map(|offset| Entry { offset: Offset(offset), record: self.at(offset) })
            .collect())
    }

    /// The record at `offset`.
    pub fn at(&self, offset: u64) -> Bytes {
        self.records[offset as usize].clone()
    }

    /// Forgets everything below `below`.
    pub fn trim(&mut self, below: Offset) {
        self.start = self.start.max(below.0.min(self.end().0));
    }

    /// Brings back what was trimmed.
    pub fn restore(&mut self) {
        self.start = 0;
    }

    /// Loses everything from `from` on, as no log may.
    pub fn truncate(&mut self, from: Offset) {
        self.records.truncate(from.0 as usize);
    }

    /// Puts another record in the place of one.
    pub fn replace(&mut self, offset: Offset, record: Bytes) {
        self.records[offset.0 as usize] = record;
    }
}

//! What a log must hold, and the check that a log found on a disk holds it.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::sim::SimDisk;
use crate::log::segment::{SegmentConfig, Shared, reader};
use crate::log::{Acked, Acks, Entry, Offset, ReadError};

/// What was appended to a log and what became of it.
pub(super) struct Model {
    pub(super) partitions: Vec<Expected>,
    /// Where outcomes come from.
    pub(super) acks: Vec<Acks>,
    next_token: u64,
}

/// What is known of one partition.
#[derive(Clone, Default)]
pub(super) struct Expected {
    /// The acknowledged records, by offset.
    pub(super) acked: Vec<Bytes>,
    /// Behind them: what was accepted and not acknowledged. Any beginning of it may be there.
    pub(super) in_flight: Vec<InFlight>,
    /// The highest mark that was asked for.
    pub(super) mark: u64,
    /// The highest mark that must have survived.
    pub(super) mark_durable: u64,
}

#[derive(Clone)]
pub(super) struct InFlight {
    token: u64,
    record: Bytes,
    /// Its outcome was doubt.
    has_failed: bool,
}

/// What a check found that is allowed but not the rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Records that are there although nobody was told.
    pub(super) unacknowledged: usize,
    /// Records that are there.
    pub(super) records: usize,
}

impl Model {
    pub(super) fn new(partitions: u32) -> Self {
        let partitions = vec![Expected::default(); partitions as usize];
        Self { partitions, acks: Vec::new(), next_token: 0 }
    }

    /// Notes an append that was accepted; returns its token. That it was accepted shows that the
    /// log has dealt with those that failed.
    pub(super) fn accept(&mut self, partition: PartitionId, record: Bytes) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let in_flight = &mut self.partitions[partition.0 as usize].in_flight;
        in_flight.retain(|append| !append.has_failed);
        in_flight.push(InFlight { token, record, has_failed: false });
        token
    }

    pub(super) fn next_token(&self) -> u64 {
        self.next_token
    }

    /// Takes the outcomes that have come. Each appender's come in order; here they are put into
    /// the order in which all were appended.
    pub(super) fn drain(&mut self) -> Result<(), String> {
        let mut outcomes = Vec::new();
        for acks in &mut self.acks {
            let first = outcomes.len();
            while let Ok(batch) = acks.try_recv() {
                outcomes.extend(batch);
            }
            if !outcomes[first..].is_sorted_by_key(|acked| acked.token) {
                return Err("an appender's outcomes are out of order".to_owned());
            }
        }
        outcomes.sort_by_key(|acked| acked.token);
        outcomes.into_iter().try_for_each(|acked| self.take(acked))
    }

    fn take(&mut self, acked: Acked) -> Result<(), String> {
        let expected = &mut self.partitions[acked.partition.0 as usize];
        let at = expected.in_flight.iter().position(|append| !append.has_failed);
        let at = at.ok_or("an outcome for nothing")?;
        if expected.in_flight[at].token != acked.token {
            return Err(format!("outcome {} is out of order", acked.token));
        }
        let Ok(offset) = acked.result else {
            expected.in_flight[at].has_failed = true;
            return Ok(());
        };
        if at != 0 || offset.0 != expected.acked.len() as u64 {
            return Err(format!("offset {offset} in place of {}", expected.acked.len()));
        }
        expected.acked.push(expected.in_flight.remove(0).record);
        Ok(())
    }

    /// Whether anything waits for its outcome.
    pub(super) fn is_waiting(&self) -> bool {
        self.partitions.iter().flat_map(|p| &p.in_flight).any(|append| !append.has_failed)
    }

    /// The log was opened again with these ends: what survived counts from now on.
    pub(super) fn restart(&mut self, shared: &Shared) {
        for (expected, next) in self.partitions.iter_mut().zip(shared.map().next.clone()) {
            let survivors = next as usize - expected.acked.len();
            let in_flight = std::mem::take(&mut expected.in_flight);
            expected.acked.extend(in_flight.into_iter().take(survivors).map(|a| a.record));
        }
        for (expected, mark) in self.partitions.iter_mut().zip(&shared.map().marks) {
            expected.mark_durable = *mark;
        }
        self.acks.clear();
    }

    /// Opens the log on a disk and compares. Refusal is wrong, too: only crashes happened to it.
    pub(super) fn check(
        &self,
        disk: &SimDisk,
        config: &SegmentConfig,
    ) -> Result<(Found, Arc<Shared>), String> {
        let partitions = self.partitions.len() as u32;
        let opened = Shared::recover(Arc::new(disk.clone()), partitions, config.clone());
        let (shared, _) = opened.map_err(|error| format!("it does not open: {error}"))?;
        let found = self.compare(&shared)?;
        Ok((found, shared))
    }

    /// Compares everything that a log holds.
    pub(super) fn compare(&self, shared: &Shared) -> Result<Found, String> {
        let mut found = Found::default();
        for (index, expected) in self.partitions.iter().enumerate() {
            let partition = PartitionId(index as u32);
            let mark = shared.map().marks[index];
            if mark < expected.mark_durable || mark > expected.mark {
                return Err(format!("trim mark {mark} of partition {partition}"));
            }
            let start = shared.bounds(partition).start;
            if start.0 > expected.mark {
                return Err(format!("partition {partition} starts at {start}, above its mark"));
            }
            let entries = read_all(shared, partition).map_err(|error| error.to_string())?;
            found.records += entries.len();
            found.unacknowledged += expected.compare(partition, start, &entries)?;
        }
        Ok(found)
    }
}

impl Expected {
    /// Returns how many records there are that were not acknowledged.
    fn compare(
        &self,
        partition: PartitionId,
        start: Offset,
        entries: &[Entry],
    ) -> Result<usize, String> {
        let end = start.0 as usize + entries.len();
        if end < self.acked.len() {
            let lost = self.acked.len() - end;
            return Err(format!("{lost} acknowledged records of partition {partition} are lost"));
        }
        let in_flight = self.in_flight.iter().map(|append| &append.record);
        let mut known = self.acked.iter().chain(in_flight).skip(start.0 as usize);
        for (offset, entry) in (start.0..).zip(entries) {
            if entry.offset.0 != offset || known.next() != Some(&entry.record) {
                return Err(format!("a wrong record at offset {offset} of partition {partition}"));
            }
        }
        Ok(end - self.acked.len())
    }
}

/// All records of a partition, in pages.
pub(super) fn read_all(shared: &Shared, partition: PartitionId) -> Result<Vec<Entry>, ReadError> {
    let bounds = shared.bounds(partition);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.last().map_or(bounds.start, |last| last.offset.next());
        if next == bounds.end {
            return Ok(entries);
        }
        entries.extend(reader::read(shared, partition, next, 64 << 10)?);
    }
}

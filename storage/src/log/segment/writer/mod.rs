//! Writes: one batch, one `fdatasync`, then the outcomes; and what happens when that fails.
//!
//! It is self-clocked. While one commit is on its way to the disk the next batch collects in the
//! queue; no timer decides when a batch is full. Everything here runs on the writer's own thread,
//! or step by step in a test.
//!
//! What is durable is shown to readers first and acknowledged then, so that whoever is told of a
//! record can read it.

mod forget;
mod roll;
mod stop;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chappe_protocol::PartitionId;

use self::forget::TRIM_EVERY_MS;
use self::stop::{Stop, Wanted};
use super::Shared;
use super::batch::BatchBuilder;
use super::disk::{File, is_no_space};
use super::entry::EntryKind;
use super::header::SegmentHeader;
use super::queue::{Outcomes, Pending, Wake};
use super::recover::End;
use super::scan::Place;
use crate::log::Offset;

/// The one that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    header: Arc<SegmentHeader>,
    /// Where the next batch goes; everything below is durable.
    position: u32,
    /// The checksum that the next batch continues.
    crc: u32,
    /// Whether the last thing written says that everything before it was synced.
    is_marked: bool,
    /// The next offset of each partition, the batch at hand included.
    next: Vec<u64>,
    /// The trim marks as they are in the log.
    marks: Vec<u64>,
    backlog: VecDeque<Pending>,
    batch: BatchBuilder,
    /// What is in the batch.
    appends: Vec<(Pending, Offset, Place)>,
    batch_marks: Vec<(PartitionId, u64)>,
    outcomes: Outcomes,
    /// What to do first when there is space again.
    wanted: Option<Wanted>,
    last_commit: LastCommit,
    /// Removed from the map, and perhaps not yet from the disk.
    doomed: VecDeque<u64>,
    trimmed_at_ms: u64,
    is_trim_due: bool,
    /// How many changes of trim marks were heard of, and how many of them are durable.
    trims_taken: u64,
    trims_recorded: u64,
    has_failed: bool,
}

/// What the last commit tells about the next.
#[derive(Debug, Clone, Copy, Default)]
struct LastCommit {
    records: usize,
    took: Duration,
}

const TOP_UP_PAUSE_MAX: Duration = Duration::from_micros(100);
const TOP_UP_RECORDS: usize = 64;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, end: End) -> Self {
        let map = shared.map();
        let newest = &map.segments[map.segments.len() - 1];
        let (file, header) = (Arc::clone(&map.active.file), Arc::clone(&newest.header));
        let (next, marks) = (map.next.clone(), map.marks.clone());
        drop(map);
        let mut batch = BatchBuilder::default();
        batch.clear();
        Self {
            shared,
            file,
            header,
            position: end.position,
            crc: end.crc,
            is_marked: end.is_marked,
            next,
            marks,
            backlog: VecDeque::new(),
            batch,
            appends: Vec::new(),
            batch_marks: Vec::new(),
            outcomes: Outcomes::default(),
            wanted: None,
            last_commit: LastCommit::default(),
            doomed: VecDeque::new(),
            trimmed_at_ms: 0,
            is_trim_due: true,
            trims_taken: 0,
            trims_recorded: 0,
            has_failed: false,
        }
    }

    /// Writes until the log is closed.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            match shared.queue.wait(self.patience()) {
                Wake::Work => self.turn(),
                Wake::Silence => self.silence(),
                Wake::Close => return self.close(),
            }
        }
    }

    fn patience(&self) -> Duration {
        let config = &self.shared.config;
        match self.wanted {
            Some(_) => config.space_probe_every,
            None if self.is_marked => Duration::from_millis(TRIM_EVERY_MS),
            None => config.idle_after,
        }
    }

    /// Commits everything that is queued.
    pub(super) fn turn(&mut self) {
        loop {
            self.take();
            if self.is_stopped() {
                // Accepted just before the queue heard of it.
                self.fail_backlog("the log takes no appends");
                break;
            }
            if let Err(stop) = self.commit() {
                self.stop(stop);
                break;
            }
            if self.backlog.is_empty() && self.marks == self.shared.map().marks {
                self.is_trim_due |= self.trims_taken != self.trims_recorded;
                self.trims_recorded = self.trims_taken;
                break;
            }
        }
        self.trim_if_due();
        // Told last, so that whoever waits for it sees what the mark set free.
        self.shared.queue.set_trims_recorded(self.trims_recorded);
    }

    /// Does what is to be done when nothing comes.
    pub(super) fn silence(&mut self) {
        self.is_trim_due |= self.wanted.is_some();
        self.trim_if_due();
        self.probe_space();
        if self.is_stopped() {
            return;
        }
        let outcome = if self.is_due_for_roll(self.shared.disk.now_ms()) {
            self.roll()
        } else if !self.is_marked {
            self.mark_idle()
        } else {
            Ok(())
        };
        if let Err(stop) = outcome {
            self.stop(stop);
        }
    }

    /// Writes what is left and says that all of it was synced.
    pub(super) fn close(mut self) {
        self.turn();
        if !self.is_stopped()
            && !self.is_marked
            && let Err(stop) = self.mark_idle()
        {
            self.stop(stop);
        }
    }

    /// Where the next batch goes.
    #[cfg(test)]
    pub(super) fn position(&self) -> u32 {
        self.position
    }

    #[cfg(test)]
    pub(super) fn has_recorded_marks(&self) -> bool {
        self.marks == self.shared.map().marks
    }

    fn is_stopped(&self) -> bool {
        self.has_failed || self.wanted.is_some()
    }

    /// Writes one batch, syncs it, and tells the outcomes.
    fn commit(&mut self) -> Result<(), Stop> {
        let now_ms = self.shared.disk.now_ms();
        if self.is_due_for_roll(now_ms) {
            self.roll()?;
        }
        if !self.fill() {
            self.roll()?;
            assert!(self.fill(), "an empty segment has room for any record");
        }
        self.top_up();
        if self.batch.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if self.shared.config.acks_before_sync {
            self.acknowledge();
        }
        let started = Instant::now();
        self.write_and_sync()?;
        self.last_commit = LastCommit { records: self.appends.len(), took: started.elapsed() };
        metrics::counter!("chappe_storage_log_commits_total").increment(1);
        metrics::counter!("chappe_storage_log_records_total").increment(self.appends.len() as u64);
        self.is_marked = false;
        self.acknowledge();
        Ok(())
    }

    /// Starts a batch with what is there. False if there is something and none of it fits.
    fn fill(&mut self) -> bool {
        self.batch.clear();
        let wanted = self.shared.map().marks.clone();
        for (index, mark) in wanted.into_iter().enumerate() {
            if mark != self.marks[index] {
                if !self.has_room(0) {
                    return !self.batch.is_empty();
                }
                let partition = PartitionId(index as u32);
                self.batch.push(EntryKind::TrimMark, partition, Offset(mark), &[]);
                self.batch_marks.push((partition, mark));
            }
        }
        self.fill_records();
        self.backlog.is_empty() || !self.batch.is_empty()
    }

    /// Moves as many records from the backlog into the batch as fit.
    fn fill_records(&mut self) {
        let bytes_max = self.shared.config.batch_bytes_max as usize;
        while let Some(pending) = self.backlog.pop_front() {
            let bytes = pending.record.len();
            let is_enough = !self.batch.is_empty() && self.batch.bytes_with(bytes) > bytes_max;
            if is_enough || !self.has_room(bytes) {
                self.backlog.push_front(pending);
                return;
            }
            let next = &mut self.next[pending.partition.0 as usize];
            let offset = Offset(*next);
            *next += 1;
            let at = self.batch.push(EntryKind::Record, pending.partition, offset, &pending.record);
            let place = Place { position: self.position + at, bytes: bytes as u32 };
            self.appends.push((pending, offset, place));
        }
    }

    fn has_room(&self, record_bytes: usize) -> bool {
        let room = self.header.segment_bytes - self.position;
        self.batch.bytes_with(record_bytes) <= room as usize
    }

    /// Adds what callers are handing over just now, up to as much as the last commit brought.
    /// Whoever got outcomes often has as much again at hand; a batch of the first of it, with all
    /// others behind it, would halve the rate. It gives up when nothing came for a quarter of the
    /// time that a commit takes, so it never costs more than it can win.
    fn top_up(&mut self) {
        let pause = (self.last_commit.took / 4).min(TOP_UP_PAUSE_MAX);
        let deadline = Instant::now() + 4 * pause;
        while self.backlog.is_empty() && self.appends.len() < self.last_commit.records {
            // In pieces, so that the first are encoded while the others come.
            let wanted = (self.last_commit.records - self.appends.len()).min(TOP_UP_RECORDS);
            if !self.shared.queue.gather(wanted, pause, deadline) {
                return;
            }
            self.take();
            self.fill_records();
        }
    }

    fn take(&mut self) {
        self.trims_taken = self.shared.queue.take(&mut self.backlog);
    }

    fn write_and_sync(&mut self) -> Result<(), Stop> {
        let (bytes, crc) = self.batch.finish(self.header.salt, self.crc, self.position);
        let length = bytes.len() as u32;
        if let Err(error) = self.file.write_at(bytes, u64::from(self.position)) {
            return Err(if is_no_space(&error) {
                Stop::NoSpace(Wanted::Batch { bytes: length }, error)
            } else {
                Stop::Failed("a write failed", error)
            });
        }
        self.file.sync_data().map_err(|error| Stop::Failed("a sync failed", error))?;
        self.position += length;
        self.crc = crc;
        Ok(())
    }

    /// Shows the batch to readers and tells its outcomes.
    fn acknowledge(&mut self) {
        let mut map = self.shared.map_mut();
        for (pending, offset, place) in &self.appends {
            let index = pending.partition.0 as usize;
            assert_eq!(map.next[index], offset.0, "offsets are dense");
            map.active.places[index].push(*place);
            map.next[index] += 1;
        }
        drop(map);
        for (partition, mark) in self.batch_marks.drain(..) {
            self.marks[partition.0 as usize] = mark;
        }
        for (pending, offset, _) in self.appends.drain(..) {
            self.outcomes.add(pending, Ok(offset));
        }
        self.outcomes.send();
    }

    fn mark_idle(&mut self) -> Result<(), Stop> {
        self.batch.clear();
        if self.batch.bytes_with(0) > (self.header.segment_bytes - self.position) as usize {
            self.roll()?;
        } else {
            self.write_and_sync()?;
        }
        self.is_marked = true;
        Ok(())
    }
}

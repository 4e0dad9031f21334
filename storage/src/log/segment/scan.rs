//! Walks a segment batch by batch, checks everything, and notes where each record is.
//!
//! It only reads and never decides what a bad batch means: that depends on whether the segment
//! was known to be durable there, which `recover` and `reader` know.

use std::io;

use super::batch::{BATCH_HEADER_BYTES, BatchHeader};
use super::disk::File;
use super::entry::{self, EntryKind};
use super::header::{SegmentHeader, header_bytes};

/// Where a record's entry is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u32,
    /// Bytes of the record, without the entry's header.
    pub(super) bytes: u32,
}

/// What a segment holds, up to where it ends or is bad.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the good batches end.
    pub(super) end: u32,
    /// The checksum of the last one.
    pub(super) crc: u32,
    /// The newest synced mark in them.
    pub(super) synced_to: u32,
    /// The records of each partition; the first is the header's next offset.
    pub(super) places: Vec<Vec<Place>>,
    /// The trim mark of each partition after the last batch.
    pub(super) marks: Vec<u64>,
    /// What is wrong at `end`.
    pub(super) stopped: &'static str,
}

/// Reads a segment up to `limit`, or to the first batch that is not what was written there.
pub(super) fn scan(
    file: &dyn File,
    header: &SegmentHeader,
    header_crc: u32,
    limit: u32,
) -> io::Result<Scan> {
    let start = header_bytes(header.next.len() as u32);
    let mut scan = Scan {
        end: start,
        crc: header_crc,
        synced_to: start,
        places: vec![Vec::new(); header.next.len()],
        marks: header.marks.clone(),
        stopped: "the segment is full",
    };
    let mut window = Window::new(file, limit);
    while scan.end < limit {
        if let Err(what) = scan.take_batch(&mut window, header)? {
            scan.stopped = what;
            break;
        }
    }
    Ok(scan)
}

impl Scan {
    /// Takes the batch at `end`, whole or not at all.
    fn take_batch(
        &mut self,
        window: &mut Window<'_>,
        header: &SegmentHeader,
    ) -> io::Result<Result<(), &'static str>> {
        let bytes = window.get(self.end, BATCH_HEADER_BYTES)?;
        let (batch, crc) = match BatchHeader::decode(bytes, header.salt) {
            Ok(decoded) => decoded,
            Err(what) => return Ok(Err(what)),
        };
        if batch.previous_crc != self.crc {
            return Ok(Err("a batch does not follow the one before it"));
        }
        if batch.synced_to > self.end {
            return Ok(Err("a batch says that more was synced than was written"));
        }
        let body_at = self.end + BATCH_HEADER_BYTES;
        if batch.body_bytes > window.limit.saturating_sub(body_at) {
            return Ok(Err("a batch is cut short"));
        }
        let body = window.get(body_at, batch.body_bytes)?;
        let entries = match decode_body(body, &batch) {
            Ok(entries) => entries,
            Err(what) => return Ok(Err(what)),
        };
        if let Err(what) = self.take_entries(&entries, body_at, header) {
            return Ok(Err(what));
        }
        self.end = body_at + batch.body_bytes;
        self.crc = crc;
        self.synced_to = self.synced_to.max(batch.synced_to);
        Ok(Ok(()))
    }

    fn take_entries(
        &mut self,
        entries: &[(u32, entry::EntryHeader)],
        body_at: u32,
        header: &SegmentHeader,
    ) -> Result<(), &'static str> {
        for &(at, entry) in entries {
            let index = entry.partition.0 as usize;
            let Some(places) = self.places.get_mut(index) else {
                return Err("an entry is of a partition that there is not");
            };
            match entry.kind {
                EntryKind::Record => {
                    if entry.offset.0 != header.next[index] + places.len() as u64 {
                        return Err("an entry's offset is not the next one");
                    }
                    places.push(Place { position: body_at + at, bytes: entry.bytes });
                }
                EntryKind::TrimMark => {
                    self.marks[index] = self.marks[index].max(entry.offset.0);
                }
            }
        }
        Ok(())
    }
}

/// The entries of a batch with their positions in its body.
fn decode_body(
    body: &[u8],
    batch: &BatchHeader,
) -> Result<Vec<(u32, entry::EntryHeader)>, &'static str> {
    let mut entries = Vec::new();
    let mut entries_crc = 0;
    let mut at = 0;
    while at < body.len() {
        let header = entry::decode(&body[at..])?;
        entries_crc = crc32c::crc32c_append(entries_crc, &header.crc.to_le_bytes());
        entries.push((at as u32, header));
        at += header.entry_bytes() as usize;
    }
    if entries.len() != batch.entries as usize || entries_crc != batch.entries_crc {
        return Err("a batch's entries are not its own");
    }
    Ok(entries)
}

/// Reads a file forwards through a buffer, so that a scan holds about a batch in memory and not a
/// segment.
pub(super) struct Window<'a> {
    file: &'a dyn File,
    /// Nothing is read at or above it.
    limit: u32,
    /// Position of the buffer's first byte.
    from: u32,
    buffer: Vec<u8>,
}

const WINDOW_BYTES: u32 = 1 << 20;

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn File, limit: u32) -> Self {
        Self { file, limit, from: 0, buffer: Vec::new() }
    }

    /// The bytes at a position; fewer than asked for only at the limit.
    pub(super) fn get(&mut self, position: u32, bytes: u32) -> io::Result<&[u8]> {
        let position = position.min(self.limit);
        let end = position.saturating_add(bytes).min(self.limit);
        let buffered_end = self.from + self.buffer.len() as u32;
        if position < self.from || end > buffered_end {
            let ahead = position.saturating_add(WINDOW_BYTES).min(self.limit).max(end);
            self.buffer.resize((ahead - position) as usize, 0);
            self.from = position;
            self.file.read_at(&mut self.buffer, u64::from(position))?;
        }
        let at = (position - self.from) as usize;
        Ok(&self.buffer[at..at + (end - position) as usize])
    }
}

//! Opens a log after whatever happened to it: mends the torn end of its newest segment, and
//! refuses damage to what was durable.
//!
//! ```text
//!   newest segment:   [header][batch][batch][batch]·····[batch]···[zeros]
//!                                            ^ end of what is good
//!                                                        ^ its synced mark, if above that end,
//!                                                          proves that durable bytes are bad
//! ```
//!
//! An older segment was durable as a whole before the next one got its name, and the next one says
//! where it ends; whatever is wrong in it is damage. Nothing is changed before everything was
//! checked.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::batch::{BATCH_HEADER_BYTES, BatchHeader};
use super::config::{OpenError, SegmentConfig};
use super::disk::{Disk, File};
use super::format::{self, FORMAT, FORMAT_NAME, FormatError};
use super::header::{SegmentHeader, header_bytes, segment_name, segment_number};
use super::map::{Active, Map, Sealed, Segment};
use super::reader::Index;
use super::scan::{Scan, Window, scan};

/// A log that is ready to be read and written.
pub(super) struct Recovered {
    pub(super) map: Map,
    /// Indexes of older segments that were read on the way, oldest first.
    pub(super) indexes: Vec<(u64, Index)>,
    pub(super) end: End,
}

/// The end of the newest segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Where the next batch goes.
    pub(super) position: u32,
    /// The checksum that it continues.
    pub(super) crc: u32,
    /// Whether it is written there that everything before it was synced.
    pub(super) is_marked: bool,
}

/// Opens the log, or creates it if the folder is empty.
pub(super) fn recover(
    disk: &dyn Disk,
    partitions: u32,
    config: &SegmentConfig,
) -> Result<Recovered, OpenError> {
    let names = disk.list()?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        disk.remove(name)?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    if names.iter().any(|name| name == FORMAT_NAME) {
        check_format(disk, partitions)?;
    } else {
        numbers = vec![create(disk, partitions, config, &numbers)?];
    }
    let mut segments = read_headers(disk, partitions, &numbers)?;
    let indexes = verify(disk, segments.make_contiguous(), config.verify_bytes_max)?;
    let newest = &segments[segments.len() - 1];
    let file = disk.open(&segment_name(newest.header.number))?;
    let scanned = mend(&*file, newest)?;
    // The newest segment may have got its name just before the crash.
    disk.sync_dir()?;
    Ok(assemble(segments, indexes, file, scanned))
}

/// Creates a file whole or not at all: nothing has the name before its content is durable.
pub(super) fn create_whole(
    disk: &dyn Disk,
    name: &str,
    bytes: u64,
    content: &[u8],
) -> io::Result<Arc<dyn File>> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = disk.create(&unfinished, bytes)?;
    let written = file
        .write_at(content, 0)
        .and_then(|()| file.sync_data().map_err(sync_failed))
        .and_then(|()| disk.rename(&unfinished, name));
    if let Err(error) = written {
        // It would take up space until the next open.
        disk.remove(&unfinished).ok();
        return Err(error);
    }
    disk.sync_dir().map_err(sync_failed)?;
    Ok(file)
}

/// A failed sync is never tried again, also when it failed for want of space.
fn sync_failed(error: io::Error) -> io::Error {
    io::Error::other(format!("a sync failed: {error}"))
}

const UNFINISHED: &str = ".unfinished";

fn damaged(file: &str, position: u64, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), position, what: what.into() }
}

fn check_format(disk: &dyn Disk, partitions: u32) -> Result<(), OpenError> {
    let file = disk.open(FORMAT_NAME)?;
    let bytes = file.bytes()?;
    if bytes > 1024 {
        return Err(damaged(FORMAT_NAME, 0, "it is too long"));
    }
    let mut text = vec![0; bytes as usize];
    file.read_at(&mut text, 0)?;
    match format::decode(&text) {
        Ok(recorded) if recorded == partitions => Ok(()),
        Ok(recorded) => Err(OpenError::Partitions { recorded, asked: partitions }),
        Err(FormatError::Version(found)) => Err(OpenError::Format { found, known: FORMAT }),
        Err(FormatError::Damaged) => Err(damaged(FORMAT_NAME, 0, "it cannot be read")),
    }
}

/// Creates the first segment and then the format file; also completes a creation that a crash cut
/// off between the two. Returns the segment's number.
fn create(
    disk: &dyn Disk,
    partitions: u32,
    config: &SegmentConfig,
    numbers: &[u64],
) -> Result<u64, OpenError> {
    match numbers {
        [] => {}
        // Without the format file no append was ever taken.
        [1] if is_unused(disk, partitions)? => disk.remove(&segment_name(1))?,
        _ => return Err(damaged(FORMAT_NAME, 0, "it is missing, and there are segments")),
    }
    let zeros = vec![0; partitions as usize];
    let header = SegmentHeader {
        number: 1,
        created_ms: disk.now_ms(),
        salt: disk.random()?,
        segment_bytes: config.segment_bytes,
        previous_end: 0,
        previous_crc: 0,
        next: zeros.clone(),
        marks: zeros,
    };
    let (bytes, _) = header.encode();
    create_whole(disk, &segment_name(1), u64::from(config.segment_bytes), &bytes)?;
    let text = format::encode(partitions);
    create_whole(disk, FORMAT_NAME, text.len() as u64, text.as_bytes())?;
    Ok(1)
}

/// Whether the first segment has nothing but a header, whatever its header says.
fn is_unused(disk: &dyn Disk, partitions: u32) -> io::Result<bool> {
    let file = disk.open(&segment_name(1))?;
    let end = file.bytes()?.min(u64::from(u32::MAX)) as u32;
    let written = written_ranges(&*file, header_bytes(partitions)..end)?;
    Ok(written.is_empty())
}

/// Reads the headers of all segments and sees that they follow each other.
fn read_headers(
    disk: &dyn Disk,
    partitions: u32,
    numbers: &[u64],
) -> Result<VecDeque<Segment>, OpenError> {
    if numbers.is_empty() {
        return Err(damaged(FORMAT_NAME, 0, "it is there, and no segment is"));
    }
    let mut segments: VecDeque<Segment> = VecDeque::new();
    for (index, &number) in numbers.iter().enumerate() {
        let name = segment_name(number);
        if number != numbers[0] + index as u64 {
            return Err(damaged(&name, 0, "the segment before it is missing"));
        }
        let (header, header_crc) = read_header(disk, &name, partitions)?;
        if header.number != number {
            return Err(damaged(&name, 0, "it is another segment"));
        }
        if let Some(previous) = segments.back_mut() {
            let end = header.previous_end;
            let least = header_bytes(partitions);
            if !(least..=previous.header.segment_bytes).contains(&end)
                || header.next.iter().zip(&previous.header.next).any(|(next, base)| next < base)
            {
                return Err(damaged(&name, 0, "it does not follow the segment before it"));
            }
            previous.sealed =
                Some(Sealed { end, crc: header.previous_crc, newest_ms: header.created_ms });
        }
        segments.push_back(Segment { header: Arc::new(header), header_crc, sealed: None });
    }
    Ok(segments)
}

fn read_header(
    disk: &dyn Disk,
    name: &str,
    partitions: u32,
) -> Result<(SegmentHeader, u32), OpenError> {
    let file = disk.open(name)?;
    let bytes = file.bytes()?;
    let mut buffer = vec![0; bytes.min(u64::from(header_bytes(partitions))) as usize];
    file.read_at(&mut buffer, 0)?;
    let (header, crc) =
        SegmentHeader::decode(&buffer, partitions).map_err(|what| damaged(name, 0, what))?;
    if u64::from(header.segment_bytes) != bytes {
        return Err(damaged(name, bytes, "the file has not the length that it was given"));
    }
    Ok((header, crc))
}

/// Reads the newest of the older segments, about so many bytes of them.
fn verify(
    disk: &dyn Disk,
    segments: &[Segment],
    bytes_max: u64,
) -> Result<Vec<(u64, Index)>, OpenError> {
    let mut bytes_left = bytes_max;
    let mut indexes = Vec::new();
    for segment in segments.iter().rev().skip(1) {
        let bytes = u64::from(segment.header.segment_bytes);
        if bytes > bytes_left {
            break;
        }
        bytes_left -= bytes;
        let name = segment_name(segment.header.number);
        let (index, whole) = Index::load(disk.open(&name)?, segment)?;
        if !whole {
            return Err(damaged(&name, index.damaged_at, index.damage));
        }
        indexes.push((segment.header.number, index));
    }
    indexes.reverse();
    Ok(indexes)
}

/// Scans the newest segment, and cuts off what a crash left behind its last good batch.
fn mend(file: &dyn File, newest: &Segment) -> Result<Scan, OpenError> {
    let header = &newest.header;
    let limit = header.segment_bytes;
    let scanned = scan(file, header, newest.header_crc, limit)?;
    let torn = written_ranges(file, scanned.end..limit)?;
    for range in &torn {
        if let Some(synced_to) = synced_mark_above(file, header.salt, range, scanned.end)? {
            let what = format!("{}, and all below byte {synced_to} was durable", scanned.stopped);
            return Err(damaged(&segment_name(header.number), scanned.end.into(), what));
        }
    }
    if !torn.is_empty() {
        let what = scanned.stopped;
        tracing::warn!(segment = header.number, position = scanned.end, what, "cut a torn write");
    }
    // Good batches above the newest mark are written once more: their sync may have failed, and
    // then the file system can hold them in memory, believe that they are on the disk, and lose
    // them later although a sync had said that all is well.
    rewrite(file, scanned.synced_to..scanned.end)?;
    for range in torn {
        write_zeros(file, range)?;
    }
    file.sync_data()?;
    Ok(scanned)
}

/// The parts of a range that are not zero, in units of a page.
fn written_ranges(file: &dyn File, range: Range<u32>) -> io::Result<Vec<Range<u32>>> {
    let mut window = Window::new(file, range.end);
    let mut written: Vec<Range<u32>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min((at / PAGE_BYTES + 1).saturating_mul(PAGE_BYTES));
        if window.get(at, end - at)?.iter().any(|byte| *byte != 0) {
            match written.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => written.push(at..end),
            }
        }
        at = end;
    }
    Ok(written)
}

const PAGE_BYTES: u32 = 4096;

/// The newest synced mark above `end` in the batch headers of a range, wherever they begin.
fn synced_mark_above(
    file: &dyn File,
    salt: u64,
    range: &Range<u32>,
    end: u32,
) -> io::Result<Option<u32>> {
    // A header has no page of zeros in it, so it lies within one range.
    let mut window = Window::new(file, range.end);
    let mut newest = None;
    for at in range.clone() {
        let bytes = window.get(at, BATCH_HEADER_BYTES)?;
        if !bytes.starts_with(&salt.to_le_bytes()) {
            continue;
        }
        if let Ok((batch, _)) = BatchHeader::decode(bytes, salt) {
            newest = newest.max(Some(batch.synced_to).filter(|mark| *mark > end));
        }
    }
    Ok(newest)
}

fn rewrite(file: &dyn File, range: Range<u32>) -> io::Result<()> {
    let mut window = Window::new(file, range.end);
    let mut at = range.start;
    while at < range.end {
        let bytes = window.get(at, PIECE_BYTES)?;
        file.write_at(bytes, at.into())?;
        at += bytes.len() as u32;
    }
    Ok(())
}

/// Writes zeros over a range.
pub(super) fn write_zeros(file: &dyn File, range: Range<u32>) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES.min(range.end - range.start) as usize];
    let mut at = range.start;
    while at < range.end {
        let bytes = &zeros[..PIECE_BYTES.min(range.end - at) as usize];
        file.write_at(bytes, at.into())?;
        at += bytes.len() as u32;
    }
    Ok(())
}

const PIECE_BYTES: u32 = 1 << 20;

fn assemble(
    segments: VecDeque<Segment>,
    indexes: Vec<(u64, Index)>,
    file: Arc<dyn File>,
    scanned: Scan,
) -> Recovered {
    let newest = &segments[segments.len() - 1].header;
    let next = newest.next.iter().zip(&scanned.places).map(|(base, p)| base + p.len() as u64);
    // What is gone was below its mark, whether or not the mark itself became durable.
    let start = &segments[0].header.next;
    let marks = scanned.marks.iter().zip(start).map(|(mark, start)| *mark.max(start));
    let map = Map {
        next: next.collect(),
        marks: marks.collect(),
        active: Active { file, places: scanned.places },
        segments,
    };
    // Above the newest synced mark there is nothing, or the marker that bears it.
    let is_marked = scanned.end - scanned.synced_to <= BATCH_HEADER_BYTES;
    Recovered { map, indexes, end: End { position: scanned.end, crc: scanned.crc, is_marked } }
}

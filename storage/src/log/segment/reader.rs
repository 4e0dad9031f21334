//! Reads records by offset.
//!
//! Each record's checksum, partition and offset are compared when it is read: a read gives what
//! was appended or an error. These functions block on the file system; `SegmentLog` calls them
//! away from the runtime's threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::Shared;
use super::disk::File;
use super::entry::{self, ENTRY_HEADER_BYTES, EntryKind};
use super::header::segment_name;
use super::map::{Active, Found, Limit, Segment};
use super::scan::{Place, scan};
use crate::log::{Entry, Offset, ReadError};

/// The most that one call reads, whatever it is asked for, a single larger record apart.
const READ_BYTES_MAX: usize = 4 << 20;

/// Reads the records of a partition from `from` on.
pub(super) fn read(
    shared: &Shared,
    partition: PartitionId,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<Entry>, ReadError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut limit = Limit { bytes_max: bytes_max.min(READ_BYTES_MAX), records_min: 1 };
    loop {
        let at = entries.last().map_or(from, |last| last.offset.next());
        match read_segment(shared, partition, at, limit) {
            Ok(more) if more.is_empty() => return Ok(entries),
            Ok(more) => {
                let bytes: usize = more.iter().map(entry_bytes).sum();
                let bytes_max = limit.bytes_max.saturating_sub(bytes);
                limit = Limit { bytes_max, records_min: 0 };
                entries.extend(more);
            }
            // What was read before stands; the caller meets the error where it is.
            Err(_) if !entries.is_empty() => return Ok(entries),
            Err(error) => return Err(error),
        }
        if limit.bytes_max == 0 {
            return Ok(entries);
        }
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEADER_BYTES as usize + entry.record.len()
}

/// Reads what one segment has of it.
fn read_segment(
    shared: &Shared,
    partition: PartitionId,
    from: Offset,
    limit: Limit,
) -> Result<Vec<Entry>, ReadError> {
    let found = shared.map().find(partition, from, limit);
    match found {
        Found::Trimmed(start) => Err(ReadError::Trimmed { start }),
        Found::Nothing => Ok(Vec::new()),
        Found::Active { file, places } => read_places(&*file, partition, from, &places),
        Found::Sealed { segment, base } => {
            let index = match shared.indexes.get(shared, &segment) {
                Ok(index) => index,
                Err(error) => return Err(unread_segment(shared, partition, from, &error)),
            };
            let skip = (from.0 - base.0) as usize;
            match index.places[partition.0 as usize].get(skip..) {
                Some(places) if !places.is_empty() => {
                    read_places(&*index.file, partition, from, limit.cut(places))
                }
                _ => Err(damaged(partition, from, &index.damage)),
            }
        }
    }
}

/// A segment could not be read: unless it was trimmed meanwhile, the disk does not answer.
fn unread_segment(
    shared: &Shared,
    partition: PartitionId,
    from: Offset,
    error: &io::Error,
) -> ReadError {
    match shared.map().bounds(partition).start {
        start if from < start => ReadError::Trimmed { start },
        _ => ReadError::Unavailable(error.to_string()),
    }
}

fn damaged(partition: PartitionId, at: Offset, what: &str) -> ReadError {
    ReadError::Damaged { partition, at, what: what.to_owned() }
}

/// The most that lies between two records for them to be read in one call.
const GAP_BYTES: u32 = 4 << 10;
/// About the most that is read in one call.
const SPAN_BYTES: u32 = 1 << 20;

/// Reads consecutive records, those that are close together in one call.
fn read_places(
    file: &dyn File,
    partition: PartitionId,
    from: Offset,
    places: &[Place],
) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::with_capacity(places.len());
    let mut buffer = Vec::new();
    let mut offset = from;
    let mut rest = places;
    while !rest.is_empty() {
        let (near, others) = rest.split_at(near_places(rest));
        rest = others;
        let start = near[0].position;
        buffer.resize((end_of(near[near.len() - 1]) - start) as usize, 0);
        file.read_at(&mut buffer, u64::from(start))
            .map_err(|error| ReadError::Unavailable(error.to_string()))?;
        for place in near {
            let at = (place.position - start) as usize;
            let record = match record_at(&buffer[at..], partition, offset) {
                Ok(record) => record,
                // What is before it stands; the caller meets the damage where it is.
                Err(_) if !entries.is_empty() => return Ok(entries),
                Err(what) => return Err(damaged(partition, offset, what)),
            };
            entries.push(Entry { offset, record: Bytes::copy_from_slice(record) });
            offset = offset.next();
        }
    }
    Ok(entries)
}

/// How many of the first places one call should read.
fn near_places(places: &[Place]) -> usize {
    let start = places[0].position;
    let near = |pair: &&[Place]| {
        pair[1].position - end_of(pair[0]) <= GAP_BYTES && end_of(pair[1]) - start <= SPAN_BYTES
    };
    1 + places.windows(2).take_while(near).count()
}

fn end_of(place: Place) -> u32 {
    place.position + ENTRY_HEADER_BYTES + place.bytes
}

fn record_at(bytes: &[u8], partition: PartitionId, offset: Offset) -> Result<&[u8], &'static str> {
    let header = entry::decode(bytes)?;
    let right = header.kind == EntryKind::Record
        && header.partition == partition
        && header.offset == offset;
    if !right {
        return Err("another record is in its place");
    }
    Ok(&bytes[ENTRY_HEADER_BYTES as usize..header.entry_bytes() as usize])
}

/// Where the records of an older segment are.
pub(super) struct Index {
    pub(super) file: Arc<dyn File>,
    /// Up to the first damage, if there is any.
    pub(super) places: Vec<Vec<Place>>,
    pub(super) damaged_at: u64,
    /// What is wrong behind the last place.
    pub(super) damage: String,
}

impl Index {
    /// Reads and checks an older segment.
    pub(super) fn load(file: Arc<dyn File>, segment: &Segment) -> io::Result<(Self, bool)> {
        let Some(sealed) = segment.sealed else {
            unreachable!("the newest segment's index is in the map")
        };
        let scanned = scan(&*file, &segment.header, segment.header_crc, sealed.end)?;
        let name = segment_name(segment.header.number);
        let (places, what) = if scanned.end < sealed.end {
            (scanned.places, scanned.stopped)
        } else if scanned.crc != sealed.crc {
            let none = vec![Vec::new(); scanned.places.len()];
            (none, "it is not the segment that the next one continues")
        } else {
            (scanned.places, "")
        };
        let damage = format!("{name} at byte {}: {what}", scanned.end);
        Ok((Self { file, places, damaged_at: scanned.end.into(), damage }, what.is_empty()))
    }
}

impl From<Active> for Index {
    fn from(mut active: Active) -> Self {
        active.places.iter_mut().for_each(Vec::shrink_to_fit);
        Self { file: active.file, places: active.places, damaged_at: 0, damage: String::new() }
    }
}

/// The indexes of the older segments that were read last.
pub(super) struct Indexes {
    /// Most recently used first.
    loaded: Mutex<VecDeque<(u64, Arc<Index>)>>,
    /// Held while one is loaded: readers of one segment must not all scan it.
    loading: Mutex<()>,
    max: usize,
}

impl Indexes {
    pub(super) fn new(max: usize) -> Self {
        Self { loaded: Mutex::new(VecDeque::new()), loading: Mutex::new(()), max }
    }

    /// Keeps an index, and forgets the one that was not used for longest.
    pub(super) fn insert(&self, number: u64, index: Arc<Index>) {
        let mut loaded = lock(&self.loaded);
        loaded.push_front((number, index));
        loaded.truncate(self.max);
    }

    /// Forgets the index of a segment that was removed.
    pub(super) fn remove(&self, number: u64) {
        lock(&self.loaded).retain(|(other, _)| *other != number);
    }

    fn get(&self, shared: &Shared, segment: &Segment) -> io::Result<Arc<Index>> {
        let number = segment.header.number;
        if let Some(index) = self.cached(number) {
            return Ok(index);
        }
        let _loading = lock(&self.loading);
        if let Some(index) = self.cached(number) {
            return Ok(index);
        }
        let file = shared.disk.open(&segment_name(number))?;
        let (index, whole) = Index::load(file, segment)?;
        if !whole {
            tracing::error!(damage = index.damage, "the log is damaged");
        }
        let index = Arc::new(index);
        self.insert(number, Arc::clone(&index));
        Ok(index)
    }

    fn cached(&self, number: u64) -> Option<Arc<Index>> {
        let mut loaded = lock(&self.loaded);
        let at = loaded.iter().position(|(other, _)| *other == number)?;
        let found = loaded.remove(at)?;
        let index = Arc::clone(&found.1);
        loaded.push_front(found);
        Some(index)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

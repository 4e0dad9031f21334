//! What is where: the segments, and of each partition its bounds and its trim mark.
//!
//! Holds durable records only. The writer changes it after a commit, readers look things up in it
//! under a lock that nobody holds while reading or writing files.

use std::collections::VecDeque;
use std::sync::Arc;

use chappe_protocol::PartitionId;

use super::disk::File;
use super::entry::ENTRY_HEADER_BYTES;
use super::header::SegmentHeader;
use super::scan::Place;
use crate::log::{Bounds, Offset};

/// A segment that takes no more batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Where its batches end.
    pub(super) end: u32,
    /// The checksum of its last batch.
    pub(super) crc: u32,
    /// Everything in it is older than this.
    pub(super) newest_ms: u64,
}

/// A segment that the log has.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) header: Arc<SegmentHeader>,
    pub(super) header_crc: u32,
    /// None in the newest.
    pub(super) sealed: Option<Sealed>,
}

/// The newest segment's records.
pub(super) struct Active {
    pub(super) file: Arc<dyn File>,
    pub(super) places: Vec<Vec<Place>>,
}

/// The whole log.
pub(super) struct Map {
    /// Oldest first, without a gap, never empty.
    pub(super) segments: VecDeque<Segment>,
    pub(super) active: Active,
    /// The next offset of each partition; all below are durable.
    pub(super) next: Vec<u64>,
    /// The trim mark of each partition, as far as it is known here.
    pub(super) marks: Vec<u64>,
}

/// Where to read.
pub(super) enum Found {
    /// Below the first that is kept.
    Trimmed(Offset),
    /// At the end, or above it.
    Nothing,
    /// In the newest segment.
    Active { file: Arc<dyn File>, places: Vec<Place> },
    /// In an older one, whose first record of this partition is `base`.
    Sealed { segment: Segment, base: Offset },
}

impl Map {
    pub(super) fn bounds(&self, partition: PartitionId) -> Bounds {
        let index = partition.0 as usize;
        Bounds { start: Offset(self.oldest().next[index]), end: Offset(self.next[index]) }
    }

    /// Where the records from `from` on are.
    pub(super) fn find(&self, partition: PartitionId, from: Offset, limit: Limit) -> Found {
        let index = partition.0 as usize;
        let bounds = self.bounds(partition);
        if from < bounds.start {
            return Found::Trimmed(bounds.start);
        }
        if from >= bounds.end {
            return Found::Nothing;
        }
        // Of the segments that begin at or below `from` the last one has it: the next begins
        // above it.
        let after = self.segments.partition_point(|s| s.header.next[index] <= from.0);
        let segment = &self.segments[after - 1];
        let base = segment.header.next[index];
        if segment.sealed.is_some() {
            return Found::Sealed { segment: segment.clone(), base: Offset(base) };
        }
        let places = &self.active.places[index];
        Found::Active {
            file: Arc::clone(&self.active.file),
            places: limit.cut(&places[(from.0 - base) as usize..]).to_vec(),
        }
    }

    fn oldest(&self) -> &SegmentHeader {
        &self.segments[0].header
    }
}

/// How much to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// About the most bytes of entries.
    pub(super) bytes_max: usize,
    /// The least records, whatever their size.
    pub(super) records_min: usize,
}

impl Limit {
    /// The first places, as far as the limit allows.
    pub(super) fn cut(self, places: &[Place]) -> &[Place] {
        let mut bytes = 0;
        let fits = |place: &&Place| {
            bytes += (ENTRY_HEADER_BYTES + place.bytes) as usize;
            bytes <= self.bytes_max
        };
        let count = places.iter().take_while(fits).count();
        &places[..count.max(self.records_min).min(places.len())]
    }
}

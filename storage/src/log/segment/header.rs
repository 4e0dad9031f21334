//! A segment's header: where every partition stands when the segment begins.
//!
//! ```text
//!   magic | number u64 | created_ms u64 | salt u64 | segment bytes u32 | partitions u32
//!         | previous end u32 | previous crc u32 || next offset u64 … || trim mark u64 … || crc u32
//! ```
//!
//! A segment gets its name only after its header is durable, and its header is written only after
//! everything in the segment before it is. So a named segment with a bad header is damage, never
//! a torn write; and of every segment but the newest it is known where it must end.

use super::entry::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"CHAPSEG1";
const FIXED_BYTES: u32 = 48;

/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its number. The first segment's is 1; they have no gap.
    pub(super) number: u64,
    /// When it was created, ms since 1970: everything in the segment before it is older.
    pub(super) created_ms: u64,
    /// Random; begins each of its batches.
    pub(super) salt: u64,
    /// The length of its file.
    pub(super) segment_bytes: u32,
    /// Where the batches of the segment before it end; 0 in the first.
    pub(super) previous_end: u32,
    /// The checksum of the last batch of the segment before it; 0 in the first.
    pub(super) previous_crc: u32,
    /// The next offset of each partition.
    pub(super) next: Vec<u64>,
    /// The trim mark of each partition.
    pub(super) marks: Vec<u64>,
}

/// Bytes of the header of a segment of a log with so many partitions.
pub(super) const fn header_bytes(partitions: u32) -> u32 {
    FIXED_BYTES + 16 * partitions + 4
}

impl SegmentHeader {
    /// The header's bytes, and its checksum, which the first batch continues.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        assert_eq!(self.next.len(), self.marks.len(), "one offset and one mark per partition");
        let partitions = self.next.len() as u32;
        let mut bytes = Vec::with_capacity(header_bytes(partitions) as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&partitions.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.extend_from_slice(&self.previous_crc.to_le_bytes());
        for number in self.next.iter().chain(&self.marks) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Decodes and checks a header, which must be all of `bytes`.
    pub(super) fn decode(bytes: &[u8], partitions: u32) -> Result<(Self, u32), &'static str> {
        let whole = header_bytes(partitions) as usize;
        if bytes.len() != whole {
            return Err("the segment's header is cut short");
        }
        let crc = u32_at(bytes, whole - 4);
        if crc32c::crc32c(&bytes[..whole - 4]) != crc {
            return Err("the segment header's checksum is wrong");
        }
        if bytes[..8] != *MAGIC {
            return Err("the file is not a segment");
        }
        if u32_at(bytes, 36) != partitions {
            return Err("the segment has another number of partitions");
        }
        let number = |index: usize| u64_at(bytes, FIXED_BYTES as usize + 8 * index);
        let count = partitions as usize;
        let header = Self {
            number: u64_at(bytes, 8),
            created_ms: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            segment_bytes: u32_at(bytes, 32),
            previous_end: u32_at(bytes, 40),
            previous_crc: u32_at(bytes, 44),
            next: (0..count).map(number).collect(),
            marks: (count..2 * count).map(number).collect(),
        };
        Ok((header, crc))
    }
}

/// The name of a segment's file.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:020}.segment")
}

/// The number in a segment's file name; none if the name is another file's.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

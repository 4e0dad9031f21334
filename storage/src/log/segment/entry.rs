//! An entry: one record, or one trim mark, as it lies in a batch.
//!
//! ```text
//!   crc u32 | bytes u32 | kind u32 | partition u32 | offset u64 | record …
//! ```
//!
//! Little-endian. The checksum (CRC32C) covers everything behind itself, so that a record read
//! alone proves that it is the one that was asked for.

use chappe_protocol::PartitionId;

use crate::log::Offset;

/// Bytes of an entry before its record.
pub(super) const ENTRY_HEADER_BYTES: u32 = 24;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A record of a partition; `offset` is its place.
    Record,
    /// A partition may be forgotten below `offset`.
    TrimMark,
}

/// An entry's header, decoded and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) kind: EntryKind,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
    /// Bytes of the record behind the header.
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

impl EntryHeader {
    /// Bytes of the whole entry.
    pub(super) fn entry_bytes(self) -> u32 {
        ENTRY_HEADER_BYTES + self.bytes
    }
}

/// Appends an entry to a batch; returns its checksum.
pub(super) fn encode(
    out: &mut Vec<u8>,
    kind: EntryKind,
    partition: PartitionId,
    offset: Offset,
    record: &[u8],
) -> u32 {
    let start = out.len();
    out.reserve(ENTRY_HEADER_BYTES as usize + record.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind_number(kind).to_le_bytes());
    out.extend_from_slice(&partition.0.to_le_bytes());
    out.extend_from_slice(&offset.0.to_le_bytes());
    out.extend_from_slice(record);
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Decodes the entry at the beginning of `bytes` and checks its checksum.
pub(super) fn decode(bytes: &[u8]) -> Result<EntryHeader, &'static str> {
    let header = bytes.get(..ENTRY_HEADER_BYTES as usize).ok_or("an entry is cut short")?;
    let length = u32_at(header, 4);
    let whole = (ENTRY_HEADER_BYTES as usize).saturating_add(length as usize);
    let covered = bytes.get(4..whole).ok_or("an entry is cut short")?;
    let crc = u32_at(header, 0);
    if crc32c::crc32c(covered) != crc {
        return Err("an entry's checksum is wrong");
    }
    let kind = match u32_at(header, 8) {
        1 => EntryKind::Record,
        2 => EntryKind::TrimMark,
        _ => return Err("an entry is of an unknown kind"),
    };
    Ok(EntryHeader {
        kind,
        partition: PartitionId(u32_at(header, 12)),
        offset: Offset(u64_at(header, 16)),
        bytes: length,
        crc,
    })
}

const fn kind_number(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::Record => 1,
        EntryKind::TrimMark => 2,
    }
}

/// The little-endian number at `at`, which must be inside `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The little-endian number at `at`, which must be inside `bytes`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

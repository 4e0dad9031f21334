//! A batch: what one commit writes, behind a header that ties it to the batch before it.
//!
//! ```text
//!   salt u64 | previous crc u32 | synced to u32 | body bytes u32 | entries u32
//!            | entries' crc u32 | crc u32 || entry … entry
//! ```
//!
//! The checksum covers the header, the previous batch's checksum and (through theirs) all entries,
//! so a batch is only ever valid behind the one that it was written behind. A batch without
//! entries is an idle marker: it says that everything before it was synced.
//!
//! The salt is the segment's own and random. Without it a record could hold bytes that look like
//! a batch header, and make recovery see damage where there is none.

use chappe_protocol::PartitionId;

use super::entry::{self, ENTRY_HEADER_BYTES, EntryKind, u32_at, u64_at};
use crate::log::Offset;

/// Bytes of a batch before its entries.
pub(super) const BATCH_HEADER_BYTES: u32 = 32;

/// A batch's header, decoded and checked against itself alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// The checksum of the batch before it, or of the segment's header.
    pub(super) previous_crc: u32,
    /// Everything below this position of the segment was durable before this batch was written.
    pub(super) synced_to: u32,
    /// Bytes of its entries.
    pub(super) body_bytes: u32,
    pub(super) entries: u32,
    /// CRC32C over the entries' checksums, in order.
    pub(super) entries_crc: u32,
}

impl BatchHeader {
    /// The header's bytes, and its checksum for the next batch.
    pub(super) fn encode(self, salt: u64) -> ([u8; BATCH_HEADER_BYTES as usize], u32) {
        let mut bytes = [0; BATCH_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&salt.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.previous_crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.synced_to.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.entries.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.entries_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Decodes the header at the beginning of `bytes`, and its checksum. Whether it follows what
    /// is before it is for the caller to see.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Result<(Self, u32), &'static str> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES as usize).ok_or("a batch is cut short")?;
        if u64_at(bytes, 0) != salt {
            return Err("there is no batch of this segment");
        }
        let crc = u32_at(bytes, 28);
        if crc32c::crc32c(&bytes[..28]) != crc {
            return Err("a batch header's checksum is wrong");
        }
        let header = Self {
            previous_crc: u32_at(bytes, 8),
            synced_to: u32_at(bytes, 12),
            body_bytes: u32_at(bytes, 16),
            entries: u32_at(bytes, 20),
            entries_crc: u32_at(bytes, 24),
        };
        Ok((header, crc))
    }
}

/// A batch while it is put together. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    bytes: Vec<u8>,
    /// The entries' checksums, one after the other.
    crcs: Vec<u8>,
}

impl BatchBuilder {
    /// Starts a new batch.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER_BYTES as usize, 0);
        self.crcs.clear();
    }

    /// Adds an entry; returns where it is in the batch.
    pub(super) fn push(
        &mut self,
        kind: EntryKind,
        partition: PartitionId,
        offset: Offset,
        record: &[u8],
    ) -> u32 {
        let at = self.bytes.len() as u32;
        let crc = entry::encode(&mut self.bytes, kind, partition, offset, record);
        self.crcs.extend_from_slice(&crc.to_le_bytes());
        at
    }

    /// Whether it has no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.crcs.is_empty()
    }

    /// The size of the batch with another record of so many bytes.
    pub(super) fn bytes_with(&self, record_bytes: usize) -> usize {
        self.bytes.len() + ENTRY_HEADER_BYTES as usize + record_bytes
    }

    /// Writes the header. Returns the batch and its checksum, for the next one.
    pub(super) fn finish(&mut self, salt: u64, previous_crc: u32, synced_to: u32) -> (&[u8], u32) {
        let header = BatchHeader {
            previous_crc,
            synced_to,
            body_bytes: self.bytes.len() as u32 - BATCH_HEADER_BYTES,
            entries: (self.crcs.len() / size_of::<u32>()) as u32,
            entries_crc: crc32c::crc32c(&self.crcs),
        };
        let (header, crc) = header.encode(salt);
        self.bytes[..BATCH_HEADER_BYTES as usize].copy_from_slice(&header);
        (&self.bytes, crc)
    }
}

//! `checkpoints`: how far a partition is projected, and how to go on from there.

use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Stamp},
};
use serde::{Deserialize, Serialize};

use super::RowValue;
use crate::{config::Assignment, record::Lineage};

/// Everything below `offset` is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// The log's identity.
    #[serde(with = "lineage")]
    pub lineage: Lineage,
    /// The incarnation in force at `offset`.
    pub incarnation: Incarnation,
    /// The level in force there.
    pub level: u32,
    /// The stage of the seal in force there; 0 when open.
    pub seal: u8,
    /// The first record that is not projected.
    pub offset: u64,
    /// The epoch in force there; none before the first claim and after a release.
    pub epoch: Option<u64>,
    /// The last counted record's number in that epoch.
    pub last_n: u64,
    /// The last counted record's time.
    pub last_ts: u64,
    /// The last counted record's tick.
    pub last_tick: u64,
    /// The last counted record was a release.
    pub released: bool,
    /// The highest offset that was known to be durable: a log that ends at or below it was
    /// truncated.
    ///
    /// Everything before this field follows from the log, this from who writes: a deposed leader
    /// may still write the offset that its successor wrote, and knows less. Of equal stamps the
    /// larger bytes stay, which are those with the higher one.
    pub highest: u64,
    /// CRC-32C of the record before `offset`.
    pub crc: u32,
}

impl CheckpointRow {
    /// Of a log that begins anew behind the record at `last`: nothing at or below it is replayed,
    /// and nobody has led since. `ts` and `tick` are the last that were counted before.
    pub fn anew(of: Assignment, last: Offset, record: &[u8], ts: u64, tick: u64) -> Self {
        Self {
            lineage: of.lineage,
            incarnation: of.incarnation,
            level: 1,
            seal: 0,
            offset: last.next().0,
            epoch: None,
            last_n: 0,
            last_ts: ts,
            last_tick: tick,
            released: false,
            highest: last.0,
            crc: crc32c::crc32c(record),
        }
    }

    /// Whether this is the record before it.
    pub fn follows(&self, record: &[u8]) -> bool {
        self.crc == crc32c::crc32c(record)
    }

    /// Writes it as what is in force from `incarnation` on: over every one of an earlier
    /// incarnation, wherever in the log that stands.
    pub fn write(&self, partition: PartitionId, incarnation: Incarnation) -> Mutation {
        Mutation {
            key: Key::Checkpoint(partition),
            stamp: Stamp::at(incarnation, self.offset),
            value: Some(RowValue::Checkpoint(*self).encode()),
        }
    }
}

mod lineage {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::record::Lineage;

    pub(super) fn serialize<S: Serializer>(lineage: &Lineage, to: S) -> Result<S::Ok, S::Error> {
        serde_bytes::ByteArray::new(lineage.0.to_be_bytes()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lineage, D::Error> {
        let bytes = serde_bytes::ByteArray::<16>::deserialize(from)?;
        Ok(Lineage(u128::from_be_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_offset_the_checkpoint_that_knows_more_has_the_larger_bytes() {
        let of = Assignment { lineage: Lineage(7), incarnation: Incarnation(1) };
        let row = CheckpointRow::anew(of, Offset(9), b"record", 1, 1);
        let around = [0, 0x7f, 0xff, 0xffff, 0xffff_ffff].map(|last| [last, last + 1, last + 2]);
        let bytes = |highest| RowValue::Checkpoint(CheckpointRow { highest, ..row }).encode();
        let all: Vec<_> = around.into_iter().flatten().map(bytes).collect();
        assert!(all.is_sorted());
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }
}

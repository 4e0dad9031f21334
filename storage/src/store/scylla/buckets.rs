//! Which buckets of messages and events have rows.
//!
//! A bucket's row in the index is written with the first rows that this process writes into the
//! bucket, and before they count as written; after that the process remembers it. So the index
//! costs one row in some thousands, and one for each channel after a start.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation};
use foldhash::fast::RandomState;

use super::super::{Stamp, Table};
use super::row::{Field, Partition, written};

/// The buckets that are surely in the index: those of the present generation and the one before.
///
/// Each with the newest incarnation whose stamp its row has at least. What expires is removed at a
/// stamp of its own incarnation at most, by whichever process; a later one's rows write the index
/// anew, at their own stamp.
#[derive(Default)]
pub(super) struct Indexed(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Partition, Incarnation, RandomState>,
    old: HashMap<Partition, Incarnation, RandomState>,
}

impl Indexed {
    /// Whether a row of that stamp needs no row in the index.
    pub(super) fn holds(&self, bucket: &Partition, stamp: Stamp) -> bool {
        let generations = self.lock();
        let known = generations.young.get(bucket).or_else(|| generations.old.get(bucket));
        known.is_some_and(|known| *known >= stamp.incarnation())
    }

    /// Remembers a bucket whose row is written.
    pub(super) fn add(&self, bucket: Partition, stamp: Stamp) {
        let mut generations = self.lock();
        let known = generations.young.entry(bucket).or_insert(Incarnation(0));
        *known = stamp.incarnation().max(*known);
        if generations.young.len() >= GENERATION_MAX {
            generations.old = mem::take(&mut generations.young);
        }
    }

    /// Forgets a bucket whose row is about to be removed.
    pub(super) fn remove(&self, bucket: &Partition) {
        let mut generations = self.lock();
        generations.young.remove(bucket);
        generations.old.remove(bucket);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index's rows of a channel lie together: the fields of their partition.
pub(super) fn index_of(channel: ChannelId, table: Table) -> Vec<Field> {
    let kind = match table {
        Table::Messages => "messages",
        Table::Events => "events",
        other => unreachable!("{other:?} has no buckets"),
    };
    vec![Field::Id(channel.get()), Field::Text(kind.to_owned())]
}

/// The fields that write a bucket's row.
pub(super) fn index_row(bucket: &Partition, stamp: Stamp) -> Vec<Field> {
    let mut fields = vec![written(stamp), Field::Bytes(Bytes::new())];
    fields.extend(index_of(ChannelId::new(bucket.of), bucket.table));
    fields.push(Field::Number(bucket.bucket));
    fields
}

/// Buckets of a generation. Two generations are some 2 MiB.
const GENERATION_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(of: u64) -> Partition {
        Partition { table: Table::Messages, of, bucket: 3 }
    }

    fn stamp(incarnation: u32) -> Stamp {
        Stamp::at(Incarnation(incarnation), 7)
    }

    #[test]
    fn a_later_incarnation_writes_its_buckets_into_the_index_again() {
        let indexed = Indexed::default();
        assert!(!indexed.holds(&bucket(1), stamp(1)));
        indexed.add(bucket(1), stamp(2));
        indexed.add(bucket(1), stamp(1)); // an old range, projected again
        assert!(indexed.holds(&bucket(1), stamp(1)) && indexed.holds(&bucket(1), stamp(2)));
        assert!(!indexed.holds(&bucket(1), stamp(3)) && !indexed.holds(&bucket(2), stamp(1)));
        indexed.remove(&bucket(1));
        assert!(!indexed.holds(&bucket(1), stamp(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let indexed = Indexed::default();
        let last = 3 * GENERATION_MAX as u64;
        for of in 0..=last {
            indexed.add(bucket(of), stamp(1));
        }
        let generations = indexed.lock();
        assert!(generations.young.len() + generations.old.len() < 2 * GENERATION_MAX);
        drop(generations);
        assert!(indexed.holds(&bucket(last), stamp(1)) && !indexed.holds(&bucket(0), stamp(1)));
    }
}

//! One batch of the projection: the oldest facts, the rows that they touch, and what those become.

use std::collections::VecDeque;

use bytes::Bytes;
use chappe_protocol::{ChannelId, ChannelName, PartitionId};
use chappe_storage::store::{Key, Mutation, Row, Stamp};
use chappe_uplink::Generation;

use super::{Sendable, Step};
use crate::{
    halt::Halt,
    id_map::{IdMap, id_map},
    project::{Touch, project, stamp, touches},
    record::{Fact, FactBody},
    row::{RowValue, StampedRow},
};

pub(super) struct Batch {
    partition: PartitionId,
    /// How many of the oldest steps it takes.
    pub(super) steps: usize,
    /// The bytes of their records.
    bytes: usize,
    /// Its facts change no message: each message's row is written once.
    only_new_messages: bool,
    /// The rows that have to be read first.
    pub(super) wanted: Vec<Key>,
    rows: IdMap<Key, BatchRow>,
    /// Names that its facts gave up.
    pub(super) freed: VecDeque<Freed>,
    /// Channels that its facts deleted.
    pub(super) deleted: VecDeque<(std::sync::Arc<Fact>, chappe_storage::log::Offset)>,
    /// The outbox rows that it writes.
    pub(super) outbox: Vec<Sendable>,
}

/// A name that a fact gave up.
#[derive(Debug, Clone)]
pub(crate) struct Freed {
    pub(crate) channel: ChannelId,
    pub(crate) name: ChannelName,
    /// The leadership whose fact it is.
    pub(crate) by: Generation,
}

/// A row that several facts of a batch may touch.
struct BatchRow {
    row: StampedRow,
    /// A fact of this batch did.
    changed: bool,
}

impl Batch {
    /// Takes the oldest facts of `steps`, up to the size of a batch.
    pub(super) fn take(steps: &VecDeque<Step>, partition: PartitionId) -> Self {
        let mut batch = Self {
            partition,
            steps: 0,
            bytes: 0,
            only_new_messages: false,
            wanted: Vec::new(),
            rows: id_map(0),
            freed: VecDeque::new(),
            deleted: VecDeque::new(),
            outbox: Vec::new(),
        };
        for step in steps {
            let is_full = batch.bytes >= BATCH_BYTES_MAX || batch.steps >= BATCH_STEPS_MAX;
            if batch.steps > 0 && is_full {
                break;
            }
            batch.steps += 1;
            batch.bytes += step.bytes;
            let Some(fact) = &step.fact else { continue };
            match &fact.body {
                FactBody::Updated(body) => batch.frees(fact, body.freed.as_ref()),
                FactBody::Deleted(body) => {
                    batch.frees(fact, body.freed.as_ref());
                    batch.deleted.push_back((std::sync::Arc::clone(fact), step.offset));
                }
                _ => {}
            }
        }
        batch.want(steps);
        batch
    }

    /// Notes the rows that have to be read: those that a fact changes, and none before it in the
    /// batch makes.
    fn want(&mut self, steps: &VecDeque<Step>) {
        let facts = || steps.iter().take(self.steps).filter_map(|step| step.fact.as_deref());
        let mut none = true;
        for fact in facts() {
            touches(fact, self.partition, &mut |touch| none &= !touch.needs_row);
        }
        self.only_new_messages = none;
        if none {
            return; // as most often
        }
        let mut known: IdMap<Key, ()> = id_map(0);
        let mut wanted = Vec::new();
        for fact in facts() {
            touches(fact, self.partition, &mut |Touch { key, needs_row }| {
                if known.insert(key, ()).is_none() && needs_row {
                    wanted.push(key);
                }
            });
        }
        self.wanted = wanted;
    }

    /// Takes the rows that were wanted.
    pub(super) fn give(&mut self, rows: Vec<Option<Row>>) -> Result<(), Halt> {
        for (key, row) in self.wanted.iter().zip(rows) {
            let Some(row) = row else { continue };
            let row = StampedRow::decode(key, &row)
                .map_err(|_| Halt::Store(format!("a row of {:?}", key.table())))?;
            self.rows.insert(*key, BatchRow { row, changed: false });
        }
        Ok(())
    }

    /// What the rows become.
    pub(super) fn fold<'a>(
        &mut self,
        steps: impl Iterator<Item = &'a Step>,
    ) -> Result<Vec<Mutation>, Halt> {
        let mut writes = Writes::with_capacity(2 * self.steps, self.bytes);
        let mut changed: Vec<Key> = Vec::with_capacity(self.steps);
        self.rows.reserve(if self.only_new_messages { 0 } else { self.steps });
        for step in steps {
            let Some(fact) = &step.fact else { continue };
            let stamp = stamp(fact);
            let mut failed = None;
            touches(fact, self.partition, &mut |Touch { key, .. }| {
                if failed.is_some() {
                    return;
                }
                if self.is_written_once(&key) {
                    match project(fact, step.offset, &key, None) {
                        Ok(value) => {
                            writes.push(key, stamp, &value);
                            if let RowValue::Outbox(row) = value {
                                self.outbox.push(Sendable { key, stamp, row });
                            }
                        }
                        Err(missing) => failed = Some(missing),
                    }
                    return;
                }
                // What the row includes already, from a projection before a crash, stays.
                if self.rows.get(&key).is_some_and(|old| old.row.stamp >= stamp) {
                    return;
                }
                let old = self.rows.remove(&key);
                if old.as_ref().is_none_or(|old| !old.changed) {
                    changed.push(key);
                }
                match project(fact, step.offset, &key, old.map(|old| old.row.value)) {
                    Ok(value) => {
                        let row = StampedRow { stamp, value };
                        self.rows.insert(key, BatchRow { row, changed: true });
                    }
                    Err(missing) => failed = Some(missing),
                }
            });
            if let Some(missing) = failed {
                return Err(Halt::MissingRow(missing));
            }
        }
        for key in changed {
            let Some(BatchRow { row, .. }) = self.rows.get(&key) else { continue };
            writes.push(key, row.stamp, &row.value);
        }
        Ok(writes.into_mutations())
    }

    /// A row as it will be.
    pub(super) fn row(&self, key: &Key) -> Option<&RowValue> {
        self.rows.get(key).map(|row| &row.row.value)
    }

    /// Whether one fact of the batch alone writes the row under this key: it needs no folding.
    const fn is_written_once(&self, key: &Key) -> bool {
        matches!(key, Key::Event(..) | Key::Outbox { .. } | Key::Mention(..))
            || (self.only_new_messages && matches!(key, Key::Message(..)))
    }

    fn frees(&mut self, fact: &Fact, name: Option<&ChannelName>) {
        let (channel, by) = (fact.channel, fact.mark.generation);
        self.freed.extend(name.map(|name| Freed { channel, name: name.clone(), by }));
    }
}

/// Rows to be written, their values in one piece of memory.
struct Writes {
    bytes: Vec<u8>,
    /// Each row's key, its stamp, and where its value ends.
    rows: Vec<(Key, Stamp, usize)>,
}

impl Writes {
    fn with_capacity(rows: usize, record_bytes: usize) -> Self {
        // What a message's rows take beside its text is about what its record takes.
        let bytes = Vec::with_capacity(record_bytes + record_bytes / 4);
        Self { bytes, rows: Vec::with_capacity(rows) }
    }

    fn push(&mut self, key: Key, stamp: Stamp, value: &RowValue) {
        value.encode_into(&mut self.bytes);
        self.rows.push((key, stamp, self.bytes.len()));
    }

    fn into_mutations(self) -> Vec<Mutation> {
        let bytes = Bytes::from(self.bytes);
        let mut from = 0;
        let rows = self.rows.into_iter().map(|(key, stamp, end)| {
            let value = Some(bytes.slice(std::mem::replace(&mut from, end)..end));
            Mutation { key, stamp, value }
        });
        rows.collect()
    }
}

/// Whether somebody waits for what follows from this fact.
pub(super) const fn is_urgent(fact: &Fact) -> bool {
    matches!(
        fact.body,
        FactBody::Created(_)
            | FactBody::Deleted(_)
            | FactBody::MemberAdded(_)
            | FactBody::MemberRemoved(_)
    )
}

/// A batch ends when its records have this many bytes…
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// …or when it has this many.
const BATCH_STEPS_MAX: usize = 2_048;

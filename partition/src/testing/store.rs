//! A store in memory, with the promises of the port.

use std::collections::BTreeMap;

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev, Seq, UserId};
use chappe_storage::store::{Claimed, Key, Mutation, Row, Scan, StoreError};

use super::down;
use crate::{
    action::{StoreFound, StoreRead},
    row::{RowValue, StampedRow},
};

/// A store.
#[derive(Debug, Default, Clone)]
pub struct SimStore {
    rows: BTreeMap<Key, Row>,
    names: BTreeMap<String, Bytes>,
    /// It answers nothing.
    pub down: bool,
    /// How many writes it took.
    pub writes: usize,
    /// Checkpoints that were noted elsewhere, where they are found when it is down.
    pub noted: BTreeMap<PartitionId, Bytes>,
    /// It applies so many rows of the next write, and fails then.
    pub fails_after: Option<usize>,
}

impl SimStore {
    /// All rows.
    pub fn rows(&self) -> &BTreeMap<Key, Row> {
        &self.rows
    }

    /// The value of a row.
    pub fn value(&self, key: &Key) -> Option<RowValue> {
        self.rows.get(key).map(|row| StampedRow::decode(key, row).unwrap_or_else(bad).value)
    }

    /// What a name holds.
    pub fn name(&self, name: &str) -> Option<&Bytes> {
        self.names.get(name)
    }

    /// Puts something under a name.
    pub fn set_name(&mut self, name: &str, value: Bytes) {
        self.names.insert(name.to_owned(), value);
    }

    /// Puts a row, as an operator's tool would.
    pub fn put(&mut self, key: Key, row: Row) {
        self.rows.insert(key, row);
    }

    /// Removes a row, as no store may.
    pub fn lose(&mut self, key: &Key) {
        self.rows.remove(key);
    }

    pub(super) fn read(&self, of: PartitionId, read: StoreRead) -> Result<StoreFound, StoreError> {
        if self.down {
            let noted =
                self.noted.get(&of).filter(|_| read == StoreRead::Checkpoint { or_noted: true });
            return noted.map_or_else(down, |noted| Ok(StoreFound::Noted(noted.clone())));
        }
        Ok(match read {
            StoreRead::Rows(keys) => {
                StoreFound::Rows(keys.iter().map(|key| self.rows.get(key).cloned()).collect())
            }
            StoreRead::Scan(scan, limit) => StoreFound::Scanned(self.scan(scan, limit)),
            StoreRead::Name(name) => StoreFound::Name(self.names.get(&name).cloned()),
            StoreRead::Checkpoint { .. } => {
                StoreFound::Checkpoint(self.rows.get(&Key::Checkpoint(of)).cloned())
            }
        })
    }

    pub(super) fn write(&mut self, rows: Vec<Mutation>) -> Result<(), StoreError> {
        if self.down {
            return down();
        }
        self.writes += 1;
        let fails_after = self.fails_after.take();
        for (i, Mutation { key, stamp, value }) in rows.into_iter().enumerate() {
            if fails_after == Some(i) {
                return down();
            }
            let newer = self.rows.get(&key).is_some_and(|row| row.stamp > stamp);
            match value {
                _ if newer => {}
                Some(value) => {
                    let equal = self.rows.get(&key).filter(|row| row.stamp == stamp);
                    assert!(
                        equal.is_none_or(|row| row.value == value),
                        "equal stamps carry equal bytes: {key:?}"
                    );
                    self.rows.insert(key, Row { stamp, value });
                }
                None => drop(self.rows.remove(&key)),
            }
        }
        Ok(())
    }

    pub(super) fn expire(&mut self, channel: ChannelId, up_to: Rev) -> Result<(), StoreError> {
        if self.down {
            return down();
        }
        let kept_from = Rev::new((up_to.get() + 1) / 4_096 * 4_096);
        self.rows.retain(
            |key, _| !matches!(key, Key::Event(of, rev) if *of == channel && *rev < kept_from),
        );
        Ok(())
    }

    pub(super) fn claim(&mut self, name: &str, value: &Bytes) -> Result<Claimed, StoreError> {
        if self.down {
            return down();
        }
        match self.names.get(name) {
            Some(held) if held != value => Ok(Claimed::Taken(held.clone())),
            _ => {
                self.names.insert(name.to_owned(), value.clone());
                Ok(Claimed::Yes)
            }
        }
    }

    /// Ends a hold on a name, if it is this one.
    pub fn release(&mut self, name: &str, value: &Bytes) -> Result<(), StoreError> {
        if self.down {
            return down();
        }
        if self.names.get(name) == Some(value) {
            self.names.remove(name);
        }
        Ok(())
    }

    fn scan(&self, scan: Scan, limit: usize) -> Vec<(Key, Row)> {
        let last = ChannelId::new(u64::MAX);
        let after = |from: Key, to: Key| -> Vec<(Key, Row)> {
            let range = self.rows.range(from..=to).filter(|(key, _)| **key != from);
            range.map(|(key, row)| (*key, row.clone())).take(limit).collect()
        };
        let up_to = |from: Key, to: Key| -> Vec<(Key, Row)> {
            let range = self.rows.range(from..=to).rev();
            range.map(|(key, row)| (*key, row.clone())).take(limit).collect()
        };
        let top = chappe_protocol::id::POSITION_MAX - 1;
        match scan {
            Scan::MessagesBefore(c, seq) => {
                let last = Seq::new(seq.get().saturating_sub(1));
                up_to(Key::Message(c, Seq::ZERO), Key::Message(c, last))
            }
            Scan::MessagesAfter(c, seq) => {
                after(Key::Message(c, seq), Key::Message(c, Seq::new(top)))
            }
            Scan::EventsAfter(c, rev) => after(Key::Event(c, rev), Key::Event(c, Rev::new(top))),
            Scan::EventsUpTo(c, rev) => up_to(Key::Event(c, Rev::ZERO), Key::Event(c, rev)),
            Scan::Members(c, user) => {
                let from = Key::Member(c, user.unwrap_or(UserId::new(0)));
                after(from, Key::Member(c, UserId::new(u64::MAX)))
            }
            Scan::ChannelsByUser(user, channel) => {
                let from = Key::ChannelOfUser(user, channel.unwrap_or(ChannelId::new(0)));
                after(from, Key::ChannelOfUser(user, last))
            }
            Scan::Mentions(user, c, seq) => {
                after(Key::Mention(user, c, seq), Key::Mention(user, c, Seq::new(top)))
            }
            Scan::Outbox(partition) => {
                let zero = ChannelId::new(0);
                let from = Key::Outbox { partition, source: zero, target: zero, rev: Rev::ZERO };
                let rev = Rev::new(top);
                after(from, Key::Outbox { partition, source: last, target: last, rev })
            }
        }
    }
}

fn bad(_: crate::row::RowError) -> StampedRow {
    panic!("the store holds a row that cannot be decoded")
}

//! A group of changes that becomes one commit.
//!
//! Each change is decided against the committed rows and the changes before it in the group: whether its
//! stamp is newer, whether a name is free. Nothing is written here, and no answer may leave before
//! the group is durable, for it may rest on a change of the same group.

use bytes::Bytes;
use fjall::{UserKey, UserValue};
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::super::key::Sequence;
use super::super::{Claimed, Key, Mutation, ROW_BYTES_MAX, Stamp, StoreError};
use super::read::stored_stamp;

/// What a caller asks to be changed.
pub(super) enum Change {
    /// Stamped rows.
    Rows(Vec<RowChange>),
    /// A unique key is to hold a value, if it is free.
    Claim { key: UserKey, value: UserValue },
    /// A unique key is to be free, if it holds the value.
    Release { key: UserKey, value: UserValue },
}

/// A stamped row as it will be stored.
pub(super) struct RowChange {
    key: UserKey,
    stamp: Stamp,
    /// Stamp and bytes; none to remove the row.
    value: Option<UserValue>,
}

impl RowChange {
    /// `scratch` is emptied and used.
    pub(super) fn encode(mutation: Mutation, scratch: &mut Vec<u8>) -> Result<Self, StoreError> {
        let Mutation { key, stamp, value } = mutation;
        let value = match value {
            Some(value) if value.len() > ROW_BYTES_MAX => {
                return Err(StoreError::TooLarge { bytes: value.len() });
            }
            Some(value) => {
                scratch.clear();
                scratch.extend_from_slice(&stamp.0.to_be_bytes());
                scratch.extend_from_slice(&value);
                Some(scratch.as_slice().into())
            }
            None => None,
        };
        Ok(Self { key: key.to_bytes().as_ref().into(), stamp, value })
    }

    /// Removes a row whatever its stamp.
    pub(super) fn expire(key: Key) -> Self {
        Self { key: key.to_bytes().as_ref().into(), stamp: Stamp(u64::MAX), value: None }
    }
}

impl Change {
    /// The memory that it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let row = |key: &UserKey, value: usize| CHANGE_OVERHEAD_BYTES + key.len() + value;
        match self {
            Self::Rows(rows) => {
                rows.iter().map(|it| row(&it.key, it.value.as_ref().map_or(0, |v| v.len()))).sum()
            }
            Self::Claim { key, value } | Self::Release { key, value } => row(key, value.len()),
        }
    }
}

/// The rows as they are committed, beneath a group.
pub(super) trait Rows {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError>;

    /// The highest position of a sequence that has a row.
    fn end(&self, sequence: Sequence) -> Result<Option<u64>, StoreError>;

    /// Writes and removes rows, all or none, and returns when they are durable.
    fn commit(
        &self,
        changes: impl Iterator<Item = (UserKey, Option<UserValue>)>,
    ) -> Result<(), StoreError>;
}

/// The changes of a group so far, each key's last state only. They stay in their order, in which
/// most keys of a channel follow each other: the tree takes neighbours faster.
#[derive(Default)]
pub(super) struct Group {
    keys: IndexMap<UserKey, Pending, RandomState>,
}

/// What a key will hold.
struct Pending {
    /// The stamp of a stamped row, kept of a removed one too: in a group, an older write that
    /// comes after the removal does not bring the row back.
    stamp: Option<Stamp>,
    value: Option<UserValue>,
    /// Whether the key is committed.
    stored: bool,
    /// Whether the value is another than the committed one.
    changed: bool,
}

impl Pending {
    fn set(&mut self, value: Option<UserValue>) {
        // What was never committed needs no removal.
        self.changed = value.is_some() || self.stored;
        self.value = value;
    }
}

impl Group {
    /// Decides a change. Returns what the caller is to be told once the group is durable.
    pub(super) fn add(&mut self, rows: &impl Rows, change: Change) -> Result<Claimed, StoreError> {
        match change {
            Change::Rows(changes) => {
                changes.into_iter().try_for_each(|change| self.put(rows, change))?;
                Ok(Claimed::Yes)
            }
            Change::Claim { key, value } => self.claim(rows, key, value),
            Change::Release { key, value } => {
                let pending = self.pending(rows, key, |_| Ok(None))?;
                if pending.value.as_ref() == Some(&value) {
                    pending.set(None);
                }
                Ok(Claimed::Yes)
            }
        }
    }

    /// What is to be written.
    pub(super) fn into_changes(self) -> impl Iterator<Item = (UserKey, Option<UserValue>)> {
        let changed = self.keys.into_iter().filter(|(_, pending)| pending.changed);
        changed.map(|(key, pending)| (key, pending.value))
    }

    fn put(&mut self, rows: &impl Rows, change: RowChange) -> Result<(), StoreError> {
        let RowChange { key, stamp, value } = change;
        let pending = self.pending(rows, key, |value| stored_stamp(value).map(Some))?;
        // Of equal stamps a removal wins: it is the later of the two.
        let wins = |old| stamp > old || (stamp == old && value.is_none());
        if pending.stamp.is_none_or(wins) {
            pending.stamp = Some(stamp);
            pending.set(value);
        }
        Ok(())
    }

    fn claim(
        &mut self,
        rows: &impl Rows,
        key: UserKey,
        value: UserValue,
    ) -> Result<Claimed, StoreError> {
        let pending = self.pending(rows, key, |_| Ok(None))?;
        match &pending.value {
            Some(held) if *held == value => Ok(Claimed::Yes),
            Some(held) => Ok(Claimed::Taken(Bytes::copy_from_slice(held))),
            None => {
                pending.set(Some(value));
                Ok(Claimed::Yes)
            }
        }
    }

    /// What the key will hold after the changes so far.
    fn pending(
        &mut self,
        rows: &impl Rows,
        key: UserKey,
        stamp: impl FnOnce(&[u8]) -> Result<Option<Stamp>, StoreError>,
    ) -> Result<&mut Pending, StoreError> {
        match self.keys.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let value = rows.get(entry.key())?;
                let stamp = value.as_deref().map_or(Ok(None), stamp)?;
                let stored = value.is_some();
                Ok(entry.insert(Pending { stamp, value, stored, changed: false }))
            }
        }
    }
}

/// What a change costs beside its bytes.
const CHANGE_OVERHEAD_BYTES: usize = 64;

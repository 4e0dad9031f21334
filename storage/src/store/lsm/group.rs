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
use super::super::{Claimed, Mutation, Stamp, StoreError};
use super::bundle::{self, Bundle, FreshRow};
use super::ends::Ends;
use super::read::{stored_row, stored_stamp};

/// What a caller asks to be changed.
pub(super) enum Change {
    /// Stamped rows.
    Rows(Vec<Mutation>),
    /// Entries of the tree are to go, whatever their stamps.
    Expire(Vec<UserKey>),
    /// A unique key is to hold a value, if it is free.
    Claim { key: UserKey, value: UserValue },
    /// A unique key is to be free, if it holds the value.
    Release { key: UserKey, value: UserValue },
}

impl Change {
    /// The memory that it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let row = |bytes: usize| CHANGE_OVERHEAD_BYTES + bytes;
        match self {
            Self::Rows(rows) => {
                rows.iter().map(|it| row(it.value.as_ref().map_or(0, Bytes::len))).sum()
            }
            Self::Expire(keys) => keys.iter().map(|key| row(key.len())).sum(),
            Self::Claim { key, value } | Self::Release { key, value } => {
                row(key.len() + value.len())
            }
        }
    }
}

/// The rows as they are committed, beneath a group.
pub(super) trait Rows {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError>;

    /// The highest position of a sequence that has a row, or had one when it was bundled.
    fn end(&self, sequence: Sequence) -> Result<Option<u64>, StoreError>;

    /// The key of the bundle, and the bundle, that the row at a position is in if it is in one.
    fn bundle(
        &self,
        sequence: Sequence,
        position: u64,
    ) -> Result<Option<(UserKey, UserValue)>, StoreError>;

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
    /// Rows beyond the ends of their sequences, in the order of their positions.
    fresh: IndexMap<Sequence, Vec<FreshRow>, RandomState>,
}

/// What a key will hold.
#[derive(Default)]
struct Pending {
    /// The stamp of a stamped row, kept of a removed one too: in a group, an older write that
    /// comes after the removal does not bring the row back.
    stamp: Option<Stamp>,
    value: Option<UserValue>,
    /// Whether the key is committed.
    stored: bool,
    /// Whether the value is another than the committed one.
    changed: bool,
    /// The bundle that holds the row until it is changed.
    bundle: Option<UserKey>,
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
    pub(super) fn add(
        &mut self,
        rows: &impl Rows,
        ends: &mut Ends,
        change: Change,
    ) -> Result<Claimed, StoreError> {
        match change {
            Change::Rows(changes) => {
                changes.into_iter().try_for_each(|change| self.put(rows, ends, change))?;
                Ok(Claimed::Yes)
            }
            Change::Expire(keys) => {
                let gone = || Pending { changed: true, ..Pending::default() };
                self.keys.extend(keys.into_iter().map(|key| (key, gone())));
                Ok(Claimed::Yes)
            }
            Change::Claim { key, value } => self.claim(rows, key, value),
            Change::Release { key, value } => {
                let pending = self.pending(rows, key)?;
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
        let changed = changed.map(|(key, pending)| (key, pending.value));
        changed.chain(self.fresh.into_iter().flat_map(|(sequence, rows)| entries(sequence, &rows)))
    }

    fn put(
        &mut self,
        rows: &impl Rows,
        ends: &mut Ends,
        change: Mutation,
    ) -> Result<(), StoreError> {
        let Mutation { key, stamp, value } = change;
        let bytes = key.to_bytes();
        let place = Sequence::of(bytes.as_ref());
        let is_new = match place {
            Some((sequence, position)) => ends.is_new(rows, sequence, position)?,
            None => false,
        };
        let value = match (place, value) {
            (Some((sequence, position)), Some(value))
                if is_new && value.len() <= bundle::VALUE_BYTES_MAX =>
            {
                let fresh = self.fresh.entry(sequence).or_default();
                fresh.push(FreshRow { position, stamp, value });
                return Ok(());
            }
            (_, value) => value,
        };
        let key = bytes.as_ref().into();
        let index = if is_new {
            self.keys.insert_full(key, Pending::default()).0
        } else {
            self.stamped(rows, key, place)?
        };
        // Of equal stamps a removal wins: it is the later of the two.
        let wins = |old| stamp > old || (stamp == old && value.is_none());
        if !self.keys[index].stamp.is_none_or(wins) {
            return Ok(());
        }
        if let (Some(bundle), Some((_, position))) = (self.keys[index].bundle.clone(), place) {
            self.unbundle(rows, bundle, position)?;
        }
        let pending = &mut self.keys[index];
        pending.bundle = None;
        pending.stamp = Some(stamp);
        pending.set(value.map(|value| stored_row(stamp, &value)));
        Ok(())
    }

    /// What the key of a stamped row will hold after the changes so far.
    fn stamped(
        &mut self,
        rows: &impl Rows,
        key: UserKey,
        place: Option<(Sequence, u64)>,
    ) -> Result<usize, StoreError> {
        if let Some(index) = self.keys.get_index_of(&key) {
            return Ok(index);
        }
        let pending = if let Some(row) = place.and_then(|place| self.take_fresh(place)) {
            let value = Some(stored_row(row.stamp, &row.value));
            Pending { stamp: Some(row.stamp), value, changed: true, ..Pending::default() }
        } else if let Some(value) = rows.get(&key)? {
            let stamp = Some(stored_stamp(&value)?);
            Pending { stamp, value: Some(value), stored: true, ..Pending::default() }
        } else if let Some((sequence, position)) = place {
            self.bundled(rows, sequence, position)?
        } else {
            Pending::default()
        };
        Ok(self.keys.insert_full(key, pending).0)
    }

    /// Takes a row that is new in this group: written twice in it, it is to stand alone.
    fn take_fresh(&mut self, (sequence, position): (Sequence, u64)) -> Option<FreshRow> {
        let fresh = self.fresh.get_mut(&sequence)?;
        let index = fresh.binary_search_by_key(&position, |row| row.position).ok()?;
        Some(fresh.remove(index))
    }

    /// A row that no key of its own is committed for, as its bundle says.
    fn bundled(
        &self,
        rows: &impl Rows,
        sequence: Sequence,
        position: u64,
    ) -> Result<Pending, StoreError> {
        let Some((key, value)) = rows.bundle(sequence, position)? else {
            return Ok(Pending::default());
        };
        let value = match self.keys.get(&key) {
            Some(pending) => pending.value.clone(),
            None => Some(value),
        };
        let Some(value) = value else { return Ok(Pending::default()) };
        let stamp = Bundle::decode(value)?.stamp(position);
        Ok(Pending { stamp, bundle: stamp.map(|_| key), ..Pending::default() })
    }

    /// Takes a row out of its bundle.
    fn unbundle(
        &mut self,
        rows: &impl Rows,
        key: UserKey,
        position: u64,
    ) -> Result<(), StoreError> {
        let pending = self.pending(rows, key)?;
        if let Some(value) = pending.value.clone() {
            pending.set(Bundle::decode(value)?.without(position));
        }
        Ok(())
    }

    fn claim(
        &mut self,
        rows: &impl Rows,
        key: UserKey,
        value: UserValue,
    ) -> Result<Claimed, StoreError> {
        let pending = self.pending(rows, key)?;
        match &pending.value {
            Some(held) if *held == value => Ok(Claimed::Yes),
            Some(held) => Ok(Claimed::Taken(Bytes::copy_from_slice(held))),
            None => {
                pending.set(Some(value));
                Ok(Claimed::Yes)
            }
        }
    }

    /// What the key of an entry without a stamp will hold after the changes so far.
    fn pending(&mut self, rows: &impl Rows, key: UserKey) -> Result<&mut Pending, StoreError> {
        match self.keys.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let value = rows.get(entry.key())?;
                let stored = value.is_some();
                Ok(entry.insert(Pending { value, stored, ..Pending::default() }))
            }
        }
    }
}

/// The entries of new rows: bundles, and rows that stand alone.
fn entries(sequence: Sequence, rows: &[FreshRow]) -> Vec<(UserKey, Option<UserValue>)> {
    let mut entries = Vec::new();
    for rows in bundle::cut(rows).map(|piece| &rows[piece]) {
        match rows.last() {
            Some(last) if rows.len() >= bundle::ROWS_MIN => {
                let key = sequence.bundle_bytes(last.position);
                entries.push((key.as_ref().into(), Some(Bundle::encode(rows))));
            }
            _ => entries.extend(rows.iter().map(|row| {
                let key = sequence.row_bytes(row.position);
                (key.as_ref().into(), Some(stored_row(row.stamp, &row.value)))
            })),
        }
    }
    entries
}

/// What a change costs beside its bytes.
const CHANGE_OVERHEAD_BYTES: usize = 64;

//! Reads of typed rows: one key, a range, the expired events of a channel.

use std::cmp::Reverse;
use std::ops::Bound;

use bytes::Bytes;
use chappe_protocol::id::POSITION_MAX;
use chappe_protocol::{ChannelId, Rev, Seq, UserId};
use fjall::{UserKey, UserValue};

use super::super::key::{BUCKET, KeyBytes, Sequence};
use super::super::{Key, Row, Scan, Stamp, StoreError, Table, UniqueKey};
use super::bundle::Bundle;
use super::tree::{Tree, View, tree_error};

impl Tree {
    /// Reads rows, in the order asked.
    pub(super) fn rows(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let view = self.view();
        keys.iter().map(|key| view.row(key)).collect()
    }

    /// Reads at most `limit` rows of a range, in its order.
    pub(super) fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let Some(Span { first, last, order }) = Span::of(scan) else { return Ok(Vec::new()) };
        let view = self.view();
        let alone = view.range(first.to_bytes()..=last.to_bytes());
        let bundles = view.bundles(&first, &last)?.into_iter().flatten();
        let is_in = |key: &Key| (first..=last).contains(key);
        let mut rows = match order {
            Order::LowestFirst => decode(alone, bundles, limit, is_in)?,
            Order::HighestFirst => decode(alone.rev(), bundles.rev(), limit, is_in)?,
        };
        match order {
            Order::LowestFirst => rows.sort_by_key(|(key, _)| *key),
            Order::HighestFirst => rows.sort_by_key(|(key, _)| Reverse(*key)),
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Reads at most `limit` rows of a table, lowest first.
    pub(super) fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let view = self.view();
        let bundles = table.bundles(after).map(|keys| view.range(keys)).into_iter().flatten();
        let is_in = |key: &Key| after.is_none_or(|after| *key > after);
        let mut rows = decode(view.range(table.keys(after)), bundles, limit, is_in)?;
        rows.sort_by_key(|(key, _)| *key);
        rows.truncate(limit);
        Ok(rows)
    }

    /// Reads at most `limit` names, lowest first.
    pub(super) fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let name = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(tree_error)?;
            let name = UniqueKey::name(&key).ok_or_else(unknown_key)?;
            Ok((name, Bytes::copy_from_slice(&value)))
        };
        self.view().range(UniqueKey::names(after)).take(limit).map(name).collect()
    }

    /// At most `limit` keys of a range, as bytes.
    pub(super) fn keys(
        &self,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        limit: usize,
    ) -> Result<Vec<UserKey>, StoreError> {
        self.view().range(range).take(limit).map(|entry| entry.key().map_err(tree_error)).collect()
    }
}

impl View<'_> {
    fn row(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        let bytes = key.to_bytes();
        if let Some(value) = self.get(bytes.as_ref())? {
            return decode_row(&value).map(Some);
        }
        let Some((sequence, position)) = Sequence::of(bytes.as_ref()) else { return Ok(None) };
        let Some((_, bundle)) = self.bundle(sequence, position)? else { return Ok(None) };
        Ok(Bundle::decode(bundle)?.row(position))
    }

    /// The bundles that the rows of a range may be in, of rows that may be in any.
    fn bundles(&self, first: &Key, last: &Key) -> Result<Option<fjall::Iter>, StoreError> {
        let place = |key: &Key| Sequence::of(key.to_bytes().as_ref());
        let (Some((sequence, first)), Some((_, last))) = (place(first), place(last)) else {
            return Ok(None);
        };
        let first = sequence.bundle_bytes(first);
        // The last one may end above the range.
        Ok(Some(match self.bundle(sequence, last)? {
            Some((end, _)) => self.range(first.as_ref()..=&*end),
            None => self.range(first..=sequence.bundle_bytes(last)),
        }))
    }
}

/// The keys of a channel's events whose buckets end at or below `up_to`, and those of their
/// bundles: the first and the last of each.
pub(super) fn expired(channel: ChannelId, up_to: Rev) -> Vec<(Vec<u8>, Vec<u8>)> {
    let kept_from = (up_to.get() + 1) / BUCKET * BUCKET;
    let first = Key::Event(channel, Rev::ZERO).to_bytes();
    let (Some(last), Some((sequence, _))) =
        (kept_from.checked_sub(1), Sequence::of(first.as_ref()))
    else {
        return Vec::new();
    };
    let keys = |first: KeyBytes, last: KeyBytes| (first.as_ref().into(), last.as_ref().into());
    vec![
        keys(first, sequence.row_bytes(last)),
        keys(sequence.bundle_bytes(0), sequence.bundle_bytes(last)),
    ]
}

/// The rows of both that are wanted, in no order, but none without those before it in the order of
/// the entries; at least `limit` if there are so many.
fn decode(
    alone: impl Iterator<Item = fjall::Guard>,
    bundles: impl Iterator<Item = fjall::Guard>,
    limit: usize,
    is_in: impl Fn(&Key) -> bool,
) -> Result<Vec<(Key, Row)>, StoreError> {
    let mut rows = alone.take(limit).map(decode_entry).collect::<Result<Vec<_>, _>>()?;
    let enough = rows.len() + limit;
    for entry in bundles {
        if rows.len() >= enough {
            break;
        }
        let (key, value) = entry.into_inner().map_err(tree_error)?;
        let (sequence, _) = Sequence::of_bundle(&key).ok_or_else(unknown_key)?;
        for (position, row) in Bundle::decode(value)?.rows() {
            let key = sequence.key(position).ok_or_else(unknown_key)?;
            if is_in(&key) {
                rows.push((key, row));
            }
        }
    }
    Ok(rows)
}

/// The value of a row as it is stored: its stamp in eight bytes, big-endian, then its own bytes.
pub(super) fn stored_row(stamp: Stamp, value: &[u8]) -> UserValue {
    [&stamp.0.to_be_bytes(), value].concat().into()
}

/// The stamp of a stored row.
pub(super) fn stored_stamp(value: &[u8]) -> Result<Stamp, StoreError> {
    let (stamp, _) = value.split_first_chunk().ok_or_else(bad_value)?;
    Ok(Stamp(u64::from_be_bytes(*stamp)))
}

fn decode_row(value: &[u8]) -> Result<Row, StoreError> {
    let (stamp, value) = value.split_first_chunk().ok_or_else(bad_value)?;
    // A copy: a part of the block would keep the whole block in memory.
    Ok(Row { stamp: Stamp(u64::from_be_bytes(*stamp)), value: Bytes::copy_from_slice(value) })
}

fn decode_entry(entry: fjall::Guard) -> Result<(Key, Row), StoreError> {
    let (key, value) = entry.into_inner().map_err(tree_error)?;
    Ok((decode_key(&key)?, decode_row(&value)?))
}

fn decode_key(bytes: &[u8]) -> Result<Key, StoreError> {
    Key::from_bytes(bytes).ok_or_else(unknown_key)
}

fn unknown_key() -> StoreError {
    StoreError::Damaged("a key is none of this format".to_owned())
}

fn bad_value() -> StoreError {
    StoreError::Damaged("a row is too short for its stamp".to_owned())
}

/// The keys of a scan, both ends included, and its direction.
struct Span {
    first: Key,
    last: Key,
    order: Order,
}

enum Order {
    LowestFirst,
    HighestFirst,
}

impl Span {
    /// None for a scan that no row can be in.
    fn of(scan: Scan) -> Option<Self> {
        let span = match scan {
            Scan::MessagesBefore(channel, seq) => {
                let last = Seq::new(seq.get().checked_sub(1)?);
                Self::falling(Key::Message(channel, Seq::ZERO), Key::Message(channel, last))
            }
            Scan::MessagesAfter(channel, seq) => {
                let first = Seq::new(above(seq.get())?);
                Self::rising(Key::Message(channel, first), Key::Message(channel, SEQ_LAST))
            }
            Scan::EventsAfter(channel, rev) => {
                let first = Rev::new(above(rev.get())?);
                Self::rising(Key::Event(channel, first), Key::Event(channel, REV_LAST))
            }
            Scan::EventsUpTo(channel, rev) => {
                Self::falling(Key::Event(channel, Rev::ZERO), Key::Event(channel, rev))
            }
            Scan::Members(channel, after) => {
                let first = after.map_or(Some(0), |user| user.get().checked_add(1))?;
                let member = |user| Key::Member(channel, UserId::new(user));
                Self::rising(member(first), member(u64::MAX))
            }
            Scan::ChannelsByUser(user, after) => {
                let first = after.map_or(Some(0), |channel| channel.get().checked_add(1))?;
                let channel = |channel| Key::ChannelOfUser(user, ChannelId::new(channel));
                Self::rising(channel(first), channel(u64::MAX))
            }
            Scan::Mentions(user, channel, seq) => {
                let mention = |seq| Key::Mention(user, channel, seq);
                Self::rising(mention(Seq::new(above(seq.get())?)), mention(SEQ_LAST))
            }
            Scan::Outbox(partition) => {
                let row = |id, rev| {
                    let (source, target) = (ChannelId::new(id), ChannelId::new(id));
                    Key::Outbox { partition, source, target, rev }
                };
                Self::rising(row(0, Rev::ZERO), row(u64::MAX, REV_LAST))
            }
        };
        Some(span)
    }

    const fn rising(first: Key, last: Key) -> Self {
        Self { first, last, order: Order::LowestFirst }
    }

    const fn falling(first: Key, last: Key) -> Self {
        Self { first, last, order: Order::HighestFirst }
    }
}

/// The position after one, if there is one.
fn above(position: u64) -> Option<u64> {
    Some(position + 1).filter(|next| *next < POSITION_MAX)
}

const SEQ_LAST: Seq = Seq::new(POSITION_MAX - 1);
const REV_LAST: Rev = Rev::new(POSITION_MAX - 1);

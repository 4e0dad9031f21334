//! A bundle: neighbouring rows of a sequence as one entry of the tree.
//!
//! The tree takes an entry at about the same cost whatever its size is, and a busy channel's new
//! rows come by the dozen: in bundles they cost a fraction. A bundle is made of rows that are new,
//! and never grows. A row that is changed leaves its bundle and stands alone from then on, so each
//! row is in one place, and the text of a deleted message does not stay behind in a bundle.
//!
//! ```text
//!   rows u32 | (position u64 | stamp u64 | end u32) for each row | values, one behind the other
//! ```
//!
//! Integers are big-endian; an end counts from where the values begin. No bundle crosses the border
//! of a bucket.

use std::ops::Range;

use bytes::Bytes;
use fjall::UserValue;

use super::super::key::BUCKET;
use super::super::{Row, Stamp, StoreError};

/// A row that is new.
pub(super) struct FreshRow {
    pub(super) position: u64,
    pub(super) stamp: Stamp,
    pub(super) value: Bytes,
}

/// A bundle as it was read.
pub(super) struct Bundle {
    bytes: UserValue,
    rows: usize,
}

impl Bundle {
    /// Makes a bundle's bytes of rows in the order of their positions.
    pub(super) fn encode(rows: &[FreshRow]) -> UserValue {
        let rows = rows.iter().map(|row| (row.position, row.stamp, &row.value[..]));
        encode(rows).into()
    }

    /// Looks whether these bytes are a bundle.
    pub(super) fn decode(bytes: UserValue) -> Result<Self, StoreError> {
        let rows = bytes.first_chunk().map_or(0, |rows| u32::from_be_bytes(*rows) as usize);
        let bundle = Self { bytes, rows };
        let (mut last, mut end) = (None, 0);
        let is_one = rows > 0
            && (rows.checked_mul(ROW_BYTES)).is_some_and(|it| it <= bundle.bytes.len())
            && (0..rows).all(|index| {
                let Some((position, _, upto)) = bundle.head(index) else { return false };
                let in_order = last.replace(position).is_none_or(|last| last < position);
                in_order && std::mem::replace(&mut end, upto) <= upto
            })
            && bundle.values().checked_add(end) == Some(bundle.bytes.len());
        if is_one { Ok(bundle) } else { Err(not_one()) }
    }

    /// The row at a position.
    pub(super) fn row(&self, position: u64) -> Option<Row> {
        self.find(position).map(|index| self.row_at(index).1)
    }

    /// The stamp of the row at a position.
    pub(super) fn stamp(&self, position: u64) -> Option<Stamp> {
        self.find(position).map(|index| self.parts(index).1)
    }

    /// The rows, lowest first.
    pub(super) fn rows(&self) -> impl DoubleEndedIterator<Item = (u64, Row)> {
        (0..self.rows).map(|index| self.row_at(index))
    }

    /// What is left without the row at a position.
    pub(super) fn without(&self, position: u64) -> Option<UserValue> {
        let rows = (0..self.rows).map(|index| self.parts(index));
        let rows: Vec<_> = rows.filter(|(of, ..)| *of != position).collect();
        (!rows.is_empty()).then(|| encode(rows.iter().copied()).into())
    }

    fn find(&self, position: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low.midpoint(high);
            match self.parts(middle).0.cmp(&position) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn row_at(&self, index: usize) -> (u64, Row) {
        let (position, stamp, value) = self.parts(index);
        // A copy: a part of the bundle would keep the whole of it in memory.
        (position, Row { stamp, value: Bytes::copy_from_slice(value) })
    }

    fn parts(&self, index: usize) -> (u64, Stamp, &[u8]) {
        let end = |index| self.head(index).map_or(0, |(.., end)| end);
        let from = if index == 0 { 0 } else { end(index - 1) };
        let (position, stamp, _) = self.head(index).unwrap_or_default();
        (position, Stamp(stamp), &self.bytes[self.values()..][from..end(index)])
    }

    /// Position, stamp and end of a row.
    fn head(&self, index: usize) -> Option<(u64, u64, usize)> {
        let head = self.bytes.get(COUNT_BYTES + index * ROW_BYTES..)?.first_chunk::<ROW_BYTES>()?;
        let (position, rest) = head.split_first_chunk()?;
        let (stamp, end) = rest.split_first_chunk()?;
        let end = u32::from_be_bytes(*end.first_chunk()?) as usize;
        Some((u64::from_be_bytes(*position), u64::from_be_bytes(*stamp), end))
    }

    const fn values(&self) -> usize {
        COUNT_BYTES + self.rows * ROW_BYTES
    }
}

/// Cuts new rows of a sequence into pieces, each of which is to be one bundle, or to stand alone
/// if it has fewer than [`ROWS_MIN`].
pub(super) fn cut(rows: &[FreshRow]) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let bucket = rows.get(from)?.position / BUCKET;
        let (mut end, mut bytes) = (from, 0);
        while let Some(row) = rows.get(end)
            && bytes < BYTES_MAX
            && row.position / BUCKET == bucket
        {
            bytes += ROW_BYTES + row.value.len();
            end += 1;
        }
        Some(std::mem::replace(&mut from, end)..end)
    })
}

fn encode<'a>(rows: impl Iterator<Item = (u64, Stamp, &'a [u8])> + Clone) -> Vec<u8> {
    let (count, bytes) =
        rows.clone().fold((0_u32, 0), |(rows, bytes), row| (rows + 1, bytes + row.2.len()));
    let mut out = Vec::with_capacity(COUNT_BYTES + count as usize * ROW_BYTES + bytes);
    out.extend_from_slice(&count.to_be_bytes());
    let mut end = 0;
    for (position, stamp, value) in rows.clone() {
        end += value.len() as u32;
        out.extend_from_slice(&position.to_be_bytes());
        out.extend_from_slice(&stamp.0.to_be_bytes());
        out.extend_from_slice(&end.to_be_bytes());
    }
    rows.for_each(|(_, _, value)| out.extend_from_slice(value));
    out
}

fn not_one() -> StoreError {
    StoreError::Damaged("a bundle of rows is none".to_owned())
}

/// Fewer rows stand alone.
pub(super) const ROWS_MIN: usize = 4;
/// A larger value stands alone, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 4 * 1024;
/// A bundle ends when it has this many bytes. It is read, and written again without a row that
/// leaves it, as one.
const BYTES_MAX: usize = 8 * 1024;
const COUNT_BYTES: usize = 4;
const ROW_BYTES: usize = 8 + 8 + 4;

//! A group's decisions, against rows in a map.

use std::collections::BTreeMap;

use super::*;
use crate::store::Stamp;
use crate::store::key::Sequence;
use crate::store::lsm::bundle::{Bundle, FreshRow};
use crate::store::lsm::ends::Ends;
use crate::store::lsm::group::Group;

/// Committed rows, one of which cannot be read.
#[derive(Default)]
struct Map {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    unreadable: Vec<u8>,
    /// Where every sequence ends.
    end: Option<u64>,
}

impl Rows for Map {
    fn get(&self, key: &[u8]) -> Result<Option<fjall::UserValue>, StoreError> {
        if *key == self.unreadable {
            return Err(StoreError::Damaged("it".to_owned()));
        }
        Ok(self.rows.get(key).map(|value| value.as_slice().into()))
    }

    fn end(&self, _: Sequence) -> Result<Option<u64>, StoreError> {
        Ok(self.end)
    }

    fn bundle(
        &self,
        sequence: Sequence,
        position: u64,
    ) -> Result<Option<(fjall::UserKey, fjall::UserValue)>, StoreError> {
        let first = sequence.bundle_bytes(position).as_ref().to_vec();
        let bundle = self.rows.range(first..).next();
        Ok(bundle.map(|(key, value)| (key.as_slice().into(), value.as_slice().into())))
    }

    fn commit(
        &self,
        _: impl Iterator<Item = (fjall::UserKey, Option<fjall::UserValue>)>,
    ) -> Result<(), StoreError> {
        unreachable!("a group does not write")
    }
}

fn key_bytes(key: Key) -> Vec<u8> {
    key.to_bytes().as_ref().to_vec()
}

fn outbox(rev: u64) -> Key {
    let (source, target) = (ChannelId::new(1), ChannelId::new(2));
    Key::Outbox { partition: chappe_protocol::PartitionId(0), source, target, rev: Rev::new(rev) }
}

fn put(key: Key, stamp: u64) -> Change {
    row(key, stamp, Some(Bytes::from(stamp.to_string())))
}

fn row(key: Key, stamp: u64, value: Option<Bytes>) -> Change {
    let mutation = Mutation { key, stamp: Stamp(stamp), value };
    Change::Rows(vec![mutation])
}

fn claim(value: &str) -> Change {
    Change::Claim { key: "name".into(), value: value.into() }
}

fn release(value: &str) -> Change {
    Change::Release { key: "name".into(), value: value.into() }
}

/// Adds the changes, each of which succeeds, and returns what is to be written.
fn changes(
    rows: &Map,
    changes: impl IntoIterator<Item = Change>,
) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let (mut group, mut ends) = <(Group, Ends)>::default();
    for change in changes {
        assert_eq!(group.add(rows, &mut ends, change), Ok(Claimed::Yes));
    }
    let bytes = |value: Option<fjall::UserValue>| value.map(|value| value.to_vec());
    group.into_changes().map(|(key, value)| (key.to_vec(), bytes(value))).collect()
}

fn stored(stamp: u64) -> Vec<u8> {
    [&stamp.to_be_bytes(), stamp.to_string().as_bytes()].concat()
}

#[test]
fn only_the_newest_write_of_a_row_is_committed() {
    let key = outbox(1);
    let written = changes(&Map::default(), [put(key, 2), put(key, 9), put(key, 4)]);
    assert_eq!(written, BTreeMap::from([(key_bytes(key), Some(stored(9)))]));
}

#[test]
fn nothing_is_committed_for_a_row_that_is_as_new() {
    let key = outbox(1);
    let rows = Map { rows: [(key_bytes(key), stored(5))].into(), ..Map::default() };
    assert_eq!(changes(&rows, [put(key, 5), put(key, 4), row(key, 4, None)]), BTreeMap::new());
}

#[test]
fn a_removal_holds_against_its_own_write_in_the_same_group() {
    let key = outbox(1);
    let rows = Map { rows: [(key_bytes(key), stored(5))].into(), ..Map::default() };
    let written = changes(&rows, [row(key, 5, None), put(key, 5), put(key, 3)]);
    assert_eq!(written, BTreeMap::from([(key_bytes(key), None)]));
}

#[test]
fn what_was_never_committed_is_not_removed() {
    let key = outbox(1);
    let all = [put(key, 5), row(key, 5, None), row(outbox(2), 1, None), claim("a"), release("a")];
    assert_eq!(changes(&Map::default(), all), BTreeMap::new());
}

#[test]
fn a_claim_sees_the_claims_and_releases_before_it_in_the_group() {
    let (rows, mut group) = (Map::default(), Group::default());
    let mut add = |change| group.add(&rows, &mut Ends::default(), change);
    let taken = |value: &'static str| Ok(Claimed::Taken(Bytes::from_static(value.as_bytes())));
    assert_eq!(add(claim("a")), Ok(Claimed::Yes));
    assert_eq!(add(claim("b")), taken("a"));
    assert_eq!(add(release("b")), Ok(Claimed::Yes));
    assert_eq!(add(claim("b")), taken("a"));
    assert_eq!(add(release("a")), Ok(Claimed::Yes));
    assert_eq!(add(claim("b")), Ok(Claimed::Yes));
    let written: Vec<_> = group.into_changes().collect();
    assert_eq!(written, [("name".into(), Some("b".into()))]);
}

#[test]
fn a_row_that_cannot_be_read_fails_its_own_change_only() {
    let rows = Map { unreadable: key_bytes(outbox(2)), ..Map::default() };
    let mut group = Group::default();
    let mut add = |change| group.add(&rows, &mut Ends::default(), change);
    assert_eq!(add(put(outbox(1), 1)), Ok(Claimed::Yes));
    assert_eq!(add(put(outbox(2), 1)), Err(StoreError::Damaged("it".to_owned())));
    assert_eq!(add(put(outbox(3), 1)), Ok(Claimed::Yes));
    let mut written: Vec<_> = group.into_changes().map(|(key, _)| key.to_vec()).collect();
    written.sort();
    assert_eq!(written, [key_bytes(outbox(1)), key_bytes(outbox(3))]);
}

#[test]
fn a_row_too_short_for_a_stamp_is_damage() {
    let key = outbox(1);
    let rows = Map { rows: [(key_bytes(key), vec![1, 2, 3])].into(), ..Map::default() };
    let added = Group::default().add(&rows, &mut Ends::default(), put(key, 1));
    assert!(matches!(added, Err(StoreError::Damaged(_))), "{added:?}");
}

fn seq(seq: u64) -> Key {
    Key::Message(ChannelId::new(1), Seq::new(seq))
}

fn bundle_key(seqs_end: u64) -> Vec<u8> {
    let (sequence, _) = Sequence::of(&key_bytes(seq(0))).unwrap();
    sequence.bundle_bytes(seqs_end).as_ref().to_vec()
}

/// A bundle of rows, each at a position and with a stamp.
fn bundle(rows: impl IntoIterator<Item = (u64, u64)>) -> Vec<u8> {
    let row = |(position, stamp): (u64, u64)| FreshRow {
        position,
        stamp: Stamp(stamp),
        value: Bytes::from(stamp.to_string()),
    };
    Bundle::encode(&rows.into_iter().map(row).collect::<Vec<_>>()).to_vec()
}

/// Rows 1 to 5, each with its number as stamp, in one bundle.
fn bundled() -> Map {
    let rows = [(bundle_key(5), bundle((1..=5).map(|at| (at, at))))].into();
    Map { rows, end: Some(5), ..Map::default() }
}

#[test]
fn new_rows_of_a_sequence_become_a_bundle_and_a_few_stand_alone() {
    let written = changes(&Map::default(), (1..=4).map(|at| put(seq(at), at)));
    let rows = bundle((1..=4).map(|at| (at, at)));
    assert_eq!(written, BTreeMap::from([(bundle_key(4), Some(rows))]));
    let written = changes(&Map::default(), (1..=3).map(|at| put(seq(at), at)));
    assert!(written.keys().eq([1, 2, 3].map(|at| key_bytes(seq(at))).iter()));
}

#[test]
fn a_bundle_ends_at_its_size_and_at_the_border_of_a_bucket() {
    let kib = || Some(Bytes::from(vec![7; 1024]));
    let written = changes(&Map::default(), (4080..4110).map(|at| row(seq(at), at, kib())));
    let ends: Vec<_> = written.keys().map(|key| Sequence::of_bundle(key).unwrap().1).collect();
    assert_eq!(ends, [4087, 4095, 4103, 4109]);
}

#[test]
fn a_large_row_stands_alone_and_is_known_from_then_on() {
    let large = Some(Bytes::from(vec![7; 5000]));
    let mut all: Vec<_> = (1..=4).map(|at| put(seq(at), at)).collect();
    all.push(row(seq(5), 5, large));
    all.push(put(seq(5), 6));
    let rows = bundle((1..=4).map(|at| (at, at)));
    let written =
        BTreeMap::from([(bundle_key(4), Some(rows)), (key_bytes(seq(5)), Some(stored(6)))]);
    assert_eq!(changes(&Map::default(), all), written);
}

#[test]
fn a_row_written_twice_in_a_group_is_in_one_place_with_its_newest_stamp() {
    let twice = [put(seq(2), 9), put(seq(3), 1), row(seq(4), 4, None), put(seq(4), 2)];
    let all = (1..=6).map(|at| put(seq(at), at)).chain(twice);
    let written = BTreeMap::from([
        (key_bytes(seq(2)), Some(stored(9))),
        (key_bytes(seq(3)), Some(stored(3))),
        (bundle_key(6), Some(bundle([1, 5, 6].map(|at| (at, at))))),
    ]);
    // Of what is left fewer than a bundle's stand alone as well.
    let alone = [1, 5, 6].map(|at| (key_bytes(seq(at)), Some(stored(at))));
    let mut expected = written;
    expected.remove(&bundle_key(6));
    expected.extend(alone);
    assert_eq!(changes(&Map::default(), all), expected);
}

#[test]
fn a_row_that_is_changed_leaves_its_bundle() {
    let written = changes(&bundled(), [put(seq(2), 9), put(seq(4), 4), put(seq(5), 8)]);
    let expected = BTreeMap::from([
        (key_bytes(seq(2)), Some(stored(9))),
        (key_bytes(seq(5)), Some(stored(8))),
        (bundle_key(5), Some(bundle([1, 3, 4].map(|at| (at, at))))),
    ]);
    assert_eq!(written, expected);
}

#[test]
fn a_bundle_that_all_rows_left_is_removed() {
    let written = changes(&bundled(), (1..=5).map(|at| row(seq(at), at, None)));
    assert_eq!(written, BTreeMap::from([(bundle_key(5), None)]));
}

#[test]
fn a_row_that_no_bundle_has_is_new_also_below_the_end() {
    let mut rows = bundled();
    rows.rows.insert(bundle_key(9), bundle([(7, 7), (9, 9)]));
    rows.end = Some(9);
    let written = changes(&rows, [put(seq(6), 1), put(seq(8), 2), put(seq(7), 3)]);
    let expected = [(6, 1), (8, 2)].map(|(at, stamp)| (key_bytes(seq(at)), Some(stored(stamp))));
    assert_eq!(written, BTreeMap::from(expected));
}

#[test]
fn a_damaged_bundle_is_told_and_changes_nothing() {
    let whole = bundle((1..=5).map(|at| (at, at)));
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let grown = [&whole[..], &[0]].concat();
    let swapped = bundle([(5, 1), (1, 5)]);
    for bytes in cut.chain([grown, swapped]) {
        let rows = Map { rows: [(bundle_key(5), bytes)].into(), end: Some(5), ..Map::default() };
        let mut group = Group::default();
        let added = group.add(&rows, &mut Ends::default(), put(seq(1), 9));
        assert!(matches!(added, Err(StoreError::Damaged(_))), "{added:?}");
        assert_eq!(group.into_changes().count(), 0);
    }
}

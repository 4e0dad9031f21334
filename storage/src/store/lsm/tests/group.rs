//! A group's decisions, against rows in a map.

use std::collections::BTreeMap;

use super::*;
use crate::store::Stamp;
use crate::store::key::Sequence;
use crate::store::lsm::group::Group;

/// Committed rows, one of which cannot be read.
#[derive(Default)]
struct Map {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    unreadable: Vec<u8>,
}

impl Rows for Map {
    fn get(&self, key: &[u8]) -> Result<Option<fjall::UserValue>, StoreError> {
        if *key == self.unreadable {
            return Err(StoreError::Damaged("it".to_owned()));
        }
        Ok(self.rows.get(key).map(|value| value.as_slice().into()))
    }

    fn end(&self, _: Sequence) -> Result<Option<u64>, StoreError> {
        unreachable!("a group looks for rows alone")
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
    Change::Rows(vec![RowChange::encode(mutation, &mut Vec::new()).unwrap()])
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
    let mut group = Group::default();
    for change in changes {
        assert_eq!(group.add(rows, change), Ok(Claimed::Yes));
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
    let taken = |value: &'static str| Ok(Claimed::Taken(Bytes::from_static(value.as_bytes())));
    assert_eq!(group.add(&rows, claim("a")), Ok(Claimed::Yes));
    assert_eq!(group.add(&rows, claim("b")), taken("a"));
    assert_eq!(group.add(&rows, release("b")), Ok(Claimed::Yes));
    assert_eq!(group.add(&rows, claim("b")), taken("a"));
    assert_eq!(group.add(&rows, release("a")), Ok(Claimed::Yes));
    assert_eq!(group.add(&rows, claim("b")), Ok(Claimed::Yes));
    let written: Vec<_> = group.into_changes().collect();
    assert_eq!(written, [("name".into(), Some("b".into()))]);
}

#[test]
fn a_row_that_cannot_be_read_fails_its_own_change_only() {
    let rows = Map { unreadable: key_bytes(outbox(2)), ..Map::default() };
    let mut group = Group::default();
    assert_eq!(group.add(&rows, put(outbox(1), 1)), Ok(Claimed::Yes));
    assert_eq!(group.add(&rows, put(outbox(2), 1)), Err(StoreError::Damaged("it".to_owned())));
    assert_eq!(group.add(&rows, put(outbox(3), 1)), Ok(Claimed::Yes));
    let mut written: Vec<_> = group.into_changes().map(|(key, _)| key.to_vec()).collect();
    written.sort();
    assert_eq!(written, [key_bytes(outbox(1)), key_bytes(outbox(3))]);
}

#[test]
fn a_row_too_short_for_a_stamp_is_damage() {
    let key = outbox(1);
    let rows = Map { rows: [(key_bytes(key), vec![1, 2, 3])].into(), ..Map::default() };
    let added = Group::default().add(&rows, put(key, 1));
    assert!(matches!(added, Err(StoreError::Damaged(_))), "{added:?}");
}

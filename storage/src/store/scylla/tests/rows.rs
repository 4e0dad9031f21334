//! Rows as they lie in their tables, and stamps as the servers decide by them.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use chappe_protocol::id::POSITION_MAX;
use chappe_protocol::{Incarnation, Seq, UserId};
use scylla::value::CqlValue;

use super::super::row::{Field, Partition, key_fields};
use super::super::schema::{self, stamped};
use super::*;
use crate::store::{ROW_BYTES_MAX, Stamp};

fn unique_id() -> u64 {
    getrandom::u64().unwrap()
}

fn put(key: Key, stamp: Stamp) -> Mutation {
    Mutation { key, stamp, value: Some(Bytes::from_static(b"bytes")) }
}

fn remove(key: Key, stamp: Stamp) -> Mutation {
    Mutation { key, stamp, value: None }
}

fn stamp(incarnation: u32, position: u64) -> Stamp {
    Stamp::at(Incarnation(incarnation), position)
}

async fn store() -> ScyllaStore {
    shared_keyspace().await;
    ScyllaStore::new(options()).unwrap()
}

fn every_table(id: u64) -> Vec<Key> {
    let (channel, user) = (ChannelId::new(id), UserId::new(id));
    vec![
        Key::Message(channel, Seq::new(1)),
        Key::Event(channel, Rev::new(1)),
        Key::Head(channel),
        Key::Channel(channel),
        Key::Member(channel, user),
        Key::ChannelOfUser(user, channel),
        Key::ReadMarker(user, channel),
        Key::Mention(user, channel, Seq::new(1)),
        Key::Relayed { inbox: channel, source: channel },
        Key::Outbox {
            partition: PartitionId(id as u32),
            source: channel,
            target: channel,
            rev: Rev::new(1),
        },
        Key::Checkpoint(PartitionId(id as u32)),
    ]
}

/// The condition that a row's partition meets, in CQL.
fn in_partition(key: &Key) -> String {
    let columns = stamped(key.table()).partition.iter().zip(key_fields(key));
    let conditions = columns.map(|(schema::Column(name, _), field)| match field {
        Field::Id(id) => format!("{name} = {id}"),
        Field::Number(number) => format!("{name} = {number}"),
        other => panic!("{other:?} in a partition's key"),
    });
    conditions.collect::<Vec<_>>().join(" AND ")
}

async fn column(session: &Session, text: &str) -> Vec<Option<CqlValue>> {
    let answer = cql(session, text).await.into_rows_result().unwrap();
    let rows = answer.rows::<scylla::value::Row>().unwrap();
    rows.map(|row| row.unwrap().columns.remove(0)).collect()
}

#[test]
fn a_stamp_is_below_the_present_time_in_microseconds() {
    let highest = stamp(1_000, POSITION_MAX - 1);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    assert!(u128::from(highest.0) < now_us);
    // Nor is the lowest zero, at which some servers take no writes.
    assert!(stamp(1, 0).0 > 0);
}

#[tokio::test]
async fn every_row_has_its_stamp_as_its_time_and_no_server_chose_one() {
    let (store, session) = (store().await, session().await);
    let keys = every_table(unique_id());
    let highest = stamp(1_000, POSITION_MAX - 1);
    for stamp in [stamp(1, 7), highest] {
        store.write(keys.iter().map(|key| put(*key, stamp)).collect()).await.unwrap();
        for key in &keys {
            let table = stamped(key.table()).name;
            let written = format!(
                "SELECT WRITETIME(value) FROM {}.{table} WHERE {}",
                keyspace(),
                in_partition(key)
            );
            let expected = Some(CqlValue::BigInt(stamp.0 as i64));
            assert_eq!(column(&session, &written).await, [expected], "{key:?}");
        }
    }
}

/// Whose revisions stamp a row, as a column of its key and what is in it.
fn stamper(key: &Key) -> (&'static str, Field) {
    match *key {
        Key::Message(channel, _)
        | Key::Event(channel, _)
        | Key::Head(channel)
        | Key::Channel(channel)
        | Key::Member(channel, _) => ("channel", Field::Id(channel.get())),
        // By the user's inbox alone.
        Key::ChannelOfUser(user, _) | Key::ReadMarker(user, _) | Key::Mention(user, ..) => {
            ("user", Field::Id(user.get()))
        }
        Key::Relayed { inbox, .. } => ("inbox", Field::Id(inbox.get())),
        Key::Outbox { source, .. } => ("source", Field::Id(source.get())),
        Key::Checkpoint(partition) => ("partition", Field::Number(partition.0.into())),
    }
}

proptest! {
    #[test]
    fn no_row_is_written_from_two_channels(
        a in conformance::random::key(),
        b in conformance::random::key(),
    ) {
        for key in [a, b] {
            let layout = stamped(key.table());
            let columns: HashMap<_, _> =
                layout.key().map(|column| column.0).zip(key_fields(&key)).collect();
            prop_assert_eq!(columns.len(), layout.key().count(), "a field for each column");
            let (column, field) = stamper(&key);
            prop_assert_eq!(columns.get(column), Some(&field), "the key holds who stamps the row");
        }
        // And one row is one key, in one partition.
        let place = |key: &Key| (key.table(), key_fields(key));
        prop_assert_eq!(a == b, place(&a) == place(&b));
        let partition = |key: &Key| {
            let columns = stamped(key.table()).partition.len();
            (key.table(), key_fields(key)[..columns].to_vec())
        };
        prop_assert_eq!(Partition::of(&a) == Partition::of(&b), partition(&a) == partition(&b));
    }
}

#[tokio::test]
async fn a_removal_beats_the_write_of_its_own_stamp_whichever_comes_first() {
    let store = store().await;
    let id = unique_id();
    let key = every_table(id)[9];
    for order in [[true, false], [false, true]] {
        for is_put in order {
            let change = if is_put { put(key, stamp(1, 5)) } else { remove(key, stamp(1, 5)) };
            store.write(vec![change]).await.unwrap();
        }
        assert_eq!(store.get(key).await.unwrap(), None);
    }
    store.write(vec![put(key, stamp(1, 4))]).await.unwrap();
    assert_eq!(store.get(key).await.unwrap(), None);
}

#[tokio::test]
async fn of_two_values_with_one_stamp_the_larger_bytes_stay_whichever_comes_first() {
    let (store, other) = (store().await, store().await);
    let [first, second] =
        [unique_id(), unique_id()].map(|id| Key::Checkpoint(PartitionId(id as u32)));
    for (key, order) in [(first, [b"more", b"less"]), (second, [b"less", b"more"])] {
        for (from, value) in [&store, &other].into_iter().zip(order) {
            let value = Some(Bytes::from_static(value));
            from.write(vec![Mutation { key, stamp: stamp(1, 5), value }]).await.unwrap();
        }
        let row = store.get(key).await.unwrap().unwrap();
        assert_eq!((row.stamp, &row.value[..]), (stamp(1, 5), &b"more"[..]));
    }
}

#[tokio::test]
async fn what_a_later_incarnation_writes_outlives_the_end_of_the_past() {
    let (writer, other) = (store().await, store().await);
    let channel = ChannelId::new(unique_id());
    let event = |rev| Key::Event(channel, Rev::new(rev));
    writer.write([1, 2, 3].map(|rev| put(event(rev), stamp(1, rev))).to_vec()).await.unwrap();
    // By another process: the one that wrote takes the bucket for known.
    other.expire_events(channel, Rev::new(9_000)).await.unwrap();
    let all = Scan::EventsAfter(channel, Rev::ZERO);
    assert_eq!(writer.scan(all, 10).await.unwrap(), []);
    writer.write(vec![put(event(3), stamp(1, 3))]).await.unwrap();
    assert_eq!(writer.scan(all, 10).await.unwrap(), [], "an old range, projected again");
    writer.write(vec![put(event(2), stamp(2, 2))]).await.unwrap();
    let found = other.scan(all, 10).await.unwrap();
    assert_eq!(
        found.iter().map(|(key, row)| (*key, row.stamp)).collect::<Vec<_>>(),
        [(event(2), stamp(2, 2))]
    );
}

#[tokio::test]
async fn a_bucket_is_written_into_the_index_once_and_is_found_from_afar() {
    let (store, session) = (store().await, session().await);
    let channel = ChannelId::new(unique_id());
    let message = |seq| Key::Message(channel, Seq::new(seq));
    let far = (1 << 40) - 5;
    for seq in [1, 2, far, far + 1, 3] {
        store.write(vec![put(message(seq), stamp(1, seq))]).await.unwrap();
    }
    let written = format!(
        "SELECT WRITETIME(value) FROM {}.buckets WHERE channel = {channel} AND kind = 'messages'",
        keyspace()
    );
    let first_of_each = [1, far].map(|seq| Some(CqlValue::BigInt(stamp(1, seq).0 as i64)));
    assert_eq!(column(&session, &written).await, first_of_each);
    let down = store.scan(Scan::MessagesBefore(channel, Seq::new(far)), 2).await.unwrap();
    assert_eq!(down.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [message(3), message(2)]);
    let up = store.scan(Scan::MessagesAfter(channel, Seq::new(3)), 9).await.unwrap();
    assert_eq!(
        up.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        [message(far), message(far + 1)]
    );
}

#[tokio::test]
async fn ids_read_in_cql_as_everywhere_else() {
    let (store, session) = (store().await, session().await);
    for id in [0, 127, 128, 255, 256, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX] {
        let key = Key::Head(ChannelId::new(id));
        store.write(vec![put(key, stamp(1, 3))]).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().unwrap().stamp, stamp(1, 3));
        let found = format!("SELECT value FROM {}.heads WHERE channel = {id}", keyspace());
        let expected = Some(CqlValue::Blob(b"bytes".to_vec()));
        assert_eq!(column(&session, &found).await, [expected], "{id}");
    }
}

#[tokio::test]
async fn a_row_that_somebody_else_wrote_is_damage() {
    let (store, session) = (store().await, session().await);
    let heads = format!("{}.heads", keyspace());
    let (by_hand, empty) = (unique_id(), unique_id());
    cql(&session, &format!("UPDATE {heads} SET value = 0x00 WHERE channel = {by_hand}")).await;
    cql(&session, &format!("INSERT INTO {heads} (channel) VALUES ({empty}) USING TIMESTAMP 7"))
        .await;
    for id in [by_hand, empty] {
        let found = store.get(Key::Head(ChannelId::new(id))).await;
        assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_too_large_is_refused_before_anything_is_written() {
    let store = store().await;
    let keys = every_table(unique_id());
    let bytes = ROW_BYTES_MAX + 1;
    let large = Mutation { value: Some(Bytes::from(vec![0; bytes])), ..put(keys[0], stamp(1, 1)) };
    let refused = store.write(vec![put(keys[2], stamp(1, 1)), large]).await;
    assert_eq!(refused, Err(StoreError::TooLarge { bytes }));
    assert_eq!(store.get(keys[2]).await.unwrap(), None);
    let name = UniqueKey::ChannelName("x".repeat(5000));
    let refused = store.claim(name, Bytes::from_static(b"1")).await;
    assert_eq!(refused, Err(StoreError::TooLarge { bytes: 5000 }));
}

#[tokio::test]
async fn a_write_of_many_large_rows_is_split_and_arrives_whole() {
    let store = store().await;
    let channel = ChannelId::new(unique_id());
    let value = |seq: u64| Bytes::from(vec![seq as u8; 20_000]);
    let rows = (1..=300).map(|seq| Mutation {
        value: Some(value(seq)),
        ..put(Key::Message(channel, Seq::new(seq)), stamp(1, seq))
    });
    store.write(rows.collect()).await.unwrap();
    // In several pages.
    let found = store.scan(Scan::MessagesAfter(channel, Seq::ZERO), 1000).await.unwrap();
    assert_eq!(found.len(), 300);
    for ((_, row), seq) in found.iter().zip(1..) {
        assert!(row.value == value(seq) && row.stamp == stamp(1, seq), "{seq}");
    }
    let keys = (1..=300).rev().map(|seq| Key::Message(channel, Seq::new(seq))).collect();
    let several = store.get_many(keys).await.unwrap();
    let backwards = found.into_iter().rev().map(|(_, row)| Some(row));
    assert!(several == backwards.collect::<Vec<_>>());
}

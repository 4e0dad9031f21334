//! What a write promises: every row, whole, durable, at once.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev, Seq};

use super::{
    CHANNEL, Key, Mutation, Scan, Store, Subject, USER, event, message, outbox, put, remove, row,
    scanned, stamp,
};
use crate::store::{ROW_BYTES_MAX, Row};

/// One row of each table.
pub(super) fn every_table() -> Vec<Key> {
    vec![
        message(1),
        event(1),
        Key::Head(CHANNEL),
        Key::Channel(CHANNEL),
        Key::Member(CHANNEL, USER),
        Key::ChannelOfUser(USER, CHANNEL),
        Key::ReadMarker(USER, CHANNEL),
        Key::Mention(USER, CHANNEL, Seq::new(1)),
        Key::Relayed { inbox: ChannelId::inbox(USER), source: CHANNEL },
        outbox(3, 1, 2, 1),
        Key::Checkpoint(PartitionId(3)),
    ]
}

/// Rows of all tables go in one batch, and none is taken for another.
pub async fn a_batch_spans_every_table(subject: impl Subject) {
    let store = subject.open().await;
    let keys = every_table();
    let writes = keys.iter().zip(1..).map(|(key, rev)| put(*key, stamp(rev))).collect();
    store.write(writes).await.unwrap();
    for (key, rev) in keys.into_iter().zip(1..) {
        assert_eq!(store.get(key).await.unwrap(), Some(row(key, stamp(rev))));
    }
}

/// Answers stand in the order of the keys, those of absent rows and of repeated keys too.
pub async fn get_many_answers_in_the_order_asked(subject: impl Subject) {
    let store = subject.open().await;
    store.write([1, 2, 3].map(|seq| put(message(seq), stamp(seq))).to_vec()).await.unwrap();
    let asked = [3, 1, 9, 3, 2].map(message).to_vec();
    let found = store.get_many(asked).await.unwrap();
    let some = |seq| Some(row(message(seq), stamp(seq)));
    assert_eq!(found, [some(3), some(1), None, some(3), some(2)]);
    assert_eq!(store.get_many(Vec::new()).await.unwrap(), []);
}

/// Written rows are there after a reopen, and removed ones are not.
pub async fn what_was_written_outlives_a_reopen(subject: impl Subject) {
    let store = subject.open().await;
    let gone = outbox(3, 1, 2, 2);
    let mut writes: Vec<_> = every_table().into_iter().map(|key| put(key, stamp(4))).collect();
    writes.push(put(gone, stamp(2)));
    store.write(writes).await.unwrap();
    store.write(vec![remove(gone, stamp(2)), put(message(2), stamp(5))]).await.unwrap();
    drop(store);
    let store = subject.open().await;
    for key in every_table() {
        assert_eq!(store.get(key).await.unwrap(), Some(row(key, stamp(4))));
    }
    assert_eq!(store.get(gone).await.unwrap(), None);
    assert_eq!(store.get(message(2)).await.unwrap(), Some(row(message(2), stamp(5))));
}

/// A row of the greatest size that every backend takes, and an empty one.
pub async fn the_largest_row_comes_back_whole(subject: impl Subject) {
    let store = subject.open().await;
    // No two parts alike, so that a cut or a repeated part is seen.
    let large: Vec<u8> = (0..ROW_BYTES_MAX as u32 / 4).flat_map(u32::to_le_bytes).collect();
    let rows = [(message(1), Bytes::from(large)), (message(2), Bytes::new())];
    let write = |(key, value): (Key, Bytes)| Mutation { key, stamp: stamp(1), value: Some(value) };
    store.write(rows.clone().map(write).to_vec()).await.unwrap();
    drop(store);
    let store = subject.open().await;
    for (key, value) in rows {
        let found = store.get(key).await.unwrap();
        assert!(found == Some(Row { stamp: stamp(1), value }), "{key:?} is another");
    }
}

/// A read that begins after the write was answered sees it, whichever kind of read.
pub async fn a_write_is_read_at_once(subject: impl Subject) {
    let store = subject.open().await;
    store.write(Vec::new()).await.unwrap();
    for rev in 1..=100 {
        store.write(vec![put(event(rev), stamp(rev)), put(message(1), stamp(rev))]).await.unwrap();
        assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), stamp(rev))));
        let newest = scanned(&store, Scan::EventsUpTo(CHANNEL, Rev::new(1000)), 1).await;
        assert_eq!(newest, [event(rev)]);
    }
}

/// A caller that goes away takes nobody else's write with it. Its own may have been applied, but
/// is never half a row.
pub async fn a_dropped_write_harms_no_other(subject: impl Subject) {
    let store = Arc::new(subject.open().await);
    for seq in 1..=50 {
        let write = |seq| {
            let store = Arc::clone(&store);
            async move { store.write(vec![put(message(seq), stamp(seq))]).await }
        };
        let (dropped, kept) = (tokio::spawn(write(1000 + seq)), tokio::spawn(write(seq)));
        tokio::task::yield_now().await;
        dropped.abort();
        kept.await.unwrap().unwrap();
        let _ = dropped.await; // aborted, or done before
    }
    let kept = scanned(&*store, Scan::MessagesAfter(CHANNEL, Seq::ZERO), 50).await;
    assert_eq!(kept, (1..=50).map(message).collect::<Vec<_>>());
    // Each row's bytes are checked where it is there.
    scanned(&*store, Scan::MessagesAfter(CHANNEL, Seq::new(1000)), 50).await;
}

/// Many writers at once lose nothing.
pub async fn concurrent_batches_all_arrive(subject: impl Subject) {
    let store = Arc::new(subject.open().await);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for batch in 0..8 {
                    let first = (writer * 8 + batch) * 10;
                    let seqs = first + 1..=first + 10;
                    let writes = seqs.map(|seq| put(message(seq), stamp(seq))).collect();
                    store.write(writes).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let found = scanned(&*store, Scan::MessagesAfter(CHANNEL, Seq::ZERO), 2000).await;
    assert_eq!(found, (1..=1280).map(message).collect::<Vec<_>>());
}

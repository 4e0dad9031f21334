//! Stamps decide which write stays.

use super::{CHANNEL, Key, Store, Subject, USER, event, message, outbox, put, remove, row, stamp};
use crate::store::Stamp;
use chappe_protocol::{Incarnation, Rev};

/// An older write, made later, changes nothing.
pub async fn an_older_stamp_changes_nothing(subject: impl Subject) {
    let store = subject.open().await;
    for rev in [5, 3, 4, 1] {
        store.write(vec![put(message(1), stamp(rev))]).await.unwrap();
    }
    assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), stamp(5))));
}

/// Within a batch too, in whichever order the writes stand.
pub async fn an_older_stamp_in_the_same_batch_changes_nothing(subject: impl Subject) {
    let store = subject.open().await;
    let revs = [2, 9, 4, 7];
    store.write(revs.map(|rev| put(message(1), stamp(rev))).to_vec()).await.unwrap();
    assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), stamp(9))));
}

/// The same write again changes nothing, in the same batch, in another, after a reopen.
pub async fn an_equal_stamp_is_idempotent(subject: impl Subject) {
    let store = subject.open().await;
    let write = put(message(1), stamp(3));
    store.write(vec![write.clone(), write.clone()]).await.unwrap();
    store.write(vec![write.clone()]).await.unwrap();
    drop(store);
    let store = subject.open().await;
    store.write(vec![write]).await.unwrap();
    assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), stamp(3))));
}

/// Stamps are compared whole: a later incarnation wins at any revision.
pub async fn a_later_incarnation_beats_any_revision(subject: impl Subject) {
    let store = subject.open().await;
    let high = Stamp::of(Incarnation(1), Rev::new((1 << 40) - 1));
    let later = Stamp::of(Incarnation(1000), Rev::new(1));
    store.write(vec![put(message(1), high)]).await.unwrap();
    store.write(vec![put(message(1), later)]).await.unwrap();
    store.write(vec![put(message(1), high)]).await.unwrap();
    assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), later)));
}

/// A projection that starts again from an old checkpoint, cut into other batches, leaves every
/// row as it was.
pub async fn replaying_an_old_range_changes_nothing(subject: impl Subject) {
    let store = subject.open().await;
    // Each fact writes its event, the head, and one of a few rows that later ones write again.
    let fact = |rev: u64| {
        let rows = [
            event(rev),
            Key::Head(CHANNEL),
            message(rev % 7),
            Key::Member(CHANNEL, USER),
            Key::ReadMarker(USER, CHANNEL),
        ];
        rows.map(|key| put(key, stamp(rev)))
    };
    let facts = |revs: std::ops::RangeInclusive<u64>| revs.flat_map(fact).collect::<Vec<_>>();
    store.write(facts(1..=200)).await.unwrap();
    let keys: Vec<_> = facts(1..=200).into_iter().map(|write| write.key).collect();
    let before = store.get_many(keys.clone()).await.unwrap();
    for from in [1, 60, 150] {
        for rev in (from..=180).step_by(13) {
            store.write(facts(rev..=180.min(rev + 12))).await.unwrap();
        }
    }
    assert_eq!(store.get_many(keys).await.unwrap(), before);
    assert_eq!(store.get(Key::Head(CHANNEL)).await.unwrap().unwrap().stamp, stamp(200));
}

/// Whatever the order in which concurrent writes of a row arrive, the newest stays.
pub async fn the_newest_of_concurrent_writes_stays(subject: impl Subject) {
    let store = std::sync::Arc::new(subject.open().await);
    let writers: Vec<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            let rev = 1 + n * 29 % 64; // each of 1..=64 once, shuffled
            tokio::spawn(async move { store.write(vec![put(message(1), stamp(rev))]).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(store.get(message(1)).await.unwrap(), Some(row(message(1), stamp(64))));
}

/// An outbox row goes at the stamp that it was written at; an older removal leaves it.
pub async fn a_row_is_removed_at_its_own_stamp_and_not_at_an_older_one(subject: impl Subject) {
    let store = subject.open().await;
    let (sent, kept) = (outbox(0, 1, 2, 5), outbox(0, 1, 2, 6));
    store.write(vec![put(sent, stamp(5)), put(kept, stamp(6))]).await.unwrap();
    store.write(vec![remove(sent, stamp(5)), remove(kept, stamp(5))]).await.unwrap();
    store.write(vec![remove(sent, stamp(5))]).await.unwrap();
    let found = store.get_many(vec![sent, kept]).await.unwrap();
    assert_eq!(found, [None, Some(row(kept, stamp(6)))]);
    // Written and removed in one batch.
    store
        .write(vec![put(outbox(0, 1, 2, 7), stamp(7)), remove(outbox(0, 1, 2, 7), stamp(7))])
        .await
        .unwrap();
    assert_eq!(store.get(outbox(0, 1, 2, 7)).await.unwrap(), None);
}

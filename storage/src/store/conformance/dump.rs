//! Going through whole tables: every row once, in pages that may be asked for at any time.
//!
//! What others write into the same tables would be seen, so these need a store that is theirs.

use bytes::Bytes;
use chappe_protocol::{ChannelId, Seq};

use super::{
    CHANNEL, Key, Store, Subject, USER, event, message, outbox, put, remove, row,
    rows::every_table, stamp,
};
use crate::store::{Table, UniqueKey};

/// Keys of every table: in several buckets, of several channels, with the greatest ids there are.
fn many_keys() -> Vec<Key> {
    let mut keys = every_table();
    for n in [2, 3, 4095, 4096, 4097, 9000, (1 << 40) - 1] {
        keys.extend([message(n), event(n), outbox(3, 1, 2, n), outbox(4, n, 2, 1)]);
        for id in [n, 1 << 63 | n, u64::MAX - n].map(ChannelId::new) {
            keys.extend([Key::Head(id), Key::Channel(id), Key::Message(id, Seq::new(n))]);
            keys.push(Key::Member(id, USER));
            keys.push(Key::ChannelOfUser(USER, id));
            keys.push(Key::ReadMarker(USER, id));
            keys.push(Key::Mention(USER, id, Seq::new(n)));
            keys.push(Key::Relayed { inbox: CHANNEL, source: id });
        }
    }
    keys
}

/// A whole table, asked for in pages of `limit` rows; their stamps are those of `write`.
async fn dumped(store: &impl Store, table: Table, limit: usize) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let page = store.dump(table, keys.last().copied(), limit).await.unwrap();
        assert!(page.len() <= limit, "a page of {} rows", page.len());
        if page.is_empty() {
            return keys;
        }
        for (key, found) in page {
            assert_eq!(found, row(key, found.stamp), "the row of {key:?}");
            keys.push(key);
        }
    }
}

fn of_table(keys: &[Key], table: Table) -> Vec<Key> {
    let mut keys: Vec<_> = keys.iter().copied().filter(|key| key.table() == table).collect();
    keys.sort_unstable();
    keys
}

/// Pages of any size bring every row of a table, none twice, and none of another table.
pub async fn a_dump_brings_every_row_of_a_table_once(subject: impl Subject) {
    let store = subject.open().await;
    for table in Table::ALL {
        assert_eq!(dumped(&store, table, 10).await, []);
    }
    let keys = many_keys();
    let writes = keys.iter().zip(1..).map(|(key, rev)| put(*key, stamp(rev))).collect();
    store.write(writes).await.unwrap();
    for table in Table::ALL {
        let expected = of_table(&keys, table);
        for limit in [1, 2, 7, 1_000] {
            let mut found = dumped(&store, table, limit).await;
            found.sort_unstable();
            assert_eq!(found, expected, "{table:?} in pages of {limit}");
        }
    }
    assert_eq!(store.dump(Table::Messages, None, 0).await.unwrap(), []);
}

/// Behind each row come those that came behind it before, over a reopen too.
pub async fn a_dump_goes_on_behind_any_row_after_a_reopen(subject: impl Subject) {
    let store = subject.open().await;
    let keys = many_keys();
    store.write(keys.iter().map(|key| put(*key, stamp(1))).collect()).await.unwrap();
    let mut orders = Vec::new();
    for table in Table::ALL {
        orders.push((table, dumped(&store, table, 1_000).await));
    }
    drop(store);
    let store = subject.open().await;
    for (table, order) in orders {
        for (index, after) in order.iter().enumerate() {
            let page = store.dump(table, Some(*after), 3).await.unwrap();
            let page: Vec<_> = page.into_iter().map(|(key, _)| key).collect();
            let rest = &order[index + 1..];
            assert_eq!(page, rest[..rest.len().min(3)], "behind {after:?}");
        }
    }
}

/// More rows than a backend brings at once, with the newest stamps; removed rows are not there.
pub async fn a_long_dump_has_no_removed_rows(subject: impl Subject) {
    let store = subject.open().await;
    let seqs: Vec<u64> = (1..=5_000).collect();
    for seqs in seqs.chunks(500) {
        store.write(seqs.iter().map(|n| put(message(*n), stamp(1))).collect()).await.unwrap();
        store
            .write(seqs.iter().map(|n| put(outbox(1, 1, 2, *n), stamp(1))).collect())
            .await
            .unwrap();
    }
    store.write(vec![put(message(77), stamp(9))]).await.unwrap();
    let gone = |n: &u64| !n.is_multiple_of(10);
    let removals = seqs.iter().filter(|n| gone(n)).map(|n| remove(outbox(1, 1, 2, *n), stamp(1)));
    store.write(removals.collect()).await.unwrap();
    let mut found = dumped(&store, Table::Messages, 640).await;
    found.sort_unstable();
    assert_eq!(found, seqs.iter().map(|n| message(*n)).collect::<Vec<_>>());
    let mut left = dumped(&store, Table::Outbox, 64).await;
    left.sort_unstable();
    let kept = seqs.iter().filter(|n| !gone(n)).map(|n| outbox(1, 1, 2, *n));
    assert_eq!(left, kept.collect::<Vec<_>>());
    let page = store.dump(Table::Messages, None, 10_000).await.unwrap();
    assert_eq!(page.len(), 5_000);
    let newest = page.iter().find(|(key, _)| *key == message(77)).unwrap();
    assert_eq!(newest.1.stamp, stamp(9));
}

/// Names and what they hold, without the other unique keys.
pub async fn a_dump_brings_every_name_once(subject: impl Subject) {
    let store = subject.open().await;
    assert_eq!(store.dump_names(None, 10).await.unwrap(), []);
    let names: Vec<String> = (0..40).map(|n| format!("name-{n:02}-ä")).collect();
    for key in [UniqueKey::Lineage, UniqueKey::Migration] {
        store.claim(key, Bytes::from_static(b"other")).await.unwrap();
    }
    for name in names.iter().map(String::as_str).chain([""]) {
        let key = UniqueKey::ChannelName(name.to_owned());
        store.claim(key, Bytes::from(format!("of {name}"))).await.unwrap();
    }
    let freed = UniqueKey::ChannelName(String::new());
    store.release(freed, Bytes::from_static(b"of ")).await.unwrap();
    for limit in [1, 3, 1_000] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = store.dump_names(found.last().cloned(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            for (name, value) in page {
                assert_eq!(value, format!("of {name}"));
                found.push(name);
            }
        }
        found.sort_unstable();
        assert_eq!(found, names, "in pages of {limit}");
    }
}

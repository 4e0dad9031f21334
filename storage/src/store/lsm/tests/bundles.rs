//! Rows that come many at a time, and so in bundles, and what is done to them later.

use proptest::collection::vec;

use super::*;
use crate::store::conformance::Operation;

/// Rows from `first` on, of one channel, with values whose sizes differ.
fn rows(table: Table, channel: u64, first: u64, count: u64, rev: u64) -> Operation {
    let channel = ChannelId::new(channel);
    let row = |at: u64| Mutation {
        key: match table {
            Table::Messages => Key::Message(channel, Seq::new(at)),
            _ => Key::Event(channel, Rev::new(at)),
        },
        stamp: Stamp::of(Incarnation(1), Rev::new(rev)),
        value: Some(Bytes::from(format!("{at} {rev} ").repeat((at * 31 % 97) as usize))),
    };
    Operation::Write((first..first + count).map(row).collect())
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Messages), Just(Table::Events)]
}

/// Near the beginning, and around the border of the first two buckets.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![0..90_u64, 4060..4150_u64]
}

fn scan() -> impl Strategy<Value = Scan> {
    (0..4_u8, 1..3_u64, place()).prop_map(|(kind, channel, at)| {
        let channel = ChannelId::new(channel);
        match kind {
            0 => Scan::MessagesBefore(channel, Seq::new(at)),
            1 => Scan::MessagesAfter(channel, Seq::new(at)),
            2 => Scan::EventsAfter(channel, Rev::new(at)),
            _ => Scan::EventsUpTo(channel, Rev::new(at)),
        }
    })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let write = (table(), 1..3_u64, place(), prop_oneof![1..4_u64, 4..60_u64], 1..9_u64);
    let operation = prop_oneof![
        6 => write.prop_map(|(table, channel, at, count, rev)| rows(table, channel, at, count, rev)),
        6 => (scan(), 0..80_usize).prop_map(|(scan, limit)| Operation::Scan(scan, limit)),
        1 => (1..3_u64, place()).prop_map(|(channel, up_to)| {
            Operation::Expire(ChannelId::new(channel), Rev::new(up_to))
        }),
        1 => Just(Operation::Reopen),
    ];
    vec(operation, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_store_of_bundles_answers_as_its_model(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let subject = LsmSubject::new().await;
            conformance::a_store_answers_as_its_model(subject, operations).await;
        });
    }
}

/// A store with messages 1 to 300 of two channels, every tenth changed after it was bundled.
async fn changed_here_and_there(dir: &TempDir) -> (LsmStore, Vec<Key>) {
    let store = LsmStore::open(dir.path()).unwrap();
    let mut keys = Vec::new();
    for channel in [1, 2] {
        for (first, count, step, rev) in [(1, 300, 1, 1), (10, 30, 10, 2)] {
            let Operation::Write(rows) = rows(Table::Messages, channel, first, count * step, rev)
            else {
                unreachable!("rows are written")
            };
            let rows: Vec<_> = rows.into_iter().step_by(step as usize).collect();
            keys.extend(rows.iter().filter(|_| rev == 1).map(|row| row.key));
            store.write(rows).await.unwrap();
        }
    }
    (store, keys)
}

#[tokio::test]
async fn a_dump_brings_each_row_of_and_beside_bundles_once() {
    let dir = TempDir::new().unwrap();
    let (store, keys) = changed_here_and_there(&dir).await;
    for limit in [1, 7, 64, 1000] {
        let mut dumped: Vec<Key> = Vec::new();
        loop {
            let after = dumped.last().copied();
            let page = store.dump(Table::Messages, after, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            dumped.extend(page.into_iter().map(|(key, row)| {
                let Key::Message(_, seq) = key else { panic!("{key:?}") };
                let rev = if seq.get() % 10 == 0 { 2 } else { 1 };
                assert_eq!(row.stamp.position(), rev, "{key:?}");
                key
            }));
        }
        assert_eq!(dumped, keys, "pages of {limit}");
    }
}

#[tokio::test]
async fn no_entry_holds_what_a_row_said_before_it_was_changed() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    let secret = |seq| message(seq, seq, "a secret");
    store.write((1..=50).map(secret).collect()).await.unwrap();
    store.write((1..=50).map(|seq| message(seq, 50 + seq, "")).collect()).await.unwrap();
    let view = store.tree.view();
    let mut entries = 0;
    for entry in view.range::<&[u8]>(..) {
        let (_, value) = entry.into_inner().unwrap();
        assert!(!value.windows(8).any(|bytes| bytes == b"a secret"));
        entries += 1;
    }
    assert_eq!(entries, 50);
}

#[tokio::test]
async fn what_was_bundled_is_looked_for_after_a_reopen_too() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    store.write((1..=50).map(|seq| message(seq, 5, "new")).collect()).await.unwrap();
    drop(store);
    let store = LsmStore::open(dir.path()).unwrap();
    // As a projection does that goes on from an older checkpoint.
    store.write((40..=60).map(|seq| message(seq, 4, "old")).collect()).await.unwrap();
    let scan = Scan::MessagesAfter(ChannelId::new(1), Seq::ZERO);
    let stamps = store.scan(scan, 100).await.unwrap().into_iter().map(|(_, row)| row.stamp);
    let stamps: Vec<_> = stamps.map(Stamp::position).collect();
    assert_eq!(stamps, [vec![5; 50], vec![4; 10]].concat());
}

//! Rows per second that a projection writes through the embedded store, against the same batches
//! committed to a bare tree.
//!
//! A batch is 64 rows of about 300 bytes: messages, events and heads of 64 channels, in turn. The
//! floor is `batch.commit` with `SyncData` of the same keys and values, from as many threads as the
//! store has writers. Both are run in turn; the best of three rounds counts.
//!
//! `cargo bench -p chappe-storage --bench store_write`

use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, Rev, Seq};
use chappe_storage::store::lsm::{LsmOptions, LsmStore};
use chappe_storage::store::{Key, Mutation, Stamp, Store};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};

const ROUNDS: usize = 3;
const BATCH_ROWS: usize = 64;
const CHANNELS: u64 = 64;
const VALUE_BYTES: usize = 300;

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    println!("batches of {BATCH_ROWS} rows of {VALUE_BYTES} bytes, best of {ROUNDS} rounds");
    for (writers, batches) in [(1, 1500), (4, 1000), (16, 400)] {
        let work = Work { writers, batches };
        let (mut floor, mut ours) = (0.0_f64, 0.0_f64);
        for _ in 0..ROUNDS {
            floor = floor.max(work.rows_per_s(bare_tree(work)));
            ours = ours.max(work.rows_per_s(runtime.block_on(store(work))));
        }
        let ratio = ours / floor;
        println!(
            "{writers:>2} writers: bare tree {floor:>8.0} rows/s, store {ours:>8.0} rows/s, ratio {ratio:.2}"
        );
    }
}

/// What is written in one round.
#[derive(Clone, Copy)]
struct Work {
    writers: u64,
    /// Of each writer.
    batches: u64,
}

impl Work {
    fn rows_per_s(self, took: Duration) -> f64 {
        (self.writers * self.batches) as f64 * BATCH_ROWS as f64 / took.as_secs_f64()
    }
}

/// The batches of one writer: facts of its channels in turn, each a message, an event and a head.
fn batches(writer: u64, count: u64) -> Vec<Vec<Mutation>> {
    let facts = (0_u64..).flat_map(|n| {
        let channel = ChannelId::new(writer << 32 | (n % CHANNELS).wrapping_mul(0x9E37_79B9));
        let rev = 1 + n / CHANNELS;
        let stamp = Stamp::of(Incarnation(1), Rev::new(rev));
        let keys = [
            Key::Message(channel, Seq::new(rev)),
            Key::Event(channel, Rev::new(rev)),
            Key::Head(channel),
        ];
        keys.map(|key| Mutation { key, stamp, value: Some(value(n)) })
    });
    let mut rows = facts;
    (0..count).map(|_| rows.by_ref().take(BATCH_ROWS).collect()).collect()
}

/// Text-like bytes: a compressor finds about half of them again.
fn value(n: u64) -> Bytes {
    let mut word = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(VALUE_BYTES + 16);
    while bytes.len() < VALUE_BYTES {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(format!("{word:016x}").as_bytes());
    }
    bytes.truncate(VALUE_BYTES);
    bytes.into()
}

async fn store(work: Work) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let store = std::sync::Arc::new(LsmStore::open(dir.path()).expect("a store"));
    let all: Vec<_> = (0..work.writers).map(|writer| batches(writer, work.batches)).collect();
    let started = Instant::now();
    let writers: Vec<_> = all
        .into_iter()
        .map(|batches| {
            let store = store.clone();
            tokio::spawn(async move {
                for batch in batches {
                    store.write(batch).await.expect("a write");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    started.elapsed()
}

/// A key and a value.
type Pair = (Vec<u8>, Vec<u8>);

/// The same keys and values, put without a look at what is there.
fn bare_tree(work: Work) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let options = LsmOptions::default();
    let database = Database::builder(dir.path())
        .cache_size(options.cache_bytes)
        .worker_threads(2)
        .open()
        .expect("a tree");
    let rows = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
    let rows = database.keyspace("rows", rows).expect("a keyspace");
    let all: Vec<Vec<Vec<Pair>>> = (0..work.writers)
        .map(|writer| batches(writer, work.batches).into_iter().map(encoded).collect())
        .collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for batches in all {
            let (database, rows) = (&database, &rows);
            scope.spawn(move || {
                for pairs in batches {
                    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                    for (key, value) in pairs {
                        batch.insert(rows, key, value);
                    }
                    batch.commit().expect("a commit");
                }
            });
        }
    });
    started.elapsed()
}

/// Keys of the same length and order, values with a stamp before them.
fn encoded(batch: Vec<Mutation>) -> Vec<Pair> {
    let fields = |key| match key {
        Key::Message(channel, seq) => (1, channel.get(), Some(seq.get())),
        Key::Event(channel, rev) => (2, channel.get(), Some(rev.get())),
        Key::Head(channel) => (3, channel.get(), None),
        other => unreachable!("{other:?} is not written here"),
    };
    let pair = |row: Mutation| {
        let (table, channel, position): (u8, u64, Option<u64>) = fields(row.key);
        let mut key = vec![table];
        key.extend(channel.to_be_bytes());
        key.extend(position.map(u64::to_be_bytes).into_iter().flatten());
        let value = row.value.unwrap_or_default();
        (key, [&row.stamp.0.to_be_bytes(), &value[..]].concat())
    };
    batch.into_iter().map(pair).collect()
}

//! Rows per second that a projection writes through the CQL store, against bare concurrent inserts
//! of the same rows with the same driver.
//!
//! A batch is 64 rows of 300 bytes: of a busy channel its messages and events, of 64 channels in
//! turn the message, the event and the head, where no two rows of a batch lie in one partition.
//! Both sides write with the same consistency and stamps, as many batches and as many rows of each
//! at once, into keyspaces of their own, in turn: A, B, B, A, … The sums of all rounds count.
//!
//! `eval "$(tests/services/services env)"`, then
//! `cargo bench -p chappe-storage --features scylla --bench store_scylla`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, Rev, Seq};
use chappe_storage::store::scylla::{Replication, ScyllaLogin, ScyllaOptions, ScyllaStore, apply};
use chappe_storage::store::{Key, Mutation, Stamp, Store};
use futures_util::stream::{self, StreamExt as _};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

const ROUNDS: u64 = 4;
const BATCH_ROWS: u64 = 64;
const BATCHES: u64 = 20;
const VALUE_BYTES: usize = 300;

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let store = ScyllaStore::new(made(given("store")).await).expect("a store");
    store.check().await.expect("a cluster");
    let store = Arc::new(store);
    let bare = Arc::new(Bare::new(&made(given("bare")).await).await);
    println!("batches of {BATCH_ROWS} rows of {VALUE_BYTES} bytes, {ROUNDS} rounds of each side");
    for (shape, writers) in [Shape::Busy, Shape::Wide].into_iter().flat_map(|it| [(it, 1), (it, 8)])
    {
        let (mut ours, mut floor) = (Duration::ZERO, Duration::ZERO);
        // The first of each is a warm-up, and does not count.
        for round in 0..=ROUNDS {
            let batches = || batches(shape, writers, round);
            let (a, b) = if round % 2 == 0 {
                let a = through_store(&store, batches()).await;
                (a, bare.insert(batches()).await)
            } else {
                let b = bare.insert(batches()).await;
                (through_store(&store, batches()).await, b)
            };
            if round > 0 {
                ours += a;
                floor += b;
            }
        }
        let rows = (writers * BATCHES * BATCH_ROWS * ROUNDS) as f64;
        let (ours, floor) = (rows / ours.as_secs_f64(), rows / floor.as_secs_f64());
        println!(
            "{shape:?} channels, {writers:>2} writers: bare inserts {floor:>7.0} rows/s, store {ours:>7.0} rows/s, \
             ratio {:.2}",
            ours / floor
        );
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("CHAPPE_TEST_{name}")).ok()
}

fn given(side: &str) -> ScyllaOptions {
    let nodes = variable("CQL").expect("CHAPPE_TEST_CQL names a cluster");
    let login = variable("CQL_USER")
        .map(|user| ScyllaLogin { user, password: variable("CQL_PASSWORD").unwrap_or_default() });
    let keyspace = format!("chappe_bench_{side}");
    ScyllaOptions { keyspace, login, ..ScyllaOptions::at(nodes.split(',')) }
}

async fn made(options: ScyllaOptions) -> ScyllaOptions {
    apply(&options, Some(&Replication::Everywhere(1))).await.expect("a schema");
    options
}

/// Which rows follow each other.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// One channel for each writer: message, event, message, event, …
    Busy,
    /// 64 channels for each writer: message, event and head of one after another.
    Wide,
}

/// What each writer writes in a round: new facts of channels of its own.
fn batches(shape: Shape, writers: u64, round: u64) -> Vec<Vec<Vec<Mutation>>> {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64;
    let fact = |writer: u64, n: u64| {
        let channels = match shape {
            Shape::Busy => 1,
            Shape::Wide => 64,
        };
        let (of, rev) = (n % channels, 1 + n / channels);
        // Below 2^63, and apart from those of every other round.
        let channel = ChannelId::new(((now << 16) ^ (writer << 8) ^ of) >> 1);
        let stamp = Stamp::of(Incarnation(1), Rev::new(rev));
        let message = Key::Message(channel, Seq::new(rev));
        let event = Key::Event(channel, Rev::new(rev));
        let keys = match shape {
            Shape::Busy => vec![message, event],
            Shape::Wide => vec![message, event, Key::Head(channel)],
        };
        keys.into_iter().map(move |key| Mutation { key, stamp, value: Some(value(n ^ round)) })
    };
    let writer = |writer| {
        let mut rows = (0..).flat_map(|n| fact(writer, n));
        (0..BATCHES).map(|_| rows.by_ref().take(BATCH_ROWS as usize).collect()).collect()
    };
    (0..writers).map(writer).collect()
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

async fn through_store(store: &Arc<ScyllaStore>, all: Vec<Vec<Vec<Mutation>>>) -> Duration {
    let started = Instant::now();
    let writers: Vec<_> = all
        .into_iter()
        .map(|batches| {
            let store = Arc::clone(store);
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

/// The driver alone: a prepared statement for each table, one request for each row.
struct Bare {
    session: Session,
    messages: PreparedStatement,
    events: PreparedStatement,
    heads: PreparedStatement,
}

impl Bare {
    async fn new(options: &ScyllaOptions) -> Self {
        let mut builder = SessionBuilder::new().known_nodes(&options.nodes);
        if let Some(ScyllaLogin { user, password }) = &options.login {
            builder = builder.user(user, password);
        }
        let session = builder.build().await.expect("a session");
        let keyspace = &options.keyspace;
        let mut prepared = Vec::new();
        for insert in [
            "messages (value, channel, bucket, seq) VALUES (?, ?, ?, ?)",
            "events (value, channel, bucket, rev) VALUES (?, ?, ?, ?)",
            "heads (value, channel) VALUES (?, ?)",
        ] {
            let text = format!("INSERT INTO {keyspace}.{insert} USING TIMESTAMP ?");
            let mut statement = session.prepare(text).await.expect("a statement");
            statement.set_consistency(Consistency::LocalQuorum);
            prepared.push(statement);
        }
        let [messages, events, heads] = prepared.try_into().expect("three");
        Self { session, messages, events, heads }
    }

    /// The rows of a batch side by side, the batches of a writer one after another.
    async fn insert(self: &Arc<Self>, all: Vec<Vec<Vec<Mutation>>>) -> Duration {
        let started = Instant::now();
        let writers: Vec<_> = all
            .into_iter()
            .map(|batches| {
                let bare = Arc::clone(self);
                tokio::spawn(async move {
                    for batch in batches {
                        let rows = stream::iter(batch).map(|row| bare.insert_row(row));
                        rows.buffer_unordered(BATCH_ROWS as usize).collect::<()>().await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("a writer");
        }
        started.elapsed()
    }

    async fn insert_row(&self, Mutation { key, stamp, value }: Mutation) {
        let stamp = stamp.0 as i64;
        let (statement, channel, number) = match key {
            Key::Message(channel, seq) => (&self.messages, channel, seq.get()),
            Key::Event(channel, rev) => (&self.events, channel, rev.get()),
            Key::Head(channel) => {
                let values = (value, varint(channel.get()), stamp);
                let answer = self.session.execute_unpaged(&self.heads, values).await;
                return drop(answer.expect("an insert"));
            }
            other => unreachable!("{other:?} is not written here"),
        };
        let values = (value, varint(channel.get()), number as i64 / 4096, number as i64, stamp);
        let answer = self.session.execute_unpaged(statement, values).await;
        drop(answer.expect("an insert"));
    }
}

/// Ids below 2^63, in the shortest form.
fn varint(id: u64) -> scylla::value::CqlVarint {
    let bytes = id.to_be_bytes();
    let from = (0..7).take_while(|n| bytes[*n] == 0 && bytes[n + 1] < 0x80).count();
    scylla::value::CqlVarint::from_signed_bytes_be_slice(&bytes[from..])
}

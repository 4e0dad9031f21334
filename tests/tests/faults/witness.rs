//! Whether any read stands behind an acknowledgement: one publishes over one gateway, others read
//! the newest message over the other gateways all the while, and each must see what was
//! acknowledged before it asked. Whether what is refused stays refused: nobody gets a message into a
//! channel whose archiving was acknowledged, over no gateway and under no leader. And whether what
//! goes from a channel to a user's list arrives there in the end, whatever failed on the way.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use chappe_client::{Client, Error, Options, Trust};
use chappe_protocol::{
    ChannelId, ChannelName, ErrorCode, Text,
    command::{CreateChannel, History, ListChannels},
};
use chappe_tests::{
    cluster::{Cluster, Part},
    fresh, token,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Enough that with twelve partitions every broker leads some.
const CHANNELS: usize = 8;
/// Channels that are archived.
const ARCHIVED: usize = 4;
/// Longer than any fault.
const DEADLINE: Duration = Duration::from_secs(150);
/// On its way into a list a fact waits for a checkpoint, and at most 2 s between two attempts.
const LISTED: Duration = Duration::from_secs(30);

pub(crate) struct Witness {
    writer: Client,
    /// What the writer has made.
    made: Vec<ChannelId>,
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
}

struct Seen {
    channels: Vec<Watched>,
    archived: Vec<ChannelId>,
    is_over: AtomicBool,
    reads: AtomicU64,
    refusals: AtomicU64,
    /// How long each publish took, since they were last asked for.
    took: Mutex<Vec<Duration>>,
}

struct Watched {
    channel: ChannelId,
    /// The number of the last message that was acknowledged.
    acked: AtomicU64,
}

impl Witness {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let [first, second] = cluster.of(Part::Ws)[..] else { panic!("two gateways") };
        let url = |index: usize| format!("ws://{}", cluster.nodes[index].listen);
        let quic = format!("quic://{}", cluster.nodes[cluster.of(Part::Quic)[0]].listen);
        let writer = connect(cluster, &url(first)).await;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            let channel = create(&writer).await;
            channels.push(Watched { channel, acked: AtomicU64::new(0) });
        }
        let mut archived = Vec::new();
        for _ in 0..ARCHIVED {
            archived.push(create(&writer).await);
        }
        let made = channels.iter().map(|watched| watched.channel).collect();
        let seen = Arc::new(Seen {
            channels,
            archived,
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            took: Mutex::default(),
        });
        let mut tasks = vec![tokio::spawn(publish(Arc::clone(&seen), writer.clone()))];
        let mut readers = Vec::new();
        for url in [url(second), quic] {
            let reader = connect(cluster, &url).await;
            for channel in
                seen.channels.iter().map(|watched| &watched.channel).chain(&seen.archived)
            {
                reader.join(*channel).await.unwrap();
            }
            readers.push(reader);
        }
        for channel in &seen.archived {
            writer.archive_channel(*channel).await.unwrap();
        }
        for reader in readers {
            tasks.push(tokio::spawn(read(Arc::clone(&seen), reader.clone())));
            tasks.push(tokio::spawn(knock(Arc::clone(&seen), reader)));
        }
        Self { writer, made, seen, tasks }
    }

    /// Makes another channel, which its maker is to find in his list in the end.
    pub(crate) async fn create(&mut self) {
        self.made.push(create(&self.writer).await);
    }

    /// How many messages were refused so far.
    pub(crate) fn refusals(&self) -> u64 {
        self.seen.refusals.load(SeqCst)
    }

    /// How many reads were compared so far.
    pub(crate) fn reads(&self) -> u64 {
        self.seen.reads.load(SeqCst)
    }

    /// How long the next so many publishes take, in ascending order.
    pub(crate) async fn latencies(&self, count: usize) -> Vec<Duration> {
        let took = || self.seen.took.lock().unwrap();
        took().clear();
        let waiting = async {
            while took().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, waiting).await.expect("publishing goes on");
        let mut latencies = took().clone();
        latencies.sort_unstable();
        latencies
    }

    /// Ends it, and passes on what it found.
    pub(crate) async fn end(self) {
        self.seen.is_over.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no answer stands behind an acknowledgement");
        }
        let all_listed = async {
            loop {
                let mine =
                    self.writer.list_channels(ListChannels { after: None, limit: Some(100) });
                let mine = mine.await.unwrap().channels;
                let lists = |id: &ChannelId| mine.iter().any(|one| one.channel == *id);
                if self.made.iter().all(lists) {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LISTED, all_listed).await.expect("every channel comes into its maker's list");
    }
}

async fn create(client: &Client) -> ChannelId {
    let name = ChannelName::parse(fresh("witness")).unwrap();
    let create = serde_json::json!({"kind": "public", "name": name});
    let create: CreateChannel = serde_json::from_value(create).unwrap();
    client.create_channel(create).await.unwrap().channel
}

async fn connect(cluster: &Cluster, url: &str) -> Client {
    let token = token::mint(&cluster.folder(), &fresh("witness"));
    let options = Options::new(url, token).unwrap().command_deadline(DEADLINE).keep_trying();
    let trust = Trust::fingerprint(&cluster.fingerprint()).unwrap();
    Client::connect(options.trust(trust)).await.unwrap().0
}

async fn publish(seen: Arc<Seen>, client: Client) {
    for watched in seen.channels.iter().cycle() {
        if seen.is_over.load(SeqCst) {
            return;
        }
        let began = Instant::now();
        let text = Text::parse("seen").unwrap();
        let change = client.send_text(watched.channel, text).await.unwrap();
        watched.acked.store(change.seq.unwrap().get(), SeqCst);
        seen.took.lock().unwrap().push(began.elapsed());
        sleep(Duration::from_millis(5)).await; // one of many, not the load
    }
}

async fn read(seen: Arc<Seen>, client: Client) {
    for watched in seen.channels.iter().cycle() {
        if seen.is_over.load(SeqCst) {
            return;
        }
        let acked = watched.acked.load(SeqCst);
        let channel = watched.channel;
        let newest = History { channel, before: None, after: None, around: None, limit: Some(1) };
        let page = client.history(newest).await.unwrap();
        let found = page.messages.last().map_or(0, |message| message.seq.get());
        assert!(found >= acked, "{channel:?}: {acked} was acknowledged, a read shows {found}");
        seen.reads.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(5)).await;
    }
}

async fn knock(seen: Arc<Seen>, client: Client) {
    for channel in seen.archived.iter().cycle() {
        if seen.is_over.load(SeqCst) {
            return;
        }
        let text = Text::parse("let me in").unwrap();
        let refused = client.send_text(*channel, text).await;
        let Err(Error::Refused(refusal)) = &refused else { panic!("{channel:?}: {refused:?}") };
        assert_eq!(refusal.code, ErrorCode::ChannelArchived.number(), "{channel:?}: {refusal:?}");
        seen.refusals.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(50)).await;
    }
}

//! How long a channel stands still when something fails: the longest time, over all partitions,
//! between two acknowledgements and between two events, around each fault.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chappe_client::{Client, Events, Update};
use chappe_protocol::ChannelId;
use chappe_tests::{
    cluster::{Cluster, Part},
    services,
};
use tokio::{task::JoinHandle, time::sleep};

use crate::scene::{Scene, text};

/// Between an acknowledgement and the next publish of its channel: fine enough for gaps of a
/// second, and little enough that the processors of a small machine are not what is measured.
const PACE: Duration = Duration::from_millis(50);
/// What goes on before the next fault.
const CALM: Duration = Duration::from_secs(3);

pub(crate) async fn run(cluster: &mut Cluster, scene: &Scene) {
    let watch = Watch::start(cluster, scene).await;
    println!("gaps: the longest time between two acknowledgements, and events, of a channel");
    let mut handed_over = Vec::new();
    for turn in 0..10 {
        let broker = cluster.of(Part::Broker)[turn % 3];
        handed_over.push(watch.around("a broker leaves", cluster.stop(broker)).await);
        handed_over.push(
            watch
                .around("a broker joins", async {
                    cluster.spawn(broker);
                    cluster.ready(broker).await;
                    while cluster.leads(broker).await == 0 {
                        sleep(Duration::from_millis(50)).await;
                    }
                })
                .await,
        );
    }
    worst("planned hand-over (goal 1 s)", &handed_over);
    let mut killed = Vec::new();
    for turn in 0..6 {
        let broker = cluster.of(Part::Broker)[turn % 3];
        killed.push(
            watch
                .around("leader killed", async {
                    cluster.kill(broker).await;
                    watch.all_go_on().await;
                    cluster.spawn(broker);
                    cluster.ready(broker).await;
                })
                .await,
        );
    }
    worst("leader killed (goal 10 s)", &killed);
    let mut nodes = Vec::new();
    for node in ["1", "2", "3"] {
        nodes.push(
            watch
                .around("Kafka node killed", async {
                    services::run("kafka", &["kill", node]).await;
                    watch.all_go_on().await;
                    services::run("kafka", &["start", node]).await;
                })
                .await,
        );
        // Two at a time are more than three copies bear.
        services::replicated().await;
    }
    worst("Kafka node killed (goal 10 s)", &nodes);
    watch.end().await;
}

fn worst(name: &str, gaps: &[(Duration, Duration)]) {
    let acks = gaps.iter().map(|(acks, _)| *acks).max().unwrap_or_default();
    let events = gaps.iter().map(|(_, events)| *events).max().unwrap_or_default();
    let count = gaps.len();
    println!(
        "{name}: at most {acks:.2?} without an acknowledgement, {events:.2?} without an event, of {count}"
    );
}

/// One message after the other on every channel, and who hears them.
struct Watch {
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
    _listener: Client,
}

struct Seen {
    channels: Vec<ChannelId>,
    is_over: AtomicBool,
    acks: Vec<Mutex<Line>>,
    events: Vec<Mutex<Line>>,
}

/// When something came last, and the longest time between two.
struct Line {
    last: Instant,
    longest: Duration,
    count: u64,
}

impl Line {
    fn comes(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        self.count += 1;
    }
}

impl Watch {
    async fn start(cluster: &Cluster, scene: &Scene) -> Self {
        let line = || Mutex::new(Line { last: Instant::now(), longest: Duration::ZERO, count: 0 });
        let lines = || scene.channels.iter().map(|_| line()).collect();
        let seen = Arc::new(Seen {
            channels: scene.channels.clone(),
            is_over: AtomicBool::new(false),
            acks: lines(),
            events: lines(),
        });
        let publisher = scene.client(cluster, 0).await;
        let (listener, events) = scene.listener(cluster, 1).await;
        let mut tasks = vec![tokio::spawn(hear(Arc::clone(&seen), events))];
        for index in 0..seen.channels.len() {
            tasks.push(tokio::spawn(publish(Arc::clone(&seen), publisher.clone(), index)));
        }
        Self { seen, tasks, _listener: listener }
    }

    /// The longest gaps while something is done.
    async fn around(&self, what: &str, done: impl Future<Output = ()>) -> (Duration, Duration) {
        sleep(CALM).await;
        for line in self.seen.acks.iter().chain(&self.seen.events) {
            line.lock().unwrap().longest = Duration::ZERO;
        }
        done.await;
        self.all_go_on().await;
        let longest = |lines: &[Mutex<Line>]| {
            lines.iter().map(|line| line.lock().unwrap().longest).max().unwrap_or_default()
        };
        let gaps = (longest(&self.seen.acks), longest(&self.seen.events));
        println!("  {what}: {:.2?}, {:.2?}", gaps.0, gaps.1);
        gaps
    }

    /// Waits until more came on every channel.
    async fn all_go_on(&self) {
        for line in self.seen.acks.iter().chain(&self.seen.events) {
            let wanted = line.lock().unwrap().count + 3;
            while line.lock().unwrap().count < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn end(self) {
        self.seen.is_over.store(true, Relaxed);
        for task in self.tasks {
            task.abort();
        }
    }
}

async fn publish(seen: Arc<Seen>, client: Client, index: usize) {
    while !seen.is_over.load(Relaxed) {
        client.send_text(seen.channels[index], text()).await.unwrap();
        seen.acks[index].lock().unwrap().comes();
        sleep(PACE).await;
    }
}

async fn hear(seen: Arc<Seen>, mut events: Events) {
    while let Some(update) = events.next().await {
        if let Update::Event(event) = update
            && let Some(index) = seen.channels.iter().position(|id| *id == event.channel)
        {
            seen.events[index].lock().unwrap().comes();
        }
    }
}

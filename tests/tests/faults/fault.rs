//! The faults: what is done, and what makes it good again.

use std::time::{Duration, Instant};

use chappe_tests::{
    cluster::{Cluster, Part},
    relay::Relay,
    services,
};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{load::Load, witness::Witness};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    LeaderKilled,
    GatewayKilled,
    KafkaNodeKilled,
    /// For longer than its session, with publishes and reads queued into it.
    LeaderFrozen,
    /// The brokers' way to Kafka, not the gateways' way to it.
    LeaderCutOff,
    GatewayFrozen,
    RedisDown,
    StoreDown,
    BlobsDown,
    RollingRestart,
}

/// What a fault is done to, and who watches.
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) relay: &'a Relay,
    pub(crate) loads: &'a mut [Load; 2],
    pub(crate) witness: &'a Witness,
    pub(crate) lengths: Lengths,
    /// What both loads had acknowledged when it began, and from then until it was made good.
    pub(crate) acked_before: usize,
    pub(crate) acked_meanwhile: usize,
}

impl Scene<'_> {
    /// It is about to be made good.
    fn heals(&mut self) {
        self.acked_meanwhile = Load::acked_by(self.loads) - self.acked_before;
    }
}

/// How long faults last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// What is frozen or cut off.
    pub(crate) outage: Duration,
    /// The store.
    pub(crate) store_outage: Duration,
    /// Publishes whose times are compared with and without Redis; too few say nothing, so none.
    pub(crate) timed: Option<usize>,
}

/// A frozen gateway's pipes at the brokers end within their limit, 16 MiB for each of its shards,
/// after 4 s; the rest is what a process grows by meanwhile.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::LeaderKilled,
        Self::GatewayKilled,
        Self::KafkaNodeKilled,
        Self::LeaderFrozen,
        Self::LeaderCutOff,
        Self::GatewayFrozen,
        Self::RedisDown,
        Self::StoreDown,
        Self::BlobsDown,
        Self::RollingRestart,
    ];

    /// Does it and makes it good. Returns how long it took from the beginning of the fault until
    /// both loads were acknowledged again.
    pub(crate) async fn inject(self, scene: &mut Scene<'_>) -> Duration {
        let began = Instant::now();
        match self {
            Self::LeaderKilled => return leader_killed(scene).await,
            Self::KafkaNodeKilled => return kafka_node_killed(scene).await,
            Self::GatewayKilled => gateways_killed(scene).await,
            Self::LeaderFrozen => {
                let leader = leader(scene.cluster).await;
                freeze(scene, leader).await;
            }
            Self::GatewayFrozen => gateway_frozen(scene).await,
            Self::LeaderCutOff => leader_cut_off(scene).await,
            Self::RedisDown => redis_down(scene).await,
            Self::StoreDown => {
                let paused = services::pause("cql", &["1"]).await;
                goes_on(scene.loads).await;
                sleep(scene.lengths.store_outage).await;
                scene.heals();
                paused.resume();
            }
            Self::BlobsDown => {
                let paused = services::pause("s3", &[]).await;
                goes_on(scene.loads).await;
                scene.cluster.assert_ready().await;
                scene.heals();
                paused.resume();
            }
            Self::RollingRestart => rolling_restart(scene).await,
        }
        goes_on(scene.loads).await;
        began.elapsed()
    }
}

/// The brokers keep no more for a gateway that reads nothing than its pipes may hold.
async fn gateway_frozen(scene: &mut Scene<'_>) {
    let before = scene.cluster.resident(Part::Broker);
    // The load over QUIC does not meet it.
    freeze(scene, scene.cluster.of(Part::Ws)[1]).await;
    let after = scene.cluster.resident(Part::Broker);
    let grown = after.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the brokers grew by {grown} bytes");
}

/// Nothing waits for presence.
async fn redis_down(scene: &mut Scene<'_>) {
    let before = p99(scene).await;
    let paused = services::pause("redis", &[]).await;
    goes_on(scene.loads).await;
    scene.cluster.assert_ready().await;
    let mut without = p99(scene).await;
    for _ in 1..WINDOWS_MAX {
        if without <= before.map(|time| 2 * time) {
            break;
        }
        without = without.min(p99(scene).await);
    }
    scene.heals();
    paused.resume();
    if let (Some(before), Some(without), Some(after)) = (before, without, p99(scene).await) {
        println!("p99 of publishes: {before:?}, without Redis {without:?}, then {after:?}");
        assert!(without <= 2 * before.max(after), "{without:?} without Redis");
    }
}

/// The 99th percentile of the next publishes, where there are enough to tell.
async fn p99(scene: &Scene<'_>) -> Option<Duration> {
    let count = scene.lengths.timed?;
    let times = scene.witness.latencies(count).await;
    Some(times[times.len() * 99 / 100])
}

/// Who waits for Redis waits in every window. What else disturbs a few publishes (an election of
/// Kafka's on a busy machine takes seconds) does not.
const WINDOWS_MAX: usize = 3;

async fn leader_killed(scene: &mut Scene<'_>) -> Duration {
    let began = Instant::now();
    let leader = leader(scene.cluster).await;
    scene.cluster.kill(leader).await;
    goes_on(scene.loads).await;
    let healed = began.elapsed();
    scene.heals();
    scene.cluster.spawn(leader);
    scene.cluster.ready(leader).await;
    healed
}

async fn kafka_node_killed(scene: &mut Scene<'_>) -> Duration {
    let began = Instant::now();
    services::run("kafka", &["kill", "2"]).await;
    goes_on(scene.loads).await;
    let healed = began.elapsed();
    scene.heals();
    services::run("kafka", &["start", "2"]).await;
    // The next fault is to meet three copies again.
    services::replicated().await;
    healed
}

async fn gateways_killed(scene: &mut Scene<'_>) {
    for gateway in [scene.cluster.of(Part::Ws)[0], scene.cluster.of(Part::Quic)[0]] {
        scene.cluster.kill(gateway).await;
        scene.cluster.spawn(gateway);
        scene.cluster.ready(gateway).await;
    }
    scene.heals();
}

async fn freeze(scene: &mut Scene<'_>, node: usize) {
    scene.cluster.signal(node, Signal::STOP);
    sleep(scene.lengths.outage).await;
    scene.heals();
    scene.cluster.signal(node, Signal::CONT);
}

/// The broker behind the relay.
async fn leader_cut_off(scene: &mut Scene<'_>) {
    let behind = scene.cluster.of(Part::Broker)[2];
    while scene.cluster.leads(behind).await == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    scene.relay.set_cut(true);
    sleep(scene.lengths.outage).await;
    scene.heals();
    scene.relay.set_cut(false);
}

async fn rolling_restart(scene: &mut Scene<'_>) {
    for node in 0..scene.cluster.nodes.len() {
        scene.cluster.stop(node).await;
        scene.cluster.spawn(node);
        scene.cluster.ready(node).await;
    }
    scene.heals();
}

/// A broker that leads something, and is not behind the relay.
async fn leader(cluster: &Cluster) -> usize {
    loop {
        for broker in &cluster.of(Part::Broker)[..2] {
            if cluster.leads(*broker).await > 0 {
                return *broker;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Both loads are acknowledged again.
async fn goes_on(loads: &mut [Load; 2]) {
    for load in loads {
        load.acks_more(20).await;
    }
}

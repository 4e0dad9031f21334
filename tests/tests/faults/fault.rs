//! The faults: what is done, and what makes it good again.

use std::time::{Duration, Instant};

use chappe_tests::{
    cluster::{Cluster, Part},
    services,
};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{load::Load, relay::Relay};

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
    RollingRestart,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::LeaderKilled,
        Self::GatewayKilled,
        Self::KafkaNodeKilled,
        Self::LeaderFrozen,
        Self::LeaderCutOff,
        Self::GatewayFrozen,
        Self::RedisDown,
        Self::StoreDown,
        Self::RollingRestart,
    ];

    /// Does it and makes it good. Returns how long it took from the beginning of the fault until
    /// both loads were acknowledged again.
    pub(crate) async fn inject(
        self,
        cluster: &mut Cluster,
        relay: &Relay,
        outage: Duration,
        loads: &mut [Load; 2],
    ) -> Duration {
        let began = Instant::now();
        match self {
            Self::LeaderKilled => return leader_killed(cluster, loads).await,
            Self::KafkaNodeKilled => return kafka_node_killed(loads).await,
            Self::GatewayKilled => gateways_killed(cluster).await,
            Self::LeaderFrozen => {
                let leader = leader(cluster).await;
                freeze(cluster, leader, outage).await;
            }
            Self::GatewayFrozen => freeze(cluster, cluster.of(Part::Ws)[1], outage).await,
            Self::LeaderCutOff => leader_cut_off(cluster, relay, outage).await,
            Self::RedisDown => {
                services::run("redis", &["pause"]).await;
                goes_on(loads).await;
                services::run("redis", &["resume"]).await;
            }
            Self::StoreDown => {
                services::run("cql", &["pause", "1"]).await;
                goes_on(loads).await;
                sleep(outage).await;
                services::run("cql", &["resume", "1"]).await;
            }
            Self::RollingRestart => rolling_restart(cluster).await,
        }
        goes_on(loads).await;
        began.elapsed()
    }
}

async fn leader_killed(cluster: &mut Cluster, loads: &mut [Load; 2]) -> Duration {
    let began = Instant::now();
    let leader = leader(cluster).await;
    cluster.kill(leader).await;
    goes_on(loads).await;
    let healed = began.elapsed();
    cluster.spawn(leader);
    cluster.ready(leader).await;
    healed
}

async fn kafka_node_killed(loads: &mut [Load; 2]) -> Duration {
    let began = Instant::now();
    services::run("kafka", &["kill", "2"]).await;
    goes_on(loads).await;
    let healed = began.elapsed();
    services::run("kafka", &["start", "2"]).await;
    healed
}

async fn gateways_killed(cluster: &mut Cluster) {
    for gateway in [cluster.of(Part::Ws)[0], cluster.of(Part::Quic)[0]] {
        cluster.kill(gateway).await;
        cluster.spawn(gateway);
        cluster.ready(gateway).await;
    }
}

async fn freeze(cluster: &Cluster, node: usize, outage: Duration) {
    cluster.signal(node, Signal::STOP);
    sleep(outage).await;
    cluster.signal(node, Signal::CONT);
}

/// The broker behind the relay.
async fn leader_cut_off(cluster: &Cluster, relay: &Relay, outage: Duration) {
    let behind = cluster.of(Part::Broker)[2];
    while cluster.leads(behind).await == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    relay.set_cut(true);
    sleep(outage).await;
    relay.set_cut(false);
}

async fn rolling_restart(cluster: &mut Cluster) {
    for node in 0..cluster.nodes.len() {
        cluster.stop(node).await;
        cluster.spawn(node);
        cluster.ready(node).await;
    }
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

//! Faults under load: processes, nodes and servers are killed, frozen and cut off while
//! `chappe-load chat` publishes over WebSocket and QUIC, and afterwards every acknowledged message
//! is there once and in order.
//!
//! Each fault once, in a short form. `CHAPPE_CHAOS_ROUNDS` draws that many from `CHAPPE_CHAOS_SEED`,
//! from `CHAPPE_CHAOS_FROM` on, and freezes for longer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod fault;
mod load;
mod relay;

use std::time::{Duration, Instant};

use chappe_tests::cluster::{Cluster, Part};

use fault::Fault;
use load::Load;
use relay::Relay;

/// Counts that a run must have raised: a fault that left no trace was none.
const RAISED: [&str; 6] = [
    "chappe_broker_voided_records_total",
    "chappe_broker_depositions_total",
    "chappe_broker_given_back_total",
    "chappe_broker_repeated_commands_total",
    "chappe_broker_suspended_answers_total",
    "chappe_gateway_reattaches_total",
];

struct Plan {
    faults: Vec<(usize, Fault)>,
    /// How long what is frozen or down stays so.
    outage: Duration,
    /// Every fault is among them.
    is_complete: bool,
}

impl Plan {
    fn read() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let Some(rounds) = number("CHAPPE_CHAOS_ROUNDS") else {
            let faults = Fault::ALL.into_iter().enumerate().collect();
            return Self { faults, outage: Duration::from_secs(9), is_complete: true };
        };
        let seed = number("CHAPPE_CHAOS_SEED").unwrap_or(1);
        let from = number("CHAPPE_CHAOS_FROM").unwrap_or(0);
        // Every fault in turn, so that the slow ones come too, in an order that the seed gives.
        let faults = (from..rounds).map(|round| {
            let step = [1, 3, 5, 7][(seed % 4) as usize];
            let at = (seed + round * step) % Fault::ALL.len() as u64;
            (round as usize, Fault::ALL[at as usize])
        });
        println!("chaos: rounds {from} to {rounds}, CHAPPE_CHAOS_SEED={seed}");
        let is_complete = rounds >= from + Fault::ALL.len() as u64;
        Self { faults: faults.collect(), outage: Duration::from_secs(30), is_complete }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_repeated_or_reordered_by_any_fault() {
    let plan = Plan::read();
    let relay = Relay::start().await;
    let addresses = relay.addresses();
    // The third broker reaches Kafka over the relay, and can be cut off from it alone.
    let mut cluster = Cluster::start(|index| (index == 2).then(|| addresses.clone())).await;
    assert_replicated(&cluster).await;
    let (mut acked, mut retried) = (0, 0);
    for (round, fault) in &plan.faults {
        let (round, fault) = (*round, *fault);
        let started = Instant::now();
        let ws = cluster.of(Part::Ws);
        let urls = ws.iter().map(|index| format!("ws://{}", cluster.nodes[*index].listen));
        let urls: Vec<_> = urls.collect();
        let quic = cluster.nodes[cluster.of(Part::Quic)[0]].listen;
        let mut loads = [
            Load::start(&cluster, round, "ws", &urls),
            Load::start(&cluster, round, "quic", &[format!("quic://{quic}")]),
        ];
        for load in &mut loads {
            load.acks_more(50).await;
        }
        let healed = fault.inject(&mut cluster, &relay, plan.outage, &mut loads).await;
        for load in &mut loads {
            let totals = load.end(&cluster, &format!("round {round}, {fault:?}")).await;
            acked += totals.acked;
            retried += totals.retried;
        }
        println!(
            "round {round}: {fault:?}, {:.1} s until both were acknowledged again, {:.1} s in all",
            healed.as_secs_f64(),
            started.elapsed().as_secs_f64(),
        );
    }
    let mut counts = Vec::new();
    for name in RAISED {
        counts.push((name, cluster.count(name).await));
    }
    println!("{acked} acked, {retried} retried; {counts:?}");
    if !plan.is_complete {
        return;
    }
    assert!(acked > 0 && retried > 0, "faults without doubt prove nothing");
    for (name, count) in counts {
        assert!(count > 0.0, "{name} stayed 0");
    }
}

/// The topic is as safe as the claims about it.
async fn assert_replicated(cluster: &Cluster) {
    let topics = format!("{}/kafka", chappe_tests::services::given("SERVICES"));
    let mut describe = tokio::process::Command::new(topics);
    describe.args(["topics", "--describe", "--topic", cluster.topic()]);
    let said = String::from_utf8(describe.output().await.unwrap().stdout).unwrap();
    assert!(said.contains("ReplicationFactor: 3"), "{said}");
    assert!(said.contains("min.insync.replicas=2"), "{said}");
}

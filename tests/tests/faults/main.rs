//! Faults under load: processes, nodes and servers are killed, frozen and cut off while
//! `chappe-load chat` publishes over WebSocket and QUIC, and afterwards every acknowledged message
//! is there once and in order.
//!
//! Each fault once, in a short form. `CHAPPE_CHAOS_ROUNDS` draws that many from `CHAPPE_CHAOS_SEED`,
//! from `CHAPPE_CHAOS_FROM` on, and freezes for longer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod fault;
mod load;
mod witness;

use std::time::{Duration, Instant};

use chappe_tests::{
    cluster::{Cluster, Part},
    relay::Relay,
};

use fault::{Fault, Lengths, Scene};
use load::Load;
use witness::Witness;

/// Counts that a run must have raised: a fault that left no trace was none.
const RAISED: [&str; 8] = [
    "chappe_broker_voided_records_total",
    "chappe_broker_depositions_total",
    "chappe_broker_given_back_total",
    "chappe_broker_repeated_commands_total",
    "chappe_broker_suspended_answers_total",
    "chappe_gateway_reattaches_total",
    "chappe_gateway_resumes_total",
    "chappe_gateway_refusals_total",
];

struct Plan {
    faults: Vec<(usize, Fault)>,
    lengths: Lengths,
    /// Every fault is among them.
    is_complete: bool,
}

impl Plan {
    fn read() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let (outage, long) = (Duration::from_secs(9), Duration::from_secs(30));
        let Some(rounds) = number("CHAPPE_CHAOS_ROUNDS") else {
            let faults = Fault::ALL.into_iter().enumerate().collect();
            let lengths = Lengths { outage, store_outage: outage, timed: None };
            return Self { faults, lengths, is_complete: true };
        };
        let seed = number("CHAPPE_CHAOS_SEED").unwrap_or(1);
        let from = number("CHAPPE_CHAOS_FROM").unwrap_or(0);
        let faults = (from..rounds).map(|round| (round as usize, drawn(seed, round)));
        println!("chaos: rounds {from} to {rounds}, CHAPPE_CHAOS_SEED={seed}");
        let is_complete = rounds >= from + 2 * Fault::ALL.len() as u64;
        let lengths = Lengths { outage: long, store_outage: 2 * long, timed: Some(300) };
        Self { faults: faults.collect(), lengths, is_complete }
    }
}

/// Each fault once in as many rounds as there are faults, in an order that the seed and the turn
/// give: any round can be the first.
fn drawn(seed: u64, round: u64) -> Fault {
    let count = Fault::ALL.len() as u64;
    let (turn, place) = (round / count, (round % count) as usize);
    let mut order = Fault::ALL;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(turn + 1);
    for last in (1..order.len()).rev() {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
    order[place]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_repeated_or_reordered_by_any_fault() {
    let plan = Plan::read();
    let relay = Relay::start().await;
    let addresses = relay.addresses();
    // The third broker reaches Kafka over the relay, and can be cut off from it alone.
    let mut cluster = Cluster::plan().kafka_of(2, &addresses).start().await;
    assert_replicated(&cluster).await;
    let mut witness = Witness::start(&cluster).await;
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
        let (reads, refusals) = (witness.reads(), witness.refusals());
        let acked_before = Load::acked_by(&loads);
        let mut scene = Scene {
            cluster: &mut cluster,
            relay: &relay,
            loads: &mut loads,
            witness: &witness,
            lengths: plan.lengths,
            acked_before,
            acked_meanwhile: 0,
        };
        let healed = fault.inject(&mut scene).await;
        let meanwhile = scene.acked_meanwhile;
        assert!(
            meanwhile > 0,
            "round {round}, {fault:?}: nothing was acknowledged while it lasted"
        );
        let (reads, refusals) = (witness.reads() - reads, witness.refusals() - refusals);
        witness.create().await;
        for load in &mut loads {
            let totals = load.end(&cluster, &format!("round {round}, {fault:?}")).await;
            acked += totals.acked;
            retried += totals.retried;
        }
        println!(
            "round {round}: {fault:?}, {:.1} s until both were acknowledged again, {meanwhile} acked \
             before it was made good, {reads} reads and {refusals} refusals meanwhile, {:.1} s in all",
            healed.as_secs_f64(),
            started.elapsed().as_secs_f64(),
        );
    }
    let mut counts = Vec::new();
    for name in RAISED {
        counts.push((name, cluster.count(name).await));
    }
    let (reads, refusals) = (witness.reads(), witness.refusals());
    witness.end().await;
    println!("{acked} acked, {retried} retried, {reads} reads, {refusals} refusals; {counts:?}");
    if !plan.is_complete {
        return;
    }
    let witnessed = acked > 0 && retried > 0 && reads > 0 && refusals > 0;
    assert!(witnessed, "faults without doubt prove nothing");
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

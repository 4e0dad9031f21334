//! Acknowledged publishes with a fixed number in flight, against the floor, in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chappe_client::Client;
use chappe_tests::cluster::{Cluster, Part};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    floor::{Floor, record_bytes},
    scene::{Scene, text},
};

const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(6);
const CLIENTS: usize = 4;
const IN_FLIGHT_EACH: usize = 64;

pub(crate) async fn run(cluster: &Cluster, scene: &Scene) {
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        clients.push(scene.client(cluster, index % 2).await);
    }
    publish(scene, &clients, Duration::from_secs(2)).await; // leaders know their channels now
    drained(cluster).await;
    let (floor, bytes) = (Floor::new().await, record_bytes(cluster.topic()));
    let in_flight = CLIENTS * IN_FLIGHT_EACH;
    println!("publish: {in_flight} in flight, records of {bytes} bytes, {LENGTH:?} a round");
    let (mut floors, mut ours, mut sustained) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (acked, took) = tokio::task::block_in_place(|| floor.publish(bytes, in_flight, LENGTH));
        floors.push(acked as f64 / took.as_secs_f64());
        let cpu = cluster.cpu(Part::Broker);
        let (acked, took) = publish(scene, &clients, LENGTH).await;
        let (behind, began) = (unprojected(cluster).await, Instant::now());
        drained(cluster).await;
        let cpu = (cluster.cpu(Part::Broker) - cpu).as_secs_f64() * 1e6 / acked as f64;
        ours.push(acked as f64 / took.as_secs_f64());
        sustained.push(acked as f64 / (took + began.elapsed()).as_secs_f64());
        println!(
            "  round {round}: floor {:.0}/s, ours {:.0}/s, ratio {:.2}; {behind} of {acked} not \
             projected at its end, {:.0}/s with their projection; {cpu:.0} µs of the brokers' CPU each",
            floors[round],
            ours[round],
            ours[round] / floors[round],
            sustained[round],
        );
    }
    let best = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    println!(
        "publish: floor {:.0}/s, ours {:.0}/s, ratio {:.2} (goal 0.7); sustained {:.0}/s",
        best(&floors),
        best(&ours),
        best(&ours) / best(&floors),
        best(&sustained),
    );
}

/// Keeps so many in flight for so long. Returns what was acknowledged, and how long that took.
async fn publish(scene: &Scene, clients: &[Client], length: Duration) -> (u64, Duration) {
    let (started, acked) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        for lane in 0..IN_FLIGHT_EACH {
            let channel = scene.channels[(index + lane) % scene.channels.len()];
            let (client, acked) = (client.clone(), Arc::clone(&acked));
            tasks.push(tokio::spawn(async move {
                while started.elapsed() < length {
                    client.send_text(channel, text()).await.unwrap();
                    acked.fetch_add(1, Relaxed);
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    (acked.load(Relaxed), started.elapsed())
}

/// How many records the store lacks.
async fn unprojected(cluster: &Cluster) -> u64 {
    let shown = cluster.run(&["cluster", "--json"]).await;
    let report: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let of = |broker: &Value| broker["unprojected_records"].as_u64().unwrap();
    report["brokers"].as_array().unwrap().iter().map(of).sum()
}

/// Waits until the store has everything.
async fn drained(cluster: &Cluster) {
    while unprojected(cluster).await > 0 {
        sleep(Duration::from_millis(50)).await;
    }
}

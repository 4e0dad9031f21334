//! What Chappe adds to the log's own acknowledgement, one message at a time: from the publisher's
//! command at one gateway to the event at a subscriber of the other.

use std::time::{Duration, Instant};

use chappe_client::Update;
use chappe_tests::cluster::Cluster;
use tokio::time::timeout;

use crate::{
    floor::{Floor, record_bytes},
    scene::{Scene, text},
};

const BLOCKS: usize = 6;
const BLOCK: usize = 100;

pub(crate) async fn run(cluster: &Cluster, scene: &Scene) {
    let publisher = scene.client(cluster, 0).await;
    let (_listener, mut events) = scene.listener(cluster, 1).await;
    for _ in 0..BLOCK {
        publisher.send_text(scene.channels[0], text()).await.unwrap(); // whose records are weighed
    }
    let (floor, bytes) = (Floor::new().await, record_bytes(cluster.topic()));
    let (mut bare, mut acked, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        for _ in 0..BLOCK {
            bare.push(tokio::task::block_in_place(|| floor.publish_one(bytes)));
        }
        for turn in 0..BLOCK {
            let channel = scene.channels[turn % scene.channels.len()];
            let began = Instant::now();
            let publish = publisher.send_text(channel, text());
            let hear = async {
                loop {
                    match events.next().await {
                        Some(Update::Event(event)) if event.channel == channel => break,
                        Some(_) => {}
                        None => panic!("the subscriber has ended"),
                    }
                }
                began.elapsed()
            };
            let both = async {
                let publish = async {
                    publish.await.unwrap();
                    began.elapsed()
                };
                tokio::join!(publish, hear)
            };
            let (ok, event) = timeout(Duration::from_secs(30), both).await.expect("it arrives");
            acked.push(ok);
            heard.push(event);
        }
    }
    println!("latency: one at a time, {} each, records of {bytes} bytes", BLOCKS * BLOCK);
    for (name, all) in
        [("bare acknowledgement", &mut bare), ("ok", &mut acked), ("event", &mut heard)]
    {
        all.sort_unstable();
        let at = |share: usize| all[all.len() * share / 100].as_secs_f64() * 1e3;
        println!("  {name}: median {:.2} ms, p90 {:.2} ms, p99 {:.2} ms", at(50), at(90), at(99));
    }
}

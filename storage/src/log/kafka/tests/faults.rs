//! A node is killed while records are appended.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::timeout;

use super::{Topic, storm, var};
use crate::log::kafka::KafkaLog;
use crate::log::{AppendRefused, Bounds, Log, Offset};

const PARTITIONS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a node again, also when its test failed.
struct Killed;

impl Drop for Killed {
    fn drop(&mut self) {
        kafka("start");
    }
}

/// Does something with node 3.
fn kafka(what: &str) {
    let mut kafka = Command::new(format!("{}/kafka", var("CHAPPE_TEST_SERVICES")));
    let done = kafka.args([what, "3"]).output().unwrap();
    assert!(done.status.success(), "{what}: {done:?}");
}

/// Waits until all replicas of a topic are in sync.
fn await_replicas(topic: &Topic) {
    let consumer: BaseConsumer = topic.config().connection.client().create().unwrap();
    let begin = Instant::now();
    loop {
        let metadata = consumer.fetch_metadata(Some(&topic.name), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions();
        if partitions.iter().all(|partition| partition.isr().len() == 3) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "the node does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_leaves_the_log_dense_and_in_order_and_every_append_answered_once() {
    let _storm = storm().await;
    let topic = Topic::with(PARTITIONS, 3, &[("min.insync.replicas", "2")]).await;
    let log = KafkaLog::open(topic.config()).await.unwrap();
    let (mut appender, mut acks) = log.appender();
    let (mut accepted, mut told) = (vec![0_u64; PARTITIONS as usize], 0_u64);
    let mut acked = vec![Vec::new(); PARTITIONS as usize];
    let begin = Instant::now();
    let mut killed = None;
    let mut died = None;
    let mut since_kill = 0;
    // Until every partition has been appended to, and acknowledged, after the kill.
    while since_kill < 600 {
        if killed.is_none() && told > 1000 {
            killed = Some(tokio::task::spawn_blocking(|| kafka("kill")));
        }
        if let Some(kill) = killed.as_ref().filter(|kill| kill.is_finished())
            && died.is_none()
        {
            assert!(kill.is_finished());
            died = Some((Killed, accepted.clone()));
        }
        for partition in 0..PARTITIONS {
            let n = &mut accepted[partition as usize];
            match appender.append(
                PartitionId(partition),
                *n,
                Bytes::from(format!("{partition} {n}")),
            ) {
                Ok(()) => *n += 1,
                Err(AppendRefused::Full) => {}
                Err(refused) => panic!("{refused}"),
            }
        }
        while let Ok(outcomes) = acks.try_recv() {
            for outcome in outcomes {
                told += 1;
                acked[outcome.partition.0 as usize].push((outcome.token, outcome.result));
            }
        }
        since_kill = died.as_ref().map_or(0, |(_, at)| {
            let after = acked
                .iter()
                .zip(at)
                .map(|(acked, at)| acked.len() as u64 - (*at).min(acked.len() as u64));
            after.min().unwrap_or(0)
        });
        assert!(begin.elapsed() < PATIENCE, "no way on after the kill: {since_kill}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stalled = begin.elapsed();
    let all: u64 = accepted.iter().sum();
    while told < all {
        for outcome in timeout(PATIENCE, acks.recv()).await.unwrap().unwrap() {
            told += 1;
            acked[outcome.partition.0 as usize].push((outcome.token, outcome.result));
        }
    }
    drop(appender);
    assert!(timeout(PATIENCE, acks.recv()).await.unwrap().is_none(), "an outcome too many");
    for (partition, acked) in (0..PARTITIONS).map(PartitionId).zip(acked) {
        // Once each, in order, at offsets that follow each other.
        let tokens: Vec<u64> = acked.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, (0..accepted[partition.0 as usize]).collect::<Vec<_>>());
        for (token, result) in acked {
            assert_eq!(result, Ok(Offset(token)), "after {stalled:?}");
        }
        let Bounds { end, .. } = log.bounds(partition).await.unwrap();
        assert_eq!(end, Offset(accepted[partition.0 as usize]));
        let mut next = Offset(0);
        while next < end {
            for entry in log.read(partition, next, 1 << 20).await.unwrap() {
                assert_eq!(entry.offset, next);
                assert_eq!(entry.record, format!("{partition} {next}"));
                next = next.next();
            }
        }
    }
    drop(died);
    tokio::task::spawn_blocking(move || await_replicas(&topic)).await.unwrap();
}

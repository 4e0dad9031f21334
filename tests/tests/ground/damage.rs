//! Something in the log that no version of ours wrote.

use std::{path::PathBuf, process::Stdio};

use chappe_tests::{
    Client,
    cluster::{Cluster, Part},
    services,
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{alone, channel_in_each_partition, publish};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_stopped_by_a_foreign_record_stops_no_other() {
    let _alone = alone().await;
    let cluster = Cluster::plan().start().await;
    let gateway = cluster.address(cluster.of(Part::Ws)[0]);
    let mut author = cluster.sign_in(&gateway, "author").await;
    let channels = channel_in_each_partition(&mut author).await;

    produce(cluster.topic(), "a line that is no record").await;
    // Its leader meets it when it appends, and the command that it was about is in doubt.
    let doubts = refusals(&mut author, &channels).await;
    assert_eq!(doubts.len(), 1, "one partition is stopped: {doubts:?}");
    assert_eq!(cluster.count("chappe_broker_halted_partitions_total").await, 1.0);
    let refusals = refusals(&mut author, &channels).await;
    let [error] = &refusals[..] else { panic!("one partition is stopped: {refusals:?}") };
    assert_eq!(error["name"], "unavailable", "{error}");
    let logs = cluster.of(Part::Broker).into_iter().map(|broker| cluster.log(broker));
    let logs = logs.collect::<Vec<_>>().join("\n");
    assert!(logs.contains("the partition stopped for good"), "{logs}");
    assert!(logs.contains("offset"), "{logs}");
}

/// Publishes to each channel, and returns the errors.
async fn refusals(author: &mut Client, channels: &[String]) -> Vec<Value> {
    let mut refusals = Vec::new();
    for channel in channels {
        refusals.extend(publish(author, channel, "afterwards").await.err());
    }
    refusals
}

/// Appends a record as any producer can, in a partition of Kafka's choice.
async fn produce(topic: &str, line: &str) {
    let kafka = PathBuf::from(services::given("SERVICES")).join("kafka");
    let mut producer = Command::new(kafka);
    producer.args(["produce", topic]).stdin(Stdio::piped());
    let mut producer = producer.spawn().unwrap();
    producer.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    assert!(producer.wait().await.unwrap().success());
}

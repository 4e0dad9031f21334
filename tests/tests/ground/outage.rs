//! The store stops answering while the cluster runs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chappe_tests::{
    Client,
    cluster::{Cluster, PARTITIONS, Part},
    services,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{alone, channel_in_each_partition, publish};

/// In each broker. Half of it is for clients.
const BUDGET: &str = "2 MiB";
const HALF_BYTES: usize = 1 << 20;
/// `projection_behind`.
const BEHIND: u64 = 1006;
/// A session of the brokers' group, and a busy machine.
const TAKEOVER: Duration = Duration::from_secs(60);

type Acked = BTreeMap<String, Vec<u64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_publishing_and_failover_go_on_until_half_the_budget_is_used() {
    let _alone = alone().await;
    let limit = format!("broker.unprojected_bytes_max = '{BUDGET}'");
    let mut cluster = Cluster::plan().set(&limit).start().await;
    let gateway = cluster.address(cluster.of(Part::Ws)[0]);
    let mut author = cluster.sign_in(&gateway, "author").await;
    let channels = channel_in_each_partition(&mut author).await;
    let mut acked: Acked = channels.iter().map(|channel| (channel.clone(), vec![1])).collect();

    let paused = services::pause("cql", &["1"]).await;
    for channel in &channels {
        let seq = publish(&mut author, channel, "without the store").await.unwrap();
        acked.get_mut(channel).unwrap().push(seq);
    }
    let killed = cluster.of(Part::Broker)[0];
    cluster.kill(killed).await;
    all_are_led(&cluster, &cluster.of(Part::Broker)[1..]).await;
    let (refusal, bytes) = publish_until_refused(&mut author, &channels, &mut acked).await;
    assert!(refusal["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refusal}");
    assert!(bytes >= HALF_BYTES / 2, "refused after {bytes} bytes already");
    // One that starts now waits for the store, and says so.
    cluster.spawn(killed);
    let waits = async {
        while !cluster.log(killed).contains("trying again") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TAKEOVER, waits).await.expect("it waits for the store");
    // Those that lead say why what they confirm is not stored, and when it is again.
    let leader = cluster.of(Part::Broker)[1];
    assert!(cluster.log(leader).contains("the store fails"));
    paused.resume();
    cluster.ready(killed).await;

    for channel in &channels {
        let seq = publish_again(&mut author, channel).await;
        acked.get_mut(channel).unwrap().push(seq);
    }
    for (channel, acked) in &acked {
        let found = history(&mut author, channel).await;
        assert!(found.is_sorted_by(|one, next| one < next), "{channel}: {found:?}");
        let missing: Vec<_> = acked.iter().filter(|seq| !found.contains(seq)).collect();
        assert!(missing.is_empty(), "{channel} lacks {missing:?} of {} acked", acked.len());
    }
    let ends = async {
        while !cluster.log(leader).contains("the store answers again") {
            for channel in &channels {
                publish_again(&mut author, channel).await; // what nobody asks does not answer
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(TAKEOVER, ends).await.expect("the end of it is said");
}

async fn all_are_led(cluster: &Cluster, brokers: &[usize]) {
    let waiting = async {
        loop {
            let mut led = 0;
            for broker in brokers {
                led += cluster.leads(*broker).await;
            }
            if led == PARTITIONS {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(TAKEOVER, waiting).await.expect("other brokers take over without the store");
}

/// Publishes to all channels in turn. Those whose leader is new are known to the store alone, and
/// answer with another code. Returns the refusal, and the bytes that were acknowledged before it.
async fn publish_until_refused(
    author: &mut Client,
    channels: &[String],
    acked: &mut Acked,
) -> (Value, usize) {
    let (data, mut bytes) = ("x".repeat(7_000), 0);
    let mut known: Vec<_> = channels.to_vec();
    loop {
        let mut unknown = Vec::new();
        for channel in &known {
            match publish(author, channel, &data).await {
                Ok(seq) => {
                    acked.get_mut(channel).unwrap().push(seq);
                    bytes += data.len();
                }
                Err(error) if error["code"] == BEHIND => return (error, bytes),
                Err(error) => {
                    assert!(error["code"].as_u64().unwrap() < 2_000, "{error}");
                    unknown.push(channel.clone());
                }
            }
        }
        known.retain(|channel| !unknown.contains(channel));
        assert!(!known.is_empty(), "no channel takes anything");
    }
}

/// Publishes, again and again while it is told to come back later.
async fn publish_again(author: &mut Client, channel: &str) -> u64 {
    let began = Instant::now();
    loop {
        match publish(author, channel, "with the store again").await {
            Ok(seq) => return seq,
            Err(error) if error["code"].as_u64().unwrap() < 2_000 && began.elapsed() < TAKEOVER => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{channel}: {error}"),
        }
    }
}

/// The numbers of all messages.
async fn history(author: &mut Client, channel: &str) -> Vec<u64> {
    let mut found: Vec<u64> = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or(0);
        let page = json!({"history": {"channel": channel, "after": after, "limit": 100}});
        let page = author.ask(page).await.unwrap();
        let messages = page["messages"].as_array().unwrap();
        found.extend(messages.iter().map(|message| message["seq"].as_u64().unwrap()));
        if page["more_after"] == false {
            return found;
        }
    }
}

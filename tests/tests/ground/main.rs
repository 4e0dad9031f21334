//! What a process does when something that it stands on is not there, is not as it must be, or
//! holds what cannot be read: at its start, and later.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod damage;
mod outage;
mod process;
mod roles;
mod start;

use chappe_protocol::ChannelId;
use chappe_tests::{Client, cluster, fresh};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// Servers are paused here, and all tests use the same.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Makes a channel in each partition, and publishes to it once, so that its leader knows it.
async fn channel_in_each_partition(author: &mut Client) -> Vec<String> {
    let mut channels = vec![None; cluster::PARTITIONS as usize];
    while channels.iter().any(Option::is_none) {
        // Each waits for its author's inbox; so all at once.
        let mut asked = Vec::new();
        for _ in 0..40 {
            let create = json!({"create_channel": {"kind": "public", "name": fresh("each")}});
            asked.push(author.post(create).await);
        }
        for id in asked {
            let made = author.reply(id).await.unwrap();
            let id = made["channel"].as_str().unwrap().to_owned();
            let partition = ChannelId::new(id.parse().unwrap()).partition(cluster::PARTITIONS);
            channels[partition.0 as usize].get_or_insert(id);
        }
    }
    let channels: Vec<_> = channels.into_iter().flatten().collect();
    for channel in &channels {
        publish(author, channel, "first").await.unwrap();
    }
    channels
}

/// Publishes, and returns the message's number or the error.
async fn publish(author: &mut Client, channel: &str, data: &str) -> Result<u64, Value> {
    let publish = json!({"publish": {"channel": channel, "data": {"is": data}}});
    author.ask(publish).await.map(|change| change["seq"].as_u64().unwrap())
}

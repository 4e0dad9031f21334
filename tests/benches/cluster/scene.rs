//! A channel in each partition, and clients of them.

use std::time::Duration;

use chappe_client::{Client, Events, Options, Trust};
use chappe_protocol::{
    ChannelId, ChannelName, Text,
    command::{ChannelFrom, CreateChannel},
};
use chappe_tests::{
    cluster::{Cluster, PARTITIONS, Part},
    fresh, token,
};

/// Longer than any outage.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Scene {
    /// One in each partition.
    pub(crate) channels: Vec<ChannelId>,
    /// Who made them.
    author: String,
}

impl Scene {
    pub(crate) async fn set(cluster: &Cluster) -> Self {
        let author = fresh("author");
        let (client, _) = connect(cluster, 0, &author).await;
        let mut channels = vec![None; PARTITIONS as usize];
        while channels.iter().any(Option::is_none) {
            let makes = (0..40).map(|_| {
                let (client, name) = (client.clone(), ChannelName::parse(fresh("bench")).unwrap());
                tokio::spawn(async move {
                    let create = serde_json::json!({"kind": "public", "name": name});
                    let create: CreateChannel = serde_json::from_value(create).unwrap();
                    client.create_channel(create).await.unwrap().channel
                })
            });
            for made in makes.collect::<Vec<_>>() {
                let channel = made.await.unwrap();
                channels[channel.partition(PARTITIONS).0 as usize].get_or_insert(channel);
            }
        }
        Self { channels: channels.into_iter().flatten().collect(), author }
    }

    /// A client at one of the two WebSocket gateways.
    pub(crate) async fn client(&self, cluster: &Cluster, gateway: usize) -> Client {
        connect(cluster, gateway, &self.author).await.0
    }

    /// A client that hears all channels.
    pub(crate) async fn listener(&self, cluster: &Cluster, gateway: usize) -> (Client, Events) {
        let (client, events) = connect(cluster, gateway, &self.author).await;
        let from = |id: &ChannelId| ChannelFrom { id: *id, from: None };
        client.subscribe(self.channels.iter().map(from).collect()).await.unwrap();
        (client, events)
    }
}

/// What every message says: as large as a chat message that says something.
pub(crate) fn text() -> Text {
    Text::parse("x".repeat(256)).unwrap()
}

async fn connect(cluster: &Cluster, gateway: usize, user: &str) -> (Client, Events) {
    let url = format!("ws://{}", cluster.nodes[cluster.of(Part::Ws)[gateway]].listen);
    let token = token::mint(&cluster.folder(), user);
    let options = Options::new(&url, token).unwrap().command_deadline(DEADLINE).keep_trying();
    Client::connect(options.trust(Trust::System).updates_max(65_536)).await.unwrap()
}

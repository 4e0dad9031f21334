//! Everything that a client can make a server hold has a limit, a coded answer at that limit, and
//! costs nobody else anything: who never reads, who never waits, ten thousand who do nothing, and
//! who declares a gigabyte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod crowd;
mod headers;
mod healthy;
mod memory;
mod publisher;
mod subscriber;

use std::time::Duration;

use chappe_tests::{Client, Server, Transport, fresh};
use serde_json::json;

/// How long may take what moves many megabytes or thousands of connections, on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// Waits for something large that is expected to happen, and fails with its name when it does not.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(LONG, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} did not happen in {LONG:?}"))
}

/// Makes a public channel and returns its id.
async fn make_channel(server: &Server) -> String {
    let mut founder = Client::signed_in(server, Transport::WsJson, "founder").await;
    let name = fresh("bounded-");
    let made = founder.ask(json!({"create_channel": {"kind": "public", "name": name}})).await;
    made.unwrap()["channel"].as_str().unwrap().to_owned()
}

/// Signs a user in and makes him a member of the channel.
async fn member(server: &Server, transport: Transport, user: &str, channel: &str) -> Client {
    let mut client = Client::signed_in(server, transport, user).await;
    client.ask(json!({"join": {"channel": channel}})).await.unwrap();
    client
}

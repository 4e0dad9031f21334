//! The last event of a quiet channel, lost between leader and gateway, is noticed by the leader's
//! beacon. Nothing else would tell: no later event shows the gap, and no link is cut.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::time::Duration;

use chappe_tests::{Client, Received, Server, Transport, fresh};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

const BEACON: Duration = Duration::from_millis(500);
/// For the page that brings the event, on a machine that does other things as well.
const MARGIN: Duration = Duration::from_secs(2);
/// No other channel of the test comes so far.
const LOST_REV: u64 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn the_lost_last_event_of_a_quiet_channel_arrives_with_the_beacon() {
    let server = Server::builder()
        .env("CHAPPE_TEST_UPLINK", &format!("lose_rev={LOST_REV}"))
        .set("broker.beacon", format!("'{}ms'", BEACON.as_millis()))
        // One shard has one pipe: one delivery is lost. Its clients are not pinged meanwhile.
        .set("gateway.shards", 1)
        .set("gateway.ping", "'60s'")
        .start()
        .await;
    let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
    let create = json!({"create_channel": {"kind": "public", "name": fresh("quiet-")}});
    let made = alice.ask(create).await.unwrap();
    let id = made["channel"].as_str().unwrap().to_owned();
    let mut readers = Vec::new();
    for (transport, user) in Transport::ALL.into_iter().zip(["bob", "carol", "dave"]) {
        let mut reader = Client::signed_in(&server, transport, user).await;
        let subscribe = json!({"subscribe": {"channels": [{"id": id}]}});
        assert_eq!(reader.ask(subscribe).await.unwrap()["channels"][0]["rev"], 1);
        readers.push(reader);
    }
    let mut last = 1;
    while last < LOST_REV {
        let publish = json!({"publish": {"channel": id, "text": format!("{}", last + 1)}});
        last = alice.ask(publish).await.unwrap()["rev"].as_u64().unwrap();
    }
    let published = Instant::now();

    for reader in &mut readers {
        for rev in 2..=LOST_REV {
            let transport = reader.transport();
            let deadline = published + BEACON + MARGIN;
            let event = timeout_at(deadline, reader.recv()).await;
            let Ok(Received::Frame(frame)) = event else {
                panic!("revision {rev} is not there with the beacon over {transport:?}: {event:?}")
            };
            assert_eq!(frame["event"]["rev"], rev, "{transport:?}: {frame}");
            assert_eq!(frame["event"]["body"]["message"]["text"], rev.to_string());
        }
    }
    // It did not simply come: the line lost the one delivery that there was.
    assert_eq!(server.log().matches("an event was lost on purpose").count(), 1);
    assert_eq!(server.log().matches("the line was cut").count(), 0);
    // And what is published after it comes as ever.
    let publish = json!({"publish": {"channel": id, "text": "after"}});
    alice.ask(publish).await.unwrap();
    for reader in &mut readers {
        assert_eq!(reader.event().await["rev"], LOST_REV + 1);
    }
}

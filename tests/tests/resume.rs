//! Resume: a client that was away sees exactly the revisions that it missed, on every transport,
//! after a restart too, and over a line between gateway and broker that delays and cuts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use chappe_tests::{Client, Received, Server, ServerBuilder, Transport, fresh};
use serde_json::{Value, json};

/// Every frame of the uplink is encoded and delayed, and one in so many is the pipe's last.
const BAD_LINE: &str = "seed=11,delay_us=400,cut_one_in=60";

fn bad_line() -> ServerBuilder {
    Server::builder().env("CHAPPE_TEST_UPLINK", BAD_LINE)
}

/// A command with a nonce, sent again until it is answered with something that is not a retry.
async fn insist(client: &mut Client, command: Value) -> Value {
    let mut command = command;
    command["nonce"] = fresh("n-").into();
    loop {
        match client.ask(command.clone()).await {
            Ok(ok) => return ok,
            Err(error) if error["code"].as_u64().unwrap() < 2_000 => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{command} was refused: {error}"),
        }
    }
}

/// A channel with a past of every kind. Returns its id and its last revision.
async fn eventful_channel(server: &Server, transport: Transport) -> (String, u64) {
    let mut alice = Client::signed_in(server, transport, "alice").await;
    let mut bob = Client::signed_in(server, transport, "bob").await;
    let name = fresh("eventful-");
    let made =
        insist(&mut alice, json!({"create_channel": {"kind": "public", "name": name}})).await;
    let id = made["channel"].as_str().unwrap().to_owned();
    insist(&mut bob, json!({"join": {"channel": id}})).await;
    for text in ["one", "two", "three", "four"] {
        insist(&mut alice, json!({"publish": {"channel": id, "text": text}})).await;
    }
    insist(&mut alice, json!({"edit": {"channel": id, "seq": 1, "text": "ONE"}})).await;
    insist(&mut bob, json!({"react": {"channel": id, "seq": 2, "emoji": "👍"}})).await;
    insist(&mut alice, json!({"delete": {"channel": id, "seq": 3}})).await;
    insist(&mut bob, json!({"unreact": {"channel": id, "seq": 2, "emoji": "👍"}})).await;
    insist(&mut bob, json!({"publish": {"channel": id, "data": {"k": [1, null, "x"]}}})).await;
    insist(&mut alice, json!({"update_channel": {"channel": id, "topic": "things"}})).await;
    insist(&mut bob, json!({"leave": {"channel": id}})).await;
    let last = insist(&mut alice, json!({"publish": {"channel": id, "text": "five"}})).await;
    (id, last["rev"].as_u64().unwrap())
}

/// Reads frames until the channel is live, and returns its events.
async fn catch_up(client: &mut Client, head: u64) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let mut frame = client.frame().await;
        assert!(frame.get("reset").is_none(), "nothing was lost, yet: {frame}");
        if frame.get("event").is_some() {
            events.push(frame["event"].take());
        }
        if events.last().is_some_and(|event| event["rev"] == head) {
            return events;
        }
    }
}

async fn resume(server: &Server, transport: Transport, id: &str, from: u64) -> Client {
    let cursor = json!({"incarnation": 1, "channels": [[id, from]]});
    let client = Client::resumed(server, transport, "carol", Some(cursor)).await;
    let subscribed = &client.hello["subscribed"][0];
    assert_eq!((subscribed.get("error"), &subscribed["rev"]), (None, &json!(from)), "{subscribed}");
    client
}

/// What every client must see, whenever it comes: kinds and revisions, and messages as they are
/// now.
fn check_events(events: &[Value], from: u64, head: u64) {
    let revs: Vec<_> = events.iter().map(|event| event["rev"].as_u64().unwrap()).collect();
    assert_eq!(revs, (from + 1..=head).collect::<Vec<_>>());
    let kinds = [
        "channel.created",
        "member.added",
        "message.created",
        "message.created",
        "message.created",
        "message.created",
        "message.edited",
        "reaction.added",
        "message.deleted",
        "reaction.removed",
        "message.created",
        "channel.updated",
        "member.removed",
        "message.created",
    ];
    for event in events {
        let rev = event["rev"].as_u64().unwrap() as usize;
        assert_eq!(event["kind"], kinds[rev - 1], "revision {rev}");
        let message = &event["body"]["message"];
        match event["seq"].as_u64() {
            Some(1) => assert_eq!(message["text"], "ONE", "an edited text is never seen again"),
            Some(3) => {
                assert_eq!(message["deleted"], true);
                assert_eq!(message.get("text"), None, "a deleted text is gone");
            }
            _ => {}
        }
    }
}

async fn every_cursor_resumes(mut server: Server) {
    for transport in Transport::ALL {
        let (id, head) = eventful_channel(&server, transport).await;
        assert_eq!(head, 14);
        for from in 0..head {
            let mut carol = resume(&server, transport, &id, from).await;
            check_events(&catch_up(&mut carol, head).await, from, head);
        }
        server.restart().await;
        for from in [0, 1, 6, 9, 13] {
            let mut carol = resume(&server, transport, &id, from).await;
            check_events(&catch_up(&mut carol, head).await, from, head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cursor_resumes_exactly_also_after_a_restart() {
    every_cursor_resumes(Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cursor_resumes_exactly_over_a_bad_line() {
    every_cursor_resumes(bad_line().start().await).await;
}

/// Cuts the link after each frame of a catch-up in turn; what came before and after the cut
/// together is what an uncut client sees.
async fn cut_at_every_frame(server: Server) {
    for transport in Transport::ALL {
        let (id, head) = eventful_channel(&server, transport).await;
        let uncut = catch_up(&mut resume(&server, transport, &id, 0).await, head).await;
        for cut in 0..uncut.len() {
            let mut carol = resume(&server, transport, &id, 0).await;
            let mut seen = Vec::new();
            while seen.len() < cut {
                let mut frame = carol.frame().await;
                if frame.get("event").is_some() {
                    seen.push(frame["event"].take());
                }
            }
            drop(carol); // no goodbye: the link is gone
            let held = seen.last().map_or(0, |event| event["rev"].as_u64().unwrap());
            let mut again = resume(&server, transport, &id, held).await;
            seen.extend(catch_up(&mut again, head).await);
            assert_eq!(seen, uncut, "{transport:?}, cut after {cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_at_any_frame_resumes_to_the_uncut_run() {
    cut_at_every_frame(Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_at_any_frame_resumes_over_a_bad_line() {
    cut_at_every_frame(bad_line().start().await).await;
}

/// A publisher whose link is cut at any point sends again by nonce what had no answer: each
/// message is there once and in order.
async fn publisher_cut_anywhere(server: Server) {
    for transport in Transport::ALL {
        let mut alice = Client::signed_in(&server, transport, "alice").await;
        let name = fresh("cut-");
        let made =
            insist(&mut alice, json!({"create_channel": {"kind": "public", "name": name}})).await;
        let id = made["channel"].as_str().unwrap().to_owned();
        let commands: Vec<Value> = (0..6)
            .map(|n| {
                let nonce = format!("{name}-{n}");
                json!({"nonce": nonce, "publish": {"channel": id, "text": format!("m{n}")}})
            })
            .collect();
        for cut in 0..=commands.len() {
            // All are sent; the link is gone after so many answers.
            let mut alice = Client::signed_in(&server, transport, "alice").await;
            let mut ids = Vec::new();
            for command in &commands {
                ids.push(alice.post(command.clone()).await);
            }
            for id in ids.iter().take(cut) {
                // A refusal to retry is an answer, too; the next round sends it again.
                drop(alice.reply(*id).await);
            }
            drop(alice);
        }
        let mut alice = Client::signed_in(&server, transport, "alice").await;
        for (n, command) in commands.iter().enumerate() {
            let ok = loop {
                match alice.ask(command.clone()).await {
                    Ok(ok) => break ok,
                    Err(error) => assert!(error["code"].as_u64().unwrap() < 2_000, "{error}"),
                }
            };
            assert_eq!(ok["seq"], n + 1, "the first result, however often it was sent");
        }
        let page = alice.ask(json!({"history": {"channel": id}})).await.unwrap();
        let texts: Vec<_> =
            page["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect();
        assert_eq!(texts, ["m0", "m1", "m2", "m3", "m4", "m5"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_cut_anywhere_publishes_each_message_once() {
    publisher_cut_anywhere(Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_cut_anywhere_publishes_once_over_a_bad_line() {
    publisher_cut_anywhere(bad_line().start().await).await;
}

const MISSED: u64 = 10_000;

/// As fast as it goes: the rate of one connection is not what this is about.
fn fast() -> ServerBuilder {
    Server::builder()
        .set("log.partitions", 4)
        .set("limits.rates.connection.per_second", 0)
        .set("limits.rates.user.per_second", 0)
}

/// Publishes so many messages, 64 at a time, and waits until all are durable.
async fn publish_many(client: &mut Client, channel: &str, count: u64) {
    let text = "x".repeat(200);
    let mut under_way = std::collections::VecDeque::new();
    for n in 0..count {
        if under_way.len() == 64 {
            client.reply(under_way.pop_front().unwrap()).await.unwrap();
        }
        let publish = json!({"publish": {"channel": channel, "text": format!("{n} {text}")}});
        under_way.push_back(client.post(publish).await);
    }
    for id in under_way {
        client.reply(id).await.unwrap();
    }
}

/// Older than any ring, and than the log, which was trimmed: only the projection has them.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_missed_events_come_from_the_projection_after_a_restart() {
    let builder = fast().set("log.segment_bytes", "\"2MiB\"").set("log.keep", "\"0s\"");
    let mut server = builder.start().await;
    let mut alice = Client::signed_in(&server, Transport::WsMessagePack, "alice").await;
    let name = fresh("long-");
    let made =
        insist(&mut alice, json!({"create_channel": {"kind": "public", "name": name}})).await;
    let id = made["channel"].as_str().unwrap().to_owned();
    publish_many(&mut alice, &id, MISSED).await;
    // Four partitions share the log, and three of them had nothing to say.
    let first = server.data().join("log/00000000000000000001.segment");
    chappe_tests::soon("the first segment's end", async {
        while first.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    server.restart().await;
    for transport in [Transport::WsMessagePack, Transport::Quic] {
        let mut carol = resume(&server, transport, &id, 1).await;
        let mut next = 2;
        while next <= MISSED + 1 {
            let frame = match carol.recv().await {
                Received::Frame(frame) => frame,
                Received::Closed(code) => panic!("closed with {code:?} at revision {next}"),
            };
            assert!(frame.get("reset").is_none(), "nothing was lost, yet: {frame}");
            if let Some(event) = frame.get("event") {
                assert_eq!(event["rev"], next);
                assert_eq!(event["seq"], next - 1);
                next += 1;
            }
        }
    }
}

/// Events go in whole buckets of 4,096 once they are older than what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_older_than_what_is_kept_is_reset() {
    let server = fast().set("store.keep_events", "\"0s\"").start().await;
    let mut alice = Client::signed_in(&server, Transport::WsMessagePack, "alice").await;
    let name = fresh("short-");
    let made =
        insist(&mut alice, json!({"create_channel": {"kind": "public", "name": name}})).await;
    let id = made["channel"].as_str().unwrap().to_owned();
    publish_many(&mut alice, &id, 4_200).await;
    for transport in Transport::ALL {
        // What is in a ring or was not projected yet is still served from there.
        chappe_tests::soon("a reset", async {
            loop {
                let cursor = json!({"incarnation": 1, "channels": [[id, 10]]});
                let mut carol = Client::resumed(&server, transport, "carol", Some(cursor)).await;
                let frame = carol
                    .find("how it goes on", |frame| {
                        frame.get("reset").is_some() || frame.get("event").is_some()
                    })
                    .await;
                let Some(reset) = frame.get("reset") else { continue };
                assert_eq!(reset["base"], 4_201, "{transport:?}");
                break;
            }
        })
        .await;
        let mut carol = resume(&server, transport, &id, 4_190).await;
        let event = carol.find("an event", |frame| frame.get("event").is_some()).await;
        assert_eq!(event["event"]["rev"], 4_191, "the newest bucket is kept");
    }
    // The messages stay.
    let page = json!({"history": {"channel": id, "after": 0, "limit": 2}});
    let page = alice.ask(page).await.unwrap();
    assert_eq!(page["messages"][0]["seq"], 1, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_the_head_or_of_another_incarnation_is_reset() {
    let server = Server::start().await;
    for transport in Transport::ALL {
        let (id, head) = eventful_channel(&server, transport).await;
        for (incarnation, from) in [(1, head + 1), (2, 3)] {
            let cursor = json!({"incarnation": incarnation, "channels": [[id, from]]});
            let mut carol = Client::resumed(&server, transport, "carol", Some(cursor)).await;
            let reset = carol.find("a reset", |frame| frame.get("reset").is_some()).await;
            assert_eq!(reset["reset"]["base"], head, "{transport:?}");
            assert_eq!(reset["reset"]["incarnation"], 1);
        }
    }
}

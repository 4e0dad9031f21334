//! A subscriber that never reads is told that it is slow and closed; it comes back with its cursor
//! and has missed nothing. Nobody else notices.

use chappe_protocol::ChannelId;
use chappe_tests::{Client, Received, Server, Transport, soon};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{LONG, healthy::Healthy, make_channel, member, memory::MemoryWatch};

/// Less than the default, because a test waits for it.
const SLOW: &str = "'1s'";
/// Large messages fill the sockets' buffers soon.
const FILL_BYTES: usize = 8_000;
/// Messages sent before their answers are awaited.
const BATCH: usize = 32;
/// A ring and an outbox hold this much each: what is published is far more than both.
const RING_AND_OUTBOX_BYTES: usize = 512 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_never_reads_json_is_closed_as_slow_and_loses_nothing() {
    never_reads(Transport::WsJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_never_reads_messagepack_is_closed_as_slow_and_loses_nothing() {
    never_reads(Transport::WsMessagePack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quic_connection_that_never_reads_is_closed_as_slow_and_loses_nothing() {
    never_reads(Transport::Quic).await;
}

async fn never_reads(transport: Transport) {
    let server = Server::builder().set("gateway.slow", SLOW).start().await;
    let channel = make_channel(&server).await;
    let healthy = Healthy::begin(&server, &channel).await;
    let mut slow = member(&server, transport, "slow", &channel).await;
    if transport == Transport::Quic {
        // It leaves the stream unread, and its flow control says so to the server.
        let id: ChannelId = channel.parse().unwrap();
        slow.quic().leave_unread(Some(id.partition(8).0 as u8));
    }
    let subscribe = json!({"subscribe": {"channels": [{"id": channel}]}});
    let subscribed = slow.ask(subscribe).await.unwrap();
    let from = subscribed["channels"][0]["rev"].as_u64().unwrap();

    let memory = MemoryWatch::begin(&server);
    let mut loud = member(&server, Transport::WsMessagePack, "loud", &channel).await;
    let began = Instant::now();
    let mut published = 0;
    while server.metric("chappe_gateway_slow_consumers_total").await == 0.0 {
        publish_batch(&mut loud, &channel).await;
        published += BATCH;
        assert!(began.elapsed() < LONG, "{published} messages and nobody is slow");
    }
    assert!(published * FILL_BYTES > RING_AND_OUTBOX_BYTES);

    let (mut seen, closing) = read_to_the_end(&mut slow).await;
    assert_eq!(closing, Some(4009), "its end has the code of a slow reader");
    assert!(seen.len() < published, "{} of {published} were in the buffers", seen.len());
    let outcome = healthy.end().await;
    memory.end(&format!("a subscriber that never reads, {transport:?}"));
    println!(
        "{transport:?}: closed as slow after {published} messages of {FILL_BYTES} bytes, of which \
         it read {}; {} healthy messages",
        seen.len(),
        outcome.published
    );

    let held = seen.last().map_or(from, rev);
    seen.extend(resume(&server, transport, &channel, held, outcome.events.last().unwrap()).await);
    let all = outcome.events.iter().filter(|event| rev(event) > from);
    assert!(seen.iter().eq(all), "what it read before and after is all that there was");
}

async fn publish_batch(client: &mut Client, channel: &str) {
    let mut ids = Vec::new();
    for _ in 0..BATCH {
        let data = json!({"fill": "x".repeat(FILL_BYTES)});
        ids.push(client.post(json!({"publish": {"channel": channel, "data": data}})).await);
    }
    for id in ids {
        client.reply(id).await.unwrap();
    }
}

/// Reads all that a slow reader still gets: the events, in order, then why it ends, then the end.
async fn read_to_the_end(slow: &mut Client) -> (Vec<Value>, Option<u16>) {
    if slow.transport() == Transport::Quic {
        // Its stream is unread, and control says why all the same. Only then it reads again.
        let error = slow.find("the error", |frame| frame.get("error").is_some()).await;
        check_error(&error);
        slow.quic().leave_unread(None);
    }
    soon("the end of a slow connection", async {
        let (mut events, mut told) = (Vec::new(), Vec::new());
        loop {
            match slow.recv().await {
                Received::Frame(mut frame) if frame.get("event").is_some() => {
                    events.push(frame["event"].take());
                }
                Received::Frame(frame) => told.push(frame),
                Received::Closed(code) => {
                    check_reason(slow.transport(), &told);
                    return (events, code);
                }
            }
        }
    })
    .await
}

fn check_reason(transport: Transport, told: &[Value]) {
    if transport != Transport::Quic {
        let error = told.iter().find(|frame| frame.get("error").is_some());
        check_error(error.expect("a slow reader is told"));
    }
    let closing = told.iter().find(|frame| frame.get("closing").is_some());
    let closing = &closing.expect("a closing says why")["closing"];
    assert_eq!((&closing["code"], &closing["name"]), (&json!(4009), &json!("slow")));
}

fn check_error(frame: &Value) {
    let error = &frame["error"];
    assert_eq!((&error["code"], &error["name"]), (&json!(3008), &json!("slow_consumer")));
}

async fn resume(
    server: &Server,
    transport: Transport,
    channel: &str,
    held: u64,
    last: &Value,
) -> Vec<Value> {
    let cursor = json!({"incarnation": 1, "channels": [[channel, held]]});
    let mut again = Client::resumed(server, transport, "slow", Some(cursor)).await;
    let mut events = Vec::new();
    while events.last() != Some(last) {
        events.push(again.event().await);
    }
    assert!(again.left_over().iter().all(|frame| frame.get("reset").is_none()), "nothing is lost");
    events
}

fn rev(event: &Value) -> u64 {
    event["rev"].as_u64().unwrap()
}

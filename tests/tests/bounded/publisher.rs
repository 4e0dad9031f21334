//! A publisher that never waits for its answers is refused by rate, or is not read any more, and
//! is closed with a code that says which. Nobody else notices.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chappe_tests::{Client, Received, Server, Transport, soon};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, sleep};

use crate::{healthy::Healthy, in_time, make_channel, member, memory::MemoryWatch};

/// Far more than the rate allows at once.
const FLOOD: u32 = 10_000;
const BURST: u32 = 1_000;
const PER_SECOND: u32 = 500;
/// Requests of one connection under way, and what one read may bring beyond.
const UNDER_WAY_MAX: usize = 1_024;
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What a flooding publisher was told, by the id of its command.
#[derive(Default)]
struct Told {
    acked: HashMap<u64, u64>,
    refused: Vec<(u64, Value)>,
    closing: Option<Value>,
    other: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_publisher_that_never_waits_is_closed_by_its_rate() {
    faster_than_the_rate(Transport::WsJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quic_publisher_that_never_waits_is_closed_by_its_rate() {
    faster_than_the_rate(Transport::Quic).await;
}

async fn faster_than_the_rate(transport: Transport) {
    let server = Server::builder()
        .set("limits.rates.connection.per_second", PER_SECOND)
        .set("limits.rates.connection.burst", BURST)
        .start()
        .await;
    let channel = make_channel(&server).await;
    let healthy = Healthy::begin(&server, &channel).await;
    let mut flood = member(&server, transport, "flood", &channel).await;
    let memory = MemoryWatch::begin(&server);
    for number in 0..FLOOD {
        flood.send(&publish(number, &channel)).await;
    }
    let (told, code) = read_to_the_end(&mut flood).await;
    let outcome = healthy.end().await;
    memory.end(&format!("a publisher beyond its rate, {transport:?}"));

    assert_eq!(code, Some(4008), "it is closed for its rate");
    let closing = told.closing.as_ref().expect("a closing says why");
    assert_eq!((&closing["code"], &closing["name"]), (&json!(4008), &json!("rate")));
    assert!(!told.refused.is_empty(), "before that it was told to wait");
    for (id, error) in &told.refused {
        assert_eq!((&error["code"], &error["name"]), (&json!(1030), &json!("rate_limited")));
        assert!(error["retry_after_ms"].as_u64().unwrap() > 0, "{id}: {error}");
    }
    assert!(told.other.is_empty(), "nothing else is said: {:?}", told.other);
    assert!(told.acked.len() >= BURST as usize / 2, "a burst is allowed: {}", told.acked.len());
    assert!(told.acked.len() < FLOOD as usize / 2, "and no more: {}", told.acked.len());
    check_events(&outcome.events, &told);
    println!(
        "{transport:?}: of {FLOOD} publishes {} were acknowledged and {} refused before the close; \
         {} healthy ones went through",
        told.acked.len(),
        told.refused.len(),
        outcome.published
    );
}

/// What was acknowledged is there once, what was refused is not, and the rest is in doubt.
fn check_events(events: &[Value], told: &Told) {
    let mut there = HashSet::new();
    for event in events {
        let text = event["body"]["message"]["text"].as_str().unwrap_or_default();
        let Some(number) = text.strip_prefix("flood ") else { continue };
        let number = number.parse::<u64>().unwrap();
        assert!(there.insert(number), "{number} is there once");
        let acked = told.acked.get(&number);
        assert!(acked.is_none_or(|rev| event["rev"] == *rev), "{number} is where it was said");
    }
    assert!(
        told.acked.keys().all(|number| there.contains(number)),
        "what was acknowledged is there"
    );
    assert!(told.refused.iter().all(|(number, _)| !there.contains(number)), "what was not is not");
}

/// A back end's key has no rate: only the size of what is under way and unread bounds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_without_a_rate_that_never_reads_is_not_read_either_and_closed_as_slow() {
    let key = "a key for tests";
    let digest: String =
        Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let server = Server::builder()
        .set("gateway.slow", "'1s'")
        .set("auth.development", true)
        .set("auth.api_keys", format!("[{{ name = 'flood', sha256 = '{digest}' }}]"))
        .start()
        .await;
    let healthy = Healthy::begin(&server, &make_channel(&server).await).await;
    // Filling the sockets' buffers takes tens of thousands of answers: nobody else reads these.
    let channel = make_channel(&server).await;
    let mut flood = Client::connect(&server, Transport::WsJson).await;
    flood.sign_in(key, None).await;
    let memory = MemoryWatch::begin(&server);

    let enough = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn(flood_until(flood, channel.clone(), Arc::clone(&enough)));
    in_time("a slow publisher", async {
        while server.metric("chappe_gateway_slow_consumers_total").await == 0.0 {
            sleep(POLL_EVERY).await;
        }
    })
    .await;
    enough.store(true, Ordering::Release);
    let (mut flood, sent) = soon("the end of the flood", flooding).await.unwrap();
    let (told, code) = read_to_the_end(&mut flood).await;
    let outcome = healthy.end().await;
    memory.end("a publisher that reads no answer");

    assert_eq!(code, Some(4009), "it is closed as slow");
    assert!(told.refused.is_empty(), "nothing is refused: {:?}", told.refused.first());
    assert_eq!(told.other.len(), 1, "{:?}", told.other);
    assert_eq!(told.other[0]["error"]["name"], "slow_consumer", "{:?}", told.other);
    assert_eq!(told.closing.as_ref().unwrap()["name"], "slow");
    let under_way = check_history(&server, &channel, &told).await;
    assert!(under_way <= UNDER_WAY_MAX, "{under_way} were carried out and not answered");
    println!(
        "of {sent} publishes {} were answered before the close and {under_way} more carried out; \
         {} healthy ones went through",
        told.acked.len(),
        outcome.published
    );
}

/// The flood alone wrote to the channel: each of its messages has its place, up to one after which
/// there is nothing. Returns how many are there and were not acknowledged.
async fn check_history(server: &Server, channel: &str, told: &Told) -> usize {
    for number in 0..told.acked.len() as u64 {
        assert_eq!(told.acked.get(&number), Some(&(number + 2)), "after the channel's creation");
    }
    let mut reader = Client::signed_in(server, Transport::WsJson, "reader").await;
    let history = json!({"history": {"channel": channel, "limit": 200}});
    let page = reader.ask(history).await.unwrap();
    let messages = page["messages"].as_array().unwrap();
    for message in messages {
        let number = message["seq"].as_u64().unwrap() - 1;
        assert_eq!(message["text"], format!("flood {number}"));
    }
    let newest = messages.iter().map(|message| message["seq"].as_u64().unwrap()).max().unwrap();
    newest as usize - told.acked.len()
}

async fn flood_until(mut flood: Client, channel: String, enough: Arc<AtomicBool>) -> (Client, u32) {
    let mut sent = 0;
    while !enough.load(Ordering::Acquire) {
        flood.send(&publish(sent, &channel)).await;
        sent += 1;
    }
    (flood, sent)
}

/// A publish whose id says its number. Ids begin where a client's own have ended.
fn publish(number: u32, channel: &str) -> Value {
    let text = format!("flood {number}");
    json!({"id": FIRST_ID + number, "publish": {"channel": channel, "text": text}})
}

async fn read_to_the_end(flood: &mut Client) -> (Told, Option<u16>) {
    let mut told = Told::default();
    loop {
        let mut frame = match flood.recv().await {
            Received::Frame(frame) => frame,
            Received::Closed(code) => return (told, code),
        };
        let number = frame["id"].as_u64().map(|id| id - u64::from(FIRST_ID));
        match number {
            Some(number) if frame.get("ok").is_some() => {
                let rev = frame["ok"]["rev"].as_u64().unwrap();
                assert_eq!(told.acked.insert(number, rev), None, "one answer each");
            }
            Some(number) => told.refused.push((number, frame["error"].take())),
            None if frame.get("closing").is_some() => told.closing = Some(frame["closing"].take()),
            None => told.other.push(frame),
        }
    }
}

const FIRST_ID: u32 = 1_000;

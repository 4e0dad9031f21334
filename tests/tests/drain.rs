//! A server that is asked to stop closes its connections one after another over the time that it
//! is given, each with the code that says so. Who comes back after the restart resumes, and has
//! missed nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::HashMap, time::Duration};

use chappe_tests::{Client, Received, Server, Transport, allow_open_files, fresh, http, soon};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const DRAIN: Duration = Duration::from_secs(8);
const READERS: usize = 1_000;
/// Every tenth reader connects over QUIC.
const QUIC_EVERY: usize = 10;
const CHANNELS: usize = 4;
/// One joins after so many readers each, so that they are not all closed at the same time.
const READERS_PER_PUBLISHER: usize = 125;
/// A user has at most 100 connections.
const USERS: usize = 20;
/// Connections that are made at the same time.
const AT_ONCE: usize = 50;
/// How often each publisher has something to say.
const PACE: Duration = Duration::from_millis(200);
const FILES: u64 = 4_096;

/// How a connection ended.
struct Ended {
    /// Who it was.
    who: String,
    at: Instant,
    code: Option<u16>,
    closing: Option<Value>,
}

/// A reader of one channel, and what it holds.
struct Reader {
    number: usize,
    channel: String,
    /// The texts of its channel's events by revision, from the first that it was given.
    held: Vec<(u64, String)>,
    /// The revision before.
    from: u64,
}

/// A publisher of one channel, and what became of its messages.
struct Publisher {
    number: usize,
    channel: String,
    acked: Vec<(u64, String, Instant)>,
    /// What was sent and not answered, and when.
    pending: Option<(Value, Instant)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_spreads_its_closes_and_a_resume_after_it_misses_nothing() {
    allow_open_files(FILES);
    let drain = format!("'{}s'", DRAIN.as_secs());
    let mut server = Server::builder().set("gateway.drain", drain).start().await;
    let channels = make_channels(&server).await;
    let (mut reading, mut publishing) = (JoinSet::new(), JoinSet::new());
    connect_all(&server, &channels, &mut reading, &mut publishing).await;

    let asked = Instant::now();
    server.terminate();
    check_that_nobody_is_taken_in(&server).await;
    let (readers, mut ends): (Vec<_>, Vec<_>) = reading.join_all().await.into_iter().unzip();
    let (publishers, more): (Vec<_>, Vec<_>) = publishing.join_all().await.into_iter().unzip();
    ends.extend(more);
    check_ends(asked, &ends);
    let acked = publishers.iter().flat_map(|publisher| &publisher.acked);
    let while_draining = acked.filter(|(_, _, at)| *at > asked).count();
    let pending = publishers.iter().filter(|publisher| publisher.pending.is_some()).count();
    println!("{while_draining} messages acknowledged while draining, {pending} left in doubt");
    assert!(while_draining >= publishers.len(), "publishers went on: {while_draining}");
    assert!(server.stopped().await, "it says that all went well");

    server.start_again().await;
    let acked = finish_publishing(&server, publishers).await;
    let resumed = Instant::now();
    resume_all(&server, readers, &acked).await;
    println!("{READERS} readers resumed within {:?}", resumed.elapsed());
}

async fn make_channels(server: &Server) -> Vec<String> {
    let mut founder = Client::signed_in(server, Transport::WsJson, "founder").await;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let name = fresh("drain-");
        let made = founder.ask(json!({"create_channel": {"kind": "public", "name": name}})).await;
        channels.push(made.unwrap()["channel"].as_str().unwrap().to_owned());
    }
    channels
}

async fn connect_all(
    server: &Server,
    channels: &[String],
    reading: &mut JoinSet<(Reader, Ended)>,
    publishing: &mut JoinSet<(Publisher, Ended)>,
) {
    for first in (0..READERS).step_by(READERS_PER_PUBLISHER) {
        for batch in (first..first + READERS_PER_PUBLISHER).collect::<Vec<_>>().chunks(AT_ONCE) {
            let connecting = batch.iter().map(|number| connect_reader(server, *number, channels));
            for (reader, client) in join_all(connecting).await {
                reading.spawn(read(reader, client));
            }
        }
        let number = first / READERS_PER_PUBLISHER;
        let channel = channels[number % CHANNELS].clone();
        let transport = Transport::ALL[number % Transport::ALL.len()];
        let user = format!("publisher-{number}");
        let mut client = Client::signed_in(server, transport, &user).await;
        client.ask(json!({"join": {"channel": channel}})).await.unwrap();
        let publisher = Publisher { number, channel, acked: Vec::new(), pending: None };
        publishing.spawn(publish(publisher, client));
    }
}

fn transport(reader: usize) -> Transport {
    match reader {
        number if number.is_multiple_of(QUIC_EVERY) => Transport::Quic,
        number if number.is_multiple_of(2) => Transport::WsMessagePack,
        _ => Transport::WsJson,
    }
}

async fn connect_reader(server: &Server, number: usize, channels: &[String]) -> (Reader, Client) {
    let channel = channels[number % CHANNELS].clone();
    let user = format!("reader-{}", number % USERS);
    let mut client = Client::signed_in(server, transport(number), &user).await;
    let subscribe = json!({"subscribe": {"channels": [{"id": channel}]}});
    let subscribed = client.ask(subscribe).await.unwrap();
    let from = subscribed["channels"][0]["rev"].as_u64().unwrap();
    (Reader { number, channel, held: Vec::new(), from }, client)
}

impl Reader {
    fn take(&mut self, event: &Value) {
        let rev = event["rev"].as_u64().unwrap();
        let next = self.held.last().map_or(self.from, |(rev, _)| *rev) + 1;
        assert_eq!(rev, next, "reader {} misses nothing, in order", self.number);
        let text = event["body"]["message"]["text"].as_str().unwrap_or_default();
        self.held.push((rev, text.to_owned()));
    }
}

async fn read(mut reader: Reader, mut client: Client) -> (Reader, Ended) {
    let mut closing = None;
    loop {
        match client.recv().await {
            Received::Frame(frame) if frame.get("event").is_some() => reader.take(&frame["event"]),
            Received::Frame(frame) if frame.get("closing").is_some() => {
                closing = Some(frame["closing"].clone());
            }
            Received::Frame(_) => {}
            Received::Closed(code) => {
                let who = format!("reader {} over {:?}", reader.number, client.transport());
                return (reader, Ended { who, at: Instant::now(), code, closing });
            }
        }
    }
}

/// Publishes, one message after the other, until its connection ends.
async fn publish(mut publisher: Publisher, mut client: Client) -> (Publisher, Ended) {
    let mut closing = None;
    loop {
        let text = format!("{} of {}", publisher.acked.len(), publisher.number);
        let command = json!({
            "nonce": fresh("n-"),
            "publish": {"channel": publisher.channel, "text": text},
        });
        publisher.pending = Some((command.clone(), Instant::now()));
        let id = client.post(command).await;
        loop {
            match client.recv().await {
                Received::Frame(frame) if frame["id"] == id => {
                    let rev = frame["ok"]["rev"].as_u64().unwrap_or_else(|| panic!("{frame}"));
                    publisher.acked.push((rev, text, Instant::now()));
                    publisher.pending = None;
                    break;
                }
                Received::Frame(frame) if frame.get("closing").is_some() => {
                    closing = Some(frame["closing"].clone());
                }
                Received::Frame(_) => {}
                Received::Closed(code) => {
                    let who =
                        format!("publisher {} over {:?}", publisher.number, client.transport());
                    return (publisher, Ended { who, at: Instant::now(), code, closing });
                }
            }
        }
        sleep(PACE).await;
    }
}

/// Whoever looks for a server finds that this one is about to stop.
async fn check_that_nobody_is_taken_in(server: &Server) {
    soon("the end of readiness", async {
        while http::get(server.run().admin, "/readyz").await.status == 200 {}
    })
    .await;
    let refused = soon("a refusal", async {
        loop {
            let response = http::get(server.run().tcp, "/").await;
            if response.status != 200 {
                break response;
            }
        }
    })
    .await;
    assert_eq!((refused.status, &refused.json()["name"]), (503, &json!("draining")));
}

/// The closes have their code and are spread over the time of the drain.
fn check_ends(asked: Instant, ends: &[Ended]) {
    for ended in ends {
        assert_eq!(ended.code, Some(1012), "each close says that the server drains: {}", ended.who);
        let closing = ended.closing.as_ref();
        let closing = closing.unwrap_or_else(|| panic!("{} is told why", ended.who));
        assert_eq!((&closing["code"], &closing["name"]), (&json!(1012), &json!("drain")));
        assert!(closing["reconnect_after_ms"].as_u64().is_some(), "{closing}");
    }
    let first = ends.iter().map(|ended| ended.at).min().unwrap();
    let last = ends.iter().map(|ended| ended.at).max().unwrap();
    let span = last - first;
    let mut tenths = [0; 10];
    for ended in ends {
        let tenth = (ended.at - first).as_secs_f64() / span.as_secs_f64() * 10.0;
        tenths[(tenth as usize).min(9)] += 1;
    }
    println!(
        "{} connections were closed over {span:?} of {DRAIN:?}, from {:?} after the signal; each \
         tenth of it: {tenths:?}",
        ends.len(),
        first - asked
    );
    assert!(span >= DRAIN.mul_f64(0.8) && span <= DRAIN.mul_f64(1.2), "{span:?} of {DRAIN:?}");
    assert!(tenths.iter().all(|count| *count <= ends.len() / 3), "no burst: {tenths:?}");
}

/// Sends again by nonce what was left in doubt, and one last message for each channel. Returns for
/// each channel what was acknowledged, by revision.
async fn finish_publishing(
    server: &Server,
    publishers: Vec<Publisher>,
) -> HashMap<String, HashMap<u64, String>> {
    let mut acked: HashMap<String, HashMap<u64, String>> = HashMap::new();
    let mut clients = Vec::new();
    for publisher in publishers {
        let user = format!("publisher-{}", publisher.number);
        let mut client = Client::signed_in(server, Transport::WsJson, &user).await;
        let known = acked.entry(publisher.channel.clone()).or_default();
        for (rev, text, _) in publisher.acked {
            assert_eq!(known.insert(rev, text), None, "a revision is one message's");
        }
        if let Some((mut command, at)) = publisher.pending {
            command["age_ms"] = json!(at.elapsed().as_millis() as u64);
            let text = command["publish"]["text"].as_str().unwrap().to_owned();
            let rev = client.ask(command).await.unwrap()["rev"].as_u64().unwrap();
            assert_eq!(known.insert(rev, text), None, "a retry is no other message's");
        }
        clients.push((publisher.channel, client));
    }
    for (channel, client) in clients.iter_mut().take(CHANNELS) {
        let last = json!({"publish": {"channel": channel, "text": LAST}});
        let rev = client.ask(last).await.unwrap()["rev"].as_u64().unwrap();
        acked.get_mut(channel).unwrap().insert(rev, LAST.to_owned());
    }
    acked
}

/// Every reader comes back with its cursor, and then holds each acknowledged message once.
async fn resume_all(
    server: &Server,
    readers: Vec<Reader>,
    acked: &HashMap<String, HashMap<u64, String>>,
) {
    let mut readers = readers.into_iter().peekable();
    while readers.peek().is_some() {
        let batch = readers.by_ref().take(AT_ONCE);
        join_all(batch.map(|reader| resume(server, reader, acked))).await;
    }
}

async fn resume(
    server: &Server,
    mut reader: Reader,
    acked: &HashMap<String, HashMap<u64, String>>,
) {
    let acked = &acked[&reader.channel];
    let held = reader.held.last().map_or(reader.from, |(rev, _)| *rev);
    let cursor = json!({"incarnation": 1, "channels": [[reader.channel, held]]});
    let user = format!("reader-{}", reader.number % USERS);
    let mut client = Client::resumed(server, transport(reader.number), &user, Some(cursor)).await;
    while reader.held.last().is_none_or(|(_, text)| text != LAST) {
        let frame = client.frame().await;
        assert!(frame.get("reset").is_none(), "nothing was lost: {frame}");
        if frame.get("event").is_some() {
            reader.take(&frame["event"]);
        }
    }
    client.close().await;
    let held: HashMap<u64, &String> = reader.held.iter().map(|(rev, text)| (*rev, text)).collect();
    for (rev, text) in acked.iter().filter(|(rev, _)| **rev > reader.from) {
        assert_eq!(held.get(rev), Some(&text), "reader {} holds what was said", reader.number);
    }
    let said = reader.held.iter().filter(|(_, text)| !text.is_empty());
    for (rev, _) in said {
        assert!(acked.contains_key(rev), "and nothing else: every message is somebody's");
    }
}

/// The text after which nothing more is said.
const LAST: &str = "the last";

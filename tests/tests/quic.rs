//! QUIC is QUIC: a lane that stalls holds up no other, a client whose address changes goes on, and
//! signals are datagrams.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::VecDeque;

use chappe_client::{Next, Options, Session, Trust, Update};
use chappe_protocol::{
    ChannelId, Text,
    command::{ChannelFrom, Channels, Publish, Subscribe},
};
use chappe_tests::{
    Client, Encoding, Server, Transport, fresh,
    quic::{Origin, STREAM_WINDOW_BYTES},
    soon,
};
use serde_json::{Value, json};

async fn channel(client: &mut Client) -> String {
    let create = json!({"create_channel": {"kind": "public", "name": fresh("quic-")}});
    client.ask(create).await.unwrap()["channel"].as_str().unwrap().to_owned()
}

/// Publishes, and returns the revision.
async fn publish(client: &mut Client, channel: &str, text: &str) -> u64 {
    let publish = json!({"publish": {"channel": channel, "text": text}});
    client.ask(publish).await.unwrap()["rev"].as_u64().unwrap()
}

async fn subscribe(client: &mut Client, channel: &str) {
    let subscribe = json!({"subscribe": {"channels": [{"id": channel}]}});
    let subscribed = client.ask(subscribe).await.unwrap();
    assert_eq!(subscribed["channels"][0].get("error"), None, "{subscribed}");
}

/// A channel that `reader` hears, and the lane on which it does.
async fn channel_with_lane(writer: &mut Client, reader: &mut Client) -> (String, u8) {
    let id = channel(writer).await;
    subscribe(reader, &id).await;
    let rev = publish(writer, &id, "first").await;
    let event = reader.event().await;
    assert_eq!((&event["channel"], &event["rev"]), (&json!(id), &json!(rev)));
    match reader.quic().last_origin() {
        Some(Origin::Lane(lane)) => (id, lane),
        other => panic!("an event came on {other:?}"),
    }
}

/// Two channels on different lanes.
async fn channels_apart(writer: &mut Client, reader: &mut Client) -> [(String, u8); 2] {
    let first = channel_with_lane(writer, reader).await;
    loop {
        let second = channel_with_lane(writer, reader).await;
        if second.1 != first.1 {
            return [first, second];
        }
    }
}

/// Far more than a lane's window, the server's buffers and the ring take together.
const STALLED_MESSAGES: u64 = 200;
const STALLED_MESSAGE_BYTES: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_lane_holds_up_no_other_and_loses_nothing() {
    stalled_lane(&Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_lane_holds_up_no_other_over_a_bad_line() {
    stalled_lane(&behind_a_bad_line().await).await;
}

/// Every frame between gateway and broker is encoded and delayed, and one in so many is its pipe's
/// last.
async fn behind_a_bad_line() -> Server {
    Server::builder().env("CHAPPE_TEST_UPLINK", "seed=3,delay_us=300,cut_one_in=100").start().await
}

async fn stalled_lane(server: &Server) {
    let mut alice = Client::signed_in(server, Transport::WsJson, "alice").await;
    let mut carol = Client::signed_in(server, Transport::Quic, "carol").await;
    let [(stalled, lane), (other, _)] = channels_apart(&mut alice, &mut carol).await;
    let received_before = carol.quic().connection().stats().udp_rx.bytes;

    carol.quic().leave_unread(Some(lane));
    let text = "x".repeat(STALLED_MESSAGE_BYTES);
    let (mut stalled_revs, mut other_revs) = (Vec::new(), Vec::new());
    for n in 0..STALLED_MESSAGES {
        let publish = |id: &str| json!({"publish": {"channel": id, "text": text}});
        let first = alice.post(publish(&stalled)).await;
        // As large, and on its way together with the other: a rest of room would not do for it.
        let second = if n % 4 == 0 { Some(alice.post(publish(&other)).await) } else { None };
        stalled_revs.push(alice.reply(first).await.unwrap()["rev"].as_u64().unwrap());
        if let Some(second) = second {
            other_revs.push(alice.reply(second).await.unwrap()["rev"].as_u64().unwrap());
        }
    }

    // The other channel is complete and in order; of the stalled one at most what its reader had
    // begun to read comes through.
    let (mut stalled_seen, mut other_seen) = (Vec::new(), Vec::new());
    while other_seen.len() < other_revs.len() {
        let event = carol.event().await;
        let rev = event["rev"].as_u64().unwrap();
        if event["channel"] == stalled { &mut stalled_seen } else { &mut other_seen }.push(rev);
    }
    assert_eq!(other_seen, other_revs);
    assert!(stalled_seen.len() <= 1, "the lane is not read: {stalled_seen:?}");
    assert_eq!(carol.ask(json!({"ping": {}})).await, Ok(json!({})), "control goes on, too");
    // What held the lane up is its window: the rest is still with the server.
    let received = carol.quic().connection().stats().udp_rx.bytes - received_before;
    let published = STALLED_MESSAGES * STALLED_MESSAGE_BYTES as u64;
    assert!(received < published / 2, "{received} of {published} bytes came");
    assert!(u64::from(STREAM_WINDOW_BYTES) < published / 4, "the window was filled");

    carol.quic().leave_unread(None);
    while stalled_seen.len() < stalled_revs.len() {
        let frame = carol.frame().await;
        assert!(frame.get("reset").is_none(), "nothing was lost, yet: {frame}");
        if frame.get("event").is_some() {
            assert_eq!(frame["event"]["channel"], json!(stalled));
            stalled_seen.push(frame["event"]["rev"].as_u64().unwrap());
        }
    }
    assert_eq!(stalled_seen, stalled_revs);
    assert_eq!(server.metric("chappe_gateway_quic_accepted_total").await, 1.0, "one connection");
}

/// What shows that nobody connected again: handshakes completed, connections open.
async fn connections(server: &Server) -> (f64, f64) {
    (
        server.metric("chappe_gateway_quic_accepted_total").await,
        server.metric("chappe_gateway_quic_connections_count").await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_goes_on_without_a_handshake_and_misses_nothing() {
    moving_client(&Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_goes_on_over_a_bad_line() {
    moving_client(&behind_a_bad_line().await).await;
}

async fn moving_client(server: &Server) {
    let mut alice = Client::signed_in(server, Transport::WsMessagePack, "alice").await;
    let mut carol = Client::signed_in(server, Transport::Quic, "carol").await;
    let id = channel(&mut alice).await;
    carol.ask(json!({"join": {"channel": id}})).await.unwrap();
    subscribe(&mut carol, &id).await;
    assert_eq!(connections(server).await, (1.0, 1.0));

    // She speaks during the first half and only listens during the second, and moves in both.
    let (mut expected, mut posted) = (Vec::new(), VecDeque::new());
    for n in 0..300 {
        if n < 150 && n % 2 == 0 {
            let text = format!("carol {n}");
            let publish = json!({"publish": {"channel": id, "text": text}});
            posted.push_back((carol.post(publish).await, text));
        }
        if n % 60 == 40 {
            carol.quic().rebind();
        }
        let text = format!("alice {n}");
        expected.push((publish(&mut alice, &id, &text).await, text));
    }
    for (command, text) in posted {
        let ok = carol.reply(command).await.unwrap();
        expected.push((ok["rev"].as_u64().unwrap(), text));
    }
    expected.sort_unstable();

    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let event = carol.event().await;
        let text = event["body"]["message"]["text"].as_str().unwrap().to_owned();
        seen.push((event["rev"].as_u64().unwrap(), text));
    }
    assert_eq!(seen, expected, "each revision once and in order");
    assert_eq!(connections(server).await, (1.0, 1.0), "the same connection");
    let stats = carol.quic().connection().stats();
    assert_eq!(stats.frame_rx.handshake_done, 1, "one handshake");
    assert!(stats.frame_rx.path_challenge >= 5, "the server asked each of five new paths");
    carol.ask(json!({"ping": {}})).await.unwrap();
    assert_eq!(carol.left_over(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_client_moves_without_connecting_again() {
    let server = Server::start().await;
    let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
    let id = channel(&mut alice).await;
    let run = server.run();
    let options = Options::new(&format!("quic://{}", run.quic), server.token("carol")).unwrap();
    let options = options.trust(Trust::fingerprint(&run.fingerprint).unwrap());
    let dialers = options.dialers().unwrap();
    let mut session = Session::with_dialers(dialers.clone(), &options).unwrap();

    let channel: ChannelId = id.parse().unwrap();
    let from = ChannelFrom { id: channel, from: None };
    let these = Channels::These(vec![from]);
    session.submit(Subscribe { channels: these, incarnation: None }, None).unwrap();
    soon("the subscription", async {
        while !matches!(session.next().await, Next::Update(Update::Subscribed(_))) {}
    })
    .await;
    alice.ask(json!({"add_member": {"channel": id, "user": carol_id(&server)}})).await.unwrap();

    let mut texts = Vec::new();
    for n in 0..60 {
        // From both sides, and on the move.
        publish(&mut alice, &id, &format!("alice {n}")).await;
        let text = Some(Text::parse(format!("carol {n}")).unwrap());
        let command = Publish { channel, text, data: None, reply_to: None, mentions: Vec::new() };
        let ticket = session.submit(command, None).unwrap();
        if n % 20 == 10 {
            dialers[0].rebind().unwrap();
        }
        soon("the answer", async {
            loop {
                match session.next().await {
                    Next::Answer(answer) => {
                        assert_eq!(answer.attempts, 1, "nothing had to be sent again");
                        answer.outcome.unwrap();
                        if answer.ticket == ticket {
                            break;
                        }
                    }
                    Next::Update(update) => note(update, &mut texts),
                    Next::Finished(error) => panic!("the session ended: {error}"),
                }
            }
        })
        .await;
    }
    soon("all events", async {
        while texts.len() < 120 {
            let Next::Update(update) = session.next().await else { panic!("an update") };
            note(update, &mut texts);
        }
    })
    .await;
    let of_both = (0..60).flat_map(|n| [format!("alice {n}"), format!("carol {n}")]);
    assert_eq!(texts, of_both.collect::<Vec<_>>());
    assert_eq!(connections(&server).await, (1.0, 1.0), "the same connection");
}

fn carol_id(server: &Server) -> String {
    chappe_protocol::UserId::of("chappe-dev", &server.subject("carol")).to_string()
}

/// Keeps a message's text. A lost connection, a gap or a reset is an end of the test.
fn note(update: Update, texts: &mut Vec<String>) {
    match update {
        Update::Event(event) => {
            let text = event.message().and_then(|message| message.text.as_ref());
            texts.extend(text.map(ToString::to_string));
        }
        Update::Subscribed(_) | Update::Live(_) => {}
        other => panic!("the connection did not simply go on: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_goes_and_comes_as_a_datagram() {
    let server = Server::start().await;
    let mut alice = Client::signed_in(&server, Transport::Quic, "alice").await;
    let mut carol = Client::signed_in(&server, Transport::Quic, "carol").await;
    let id = channel(&mut alice).await;
    subscribe(&mut carol, &id).await;
    // On the way there it may be one or a command on control; here it is one.
    let typing = Encoding::MessagePack.write(&json!({"id": 99, "typing": {"channel": id}}));
    let before = carol.quic().connection().stats().frame_rx.datagram;
    alice.quic().connection().send_datagram(typing.into()).unwrap();

    let frame = carol.find("a signal", |frame| frame.get("signal").is_some()).await;
    assert_eq!(frame["signal"], json!({"channel": id, "by": alice.user()}));
    assert_eq!(carol.quic().last_origin(), Some(Origin::Datagram));
    let after = carol.quic().connection().stats().frame_rx.datagram;
    assert_eq!(after, before + 1, "the connection counts it");
    assert_eq!(server.metric("chappe_gateway_quic_datagrams_received_total").await, 1.0);
    assert_eq!(server.metric("chappe_gateway_quic_datagrams_sent_total").await, 1.0);
    assert_eq!(server.metric("chappe_gateway_quic_datagrams_dropped_total").await, 0.0);

    // Events have no part in it.
    let rev = publish(&mut alice, &id, "hello").await;
    assert_eq!(carol.event().await["rev"], rev);
    assert!(matches!(carol.quic().last_origin(), Some(Origin::Lane(_))));
    assert_eq!(carol.quic().connection().stats().frame_rx.datagram, after);
}

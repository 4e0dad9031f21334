//! Over WebSocket, plain and in TLS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chappe_client::{Backoff, Client, Error, Events, Options, Token, TokenSource, Trust, Update};
use chappe_protocol::{
    CloseCode, Command, Encoding, ErrorCode, Rev, ServerFrame, Text, WireError,
    command::ChannelFrom,
    frame::Closing,
    reply::{Reply, SubscribeReply},
};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::server::{A, Identity, WsPeer, WsServer, change, event, subscribed};

const QUICK: Backoff = Backoff { base_ms: 5, cap_ms: 20 };

async fn connect(server: &WsServer, options: Options) -> (Client, Events, WsPeer) {
    let (client, peer) =
        tokio::join!(Client::connect(options.backoff(QUICK)), server.accept_signed_in());
    let (client, mut events) = client.unwrap();
    assert!(matches!(events.next().await, Some(Update::Connected(_))));
    (client, events, peer.0)
}

async fn subscribe(client: &Client, peer: &mut WsPeer, rev: u64) {
    let from = ChannelFrom { id: A, from: Some(Rev::new(rev)) };
    let (outcome, ()) = tokio::join!(client.subscribe_to(from), async {
        let id = peer.recv().await.id;
        let channels = vec![subscribed(A, rev)];
        peer.ok(id, Reply::Subscribe(SubscribeReply { channels })).await;
    });
    outcome.unwrap();
}

async fn next_rev(events: &mut Events) -> u64 {
    loop {
        match events.next().await.expect("the client goes on") {
            Update::Event(event) => return event.rev.get(),
            Update::Anomaly(anomaly) => panic!("{anomaly:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_command_is_answered_in_both_encodings() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let server = WsServer::start().await;
        let (client, _events, mut peer) =
            connect(&server, server.options().encoding(encoding)).await;
        let (reply, ()) = tokio::join!(client.send_text(A, Text::parse("hi").unwrap()), async {
            let frame = peer.recv().await;
            assert!(frame.nonce.is_some(), "a change carries a nonce");
            peer.ok(frame.id, change(A, 3)).await;
        });
        assert_eq!(reply.unwrap().rev.get(), 3);
    }
}

#[tokio::test]
async fn several_frames_of_one_message_are_all_read() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let server = WsServer::start().await;
        let (client, mut events, mut peer) =
            connect(&server, server.options().encoding(encoding)).await;
        subscribe(&client, &mut peer, 0).await;
        let (one, two) = (event(A, 1, "one"), event(A, 2, "two"));
        peer.send(&[ServerFrame::Event { event: &one }, ServerFrame::Event { event: &two }]).await;
        assert_eq!(next_rev(&mut events).await, 1);
        assert_eq!(next_rev(&mut events).await, 2);
    }
}

#[tokio::test]
async fn a_cut_link_is_made_again_and_everything_goes_on() {
    let server = WsServer::start().await;
    let (client, mut events, mut peer) = connect(&server, server.options()).await;
    subscribe(&client, &mut peer, 4).await;
    peer.send(&[ServerFrame::Event { event: &event(A, 5, "before") }]).await;
    assert_eq!(next_rev(&mut events).await, 5);

    let publish = tokio::spawn({
        let client = client.clone();
        async move { client.send_text(A, Text::parse("once").unwrap()).await }
    });
    let first = peer.recv().await;
    drop(peer); // without an answer, and without a word
    server.hang_up().await; // the next attempt fails too

    let mut peer = server.accept().await;
    let hello = peer.sign_in(vec![subscribed(A, 5)]).await;
    assert_eq!(hello.resume.unwrap().channels, [(A, Rev::new(5))]);
    let again = peer.recv().await;
    assert_eq!(again.nonce, first.nonce);
    assert_eq!(again.command, first.command);
    peer.ok(again.id, change(A, 7)).await;
    for rev in [6, 7] {
        peer.send(&[ServerFrame::Event { event: &event(A, rev, "after") }]).await;
    }
    assert_eq!(publish.await.unwrap().unwrap().rev.get(), 7);
    assert_eq!(next_rev(&mut events).await, 6);
    assert_eq!(next_rev(&mut events).await, 7);
    assert_eq!(events.cursor().unwrap().channels, [(A, Rev::new(7))]);
}

#[tokio::test]
async fn an_application_that_takes_no_updates_still_gets_its_answers_and_loses_nothing() {
    let server = WsServer::start().await;
    let (client, mut events, mut peer) = connect(&server, server.options().updates_max(4)).await;
    subscribe(&client, &mut peer, 0).await;

    let (reply, ()) = tokio::join!(client.send_text(A, Text::parse("hi").unwrap()), async {
        let id = peer.recv().await.id;
        for rev in 1..=50 {
            peer.send(&[ServerFrame::Event { event: &event(A, rev, "flood") }]).await;
        }
        peer.ok(id, change(A, 51)).await;
    });
    assert_eq!(reply.unwrap().rev.get(), 51, "the answer came from behind what found no room");

    // Now it takes them; what was put aside is asked for again.
    let mut taken = Vec::new();
    let asked_again = async {
        let frame = peer.recv().await;
        let Command::Subscribe(subscribe) = &frame.command else { panic!("{frame:?}") };
        let chappe_protocol::command::Channels::These(channels) = &subscribe.channels else {
            panic!("{frame:?}")
        };
        let from = channels[0].from.unwrap().get();
        let channels = vec![subscribed(A, from)];
        peer.ok(frame.id, Reply::Subscribe(SubscribeReply { channels })).await;
        for rev in from + 1..=51 {
            peer.send(&[ServerFrame::Event { event: &event(A, rev, "again") }]).await;
        }
    };
    let take = async {
        while taken.last() != Some(&51) {
            taken.push(next_rev(&mut events).await);
        }
    };
    tokio::join!(asked_again, take);
    assert_eq!(taken, (1..=51).collect::<Vec<u64>>());
}

#[tokio::test]
async fn an_application_that_takes_no_updates_holds_back_the_server() {
    let server = WsServer::start().await;
    let (client, mut events, mut peer) = connect(&server, server.options().updates_max(4)).await;
    subscribe(&client, &mut peer, 0).await;
    // More than the buffers of client and system can hold: the server cannot write it all.
    let text = "x".repeat(4_000);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        for rev in 1..=5_000 {
            peer.send(&[ServerFrame::Event { event: &event(A, rev, &text) }]).await;
            counted.store(rev as usize, Ordering::Relaxed);
        }
        peer
    });
    // The flood comes to a stand by itself, before its end.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!((5..5_000).contains(&before), "{before}");
    for rev in 1..=5_000 {
        assert_eq!(next_rev(&mut events).await, rev);
    }
    flood.await.unwrap();
}

#[tokio::test]
async fn what_the_server_says_before_it_closes_is_obeyed() {
    let server = WsServer::start().await;
    let (_client, mut events, mut peer) = connect(&server, server.options()).await;
    let mut closing = Closing::new(CloseCode::Drain);
    closing.reconnect_after_ms = Some(300);
    peer.send(&[ServerFrame::Closing { closing }]).await;
    let left = tokio::time::Instant::now();
    peer.close(CloseCode::Drain.number()).await;
    server.accept_signed_in().await;
    assert!(left.elapsed() >= Duration::from_millis(295), "{:?}", left.elapsed());
    match events.next().await {
        Some(Update::Disconnected(Error::Closed(closed))) => {
            assert_eq!(closed.known(), Some(CloseCode::Drain));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_revoked_session_ends_for_good() {
    let server = WsServer::start().await;
    let (client, mut events, peer) = connect(&server, server.options()).await;
    peer.close(CloseCode::Revoked.number()).await;
    match events.next().await {
        Some(Update::Closed(Error::Closed(closed))) => {
            assert_eq!(closed.known(), Some(CloseCode::Revoked));
        }
        other => panic!("{other:?}"),
    }
    assert!(events.next().await.is_none());
    assert!(client.ping().await.is_err());
}

#[tokio::test]
async fn a_refused_token_is_an_error_and_not_a_loop() {
    let server = WsServer::start().await;
    let refuse = async {
        let mut peer = server.accept().await;
        let id = Some(peer.recv().await.id);
        let error = WireError::new(ErrorCode::TokenInvalid);
        peer.send(&[ServerFrame::Error { id, error }]).await;
    };
    let (client, ()) = tokio::join!(Client::connect(server.options()), refuse);
    assert_eq!(client.unwrap_err().code(), Some(ErrorCode::TokenInvalid));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let options = WsServer::start().await.options(); // and gone
    assert!(Client::connect(options).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_token_is_replaced_in_band_before_it_expires() {
    fn token(number: usize, seconds: u64) -> Token {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{}}}", now + seconds));
        Token::new(format!("h.{claims}.{number}"))
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let source = TokenSource::provider(move || {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(token(number, if number == 0 { 2 } else { 3_600 })) }
    });
    let server = WsServer::start().await;
    let url = format!("ws://{}", server.address());
    let (_client, _events, mut peer) = connect(&server, Options::new(&url, source).unwrap()).await;
    let Command::Refresh(refresh) = peer.recv().await.command else { panic!("not a refresh") };
    assert!(refresh.token.ends_with(".1"));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_servers_ping_is_answered() {
    let server = WsServer::start().await;
    let (_client, _events, mut peer) = connect(&server, server.options()).await;
    let ping = chappe_protocol::frame::ServerPing { at: 0, heads: Vec::new() };
    peer.send(&[ServerFrame::Ping { ping }]).await;
    assert_eq!(peer.recv().await.command.name(), "pong");
}

#[tokio::test]
async fn closing_tells_the_server() {
    let server = WsServer::start().await;
    let (client, mut events, mut peer) = connect(&server, server.options()).await;
    let told = async {
        loop {
            match peer.stream.next().await {
                Some(Ok(WsMessage::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                _ => return None::<u16>,
            }
        }
    };
    let ((), code) = tokio::join!(client.close(), told);
    assert_eq!(code, Some(CloseCode::Normal.number()));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn dropping_both_ends_closes_too() {
    let server = WsServer::start().await;
    let (client, events, mut peer) = connect(&server, server.options()).await;
    drop((client, events));
    assert!(matches!(peer.stream.next().await, Some(Ok(WsMessage::Close(_)))));
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_fingerprint_or_its_authority_and_not_otherwise() {
    let (identity, other) = (Identity::new(), Identity::new());
    let server = WsServer::start_tls(&identity).await;
    for trust in [identity.fingerprint(), Trust::ca_pem(identity.pem.as_bytes()).unwrap()] {
        let (client, _events, mut peer) = connect(&server, server.options().trust(trust)).await;
        let (reply, ()) = tokio::join!(client.send_text(A, Text::parse("hi").unwrap()), async {
            let id = peer.recv().await.id;
            peer.ok(id, change(A, 1)).await;
        });
        reply.unwrap();
    }
    for trust in [other.fingerprint(), Trust::ca_pem(other.pem.as_bytes()).unwrap()] {
        let options = server.options().trust(trust);
        let (client, peer) = tokio::join!(Client::connect(options), server.try_accept());
        assert!(matches!(client, Err(Error::Untrusted(_))), "{client:?}");
        assert!(peer.is_none());
    }
}

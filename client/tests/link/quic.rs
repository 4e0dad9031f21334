//! Over QUIC.

use chappe_client::{Backoff, Client, Error, Events, Options, Trust, Update};
use chappe_protocol::{
    ChannelId, CloseCode, Rev, ServerFrame, Text,
    command::ChannelFrom,
    frame::Signalled,
    reply::{Reply, SubscribeReply},
};

use crate::server::{A, Identity, ME, QuicPeer, QuicServer, change, event, framed, subscribed};

const B: ChannelId = ChannelId::new(2);

async fn connect(server: &QuicServer, options: Options) -> (Client, Events, QuicPeer) {
    let options = options.backoff(Backoff { base_ms: 5, cap_ms: 20 });
    let (client, peer) = tokio::join!(Client::connect(options), server.accept_signed_in());
    let (client, mut events) = client.unwrap();
    assert!(matches!(events.next().await, Some(Update::Connected(_))));
    (client, events, peer.0)
}

async fn subscribe(client: &Client, peer: &mut QuicPeer, channel: ChannelId, rev: u64) {
    let from = ChannelFrom { id: channel, from: Some(Rev::new(rev)) };
    let (outcome, ()) = tokio::join!(client.subscribe_to(from), async {
        let id = peer.recv().await.id;
        let channels = vec![subscribed(channel, rev)];
        peer.ok(id, Reply::Subscribe(SubscribeReply { channels })).await;
    });
    outcome.unwrap();
}

async fn next_place(events: &mut Events) -> (ChannelId, u64) {
    loop {
        match events.next().await.expect("the client goes on") {
            Update::Event(event) => return (event.channel, event.rev.get()),
            Update::Anomaly(anomaly) => panic!("{anomaly:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn commands_go_by_the_control_stream_and_events_come_by_lanes() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let (client, mut events, mut peer) =
        connect(&server, server.options(identity.fingerprint())).await;
    subscribe(&client, &mut peer, A, 0).await;
    subscribe(&client, &mut peer, B, 0).await;
    let mut lane_a = peer.open_lane(0).await;
    let mut lane_b = peer.open_lane(1).await;
    // One lane stops in the middle of a frame; the other goes on.
    let frame = framed(&ServerFrame::Event { event: &event(A, 1, "slow") });
    lane_a.write_all(&frame[..10]).await.unwrap();
    for rev in 1..=3 {
        let frame = framed(&ServerFrame::Event { event: &event(B, rev, "quick") });
        lane_b.write_all(&frame).await.unwrap();
        assert_eq!(next_place(&mut events).await, (B, rev));
    }
    lane_a.write_all(&frame[10..]).await.unwrap();
    assert_eq!(next_place(&mut events).await, (A, 1));
}

#[tokio::test]
async fn signals_come_as_datagrams() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let (_client, mut events, peer) =
        connect(&server, server.options(identity.fingerprint())).await;
    let signal = Signalled { channel: A, by: ME, data: None };
    peer.datagram(&ServerFrame::Signal { signal: signal.clone() });
    assert_eq!(events.next().await, Some(Update::Signal(signal)));
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_everything_goes_on() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let (client, mut events, mut peer) =
        connect(&server, server.options(Trust::ca_pem(identity.pem.as_bytes()).unwrap())).await;
    subscribe(&client, &mut peer, A, 4).await;
    let publish = tokio::spawn({
        let client = client.clone();
        async move { client.send_text(A, Text::parse("once").unwrap()).await }
    });
    let first = peer.recv().await;
    peer.connection.close(u32::from(CloseCode::Slow.number()).into(), b"slow");

    let (mut peer, hello) = server.accept_signed_in().await;
    assert_eq!(hello.resume.unwrap().channels, [(A, Rev::new(4))]);
    let again = peer.recv().await;
    assert_eq!(again.nonce, first.nonce);
    let mut lane = peer.open_lane(0).await;
    let frame = framed(&ServerFrame::Event { event: &event(A, 5, "once") });
    lane.write_all(&frame).await.unwrap();
    peer.ok(again.id, change(A, 5)).await;
    assert_eq!(publish.await.unwrap().unwrap().rev.get(), 5);
    match events.next().await {
        Some(Update::Subscribed(_)) => {}
        other => panic!("{other:?}"),
    }
    match events.next().await {
        Some(Update::Disconnected(Error::Closed(closed))) => {
            assert_eq!(closed.known(), Some(CloseCode::Slow));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next_place(&mut events).await, (A, 5));
}

#[tokio::test]
async fn a_server_that_ends_its_streams_first_is_heard_to_its_last_word() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let (client, mut events, mut peer) =
        connect(&server, server.options(identity.fingerprint())).await;
    subscribe(&client, &mut peer, A, 0).await;
    let mut lane = peer.open_lane(0).await;
    peer.end_control();
    let frame = framed(&ServerFrame::Event { event: &event(A, 1, "late") });
    lane.write_all(&frame).await.unwrap();
    lane.finish().unwrap();
    assert_eq!(next_place(&mut events).await, (A, 1));
    peer.connection.close(u32::from(CloseCode::Revoked.number()).into(), b"");
    match events.next().await {
        Some(Update::Closed(Error::Closed(closed))) => {
            assert_eq!(closed.known(), Some(CloseCode::Revoked));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_of_address_breaks_nothing() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let options = server.options(identity.fingerprint());
    let dialers = options.dialers().unwrap();
    let hello = chappe_protocol::command::Hello {
        token: "token".to_owned(),
        client: String::new(),
        version: String::new(),
        resume: None,
    };
    let signing_in = chappe_client::Connection::sign_in(&dialers[0], hello);
    let (connection, (mut peer, _)) = tokio::join!(signing_in, server.accept_signed_in());
    let (mut connection, _) = connection.unwrap();
    let before = peer.connection.remote_address();
    dialers[0].rebind().unwrap();
    let command = chappe_protocol::Command::Ping(chappe_protocol::command::Ping {});
    let frame = chappe_protocol::ClientFrame { id: 1, nonce: None, age_ms: 0, command };
    connection.send(&frame).await.unwrap();
    assert_eq!(peer.recv().await, frame);
    peer.ok(1, Reply::Done(chappe_protocol::reply::Done {})).await;
    let incoming = connection.recv().await.unwrap().into_incoming();
    assert_eq!(incoming, chappe_protocol::frame::Incoming::Ok { id: 1 });
    assert_ne!(peer.connection.remote_address(), before);
}

#[tokio::test]
async fn another_certificate_is_not_trusted() {
    let (identity, other) = (Identity::new(), Identity::new());
    let server = QuicServer::start(&identity);
    for trust in [other.fingerprint(), Trust::ca_pem(other.pem.as_bytes()).unwrap()] {
        let (client, peer) =
            tokio::join!(Client::connect(server.options(trust)), server.try_accept());
        assert!(matches!(client, Err(Error::Untrusted(_))), "{client:?}");
        assert!(peer.is_none());
    }
}

#[tokio::test]
async fn closing_tells_the_server() {
    let identity = Identity::new();
    let server = QuicServer::start(&identity);
    let (client, _events, peer) = connect(&server, server.options(identity.fingerprint())).await;
    client.close().await;
    match peer.connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(closed) => {
            assert_eq!(closed.error_code.into_inner(), u64::from(CloseCode::Normal.number()));
        }
        other => panic!("{other:?}"),
    }
}

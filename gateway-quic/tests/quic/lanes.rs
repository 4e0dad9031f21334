//! Lanes and datagrams: order, stalls, and what fits where.

use std::collections::HashMap;

use chappe_gateway::link::Lane;
use chappe_protocol::{
    ChannelId, Encoding, Event, EventBody, Rev, ServerFrame, UserId,
    event::NothingBody,
    frame::{Incoming, Signalled},
};
use quinn::{Connection, RecvStream, TransportConfig};

use crate::{
    Server,
    client::{Client, config, connect, frame, hello},
    kernel::Session,
    soon,
};

fn event(channel: ChannelId, rev: u64) -> Event {
    Event {
        channel,
        rev: Rev::new(rev),
        by: UserId::new(1),
        at: 0,
        nonce: None,
        body: EventBody::Nothing(NothingBody {}),
    }
}

/// Sends an event on its channel's lane and says which one that is.
async fn send(session: &Session, event: &Event) -> u8 {
    let lane = session.describe.lane(event.channel);
    session.send(lane, &ServerFrame::Event { event }).await;
    let Lane::Channel(number) = lane else { panic!("an event has a lane") };
    number
}

async fn accept(connection: &Connection) -> (u8, RecvStream) {
    let mut stream = soon(connection.accept_uni()).await.unwrap();
    let mut number = [0];
    soon(stream.read_exact(&mut number)).await.unwrap();
    (number[0], stream)
}

/// Two channels that do not share a lane.
fn apart(session: &Session) -> (ChannelId, ChannelId) {
    let first = ChannelId::new(1);
    let lane = session.describe.lane(first);
    let second = (2..).map(ChannelId::new).find(|id| session.describe.lane(*id) != lane);
    (first, second.unwrap())
}

#[tokio::test]
async fn events_come_in_order_on_the_lanes_of_their_channels() {
    let mut server = Server::start();
    let (client, session) = server.signed_in().await;
    assert_eq!((session.describe.transport, session.describe.channel_lanes), ("quic", 8));
    let mut sent: HashMap<u8, Vec<(ChannelId, Rev)>> = HashMap::new();
    for rev in 1..=20 {
        for channel in (1..=40).map(ChannelId::new) {
            let event = event(channel, rev);
            let lane = send(&session, &event).await;
            sent.entry(lane).or_default().push((event.channel, event.rev));
        }
    }
    assert_eq!(sent.len(), 8, "forty channels use every lane");
    for _ in 0..8 {
        let (number, mut stream) = accept(&client.connection).await;
        for expect in sent.remove(&number).expect("each lane is opened once") {
            let Some(Incoming::Event(event)) = frame(&mut stream).await else { panic!("an event") };
            assert_eq!((event.channel, event.rev), expect);
        }
    }
}

#[tokio::test]
async fn a_lane_that_nobody_reads_does_not_hold_up_another() {
    let mut server = Server::start();
    let mut transport = TransportConfig::default();
    // A lane takes 16 KiB unread, all of them together much more.
    transport.stream_receive_window(16_384u32.into()).receive_window(1_048_576u32.into());
    let config = config(&server.certificate, &[b"chappe/1"], transport);
    let (endpoint, connection) = connect(server.address, config).await.unwrap();
    let (send_stream, recv) = connection.open_bi().await.unwrap();
    let mut client = Client { endpoint, connection, send: send_stream, recv };
    client.ask(1, hello()).await;
    let mut session = server.sessions.recv().await.unwrap();
    session.next().await;

    let (stalled, other) = apart(&session);
    let count = 2_000; // far more than the stalled lane takes
    for rev in 1..=count {
        send(&session, &event(stalled, rev)).await;
    }
    let stalled_lane = send(&session, &event(other, 1)).await;
    let (first, mut first_stream) = accept(&client.connection).await;
    let (_, mut second_stream) = accept(&client.connection).await;
    let (live, held) = if first == stalled_lane {
        (&mut first_stream, &mut second_stream)
    } else {
        (&mut second_stream, &mut first_stream)
    };
    for rev in 1..=100 {
        if rev > 1 {
            send(&session, &event(other, rev)).await;
        }
        let Some(Incoming::Event(event)) = frame(live).await else { panic!("an event") };
        assert_eq!((event.channel, event.rev), (other, Rev::new(rev)));
    }
    client.ping(9).await;
    // And nothing of the stalled lane is lost.
    for rev in 1..=count {
        let Some(Incoming::Event(event)) = frame(held).await else { panic!("an event") };
        assert_eq!((event.channel, event.rev), (stalled, Rev::new(rev)));
    }
}

#[tokio::test]
async fn a_lane_waits_for_a_client_that_allows_fewer_streams() {
    let mut server = Server::start();
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(1u32.into());
    let config = config(&server.certificate, &[b"chappe/1"], transport);
    let (_endpoint, connection) = connect(server.address, config).await.unwrap();
    let (mut control, _recv) = connection.open_bi().await.unwrap();
    let bytes = crate::client::framed(&crate::client::encoded(1, hello()));
    control.write_all(&bytes).await.unwrap();
    let mut session = server.sessions.recv().await.unwrap();
    session.next().await;
    let (first, second) = apart(&session);
    for rev in 1..=3 {
        send(&session, &event(first, rev)).await;
        send(&session, &event(second, rev)).await;
    }
    let (_, mut stream) = accept(&connection).await;
    assert!(matches!(frame(&mut stream).await, Some(Incoming::Event(_))));
    connection.set_max_concurrent_uni_streams(2u32.into());
    let (_, mut stream) = accept(&connection).await;
    for rev in 1..=3 {
        let Some(Incoming::Event(event)) = frame(&mut stream).await else { panic!("an event") };
        assert_eq!(event.rev, Rev::new(rev));
    }
}

#[tokio::test]
async fn signals_come_as_datagrams_and_go_as_datagrams() {
    let mut server = Server::start();
    let (client, mut session) = server.signed_in().await;
    let signal = Signalled { channel: ChannelId::new(1), by: UserId::new(2), data: None };
    session.send(Lane::Signals, &ServerFrame::Signal { signal: signal.clone() }).await;
    let datagram = soon(client.connection.read_datagram()).await.unwrap();
    assert_eq!(Encoding::MessagePack.decode_server(&datagram).unwrap(), Incoming::Signal(signal));

    let typing = chappe_protocol::command::Typing { channel: ChannelId::new(1) };
    let datagram = crate::client::encoded(5, typing.clone());
    client.connection.send_datagram(datagram.into()).unwrap();
    let crate::kernel::Heard::Frame(frame) = session.next().await else { panic!("a frame") };
    assert_eq!(frame.command, typing.into());
}

#[tokio::test]
async fn a_signal_that_fits_no_datagram_is_dropped_and_nothing_else() {
    let mut server = Server::start();
    let (mut client, session) = server.signed_in().await;
    let data = chappe_protocol::Data::new(serde_json::Value::String("x".repeat(4_000))).unwrap();
    let mut signal = Signalled { channel: ChannelId::new(1), by: UserId::new(2), data: Some(data) };
    session.send(Lane::Signals, &ServerFrame::Signal { signal: signal.clone() }).await;
    signal.data = None;
    session.send(Lane::Signals, &ServerFrame::Signal { signal }).await;
    let datagram = soon(client.connection.read_datagram()).await.unwrap();
    assert!(datagram.len() < 100, "the small one");
    client.ping(2).await;
}

//! What a broken or hostile client sends, and what it gets. Whatever it is, the next client is
//! served.

use std::time::{Duration, Instant};

use chappe_gateway::link::{Lane, LinkEnd};
use chappe_gateway_quic::Config;
use chappe_protocol::{
    ChannelId, CloseCode, ErrorCode, ServerFrame,
    command::{Ping, Typing},
    frame::{Closing, Incoming, ServerPing},
    limits,
};
use quinn::{ConnectionError, TransportConfig};
use tokio::net::UdpSocket;

use crate::{
    Server,
    client::{Client, config, connect, encoded, framed, hello},
    life::assert_closed,
    relay::Relay,
    soon,
};

/// What a client sends on its control stream, and what becomes of it.
struct Case {
    what: &'static str,
    signed_in: bool,
    bytes: Vec<u8>,
    then: Then,
    expect: ErrorCode,
}

/// How the client goes on after its bytes.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Waits,
    Finishes,
    Resets,
}

/// Frames that close the connection, each with the code that it is told.
fn closing_cases() -> Vec<Case> {
    let case = |what, signed_in, bytes, then, expect| Case { what, signed_in, bytes, then, expect };
    let header = |length: usize| (length as u32).to_le_bytes().to_vec();
    let deep = [
        vec![0x82, 0xa2, b'i', b'd', 1, 0xa4, b'p', b'i', b'n', b'g'],
        [0x81, 0xa1, b'a'].repeat(20),
        vec![0x80],
    ];
    let ping = framed(&encoded(2, Ping {}));
    let (malformed, large) = (ErrorCode::Malformed, ErrorCode::FrameTooLarge);
    use Then::{Finishes, Resets, Waits};
    vec![
        case("no length", false, header(0), Waits, malformed),
        case("no length, later", true, [ping.clone(), header(0)].concat(), Waits, malformed),
        case(
            "8 KiB and a byte before hello",
            false,
            header(limits::FRAME_BYTES_MAX_BEFORE_HELLO + 1),
            Waits,
            large,
        ),
        case("64 KiB before hello", false, header(limits::FRAME_BYTES_MAX), Waits, large),
        case("64 KiB and a byte", true, header(limits::FRAME_BYTES_MAX + 1), Waits, large),
        case("1 GiB", true, header(1 << 30), Waits, large),
        case("as much as can be declared", true, vec![0xff; 4], Waits, large),
        case(
            "as much behind a good frame",
            true,
            [ping.clone(), vec![0xff; 4]].concat(),
            Waits,
            large,
        ),
        case("a length in big-endian", true, 20u32.to_be_bytes().to_vec(), Waits, large),
        case("HTTP", false, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Waits, large),
        case("a cut header", true, vec![5, 0], Finishes, malformed),
        case("a cut frame", true, ping[..ping.len() - 1].to_vec(), Finishes, malformed),
        case("a reset", true, Vec::new(), Resets, malformed),
        case("a reset inside a frame", true, ping[..6].to_vec(), Resets, malformed),
        case("JSON", false, framed(br#"{"id":1,"ping":{}}"#), Waits, malformed),
        case("a list", true, framed(&[0x90]), Waits, malformed),
        case("a number", true, framed(&[0x07]), Waits, malformed),
        case("bytes that MessagePack does not have", true, framed(&[0xc1; 8]), Waits, malformed),
        case("a map that is cut", true, framed(&[0x82, 0xa2, b'i', b'd', 1]), Waits, malformed),
        case(
            "a map of four billion",
            true,
            framed(&[0xdf, 0xff, 0xff, 0xff, 0xff]),
            Waits,
            malformed,
        ),
        case(
            "a text of four billion",
            true,
            framed(&[0x81, 0xdb, 0xff, 0xff, 0xff, 0xff]),
            Waits,
            malformed,
        ),
        case("a key that is no text", true, framed(&[0x81, 1, 1]), Waits, malformed),
        case("an extension", true, framed(&[0x81, 0xa2, b'i', b'd', 0xd4, 1, 1]), Waits, malformed),
        case("a frame nested too deep", true, framed(&deep.concat()), Waits, ErrorCode::TooDeep),
    ]
}

/// The last that a client is told: the error, and that the connection is closed as the table says.
#[track_caller]
fn assert_told(what: &str, frames: &[Incoming], expect: ErrorCode) {
    let [.., Incoming::Error { id: None, error }, Incoming::Closing(closing)] = frames else {
        panic!("{what}: {frames:?}")
    };
    assert_eq!(error.code, expect.number(), "{what}: {frames:?}");
    assert_eq!(Some(closing), expect.closes().map(Closing::new).as_ref(), "{what}");
}

#[tokio::test]
async fn each_is_told_its_code_and_closed_and_the_next_client_is_served() {
    let mut server = Server::start();
    let cases = closing_cases();
    assert!(cases.len() >= 20);
    for Case { what, signed_in, bytes, then, expect } in cases {
        let mut client = server.client().await;
        if signed_in {
            client.hello().await;
        }
        client.send.write_all(&bytes).await.unwrap();
        match then {
            Then::Waits => {}
            Then::Finishes => client.send.finish().unwrap(),
            Then::Resets => {
                // What was sent before a reset is lost with it, unless it is read first.
                if !signed_in || bytes.is_empty() {
                    client.send.write_all(&framed(&encoded(3, Ping {}))[..1]).await.unwrap();
                }
                client.send.reset(7u32.into()).unwrap();
            }
        }
        let (frames, error) = client.end().await;
        assert_told(what, &frames, expect);
        assert_closed(&error, expect.closes().unwrap());
        let mut session = server.sessions.recv().await.unwrap();
        session.end().await;
        let (mut next, _session) = server.signed_in().await;
        next.ping(2).await;
    }
}

#[tokio::test]
async fn a_frame_that_is_only_wrong_leaves_the_connection() {
    let mut server = Server::start();
    let (mut client, _session) = server.signed_in().await;
    // {"id": 5, "dance": {}} and {"id": 6, "ping": 1}
    let unknown = b"\x82\xa2id\x05\xa5dance\x80";
    let wrong = b"\x82\xa2id\x06\xa4ping\x01";
    for (bytes, id, code) in
        [(&unknown[..], 5, ErrorCode::UnknownCommand), (&wrong[..], 6, ErrorCode::Invalid)]
    {
        client.send.write_all(&framed(bytes)).await.unwrap();
        let Incoming::Error { id: told, error } = client.next().await else { panic!("an error") };
        assert_eq!((told, error.code), (Some(id), code.number()));
    }
    // A byte at a time, and many frames at once.
    for byte in framed(&encoded(7, Ping {})) {
        client.send.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(client.next().await, Incoming::Ok { id: 7 });
    let many: Vec<u8> = (100..1_100).flat_map(|id| framed(&encoded(id, Ping {}))).collect();
    client.send.write_all(&many).await.unwrap();
    for id in 100..1_100 {
        assert_eq!(client.next().await, Incoming::Ok { id });
    }
}

#[tokio::test]
async fn a_large_frame_passes_once_the_session_is_signed_in() {
    let mut server = Server::start();
    let (mut client, mut session) = server.signed_in().await;
    let mut frame = encoded(2, Ping {});
    // An unknown field brings it to the limit: {…, "x": "…"}.
    frame[0] += 1;
    let text = limits::FRAME_BYTES_MAX - frame.len() - 5;
    frame.extend_from_slice(&[0xa1, b'x', 0xda]);
    frame.extend_from_slice(&(text as u16).to_be_bytes());
    frame.resize(limits::FRAME_BYTES_MAX, b' ');
    soon(client.send.write_all(&framed(&frame))).await.unwrap();
    assert_eq!(client.next().await, Incoming::Ok { id: 2 });
    session.next().await;
}

#[tokio::test]
async fn a_datagram_carries_one_signal_and_nothing_else() {
    let mut server = Server::start();
    let typing = encoded(2, Typing { channel: ChannelId::new(1) });
    let cases = [
        ("a command", encoded(2, Ping {}), ErrorCode::Malformed),
        ("a hello", encoded(2, hello()), ErrorCode::Malformed),
        ("two signals", [typing.clone(), typing.clone()].concat(), ErrorCode::Malformed),
        ("a cut signal", typing[..typing.len() - 1].to_vec(), ErrorCode::Malformed),
        ("noise", vec![0xc1; 40], ErrorCode::Malformed),
        ("nothing", Vec::new(), ErrorCode::Malformed),
    ];
    for (what, datagram, code) in cases {
        let (mut client, _session) = server.signed_in().await;
        client.connection.send_datagram(datagram.into()).unwrap();
        let (frames, error) = client.end().await;
        assert_eq!(frames.len(), 2, "{what}: {frames:?}");
        assert_told(what, &frames, code);
        assert_closed(&error, CloseCode::ProtocolError);
    }
}

#[tokio::test]
async fn a_flood_of_datagrams_does_not_drown_control() {
    let mut server = Server::start();
    let (mut client, _session) = server.signed_in().await;
    let typing = encoded(0, Typing { channel: ChannelId::new(1) });
    for id in 2..200 {
        for _ in 0..200 {
            client.connection.send_datagram(typing.clone().into()).unwrap();
        }
        client.ping(id).await;
    }
}

#[tokio::test]
async fn a_client_has_one_stream_and_no_more() {
    let mut server = Server::start();
    let (mut client, _session) = server.signed_in().await;
    // Its transport is told that there is no room for another one, and waits.
    let wait = Duration::from_millis(200);
    assert!(tokio::time::timeout(wait, client.connection.open_bi()).await.is_err());
    assert!(tokio::time::timeout(wait, client.connection.open_uni()).await.is_err());
    client.ping(2).await;
}

#[tokio::test]
async fn a_client_that_stops_a_stream_is_closed() {
    let mut server = Server::start();
    let (mut client, session) = server.signed_in().await;
    client.recv.stop(1u32.into()).unwrap();
    client.ask(2, Ping {}).await; // its answer cannot be written
    let ping = ServerPing { at: 0, heads: Vec::new() };
    session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
    assert_closed(&soon(client.connection.closed()).await, CloseCode::ProtocolError);

    let (client, session) = server.signed_in().await;
    let ping = ServerPing { at: 0, heads: Vec::new() };
    session.send(Lane::Channel(3), &ServerFrame::Ping { ping: ping.clone() }).await;
    let again = ServerFrame::Ping { ping };
    let mut lane = soon(client.connection.accept_uni()).await.unwrap();
    lane.stop(1u32.into()).unwrap();
    let closed = client.connection.closed();
    tokio::pin!(closed);
    let error = soon(async {
        loop {
            tokio::select! {
                error = &mut closed => return error,
                () = session.send(Lane::Channel(3), &again) => {
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    assert_closed(&error, CloseCode::ProtocolError);
}

#[tokio::test]
async fn only_our_protocol_is_spoken() {
    let server = Server::start();
    for alpn in [&[&b"h3"[..]][..], &[b"chappe/2"], &[b"CHAPPE/1"], &[]] {
        let config = config(&server.certificate, alpn, TransportConfig::default());
        let error = connect(server.address, config).await.unwrap_err();
        // The TLS alert no_application_protocol, as QUIC carries it.
        let ConnectionError::ConnectionClosed(close) = &error else {
            panic!("{alpn:?}: {error:?}")
        };
        assert_eq!(u64::from(close.error_code), 0x100 + 120, "{alpn:?}: {error:?}");
    }
    let both = config(&server.certificate, &[b"h3", b"chappe/1"], TransportConfig::default());
    assert!(connect(server.address, both).await.is_ok());
}

#[tokio::test]
async fn packets_that_are_no_quic_get_no_answer() {
    let mut server = Server::start();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut short_initial = vec![0xc0, 0, 0, 0, 1, 8];
    short_initial.extend_from_slice(&[7; 60]);
    let mut forged = vec![0xc0, 0, 0, 0, 1, 8];
    forged.resize(1_200, 7);
    let packets: [&[u8]; 6] =
        [b"", b"\0", &[0x40; 30], &short_initial, &forged, b"GET / HTTP/1.1\r\n\r\n"];
    for packet in packets {
        socket.send(packet).await.unwrap();
    }
    // A full round with a real client shows that the others were dealt with.
    let (mut client, _session) = server.signed_in().await;
    client.ping(2).await;
    let mut answer = [0; 2_048];
    assert!(socket.try_recv(&mut answer).is_err(), "not a byte to who may be forged");
}

#[tokio::test]
async fn a_version_that_is_unknown_is_answered_with_those_that_are() {
    let server = Server::start();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut packet = vec![0xc0, 0xba, 0xba, 0xba, 0xba, 8];
    packet.extend_from_slice(&[1; 8]);
    packet.push(0);
    packet.resize(1_200, 0);
    socket.send(&packet).await.unwrap();
    let mut answer = [0; 2_048];
    let length = soon(socket.recv(&mut answer)).await.unwrap();
    assert_eq!(answer[1..5], [0; 4], "a version negotiation");
    assert!(length < packet.len());
}

#[tokio::test]
async fn a_handshake_that_is_never_completed_gives_its_place_back() {
    let config = Config {
        handshakes_max: 1,
        handshake_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let mut server = Server::with(config);
    let relay = Relay::to(server.address).await;
    relay.deafen_client();
    let certificate = server.certificate.clone();
    let address = relay.address;
    let silent = tokio::spawn(async move { Client::connect(address, &certificate).await.is_ok() });
    soon(async {
        while relay.bytes().1 == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = Client::connect(server.address, &server.certificate).await.err().unwrap();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");
    let began = Instant::now();
    soon(async {
        while Client::connect(server.address, &server.certificate).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(server.sessions.recv().await);
    silent.abort();
    let (up, down) = relay.bytes();
    assert!(down <= 3 * up, "{down} bytes for {up} to an address that nobody has proved");
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let config = Config { handshakes_per_address_max: 0, ..Config::default() };
    let server = Server::with(config);
    let refused = Client::connect(server.address, &server.certificate).await.err().unwrap();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");
}

#[tokio::test]
async fn under_load_a_client_proves_its_address_first() {
    let config = Config { retry_above: 0, ..Config::default() };
    let mut server = Server::with(config);
    let relay = Relay::to(server.address).await;
    let mut client = Client::connect(relay.address, &server.certificate).await.unwrap();
    client.hello().await;
    assert!(server.sessions.recv().await.is_some());

    // Who cannot hear the proof's token gets no more than the packet that carries it.
    let relay = Relay::to(server.address).await;
    relay.deafen_client();
    let (certificate, address) = (server.certificate.clone(), relay.address);
    let deaf = tokio::spawn(async move { Client::connect(address, &certificate).await.is_ok() });
    soon(async {
        while relay.bytes().1 == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    deaf.abort();
    let (up, down) = relay.bytes();
    assert!(down < up / 3, "{down} bytes for {up}");
}

#[tokio::test]
async fn a_client_that_breaks_off_ends_its_session() {
    let mut server = Server::start();
    let (client, mut session) = server.signed_in().await;
    client.connection.close(4_999u32.into(), b"nonsense");
    assert!(matches!(session.end().await, LinkEnd::Closed(Some(4_999))));
    let (client, mut session) = server.signed_in().await;
    client.connection.close((1u32 << 20).into(), b"a code beyond ours");
    assert!(matches!(session.end().await, LinkEnd::Closed(None)));
}

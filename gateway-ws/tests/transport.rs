//! The transport's rules on real sockets: what a client hears when it breaks one.

#![allow(clippy::unwrap_used, reason = "for tests")]

mod support;

use std::time::{Duration, Instant};

use chappe_gateway::Config;
use chappe_gateway_ws::Options;
use chappe_protocol::Encoding;
use futures_util::SinkExt;
use support::{Client, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

#[tokio::test]
async fn pings_are_answered_and_so_is_a_close() {
    let server = Server::start().await;
    let mut client = Client::connect(&server, Encoding::Json, "ada").await;
    client.socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(client.message().await, Message::Pong("are you there".into()));
    client.close().await;
}

#[tokio::test]
async fn fragments_are_one_message() {
    let server = Server::start().await;
    let mut client = Client::connect(&server, Encoding::Json, "ada").await;
    let part = |text: &'static str, data, last| {
        Message::Frame(Frame::message(text, OpCode::Data(data), last))
    };
    client.socket.send(part(r#"{"id":2,"#, Data::Text, false)).await.unwrap();
    client.socket.send(Message::Ping("x".into())).await.unwrap();
    client.socket.send(part(r#""ping":{}}"#, Data::Continue, true)).await.unwrap();
    assert_eq!(client.message().await, Message::Pong("x".into()));
    assert_eq!(client.next().await["id"], 2);
}

#[tokio::test]
async fn a_large_frame_is_taken_once_the_session_is_signed_in() {
    let server = Server::start().await;
    let mut client = Client::connect(&server, Encoding::Json, "ada").await;
    let large = format!(r#"{{"id":2,"ping":{{"pad":"{}"}}}}"#, "x".repeat(60_000));
    client.socket.send(Message::text(large)).await.unwrap();
    assert_eq!(client.next().await["id"], 2);
}

#[tokio::test]
async fn a_silent_client_is_closed_at_each_stage() {
    let mut config = Config::default();
    config.timing.hello_ms = 300;
    let options = Options { handshake_timeout: Duration::from_millis(300), ..Options::default() };
    let server = Server::with(config, options).await;
    // Nothing at all, and a header that never ends.
    for start in ["", "GET /v1/ws HTTP/1.1\r\nHost: x\r\n"] {
        let began = Instant::now();
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await; // closed or reset
        assert!(began.elapsed() < Duration::from_secs(5), "after {start:?}");
    }
    // Upgraded, and no hello.
    let mut client = Client::open(&server, Encoding::Json).await;
    let (code, said) = client.closed().await;
    assert_eq!(code, 4001);
    assert_eq!(said[0]["error"]["name"], "hello_timeout");
}

#[tokio::test]
async fn a_token_in_the_header_signs_in() {
    let server = Server::start().await;
    let mut client = Client::with_header(&server, "ada").await;
    let ok = client.ask(r#"{"id":1,"ping":{}}"#).await;
    assert_eq!(ok["id"], 1);
    let ok = client.ask(r#"{"id":2,"hello":{"token":""}}"#).await;
    assert_eq!(ok["ok"]["user"], chappe_gateway::testing::user("ada").to_string());
}

#[tokio::test]
async fn bytes_behind_the_handshake_are_not_lost() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut bytes = request.as_bytes().to_vec();
    bytes.extend_from_slice(&[0x89, 0x80, 0, 0, 0, 0]); // a ping in the same packet
    socket.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x8a, 0]) {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_exact(&mut byte));
        read.await.expect("the pong comes").unwrap();
        answer.push(byte[0]);
    }
}

#[tokio::test]
async fn wss_speaks_the_same() {
    let server = Server::with_tls().await;
    server.channel(7, &["ada"]);
    let mut client = Client::connect(&server, Encoding::Json, "ada").await;
    client.ask(r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#).await;
    for number in 0..20 {
        let text = "x".repeat(3_000);
        client
            .send(&format!(r#"{{"id":{number},"publish":{{"channel":"7","text":"{text}"}}}}"#))
            .await;
    }
    let mut events = 0;
    while events < 20 {
        events += usize::from(client.next().await.get("event").is_some());
    }
    client.close().await;
}

#[tokio::test]
async fn too_many_connections_of_an_address_are_turned_away_with_a_time_to_come_back() {
    let mut config = Config::default();
    config.limits.connections_per_address = 2;
    let server = Server::with(config, Options::default()).await;
    let _first = Client::connect(&server, Encoding::Json, "ada").await;
    let second = Client::connect(&server, Encoding::Json, "bob").await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("Retry-After: 1"));
    second.close().await;
    server.until(|server| server.gateway.connections() == 1).await;
    Client::connect(&server, Encoding::Json, "eve").await;
}

#[tokio::test]
async fn a_drain_closes_everybody_and_lets_nobody_in() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(Client::connect(&server, Encoding::Json, &format!("user {number}")).await);
    }
    let gateway = server.gateway.clone();
    let drained = tokio::spawn(async move { gateway.drain(Duration::from_millis(500)).await });
    for mut client in clients {
        let (code, said) = client.closed().await;
        assert_eq!(code, 1012);
        assert!(said.last().unwrap()["closing"]["reconnect_after_ms"].is_u64());
        assert!(client.ended().await, "nothing follows the close");
    }
    drained.await.unwrap();
    assert_eq!(server.gateway.connections(), 0);
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
}

#[tokio::test]
async fn the_pipe_may_be_cut_at_any_time() {
    let server = Server::start().await;
    server.channel(7, &["ada"]);
    let mut client = Client::connect(&server, Encoding::Json, "ada").await;
    client.ask(r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#).await;
    let (mut acked, mut revs) = (0, Vec::new());
    for round in 0..10 {
        let publish = format!(
            r#"{{"id":{round},"nonce":"n{round}","publish":{{"channel":"7","text":"x"}}}}"#
        );
        client.send(&publish).await;
        server.broker.cut();
        while acked <= round || revs.len() <= round {
            let frame = client.next().await;
            match frame["event"]["rev"].as_u64() {
                Some(rev) => revs.push(rev),
                None => acked += usize::from(frame.get("ok").is_some()),
            }
        }
    }
    assert_eq!(revs, (2..12).collect::<Vec<_>>());
}

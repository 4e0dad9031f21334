//! Handshakes, good and bad, as bytes on a socket.

#![allow(clippy::unwrap_used, reason = "for tests")]

mod support;

use std::time::Duration;

use support::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A good request, to be spoilt line by line.
const GOOD: &[&str] = &[
    "GET /v1/ws HTTP/1.1",
    "Host: chappe.test",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: chat, chappe.v1.json",
];

/// Sends a request and reads the head of the answer.
async fn exchange(server: &Server, lines: &[String]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{}\r\n\r\n", lines.join("\r\n"));
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(15), socket.read(&mut chunk));
        match read.await.expect("an answer").unwrap() {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The good request with the line of this name replaced; more lines are added, an empty one goes.
fn with(name: &str, line: &str) -> Vec<String> {
    let mut lines: Vec<String> = GOOD.iter().map(|line| (*line).to_owned()).collect();
    match lines.iter_mut().find(|present| present.starts_with(name)) {
        Some(present) => *present = line.to_owned(),
        None => lines.push(line.to_owned()),
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[tokio::test]
async fn a_good_handshake_is_answered_with_the_key_and_the_subprotocol() {
    let server = Server::start().await;
    let answer = exchange(&server, &with("Host", "Host: chappe.test")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let answer = answer.to_lowercase();
    // RFC 6455 §1.3 has this key and this answer.
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: chappe.v1.json"), "{answer}");
}

#[tokio::test]
async fn bad_handshakes_are_refused_before_the_upgrade() {
    let server = Server::start().await;
    let jwt = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln";
    let cases: Vec<(&str, Vec<String>, &str)> = vec![
        ("another path", with("GET", "GET /elsewhere HTTP/1.1"), "404"),
        ("another method", with("GET", "POST /v1/ws HTTP/1.1"), "405"),
        ("no host", with("Host", ""), "400"),
        ("no upgrade", with("Upgrade", ""), "426"),
        ("no connection", with("Connection", "Connection: keep-alive"), "426"),
        ("an old version", with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), "426"),
        ("no version", with("Sec-WebSocket-Version", ""), "426"),
        ("no key", with("Sec-WebSocket-Key", ""), "400"),
        ("a short key", with("Sec-WebSocket-Key", "Sec-WebSocket-Key: c2hvcnQ="), "400"),
        ("a key that is no base64", with("Sec-WebSocket-Key", "Sec-WebSocket-Key: !!!"), "400"),
        (
            "a foreign subprotocol",
            with("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: chat"),
            "400",
        ),
        ("a body", with("Content-Length", "Content-Length: 3"), "400"),
        ("both lengths", smuggling(), "400"),
        ("a token in the query", with("GET", "GET /v1/ws?token=x HTTP/1.1"), "400"),
        (
            "an access token in the query",
            with("GET", "GET /v1/ws?a=b&Access_Token=x HTTP/1.1"),
            "400",
        ),
        ("a JWT under another name", with("GET", &format!("GET /v1/ws?x={jwt} HTTP/1.1")), "400"),
        ("a wrong scheme", with("Authorization", "Authorization: Basic eDp5"), "401"),
        ("a foreign origin", with("Origin", "Origin: https://evil.example"), "403"),
        ("the null origin", with("Origin", "Origin: null"), "403"),
        ("an origin with a suffix", with("Origin", "Origin: https://app.example.com.evil"), "403"),
        ("an origin with a prefix", with("Origin", "Origin: https://notapp.example.com"), "403"),
        ("an origin in other case", with("Origin", "Origin: https://APP.example.com"), "403"),
        ("an origin with a port", with("Origin", "Origin: https://app.example.com:443"), "403"),
        ("an origin without TLS", with("Origin", "Origin: http://app.example.com"), "403"),
        ("a punycode origin", with("Origin", "Origin: https://xn--pp-fka.example.com"), "403"),
        ("two origins", two_origins(), "403"),
        ("too many headers", many_headers(120), "431"),
        ("too large a header", with("X-Large", &format!("X-Large: {}", "x".repeat(20_000))), "431"),
    ];
    for (name, lines, status) in cases {
        let answer = exchange(&server, &lines).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert!(!answer.contains(jwt), "{name}: the answer repeats the token");
    }
    let allowed = with("Origin", "Origin: https://app.example.com");
    assert!(exchange(&server, &allowed).await.starts_with("HTTP/1.1 101 "));
}

fn two_origins() -> Vec<String> {
    let mut lines = with("Origin", "Origin: https://app.example.com");
    lines.push("Origin: https://app.example.com".to_owned());
    lines
}

fn smuggling() -> Vec<String> {
    let mut lines = with("Content-Length", "Content-Length: 3");
    lines.push("Transfer-Encoding: chunked".to_owned());
    lines
}

fn many_headers(count: usize) -> Vec<String> {
    let mut lines = with("Host", "Host: chappe.test");
    lines.extend((0..count).map(|number| format!("X-{number}: y")));
    lines
}

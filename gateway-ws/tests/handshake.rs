//! Handshakes, good and bad, as bytes on a socket.

#![allow(clippy::unwrap_used, reason = "for tests")]

mod support;

use std::time::Duration;

use chappe_protocol::ErrorCode::{
    self, Invalid, MethodNotAllowed, NotFound, OriginForbidden, TokenInUrl, TokenInvalid,
};
use support::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The error that the answer names; none from the parser of HTTP, which knows no codes.
type Code = Option<ErrorCode>;

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln";

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

/// Sends a request and reads the answer, until its end or that of its head if it is a switch.
async fn exchange(server: &Server, lines: &[String]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{}\r\n\r\n", lines.join("\r\n"));
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    let switched = |answer: &[u8]| {
        answer.starts_with(b"HTTP/1.1 101 ") && answer.windows(4).any(|end| end == b"\r\n\r\n")
    };
    while !switched(&answer) && !is_upgrade_required(&answer) {
        let read = tokio::time::timeout(Duration::from_secs(15), socket.read(&mut chunk));
        match read.await.expect("an answer, and the end of the connection").unwrap() {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A whole `426`, which names the upgrade in `Connection` and leaves the connection for it.
fn is_upgrade_required(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 426 ") && answer.ends_with(b"}")
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
    let cases = [bad_requests(), bad_credentials(), bad_sizes()].concat();
    assert!(cases.len() >= 28, "{} cases", cases.len());
    for (name, lines, status, code) in cases {
        let answer = exchange(&server, &lines).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if let Some(code) = code {
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["code"], code.number(), "{name}: {problem}");
            assert_eq!(problem["status"].to_string(), status, "{name}: {problem}");
        }
        // It was read to its end: the connection closed, unless it may still be upgraded.
        let connection = if status == "426" { "upgrade" } else { "close" };
        let says = format!("\r\nconnection: {connection}\r\n");
        assert!(format!("{head}\r\n").to_lowercase().contains(&says), "{name}: {head}");
        assert!(!answer.contains(JWT), "{name}: the answer repeats the token");
    }
    let allowed = with("Origin", "Origin: https://app.example.com");
    assert!(exchange(&server, &allowed).await.starts_with("HTTP/1.1 101 "));
}

/// What is wrong, the request, the status of its answer and the code in it.
type Case = (&'static str, Vec<String>, &'static str, Code);

/// Requests that no WebSocket begins with.
fn bad_requests() -> Vec<Case> {
    vec![
        ("another path", with("GET", "GET /elsewhere HTTP/1.1"), "404", Some(NotFound)),
        ("another method", with("GET", "POST /v1/ws HTTP/1.1"), "405", Some(MethodNotAllowed)),
        ("no host", with("Host", ""), "400", Some(Invalid)),
        ("no upgrade", with("Upgrade", ""), "426", Some(Invalid)),
        ("no connection", with("Connection", "Connection: keep-alive"), "426", Some(Invalid)),
        (
            "an old version",
            with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"),
            "426",
            Some(Invalid),
        ),
        ("no version", with("Sec-WebSocket-Version", ""), "426", Some(Invalid)),
        ("no key", with("Sec-WebSocket-Key", ""), "400", Some(Invalid)),
        (
            "a short key",
            with("Sec-WebSocket-Key", "Sec-WebSocket-Key: c2hvcnQ="),
            "400",
            Some(Invalid),
        ),
        (
            "a key that is no base64",
            with("Sec-WebSocket-Key", "Sec-WebSocket-Key: !!!"),
            "400",
            Some(Invalid),
        ),
        (
            "a foreign subprotocol",
            with("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: chat"),
            "400",
            Some(Invalid),
        ),
        ("a body", with("Content-Length", "Content-Length: 3"), "400", Some(Invalid)),
        ("both lengths", smuggling(), "400", Some(Invalid)),
    ]
}

/// Who the client says that it is, and from which page it comes.
fn bad_credentials() -> Vec<Case> {
    let origins = [
        ("a foreign origin", "https://evil.example"),
        ("the null origin", "null"),
        ("an origin with a suffix", "https://app.example.com.evil"),
        ("an origin with a prefix", "https://notapp.example.com"),
        ("an origin in other case", "https://APP.example.com"),
        ("an origin with a port", "https://app.example.com:443"),
        ("an origin without TLS", "http://app.example.com"),
        ("a punycode origin", "https://xn--pp-fka.example.com"),
    ];
    let foreign = |(name, origin)| {
        (name, with("Origin", &format!("Origin: {origin}")), "403", Some(OriginForbidden))
    };
    let mut cases: Vec<Case> = origins.map(foreign).into();
    cases.extend([
        (
            "a token in the query",
            with("GET", "GET /v1/ws?token=x HTTP/1.1"),
            "400",
            Some(TokenInUrl),
        ),
        (
            "an access token in the query",
            with("GET", "GET /v1/ws?a=b&Access_Token=x HTTP/1.1"),
            "400",
            Some(TokenInUrl),
        ),
        (
            "a JWT under another name",
            with("GET", &format!("GET /v1/ws?x={JWT} HTTP/1.1")),
            "400",
            Some(TokenInUrl),
        ),
        (
            "a wrong scheme",
            with("Authorization", "Authorization: Basic eDp5"),
            "401",
            Some(TokenInvalid),
        ),
        ("two origins", two_origins(), "403", Some(OriginForbidden)),
    ]);
    cases
}

/// More than is read.
fn bad_sizes() -> Vec<Case> {
    vec![
        ("too many headers", many_headers(120), "431", None),
        (
            "too large a header",
            with("X-Large", &format!("X-Large: {}", "x".repeat(20_000))),
            "431",
            None,
        ),
    ]
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

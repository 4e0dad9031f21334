//! Bad input: each case gets the coded error of the table, on every frontend, and leaves the
//! connection or closes it as the table says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cases;
mod frames;
mod rest;
mod world;

use std::collections::HashMap;

use cases::{CASES, Case};
use chappe_protocol::ErrorCode;
use chappe_tests::{Client, Transport, http};
use serde_json::{Value, json};
use world::World;

/// The code with this name.
fn code(name: &str) -> ErrorCode {
    let found = ErrorCode::ALL.iter().find(|code| code.name() == name);
    *found.unwrap_or_else(|| panic!("there is no code {name}"))
}

/// Runs every case on one connection for each actor; a case that closes it gets a new one.
async fn refuse_all(transport: Transport) {
    let world = World::new().await;
    let mut clients: HashMap<&str, Client> = HashMap::new();
    for case in CASES {
        let mut client = match clients.remove(case.who) {
            Some(client) => client,
            None => Client::signed_in(&world.server, transport, case.who).await,
        };
        let frame = world.fill_in(case);
        let what = format!("{frame} over {transport:?}");
        let id = client.post(frame).await;
        // A frame that the scan stops at has no id yet.
        let is_answer = |frame: &Value| frame.get("id").is_none_or(|answered| *answered == id);
        let mut answer = client.find(&what, is_answer).await;
        check_error(&what, case, &answer["error"].take());
        if after_error(&mut client, code(case.code), &what).await {
            clients.insert(case.who, client);
        }
    }
}

/// The error is the table's, and what a client does about it is said.
fn check_error(what: &str, case: &Case, error: &Value) {
    let expected = code(case.code);
    assert_eq!(error["name"], case.code, "{what}: {error}");
    assert_eq!(error["code"], expected.number(), "{what}: {error}");
    assert!(error["message"].as_str().is_some_and(|words| !words.is_empty()), "{what}: {error}");
    let waits = error.get("retry_after_ms").is_some();
    assert_eq!(waits, expected.retry_after_ms().is_some(), "{what}: {error}");
}

/// Whether the connection stayed, which must be as the table says.
async fn after_error(client: &mut Client, code: ErrorCode, what: &str) -> bool {
    match code.closes() {
        None => {
            assert_eq!(client.ask(json!({"ping": {}})).await, Ok(json!({})), "{what}");
            true
        }
        Some(close) => {
            let closing = client.find("closing", |frame| frame.get("closing").is_some()).await;
            assert_eq!(closing["closing"]["code"], close.number(), "{what}");
            assert_eq!(client.closed().await, Some(close.number()), "{what}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_websocket_in_json() {
    refuse_all(Transport::WsJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_websocket_in_messagepack() {
    refuse_all(Transport::WsMessagePack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_quic() {
    refuse_all(Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_http() {
    let world = World::new().await;
    for case in CASES {
        let frame = world.fill_in(case);
        let request = rest::request(&frame);
        let token = format!("Bearer {}", world.server.token(case.who));
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let body = request.body.as_ref().map_or(String::new(), Value::to_string);
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let address = world.server.run().tcp;
        let (method, path) = (request.method, &request.path);
        let response = http::request(address, method, path, &headers, body.as_bytes()).await;
        let what = format!("{method} {path} {body}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what}");
        check_error(&what, case, &response.json());
        assert_eq!(response.status, code(case.code).http_status(), "{what}");
    }
}

#[test]
fn there_are_enough_cases_and_no_two_are_the_same() {
    assert!(CASES.len() >= 60, "{} cases", CASES.len());
    let mut seen: Vec<_> = CASES.iter().map(|case| (case.who, case.command)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), CASES.len(), "a case is there twice");
}

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

/// Cases of one frontend, each judged by its code and by what becomes of the connection.
const CASES_MIN: usize = 60;

/// Runs every case on one connection for each actor; a case that closes it gets a new one.
async fn refuse_all(transport: Transport, world: &World) {
    let mut clients: HashMap<&str, Client> = HashMap::new();
    let (mut stayed, mut closed) = (0, 0);
    for case in CASES {
        let mut client = match clients.remove(case.who) {
            Some(client) => client,
            None => Client::signed_in(&world.server, transport, case.who).await,
        };
        let frame = world.fill_in(case);
        let what = format!("{frame} over {transport:?}");
        let mut error = refusal(&mut client, &frame, &what).await;
        while may_be_lost(case, &error) {
            error = refusal(&mut client, &frame, &what).await;
        }
        check_error(&what, case, &error);
        if after_error(&mut client, code(case.code), &what).await {
            stayed += 1;
            clients.insert(case.who, client);
        } else {
            closed += 1;
        }
    }
    assert!(stayed + closed >= CASES_MIN && closed > 0, "{stayed} stayed, {closed} closed");
}

async fn refusal(client: &mut Client, frame: &Value, what: &str) -> Value {
    let id = client.post(frame.clone()).await;
    // A frame that the scan stops at has no id yet.
    let is_answer = |frame: &Value| frame.get("id").is_none_or(|answered| *answered == id);
    client.find(what, is_answer).await["error"].take()
}

/// A signal is delivered at most once: if the line was cut while it was under way, it is not known
/// whether the leader refused it. Nothing else may be in doubt.
fn may_be_lost(case: &Case, error: &Value) -> bool {
    let is_signal = ["{\"typing\"", "{\"signal\""].iter().any(|key| case.command.starts_with(key));
    is_signal && error["name"] == "unknown"
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
    refuse_all(Transport::WsJson, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_websocket_in_messagepack() {
    refuse_all(Transport::WsMessagePack, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_quic() {
    refuse_all(Transport::Quic, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_a_bad_line_as_well() {
    let world = World::behind_a_bad_line().await;
    for transport in Transport::ALL {
        refuse_all(transport, &world).await;
    }
    refuse_all_over_http(&world).await;
    assert!(world.cuts() > 10, "{} cuts", world.cuts());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_refused_over_http() {
    refuse_all_over_http(&World::new().await).await;
}

/// All on one connection: a request that is refused leaves it for the next one, whatever the table
/// says of links, because each request stands for itself.
async fn refuse_all_over_http(world: &World) {
    let mut connection = http::Connection::open(world.server.run().tcp).await;
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
        let (method, path) = (request.method, &request.path);
        let what = format!("{method} {path} {body}");
        let response = loop {
            let response = connection.request(method, path, &headers, body.as_bytes()).await;
            if !may_be_lost(case, &response.json()) {
                break response;
            }
        };
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what}");
        check_error(&what, case, &response.json());
        assert_eq!(response.status, code(case.code).http_status(), "{what}");
        assert_eq!(response.header("connection"), None, "{what}: the connection stays");
    }
    assert!(connection.answered() >= CASES_MIN, "{} on one connection", connection.answered());
}

#[test]
fn there_are_enough_cases_and_no_two_are_the_same() {
    assert!(CASES.len() >= 60, "{} cases", CASES.len());
    let mut seen: Vec<_> = CASES.iter().map(|case| (case.who, case.command)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), CASES.len(), "a case is there twice");
}

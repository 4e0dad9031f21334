//! Signing in, staying signed in, and who is turned away.

use chappe_protocol::CloseCode;
use serde_json::json;

use super::{CHANNEL, Rig, hello};
use crate::{
    auth::{ApiKey, AuthConfig, Authenticator},
    session::Errand,
    testing,
};

#[test]
fn hello_tells_who_the_caller_is_and_what_is_in_force() {
    let mut rig = Rig::new();
    let peer = rig.connect();
    let ok = rig.ask(peer, &hello("ada"));
    assert_eq!(ok["id"], 1);
    assert_eq!(ok["ok"]["user"], testing::user("ada").to_string());
    assert_eq!(ok["ok"]["incarnation"], 1);
    assert_eq!(ok["ok"]["ping_ms"], 25_000);
    assert_eq!(ok["ok"]["limits"]["frame_bytes"], 65_536);
    assert!(ok["ok"].get("subscribed").is_none());
}

#[test]
fn nothing_but_hello_is_taken_first() {
    let mut rig = Rig::new();
    let peer = rig.connect();
    assert_eq!(rig.ask(peer, r#"{"id":1,"ping":{}}"#), json!({"id": 1, "ok": {}}));
    rig.send(peer, r#"{"id":2,"join":{"channel":"7"}}"#);
    let frames = rig.take(peer);
    assert_eq!(frames[0]["error"]["name"], "hello_required");
    assert_eq!(frames[1]["closing"]["name"], "unauthenticated");
    assert_eq!(rig.closed[&peer], CloseCode::Unauthenticated);
    rig.send(peer, &hello("ada"));
    assert_eq!(rig.take(peer).len(), 0, "a closing connection is not listened to");
}

#[test]
fn a_connection_without_a_hello_in_time_is_closed() {
    let mut rig = Rig::new();
    let peer = rig.connect();
    rig.pass(4_900);
    assert_eq!(rig.take(peer).len(), 0);
    rig.pass(600);
    assert_eq!(rig.take(peer)[0]["error"]["name"], "hello_timeout");
    assert_eq!(rig.closed[&peer], CloseCode::Unauthenticated);
}

#[test]
fn a_wrong_token_is_told_from_an_expired_one() {
    let mut rig = Rig::new();
    for (token, name, close) in [
        ("nonsense".to_owned(), "token_invalid", CloseCode::Unauthenticated),
        (testing::token_until("ada", 1), "token_expired", CloseCode::Expired),
    ] {
        let peer = rig.connect();
        rig.send(peer, &format!(r#"{{"id":1,"hello":{{"token":"{token}"}}}}"#));
        let frames = rig.take(peer);
        assert_eq!(frames[0]["error"]["name"], name);
        assert!(!frames[0].to_string().contains(&token), "a token is never repeated");
        assert_eq!(rig.closed[&peer], close);
    }
}

#[test]
fn what_comes_behind_a_hello_is_done_after_it_and_in_order() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let peer = rig.connect();
    let burst = [
        hello("ada"),
        r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#.to_owned(),
        r#"{"id":3,"publish":{"channel":"7","text":"x"}}"#.to_owned(),
    ];
    rig.send(peer, &burst.join("\n"));
    let frames = rig.take(peer);
    let ids: Vec<_> = frames.iter().filter_map(|frame| frame["id"].as_u64()).collect();
    assert_eq!(ids, [1, 2, 3], "{frames:?}");
    assert_eq!(frames.iter().filter(|frame| frame.get("event").is_some()).count(), 1);
}

#[test]
fn a_second_hello_is_a_mistake_but_not_an_end() {
    let mut rig = Rig::new();
    let peer = rig.client("ada");
    assert_eq!(rig.ask(peer, &hello("ada"))["error"]["name"], "already_signed_in");
    assert_eq!(rig.ask(peer, r#"{"id":2,"ping":{}}"#), json!({"id": 2, "ok": {}}));
}

#[test]
fn a_token_of_the_handshake_signs_in_and_hello_then_tells_who() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let peer = rig.connect_with(Some(testing::token("ada")));
    assert_eq!(rig.take(peer).len(), 0, "nobody asked");
    let ok = rig.ask(
        peer,
        r#"{"id":1,"hello":{"token":"","resume":{"incarnation":1,"channels":[["7",1]]}}}"#,
    );
    assert_eq!(ok["ok"]["user"], testing::user("ada").to_string());
    assert_eq!(ok["ok"]["subscribed"][0]["rev"], 1);
    assert_eq!(rig.ask(peer, &hello("ada"))["error"]["name"], "already_signed_in");
}

#[test]
fn a_wrong_token_of_the_handshake_closes() {
    let mut rig = Rig::new();
    let peer = rig.connect_with(Some("nonsense".to_owned()));
    assert_eq!(rig.take(peer)[0]["error"]["name"], "token_invalid");
    assert_eq!(rig.closed[&peer], CloseCode::Unauthenticated);
}

#[test]
fn a_token_that_is_not_refreshed_ends_the_session_after_its_grace() {
    let mut rig = Rig::new();
    let peer = rig.connect();
    let exp = rig.now.unix_ms / 1_000 + 10;
    let token = testing::token_until("ada", exp);
    rig.ask(peer, &format!(r#"{{"id":1,"hello":{{"token":"{token}"}}}}"#));
    rig.pass(10_000);
    let later = testing::token_until("ada", exp + 60);
    let ok = rig.send_and_last(peer, &format!(r#"{{"id":2,"refresh":{{"token":"{later}"}}}}"#));
    assert_eq!(ok["ok"]["expires_at"], (exp + 60) * 1_000);
    for _ in 0..16 {
        rig.pass(5_000);
        rig.send(peer, r#"{"pong":{}}"#);
    }
    assert!(!rig.closed.contains_key(&peer), "80 s later it is within its grace");
    rig.pass(12_000);
    assert_eq!(rig.closed[&peer], CloseCode::Expired);
}

#[test]
fn a_refresh_with_another_users_token_is_forbidden() {
    let mut rig = Rig::new();
    let peer = rig.client("ada");
    let token = testing::token("bob");
    rig.send(peer, &format!(r#"{{"id":2,"refresh":{{"token":"{token}"}}}}"#));
    assert_eq!(rig.take(peer)[0]["error"]["name"], "wrong_user");
    assert_eq!(rig.closed[&peer], CloseCode::Forbidden);
}

#[test]
fn closing_a_users_sessions_reaches_those_that_read_nothing() {
    let mut rig = Rig::new();
    let (ada, bob) = (rig.client("ada"), rig.client("bob"));
    let admin = rig.admin_call_close("ada");
    assert!(rig.answers[&admin].is_ok(), "{:?}", rig.answers[&admin]);
    assert_eq!(rig.take(ada)[0]["error"]["name"], "session_revoked");
    assert_eq!(rig.closed[&ada], CloseCode::Revoked);
    assert!(!rig.closed.contains_key(&bob));
}

#[test]
fn no_token_shows_in_what_is_printed_for_debugging() {
    let mut rig = Rig::new();
    let peer = rig.connect();
    rig.down = true;
    rig.shard.handle_message(peer, hello("ada").as_bytes());
    let printed = format!("{:?}", rig.shard.session(peer));
    assert!(printed.contains("SignIn"), "the sign-in is under way");
    assert!(!printed.contains(&testing::token("ada")));
    let errand = Errand::CloseSessions { token: "a token".into(), user: testing::user("ada") };
    assert!(!format!("{errand:?}").contains("a token"));
    let config = AuthConfig { development_secret: Some(vec![201; 32]), ..AuthConfig::default() };
    assert!(!format!("{config:?}").contains("201"));
}

#[test]
fn a_user_has_so_many_connections_and_the_newest_is_refused() {
    let mut rig = Rig::with(|config| config.limits.connections_per_user = 2);
    let first = rig.client("ada");
    rig.client("ada");
    let third = rig.connect();
    rig.send(third, &hello("ada"));
    assert_eq!(rig.take(third)[0]["error"]["name"], "too_many_connections");
    assert_eq!(rig.closed[&third], CloseCode::Rate);
    rig.shard.handle_gone(first);
    rig.client("ada");
}

#[test]
fn a_back_end_signs_in_with_its_key_and_has_no_inbox() {
    let key = ApiKey::new("billing", KEY_SHA256).unwrap();
    let config = AuthConfig { api_keys: vec![key], ..AuthConfig::default() };
    let mut rig = Rig::with_auth(|_| {}, Authenticator::new(config).unwrap());
    rig.leader.make(CHANNEL, &[]);
    let peer = rig.connect();
    let ok = rig.ask(peer, r#"{"id":1,"hello":{"token":"a key"}}"#);
    assert!(ok.get("ok").is_some(), "{ok}");
    assert!(rig.asked().is_empty(), "nothing was attached for it");
    let ok = rig.ask(peer, r#"{"id":2,"publish":{"channel":"7","text":"x"}}"#);
    assert_eq!(ok["ok"]["rev"], 1, "{ok}");
}

/// SHA-256 of `a key`.
const KEY_SHA256: &str = "8fa3aab2faa9b79e0a0398da5b5abd0780142442a5be80b9a64608d718cb1fcd";

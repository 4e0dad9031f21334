//! What happens because time passes: pings, silence, standing still, draining.

use chappe_protocol::{CloseCode, Encoding};
use serde_json::json;

use super::{CHANNEL, Rig, Socket, hello, publish};
use crate::{link::Framing, testing};

#[test]
fn a_client_is_pinged_with_the_heads_of_its_channels() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.reader("ada");
    rig.pass(25_500);
    let frames = rig.take(ada);
    assert_eq!(frames[0]["ping"]["heads"], json!([["7", 1]]));
    assert!(frames[0]["ping"]["at"].as_u64().unwrap() > 1_600_000_000_000);
    rig.send(ada, r#"{"pong":{}}"#);
    rig.pass(25_500);
    assert_eq!(rig.take(ada).len(), 1, "every 25 s");
}

#[test]
fn a_connection_that_says_nothing_for_a_minute_is_dropped() {
    let mut rig = Rig::new();
    let (quiet, lively) = (rig.client("ada"), rig.client("bob"));
    for _ in 0..8 {
        rig.pass(10_000);
        rig.shard.handle_message(lively, &[]); // a pong of its transport
    }
    assert!(rig.shard.close_code(quiet).is_none());
    assert!(!rig.shard.is_here(quiet));
    assert!(rig.shard.is_here(lively));
    assert_eq!(rig.gate.connections(), 0, "this rig counts none");
}

#[test]
fn a_shard_that_stood_still_closes_its_sessions_and_executes_nothing() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.reader("ada");
    rig.cut_pipe();
    rig.send(ada, &publish(1, "held"));
    rig.now.boot_ms += 31_000;
    rig.shard.handle_time(rig.now);
    rig.shard.handle_message(ada, publish(2, "late").as_bytes());
    rig.open_pipe();
    let frames = rig.take(ada);
    assert_eq!(frames.last().unwrap()["closing"]["name"], "drain");
    assert_eq!(rig.closed[&ada], CloseCode::Drain);
    assert!(rig.leader.done.is_empty());
}

#[test]
fn a_short_stop_changes_nothing() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.reader("ada");
    rig.jump(29_000);
    rig.send(ada, &publish(1, "a"));
    assert!(!rig.closed.contains_key(&ada));
    assert_eq!(rig.leader.done.len(), 1);
}

#[test]
fn a_drain_spreads_the_closes_over_its_time_and_says_when_to_come_back() {
    let mut rig = Rig::new();
    let peers: Vec<_> = (0..100).map(|number| rig.client(&format!("user {number}"))).collect();
    rig.shard.drain(10_000);
    let mut closed_by = Vec::new();
    for _ in 0..10 {
        rig.pass(1_000);
        closed_by.push(rig.closed.len());
    }
    for (second, closed) in closed_by.iter().enumerate() {
        let even = 10 * (second + 1);
        assert!(closed.abs_diff(even) <= 2, "{closed_by:?}");
    }
    let mut moments = Vec::new();
    for peer in &peers {
        assert_eq!(rig.closed[peer], CloseCode::Drain);
        let closing = rig.take(*peer).pop().unwrap();
        moments.push(closing["closing"]["reconnect_after_ms"].as_u64().unwrap());
        rig.shard.handle_gone(*peer);
    }
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 80, "they do not all come back at once");
    assert!(rig.shard.is_drained());
}

#[test]
fn a_closing_connection_that_does_not_go_is_dropped() {
    let mut rig = Rig::new();
    let ada = rig.client("ada");
    rig.block(ada, 0);
    rig.send(ada, "{");
    assert!(!rig.closed.contains_key(&ada), "what was said is not sent yet");
    rig.pass(3_500);
    assert_eq!(rig.closed[&ada], CloseCode::ProtocolError, "not waited for any longer");
    assert!(rig.shard.is_here(ada));
    rig.pass(3_500);
    assert!(!rig.shard.is_here(ada));
}

#[test]
fn a_ring_that_is_not_used_is_given_up() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.reader("ada");
    rig.publish("x");
    assert!(rig.shard.ring_bytes() > 0);
    for _ in 0..7 {
        rig.pass(10_000);
        rig.send(ada, r#"{"pong":{}}"#);
    }
    assert_eq!(rig.shard.ring_bytes(), 0);
    rig.take(ada);
    rig.publish("y");
    assert_eq!(rig.revs(ada), [3]);
}

#[test]
fn a_ring_in_a_further_form_is_counted_when_it_is_made_as_when_it_is_given_up() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada"), testing::user("bob")]);
    let ada = rig.reader("ada");
    rig.publish("x");
    let one_form = rig.shard.ring_bytes();
    let address = std::net::IpAddr::from([127, 0, 0, 1]).into();
    let bob = rig.shard.handle_connect(address, Encoding::Json, Framing::WebSocketText, 1, None);
    rig.clients.sockets.insert(bob, Socket::default());
    rig.send(bob, &hello("bob"));
    rig.send(bob, r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#);
    assert!(rig.shard.ring_bytes() > one_form, "what the ring holds is there in both forms");
    // Counting less than is given up would count below nothing.
    for peer in [bob, ada] {
        rig.shard.handle_gone(peer);
    }
    assert_eq!(rig.shard.ring_bytes(), 0);
}

#[test]
fn a_timer_from_before_it_was_closed_does_not_push_a_connection() {
    let mut rig = Rig::new();
    let ada = rig.client("ada");
    // The time that she had for her hello is nearly over, and still noted.
    rig.pass(4_900);
    rig.block(ada, 0);
    rig.send(ada, "{");
    rig.pass(2_900);
    assert!(!rig.closed.contains_key(&ada), "what was said is not sent yet");
    rig.pass(600);
    assert_eq!(rig.closed[&ada], CloseCode::ProtocolError);
}

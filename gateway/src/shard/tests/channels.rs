//! Reading channels: fan-out, order, the end of reading, and those who do not keep up.

use chappe_protocol::{ChannelId, CloseCode, Seq};
use chappe_uplink::Request;
use serde_json::json;

use super::{CHANNEL, Rig};
use crate::testing;

fn two_members() -> Rig {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada"), testing::user("bob")]);
    rig
}

#[test]
fn a_subscription_says_where_it_begins_and_events_follow() {
    let mut rig = two_members();
    let ada = rig.client("ada");
    let ok = rig.ask(ada, r#"{"id":2,"subscribe":{"channels":[{"id":"7"},{"id":"99"}]}}"#);
    assert_eq!(ok["ok"]["channels"][0], json!({"channel": "7", "rev": 2, "head": 2}));
    assert_eq!(ok["ok"]["channels"][1]["error"]["name"], "not_found");
    rig.publish("one");
    rig.publish("two");
    assert_eq!(rig.revs(ada), [3, 4]);
}

#[test]
fn an_author_hears_his_own_message_with_his_nonce() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.send(ada, &super::publish(5, "mine"));
    let frames = rig.take(ada);
    let event = frames.iter().find(|frame| frame.get("event").is_some()).unwrap();
    assert_eq!(event["event"]["nonce"], "mine");
}

#[test]
fn what_is_new_in_many_channels_is_sent_at_once() {
    let mut rig = two_members();
    rig.leader.make(ChannelId::new(8), &[testing::user("ada")]);
    let ada = rig.reader("ada");
    rig.ask(ada, r#"{"id":3,"subscribe":{"channels":[{"id":"8"}]}}"#);
    let sends = rig.clients.sockets[&ada].sends;
    let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), "x");
    said.extend(rig.leader.publish(ChannelId::new(8), testing::user("bob"), "y"));
    said.extend(rig.leader.publish(CHANNEL, testing::user("bob"), "z"));
    rig.say(said);
    assert_eq!(rig.clients.sockets[&ada].sends, sends + 1);
    assert_eq!(rig.take(ada).len(), 3);
}

#[test]
fn subscribing_twice_is_one_subscription() {
    let mut rig = two_members();
    let ada = rig.client("ada");
    let subscribe = |id: u32| format!(r#"{{"id":{id},"subscribe":{{"channels":[{{"id":"7"}}]}}}}"#);
    rig.send(ada, &[subscribe(2), subscribe(3)].join("\n"));
    assert_eq!(rig.take(ada).len(), 2);
    rig.block(ada, 0);
    rig.publish("waits");
    rig.send(ada, &subscribe(4));
    rig.unblock(ada);
    rig.publish("follows");
    let frames = rig.take(ada);
    let place = &frames.iter().find(|frame| frame["id"] == 4).unwrap()["ok"]["channels"][0];
    assert_eq!(*place, json!({"channel": "7", "rev": 2, "head": 3}), "what waits still comes");
    let revs: Vec<_> = frames.iter().filter_map(|frame| frame["event"]["rev"].as_u64()).collect();
    assert_eq!(revs, [3, 4]);
}

#[test]
fn a_subscription_from_an_earlier_revision_begins_there_anew() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.publish("one");
    rig.publish("two");
    assert_eq!(rig.revs(ada), [3, 4]);
    rig.send(ada, r#"{"id":3,"subscribe":{"channels":[{"id":"7","from":3}]}}"#);
    let frames = rig.take(ada);
    assert_eq!(frames[0]["ok"]["channels"][0]["catching_up"], true);
    assert_eq!(frames[1]["event"]["rev"], 4);
    assert_eq!(frames[2]["live"]["rev"], 4);
}

#[test]
fn unsubscribing_ends_events_at_once() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    assert_eq!(
        rig.ask(ada, r#"{"id":3,"unsubscribe":{"channels":["7"]}}"#),
        json!({"id": 3, "ok": {}})
    );
    rig.publish("x");
    assert_eq!(rig.take(ada).len(), 0);
}

#[test]
fn a_removed_member_gets_the_removal_and_nothing_after_it() {
    let mut rig = two_members();
    let (ada, bob) = (rig.reader("ada"), rig.reader("bob"));
    let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), "before");
    said.extend(rig.leader.remove(CHANNEL, testing::user("ada")));
    said.extend(rig.leader.publish(CHANNEL, testing::user("bob"), "after"));
    rig.say(said);
    rig.publish("later");
    let frames = rig.take(ada);
    let kinds: Vec<_> = frames.iter().map(|frame| frame["event"]["kind"].clone()).collect();
    assert_eq!(kinds, ["message.created", "member.removed"]);
    assert_eq!(rig.take(bob).len(), 4);
}

#[test]
fn a_removed_member_who_was_blocked_gets_no_more_than_that_either() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.block(ada, 0);
    rig.publish("before");
    let said = rig.leader.remove(CHANNEL, testing::user("ada"));
    rig.say(said);
    rig.publish("after");
    rig.unblock(ada);
    assert_eq!(rig.revs(ada), [3, 4]);
}

#[test]
fn an_edit_or_deletion_reaches_the_ring_before_anyone_reads_it_again() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.block(ada, 3); // her socket cuts the first frame
    rig.publish("first");
    rig.publish("a secret");
    rig.publish("kept");
    let bob = testing::user("bob");
    let said = rig.leader.change(CHANNEL, bob, Seq::new(2), None);
    rig.say(said);
    let said = rig.leader.change(CHANNEL, bob, Seq::new(3), Some("mended"));
    rig.say(said);
    rig.unblock(ada);
    let frames = rig.take(ada);
    assert_eq!(
        frames.iter().map(|f| f["event"]["rev"].as_u64().unwrap()).collect::<Vec<_>>(),
        [3, 4, 5, 6, 7]
    );
    assert!(!frames.iter().any(|frame| frame.to_string().contains("a secret")));
    assert_eq!(frames[1]["event"]["body"]["message"]["deleted"], true);
    assert_eq!(frames[2]["event"]["body"]["message"]["text"], "mended");
    assert_eq!(frames[2]["event"]["kind"], "message.created", "it says what happened then");
}

#[test]
fn a_slow_reader_goes_on_from_the_ring_with_every_event_whole() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    for room in [1, 50, 500, 7] {
        rig.block(ada, room);
        for _ in 0..5 {
            rig.publish(&"x".repeat(100));
        }
        rig.unblock(ada);
    }
    assert_eq!(rig.revs(ada), (3..23).collect::<Vec<_>>());
}

#[test]
fn a_reader_who_fell_off_the_ring_catches_up_from_the_leader() {
    let mut rig = Rig::with(|config| config.limits.ring_bytes = 4_096);
    rig.leader.make(CHANNEL, &[testing::user("ada"), testing::user("bob")]);
    let (ada, bob) = (rig.reader("ada"), rig.reader("bob"));
    rig.block(ada, 10);
    for _ in 0..100 {
        rig.publish(&"x".repeat(200));
    }
    assert_eq!(rig.revs(bob), (3..103).collect::<Vec<_>>());
    rig.unblock(ada);
    assert_eq!(rig.revs(ada), (3..103).collect::<Vec<_>>(), "in order and without a live");
    rig.publish("x");
    assert_eq!(rig.revs(ada), [103]);
}

#[test]
fn a_reader_who_stays_behind_is_closed_as_slow_and_others_lose_nothing() {
    let mut rig = two_members();
    let (ada, bob) = (rig.reader("ada"), rig.reader("bob"));
    rig.block(ada, 0);
    for _ in 0..50 {
        rig.publish("x");
        rig.pass(500);
        rig.send(ada, r#"{"pong":{}}"#);
    }
    assert_eq!(rig.closed.get(&ada), None, "25 s are not too long");
    rig.pass(6_000);
    rig.pass(4_000); // what cannot be sent is not waited for
    assert_eq!(rig.closed[&ada], CloseCode::Slow);
    let frames = rig.take(bob);
    assert_eq!(frames.iter().filter(|frame| frame.get("event").is_some()).count(), 50);
}

#[test]
fn what_waits_for_a_connection_is_bounded() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.block(ada, 0);
    for number in 0..2_000 {
        rig.publish(&"x".repeat(1_000));
        if number % 100 == 0 {
            rig.send(ada, r#"{"id":1,"history":{"channel":"7","limit":1}}"#);
        }
    }
    rig.flush_all();
    let waiting = rig.shard.waiting(ada);
    assert!(waiting <= 256 * 1024, "{waiting}");
    assert_eq!(rig.shard.close_code(ada), Some(CloseCode::Slow), "its replies did not fit");
}

#[test]
fn signals_are_taken_whole_or_dropped() {
    let mut rig = two_members();
    let (ada, bob) = (rig.reader("ada"), rig.reader("bob"));
    assert_eq!(rig.ask(ada, r#"{"id":3,"typing":{"channel":"7"}}"#), json!({"id": 3, "ok": {}}));
    rig.block(bob, 5);
    rig.ask(ada, r#"{"id":4,"signal":{"channel":"7","data":{"cursor":3}}}"#);
    let by = testing::user("ada").to_string();
    assert_eq!(rig.clients.sockets[&bob].signals, [json!({"signal": {"channel": "7", "by": by}})]);
    assert_eq!(rig.clients.sockets[&ada].signals.len(), 2);
}

#[test]
fn a_signal_under_way_when_the_pipe_ends_is_unknown_and_not_sent_again() {
    let mut rig = two_members();
    let ada = rig.client("ada");
    rig.leader.silent = true;
    rig.send(ada, r#"{"id":3,"typing":{"channel":"7"}}"#);
    rig.leader.silent = false;
    rig.asked();
    rig.cut_pipe();
    assert_eq!(rig.take(ada)[0]["error"]["name"], "unknown");
    // One that never left goes when it can.
    rig.send(ada, r#"{"id":4,"typing":{"channel":"7"}}"#);
    rig.open_pipe();
    let signals = rig.asked().into_iter().filter(|request| matches!(request, Request::Signal(_)));
    assert_eq!(signals.count(), 1);
    assert_eq!(rig.take(ada), [json!({"id": 4, "ok": {}})]);
}

#[test]
fn all_of_a_users_channels_are_followed_now_and_later() {
    let mut rig = two_members();
    let ada = rig.client("ada");
    let ok = rig.ask(ada, r#"{"id":2,"subscribe":{"channels":"mine"}}"#);
    let inbox = ChannelId::inbox(testing::user("ada")).to_string();
    let channels: Vec<_> = ok["ok"]["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| place["channel"].clone())
        .collect();
    assert_eq!(channels, ["7".to_owned(), inbox.clone()]);
    rig.leader.make(ChannelId::new(8), &[testing::user("bob")]);
    let mut said = rig.leader.add(ChannelId::new(8), testing::user("ada"));
    said.extend(rig.leader.publish(ChannelId::new(8), testing::user("bob"), "early"));
    rig.say(said);
    let said = rig.leader.publish(ChannelId::new(8), testing::user("bob"), "late");
    rig.say(said);
    let frames = rig.take(ada);
    assert_eq!(frames[0]["event"]["channel"], json!(inbox));
    assert_eq!(frames[0]["event"]["kind"], "channel.added");
    let start = frames[0]["event"]["body"]["rev"].as_u64().unwrap();
    let revs: Vec<_> = frames
        .iter()
        .filter(|frame| frame["event"]["channel"] == "8")
        .map(|frame| frame["event"]["rev"].as_u64().unwrap())
        .collect();
    assert_eq!(revs, [start + 1, start + 2], "from the revision that added her on: {frames:?}");
}

#[test]
fn a_member_who_is_removed_and_added_again_is_told_where_he_goes_on() {
    let mut rig = two_members();
    let ada = rig.client("ada");
    rig.ask(ada, r#"{"id":2,"subscribe":{"channels":"mine"}}"#);
    let user = testing::user("ada");
    let mut said = rig.leader.remove(CHANNEL, user);
    said.extend(rig.leader.publish(CHANNEL, testing::user("bob"), "not for her"));
    said.extend(rig.leader.add(CHANNEL, user));
    said.extend(rig.leader.publish(CHANNEL, testing::user("bob"), "for her"));
    rig.say(said);
    let frames = rig.take(ada);
    assert!(!frames.iter().any(|frame| frame.to_string().contains("not for her")), "{frames:?}");
    assert!(frames.iter().any(|frame| frame.to_string().contains("for her")));
}

#[test]
fn a_subscription_too_many_is_refused_alone() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    let many: Vec<_> = (1_000..1_999).map(|id| format!(r#"{{"id":"{id}"}}"#)).collect();
    for id in 1_000..1_999 {
        rig.leader.make(ChannelId::new(id), &[testing::user("ada")]);
    }
    let ok =
        rig.ask(ada, &format!(r#"{{"id":3,"subscribe":{{"channels":[{}]}}}}"#, many.join(",")));
    assert!(ok["ok"]["channels"].as_array().unwrap().iter().all(|place| place["error"].is_null()));
    rig.leader.make(ChannelId::new(5_000), &[testing::user("ada")]);
    let ok = rig.ask(ada, r#"{"id":4,"subscribe":{"channels":[{"id":"5000"}]}}"#);
    assert_eq!(ok["ok"]["channels"][0]["error"]["name"], "too_many_subscriptions");
}

#[test]
fn a_thousand_channels_and_the_own_inbox_may_be_read_together() {
    let mut rig = Rig::new();
    let user = testing::user("ada");
    for id in 1_000..2_000 {
        rig.leader.make(ChannelId::new(id), &[user]);
    }
    let cursor: Vec<_> = (1_000..2_000).map(|id| format!(r#"["{id}",1]"#)).collect();
    let resumed = rig.connect();
    let ok = rig.ask(
        resumed,
        &format!(
            r#"{{"id":1,"hello":{{"token":"{}","resume":{{"incarnation":1,"channels":[{}]}}}}}}"#,
            testing::token("ada"),
            cursor.join(",")
        ),
    );
    let mine = rig.client("ada");
    let all = rig.ask(mine, r#"{"id":2,"subscribe":{"channels":"mine"}}"#);
    for (places, count) in [(&ok["ok"]["subscribed"], 1_000), (&all["ok"]["channels"], 1_001)] {
        let places = places.as_array().unwrap();
        assert_eq!(places.len(), count);
        assert!(places.iter().all(|place| place["error"].is_null()), "{places:?}");
    }
}

#[test]
fn a_channel_without_readers_is_detached_after_a_while_and_only_then() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    rig.asked();
    rig.shard.handle_gone(ada);
    rig.pass(29_000);
    let asked = rig.asked();
    assert!(asked.is_empty(), "{asked:?}");
    rig.pass(2_000);
    let detached = rig.asked();
    assert_eq!(detached.len(), 2, "the channel and her inbox: {detached:?}");
    let ada = rig.reader("ada");
    rig.publish("x");
    assert_eq!(rig.revs(ada), [3]);
}

#[test]
fn a_deleted_channel_ends_for_everybody_with_that_event() {
    let mut rig = two_members();
    let ada = rig.reader("ada");
    let said = rig.leader.delete_channel(CHANNEL, testing::user("bob"));
    rig.say(said);
    rig.publish("a leader would not take it");
    let frames = rig.take(ada);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0]["event"]["kind"], "channel.deleted");
}

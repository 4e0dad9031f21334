//! Catching up: after an absence, after a loss on the way, after a reset.

use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, Seq};
use chappe_uplink::{Generation, Leading, ReadQuery, Request, Response};
use serde_json::json;

use super::{CHANNEL, Rig, hello, resume};
use crate::testing;

fn with_history(events: u64) -> Rig {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada"), testing::user("bob")]);
    for number in 0..events {
        rig.leader.publish(CHANNEL, testing::user("bob"), &format!("message {number}"));
    }
    rig
}

fn reads(rig: &mut Rig) -> Vec<Rev> {
    let asked = rig.asked().into_iter().filter_map(|request| match request {
        Request::Read(read) => match read.query {
            ReadQuery::Events { after, .. } => Some(after),
            _ => None,
        },
        _ => None,
    });
    asked.collect()
}

#[test]
fn resume_after_a_gap_replays_in_order_and_then_says_live() {
    let mut rig = with_history(1_000);
    let ada = rig.connect();
    rig.send(ada, &resume("ada", 2));
    let mut frames = rig.take(ada);
    let ok = frames.remove(0);
    assert_eq!(
        ok["ok"]["subscribed"][0],
        json!({"channel": "7", "rev": 2, "head": 1_002, "catching_up": true})
    );
    let live = frames.pop().unwrap();
    assert_eq!(live, json!({"live": {"channel": "7", "rev": 1_002}}));
    let revs: Vec<_> = frames.iter().map(|frame| frame["event"]["rev"].as_u64().unwrap()).collect();
    assert_eq!(revs, (3..1_003).collect::<Vec<_>>());
    rig.publish("live");
    assert_eq!(rig.revs(ada), [1_003]);
}

#[test]
fn a_resume_without_a_gap_needs_no_catching_up() {
    let mut rig = with_history(5);
    let ada = rig.connect();
    let ok = rig.ask(ada, &resume("ada", 7));
    assert!(ok["ok"]["subscribed"][0].get("catching_up").is_none());
    rig.publish("x");
    assert_eq!(rig.revs(ada), [8]);
}

#[test]
fn what_the_ring_has_is_not_read_from_the_leader() {
    let mut rig = with_history(0);
    let _bob = rig.reader("bob");
    for _ in 0..10 {
        rig.publish("x");
    }
    rig.asked();
    let ada = rig.connect();
    rig.send(ada, &resume("ada", 5));
    assert_eq!(rig.take(ada).len(), 1 + 7 + 1);
    assert_eq!(reads(&mut rig), []);
}

#[test]
fn deleted_messages_come_as_tombstones() {
    let mut rig = with_history(3);
    rig.leader.change(CHANNEL, testing::user("bob"), Seq::new(2), None);
    let ada = rig.connect();
    rig.send(ada, &resume("ada", 2));
    let frames = rig.take(ada);
    assert!(!frames.iter().any(|frame| frame.to_string().contains("message 1")));
    assert_eq!(frames[2]["event"]["body"]["message"]["deleted"], true);
}

#[test]
fn more_than_is_kept_is_reset_and_goes_on_from_there() {
    let mut rig = with_history(100);
    rig.leader.trim(CHANNEL, Rev::new(50));
    let ada = rig.connect();
    rig.send(ada, &resume("ada", 10));
    let frames = rig.take(ada);
    assert_eq!(frames[1], json!({"reset": {"channel": "7", "base": 50, "incarnation": 1}}));
    assert_eq!(frames[2]["event"]["rev"], 51);
    assert_eq!(frames.last().unwrap(), &json!({"live": {"channel": "7", "rev": 102}}));
}

#[test]
fn a_cursor_of_another_log_or_beyond_the_head_is_reset() {
    let mut rig = with_history(3);
    for cursor in
        [r#"{"incarnation":9,"channels":[["7",3]]}"#, r#"{"incarnation":1,"channels":[["7",99]]}"#]
    {
        let ada = rig.connect();
        let token = testing::token("ada");
        rig.send(ada, &format!(r#"{{"id":1,"hello":{{"token":"{token}","resume":{cursor}}}}}"#));
        let frames = rig.take(ada);
        assert_eq!(frames[1], json!({"reset": {"channel": "7", "base": 5, "incarnation": 1}}));
        rig.publish("x");
        let rev = rig.leader.head(CHANNEL).get();
        assert_eq!(rig.revs(ada), [rev]);
        rig.leader.trim(CHANNEL, Rev::ZERO);
        rig = with_history(3);
    }
}

#[test]
fn readers_who_resume_together_share_a_read_and_those_who_come_later_do_not() {
    let mut rig = with_history(50);
    rig.down = true; // requests wait
    let together: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    for peer in &together {
        rig.shard.handle_message(*peer, resume("ada", 2).as_bytes());
    }
    rig.down = false;
    rig.pump();
    for peer in &together {
        assert_eq!(rig.take(*peer).len(), 1 + 50 + 1);
    }
    let count = reads(&mut rig).len();
    assert!(count <= 3, "20 readers took {count} reads");
}

#[test]
fn a_read_that_was_sent_is_not_joined() {
    let mut rig = with_history(50);
    let (ada, bob) = (rig.connect(), rig.connect());
    rig.down = true;
    rig.shard.handle_message(ada, resume("ada", 2).as_bytes());
    rig.answer_until_page(); // her read is on its way now
    let mut said = rig.leader.change(CHANNEL, testing::user("bob"), Seq::new(1), None);
    rig.shard.handle_responses(&mut said, &mut rig.clients);
    rig.shard.handle_message(bob, resume("bob", 2).as_bytes());
    rig.down = false;
    rig.pump();
    let page = std::mem::take(&mut rig.held);
    rig.say(page);
    assert_eq!(rig.take(ada).len(), 1 + 50 + 1 + 1, "the page, live, and the deletion");
    let frames = rig.take(bob);
    assert!(!frames.iter().any(|frame| frame.to_string().contains("message 0\"")), "{frames:?}");
    assert_eq!(frames[1]["event"]["body"]["message"]["deleted"], true);
}

#[test]
fn an_event_lost_in_the_middle_is_read_before_those_behind_it() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.publish("one");
    rig.leader.lose = 2;
    rig.publish("two");
    rig.publish("three");
    assert_eq!(rig.revs(ada), [3]);
    rig.publish("four");
    assert_eq!(rig.revs(ada), [4, 5, 6]);
}

#[test]
fn what_is_lost_while_a_page_is_on_its_way_is_read_after_it() {
    let mut rig = with_history(50);
    let ada = rig.connect();
    rig.down = true;
    rig.shard.handle_message(ada, resume("ada", 2).as_bytes());
    rig.answer_until_page();
    rig.leader.lose = 1;
    for text in ["lost", "heard"] {
        let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), text);
        rig.shard.handle_responses(&mut said, &mut rig.clients);
    }
    rig.down = false;
    let page = std::mem::take(&mut rig.held);
    rig.say(page);
    let frames = rig.take(ada);
    let revs = frames.iter().filter_map(|frame| frame["event"]["rev"].as_u64());
    assert_eq!(revs.collect::<Vec<_>>(), (3..55).collect::<Vec<_>>());
    rig.publish("live");
    assert_eq!(rig.revs(ada), [55]);
}

#[test]
fn the_last_event_of_a_quiet_channel_is_found_by_the_leaders_heads() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.leader.lose = 1;
    rig.publish("lost");
    assert_eq!(rig.take(ada).len(), 0);
    let beacon = rig.leader.beacon();
    rig.say(vec![beacon]);
    assert_eq!(rig.revs(ada), [3]);
}

#[test]
fn a_client_is_not_told_of_what_its_shard_still_reads_unless_that_takes_too_long() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.pass(10_000);
    rig.down = true; // what is asked is not answered
    rig.leader.lose = 1;
    rig.publish("lost");
    let beacon = rig.leader.beacon();
    rig.say(vec![beacon]);
    let told = |rig: &mut Rig| {
        rig.pass(25_000);
        let frames = rig.take(ada);
        rig.shard.handle_message(ada, &[]); // a pong of its transport
        frames.iter().find_map(|frame| frame["ping"]["heads"][0][1].as_u64()).unwrap()
    };
    assert_eq!(told(&mut rig), 2, "it is on its way");
    assert_eq!(told(&mut rig), 3, "perhaps it is not");
    rig.down = false;
    rig.pump();
    assert_eq!(rig.revs(ada), [3]);
    rig.leader.lose = 1;
    rig.publish("lost again");
    rig.publish("heard");
    assert_eq!(rig.revs(ada), [4, 5]);
    assert_eq!(told(&mut rig), 5);
}

#[test]
fn what_happened_while_the_pipe_was_down_is_read_when_it_is_back() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.cut_pipe();
    for _ in 0..300 {
        rig.leader.publish(CHANNEL, testing::user("bob"), "x");
    }
    rig.open_pipe();
    assert_eq!(rig.revs(ada), (3..303).collect::<Vec<_>>());
    rig.publish("x");
    assert_eq!(rig.revs(ada), [303]);
}

#[test]
fn a_removal_while_the_pipe_was_down_ends_reading_where_it_happened() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.cut_pipe();
    rig.leader.publish(CHANNEL, testing::user("bob"), "before");
    rig.leader.remove(CHANNEL, testing::user("ada"));
    rig.leader.publish(CHANNEL, testing::user("bob"), "after");
    rig.open_pipe();
    assert_eq!(rig.revs(ada), [3, 4]);
}

#[test]
fn a_session_revoked_while_the_pipe_was_down_is_closed_when_it_is_back() {
    let mut rig = with_history(0);
    let ada = rig.client("ada");
    rig.cut_pipe();
    rig.leader.close_sessions(testing::user("ada"));
    rig.open_pipe();
    assert_eq!(rig.closed[&ada], chappe_protocol::CloseCode::Revoked);
}

#[test]
fn another_log_resets_those_who_read() {
    let mut rig = with_history(5);
    let ada = rig.reader("ada");
    rig.cut_pipe();
    rig.leader.generation.incarnation = Incarnation(2);
    rig.open_pipe();
    // What her inbox said meanwhile is not to be had: she begins anew.
    assert_eq!(rig.take(ada)[0]["closing"]["name"], "drain");
    let ada = rig.connect();
    rig.send(ada, &resume("ada", 7));
    let frames = rig.take(ada);
    assert_eq!(frames[0]["ok"]["incarnation"], 2);
    assert_eq!(frames[1], json!({"reset": {"channel": "7", "base": 7, "incarnation": 2}}));
    rig.publish("x");
    assert_eq!(rig.revs(ada), [8]);
}

#[test]
fn events_of_an_older_leadership_are_not_believed() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    let old = rig.leader.generation;
    rig.leader.generation.epoch = 5;
    rig.publish("new");
    assert_eq!(rig.revs(ada), [3]);
    rig.leader.generation = old;
    rig.publish("from a leader who was deposed");
    assert_eq!(rig.take(ada).len(), 0);
}

#[test]
fn a_new_leader_is_asked_for_what_the_old_one_was_attached_to() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    rig.leader.generation.epoch = 2;
    rig.leader.lose = usize::MAX;
    rig.leader.publish(CHANNEL, testing::user("bob"), "by the new leader, to nobody");
    rig.leader.lose = 0;
    let said = rig.leader.handle_open(); // it knows of no attachment
    rig.say(said);
    assert_eq!(rig.revs(ada), [3]);
    rig.publish("x");
    assert_eq!(rig.revs(ada), [4]);
}

#[test]
fn only_the_channels_of_a_partition_that_moved_are_attached_again() {
    let mut rig = with_history(0);
    let ada = rig.reader("ada");
    let moved = CHANNEL.partition(64);
    let old = rig.leader.generation;
    let new = Generation { epoch: old.epoch + 1, ..old };
    let led_by = |of_moved: Option<Generation>| {
        let all = (0..64).map(PartitionId);
        let all = all.map(|id| (id, if id == moved { of_moved } else { Some(old) }));
        let leads = all.filter_map(|(id, generation)| Some((id, generation?))).collect();
        vec![Response::Leading(Leading { partitions: 64, leads })]
    };
    rig.say(led_by(Some(old)));
    rig.leader.asked.clear();
    rig.say(led_by(None));
    assert_eq!(rig.leader.asked, [], "nobody to ask");
    rig.leader.generation = new;
    rig.say(led_by(Some(new)));
    let asked: Vec<_> = rig.leader.asked.iter().collect();
    assert!(matches!(asked[..], [Request::Attach(attach)] if attach.channel == CHANNEL));
    rig.say(led_by(Some(new)));
    assert_eq!(rig.leader.asked.len(), 1, "nothing is new");
    rig.publish("x");
    assert_eq!(rig.revs(ada), [3]);
}

#[test]
fn a_slow_reader_catches_up_at_his_own_pace_within_his_bound() {
    let mut rig = with_history(0);
    for _ in 0..500 {
        rig.leader.publish(CHANNEL, testing::user("bob"), &"x".repeat(1_000));
    }
    let ada = rig.connect();
    rig.block(ada, 2_000);
    rig.send(ada, &resume("ada", 2));
    let mut frames = rig.take(ada);
    let mut most = 0;
    while frames.last().is_none_or(|frame| frame.get("live").is_none()) {
        most = most.max(rig.shard.waiting(ada));
        rig.block(ada, 10_000);
        rig.writable(ada);
        frames.extend(rig.take(ada));
    }
    assert!(most <= 128 * 1024, "{most} bytes waited");
    let revs: Vec<_> = frames.iter().filter_map(|frame| frame["event"]["rev"].as_u64()).collect();
    assert_eq!(revs, (3..503).collect::<Vec<_>>());
}

#[test]
fn live_events_wait_while_their_subscription_is_not_answered() {
    let mut rig = with_history(0);
    rig.leader.make(ChannelId::new(8), &[testing::user("ada")]);
    let ada = rig.client("ada");
    rig.down = true;
    rig.shard.handle_message(ada, br#"{"id":2,"subscribe":{"channels":[{"id":"7"},{"id":"8"}]}}"#);
    let first = rig.shard.poll_request().unwrap();
    let mut said = rig.leader.handle(first);
    rig.shard.handle_responses(&mut said, &mut rig.clients);
    let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), "early");
    rig.shard.handle_responses(&mut said, &mut rig.clients);
    rig.pump();
    assert_eq!(rig.take(ada).len(), 0, "the reply comes first");
    rig.down = false;
    rig.pump();
    let frames = rig.take(ada);
    assert_eq!(frames[0]["id"], 2);
    assert_eq!(frames[1]["event"]["rev"], 3);
}

#[test]
fn a_page_that_fails_is_asked_for_again() {
    let mut rig = with_history(10);
    let ada = rig.connect();
    rig.down = true;
    rig.shard.handle_message(ada, resume("ada", 2).as_bytes());
    rig.answer_until_page();
    rig.refuse_next();
    rig.down = false;
    rig.pump();
    assert_eq!(rig.take(ada).len(), 1, "only the reply");
    rig.pass(200);
    assert_eq!(rig.take(ada).len(), 10 + 1);
    drop(hello("ada"));
}

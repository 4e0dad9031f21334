//! Commands: their order over retries, their deadlines, and what is refused.

use chappe_protocol::{CloseCode, ErrorCode, Incarnation, PartitionId};
use chappe_uplink::{Command, Generation, Leading, Refusal, Request, Response};
use serde_json::json;

use super::{CHANNEL, Rig, publish};
use crate::{
    config::{Rate, Rates},
    testing,
};

fn with_channel() -> (Rig, u32) {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada"), testing::user("bob")]);
    let peer = rig.client("ada");
    rig.asked();
    (rig, peer)
}

fn commands(requests: Vec<Request>) -> Vec<Command> {
    let commands = requests.into_iter().filter_map(|request| match request {
        Request::Command(command) => Some(*command),
        _ => None,
    });
    commands.collect()
}

fn nonces(rig: &Rig) -> Vec<String> {
    rig.leader.done.iter().map(|nonce| nonce.as_str().to_owned()).collect()
}

#[test]
fn a_command_is_answered_with_its_revision() {
    let (mut rig, ada) = with_channel();
    let ok = rig.ask(ada, &publish(5, "n"));
    assert_eq!(ok["id"], 5);
    assert_eq!((&ok["ok"]["rev"], &ok["ok"]["seq"]), (&json!(3), &json!(1)));
}

#[test]
fn a_retry_takes_those_behind_it_along_with_a_higher_attempt() {
    let (mut rig, ada) = with_channel();
    rig.leader.resend = 1;
    rig.send(ada, &[publish(1, "a"), publish(2, "b"), publish(3, "c")].join("\n"));
    assert_eq!(rig.take(ada).len(), 0, "nothing is decided");
    // One that comes while they wait goes behind them.
    rig.send(ada, &publish(4, "d"));
    assert_eq!(commands(rig.asked()).len(), 3);
    rig.pass(100);
    assert_eq!(nonces(&rig), ["a", "b", "c", "d"]);
    let resent = commands(rig.asked());
    assert!(resent.iter().all(|command| command.attempt == 1));
    assert!(resent.windows(2).all(|pair| pair[0].position < pair[1].position));
    let ids: Vec<_> = rig.take(ada).iter().map(|frame| frame["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn what_waits_to_be_sent_again_goes_at_once_to_a_new_leader() {
    let (mut rig, ada) = with_channel();
    rig.leader.resend = 4;
    rig.send(ada, &publish(1, "a"));
    rig.pass(400); // the fifth try would be at 600
    assert_eq!(rig.leader.resend, 0);
    rig.send(ada, &publish(2, "b"));
    assert_eq!(rig.take(ada).len(), 0);
    rig.leader.generation.epoch += 1;
    let leads = vec![(PartitionId(0), rig.leader.generation)];
    rig.say(vec![Response::Leading(Leading { partitions: 1, leads })]);
    assert_eq!(nonces(&rig), ["a", "b"]);
    assert_eq!(rig.take(ada).len(), 2);
}

#[test]
fn a_new_leader_that_wants_it_again_is_asked_soon() {
    let (mut rig, ada) = with_channel();
    rig.leader.resend = 5;
    rig.send(ada, &publish(1, "a"));
    rig.pass(700); // the sixth try would be at 1,240
    rig.leader.resend = 1;
    rig.leader.generation.epoch += 1;
    let leads = vec![(PartitionId(0), rig.leader.generation)];
    rig.say(vec![Response::Leading(Leading { partitions: 1, leads })]);
    assert_eq!(rig.take(ada).len(), 0, "it was refused");
    rig.pass(50);
    assert_eq!(nonces(&rig), ["a"]);
}

#[test]
fn a_retry_in_one_channel_does_not_stop_another() {
    let (mut rig, ada) = with_channel();
    rig.leader.make(chappe_protocol::ChannelId::new(8), &[testing::user("ada")]);
    rig.leader.resend = 1;
    rig.send(ada, &publish(1, "a"));
    let ok = rig.ask(ada, r#"{"id":2,"publish":{"channel":"8","text":"x"}}"#);
    assert_eq!(ok["id"], 2);
    rig.pass(100);
    assert_eq!(rig.take(ada)[0]["id"], 1);
}

#[test]
fn unanswered_commands_are_resent_in_order_when_the_pipe_comes_back_and_happen_once() {
    let (mut rig, ada) = with_channel();
    rig.send(ada, &publish(1, "a"));
    rig.leader.silent = true;
    rig.send(ada, &[publish(2, "b"), publish(3, "c")].join("\n"));
    rig.cut_pipe();
    rig.send(ada, &publish(4, "d"));
    rig.leader.silent = false;
    rig.open_pipe();
    assert_eq!(nonces(&rig), ["a", "b", "c", "d"]);
    let ids: Vec<_> = rig.take(ada).iter().map(|frame| frame["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn a_command_that_happened_before_the_pipe_was_cut_is_not_done_again() {
    let (mut rig, ada) = with_channel();
    // The gateway makes the nonce: the client sent none.
    rig.down = true;
    rig.shard.handle_message(ada, br#"{"id":1,"publish":{"channel":"7","text":"once"}}"#);
    let request = rig.shard.poll_request().unwrap();
    drop(rig.leader.handle(request)); // done, and the answer is lost
    rig.cut_pipe();
    rig.open_pipe();
    let ok = rig.take(ada).remove(0);
    assert_eq!(ok["ok"]["seq"], 1);
    assert_eq!(rig.leader.done.len(), 1);
}

#[test]
fn an_answer_that_never_comes_is_unknown_and_one_never_asked_is_unavailable() {
    let (mut rig, ada) = with_channel();
    rig.leader.silent = true;
    rig.send(ada, &publish(1, "a"));
    rig.cut_pipe();
    rig.send(ada, &publish(2, "b"));
    rig.send(ada, r#"{"id":3,"history":{"channel":"7"}}"#);
    rig.pass(9_900);
    assert_eq!(rig.take(ada).len(), 0);
    rig.pass(600);
    let errors: Vec<_> = rig.take(ada).iter().map(|frame| frame["error"]["name"].clone()).collect();
    assert_eq!(errors, ["unknown", "unavailable", "unavailable"]);
}

#[test]
fn those_behind_a_command_that_is_overdue_are_answered_with_it() {
    let (mut rig, ada) = with_channel();
    rig.leader.silent = true;
    rig.send(ada, &publish(1, "a"));
    rig.pass(9_000);
    rig.send(ada, &publish(2, "b"));
    rig.pass(1_500);
    let errors: Vec<_> = rig.take(ada).iter().map(|frame| frame["error"]["name"].clone()).collect();
    assert_eq!(errors, ["unknown", "unknown"]);
    rig.leader.silent = false;
    rig.send(ada, &[publish(3, "a"), publish(4, "b")].join("\n"));
    assert_eq!(nonces(&rig), ["a", "b"], "the retry of the first does not come after the second");
}

#[test]
fn a_signal_whose_broker_was_lost_is_unknown_and_not_sent_again() {
    let (mut rig, ada) = with_channel();
    rig.down = true;
    rig.shard.handle_message(ada, br#"{"id":1,"typing":{"channel":"7"}}"#);
    let Some(Request::Signal(signal)) = rig.shard.poll_request() else { panic!("a signal") };
    let refusal = Refusal { code: ErrorCode::Unknown, ..Refusal::resend() };
    let (token, generation) = (signal.token, Generation { incarnation: Incarnation(0), epoch: 0 });
    rig.down = false;
    rig.say(vec![Response::Answer { token, generation, result: Err(refusal) }]);
    assert_eq!(rig.take(ada)[0]["error"]["name"], "unknown");
    rig.pass(2_000);
    assert!(!rig.asked().iter().any(|request| matches!(request, Request::Signal(_))));
}

#[test]
fn the_age_of_a_command_grows_while_the_gateway_holds_it() {
    let (mut rig, ada) = with_channel();
    rig.cut_pipe();
    let frame = r#"{"id":1,"nonce":"n","age_ms":400,"publish":{"channel":"7","text":"x"}}"#;
    rig.send(ada, frame);
    rig.pass(5_000);
    rig.open_pipe();
    let sent = commands(rig.asked());
    assert_eq!(sent[0].age_ms, 5_400);
    assert!(sent[0].client_nonce);
}

#[test]
fn a_retry_that_is_too_old_is_refused_before_it_is_sent() {
    let (mut rig, ada) = with_channel();
    let frame = r#"{"id":1,"nonce":"n","age_ms":540001,"publish":{"channel":"7","text":"x"}}"#;
    assert_eq!(rig.ask(ada, frame)["error"]["name"], "nonce_expired");
    assert!(rig.asked().is_empty());
}

#[test]
fn an_edit_and_a_deletion_name_their_message() {
    let (mut rig, ada) = with_channel();
    rig.ask(ada, &publish(1, "a"));
    let ok = rig.ask(ada, r#"{"id":2,"edit":{"channel":"7","seq":1,"text":"b"}}"#);
    assert_eq!((&ok["ok"]["rev"], &ok["ok"]["seq"]), (&json!(4), &json!(1)));
    let ok = rig.ask(ada, r#"{"id":3,"delete":{"channel":"7","seq":1}}"#);
    assert_eq!((&ok["ok"]["rev"], &ok["ok"]["seq"]), (&json!(5), &json!(1)));
}

#[test]
fn a_refusal_of_the_leader_is_passed_on() {
    let (mut rig, _) = with_channel();
    let eve = rig.client("eve");
    assert_eq!(rig.ask(eve, &publish(1, "a"))["error"]["name"], "not_a_member");
}

#[test]
fn a_read_after_a_change_includes_it() {
    let (mut rig, ada) = with_channel();
    let rev = rig.ask(ada, &publish(1, "a"))["ok"]["rev"].as_u64().unwrap();
    let page = rig.ask(ada, r#"{"id":2,"history":{"channel":"7"}}"#);
    assert_eq!(page["ok"]["messages"][0]["text"], "a");
    let Some(Request::Read(read)) = rig.asked().pop() else { panic!("the last is the read") };
    assert_eq!(read.at_least.get(), rev);
}

#[test]
fn a_page_that_is_too_large_is_cut_on_the_far_side() {
    let (mut rig, ada) = with_channel();
    for number in 0..30 {
        let text = format!("{number} {}", "x".repeat(3_900));
        rig.publish(&text);
    }
    let page = rig.ask(ada, r#"{"id":1,"history":{"channel":"7"}}"#);
    let messages = page["ok"]["messages"].as_array().unwrap();
    assert!(messages.len() < 30 && !messages.is_empty());
    assert_eq!(messages.last().unwrap()["seq"], 30, "the newest were asked for");
    assert_eq!(page["ok"]["more_before"], true);
    let page = rig.ask(ada, r#"{"id":2,"history":{"channel":"7","after":0}}"#);
    assert_eq!(page["ok"]["messages"][0]["seq"], 1);
    assert_eq!(page["ok"]["more_after"], true);
}

#[test]
fn a_channel_is_found_by_its_name_and_unknown_ones_are_not() {
    let (mut rig, ada) = with_channel();
    let ok = rig.ask(ada, r#"{"id":1,"get_channel":{"channel":{"id":"7"}}}"#);
    assert_eq!(ok["ok"]["channel"]["id"], "7");
    let error = rig.ask(ada, r#"{"id":2,"get_channel":{"channel":{"name":"nowhere"}}}"#);
    assert_eq!(error["error"]["name"], "not_found");
}

#[test]
fn the_ok_of_a_join_waits_for_the_callers_own_inbox() {
    let (mut rig, _) = with_channel();
    let eve = rig.client("eve");
    let ok = rig.ask(eve, r#"{"id":1,"join":{"channel":"7"}}"#);
    assert!(ok["ok"].get("inbox").is_none(), "{ok}");
    rig.leader.inboxes_lag = true;
    rig.send(eve, r#"{"id":2,"leave":{"channel":"7"}}"#);
    let ok = rig.take(eve).remove(0);
    assert!(ok["ok"].get("inbox").is_none(), "the list shows that she is gone: {ok}");
    rig.send(eve, r#"{"id":3,"join":{"channel":"7"}}"#);
    rig.pass(1_900);
    assert_eq!(rig.take(eve).len(), 0, "her list does not show it");
    rig.pass(200);
    assert_eq!(rig.take(eve)[0]["ok"]["inbox"], "pending");
}

#[test]
fn the_ok_of_a_join_leaves_when_the_inbox_shows_it_late() {
    let (mut rig, _) = with_channel();
    let eve = rig.client("eve");
    rig.leader.inboxes_lag = true;
    rig.send(eve, r#"{"id":1,"join":{"channel":"7"}}"#);
    assert_eq!(rig.take(eve).len(), 0);
    rig.leader.inboxes_lag = false;
    rig.pass(1_000);
    let ok = rig.take(eve).remove(0);
    assert!(ok["ok"].get("inbox").is_none(), "{ok}");
}

#[test]
fn who_asks_too_much_is_told_how_long_to_wait_and_closed_if_he_does_not() {
    let rate = Rate { per_second: 10, burst: 3 };
    let mut rig = Rig::with(|config| {
        config.limits.rates = Rates { connection: Some(rate), ..Rates::UNLIMITED };
    });
    let peer = rig.client("ada");
    for id in 0..3 {
        assert!(rig.ask(peer, &format!(r#"{{"id":{id},"ping":{{}}}}"#)).get("ok").is_some());
    }
    let error = rig.ask(peer, r#"{"id":3,"ping":{}}"#);
    assert_eq!(error["error"]["name"], "rate_limited");
    assert_eq!(error["error"]["retry_after_ms"], 100);
    rig.pass(100);
    assert!(rig.ask(peer, r#"{"id":4,"ping":{}}"#).get("ok").is_some(), "it listened");
    for id in 0..5 {
        rig.send(peer, &format!(r#"{{"id":{id},"ping":{{}}}}"#));
    }
    assert_eq!(rig.closed[&peer], CloseCode::Rate);
}

#[test]
fn limits_of_a_user_a_channel_and_an_address_hold_over_connections() {
    let rate = Some(Rate { per_second: 1, burst: 4 });
    let none = Rates::UNLIMITED;
    for rates in [
        Rates { user: rate, ..none },
        Rates { channel: rate, ..none },
        Rates { address: rate, ..none },
    ] {
        let mut rig = Rig::with(|config| config.limits.rates = rates);
        rig.leader.make(CHANNEL, &[testing::user("ada")]);
        for _ in 0..4 {
            let peer = rig.client("ada");
            assert!(
                rig.ask(peer, r#"{"id":1,"publish":{"channel":"7","text":"x"}}"#)
                    .get("ok")
                    .is_some()
            );
        }
        let peer = rig.client("ada");
        let error = rig.ask(peer, r#"{"id":1,"publish":{"channel":"7","text":"x"}}"#);
        assert_eq!(error["error"]["name"], "rate_limited", "{rates:?}");
    }
}

#[test]
fn frames_that_cannot_be_read_are_refused_and_close_where_their_code_says() {
    let (mut rig, ada) = with_channel();
    for (frame, name) in [
        (r#"{"id":1,"dance":{}}"#, "unknown_command"),
        (r#"{"id":2,"history":{"channel":"7","limit":0}}"#, "invalid"),
        (r#"{"id":3,"publish":{"channel":"7"}}"#, "empty_message"),
    ] {
        assert_eq!(rig.ask(ada, frame)["error"]["name"], name);
    }
    rig.send(ada, "{");
    assert_eq!(rig.take(ada)[0]["error"]["name"], "malformed");
    assert_eq!(rig.closed[&ada], CloseCode::ProtocolError);
}

#[test]
fn a_client_is_not_read_while_too_much_of_it_is_under_way() {
    let mut rig = Rig::with(|config| config.limits.requests_under_way = 4);
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.client("ada");
    rig.leader.silent = true;
    for id in 0..4 {
        assert!(rig.shard.wants_input(ada));
        rig.send(ada, &publish(id, &format!("n{id}")));
    }
    assert!(!rig.shard.wants_input(ada));
    rig.leader.silent = false;
    rig.cut_pipe();
    rig.open_pipe();
    assert!(rig.shard.wants_input(ada));
}

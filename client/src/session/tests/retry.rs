//! Commands: what is sent again, when, in which order, and what the owner is told.

use super::*;

#[test]
fn a_command_under_way_is_sent_again_with_its_nonce_and_age() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("n"));
    let first = script.sent_one();
    assert_eq!((first.nonce.as_deref(), first.age_ms), (Some("n"), 0));
    script.pass(400);
    script.lose();
    script.connect(Vec::new());
    let again = script.sent_one();
    assert_eq!((again.nonce.as_deref(), again.age_ms), (Some("n"), 1_400));
    script.ok(again.id, change(A, 1));
    let answer = script.answer();
    let body: Change = answer.outcome.unwrap().body().unwrap();
    assert_eq!((body.rev.get(), answer.attempts, answer.in_doubt), (1, 2, false));
}

#[test]
fn what_waited_for_the_connection_has_no_age() {
    let mut script = Script::connected();
    script.lose();
    script.submit(publish(A), Some("n"));
    script.pass(5_000);
    script.connect(Vec::new());
    assert_eq!(script.sent_one().age_ms, 0);
}

#[test]
fn unresolved_commands_are_resent_in_order_before_later_ones() {
    let mut script = Script::connected();
    for nonce in ["1", "2", "3"] {
        script.submit(publish(A), Some(nonce));
    }
    let ids: Vec<u32> = script.sent().iter().map(|frame| frame.id).collect();
    script.ok(ids[1], change(A, 2)); // the second is resolved
    script.lose();
    script.submit(publish(A), Some("4"));
    script.connect(Vec::new());
    assert_eq!(script.sent_nonces(), ["1", "3", "4"]);
}

#[test]
fn a_reply_of_the_lost_connection_is_not_taken_for_another_commands() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let old = script.sent_one();
    script.lose();
    script.connect(Vec::new());
    let new = script.sent_one();
    assert_ne!(old.id, new.id);
    script.ok(old.id, change(A, 9));
    assert!(script.output().1.is_empty());
}

#[test]
fn a_refusal_worth_a_retry_holds_back_the_later_ones_of_its_channel_alone() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let first = script.sent_one();
    script.refuse(first.id, refusal(ErrorCode::SlowMode).retry_after(900));
    script.submit(publish(A), Some("2"));
    script.submit(publish(B), Some("3"));
    assert_eq!(script.sent_nonces(), ["3"]);
    script.pass(800);
    assert!(script.sent().is_empty(), "it waits as long as it was told");
    script.pass(300);
    assert_eq!(script.sent_nonces(), ["1", "2"]);
    assert!(script.output().1.is_empty(), "the owner hears of the result alone");
}

#[test]
fn several_refused_commands_are_retried_in_their_order() {
    let mut script = Script::connected();
    for nonce in ["1", "2", "3"] {
        script.submit(publish(A), Some(nonce));
    }
    let ids: Vec<u32> = script.sent().iter().map(|frame| frame.id).collect();
    script.refuse(ids[2], refusal(ErrorCode::Overloaded).retry_after(50));
    script.refuse(ids[0], refusal(ErrorCode::Overloaded).retry_after(500));
    script.refuse(ids[1], refusal(ErrorCode::Overloaded).retry_after(100));
    script.pass(400);
    assert!(script.sent().is_empty(), "the first one's wait holds the others");
    script.pass(300);
    assert_eq!(script.sent_nonces(), ["1", "2", "3"]);
}

#[test]
fn a_final_refusal_is_the_answer() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let id = script.sent_one().id;
    script.refuse(id, refusal(ErrorCode::NotAMember));
    let answer = script.answer();
    assert_eq!(answer.outcome.unwrap_err(), Error::Refused(refusal(ErrorCode::NotAMember)));
    assert!(!answer.in_doubt);
    assert!(script.sent().is_empty());
}

#[test]
fn a_final_refusal_of_a_retry_ends_the_doubt_unless_the_nonce_is_too_old() {
    for (code, in_doubt) in [(ErrorCode::NotAMember, false), (ErrorCode::NonceExpired, true)] {
        let mut script = Script::connected();
        script.submit(publish(A), Some("1"));
        script.sent();
        script.lose();
        script.connect(Vec::new());
        let id = script.sent_one().id;
        script.refuse(id, refusal(code));
        assert_eq!(script.answer().in_doubt, in_doubt, "{code:?}");
    }
}

#[test]
fn the_deadline_ends_a_command_and_says_whether_it_is_in_doubt() {
    for (sent, in_doubt) in [(true, true), (false, false)] {
        let mut script = Script::connected();
        if !sent {
            script.lose();
        }
        let ticket = script.submit(publish(A), Some("1"));
        script.sent();
        script.pass(29_999);
        assert!(script.output().1.is_empty());
        script.pass(1);
        let answer = script.answer();
        assert_eq!(answer.ticket, ticket);
        assert_eq!(answer.outcome.unwrap_err(), Error::TimedOut { in_doubt });
        assert_eq!(answer.in_doubt, in_doubt);
    }
}

#[test]
fn the_last_refusal_is_the_answer_when_there_is_no_time_for_another_attempt() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let id = script.sent_one().id;
    let refused = refusal(ErrorCode::SlowMode).retry_after(60_000);
    script.refuse(id, refused.clone());
    assert_eq!(script.answer().outcome.unwrap_err(), Error::Refused(refused));
}

#[test]
fn an_unknown_outcome_is_asked_again_and_stays_in_doubt_until_it_is_known() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let id = script.sent_one().id;
    script.refuse(id, refusal(ErrorCode::Unknown));
    script.pass(1_200);
    let again = script.sent_one();
    assert_eq!(again.nonce.as_deref(), Some("1"));
    script.refuse(again.id, refusal(ErrorCode::Overloaded).retry_after(40_000));
    assert!(script.answer().in_doubt, "an overload says nothing of the first attempt");
}

#[test]
fn no_retry_goes_beyond_the_window_of_its_nonce() {
    let mut script = Script::connected();
    let until_ms = script.now_ms + 3_600_000;
    let nonce = Some(Nonce::parse("1").unwrap());
    script.core.handle_command(publish(A).into(), nonce, until_ms).unwrap();
    script.sent();
    script.core.handle_lost(script.now_ms, Error::Closed(Closed::broken("cut")));
    script.pass(chappe_protocol::limits::NONCE_AGE_MS_MAX);
    assert_eq!(script.answer().outcome.unwrap_err(), Error::TimedOut { in_doubt: true });
}

#[test]
fn an_ephemeral_command_is_sent_once_or_not_at_all() {
    let typing = || Command::Typing(chappe_protocol::command::Typing { channel: A });
    let mut script = Script::connected();
    script.submit(typing(), None);
    script.sent_one();
    script.lose();
    assert!(script.answer().outcome.is_err());
    assert!(script.core.handle_command(typing(), None, u64::MAX).is_err(), "not connected");
    script.connect(Vec::new());
    assert!(script.sent().is_empty());
}

#[test]
fn what_a_draining_server_refuses_is_left_for_the_next_one() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    let id = script.sent_one().id;
    script.refuse(id, refusal(ErrorCode::Draining));
    assert!(script.output().1.is_empty());
    script.close(CloseCode::Drain, Some(500));
    script.pass(2_000);
    script.connect(Vec::new());
    assert_eq!(script.sent_nonces(), ["1"]);
}

#[test]
fn commands_under_way_and_unanswered_are_bounded() {
    let mut script = Script::connected();
    for nonce in 0..16 {
        script.submit(publish(A), Some(&nonce.to_string()));
    }
    assert_eq!(script.sent().len(), 8, "in_flight_max");
    let refused = script.core.handle_command(publish(A).into(), None, u64::MAX);
    assert_eq!(refused, Err(Error::Overloaded));
}

#[test]
fn closing_answers_everything() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    script.sent();
    script.submit(publish(A), Some("2"));
    script.core.handle_close();
    let answers = script.output().1;
    let doubts: Vec<bool> = answers.iter().map(|answer| answer.in_doubt).collect();
    assert_eq!(doubts, [true, false]);
    assert!(script.core.handle_command(publish(A).into(), None, u64::MAX).is_err());
    assert_eq!(script.core.poll_connect(u64::MAX, CURSOR_MAX), None);
}

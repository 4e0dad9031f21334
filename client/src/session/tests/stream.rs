//! Connections and the stream of events: resume, gaps, beacons, resets, ends.

use super::*;

#[test]
fn a_reconnect_resumes_from_what_the_owner_was_given() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 4), (B, 9)]);
    script.event(A, 5);
    assert_eq!(script.delivered(A), [5]);
    script.lose();
    let plan = script.connect(outcomes(&[(A, 5), (B, 9)]));
    let cursor = plan.resume.unwrap();
    assert_eq!(cursor.incarnation, Incarnation(1));
    assert_eq!(cursor.channels, [(A, Rev::new(5)), (B, Rev::new(9))]);
    script.event(A, 6);
    script.event(B, 10);
    assert_eq!(script.delivered(A), [6]);
    assert!(script.sent().is_empty(), "nothing is asked twice");
}

#[test]
fn a_cursor_too_large_for_hello_is_completed_after_it() {
    let mut script = Script::connected();
    let channels: Vec<(ChannelId, u64)> =
        (0..250).map(|channel| (ChannelId::new(channel), channel + 1)).collect();
    script.subscribe(&channels);
    script.lose();
    let plan = script.connect(Vec::new());
    assert_eq!(plan.resume.unwrap().channels.len(), CURSOR_MAX);
    let rest = asked(&script.sent_one());
    assert_eq!(rest.len(), 150);
    assert_eq!(rest[0], (ChannelId::new(100), Some(101)));
}

#[test]
fn a_subscription_cut_before_its_answer_is_asked_again_from_what_came_meanwhile() {
    let mut script = Script::connected();
    script.submit(subscribe_to(&[(A, 4)]), None);
    script.sent_one();
    script.event(A, 5); // on QUIC an event may overtake the reply
    assert_eq!(script.delivered(A), [5]);
    script.lose();
    let plan = script.connect(Vec::new());
    assert_eq!(plan.resume, None, "the command itself is sent again");
    let again = script.sent_one();
    assert_eq!(asked(&again), [(A, Some(5))]);
    script.ok(again.id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 5)]) }));
    assert!(script.answer().outcome.is_ok());
}

#[test]
fn a_subscription_without_a_revision_starts_at_the_servers() {
    let mut script = Script::connected();
    let channels = Channels::These(vec![ChannelFrom { id: A, from: None }]);
    script.submit(Subscribe { channels, incarnation: None }, None);
    let id = script.sent_one().id;
    script.ok(id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 41)]) }));
    script.event(A, 43);
    assert!(script.delivered(A).is_empty());
    assert_eq!(asked(&script.sent_one()), [(A, Some(41))]);
}

#[test]
fn after_a_gap_the_channel_is_asked_again_and_goes_on_in_order() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.event(A, 3); // 2 is missing
    let gap = Anomaly::Gap { channel: A, held: Rev::new(1), found: Rev::new(3) };
    assert_eq!(script.updates(), [Update::Anomaly(gap)]);
    script.event(A, 4); // of the old stream
    let again = script.sent_one();
    assert_eq!(asked(&again), [(A, Some(1))]);
    script.ok(again.id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 1)]) }));
    for rev in 2..6 {
        script.event(A, rev);
    }
    assert_eq!(script.delivered(A), [2, 3, 4, 5]);
    assert!(script.sent().is_empty());
}

#[test]
fn two_swapped_events_are_delivered_once_and_in_order() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.event(A, 3);
    script.event(A, 2);
    let again = script.sent_one();
    script.ok(again.id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 1)]) }));
    for rev in 2..5 {
        script.event(A, rev);
    }
    assert_eq!(script.delivered(A), [2, 3, 4]);
}

#[test]
fn a_repeated_event_is_dropped_and_told() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.event(A, 2);
    script.event(A, 2);
    let updates = script.updates();
    assert_eq!(updates.len(), 2);
    let repeated = Anomaly::Repeated { channel: A, held: Rev::new(2), found: Rev::new(2) };
    assert_eq!(updates[1], Update::Anomaly(repeated));
}

#[test]
fn a_channel_that_cannot_be_mended_costs_the_connection() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    for _ in 0..3 {
        script.event(A, 3);
        let again = script.sent_one();
        script.ok(again.id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 1)]) }));
        assert_eq!(script.core.poll_hang_up(), None);
    }
    script.event(A, 3);
    assert!(script.core.poll_hang_up().is_some());
}

#[test]
fn a_beacon_ahead_of_what_is_held_brings_the_lost_last_event() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.heads(&[(A, 2), (B, 77)]);
    assert_eq!(script.sent_one().command.name(), "pong");
    script.pass(4_900);
    assert!(script.sent().is_empty(), "it may still be on its way");
    script.pass(200);
    assert_eq!(asked(&script.sent_one()), [(A, Some(1))]);
    let behind = Anomaly::Behind { channel: A, held: Rev::new(1), head: Rev::new(2) };
    assert_eq!(script.updates(), [Update::Anomaly(behind)]);
}

#[test]
fn a_beacon_that_the_event_follows_is_no_anomaly() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.heads(&[(A, 2)]);
    script.sent();
    script.event(A, 2);
    script.pass(10_000);
    assert!(script.sent().is_empty());
    assert_eq!(script.delivered(A), [2]);
}

#[test]
fn a_catch_up_that_ends_short_of_its_end_is_asked_again() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    script.event(A, 2);
    script.server(&ServerFrame::Live { live: Live { channel: A, rev: Rev::new(3) } });
    assert_eq!(asked(&script.sent_one()), [(A, Some(2))]);
}

#[test]
fn a_reset_moves_the_cursor_and_is_told() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 5)]);
    script.incarnation = Incarnation(2);
    script.lose();
    let plan = script.connect(outcomes(&[(A, 5)]));
    assert_eq!(plan.resume.unwrap().incarnation, Incarnation(1), "the revisions are still its own");
    let reset = Reset { channel: A, base: Rev::new(2), incarnation: Incarnation(2) };
    script.server(&ServerFrame::Reset { reset: reset.clone() });
    script.event(A, 3);
    let updates = script.updates();
    assert!(updates.contains(&Update::Reset(reset)));
    assert!(matches!(updates.last(), Some(Update::Event(event)) if event.rev.get() == 3));
    script.lose();
    let cursor = script.connect(Vec::new()).resume.unwrap();
    assert_eq!((cursor.incarnation, cursor.channels), (Incarnation(2), vec![(A, Rev::new(3))]));
}

#[test]
fn channels_of_two_incarnations_are_resumed_each_with_its_own() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 5), (B, 6)]);
    script.incarnation = Incarnation(2);
    script.lose();
    script.connect(outcomes(&[(A, 5), (B, 6)]));
    let reset = Reset { channel: A, base: Rev::new(2), incarnation: Incarnation(2) };
    script.server(&ServerFrame::Reset { reset }); // and the link breaks before B's
    script.lose();
    let mut asked_for: Vec<(Incarnation, ChannelId)> = Vec::new();
    let cursor = script.connect(Vec::new()).resume.unwrap();
    asked_for.extend(cursor.channels.iter().map(|(channel, _)| (cursor.incarnation, *channel)));
    for frame in script.sent() {
        if let Command::Subscribe(subscribe) = &frame.command {
            let incarnation = subscribe.incarnation.unwrap();
            asked_for.extend(asked(&frame).iter().map(|(channel, _)| (incarnation, *channel)));
        }
    }
    asked_for.sort_unstable();
    assert_eq!(asked_for, [(Incarnation(1), B), (Incarnation(2), A)]);
}

#[test]
fn removal_is_the_channels_last_event_and_nothing_resumes_it() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    let removed = EventBody::MemberRemoved(MemberRemovedBody { user: ME });
    script.server(&ServerFrame::Event { event: &event(A, 2, removed) });
    script.event(A, 3);
    assert_eq!(script.delivered(A), [2]);
    script.lose();
    assert_eq!(script.connect(Vec::new()).resume, None);
}

#[test]
fn anothers_removal_ends_nothing() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    let removed = EventBody::MemberRemoved(MemberRemovedBody { user: UserId::new(8) });
    script.server(&ServerFrame::Event { event: &event(A, 2, removed) });
    script.event(A, 3);
    assert_eq!(script.delivered(A), [2, 3]);
}

#[test]
fn a_deleted_channel_is_not_resumed() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    let channel = Channel {
        id: A,
        kind: ChannelKind::Public,
        name: Some(ChannelName::parse("a").unwrap()),
        topic: None,
        slow_mode_ms: 0,
        archived: false,
        deleted: true,
        by: ME,
        at: 0,
        members: 0,
    };
    let deleted = EventBody::ChannelDeleted(ChannelBody { channel });
    script.server(&ServerFrame::Event { event: &event(A, 2, deleted) });
    assert_eq!(script.delivered(A), [2]);
    script.lose();
    assert_eq!(script.connect(Vec::new()).resume, None);
}

#[test]
fn a_refused_channel_ends_and_one_that_is_unavailable_is_asked_again() {
    let mut script = Script::connected();
    script.submit(subscribe_to(&[(A, 1), (B, 1)]), None);
    let id = script.sent_one().id;
    let mut channels = outcomes(&[(A, 1), (B, 1)]);
    channels[0].error = Some(refusal(ErrorCode::NotFound));
    channels[1].error = Some(refusal(ErrorCode::Unavailable).retry_after(300));
    script.ok(id, Reply::Subscribe(SubscribeReply { channels }));
    let ended = Update::Ended { channel: A, error: refusal(ErrorCode::NotFound) };
    assert_eq!(script.updates(), [ended]);
    script.pass(200);
    assert!(script.sent().is_empty());
    script.pass(300);
    assert_eq!(asked(&script.sent_one()), [(B, Some(1))]);
}

#[test]
fn an_unsubscribed_channel_is_silent_and_not_resumed() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1), (B, 1)]);
    let command = chappe_protocol::command::Unsubscribe { channels: vec![A] };
    script.submit(command, None);
    let id = script.sent_one().id;
    script.ok(id, Reply::Done(chappe_protocol::reply::Done {}));
    script.event(A, 2);
    assert!(script.delivered(A).is_empty());
    script.lose();
    assert_eq!(script.connect(Vec::new()).resume.unwrap().channels, [(B, Rev::new(1))]);
}

#[test]
fn a_subscription_to_all_ones_channels_takes_in_new_ones_and_is_renewed() {
    let mut script = Script::connected();
    script.submit(Subscribe { channels: Channels::Mine, incarnation: None }, None);
    let id = script.sent_one().id;
    script.ok(id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 1)]) }));
    script.event(B, 10); // joined since
    script.event(B, 11);
    assert_eq!(script.delivered(B), [10, 11]);
    script.lose();
    let cursor = script.connect(Vec::new()).resume.unwrap();
    assert_eq!(cursor.channels, [(A, Rev::new(1)), (B, Rev::new(11))]);
    let again = script.sent_one();
    assert!(matches!(
        again.command,
        Command::Subscribe(Subscribe { channels: Channels::Mine, .. })
    ));
}

#[test]
fn a_new_channel_starts_where_the_inbox_says_so_that_its_first_event_is_missed_too() {
    let mut script = Script::connected();
    script.submit(Subscribe { channels: Channels::Mine, incarnation: None }, None);
    let id = script.sent_one().id;
    let inbox = ChannelId::inbox(ME);
    script.ok(id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(inbox, 3)]) }));
    let added = EventBody::ChannelAdded(ChannelAddedBody {
        channel: B,
        incarnation: Incarnation(1),
        rev: Rev::new(10),
        role: Role::Member,
    });
    script.server(&ServerFrame::Event { event: &event(inbox, 4, added) });
    script.event(B, 12);
    assert!(script.delivered(B).is_empty());
    assert_eq!(asked(&script.sent_one()), [(B, Some(10))]);
}

#[test]
fn what_was_put_aside_comes_again_in_order() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1), (B, 1)]);
    for rev in 2..5 {
        script.event(A, rev);
    }
    script.event(B, 2);
    script.core.handle_put_aside(A, Rev::new(3)); // 2 was taken, 3 found no room
    let given: Vec<ChannelId> = script
        .updates()
        .into_iter()
        .filter_map(|update| match update {
            Update::Event(event) => Some(event.channel),
            _ => None,
        })
        .collect();
    assert_eq!(given, [B], "nothing more of the channel is given out");
    script.event(A, 5);
    assert!(script.delivered(A).is_empty());
    script.core.handle_take_up(script.now_ms);
    let again = script.sent_one();
    assert_eq!(asked(&again), [(A, Some(2))]);
    script.ok(again.id, Reply::Subscribe(SubscribeReply { channels: outcomes(&[(A, 2)]) }));
    for rev in 3..7 {
        script.event(A, rev);
    }
    assert_eq!(script.delivered(A), [3, 4, 5, 6]);
}

#[test]
fn a_drain_is_left_for_as_long_as_the_server_asks() {
    let mut script = Script::connected();
    script.close(CloseCode::Drain, Some(5_000));
    script.pass(4_999);
    assert_eq!(script.core.poll_connect(script.now_ms, CURSOR_MAX), None);
    script.pass(101);
    script.attempt();
}

#[test]
fn failing_attempts_come_ever_further_apart() {
    let mut script = Script::connected();
    let unreachable = || Error::Unreachable("refused".to_owned());
    script.core.handle_lost(script.now_ms, unreachable());
    let mut waited_ms = Vec::new();
    for _ in 0..30 {
        let due_ms = script.core.poll_timeout(script.now_ms).unwrap();
        waited_ms.push(due_ms.saturating_sub(script.now_ms));
        script.now_ms = script.now_ms.max(due_ms);
        script.attempt();
        script.core.handle_connect_failed(script.now_ms, unreachable());
    }
    assert!(waited_ms[0] <= 100);
    assert!(waited_ms.iter().all(|wait_ms| *wait_ms <= 1_000));
    assert!(waited_ms[5..].iter().any(|wait_ms| *wait_ms > 500), "{waited_ms:?}");
}

#[test]
fn the_first_failure_ends_it_unless_it_was_told_to_go_on() {
    let unreachable = || Error::Unreachable("refused".to_owned());
    let mut script = Script::new(|_| {});
    script.attempt();
    script.core.handle_connect_failed(script.now_ms, unreachable());
    assert_eq!(script.core.finished(), Some(&unreachable()));

    let mut script = Script::new(|settings| settings.keep_trying = true);
    script.attempt();
    script.core.handle_connect_failed(script.now_ms, unreachable());
    script.pass(1_000);
    script.attempt();
}

#[test]
fn every_close_code_is_obeyed() {
    for code in CloseCode::ALL {
        let mut script = Script::connected();
        script.close(*code, None);
        assert_eq!(script.core.finished().is_none(), code.reconnects(), "{code:?}");
    }
}

#[test]
fn an_expired_token_is_replaced_once_where_another_may_be_had() {
    let mut script = Script::new(|settings| settings.token_renews = true);
    script.connect(Vec::new());
    script.close(CloseCode::Expired, None);
    script.pass(1_000);
    script.attempt();
    let refused = Error::Refused(refusal(ErrorCode::TokenExpired));
    script.core.handle_connect_failed(script.now_ms, refused.clone());
    assert_eq!(script.core.finished(), Some(&refused));
}

#[test]
fn a_silent_connection_is_given_up() {
    let mut script = Script::connected();
    script.pass(59_000);
    assert_eq!(script.core.poll_hang_up(), None);
    script.heads(&[]);
    script.pass(59_000);
    assert_eq!(script.core.poll_hang_up(), None);
    script.pass(1_000);
    assert!(script.core.poll_hang_up().is_some());
}

#[test]
fn a_connection_that_owes_an_answer_is_asked_and_then_given_up() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    script.sent();
    script.pass(4_999);
    assert!(script.sent().is_empty());
    script.pass(1);
    assert_eq!(script.sent_one().command.name(), "ping");
    script.pass(9_000);
    assert_eq!(script.core.poll_hang_up(), None);
    script.pass(1_000);
    assert!(script.core.poll_hang_up().is_some());
    script.lose();
    script.connect(Vec::new());
    let again = script.sent();
    let names: Vec<&str> = again.iter().map(|frame| frame.command.name()).collect();
    assert_eq!(names, ["publish"], "the question is forgotten, the command is not");
}

#[test]
fn a_slow_answer_costs_no_connection_as_long_as_the_server_speaks() {
    let mut script = Script::connected();
    script.submit(publish(A), Some("1"));
    script.sent();
    for _ in 0..3 {
        script.pass(5_000);
        let id = script.sent_one().id;
        script.ok(id, Reply::Done(chappe_protocol::reply::Done {}));
    }
    assert_eq!(script.core.poll_hang_up(), None);
    assert!(script.output().1.is_empty(), "the owner is not told of the questions");
}

#[test]
fn an_event_of_a_later_version_has_its_place_in_the_order() {
    let mut script = Script::connected();
    script.subscribe(&[(A, 1)]);
    let json =
        br#"{"event":{"channel":"1","rev":2,"by":"7","at":0,"kind":"poll.opened","body":{}}}"#;
    let frame = Frame::decode(Encoding::Json, Bytes::from_static(json)).unwrap();
    script.core.handle_frame(script.now_ms, frame);
    assert!(matches!(&script.updates()[..], [Update::Unknown(place)] if place.rev.get() == 2));
    script.event(A, 3);
    assert_eq!(script.delivered(A), [3]);
}

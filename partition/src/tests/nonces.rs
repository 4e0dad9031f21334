//! Retries: the same answer, once, or a refusal; never twice.

use super::{begin, check};
use crate::{
    config::{Bounds, Leadership},
    testing::{Asker, World},
};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_retry_gets_the_first_answer_also_from_the_next_leader_with_a_clock_an_hour_apart() {
    for skew in [-HOUR_MS, HOUR_MS] {
        check(
            World::clustered(2),
            |world| {
                let (ann, channel) = begin(world);
                ann.publish(world, "a", channel, "a");
                ann.publish(world, "a", channel, "a");
                world.nodes[1].wall_skew_ms = skew;
                world.assign(1);
                world.pass(1_300);
                let moved = Asker { node: 1, age_ms: 8 * 60_000, ..ann };
                moved.publish(world, "a", channel, "a");
                moved.publish(world, "b", channel, "b");
                moved.history(world, "page", channel);
            },
            &[
                "a: ok rev 2 seq 1",
                "a: ok rev 2 seq 1",
                "a: ok rev 2 seq 1",
                "b: ok rev 3 seq 2",
                "page: messages [1='a', 2='b'] at 3",
            ],
        );
    }
}

#[test]
fn a_nonce_with_another_body_is_refused_before_and_after_a_restart() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "a", channel, "a");
            ann.publish(world, "a", channel, "b");
            ann.react(world, "a", channel, 1, "+1");
            world.pass(2_000);
            world.restart(0);
            ann.publish(world, "a", channel, "b");
            ann.publish(world, "a", channel, "a");
            Asker::new(0, 1).publish(world, "b", channel, "b");
        },
        &[
            "a: ok rev 2 seq 1",
            "a: nonce_reused",
            "a: nonce_reused",
            "a: nonce_reused",
            "a: ok rev 2 seq 1",
            "b: ok rev 3 seq 2",
        ],
    );
}

#[test]
fn a_retry_that_is_too_old_is_refused_and_never_guessed() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "a", channel, "a");
            let late = Asker { age_ms: 9 * 60_000, ..ann.clone() };
            late.publish(world, "a", channel, "a");
            let later = Asker { age_ms: 9 * 60_000 + 1, ..ann };
            later.publish(world, "a", channel, "a");
            later.publish(world, "new", channel, "a");
        },
        &["a: ok rev 2 seq 1", "a: ok rev 2 seq 1", "a: nonce_expired", "new: nonce_expired"],
    );
}

#[test]
fn a_nonce_is_remembered_for_ten_minutes_of_leadership_however_long_the_gaps() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "a", channel, "a");
            for _ in 0..5 {
                world.pass(110_000); // leads for less than two minutes…
                ann.publish(world, "x", channel, "x");
                world.pass(1_000);
                world.freeze(86_400_000); // …and nobody does for a day
                world.restart(0);
            }
            world.trace.clear();
            ann.publish(world, "a", channel, "a");
            ann.publish(world, "a", channel, "not a");
        },
        &["a: ok rev 2 seq 1", "a: nonce_reused"],
    );
}

#[test]
fn a_command_that_changes_nothing_is_recorded_for_its_retry() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "m", channel, "m");
            ann.react(world, "first", channel, 1, "+1");
            ann.react(world, "same", channel, 1, "+1");
            ann.unreact(world, "back", channel, 1, "+1");
            ann.react(world, "same", channel, 1, "+1");
            ann.history(world, "page", channel);
            ann.events(world, "events", channel, 3);
        },
        &[
            "m: ok rev 2 seq 1",
            "first: ok rev 3 seq 1",
            "same: ok rev 4 seq 1",
            "back: ok rev 5 seq 1",
            "same: ok rev 4 seq 1",
            "page: messages [1='m'] at 5",
            "events: events [4 nothing, 5 reaction.removed 1='m'] of 5",
        ],
    );
}

#[test]
fn a_refusal_is_not_recorded_and_its_retry_is_decided_anew() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            bob.publish(world, "a", channel, "a");
            bob.command(world, "join", channel, chappe_uplink::Action::Join);
            bob.publish(world, "a", channel, "a");
            ann.publish(world, "a", channel, "another's nonce is another");
        },
        &["a: not_a_member", "join: ok rev 2", "a: ok rev 3 seq 1", "a: ok rev 4 seq 2"],
    );
}

#[test]
fn a_late_retry_of_a_create_meets_itself_and_another_command_does_not() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.pass(700_000);
            world.restart(0);
            ann.create(world, "general");
            let other = chappe_protocol::command::CreateChannel {
                kind: chappe_protocol::message::ChannelKind::Group,
                name: None,
                topic: None,
                members: Vec::new(),
            };
            ann.command(world, "general", channel, chappe_uplink::Action::Create(other));
        },
        &["general: ok rev 1", "general: nonce_reused"],
    );
}

#[test]
fn with_as_many_nonces_as_fit_further_commands_are_refused_aloud() {
    let bounds = Bounds { nonces_max: 3, ..Bounds::default() };
    check(
        World::with_bounds(Leadership::Lock, 1, 1, bounds),
        |world| {
            let (ann, channel) = begin(world);
            for label in ["a", "b", "c", "d"] {
                ann.publish(world, label, channel, label);
            }
        },
        &[
            "a: ok rev 2 seq 1",
            "b: ok rev 3 seq 2",
            "c: overloaded after 2000",
            "d: overloaded after 2000",
        ],
    );
}

#[test]
fn nonces_that_grew_too_old_make_room_also_in_a_channel_that_is_only_read() {
    let bounds = Bounds { nonces_max: 3, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    for label in ["a", "b", "c"] {
        ann.publish(&mut world, label, channel, label);
    }
    assert_eq!(world.trace.lines.last().unwrap(), "c: overloaded after 2000");
    for _ in 0..25 {
        world.pass(30_000);
        ann.history(&mut world, "page", channel); // it is never idle
    }
    ann.publish(&mut world, "c", channel, "c");
    assert_eq!(world.trace.lines.last().unwrap(), "c: ok rev 4 seq 3");
}

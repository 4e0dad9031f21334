//! What becomes of everything under way when a leadership ends.

use chappe_protocol::Rev;
use chappe_storage::{
    log::AppendError,
    store::{Key, StoreError},
};
use chappe_uplink::{Action, ReadQuery, Request};

use super::begin;
use crate::{
    action::PipeId,
    partition::Standing,
    record::{Mark, Record},
    testing::{Asker, StoreCall, World},
};

/// The oldest record in flight fails: whether it counts is in doubt.
fn fail(world: &mut World) {
    let lost = world.lose(0);
    let error = AppendError("lost".to_owned());
    world.ack(0, lost.partition, lost.token, Err(error));
}

/// A channel whose one message is in the store alone, and a page of it that waits for the store.
fn with_a_page_under_way(world: &mut World) -> (Asker, chappe_protocol::ChannelId) {
    let (ann, channel) = begin(world);
    ann.publish(world, "a", channel, "a");
    world.pass(1_000);
    world.restart(0);
    world.pass(1_300);
    ann.read(world, "warm", channel, ReadQuery::Channel);
    world.pass(300); // a beat
    world.trace.clear();
    world.nodes[0].store_held = true;
    ann.history(world, "page", channel);
    assert_eq!(world.trace.lines, [""; 0]);
    (ann, channel)
}

#[test]
fn a_page_under_way_is_asked_again() {
    for mut world in [World::embedded(), World::clustered(1)] {
        let (ann, channel) = with_a_page_under_way(&mut world);
        world.nodes[0].held = true;
        ann.publish(&mut world, "b", channel, "b");
        fail(&mut world);
        assert_eq!(world.trace.lines, ["b: unknown", "page: retry"]);
    }
}

#[test]
fn a_page_that_meets_damage_is_answered_as_well() {
    let mut world = World::embedded();
    with_a_page_under_way(&mut world);
    let Some((_, StoreCall::Read(token, _))) = world.nodes[0].store_calls.pop_front() else {
        panic!("no read")
    };
    let now = world.now(0);
    world.core(0).handle_found(now, token, Err(StoreError::Damaged("a block".to_owned())));
    world.run();
    assert_eq!(world.core(0).standing(), Standing::Halted);
    assert_eq!(world.trace.lines, ["page: retry"]);
}

#[test]
fn a_command_on_offer_is_asked_again_and_never_appended() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    let now = world.now(0);
    let command = ann.command_of("b", channel, Action::Archive);
    world.core(0).handle_request(now, PipeId(1), Request::Command(Box::new(command)));
    fail(&mut world); // before its append was carried out
    assert_eq!(world.trace.lines, ["a: unknown", "?: retry"]);
    assert!(world.nodes[0].flying.is_empty());
}

#[test]
fn a_doubt_during_a_hand_over_ends_it() {
    for mut world in [World::embedded(), World::clustered(1)] {
        let (ann, channel) = begin(&mut world);
        world.nodes[0].held = true;
        ann.publish(&mut world, "a", channel, "a");
        let now = world.now(0);
        world.core(0).handle_revoked(now);
        fail(&mut world);
        assert_eq!(world.nodes[0].events.last().unwrap(), "handed over");
        world.nodes[0].held = false;
        world.pass(10_000);
        assert_eq!(world.core(0).standing(), Standing::Idle, "it does not claim again");
    }
}

#[test]
fn a_deposed_leader_that_is_not_assigned_again_lets_its_driver_sleep() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    fail(&mut world);
    world.pass(10_000);
    let now = world.now(0);
    assert!(world.core(0).may_claim_again(now));
    assert!(world.core(0).deadline(now) > now.boot_ms + 1_000);
}

#[test]
fn a_partition_that_was_lost_is_let_go_at_once_and_may_be_assigned_again() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    let now = world.now(0);
    world.nodes[0].cores[0].handle_lost(now);
    assert_eq!(world.core(0).standing(), Standing::Idle);
    world.nodes[0].held = false;
    world.assign(0);
    world.pass(10_000);
    assert_eq!(world.core(0).standing(), Standing::Leading);
}

#[test]
fn what_was_projected_while_a_page_was_read_is_forgotten() {
    let mut world = World::embedded();
    let (ann, channel) = with_a_page_under_way(&mut world);
    world.nodes[0].store_calls.clear(); // the store is long in answering
    world.nodes[0].store_held = false;
    ann.publish(&mut world, "b", channel, "b");
    world.pass(1_000);
    assert_eq!(world.core(0).slots[&channel].tail.len(), 1, "the page may have missed it");
    world.nodes[0].held = true;
    ann.publish(&mut world, "c", channel, "c");
    fail(&mut world);
    world.nodes[0].held = false;
    world.pass(1_000);
    assert!(world.core(0).slots[&channel].tail.is_empty());
}

#[test]
fn a_late_answer_about_an_earlier_projection_says_nothing_of_the_present_one() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.pass(1_000);
    ann.publish(&mut world, "a", channel, "a");
    let now = world.now(0);
    world.core(0).handle_revoked(now);
    world.run();
    world.nodes[0].store_held = true;
    world.pass(60);
    let late = world.nodes[0].store_calls.pop_front().unwrap();
    assert!(matches!(late, (_, StoreCall::Write(..))), "the rows of the first message");
    world.nodes[0].store_held = false;
    world.assign(0);
    ann.publish(&mut world, "b", channel, "b");
    let offset = world.logs[0].end().0 - 1;
    world.nodes[0].store_held = true;
    world.pass(60);
    let rows = world.nodes[0].store_calls.pop_front().unwrap();
    assert!(matches!(rows, (_, StoreCall::Write(..))), "the rows of both, which are lost");
    world.nodes[0].store_calls.push_front(late);
    world.nodes[0].store_held = false;
    world.pass(2_000);
    assert!(!world.store.rows().contains_key(&Key::Event(channel, Rev::new(3))));
    let passed = world.core(0).checkpoint().unwrap().0;
    assert!(passed <= offset, "the checkpoint at {passed} passed a hole at {offset}");
}

#[test]
fn a_late_answer_of_the_log_is_not_taken_for_the_replay() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    let mark = Mark { generation: world.core(0).generation(), n: 99, ts: 0, tick: 0 };
    world.inject(0, &Record::Beat(mark));
    let (flying, offset) = world.land(0);
    let now = world.now(0);
    world.core(0).handle_acked(now, flying.token, Ok(offset));
    let Some(crate::Action::ReadLog { token, from, until }) = world.core(0).poll_action() else {
        panic!("a jump is read")
    };
    let late = world.logs[0].read(from, until);
    world.core(0).handle_revoked(now);
    world.nodes[0].held = false;
    world.pass(600); // the log did not answer in time
    world.logs[0].down = true;
    world.assign(0);
    let now = world.now(0);
    world.core(0).handle_log(now, token, late);
    world.logs[0].down = false;
    world.pass(2_000);
    assert_eq!(world.core(0).standing(), Standing::Leading);
}

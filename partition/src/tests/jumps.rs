//! Jumps in the offsets of acknowledgements.

use chappe_protocol::Incarnation;

use super::{begin, check};
use crate::{
    record::{Adopt, Claim, Mark, Record},
    testing::{LINEAGE, World},
};

const NEXT: Incarnation = Incarnation(2);

/// Publishes across `record`, which stands in the log where the message was expected.
fn publish_across(record: Option<Record>) -> World {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    let generation = world.core(0).generation();
    let mark = Mark { generation, n: 99, ts: 0, tick: 0 };
    world.inject(0, &record.unwrap_or(Record::Beat(mark)));
    world.nodes[0].held = false;
    world.run();
    world
}

fn claim(leader: u64, incarnation: Incarnation) -> Record {
    let address = String::new();
    Record::Claim(Claim { lineage: LINEAGE, incarnation, leader, address })
}

#[test]
fn a_void_record_in_a_jump_is_stepped_over() {
    let world = publish_across(None);
    assert_eq!(world.trace.lines, ["a: ok rev 2 seq 1"]);
}

#[test]
fn a_claim_of_another_incarnation_in_a_jump_is_void() {
    let world = publish_across(Some(claim(9, NEXT)));
    assert_eq!(world.trace.lines, ["a: ok rev 2 seq 1"]);
}

#[test]
fn a_claim_in_a_jump_deposes() {
    let world = publish_across(Some(claim(9, Incarnation(1))));
    assert_eq!(world.trace.lines, ["a: unknown"]);
    assert_eq!(world.nodes[0].events.last().unwrap(), "leads no more");
}

#[test]
fn a_claim_of_its_own_in_a_jump_deposes_too() {
    let world = publish_across(Some(claim(0, Incarnation(1))));
    assert_eq!(world.trace.lines, ["a: unknown"]);
}

#[test]
fn an_adoption_in_a_jump_deposes() {
    let adopt = Adopt { lineage: LINEAGE, incarnation: NEXT };
    let world = publish_across(Some(Record::Adopt(adopt)));
    assert_eq!(world.trace.lines, ["a: unknown"]);
}

#[test]
fn an_acknowledgement_at_an_offset_that_was_passed_deposes() {
    check(
        World::clustered(1),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            ann.publish(world, "b", channel, "b");
            let (a, offset) = world.land(0);
            world.ack(0, a.partition, a.token, Ok(offset));
            let (b, _) = world.land(0);
            world.ack(0, b.partition, b.token, Ok(offset));
        },
        &["a: ok rev 2 seq 1", "b: unknown"],
    );
}

#[test]
fn nothing_is_confirmed_while_the_log_does_not_show_what_is_missing() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    world.inject(0, &claim(9, NEXT));
    world.logs[0].down = true;
    world.nodes[0].held = false;
    world.run();
    world.pass(500);
    assert_eq!(world.trace.lines, [""; 0]);
    world.logs[0].down = false;
    world.pass(200);
    assert_eq!(world.trace.lines, ["a: ok rev 2 seq 1"]);
}

//! Loading a channel while its facts are being projected.

use chappe_storage::store::Scan;

use super::begin;
use crate::{
    action::StoreRead,
    testing::{Asker, StoreCall, World},
};

/// A later step of a load: it must not hide what the first step was too early to see.
fn is_later_step(call: &StoreCall) -> bool {
    matches!(call, StoreCall::Read(_, StoreRead::Scan(Scan::Members(..) | Scan::EventsUpTo(..), _)))
}

/// Lets a second pass, in which every call of the store but the later steps of a load is carried
/// out.
fn all_but_later_steps(world: &mut World) {
    for _ in 0..100 {
        world.pass(10);
        loop {
            let calls = &mut world.nodes[0].store_calls;
            let Some(next) = calls.iter().position(|(_, call)| !is_later_step(call)) else { break };
            calls.rotate_left(next);
            world.call_store_once(0);
        }
    }
}

#[test]
fn a_load_sees_what_was_projected_between_its_steps() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "projected");
    world.pass(2_000);
    world.nodes[0].store_held = true;
    for label in ["b", "c", "d"] {
        ann.publish(&mut world, label, channel, "in the log alone");
    }
    world.pass(10);
    world.nodes[0].store_calls.clear();
    world.nodes[0].store_held = false;
    world.restart(0);
    world.run();
    world.nodes[0].store_held = true;
    world.trace.clear();
    // The load's first step sees the old head, then the tail is projected, then the load goes on.
    let bob = Asker::new(0, 2);
    bob.attach(&mut world, "attach", channel, None);
    world.call_store_once(0);
    all_but_later_steps(&mut world);
    world.nodes[0].store_held = false;
    world.pass(100);
    ann.publish(&mut world, "e", channel, "the next");
    world.pass(100);
    let expect = [
        "attach: attached at 5, from 5",
        "pipe 2: 6 message.created 5='the next'",
        "e: ok rev 6 seq 5",
    ];
    assert_eq!(world.trace.lines, expect);
}

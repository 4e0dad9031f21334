//! What was deleted is gone from everywhere that anything is served from.

use chappe_protocol::{ChannelId, Seq};
use chappe_storage::store::Key;

use super::begin;
use crate::testing::{Asker, World};

const SECRET: &str = "the secret";

/// Whether any memory or row that is served from holds the secret. Facts in the tail do, until
/// they are projected, but nothing is served from a fact: its message is folded first.
fn is_anywhere(world: &mut World, channel: ChannelId) -> bool {
    let in_store = world
        .store
        .rows()
        .values()
        .any(|row| row.value.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
    let core = world.core(0);
    let slot = &core.slots[&channel];
    let in_ring = slot.newest.iter().any(|message| format!("{message:?}").contains(SECRET));
    let rows = core.hot.row(&Key::Message(channel, Seq::new(1)));
    let in_rows = match rows {
        crate::hot::Known::Row(row) => format!("{row:?}").contains(SECRET),
        _ => false,
    };
    in_store || in_ring || in_rows
}

fn heard(world: &World) -> bool {
    world.trace.lines.iter().any(|line| line.contains(SECRET))
}

fn serve(world: &mut World, ann: &Asker, channel: ChannelId) {
    world.trace.clear();
    ann.history(world, "history", channel);
    ann.events(world, "events", channel, 0);
    ann.attach(world, "attach", channel, Some(0));
}

#[test]
fn a_deleted_text_leaves_memory_at_once_and_the_store_with_the_projection() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "m", channel, SECRET);
    ann.publish(&mut world, "other", channel, "kept");
    world.pass(1_000);
    assert!(is_anywhere(&mut world, channel));
    ann.delete(&mut world, "delete", channel, 1);
    serve(&mut world, &ann, channel);
    assert!(!heard(&world), "before the projection: {:?}", world.trace.lines);
    world.pass(1_000);
    assert!(!is_anywhere(&mut world, channel));
    serve(&mut world, &ann, channel);
    assert!(!heard(&world));
    assert!(world.trace.lines.iter().any(|line| line.contains("kept")));
}

#[test]
fn a_deleted_text_that_was_never_projected_reaches_no_row() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.store.down = true;
    ann.publish(&mut world, "m", channel, SECRET);
    ann.edit(&mut world, "e", channel, 1, SECRET);
    ann.delete(&mut world, "delete", channel, 1);
    world.pass(300);
    serve(&mut world, &ann, channel);
    assert!(!heard(&world));
    world.store.down = false;
    world.pass(10_000);
    assert!(!is_anywhere(&mut world, channel));
}

#[test]
fn a_text_that_a_command_had_fetched_from_the_store_goes_as_well() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "m", channel, SECRET);
    world.pass(1_000);
    world.restart(0);
    ann.react(&mut world, "fetch", channel, 1, "+1");
    assert!(is_anywhere(&mut world, channel));
    ann.delete(&mut world, "delete", channel, 1);
    world.pass(1_000);
    assert!(!is_anywhere(&mut world, channel));
    world.restart(0);
    serve(&mut world, &ann, channel);
    assert!(!heard(&world));
}

#[test]
fn a_read_that_began_before_the_deletion_does_not_bring_the_text_back() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "m", channel, SECRET);
    world.pass(1_000);
    world.restart(0);
    ann.react(&mut world, "warm", channel, 1, "+1");
    world.pass(1_000);
    world.nodes[0].store_held = true;
    ann.history(&mut world, "page", channel);
    // The store has answered, and the answer is on its way while the deletion is decided,
    // confirmed and projected.
    let answered = world.store.clone();
    let read = world.nodes[0].store_calls.pop_back().unwrap();
    world.nodes[0].store_held = false;
    ann.delete(&mut world, "delete", channel, 1);
    world.pass(1_000);
    assert!(!is_anywhere(&mut world, channel));
    let projected = std::mem::replace(&mut world.store, answered);
    world.trace.clear();
    world.nodes[0].store_calls.push_back(read);
    world.call_store_once(0);
    world.store = projected;
    assert_eq!(world.trace.lines, ["page: messages [1=deleted] at 4"]);
    world.pass(1_000);
    assert!(world.core(0).slots[&channel].tail.is_empty(), "kept for that read alone");
}

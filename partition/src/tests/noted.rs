//! Takeovers without the store, from a checkpoint that was noted elsewhere, and what becomes of
//! them when the store answers.

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId};
use chappe_storage::{log::Offset, store::Key};

use super::begin;
use crate::{
    partition::Standing,
    record::Lineage,
    row::{CheckpointRow, RowValue},
    testing::{Asker, World},
};

const P0: PartitionId = PartitionId(0);

/// A leader with facts above its checkpoint.
fn led() -> (World, Asker, ChannelId) {
    let mut world = World::clustered(1);
    world.assign(0);
    world.pass(2_000);
    let (ann, channel) = begin(&mut world);
    for label in ["a", "b", "c"] {
        ann.publish(&mut world, label, channel, label);
    }
    world.pass(2_000);
    ann.publish(&mut world, "d", channel, "above the checkpoint");
    (world, ann, channel)
}

fn noted(world: &mut World) -> Bytes {
    world.core(0).checkpoint_noted().unwrap()
}

/// Another leader takes over, without the store.
fn take_over(world: &mut World) {
    world.store.down = true;
    world.restart(0);
    world.assign(0);
    world.pass(2_000);
}

/// Lets a deposed leader begin again until it leads or stops.
fn settle(world: &mut World) {
    for _ in 0..20 {
        world.pass(1_000);
        let now = world.now(0);
        if world.core(0).may_claim_again(now) {
            world.assign(0);
        }
    }
}

#[test]
fn a_takeover_goes_on_from_the_note_and_uses_the_store_once_it_was_compared() {
    let (mut world, ann, channel) = led();
    let (note, writes) = (noted(&mut world), world.store.writes);
    take_over(&mut world);
    assert_eq!(world.core(0).standing(), Standing::TakingOver, "nothing is noted yet");
    world.store.noted.insert(P0, note);
    world.pass(2_000);
    assert_eq!(world.core(0).standing(), Standing::Leading);
    assert!(!world.core(0).may_use_store());
    assert_eq!(world.store.writes, writes);
    world.store.down = false;
    settle(&mut world);
    assert_eq!(world.core(0).standing(), Standing::Leading);
    assert!(world.core(0).may_use_store());
    assert_eq!(world.core(0).unprojected().0, 0, "what the store lacked is projected");
    world.trace.clear();
    ann.history(&mut world, "page", channel);
    world.pass(500);
    assert_eq!(
        world.trace.lines,
        ["page: messages [1='a', 2='b', 3='c', 4='above the checkpoint'] at 5"]
    );
}

#[test]
fn a_note_that_does_not_fit_the_log_is_not_led_from() {
    for bad in [true, false] {
        let (mut world, ..) = led();
        let key = Key::Checkpoint(P0);
        let Some(RowValue::Checkpoint(row)) = world.store.value(&key) else { panic!("none") };
        let foreign = RowValue::Checkpoint(CheckpointRow { lineage: Lineage(8), ..row });
        let note = if bad { Bytes::from_static(b"what") } else { foreign.encode() };
        world.store.noted.insert(P0, note);
        take_over(&mut world);
        assert_eq!(world.core(0).standing(), Standing::TakingOver);
        world.store.down = false;
        world.pass(2_000);
        assert_eq!(world.core(0).standing(), Standing::Leading);
    }
}

#[test]
fn a_log_that_seems_short_once_does_not_make_the_note_useless() {
    let (mut world, ..) = led();
    let (note, whole) = (noted(&mut world), world.logs[0].clone());
    world.store.noted.insert(P0, note);
    world.logs[0].truncate(Offset(2));
    take_over(&mut world);
    assert_eq!(world.core(0).standing(), Standing::TakingOver);
    world.logs[0] = whole;
    world.pass(2_000);
    assert_eq!(world.core(0).standing(), Standing::Leading, "the store is still down");
}

#[test]
fn a_store_from_before_the_note_is_not_written_over_the_gap_but_replayed_into() {
    let (mut world, ann, channel) = led();
    let yesterday = world.store.clone();
    for label in ["e", "f", "g"] {
        ann.publish(&mut world, label, channel, label);
    }
    world.pass(2_000);
    let (note, today) = (noted(&mut world), world.store.rows().clone());
    world.store = yesterday;
    world.store.noted.insert(P0, note);
    take_over(&mut world);
    assert_eq!(world.core(0).standing(), Standing::Leading, "from the note");
    world.store.down = false;
    settle(&mut world);
    assert_eq!(world.core(0).standing(), Standing::Leading, "from the store's own");
    for (key, row) in today.iter().filter(|(key, _)| !matches!(key, Key::Checkpoint(_))) {
        assert_eq!(world.store.rows().get(key), Some(row), "{key:?}");
    }
    world.trace.clear();
    ann.publish(&mut world, "next", channel, "h");
    world.pass(2_500);
    assert!(
        world.trace.lines.iter().any(|line| line == "next: ok rev 9 seq 8"),
        "{:?}",
        world.trace.lines
    );
}

#[test]
fn a_log_that_went_back_together_with_its_note_is_found_out() {
    let (mut world, ann, channel) = led();
    world.pass(2_000);
    let (note, end) = (noted(&mut world), world.logs[0].end());
    for label in ["e", "f", "g"] {
        ann.publish(&mut world, label, channel, label);
    }
    world.pass(2_000);
    world.logs[0].truncate(end);
    world.store.noted.insert(P0, note);
    take_over(&mut world);
    assert_eq!(world.core(0).standing(), Standing::Leading, "the note says nothing of it");
    let writes = world.store.writes;
    world.store.down = false;
    settle(&mut world);
    assert_eq!(world.core(0).standing(), Standing::Halted);
    let halted = world.nodes[0].events.last().unwrap();
    assert!(halted.contains("it was truncated"), "{halted}");
    assert_eq!(world.store.writes, writes, "nothing of it came into the store");
    assert_eq!(world.core(0).unprojected(), (0, None), "and it holds up nobody else");
}

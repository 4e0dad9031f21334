//! What a takeover refuses, and what stops a partition for good.

use bytes::Bytes;
use chappe_protocol::{Incarnation, PartitionId, Rev};
use chappe_storage::{
    log::Offset,
    store::{Key, Row, Stamp},
};

use super::begin;
use crate::{
    config::Assignment,
    partition::Standing,
    record::{Adopt, Claim, Lineage, Mark, Record},
    row::RowValue,
    testing::{Asker, LINEAGE, World},
};

/// A world with a log and a checkpoint, whose broker stopped.
fn stopped() -> World {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    for label in ["a", "b", "c"] {
        ann.publish(&mut world, label, channel, label);
    }
    world.pass(2_000);
    ann.publish(&mut world, "d", channel, "above the checkpoint");
    world
}

fn halted(mut world: World) -> String {
    world.restart(0);
    world.pass(1_000);
    assert_eq!(world.core(0).standing(), Standing::Halted);
    world.nodes[0].events.last().unwrap().clone()
}

fn change_checkpoint(world: &mut World, change: impl Fn(&mut crate::row::CheckpointRow)) {
    let key = Key::Checkpoint(PartitionId(0));
    let Some(RowValue::Checkpoint(mut row)) = world.store.value(&key) else { panic!("none") };
    change(&mut row);
    world.store.lose(&key);
    let stamp = Stamp::at(Incarnation(1), row.offset);
    let value = RowValue::Checkpoint(row).encode();
    world.store.put(key, Row { stamp, value });
}

#[test]
fn a_truncated_log_is_refused_and_stays_refused() {
    let mut world = stopped();
    let end = world.logs[0].end();
    let key = Key::Checkpoint(PartitionId(0));
    let Some(RowValue::Checkpoint(row)) = world.store.value(&key) else { panic!("none") };
    world.logs[0].truncate(Offset(row.highest));
    for _ in 0..3 {
        world.restart(0);
        let halted = world.nodes[0].events.last().unwrap();
        assert!(halted.contains("it was truncated"), "{halted}");
    }
    assert!(world.logs[0].end() < end, "no claim makes it longer");
}

#[test]
fn a_log_of_another_lineage_is_refused() {
    let mut world = stopped();
    change_checkpoint(&mut world, |row| row.lineage = Lineage(8));
    assert!(halted(world).contains("the log is of lineage"));
}

#[test]
fn a_checkpoint_of_another_incarnation_is_refused() {
    let mut world = stopped();
    change_checkpoint(&mut world, |row| row.incarnation = Incarnation(2));
    assert!(halted(world).contains("the checkpoint is of incarnation 2, in force is 1"));
}

#[test]
fn another_record_before_the_checkpoint_is_noticed() {
    let mut world = stopped();
    change_checkpoint(&mut world, |row| row.crc ^= 1);
    assert!(halted(world).contains("is not the one that was projected"));
}

#[test]
fn a_log_that_lacks_what_is_to_be_replayed_is_refused() {
    let mut world = stopped();
    world.logs[0].trim(Offset(1));
    world.store.lose(&Key::Checkpoint(PartitionId(0)));
    assert!(halted(world).contains("the log begins at offset 1"));
}

#[test]
fn a_log_without_a_genesis_is_refused() {
    let mut world = World::embedded();
    world.logs[0].truncate(Offset(0));
    world.assign(0);
    assert!(world.nodes[0].events.last().unwrap().contains("create it first"));
}

#[test]
fn a_record_that_cannot_be_read_stops_the_partition_and_says_where() {
    for (bytes, why) in [
        (&[9, 1][..], "format 9 is unknown"),
        (&[1, 99][..], "record kind 99 is unknown"),
        (&[1, 4, 0x93][..], "a record of kind 4 cannot be decoded"),
    ] {
        let mut world = stopped();
        let offset = world.logs[0].push(Bytes::from_static(bytes));
        let halted = halted(world);
        assert!(halted.contains(why) && halted.contains(&offset.to_string()), "{halted}");
    }
}

#[test]
fn a_counted_fact_out_of_its_channels_revisions_stops_the_partition() {
    let mut world = stopped();
    let Some(Record::Fact(last)) = last_fact(&world) else { panic!("no fact") };
    let mut fact = (*last).clone();
    fact.mark.n += 1;
    fact.rev = Rev::new(fact.rev.get() + 2);
    world.inject(0, &Record::Fact(fact.into()));
    assert!(halted(world).contains("follows"));
}

#[test]
fn a_level_above_this_versions_stops_the_partition() {
    let mut world = stopped();
    let Some(Record::Fact(last)) = last_fact(&world) else { panic!("no fact") };
    let mark = Mark { n: last.mark.n + 1, ..last.mark };
    world.inject(0, &Record::Level(mark, 2));
    assert!(halted(world).contains("level 2"));
}

#[test]
fn after_an_adoption_only_claims_of_the_new_incarnation_lead() {
    let mut world = stopped();
    world.inject(0, &Record::Adopt(Adopt { lineage: LINEAGE, incarnation: Incarnation(2) }));
    world.restart(0);
    let halted = world.nodes[0].events.last().unwrap();
    assert!(halted.contains("incarnation"), "{halted}");
    // The operator's tool writes the checkpoints of the new incarnation.
    let end = world.logs[0].end();
    let last = world.logs[0].at(end.0 - 1);
    change_checkpoint(&mut world, |row| {
        row.incarnation = Incarnation(2);
        row.epoch = None;
        row.offset = end.0;
        row.highest = end.0 - 1;
        row.crc = crc32c::crc32c(&last);
    });
    world.add_node();
    world.assign_as(1, Incarnation(2));
    let ann = Asker::new(1, 1);
    let channel = ann.create(&mut world, "anew");
    ann.attach(&mut world, "attach", channel, Some(0));
    assert_eq!(world.trace.lines.last().unwrap(), "attach: attached at 1, reset to 1");
}

#[test]
fn facts_before_an_adoption_are_replayed_from_an_older_checkpoint() {
    let mut world = stopped();
    world.inject(0, &Record::Adopt(Adopt { lineage: LINEAGE, incarnation: Incarnation(2) }));
    world.add_node();
    world.assign_as(1, Incarnation(2));
    world.pass(2_000);
    assert_eq!(world.core(1).standing(), Standing::Leading);
    assert_eq!(world.core(1).generation().incarnation, Incarnation(2));
    let key = Key::Checkpoint(PartitionId(0));
    let Some(RowValue::Checkpoint(row)) = world.store.value(&key) else { panic!("none") };
    assert_eq!(row.incarnation, Incarnation(2), "everything below the adoption is in the store");
}

#[test]
fn without_an_adoption_a_claim_of_a_later_incarnation_does_not_count() {
    let mut world = stopped();
    world.add_node();
    world.assign_as(1, Incarnation(2));
    world.pass(2_000);
    let halted = world.nodes[1].events.last().unwrap();
    assert!(halted.contains("incarnation"), "{halted}");
}

#[test]
fn a_partition_that_stopped_says_so_to_whoever_asks() {
    let mut world = stopped();
    world.logs[0].push(Bytes::from_static(&[9]));
    world.restart(0);
    let ann = Asker::new(0, 1);
    world.trace.clear();
    ann.create(&mut world, "other");
    assert_eq!(world.trace.lines, ["other: unavailable"]);
}

#[test]
fn a_store_and_a_log_that_do_not_answer_only_delay_a_takeover() {
    let mut world = stopped();
    world.store.down = true;
    world.logs[0].down = true;
    world.restart(0);
    world.pass(1_000);
    assert_eq!(world.core(0).standing(), Standing::TakingOver);
    world.store.down = false;
    world.pass(1_000);
    assert_eq!(world.core(0).standing(), Standing::TakingOver);
    world.logs[0].down = false;
    world.pass(1_000);
    assert_eq!(world.core(0).standing(), Standing::Leading);
}

#[test]
fn requests_wait_for_a_takeover_and_are_asked_again_when_it_lasts_too_long() {
    let mut world = stopped();
    world.logs[0].down = true;
    world.restart(0);
    let ann = Asker::new(0, 1);
    world.trace.clear();
    let channel = ann.create(&mut world, "waits");
    world.pass(4_000);
    ann.history(&mut world, "page", channel);
    assert_eq!(world.trace.lines, [""; 0]);
    world.pass(1_500);
    assert_eq!(world.trace.lines, ["waits: retry"]);
    world.logs[0].down = false;
    world.pass(200);
    assert_eq!(world.trace.lines, ["waits: retry", "page: not_found"]);
}

#[test]
fn a_claim_that_another_lineage_wrote_is_void() {
    let mut world = stopped();
    let claim = Claim {
        lineage: Lineage(8),
        incarnation: Incarnation(1),
        leader: 5,
        address: String::new(),
    };
    world.inject(0, &Record::Claim(claim));
    world.restart(0);
    assert_eq!(world.core(0).standing(), Standing::Leading);
}

#[test]
fn a_partition_is_assigned_once() {
    let mut world = World::embedded();
    world.assign(0);
    let before = world.logs[0].end();
    let now = world.now(0);
    let assignment = Assignment { lineage: LINEAGE, incarnation: Incarnation(1) };
    world.core(0).handle_assigned(now, assignment);
    world.run();
    assert_eq!(world.logs[0].end(), before);
}

fn last_fact(world: &World) -> Option<Record> {
    let log = &world.logs[0];
    let record = crate::record::decode(&log.at(log.end().0 - 1)).ok()?;
    matches!(record, Record::Fact(_)).then_some(record)
}

#[test]
fn a_partition_with_nothing_to_do_lets_its_driver_sleep() {
    let mut world = stopped();
    let (mut ticks, until) = (0, world.now_ms + 60_000);
    world.pass(2_000);
    while world.now_ms < until {
        let now = world.now(0);
        world.now_ms = world.core(0).deadline(now);
        world.tick();
        ticks += 1;
    }
    assert!(ticks < 60, "{ticks} ticks in a minute");
    world.logs[0].push(Bytes::from_static(&[9]));
    world.restart(0);
    let now = world.now(0);
    assert!(world.core(0).deadline(now) > now.boot_ms + 1_000, "stopped for good");
}

/// A leader of a cluster with facts, whose log seems to end before them.
fn cut_off() -> (World, crate::testing::SimLog) {
    let mut world = World::clustered(1);
    world.assign(0);
    world.pass(2_000);
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "a");
    world.pass(2_000);
    let whole = world.logs[0].clone();
    world.logs[0].truncate(Offset(2));
    (world, whole)
}

#[test]
fn a_takeover_has_its_own_patience_with_a_log_that_seems_short() {
    let (mut world, whole) = cut_off();
    world.restart(0);
    world.pass(20_000);
    assert_eq!(world.core(0).standing(), Standing::TakingOver);
    // It is another's for a while, and then this one's again.
    let now = world.now(0);
    world.core(0).handle_revoked(now);
    world.pass(60_000);
    world.assign(0);
    world.pass(20_000);
    assert_eq!(world.core(0).standing(), Standing::TakingOver);
    world.logs[0] = whole;
    world.pass(2_000);
    assert_eq!(world.core(0).standing(), Standing::Leading);
}

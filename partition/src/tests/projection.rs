//! The projection: rows, checkpoint, and a replay that makes the same rows from anywhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, message::ChannelKind};
use chappe_storage::store::{Key, Row};
use chappe_uplink::Action;

use super::begin;
use crate::{
    config::{Bounds, Leadership},
    record::{Record, decode},
    row::RowValue,
    testing::{Asker, SimStore, World},
};

/// The next number of a sequence that looks random and never changes.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// One command of a busy channel, chosen by `seed`.
fn anything(world: &mut World, channel: ChannelId, i: u64, seed: &mut u64) {
    let user = Asker::new(0, 1 + next(seed) % 4);
    let ann = Asker::new(0, 1);
    let label = format!("n{i}");
    let seq = 1 + next(seed) % 20;
    match next(seed) % 12 {
        0..4 => user.publish(world, &label, channel, &format!("text {i}")),
        4 => user.edit(world, &label, channel, seq, &format!("edit {i}")),
        5 => user.delete(world, &label, channel, seq),
        6 | 7 => user.react(world, &label, channel, seq, "+1"),
        8 => user.unreact(world, &label, channel, seq, "+1"),
        9 => user.command(world, &label, channel, Action::Join),
        10 => user.command(world, &label, channel, Action::Leave),
        _ => ann.mention(world, &label, channel, &[2, 3]),
    }
}

fn checkpoint(store: &SimStore) -> u64 {
    match store.value(&Key::Checkpoint(PartitionId(0))) {
        Some(RowValue::Checkpoint(row)) => row.offset,
        _ => 0,
    }
}

/// The rows, without the checkpoint and without what is sent sooner or later.
fn rows(store: &SimStore) -> BTreeMap<Key, Row> {
    let rows = store
        .rows()
        .iter()
        .filter(|(key, _)| !matches!(key, Key::Checkpoint(_) | Key::Outbox { .. }));
    rows.map(|(key, row)| (*key, row.clone())).collect()
}

/// The facts that count, with their offsets.
fn facts(world: &World) -> Vec<(u64, ChannelId, chappe_protocol::Rev)> {
    let end = world.logs[0].end().0;
    let records = (0..end).map(|offset| (offset, decode(&world.logs[0].at(offset)).unwrap()));
    let facts = records.filter_map(|(offset, record)| match record {
        Record::Fact(fact) => Some((offset, fact.channel, fact.rev)),
        _ => None,
    });
    facts.collect()
}

#[test]
fn the_checkpoint_never_passes_a_hole_and_replay_from_any_checkpoint_gives_the_same_rows() {
    for round in 0..12 {
        let mut seed = round;
        let mut world = World::embedded();
        let (_, channel) = begin(&mut world);
        let mut checkpoints: BTreeMap<u64, SimStore> = BTreeMap::new();
        for i in 0..150 {
            anything(&mut world, channel, i, &mut seed);
            match next(&mut seed) % 8 {
                // The store takes a part of what is written next, and nothing for a while.
                0 => world.store.fails_after = Some((next(&mut seed) % 9) as usize),
                1 => world.store.down = true,
                2 | 3 => world.store.down = false,
                _ => {}
            }
            world.pass(next(&mut seed) % 120);
            let passed = checkpoint(&world.store);
            for (offset, channel, rev) in facts(&world) {
                let projected = world.store.rows().contains_key(&Key::Event(channel, rev));
                assert!(offset >= passed || projected, "a hole at {offset} below {passed}");
            }
            checkpoints.insert(passed, world.store.clone());
        }
        world.store.down = false;
        world.pass(20_000);
        let expected = rows(&world.store);
        assert!(checkpoints.len() > 3, "round {round}: {} checkpoints", checkpoints.len());
        for (offset, mut store) in checkpoints {
            store.down = false;
            store.fails_after = None;
            let mut replayed = World::embedded();
            replayed.logs[0] = world.logs[0].clone();
            replayed.logs[0].restore();
            replayed.store = store;
            replayed.assign(0);
            replayed.pass(20_000);
            let found = rows(&replayed.store);
            // What the replay relays once more, the inboxes ignore.
            assert_eq!(found, expected, "round {round} from {offset}");
        }
    }
}

#[test]
fn a_crash_between_rows_and_checkpoint_projects_again_and_changes_nothing() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "a");
    ann.react(&mut world, "r", channel, 1, "+1");
    world.nodes[0].store_held = true;
    world.pass(60);
    // The rows are written, the answer is lost with the process.
    assert!(world.call_store_once(0));
    while world.store.value(&Key::Message(channel, chappe_protocol::Seq::new(1))).is_none() {
        assert!(world.call_store_once(0));
    }
    let before = rows(&world.store);
    world.restart(0);
    world.pass(2_000);
    assert_eq!(rows(&world.store), before);
    ann.history(&mut world, "page", channel);
    assert_eq!(world.trace.lines.last().unwrap(), "page: messages [1='a' +1×1] at 3");
}

#[test]
fn a_store_that_is_down_does_not_stop_publishing_and_reads_show_the_tail() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.attach(&mut world, "attach", channel, None);
    world.store.down = true;
    for i in 0..60 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
        world.pass(100);
    }
    ann.history(&mut world, "page", channel);
    assert!(world.trace.lines.last().unwrap().starts_with("page: messages … [11='x', 12='x'"));
    let (bytes, oldest) = world.core(0).unprojected();
    assert!(bytes > 60 * 50 && oldest.is_some());
    world.store.down = false;
    world.pass(6_000);
    assert_eq!(world.core(0).unprojected(), (0, None));
}

#[test]
fn while_the_store_is_behind_commands_are_refused_and_reads_are_not() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.core(0).handle_backlog(Some(700));
    ann.publish(&mut world, "a", channel, "a");
    ann.history(&mut world, "page", channel);
    world.core(0).handle_backlog(None);
    ann.publish(&mut world, "a", channel, "a");
    assert_eq!(
        world.trace.lines,
        ["a: projection_behind after 700", "page: messages [] at 1", "a: ok rev 2 seq 1"]
    );
}

#[test]
fn a_row_that_the_store_lost_stops_the_partition_instead_of_being_made_up() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "a");
    world.pass(1_000);
    world.store.lose(&Key::Message(channel, chappe_protocol::Seq::new(1)));
    ann.react(&mut world, "r", channel, 1, "+1");
    world.pass(1_000);
    assert!(world.nodes[0].events.last().unwrap().contains("lacks a row of Messages"));
}

#[test]
fn the_log_is_trimmed_below_the_record_before_the_checkpoint_and_below_the_outbox() {
    let mut world = World::embedded();
    world.relay_to = None; // nothing is taken
    let (ann, channel) = begin(&mut world);
    for i in 0..30 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
        world.pass(1_000);
    }
    let created = facts(&world)[0].0;
    assert_eq!(world.logs[0].bounds().start.0, created, "its addition is not relayed");
    world.relay_to = Some(0);
    for i in 30..60 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
        world.pass(1_000);
    }
    let start = world.logs[0].bounds().start.0;
    assert!(start > created + 10 && start < checkpoint(&world.store), "{start}");
    world.restart(0);
    ann.history(&mut world, "page", channel);
    assert!(world.trace.lines.last().unwrap().ends_with("60='x'] at 61"));
}

#[test]
fn a_channel_that_nobody_uses_is_forgotten_and_loaded_again() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "a");
    world.pass(200_000);
    assert!(!world.core(0).slots.contains_key(&channel));
    ann.publish(&mut world, "a", channel, "a");
    ann.publish(&mut world, "b", channel, "b");
    ann.history(&mut world, "page", channel);
    assert_eq!(
        world.trace.lines,
        [
            "a: ok rev 2 seq 1",
            "a: ok rev 2 seq 1",
            "b: ok rev 3 seq 2",
            "page: messages [1='a', 2='b'] at 3"
        ]
    );
}

#[test]
fn channels_that_are_heard_and_not_used_do_not_push_out_the_one_that_is() {
    let bounds = Bounds { channels_max: 4, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    for i in 0..6 {
        let heard = ann.create(&mut world, &format!("heard{i}"));
        ann.attach(&mut world, "attach", heard, None);
    }
    for i in 0..70 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
        world.pass(1_000);
    }
    let kept = world.core(0).slots.values().filter(|slot| slot.known().is_some()).count();
    assert!(kept <= 4, "{kept} states are kept");
    world.store.down = true;
    ann.publish(&mut world, "last", channel, "from memory");
    assert_eq!(world.trace.lines.last().unwrap(), "last: ok rev 72 seq 71");
}

#[test]
fn a_channel_with_unprojected_facts_is_not_forgotten() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.store.down = true;
    ann.publish(&mut world, "a", channel, "a");
    world.pass(200_000);
    assert!(world.core(0).slots.contains_key(&channel));
}

#[test]
fn a_deleted_channel_frees_its_name_and_leaves_every_members_list() {
    let mut world = World::embedded();
    let (ann, _) = begin(&mut world);
    let members: Vec<u64> = (2..40).collect();
    let channel = ann.create_kind(&mut world, "doomed", ChannelKind::Private, &members);
    for user in 40..1_200 {
        ann.add(
            &mut world,
            &format!("a{user}"),
            channel,
            user,
            chappe_protocol::message::Role::Member,
        );
    }
    world.pass(5_000);
    ann.command(&mut world, "delete", channel, Action::DeleteChannel);
    world.pass(5_000);
    assert!(world.store.name("doomed").is_none());
    let left: Vec<_> = world
        .store
        .rows()
        .iter()
        .filter(|(key, _)| matches!(key, Key::ChannelOfUser(_, listed) if *listed == channel))
        .map(|(key, row)| RowValue::decode(key, &row.value).unwrap())
        .collect();
    assert_eq!(left.len(), 1_199);
    assert!(left.iter().all(|row| matches!(row, RowValue::Listed(row) if row.removed)));
    assert!(!world.store.rows().keys().any(|key| matches!(key, Key::Outbox { .. })));
    assert_eq!(world.core(0).outbox_rows(), 0);
}

#[test]
fn a_checkpoint_that_cannot_be_read_stops_the_takeover() {
    let mut world = World::embedded();
    begin(&mut world);
    world.pass(1_000);
    let key = Key::Checkpoint(PartitionId(0));
    let stamp = world.store.rows()[&key].stamp;
    world.store.put(key, Row { stamp, value: Bytes::from_static(b"no") });
    world.restart(0);
    assert!(world.nodes[0].events.last().unwrap().contains("the store is damaged"));
}

//! The relay into inboxes of other partitions.

use chappe_protocol::{ChannelId, Incarnation, PartitionId, UserId, message::Role};
use chappe_storage::{
    log::{AppendError, Offset},
    store::{Key, Mutation, Row},
};

use crate::{
    config::{Assignment, Bounds, Leadership},
    record::{Adopt, Fact, FactBody, Genesis, Record, decode},
    row::{CheckpointRow, RowValue},
    testing::{Asker, LINEAGE, StoreCall, World, channel_in},
};

/// Two partitions and two brokers: the channel is in the first, the inbox of `user` in the second.
struct Setup {
    world: World,
    ann: Asker,
    channel: ChannelId,
    label: String,
    user: u64,
    inbox: ChannelId,
}

fn setup(bounds: Bounds) -> Setup {
    let mut world = World::with_bounds(Leadership::LEASE, 2, 2, bounds);
    world.assign(0);
    world.pass(1_300);
    let (channel, label) = channel_in(0, 2, 0);
    let user = (2..).find(|user| ChannelId::inbox(UserId::new(*user)).partition(2).0 == 1).unwrap();
    let ann = Asker::new(0, 1);
    Setup { world, ann, channel, label, user, inbox: ChannelId::inbox(UserId::new(user)) }
}

/// What the inbox holds, as its owner hears it at a broker.
fn inbox_events(setup: &mut Setup, node: usize) -> String {
    let owner = Asker::new(node, setup.user);
    owner.events(&mut setup.world, "inbox", setup.inbox, 0);
    setup.world.pass(400);
    setup.world.trace.lines.iter().rev().find(|line| line.starts_with("inbox:")).unwrap().clone()
}

/// Adds and removes the user, and mentions him: one fact after another.
fn comings_and_goings(setup: &mut Setup, rounds: u64) {
    comings_and_goings_from(setup, 0, rounds);
}

/// One round is relayed already; from here on the store answers when the script says so.
fn with_store_held() -> Setup {
    let mut setup = setup(Bounds::default());
    let label = setup.label.clone();
    setup.ann.create(&mut setup.world, &label);
    comings_and_goings(&mut setup, 1);
    setup.world.pass(2_000); // the inbox has what it needs in memory
    setup.world.nodes[0].store_held = true;
    setup
}

fn expected(rounds: u64) -> String {
    let events: Vec<_> = (0..rounds)
        .flat_map(|i| {
            [
                format!("{} channel.added", 3 * i + 1),
                format!("{} mention.added", 3 * i + 2),
                format!("{} channel.removed", 3 * i + 3),
            ]
        })
        .collect();
    format!("inbox: events [{}] of {}", events.join(", "), 3 * rounds)
}

#[test]
fn relayed_facts_arrive_once_and_in_order_also_when_the_inboxs_leader_moves() {
    let mut setup = setup(Bounds::default());
    let label = setup.label.clone();
    setup.ann.create(&mut setup.world, &label);
    comings_and_goings(&mut setup, 3);
    setup.world.pass(200); // some are sent
    setup.world.relay_to = None; // the inbox's leader is gone
    comings_and_goings_from(&mut setup, 3, 6);
    setup.world.pass(2_000);
    // Another takes all partitions; what it finds in the outbox it sends.
    setup.world.assign(1);
    setup.world.relay_to = Some(1);
    setup.world.pass(6_000);
    assert_eq!(inbox_events(&mut setup, 1), expected(6));
    assert_eq!(outbox(&setup.world), [], "what was sent is removed");
}

fn comings_and_goings_from(setup: &mut Setup, from: u64, to: u64) {
    let (ann, channel, user) = (setup.ann.clone(), setup.channel, setup.user);
    for i in from..to {
        ann.add(&mut setup.world, &format!("a{i}"), channel, user, Role::Member);
        ann.mention(&mut setup.world, &format!("m{i}"), channel, &[user]);
        ann.remove(&mut setup.world, &format!("r{i}"), channel, user);
    }
}

#[test]
fn what_was_sent_and_not_removed_is_sent_again_and_ignored() {
    let mut setup = setup(Bounds::default());
    let label = setup.label.clone();
    setup.ann.create(&mut setup.world, &label);
    comings_and_goings(&mut setup, 2);
    // A copy of what is to be sent is kept, as if it had not been removed before the crash.
    setup.world.nodes[0].store_held = true;
    setup.world.pass(40);
    while outbox(&setup.world).is_empty() {
        assert!(setup.world.call_store_once(0));
    }
    let outbox = outbox(&setup.world);
    setup.world.nodes[0].store_held = false;
    setup.world.pass(2_000);
    for (key, row) in outbox {
        setup.world.store.put(key, row);
    }
    setup.world.restart(0);
    setup.world.pass(4_000);
    assert_eq!(inbox_events(&mut setup, 0), expected(2));
}

#[test]
fn an_outbox_larger_than_memory_is_read_from_the_store_in_turns() {
    let mut setup = setup(Bounds { outbox_rows_max: 4, relays_max: 2, ..Bounds::default() });
    let label = setup.label.clone();
    setup.world.relay_to = None;
    setup.ann.create(&mut setup.world, &label);
    comings_and_goings(&mut setup, 10);
    setup.world.pass(2_000);
    assert!(setup.world.core(0).outbox_rows() <= 4);
    setup.world.relay_to = Some(0);
    setup.world.pass(20_000);
    assert_eq!(inbox_events(&mut setup, 0), expected(10));
    assert_eq!(outbox(&setup.world), []);
}

#[test]
fn nothing_is_relayed_before_the_checkpoint_has_passed_it() {
    let mut setup = with_store_held();
    comings_and_goings_from(&mut setup, 1, 3);
    let mut heard = 0;
    for _ in 0..400 {
        setup.world.call_store_once(0);
        setup.world.pass(5);
        heard = relayed(&setup.world, setup.channel);
    }
    assert_eq!(heard, 9);
}

/// Checks that the checkpoint has passed every fact that an inbox holds; says how many there are.
fn relayed(world: &World, channel: ChannelId) -> usize {
    let facts = |partition: usize| -> Vec<(u64, std::sync::Arc<Fact>)> {
        let log = &world.logs[partition];
        let records = (0..log.end().0).map(|offset| (offset, decode(&log.at(offset)).unwrap()));
        let facts = records.filter_map(|(offset, record)| match record {
            Record::Fact(fact) => Some((offset, fact)),
            _ => None,
        });
        facts.collect()
    };
    let checkpoint = match world.store.value(&Key::Checkpoint(PartitionId(0))) {
        Some(RowValue::Checkpoint(row)) => row.offset,
        _ => 0,
    };
    let sources = facts(0);
    let taken = facts(1);
    for (_, fact) in &taken {
        let rev = match &fact.body {
            FactBody::ChannelAdded(body) => body.rev,
            FactBody::ChannelRemoved(body) => body.rev,
            FactBody::Mentioned(body) => body.rev,
            other => panic!("not relayed: {other:?}"),
        };
        let source = sources.iter().find(|(_, f)| f.channel == channel && f.rev == rev).unwrap();
        assert!(source.0 < checkpoint, "revision {rev} was relayed above the checkpoint");
    }
    taken.len()
}

/// The outbox rows in the store.
fn outbox(world: &World) -> Vec<(Key, Row)> {
    let rows = world.store.rows().iter();
    let rows = rows.filter(|(key, _)| matches!(key, Key::Outbox { .. }));
    rows.map(|(key, row)| (*key, row.clone())).collect()
}

#[test]
fn what_the_store_does_not_remove_is_removed_later_and_nobody_is_woken_meanwhile() {
    let mut setup = with_store_held();
    comings_and_goings_from(&mut setup, 1, 2);
    let world = &mut setup.world;
    let removes = |world: &World| {
        let call = world.nodes[0].store_calls.front();
        let Some((_, StoreCall::Write(_, rows))) = call else { return false };
        rows.iter().all(|row| row.value.is_none())
    };
    for _ in 0..400 {
        if removes(world) {
            break;
        }
        world.call_store_once(0);
        world.pass(5);
    }
    assert!(removes(world), "what was sent is to be removed");
    world.store.down = true;
    world.call_store_once(0);
    world.store.down = false;
    let now = world.now(0);
    let wait_ms = world.core(0).deadline(now) - now.boot_ms;
    assert!(wait_ms > 50, "the next tick is in {wait_ms} ms");
    world.nodes[0].store_held = false;
    world.pass(4_000);
    assert_eq!(outbox(world), []);
}

#[test]
fn after_a_doubt_the_outbox_goes_on_where_it_was() {
    for pause_ms in [0, 55, 70, 1_000] {
        let mut world = World::embedded();
        world.relay_to = None;
        world.assign(0);
        let ann = Asker::new(0, 1);
        let channel = ann.create(&mut world, "general");
        ann.add(&mut world, "a", channel, 2, Role::Member);
        world.pass(pause_ms);
        world.nodes[0].held = true;
        ann.publish(&mut world, "m", channel, "m");
        let lost = world.lose(0);
        let error = AppendError("lost".to_owned());
        world.ack(0, lost.partition, lost.token, Err(error));
        world.nodes[0].held = false;
        world.relay_to = Some(0);
        world.pass(10_000);
        world.trace.clear();
        Asker::new(0, 2).events(&mut world, "his", ChannelId::inbox(UserId::new(2)), 0);
        assert_eq!(world.trace.lines, ["his: events [1 channel.added] of 1"]);
        assert_eq!(outbox(&world), []);
    }
}

#[test]
fn a_relayed_fact_in_doubt_at_the_inboxs_old_leader_arrives_once_at_its_new_one() {
    for in_time in [true, false] {
        let mut setup = setup(Bounds::default());
        let label = setup.label.clone();
        setup.ann.create(&mut setup.world, &label);
        setup.world.pass(200);
        comings_and_goings(&mut setup, 1);
        let world = &mut setup.world;
        world.nodes[0].held = true;
        world.pass(100); // the first is on its way into the inbox's log
        let flying = world.lose(0);
        assert_eq!(flying.partition, PartitionId(1));
        if in_time {
            world.logs[1].push(flying.record.clone());
        }
        // Only the inbox's partition moves; the channel's leader stays.
        world.relay_to = Some(1);
        let assignment = Assignment { lineage: LINEAGE, incarnation: Incarnation(1) };
        let now = world.now(1);
        world.nodes[1].cores[1].handle_assigned(now, assignment);
        world.run();
        if !in_time {
            world.logs[1].push(flying.record); // behind the claim: void
        }
        let error = AppendError("no answer".to_owned());
        world.ack(0, flying.partition, flying.token, Err(error));
        world.nodes[0].held = false;
        world.pass(6_000);
        assert_eq!(inbox_events(&mut setup, 1), expected(1), "in time: {in_time}");
        assert_eq!(outbox(&setup.world), []);
    }
}

#[test]
fn what_is_projected_before_the_replay_ends_is_relayed_too() {
    let mut world = World::embedded();
    world.assign(0);
    let ann = Asker::new(0, 1);
    let channel = ann.create(&mut world, "general");
    world.pass(2_000);
    world.nodes[0].store_held = true;
    ann.add(&mut world, "a", channel, 2, Role::Member);
    // The broker is replaced, and the claim of the next one does not show in the log at once.
    world.add_node();
    world.nodes.swap_remove(0);
    world.nodes[0].held = true;
    world.assign(0);
    let (claim, epoch) = world.land(0);
    world.logs[0].truncate(epoch);
    world.ack(0, claim.partition, claim.token, Ok(epoch));
    world.run();
    world.nodes[0].store_held = true;
    world.pass(50);
    assert!(world.call_store_once(0) && world.call_store_once(0), "the rows, read and written");
    assert_eq!(outbox(&world).len(), 1);
    let checkpoint = world.nodes[0].store_calls.pop_front().unwrap();
    world.logs[0].push(claim.record);
    world.nodes[0].held = false;
    world.pass(200);
    assert!(world.call_store_once(0), "the outbox, read before the checkpoint is written");
    world.nodes[0].store_calls.push_front(checkpoint);
    world.nodes[0].store_held = false;
    world.pass(10_000);
    world.trace.clear();
    Asker::new(0, 2).events(&mut world, "his", ChannelId::inbox(UserId::new(2)), 0);
    assert_eq!(world.trace.lines, ["his: events [1 channel.added] of 1"]);
    assert_eq!(outbox(&world), []);
}

#[test]
fn what_an_earlier_leader_left_above_the_checkpoint_waits_for_it() {
    let mut world = World::embedded();
    world.assign(0);
    let ann = Asker::new(0, 1);
    let channel = ann.create(&mut world, "general");
    world.pass(2_000);
    world.nodes[0].store_held = true;
    ann.add(&mut world, "a", channel, 2, Role::Member);
    world.pass(50);
    assert!(world.call_store_once(0) && world.call_store_once(0), "the rows, read and written");
    assert_eq!(outbox(&world).len(), 1);
    world.restart(0);
    let inbox = ChannelId::inbox(UserId::new(2));
    let taken = |world: &World| {
        let records = (0..world.logs[0].end().0).map(|at| decode(&world.logs[0].at(at)).unwrap());
        let facts = records.filter(|r| matches!(r, Record::Fact(fact) if fact.channel == inbox));
        facts.count()
    };
    assert_eq!(taken(&world), 0, "its checkpoint is not written");
    world.pass(10_000);
    assert_eq!(taken(&world), 1);
    assert_eq!(outbox(&world), []);
}

#[test]
fn what_was_to_be_sent_before_a_log_was_made_anew_is_sent_from_the_store_whatever_its_offset() {
    let mut world = World::embedded();
    world.relay_to = None;
    world.assign(0);
    let ann = Asker::new(0, 1);
    let channel = ann.create(&mut world, "general");
    world.relay_to = Some(0);
    world.pass(2_000);
    world.relay_to = None;
    for i in 0..50 {
        ann.publish(&mut world, &format!("m{i}"), channel, "m");
    }
    ann.add(&mut world, "a", channel, 2, Role::Member);
    world.pass(2_000);
    let [(key, _)] = &outbox(&world)[..] else { panic!("one row waits") };
    assert!(matches!(world.store.value(key), Some(RowValue::Outbox(row)) if row.offset > 50));
    // The log is lost and adopted: the checkpoint of the next incarnation is at its beginning.
    world.logs[0].restore();
    let adopted = Assignment { lineage: LINEAGE, incarnation: Incarnation(2) };
    world.logs[0].truncate(Offset(0));
    world.inject(0, &Record::Genesis(Genesis { lineage: LINEAGE, partitions: 1 }));
    let adopt = Adopt { lineage: LINEAGE, incarnation: adopted.incarnation };
    let at = world.inject(0, &Record::Adopt(adopt));
    let row = CheckpointRow::anew(adopted, at, &world.logs[0].at(at.0), 0, 0);
    let Mutation { key, stamp, value } = row.write(PartitionId(0), adopted.incarnation);
    world.store.put(key, Row { stamp, value: value.unwrap() });
    world.add_node();
    world.nodes.swap_remove(0);
    world.assign_as(0, adopted.incarnation);
    world.relay_to = Some(0);
    world.pass(5_000);
    // Before and after the adoption.
    ann.remove(&mut world, "r", channel, 2);
    world.pass(5_000);
    assert_eq!(outbox(&world), []);
    world.trace.clear();
    Asker::new(0, 2).events(&mut world, "his", ChannelId::inbox(UserId::new(2)), 0);
    assert_eq!(world.trace.lines, ["his: events [1 channel.added, 2 channel.removed] of 2"]);
}

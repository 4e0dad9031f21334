//! What leaves under which proof of leadership.

use chappe_protocol::message::ChannelKind;
use chappe_storage::log::AppendRefused;

use super::{begin, check};
use crate::{
    record::{Mark, Record, decode},
    testing::{Asker, World},
};

fn releases(world: &World) -> usize {
    let log = &world.logs[0];
    let records =
        (log.bounds().start.0..log.end().0).map(|offset| decode(&log.at(offset)).unwrap());
    records.filter(|record| matches!(record, Record::Release(_))).count()
}

#[test]
fn without_a_live_lease_no_read_and_no_refusal_leaves_and_with_a_new_proof_they_do() {
    check(
        World::clustered(1),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            world.nodes[0].held = true;
            world.freeze(1_001); // since the last proof
            bob.history(world, "page", channel);
            bob.publish(world, "refused", channel, "x");
            bob.attach(world, "attach", channel, None);
            assert_eq!(world.trace.lines, [""; 0]);
            ann.publish(world, "a", channel, "a");
            world.freeze(1_001);
            world.fly(0);
            assert_eq!(world.trace.lines, ["a: ok rev 2 seq 1"], "an ok needs no lease");
            world.nodes[0].held = false;
            world.pass(300); // a beat
        },
        &[
            "a: ok rev 2 seq 1",
            "page: messages [] at 1",
            "refused: not_a_member",
            "attach: retry", // "a" was told since, and may have changed who may attach
        ],
    );
}

#[test]
fn a_read_that_waited_too_long_for_a_lease_is_asked_again() {
    check(
        World::clustered(1),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            world.freeze(1_001);
            ann.history(world, "page", channel);
            world.pass(5_100);
        },
        &["page: retry"],
    );
}

#[test]
fn a_leader_that_stood_still_proves_itself_before_it_answers() {
    check(
        World::clustered(2),
        |world| {
            let (ann, channel) = begin(world);
            ann.attach(world, "attach", channel, None);
            world.freeze(60_000);
            world.assign(1); // meanwhile another claimed
            ann.history(world, "page", channel);
            assert_eq!(world.trace.lines.len(), 1);
            world.pass(400); // its beat lands behind the claim
        },
        &["attach: attached at 1, from 1", "page: retry"],
    );
}

#[test]
fn a_new_leader_is_silent_for_its_first_wait() {
    check(
        World::clustered(2),
        |world| {
            let (_, channel) = begin(world);
            world.assign(1);
            let bob = Asker::new(1, 1);
            bob.publish(world, "a", channel, "a");
            bob.history(world, "page", channel);
            world.pass(1_150);
            assert_eq!(world.trace.lines, [""; 0], "also the ok of a durable fact");
            world.pass(100);
        },
        &["a: ok rev 2 seq 1", "page: messages [1='a'] at 2"],
    );
}

#[test]
fn directly_after_a_release_a_new_leader_speaks_at_once() {
    check(
        World::clustered(2),
        |world| {
            let (_, channel) = begin(world);
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            assert_eq!(releases(world), 1);
            world.assign(1);
            Asker::new(1, 1).history(world, "page", channel);
        },
        &["page: messages [] at 1"],
    );
}

#[test]
fn a_claim_between_the_release_and_its_own_brings_the_first_wait_back() {
    check(
        World::clustered(3),
        |world| {
            let (_, channel) = begin(world);
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            world.assign(1);
            world.assign(2);
            Asker::new(2, 1).history(world, "page", channel);
            world.pass(1_100);
            assert_eq!(world.trace.lines, [""; 0]);
            world.pass(400);
        },
        &["page: messages [] at 1"],
    );
}

#[test]
fn in_its_first_wait_a_leader_never_releases() {
    let mut world = World::clustered(1);
    world.assign(0);
    let now = world.now(0);
    world.core(0).handle_revoked(now);
    world.run();
    world.pass(600);
    assert_eq!(releases(&world), 0);
    assert_eq!(world.nodes[0].events.last().unwrap(), "handed over");
}

#[test]
fn after_the_release_was_handed_over_no_read_is_answered() {
    check(
        World::clustered(1),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            ann.history(world, "page", channel);
            ann.publish(world, "a", channel, "a");
            world.nodes[0].held = false;
            world.run();
            assert_eq!(releases(world), 1);
        },
        &["a: retry", "page: retry"],
    );
}

#[test]
fn a_hand_over_lets_what_is_in_flight_come_home_first() {
    let world = check(
        World::clustered(1),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            ann.publish(world, "b", channel, "b");
            assert_eq!(world.nodes[0].flying.len(), 1, "no release while a is in flight");
            world.nodes[0].held = false;
            world.run();
            world.tick();
        },
        &["b: retry", "a: ok rev 2 seq 1"],
    );
    assert_eq!(releases(&world), 1);
}

#[test]
fn beats_keep_the_lease_of_a_leader_that_somebody_listens_to() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    ann.attach(&mut world, "attach", channel, None);
    let before = world.logs[0].end().0;
    world.pass(3_000);
    let beats = world.logs[0].end().0 - before;
    assert!((9..=10).contains(&beats), "{beats} beats in three seconds");
    ann.history(&mut world, "page", channel);
    assert_eq!(world.trace.lines.last().unwrap(), "page: messages [] at 1");
}

#[test]
fn void_records_between_a_release_and_the_claim_do_not_bring_the_first_wait_back() {
    check(
        World::clustered(2),
        |world| {
            let (_, channel) = begin(world);
            let mark = Mark { generation: world.core(0).generation(), n: 99, ts: 0, tick: 0 };
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            world.inject(0, &Record::Beat(mark));
            world.assign(1);
            Asker::new(1, 1).history(world, "page", channel);
        },
        &["page: messages [] at 1"],
    );
}

#[test]
fn a_checkpoint_directly_behind_the_release_remembers_it() {
    check(
        World::clustered(2),
        |world| {
            let (_, channel) = begin(world);
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            world.pass(65_000);
            assert_eq!(world.core(0).checkpoint(), Some(world.logs[0].end()));
            world.assign(1);
            Asker::new(1, 1).history(world, "page", channel);
        },
        &["page: messages [] at 1"],
    );
}

#[test]
fn a_read_that_waited_for_the_first_wait_does_not_leave_behind_the_release() {
    check(
        World::clustered(1),
        |world| {
            world.assign(0);
            world.pass(1_000);
            let ann = Asker::new(0, 1);
            let channel = ann.create(world, "general"); // its proof is live when the wait is over
            ann.history(world, "page", channel);
            world.freeze(300);
            let now = world.now(0);
            world.core(0).handle_revoked(now);
            world.run();
            assert_eq!(releases(world), 1);
        },
        &["general: ok rev 1", "page: retry"],
    );
}

#[test]
fn who_lost_his_right_while_his_attach_waited_for_a_lease_is_not_let_in() {
    check(
        World::clustered(1),
        |world| {
            let (ann, _) = begin(world);
            let bob = Asker::new(0, 2);
            let channel = ann.create_kind(world, "private", ChannelKind::Private, &[2]);
            world.pass(100);
            world.trace.clear();
            world.nodes[0].held = true;
            world.freeze(1_001);
            bob.attach(world, "attach", channel, None);
            ann.remove(world, "remove", channel, 2);
            world.freeze(1_001);
            world.fly(0);
            world.nodes[0].held = false;
            world.pass(300); // a beat
            bob.attach(world, "again", channel, None);
            ann.publish(world, "secret", channel, "secret");
        },
        &["remove: ok rev 2", "attach: retry", "again: not_found", "secret: ok rev 3 seq 1"],
    );
}

#[test]
fn a_log_that_takes_no_beat_is_not_asked_all_the_time() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    ann.attach(&mut world, "attach", channel, None);
    world.nodes[0].refuses = Some(AppendRefused::Full);
    let (mut ticks, until) = (0, world.now_ms + 3_000);
    while world.now_ms < until {
        let now = world.now(0);
        world.now_ms = world.core(0).deadline(now);
        world.tick();
        ticks += 1;
    }
    assert!(ticks < 60, "{ticks} ticks in three seconds");
}

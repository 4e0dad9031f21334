//! Which records count.

use chappe_protocol::message::ChannelKind;
use chappe_storage::log::AppendError;

use super::{begin, check};
use crate::testing::{Asker, World};

#[test]
fn a_deposed_leaders_late_appends_are_void() {
    check(
        World::clustered(2),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "late", channel, "too late");
            world.assign(1);
            let (late, offset) = world.land(0); // behind the other's claim
            world.pass(1_300);
            let bob = Asker::new(1, 1);
            bob.publish(world, "next", channel, "the other's");
            bob.history(world, "page", channel);
            world.ack(0, late.partition, late.token, Ok(offset));
            world.run();
        },
        &["next: ok rev 2 seq 1", "page: messages [1='the other's'] at 2", "late: unknown"],
    );
}

#[test]
fn a_deposed_leaders_late_append_is_void_also_where_its_number_would_fit() {
    check(
        World::clustered(2),
        |world| {
            world.assign(0);
            world.pass(1_300);
            let (ann, bob) = (Asker::new(0, 1), Asker::new(1, 2));
            world.nodes[0].held = true;
            let late = ann.create_kind(world, "late", ChannelKind::Group, &[]); // its first
            world.assign(1);
            world.land(0); // where the other's first record would stand
            world.pass(1_300);
            bob.create_kind(world, "next", ChannelKind::Group, &[]);
            Asker::new(1, 1).history(world, "page", late);
        },
        &["next: ok rev 1", "page: not_found"],
    );
}

#[test]
fn after_a_message_that_was_lost_in_the_middle_the_rest_is_void() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            for label in ["a", "b", "c"] {
                ann.publish(world, label, channel, label);
            }
            let lost = world.lose(0);
            world.land(0);
            world.land(0);
            let error = AppendError("timed out".to_owned());
            world.ack(0, lost.partition, lost.token, Err(error));
            world.nodes[0].held = false;
            world.pass(300); // it claims again
            ann.history(world, "page", channel);
            let again = Asker { attempt: 1, ..ann };
            again.publish(world, "a", channel, "a");
            again.publish(world, "b", channel, "b");
            ann.history(world, "after", channel);
        },
        &[
            "a: unknown",
            "b: unknown",
            "c: unknown",
            "page: messages [] at 1",
            "a: ok rev 2 seq 1",
            "b: ok rev 3 seq 2",
            "after: messages [1='a', 2='b'] at 3",
        ],
    );
}

#[test]
fn a_batch_that_was_appended_twice_counts_once_where_it_first_stands() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            ann.publish(world, "b", channel, "b");
            let batch = [world.land(0).0, world.land(0).0];
            for flying in batch {
                let offset = world.logs[0].push(flying.record);
                world.ack(0, flying.partition, flying.token, Ok(offset));
            }
            world.nodes[0].held = false;
            world.run();
            world.pass(300);
            ann.publish(world, "c", channel, "c");
            ann.history(world, "page", channel);
            world.pass(1_000);
            world.restart(0);
            ann.events(world, "events", channel, 0);
        },
        &[
            "a: ok rev 2 seq 1",
            "b: ok rev 3 seq 2",
            "c: ok rev 4 seq 3",
            "page: messages [1='a', 2='b', 3='c'] at 4",
            "events: events [1 channel.created, 2 message.created 1='a', \
             3 message.created 2='b', 4 message.created 3='c'] of 4",
        ],
    );
}

#[test]
fn a_batch_that_was_appended_twice_counts_once_for_the_next_leader_too() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            ann.publish(world, "b", channel, "b");
            for flying in [world.land(0).0, world.land(0).0] {
                world.logs[0].push(flying.record);
            }
            world.restart(0); // nothing of it was acknowledged or projected
            ann.publish(world, "b", channel, "b");
            ann.events(world, "events", channel, 0);
        },
        &[
            "b: ok rev 3 seq 2",
            "events: events [1 channel.created, 2 message.created 1='a', \
             3 message.created 2='b'] of 3",
        ],
    );
}

#[test]
fn what_was_in_doubt_and_reached_the_log_counts_and_its_retry_is_answered_the_same() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.attach(world, "attach", channel, None);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            let (flying, _) = world.land(0);
            let error = AppendError("no answer".to_owned());
            world.ack(0, flying.partition, flying.token, Err(error));
            ann.history(world, "meanwhile", channel);
            world.nodes[0].held = false;
            world.pass(300);
            let again = Asker { attempt: 1, ..ann };
            again.publish(world, "a", channel, "a");
            ann.history(world, "page", channel);
        },
        &[
            "attach: attached at 1, from 1",
            "a: unknown",
            "meanwhile: messages [] at 1",
            "a: ok rev 2 seq 1",
            "page: messages [1='a'] at 2",
        ],
    );
}

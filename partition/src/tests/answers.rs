//! What is answered when: everything in order, nothing before what it rests on.

use chappe_protocol::message::Role;
use chappe_storage::log::{AppendError, AppendRefused};

use super::{begin, check};
use crate::testing::{Asker, World};

#[test]
fn replies_refusals_and_pages_wait_for_the_facts_that_they_rest_on() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            bob.publish(world, "no member", channel, "x");
            bob.history(world, "page", channel);
            bob.attach(world, "attach", channel, None);
            ann.publish(world, "b", channel, "b");
            assert_eq!(world.trace.lines, [""; 0], "nothing is confirmed");
            world.fly(0);
            assert_eq!(world.trace.lines.len(), 4, "all that rests on the first");
            world.fly(0);
        },
        &[
            "a: ok rev 2 seq 1",
            "no member: not_a_member",
            "page: messages [1='a'] at 2",
            "attach: attached at 2, from 2",
            "pipe 2: 3 message.created 2='b'",
            "b: ok rev 3 seq 2",
        ],
    );
}

#[test]
fn a_refusal_that_rested_on_what_never_happened_is_asked_again() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.add(world, "add", channel, 2, Role::Moderator);
            ann.add(world, "again", channel, 2, Role::Member); // changes nothing, by the first
            let lost = world.lose(0);
            world.lose(0);
            let error = AppendError("lost".to_owned());
            world.ack(0, lost.partition, lost.token, Err(error));
        },
        &["add: unknown", "again: unknown"],
    );
}

#[test]
fn a_full_log_refuses_and_takes_no_revision() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            for refused in [AppendRefused::Full, AppendRefused::NoSpace, AppendRefused::Failed] {
                world.nodes[0].refuses = Some(refused);
                ann.publish(world, "a", channel, "a");
                ann.history(world, "page", channel);
            }
            world.nodes[0].refuses = None;
            ann.publish(world, "a", channel, "a");
        },
        &[
            "a: overloaded after 50",
            "page: messages [] at 1",
            "a: log_unavailable after 1000",
            "page: messages [] at 1",
            "a: log_unavailable after 1000",
            "page: messages [] at 1",
            "a: ok rev 2 seq 1",
        ],
    );
}

#[test]
fn after_a_retry_later_commands_of_the_session_wait_for_a_higher_attempt() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            world.nodes[0].held = true;
            ann.publish(world, "a", channel, "a");
            let lost = world.lose(0);
            let error = AppendError("lost".to_owned());
            world.ack(0, lost.partition, lost.token, Err(error));
            world.nodes[0].held = false;
            world.pass(300);
            ann.publish(world, "b", channel, "overtakes");
            let again = Asker { attempt: 1, ..ann.clone() };
            again.publish(world, "a", channel, "a");
            again.publish(world, "b", channel, "b");
            ann.publish(world, "late", channel, "of the first attempt");
        },
        &["a: unknown", "b: retry", "a: ok rev 2 seq 1", "b: ok rev 3 seq 2", "late: retry"],
    );
}

#[test]
fn a_session_that_waits_for_a_row_keeps_its_order_and_holds_up_nobody_else() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            bob.command(world, "join", channel, chappe_uplink::Action::Join);
            bob.publish(world, "old", channel, "old");
            world.pass(1_000);
            world.restart(0); // the message is in the store alone
            ann.read(world, "warm", channel, chappe_uplink::ReadQuery::Channel);
            world.nodes[0].store_held = true;
            bob.edit(world, "edit", channel, 1, "new");
            bob.publish(world, "after", channel, "after");
            ann.publish(world, "other", channel, "other");
            world.nodes[0].store_held = false;
            world.run();
            world.trace.lines.retain(|line| !line.starts_with("warm"));
        },
        &[
            "join: ok rev 2",
            "old: ok rev 3 seq 1",
            "other: ok rev 4 seq 2",
            "edit: ok rev 5 seq 1",
            "after: ok rev 6 seq 3",
        ],
    );
}

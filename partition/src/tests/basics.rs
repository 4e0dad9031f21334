//! A leader that nothing disturbs.

use super::check;
use crate::testing::{Asker, World};

#[test]
fn a_message_is_answered_after_its_event_was_told() {
    check(
        World::embedded(),
        |world| {
            world.assign(0);
            let (ann, bob) = (Asker::new(0, 1), Asker::new(0, 2));
            let channel = ann.create(world, "general");
            bob.attach(world, "attach", channel, None);
            bob.command(world, "join", channel, chappe_uplink::Action::Join);
            bob.publish(world, "hi", channel, "hello");
            ann.react(world, "like", channel, 1, "+1");
            bob.edit(world, "edit", channel, 1, "hello!");
            bob.history(world, "page", channel);
            bob.delete(world, "delete", channel, 1);
            bob.history(world, "after", channel);
            bob.events(world, "events", channel, 1);
        },
        &[
            "general: ok rev 1",
            "attach: attached at 1, from 1",
            "pipe 2: 2 member.added 2",
            "join: ok rev 2",
            "pipe 2: 3 message.created 1='hello'",
            "hi: ok rev 3 seq 1",
            "pipe 2: 4 reaction.added 1='hello' +1×1",
            "like: ok rev 4 seq 1",
            "pipe 2: 5 message.edited 1='hello!' +1×1",
            "edit: ok rev 5 seq 1",
            "page: messages [1='hello!' +1×1] at 5",
            "pipe 2: 6 message.deleted 1=deleted",
            "delete: ok rev 6 seq 1",
            "after: messages [1=deleted] at 6",
            "events: events [2 member.added 2, 3 message.created 1=deleted, \
             4 reaction.added 1=deleted, 5 message.edited 1=deleted, \
             6 message.deleted 1=deleted] of 6",
        ],
    );
}

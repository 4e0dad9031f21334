//! Losing access, and having it again.

use chappe_protocol::message::{ChannelKind, Role};

use super::{begin, check};
use crate::testing::{Asker, World};

fn private(world: &mut World) -> (Asker, Asker, chappe_protocol::ChannelId) {
    begin(world);
    let (ann, bob) = (Asker::new(0, 1), Asker::new(0, 2));
    let channel = ann.create_kind(world, "private", ChannelKind::Private, &[]);
    ann.publish(world, "before", channel, "before");
    ann.add(world, "add", channel, 2, Role::Member);
    ann.publish(world, "a", channel, "a");
    world.trace.clear();
    (ann, bob, channel)
}

#[test]
fn a_removed_members_cursor_ends_at_the_removal() {
    for projected in [false, true] {
        check(
            World::embedded(),
            |world| {
                let (ann, bob, channel) = private(world);
                ann.remove(world, "remove", channel, 2);
                ann.publish(world, "secret", channel, "secret");
                if projected {
                    world.pass(1_000);
                }
                bob.events(world, "events", channel, 3);
                bob.events(world, "end", channel, 5);
                bob.events(world, "beyond", channel, 6);
                bob.attach(world, "attach", channel, Some(3));
                bob.history(world, "page", channel);
                bob.publish(world, "publish", channel, "x");
                ann.events(world, "hers", channel, 4);
            },
            &[
                "remove: ok rev 5",
                "secret: ok rev 6 seq 3",
                "events: events [4 message.created 2='a', 5 member.removed 2] of 5",
                "end: events [] of 5",
                "beyond: events [] of 5",
                "attach: not_found",
                "page: not_found",
                "publish: not_found",
                "hers: events [5 member.removed 2, 6 message.created 3='secret'] of 6",
            ],
        );
    }
}

#[test]
fn a_cursor_below_the_latest_addition_is_reset_to_it() {
    check(
        World::embedded(),
        |world| {
            let (ann, bob, channel) = private(world);
            bob.attach(world, "too early", channel, Some(1));
            bob.attach(world, "in time", channel, Some(3));
            bob.events(world, "page", channel, 1);
            bob.history(world, "history", channel);
            ann.remove(world, "remove", channel, 2);
            ann.publish(world, "secret", channel, "secret");
            ann.add(world, "again", channel, 2, Role::Member);
            world.trace.clear();
            bob.attach(world, "old cursor", channel, Some(4));
            bob.events(world, "old page", channel, 4);
            bob.history(world, "new history", channel);
        },
        &[
            "old cursor: attached at 7, reset to 7",
            "old page: events reset to 7",
            "new history: messages [] at 7",
        ],
    );
}

#[test]
fn members_see_from_their_addition_on_and_public_channels_show_everything() {
    check(
        World::embedded(),
        |world| {
            let (_, bob, channel) = private(world);
            bob.attach(world, "too early", channel, Some(1));
            bob.attach(world, "in time", channel, Some(3));
            bob.events(world, "page", channel, 1);
            bob.history(world, "history", channel);
            let (open, carl) = (
                chappe_protocol::ChannelId::created_by(chappe_protocol::UserId::new(1), "general"),
                Asker::new(0, 3),
            );
            carl.attach(world, "open", open, Some(0));
            carl.events(world, "all", open, 0);
        },
        &[
            "too early: attached at 4, reset to 3",
            "in time: attached at 4, from 3",
            "page: events reset to 3",
            "history: messages [2='a'] at 4",
            "open: attached at 1, from 0",
            "all: events [1 channel.created] of 1",
        ],
    );
}

#[test]
fn a_channel_that_is_not_shown_and_one_that_does_not_exist_answer_the_same() {
    let mut world = World::embedded();
    let (_, _, channel) = private(&mut world);
    let carl = Asker::new(0, 3);
    let nothing = chappe_protocol::ChannelId::new(5);
    for (label, channel) in [("hidden", channel), ("missing", nothing)] {
        world.trace.clear();
        carl.attach(&mut world, label, channel, None);
        carl.history(&mut world, label, channel);
        carl.events(&mut world, label, channel, 0);
        carl.read(&mut world, label, channel, chappe_uplink::ReadQuery::Channel);
        carl.publish(&mut world, label, channel, "x");
        carl.command(&mut world, label, channel, chappe_uplink::Action::Join);
        carl.command(&mut world, label, channel, chappe_uplink::Action::Leave);
        carl.typing(&mut world, label, channel);
        let expected = format!("{label}: not_found");
        assert_eq!(world.trace.lines, vec![expected; 8]);
    }
}

#[test]
fn a_cursor_of_another_incarnation_or_from_the_future_is_reset() {
    use chappe_protocol::{Incarnation, Rev};
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.attach_from(world, "old", channel, Some((Incarnation(0), Rev::new(1))));
            ann.attach(world, "future", channel, Some(9));
            ann.events(world, "page", channel, 9);
        },
        &[
            "old: attached at 1, reset to 1",
            "future: attached at 1, reset to 1",
            "page: events reset to 1",
        ],
    );
}

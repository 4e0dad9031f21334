//! Making, naming and changing channels.

use chappe_protocol::{
    ChannelId, ChannelName, Topic, UserId,
    command::{CreateChannel, UpdateChannel},
    message::ChannelKind,
};
use chappe_storage::{log::AppendRefused, store::Key};
use chappe_uplink::{Action, ReadQuery};

use super::{begin, check};
use crate::testing::{Asker, World};

fn name(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

fn rename(channel: ChannelId, to: &str) -> Action {
    Action::Update(UpdateChannel { channel, name: Some(name(to)), topic: None, slow_mode_ms: None })
}

fn resolve(world: &mut World, label: &str, asked: &str) {
    let anywhere = ChannelId::new(1);
    Asker::new(0, 9).read(world, label, anywhere, ReadQuery::Resolve(name(asked)));
}

#[test]
fn a_name_is_one_channels_without_regard_to_case_and_free_again_after_it() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            bob.create(world, "GENERAL");
            resolve(world, "by name", "General");
            ann.command(world, "rename", channel, rename(channel, "plaza"));
            resolve(world, "new name", "PLAZA");
            world.pass(200);
            resolve(world, "old name", "general");
            bob.create(world, "general");
            ann.command(world, "back", channel, rename(channel, "General"));
            ann.command(world, "spelling", channel, rename(channel, "Plaza"));
            ann.command(world, "gone", channel, Action::DeleteChannel);
            world.pass(200);
            resolve(world, "deleted", "plaza");
        },
        &[
            "GENERAL: name_taken",
            "by name: resolved",
            "rename: ok rev 2",
            "new name: resolved",
            "old name: not_found",
            "general: ok rev 1",
            "back: name_taken",
            "spelling: ok rev 3",
            "gone: ok rev 4",
            "deleted: not_found",
        ],
    );
}

#[test]
fn a_channel_that_takes_its_old_name_back_keeps_it() {
    for slow_store in [false, true] {
        let mut world = World::embedded();
        let (ann, channel) = begin(&mut world);
        ann.command(&mut world, "away", channel, rename(channel, "elsewhere"));
        world.nodes[0].store_held = slow_store;
        ann.command(&mut world, "back", channel, rename(channel, "general"));
        world.pass(100);
        world.nodes[0].store_held = false;
        world.run();
        world.pass(1_000);
        assert_eq!(world.trace.lines, ["away: ok rev 2", "back: ok rev 3"]);
        assert!(world.store.name("general").is_some(), "slow store: {slow_store}");
        assert!(world.store.name("elsewhere").is_none());
    }
}

#[test]
fn a_name_whose_fact_the_log_did_not_take_is_free_for_others() {
    let mut world = World::embedded();
    let (ann, _) = begin(&mut world);
    world.nodes[0].refuses = Some(AppendRefused::Full);
    ann.create(&mut world, "plaza");
    world.nodes[0].refuses = None;
    assert!(world.store.name("plaza").is_none());
    Asker::new(0, 2).create(&mut world, "plaza");
    assert_eq!(world.trace.lines, ["plaza: overloaded after 50", "plaza: ok rev 1"]);
}

#[test]
fn a_name_that_nobody_came_to_use_is_swept_when_another_wants_it() {
    let mut world = World::embedded();
    let (ann, _) = begin(&mut world);
    // Its leader dies between the claim and the fact.
    world.nodes[0].held = true;
    ann.create(&mut world, "plaza");
    world.nodes[0].flying.clear();
    world.restart(0);
    let bob = Asker::new(0, 2);
    bob.create(&mut world, "plaza");
    world.pass(21 * 60_000);
    let bob = Asker { ..bob };
    bob.command(&mut world, "later", ChannelId::created_by(UserId::new(2), "later"), {
        Action::Create(CreateChannel {
            kind: ChannelKind::Public,
            name: Some(name("plaza")),
            topic: None,
            members: Vec::new(),
        })
    });
    assert_eq!(world.trace.lines, ["plaza: name_taken", "later: ok rev 1"]);
}

#[test]
fn a_name_is_not_freed_by_a_call_that_meant_an_earlier_hold_on_it() {
    let mut world = World::embedded();
    let (ann, _) = begin(&mut world);
    // Its leader dies between the claim and the fact, having asked to end the hold again.
    world.nodes[0].held = true;
    ann.create(&mut world, "plaza");
    world.nodes[0].flying.clear();
    let late = world.store.name("plaza").unwrap().clone();
    world.restart(0);
    ann.create(&mut world, "plaza");
    assert_eq!(world.trace.lines, ["plaza: ok rev 1"]);
    world.store.release("plaza", &late).unwrap();
    assert!(world.store.name("plaza").is_some(), "it is in use");
}

#[test]
fn a_name_that_a_channel_took_again_is_not_freed_by_its_earlier_leaders_projection() {
    let mut world = World::clustered(2);
    let (ann, channel) = begin(&mut world);
    world.pass(2_000);
    world.nodes[0].store_held = true;
    ann.command(&mut world, "away", channel, rename(channel, "elsewhere"));
    assert!(world.call_store_once(0), "the name is claimed");
    world.run();
    // Another takes over while the projection of the first waits for the store.
    let now = world.now(0);
    world.core(0).handle_lost(now);
    world.assign(1);
    world.pass(3_000);
    assert!(world.store.name("general").is_none(), "it was given up");
    let ann = Asker::new(1, ann.user);
    ann.command(&mut world, "back", channel, rename(channel, "general"));
    world.pass(3_000);
    world.nodes[0].store_held = false;
    world.pass(10_000);
    assert_eq!(world.trace.lines, ["away: ok rev 2", "back: ok rev 3"]);
    assert_eq!(world.core(0).unprojected(), (0, None), "the first is done, too");
    assert!(world.store.name("general").is_some(), "it is in use");
}

#[test]
fn a_hold_on_a_name_is_not_renewed_while_it_is_in_doubt_that_it_was_given_up() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.pass(2_000);
    world.nodes[0].held = true;
    ann.command(&mut world, "away", channel, rename(channel, "elsewhere"));
    world.nodes[0].store_held = true;
    ann.command(&mut world, "back", channel, rename(channel, "general"));
    while world.call_store_once(0) && world.store.name("general").is_some() {}
    // The broker dies, and the log has nothing of it.
    world.restart(0);
    world.pass(1_000);
    assert!(world.store.name("general").is_some(), "it is in use");
    ann.command(&mut world, "back", channel, rename(channel, "general"));
    Asker::new(0, 2).create(&mut world, "general");
    assert_eq!(world.trace.lines, ["back: ok rev 2", "general: name_taken"]);
}

#[test]
fn a_name_in_use_is_not_swept_however_old_it_is() {
    let mut world = World::embedded();
    begin(&mut world);
    world.pass(30 * 60_000);
    Asker::new(0, 2).create(&mut world, "general");
    assert_eq!(world.trace.lines, ["general: name_taken"]);
}

#[test]
fn the_name_of_a_command_that_was_refused_meanwhile_is_not_kept_for_a_later_one() {
    let mut world = World::embedded();
    let (ann, _) = begin(&mut world);
    world.nodes[0].store_held = true;
    ann.create_kind(&mut world, "other", ChannelKind::Public, &[]);
    assert!(world.call_store_once(0), "the channel is loaded");
    world.core(0).handle_backlog(Some(700));
    assert!(world.call_store_once(0), "the name is claimed");
    assert_eq!(world.trace.lines, ["other: projection_behind after 700"]);
    assert!(world.core(0).freeing.named.is_empty());
}

#[test]
fn a_store_that_is_down_refuses_what_needs_a_name_and_says_so() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.store.down = true;
    ann.command(&mut world, "rename", channel, rename(channel, "plaza"));
    ann.publish(&mut world, "a", channel, "a");
    world.store.down = false;
    ann.command(&mut world, "rename", channel, rename(channel, "plaza"));
    assert_eq!(
        world.trace.lines,
        ["rename: store_unavailable after 500", "a: ok rev 2 seq 1", "rename: ok rev 3"]
    );
}

#[test]
fn what_a_channel_is_made_of_is_checked() {
    let mut world = World::embedded();
    begin(&mut world);
    let ann = Asker::new(0, 1);
    let create = |kind, name: Option<&str>, members: Vec<u64>| CreateChannel {
        kind,
        name: name.map(|name| ChannelName::parse(name).unwrap()),
        topic: None,
        members: members.into_iter().map(UserId::new).collect(),
    };
    let cases = [
        ("no name", create(ChannelKind::Public, None, vec![]), "invalid"),
        ("a name", create(ChannelKind::Group, Some("x"), vec![2]), "invalid"),
        ("alone", create(ChannelKind::Direct, None, vec![]), "invalid"),
        ("itself", create(ChannelKind::Direct, None, vec![1]), "invalid"),
        ("three", create(ChannelKind::Direct, None, vec![2, 3]), "invalid"),
        ("many", create(ChannelKind::Private, Some("y"), (2..53).collect()), "invalid"),
        ("crowd", create(ChannelKind::Group, None, (2..52).collect()), "too_many_members"),
        ("ghost", create(ChannelKind::Group, None, vec![1 << 63]), "invalid"),
        ("full", create(ChannelKind::Group, None, (2..51).collect()), "ok rev 1"),
    ];
    for (label, create, heard) in cases {
        let channel = ChannelId::created_by(UserId::new(1), label);
        ann.command(&mut world, label, channel, Action::Create(create));
        assert_eq!(world.trace.lines.last().unwrap(), &format!("{label}: {heard}"));
    }
    let full = ChannelId::created_by(UserId::new(1), "full");
    ann.add(&mut world, "one more", full, 99, chappe_protocol::message::Role::Member);
    assert_eq!(world.trace.lines.last().unwrap(), "one more: too_many_members");
    let wrong = Action::Create(create(ChannelKind::Group, None, vec![2]));
    ann.command(&mut world, "not its id", ChannelId::new(77), wrong);
    assert_eq!(world.trace.lines.last().unwrap(), "not its id: invalid");
}

#[test]
fn an_archive_takes_no_messages_and_still_lets_what_has_to_go_go() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "m", channel, "m");
            ann.command(world, "archive", channel, Action::Archive);
            ann.publish(world, "publish", channel, "x");
            ann.edit(world, "edit", channel, 1, "x");
            ann.react(world, "react", channel, 1, "+1");
            ann.typing(world, "typing", channel);
            ann.history(world, "page", channel);
            ann.delete(world, "delete", channel, 1);
            ann.command(world, "twice", channel, Action::Archive);
            ann.command(world, "out", channel, Action::Unarchive);
            ann.publish(world, "publish", channel, "x");
        },
        &[
            "m: ok rev 2 seq 1",
            "archive: ok rev 3",
            "publish: channel_archived",
            "edit: channel_archived",
            "react: channel_archived",
            "typing: channel_archived",
            "page: messages [1='m'] at 3",
            "delete: ok rev 4 seq 1",
            "twice: ok rev 5",
            "out: ok rev 6",
            "publish: ok rev 7 seq 2",
        ],
    );
}

#[test]
fn a_deleted_channel_is_not_there_any_more() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            bob.attach(world, "attach", channel, None);
            ann.command(world, "delete", channel, Action::DeleteChannel);
            ann.command(world, "delete", channel, Action::DeleteChannel);
            ann.publish(world, "publish", channel, "x");
            ann.history(world, "page", channel);
            bob.attach(world, "again", channel, Some(1));
            ann.create(world, "general");
        },
        &[
            "attach: attached at 1, from 1",
            "pipe 2: 2 channel.deleted",
            "delete: ok rev 2",
            "delete: ok rev 2",
            "publish: not_found",
            "page: not_found",
            "again: not_found",
            "general: ok rev 1",
        ],
    );
}

#[test]
fn slow_mode_is_counted_in_leadership_and_spares_moderators() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let bob = Asker::new(0, 2);
            bob.command(world, "join", channel, Action::Join);
            let slow_mode_ms = Some(60_000);
            let update = UpdateChannel { channel, name: None, topic: None, slow_mode_ms };
            ann.command(world, "slow", channel, Action::Update(update));
            bob.publish(world, "a", channel, "a");
            world.pass(10_000);
            bob.publish(world, "b", channel, "b");
            ann.publish(world, "owner 1", channel, "x");
            ann.publish(world, "owner 2", channel, "x");
            world.freeze(3_600_000); // nobody leads for an hour
            world.restart(0);
            bob.publish(world, "b", channel, "b");
            world.pass(50_000);
            bob.publish(world, "b", channel, "b");
        },
        &[
            "join: ok rev 2",
            "slow: ok rev 3",
            "a: ok rev 4 seq 1",
            "b: slow_mode after 50000",
            "owner 1: ok rev 5 seq 2",
            "owner 2: ok rev 6 seq 3",
            "b: slow_mode after 50000",
            "b: ok rev 7 seq 4",
        ],
    );
}

#[test]
fn an_update_that_changes_nothing_is_nothing_and_an_empty_topic_clears_it() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    let topic = |text: &str| {
        let topic = Some(Topic::parse(text).unwrap());
        Action::Update(UpdateChannel { channel, name: None, topic, slow_mode_ms: None })
    };
    ann.command(&mut world, "set", channel, topic("weather"));
    ann.command(&mut world, "same", channel, topic("weather"));
    ann.command(&mut world, "clear", channel, topic(""));
    ann.events(&mut world, "events", channel, 1);
    world.pass(1_000);
    let row = world.store.value(&Key::Channel(channel));
    assert!(matches!(row, Some(crate::row::RowValue::Channel(row)) if row.topic.is_none()));
    assert_eq!(
        world.trace.lines,
        [
            "set: ok rev 2",
            "same: ok rev 3",
            "clear: ok rev 4",
            "events: events [2 channel.updated, 3 nothing, 4 channel.updated] of 4",
        ]
    );
}

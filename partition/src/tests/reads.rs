//! Pages, from memory, from the store and from both.

use chappe_protocol::{
    ChannelId, Rev, Seq, UserId,
    command::{History, MarkRead},
    message::ChannelKind,
};
use chappe_storage::store::{Key, Mutation, Row};
use chappe_uplink::{Action, Answer, Read, ReadQuery, Request};

use super::{begin, check};
use crate::{
    config::{Bounds, Leadership},
    testing::{Asker, StoreCall, World},
};

fn history(channel: ChannelId, change: impl Fn(&mut History)) -> ReadQuery {
    let mut history = History { channel, before: None, after: None, around: None, limit: Some(3) };
    change(&mut history);
    ReadQuery::Messages(history)
}

/// The numbers of a page, with a mark at the end where there is more.
fn page(world: &mut World, channel: ChannelId, change: impl Fn(&mut History)) -> String {
    let ann = Asker::new(0, 1);
    ann.read(world, "page", channel, history(channel, change));
    let Some(Ok(answer)) = world.trace.answer("page") else { return "refused".to_owned() };
    let Answer::Messages(page) = &**answer else { panic!("no page") };
    let numbers: Vec<_> = page.messages.iter().map(|m| m.seq.to_string()).collect();
    let before = if page.more_before { "<" } else { "" };
    let after = if page.more_after { ">" } else { "" };
    format!("{before}{}{after}", numbers.join(" "))
}

/// The pages of a channel with ten messages.
fn pages(world: &mut World, channel: ChannelId) -> Vec<String> {
    let seq = |n| Some(Seq::new(n));
    vec![
        page(world, channel, |_| {}),
        page(world, channel, |h| h.before = seq(8)),
        page(world, channel, |h| h.before = seq(3)),
        page(world, channel, |h| h.before = seq(1)),
        page(world, channel, |h| h.before = seq(99)),
        page(world, channel, |h| h.after = seq(0)),
        page(world, channel, |h| h.after = seq(8)),
        page(world, channel, |h| h.after = seq(10)),
        page(world, channel, |h| h.around = seq(5)),
        page(world, channel, |h| h.around = seq(1)),
        page(world, channel, |h| h.around = seq(10)),
        page(world, channel, |h| h.limit = Some(200)),
    ]
}

const PAGES: [&str; 12] = [
    "<8 9 10",
    "<5 6 7>",
    "1 2>",
    ">",
    "<8 9 10",
    "1 2 3>",
    "<9 10",
    "",
    "<4 5 6>",
    "1 2>",
    "<9 10",
    "1 2 3 4 5 6 7 8 9 10",
];

#[test]
fn the_same_pages_come_from_memory_from_the_store_and_from_both() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    for i in 1..=10 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
    }
    assert_eq!(pages(&mut world, channel), PAGES, "from memory");
    world.pass(2_000);
    world.restart(0);
    assert_eq!(pages(&mut world, channel), PAGES, "from the store");

    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    for i in 1..=10 {
        if i == 6 {
            world.pass(2_000);
            world.restart(0);
            world.store.down = false;
        }
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
    }
    assert_eq!(pages(&mut world, channel), PAGES, "from both");
}

#[test]
fn the_newest_page_is_read_from_the_store_once_and_changes_with_the_facts() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    for i in 1..=10 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
    }
    world.pass(2_000);
    world.restart(0);
    assert_eq!(page(&mut world, channel, |_| {}), "<8 9 10");
    world.store.down = true;
    assert_eq!(page(&mut world, channel, |_| {}), "<8 9 10");
    ann.edit(&mut world, "edit", channel, 9, "changed");
    ann.delete(&mut world, "delete", channel, 8);
    ann.publish(&mut world, "m11", channel, "new");
    world.trace.clear();
    ann.read(&mut world, "page", channel, history(channel, |h| h.limit = Some(4)));
    assert_eq!(
        world.trace.lines,
        ["page: messages … [8=deleted, 9='changed', 10='x', 11='new'] at 14"]
    );
}

#[test]
fn a_page_asks_for_one_direction_and_a_sensible_size() {
    let mut world = World::embedded();
    let (_, channel) = begin(&mut world);
    let seq = Some(Seq::new(1));
    assert_eq!(page(&mut world, channel, |h| (h.before, h.after) = (seq, seq)), "refused");
    assert_eq!(page(&mut world, channel, |h| h.limit = Some(0)), "refused");
    assert_eq!(page(&mut world, channel, |h| h.limit = Some(201)), "refused");
    assert_eq!(page(&mut world, channel, |_| {}), "");
}

#[test]
fn few_messages_in_memory_make_room_for_newer_ones() {
    let bounds = Bounds { hot_messages_max: 4, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    let other = ann.create(&mut world, "other");
    for i in 1..=10 {
        ann.publish(&mut world, &format!("m{i}"), channel, "x");
        ann.publish(&mut world, &format!("o{i}"), other, "x");
    }
    let kept: usize = world.core(0).slots.values().map(|slot| slot.newest.len()).sum();
    assert_eq!(kept, 4);
    assert_eq!(pages(&mut world, channel), PAGES);
    world.pass(2_000);
    assert_eq!(pages(&mut world, channel), PAGES);
}

#[test]
fn events_are_paged_without_a_gap_and_join_messages_as_they_are_now() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            ann.publish(world, "a", channel, "a");
            world.pass(2_000);
            world.restart(0);
            ann.edit(world, "edit", channel, 1, "b");
            world.trace.clear();
            ann.events(world, "all", channel, 0);
            ann.events(world, "last", channel, 2);
            ann.events(world, "none", channel, 3);
        },
        &[
            "all: events [1 channel.created, 2 message.created 1='b', 3 message.edited 1='b'] of 3",
            "last: events [3 message.edited 1='b'] of 3",
            "none: events [] of 3",
        ],
    );
}

#[test]
fn a_batch_that_the_store_shows_half_written_leaves_no_gap_in_a_page() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.pass(2_000);
    world.nodes[0].store_held = true;
    for label in ["a", "b", "c"] {
        ann.publish(&mut world, label, channel, label);
    }
    world.pass(60);
    let Some((_, StoreCall::Write(_, rows))) = world.nodes[0].store_calls.front() else {
        panic!("no rows are written")
    };
    let middle = Key::Event(channel, Rev::new(3));
    for Mutation { key, stamp, value } in rows.clone() {
        if key != middle
            && let Some(value) = value
        {
            world.store.put(key, Row { stamp, value });
        }
    }
    let write = world.nodes[0].store_calls.pop_front().unwrap();
    world.trace.clear();
    ann.events(&mut world, "page", channel, 0);
    assert!(world.call_store_once(0), "the references before the tail come from the store");
    assert_eq!(
        world.trace.lines,
        ["page: events [1 channel.created, 2 message.created 1='a', 3 message.created 2='b', \
          4 message.created 3='c'] of 4"]
    );
    world.nodes[0].store_calls.push_front(write);
}

#[test]
fn events_that_are_no_longer_kept_reset_the_reader() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            for label in ["a", "b", "c"] {
                ann.publish(world, label, channel, label);
            }
            world.pass(2_000);
            world.trace.clear();
            world.store.lose(&Key::Event(channel, Rev::new(2)));
            ann.events(world, "through the hole", channel, 0);
            ann.events(world, "into it", channel, 1);
            ann.events(world, "behind it", channel, 2);
        },
        &[
            "through the hole: events reset to 4",
            "into it: events reset to 4",
            "behind it: events [3 message.created 2='b', 4 message.created 3='c'] of 4",
        ],
    );
}

#[test]
fn whole_buckets_of_old_events_go_when_the_channel_completes_another() {
    let bounds = Bounds { events_keep_ms: 3_600_000, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    let mut i = 0;
    let mut publish_up_to = |world: &mut World, rev: u64| {
        while world.core(0).slots[&channel].told.get() < rev {
            i += 1;
            ann.publish(world, &format!("m{i}"), channel, "x");
        }
        world.pass(1_000);
    };
    publish_up_to(&mut world, 5_000);
    world.trace.clear();
    ann.events(&mut world, "young", channel, 0);
    world.freeze(3_700_000);
    publish_up_to(&mut world, 8_192);
    ann.events(&mut world, "old", channel, 0);
    ann.events(&mut world, "kept", channel, 4_095);
    ann.history(&mut world, "page", channel);
    let lines: Vec<_> = world.trace.lines.iter().filter(|line| !line.starts_with('m')).collect();
    assert!(lines[0].starts_with("young: events [1 channel.created"));
    assert_eq!(lines[1], "old: events reset to 8192");
    assert!(lines[2].starts_with("kept: events [4096 message.created"));
    assert!(lines[3].starts_with("page: messages … ["));
}

#[test]
fn a_page_of_events_ends_when_it_is_large_enough() {
    let bounds = Bounds { page_bytes_max: 1_000, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    for i in 0..10 {
        ann.publish(&mut world, &format!("m{i}"), channel, &"x".repeat(300));
    }
    ann.events(&mut world, "page", channel, 1);
    let Some(Ok(answer)) = world.trace.answer("page") else { panic!("refused") };
    let Answer::Events(page) = &**answer else { panic!("no page") };
    assert_eq!((page.events.len(), page.head), (2, Rev::new(11)));
}

#[test]
fn a_list_of_ones_own_channels_is_paged_with_read_markers() {
    let mut world = World::embedded();
    begin(&mut world);
    let (ann, bob) = (Asker::new(0, 1), Asker::new(0, 2));
    let inbox = ChannelId::inbox(UserId::new(2));
    let mut channels: Vec<ChannelId> = (0..700)
        .map(|i| ann.create_kind(&mut world, &format!("g{i}"), ChannelKind::Group, &[2]))
        .collect();
    world.pass(3_000);
    for (i, channel) in channels.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
        bob.command(&mut world, &format!("leave{i}"), *channel, Action::Leave);
    }
    let kept = channels[1];
    world.pass(3_000);
    let mark = |seq| Action::MarkRead(MarkRead { channel: kept, seq: Seq::new(seq) });
    bob.command(&mut world, "mark", inbox, mark(7));
    bob.command(&mut world, "back", inbox, mark(3));
    let left = Action::MarkRead(MarkRead { channel: channels[0], seq: Seq::new(1) });
    bob.command(&mut world, "left", inbox, left);
    let mut i = 0;
    channels.retain(|_| {
        i += 1;
        i % 2 == 0
    });
    channels.sort();
    for restart in [false, true] {
        if restart {
            world.restart(0);
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            bob.read(&mut world, "mine", inbox, ReadQuery::MyChannels { after, limit: 100 });
            let Some(Ok(answer)) = world.trace.answer("mine") else { panic!("refused") };
            let Answer::MyChannels(page) = &**answer else { panic!("no page") };
            assert!(page.channels.len() <= 100);
            listed.extend(page.channels.clone());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed.iter().map(|mine| mine.channel).collect::<Vec<_>>(), channels);
        let read = listed.iter().find(|mine| mine.channel == kept).map(|mine| mine.read);
        assert_eq!(read, Some(Seq::new(7)));
    }
    let lines = &world.trace.lines;
    assert!(lines.contains(&"left: not_a_member".to_owned()));
    assert_eq!(lines.iter().filter(|line| line.starts_with("back: ok")).count(), 1);
}

#[test]
fn members_are_paged_in_the_order_of_their_ids() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            for user in [5, 3, 4] {
                Asker::new(0, user).command(world, &format!("j{user}"), channel, Action::Join);
            }
            world.trace.clear();
            let members = |after: Option<u64>| {
                let after = after.map(UserId::new);
                ReadQuery::Members { after, limit: 2 }
            };
            ann.read(world, "first", channel, members(None));
            ann.read(world, "second", channel, members(Some(3)));
            ann.read(world, "third", channel, members(Some(5)));
            ann.read(world, "channel", channel, ReadQuery::Channel);
        },
        &[
            "first: members 1 3",
            "second: members 4 5",
            "third: members ",
            "channel: channel at 4 as Owner",
        ],
    );
}

#[test]
fn a_read_beyond_the_head_is_not_answered_with_less() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    for (token, query) in
        [(901, ReadQuery::Channel), (902, ReadQuery::Events { after: Rev::ZERO, limit: 10 })]
    {
        let at_least = Rev::new(50);
        let read = Read { token, caller: Some(ann.caller()), channel, at_least, query };
        world.send(0, 1, Request::Read(read));
    }
    assert_eq!(world.trace.lines, ["?: invalid", "?: events reset to 1"]);
}

#[test]
fn more_reads_than_are_allowed_at_once_are_refused_aloud() {
    let bounds = Bounds { reads_max: 3, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "m", channel, "x");
    world.pass(2_000);
    world.restart(0);
    ann.attach(&mut world, "warm", channel, None);
    world.pass(2_000);
    world.trace.clear();
    world.nodes[0].store_held = true;
    for i in 0..5 {
        ann.history(&mut world, &format!("page{i}"), channel);
    }
    assert_eq!(world.trace.lines, ["page3: overloaded after 100", "page4: overloaded after 100"]);
    world.nodes[0].store_held = false;
    world.run();
    assert_eq!(world.trace.lines.len(), 5);
}

#[test]
fn reads_that_the_store_cannot_answer_say_so() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "m", channel, "x");
    world.pass(2_000);
    world.restart(0);
    ann.attach(&mut world, "warm", channel, None);
    world.trace.clear();
    world.store.down = true;
    ann.history(&mut world, "page", channel);
    ann.events(&mut world, "events", channel, 0);
    ann.attach(&mut world, "unknown", ChannelId::new(5), None);
    assert_eq!(
        world.trace.lines,
        [
            "page: store_unavailable after 500",
            "events: store_unavailable after 500",
            "unknown: store_unavailable after 500",
        ]
    );
}

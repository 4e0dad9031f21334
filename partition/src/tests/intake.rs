//! Pipes, waiting, seals and heads.

use chappe_protocol::ChannelId;
use chappe_uplink::{Detach, Request, Response};

use super::{begin, check};
use crate::{
    action::PipeId,
    config::{Bounds, Leadership},
    testing::{Asker, World},
};

#[test]
fn each_pipe_hears_an_event_once_and_none_after_it_ended_or_let_go() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            for (pipe, label) in [(5, "five"), (6, "six"), (6, "six again"), (7, "seven")] {
                Asker { pipe, ..Asker::new(0, 2) }.attach(world, label, channel, None);
            }
            ann.publish(world, "a", channel, "a");
            world.send(0, 5, Request::Detach(Detach { channel }));
            world.core(0).handle_pipe_closed(PipeId(7));
            ann.publish(world, "b", channel, "b");
        },
        &[
            "five: attached at 1, from 1",
            "six: attached at 1, from 1",
            "six again: attached at 1, from 1",
            "seven: attached at 1, from 1",
            "pipe 5: 2 message.created 1='a'",
            "pipe 6: 2 message.created 1='a'",
            "pipe 7: 2 message.created 1='a'",
            "a: ok rev 2 seq 1",
            "pipe 6: 3 message.created 2='b'",
            "b: ok rev 3 seq 2",
        ],
    );
}

#[test]
fn a_pipe_that_ends_while_it_is_attached_hears_nothing_later() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    Asker::new(0, 2).attach(&mut world, "attach", channel, None);
    world.core(0).handle_pipe_closed(PipeId(2));
    world.nodes[0].held = false;
    world.run();
    ann.publish(&mut world, "b", channel, "b");
    assert_eq!(world.trace.lines, ["a: ok rev 2 seq 1", "b: ok rev 3 seq 2"]);
    assert!(!world.core(0).slots[&channel].is_heard());
}

#[test]
fn a_detach_takes_effect_in_its_order() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    let bob = Asker::new(0, 2);
    world.nodes[0].held = true;
    ann.publish(&mut world, "a", channel, "a");
    bob.attach(&mut world, "attach", channel, None);
    world.send(0, 2, Request::Detach(Detach { channel }));
    ann.publish(&mut world, "b", channel, "b");
    world.nodes[0].held = false;
    world.run();
    assert_eq!(
        world.trace.lines,
        ["a: ok rev 2 seq 1", "attach: attached at 2, from 2", "b: ok rev 3 seq 2"]
    );
}

#[test]
fn typing_reaches_those_who_hear_the_channel_and_leaves_no_record() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    Asker::new(0, 2).attach(&mut world, "attach", channel, None);
    let before = world.logs[0].end();
    ann.typing(&mut world, "typing", channel);
    assert_eq!(
        world.trace.lines,
        ["attach: attached at 1, from 1", "pipe 2: signal by 1", "typing: done"]
    );
    assert_eq!(world.logs[0].end(), before);
}

#[test]
fn heads_are_told_within_two_seconds_and_show_what_is_confirmed() {
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    Asker::new(0, 2).attach(&mut world, "attach", channel, None);
    ann.publish(&mut world, "a", channel, "a");
    world.nodes[0].held = true;
    ann.publish(&mut world, "b", channel, "b");
    world.trace.clear();
    world.pass(2_000);
    let heads: Vec<_> = world
        .trace
        .responses
        .iter()
        .filter_map(|(pipe, response)| match response {
            Response::Heads(heads) => Some((pipe.0, heads.heads.clone())),
            _ => None,
        })
        .collect();
    assert!(!heads.is_empty());
    assert!(heads.iter().all(|head| *head == (2, vec![(channel, chappe_protocol::Rev::new(2))])));
}

#[test]
fn more_requests_than_may_wait_are_refused_aloud() {
    let bounds = Bounds { waiting_max: 10, ..Bounds::default() };
    let mut world = World::with_bounds(Leadership::Lock, 1, 1, bounds);
    world.assign(0);
    world.nodes[0].store_held = true;
    let ann = Asker::new(0, 1);
    for i in 0..15 {
        ann.history(&mut world, &format!("page{i}"), ChannelId::new(5));
    }
    let refused: Vec<_> = (10..15).map(|i| format!("page{i}: overloaded after 100")).collect();
    assert_eq!(world.trace.lines, refused);
    world.pass(5_600);
    let retried = world.trace.lines.iter().filter(|line| line.ends_with(": retry")).count();
    assert_eq!(retried, 10, "the rest waited in vain");
}

#[test]
fn a_seal_refuses_clients_and_takes_relays_and_its_second_stage_takes_nothing() {
    check(
        World::embedded(),
        |world| {
            let (ann, channel) = begin(world);
            let now = world.now(0);
            assert!(world.core(0).handle_seal(now, 1));
            world.run();
            ann.publish(world, "a", channel, "a");
            ann.history(world, "page", channel);
            world.pass(2_000);
            world.restart(0);
            ann.publish(world, "still", channel, "a");
            let now = world.now(0);
            assert!(world.core(0).handle_seal(now, 2));
            world.run();
            ann.publish(world, "closed", channel, "a");
            let now = world.now(0);
            assert!(world.core(0).handle_seal(now, 0));
            world.run();
            ann.publish(world, "open", channel, "a");
        },
        &[
            "a: unavailable after 2000",
            "page: messages [] at 1",
            "still: unavailable after 2000",
            "closed: unavailable after 2000",
            "open: ok rev 2 seq 1",
        ],
    );
}

#[test]
fn under_the_second_stage_of_a_seal_a_fact_does_not_count() {
    use crate::record::{Fact, Mark, Record, decode};
    let mut world = World::embedded();
    let (ann, channel) = begin(&mut world);
    ann.publish(&mut world, "a", channel, "a");
    let last = world.logs[0].at(world.logs[0].end().0 - 1);
    let Ok(Record::Fact(fact)) = decode(&last) else { panic!("no fact") };
    let n = fact.mark.n;
    world.inject(0, &Record::Seal(Mark { n: n + 1, ..fact.mark }, 2));
    let (mark, rev) = (Mark { n: n + 2, ..fact.mark }, fact.rev.next());
    world.inject(0, &Record::Fact(Fact { mark, rev, ..(*fact).clone() }.into()));
    world.inject(0, &Record::Unseal(Mark { n: n + 2, ..fact.mark }));
    world.restart(0);
    ann.events(&mut world, "events", channel, 1);
    assert_eq!(world.trace.lines.last().unwrap(), "events: events [2 message.created 1='a'] of 2");
}

#[test]
fn a_detach_does_not_overtake_an_attach_that_waits_for_a_lease() {
    let mut world = World::clustered(1);
    let (ann, channel) = begin(&mut world);
    world.nodes[0].held = true;
    world.freeze(1_001);
    Asker::new(0, 2).attach(&mut world, "attach", channel, None);
    world.send(0, 2, Request::Detach(Detach { channel }));
    world.nodes[0].held = false;
    world.pass(300); // a beat
    ann.publish(&mut world, "a", channel, "a");
    assert_eq!(world.trace.lines, ["attach: attached at 1, from 1", "a: ok rev 2 seq 1"]);
    assert!(!world.core(0).slots[&channel].is_heard());
}

//! What an event costs, counted: nothing is allocated for a subscriber.

use chappe_protocol::ChannelId;
use chappe_uplink::Response;

use super::{CHANNEL, Rig};
use crate::{hub::Sockets, link::Lane, testing};

/// How many events are counted.
const EVENTS: u64 = 50;

/// Takes everything at once.
struct Discard {
    bytes: usize,
}

impl Sockets for Discard {
    fn send(&mut self, _: u32, _: Lane, frames: &[u8]) -> usize {
        self.bytes += frames.len();
        frames.len()
    }
}

/// A shard with that many readers of each of two channels.
fn with_readers(count: usize) -> Rig {
    let mut rig = Rig::with(|config| config.limits.connections_per_user = count);
    for channel in [CHANNEL, ChannelId::new(8)] {
        rig.leader.make(channel, &[testing::user("ada")]);
    }
    for _ in 0..count {
        let peer = rig.reader("ada");
        rig.ask(peer, r#"{"id":3,"subscribe":{"channels":[{"id":"8"}]}}"#);
    }
    rig
}

/// Allocations while these responses are taken and flushed, and the bytes that were sent.
fn cost(rig: &mut Rig, responses: Vec<Response>) -> (u64, usize) {
    let mut responses = responses;
    let mut sockets = Discard { bytes: 0 };
    let counted = allocation_counter::measure(|| {
        rig.shard.handle_responses(&mut responses, &mut sockets);
        while rig.shard.needs_flush() {
            rig.shard.flush(&mut sockets);
        }
    });
    (counted.count_total, sockets.bytes)
}

/// The same of [`EVENTS`] publishes, one after the other, behind as many that fill what is empty at
/// first.
fn cost_of_events(
    rig: &mut Rig,
    mut publish: impl FnMut(&mut Rig) -> Vec<Response>,
) -> (u64, usize) {
    let mut sum = (0, 0);
    for event in 0..2 * EVENTS {
        let responses = publish(rig);
        let (allocations, bytes) = cost(rig, responses);
        if event >= EVENTS {
            sum = (sum.0 + allocations, sum.1 + bytes);
        }
    }
    sum
}

#[test]
fn a_publish_allocates_the_same_for_ten_subscribers_and_a_thousand() {
    let publish = |rig: &mut Rig| rig.leader.publish(CHANNEL, testing::user("bob"), "hello");
    let (few, few_bytes) = cost_of_events(&mut with_readers(10), publish);
    let (many, many_bytes) = cost_of_events(&mut with_readers(1_000), publish);
    // `make bench` shows it in its table.
    println!("allocations of {EVENTS} events for 10 and for 1000 subscribers: {few} {many}");
    assert_eq!(few, many);
    assert!(few > 0, "a buffer grows now and then: that is counted");
    assert!(few <= EVENTS, "{few} allocations");
    assert_eq!(many_bytes, 100 * few_bytes, "everybody got it");
}

#[test]
fn news_in_two_channels_at_once_allocates_nothing_for_a_subscriber_either() {
    let publish = |rig: &mut Rig| {
        let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), "hello");
        said.extend(rig.leader.publish(ChannelId::new(8), testing::user("bob"), "hello"));
        said
    };
    let (few, _) = cost_of_events(&mut with_readers(10), publish);
    let (many, _) = cost_of_events(&mut with_readers(1_000), publish);
    assert_eq!(few, many);
}

#[test]
fn what_a_connection_costs_is_known() {
    let sizes = crate::shard::sizes();
    // Each signed-in connection has a session, a peer and its inbox, and with one subscription
    // one more channel at worst.
    let total = sizes.session + sizes.peer + 2 * sizes.channel;
    assert!(total <= 1_024, "{sizes:?}");
    assert!(sizes.task <= 24, "{sizes:?}");
    assert!(sizes.link_entry <= 64, "{sizes:?}");
}

//! Connections whose channels have lanes of their own: a stalled one holds up nothing else.

use chappe_protocol::ChannelId;

use super::{CHANNEL, Rig};
use crate::{link::Lane, testing};

const LANES: u8 = 8;

fn lane(channel: ChannelId) -> Lane {
    Lane::Channel(channel.partition(u32::from(LANES)).0 as u8)
}

/// A channel on another lane than [`CHANNEL`]'s.
fn other() -> ChannelId {
    (8..).map(ChannelId::new).find(|other| lane(*other) != lane(CHANNEL)).unwrap()
}

fn with_history(events: usize) -> (Rig, ChannelId) {
    let mut rig = Rig::new();
    for channel in [CHANNEL, other()] {
        rig.leader.make(channel, &[testing::user("ada")]);
        for _ in 0..events {
            rig.leader.publish(channel, testing::user("bob"), &"x".repeat(1_000));
        }
    }
    (rig, other())
}

fn resume_both(rig: &mut Rig, stalled: Option<Lane>) -> u32 {
    let peer = rig.connect_over(LANES, None);
    rig.clients.sockets.get_mut(&peer).unwrap().stalled.extend(stalled);
    let (token, other) = (testing::token("ada"), other());
    rig.send(
        peer,
        &format!(
            r#"{{"id":1,"hello":{{"token":"{token}","resume":{{"incarnation":1,"channels":[["7",1],["{other}",1]]}}}}}}"#
        ),
    );
    peer
}

/// The revisions of the events of a channel that a client received.
fn revs(rig: &mut Rig, peer: u32, channel: ChannelId) -> Vec<u64> {
    let id = channel.to_string();
    let frames = rig.take(peer);
    let of = frames.iter().filter(|frame| frame["event"]["channel"] == id);
    of.filter_map(|frame| frame["event"]["rev"].as_u64()).collect()
}

#[test]
fn catching_up_goes_on_in_one_channel_while_the_other_is_stalled() {
    let (mut rig, other) = with_history(300);
    let ada = resume_both(&mut rig, Some(lane(CHANNEL)));
    assert_eq!(revs(&mut rig, ada, other), (2..302).collect::<Vec<_>>());
    assert!(rig.shard.waiting(ada) <= 32 * 1024, "{}", rig.shard.waiting(ada));
    rig.clients.sockets.get_mut(&ada).unwrap().stalled.clear();
    rig.unblock(ada);
    assert_eq!(revs(&mut rig, ada, CHANNEL), (2..302).collect::<Vec<_>>());
}

#[test]
fn live_events_of_one_channel_pass_a_stalled_one() {
    let (mut rig, other) = with_history(0);
    let ada = resume_both(&mut rig, None);
    rig.take(ada);
    rig.clients.sockets.get_mut(&ada).unwrap().stalled.push(lane(CHANNEL));
    for _ in 0..100 {
        let mut said = rig.leader.publish(CHANNEL, testing::user("bob"), &"x".repeat(1_000));
        said.extend(rig.leader.publish(other, testing::user("bob"), "y"));
        rig.say(said);
    }
    assert_eq!(revs(&mut rig, ada, other), (2..102).collect::<Vec<_>>());
    assert_eq!(rig.ask(ada, r#"{"id":9,"ping":{}}"#)["id"], 9, "replies pass too");
    rig.clients.sockets.get_mut(&ada).unwrap().stalled.clear();
    rig.unblock(ada);
    assert_eq!(revs(&mut rig, ada, CHANNEL), (2..102).collect::<Vec<_>>());
}

#[test]
fn a_second_lane_that_is_blocked_is_asked_about_too() {
    let (mut rig, other) = with_history(0);
    let ada = resume_both(&mut rig, None);
    rig.attended.clear();
    for channel in [CHANNEL, other] {
        rig.clients.sockets.get_mut(&ada).unwrap().stalled.push(lane(channel));
        let said = rig.leader.publish(channel, testing::user("bob"), "y");
        rig.say(said);
        assert_eq!(rig.attended, [ada], "once, when the lane is blocked");
        let said = rig.leader.publish(channel, testing::user("bob"), "y");
        rig.say(said);
        assert_eq!(std::mem::take(&mut rig.attended), [ada], "not once more for the same lane");
    }
}

#[test]
fn a_lane_that_stays_stalled_makes_its_connection_slow() {
    let (mut rig, _) = with_history(10);
    let ada = resume_both(&mut rig, Some(lane(CHANNEL)));
    for _ in 0..4 {
        rig.pass(10_000);
        rig.send(ada, r#"{"pong":{}}"#);
    }
    assert_eq!(rig.closed[&ada], chappe_protocol::CloseCode::Slow);
}

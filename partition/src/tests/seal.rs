//! What an exporter is told of a seal.

use chappe_protocol::{ChannelId, UserId, message::Role};

use crate::{
    config::Leadership,
    testing::{Asker, World, channel_in},
};

/// Two partitions under the lock: a channel of the first, and a user whose inbox is in the second.
fn begin() -> (World, Asker, ChannelId, u64) {
    let mut world = World::new(Leadership::Lock, 2, 1);
    world.assign(0);
    world.pass(100);
    let (channel, label) = channel_in(0, 2, 0);
    let user = (2..).find(|user| ChannelId::inbox(UserId::new(*user)).partition(2).0 == 1).unwrap();
    let ann = Asker::new(0, 1);
    assert_eq!(ann.create(&mut world, &label), channel);
    world.pass(2_000);
    (world, ann, channel, user)
}

fn seal(world: &mut World, stage: u8) -> [bool; 2] {
    let now = world.now(0);
    let taken = [0, 1].map(|core| world.nodes[0].cores[core].handle_seal(now, stage));
    world.run();
    taken
}

#[test]
fn what_is_on_its_way_to_an_inbox_is_drained_under_the_first_stage() {
    let (mut world, ann, channel, user) = begin();
    assert!(world.core(0).sealing().drained);
    ann.add(&mut world, "add", channel, user, Role::Member);
    world.relay_to = None;
    assert_eq!(seal(&mut world, 1), [true, true]);
    assert_eq!(world.core(0).sealing().stage, Some(1));
    world.pass(5_000);
    assert!(!world.core(0).sealing().drained, "the inbox has not heard of it");
    world.relay_to = Some(0);
    world.pass(5_000);
    assert!(world.nodes[0].cores.iter().all(|core| core.sealing().drained));
}

#[test]
fn the_checkpoint_follows_a_seal_at_once_and_its_stages_only_rise() {
    let (mut world, ann, channel, _) = begin();
    ann.publish(&mut world, "a", channel, "a");
    assert_eq!(seal(&mut world, 1), [true, true]);
    assert_eq!(seal(&mut world, 1), [false, false], "it is there");
    world.pass(1_000);
    assert!(world.nodes[0].cores.iter().all(|core| core.sealing().saved == Some(1)));
    assert_eq!(seal(&mut world, 2), [true, true]);
    world.pass(10);
    assert!(world.nodes[0].cores.iter().all(|core| core.sealing().saved == Some(2)));
    world.restart(0);
    world.pass(1_000);
    assert!(world.nodes[0].cores.iter().all(|core| core.sealing().stage == Some(2)));
    assert_eq!(seal(&mut world, 1), [false, false], "a seal would not count any more");
    assert_eq!(seal(&mut world, 0), [true, true]);
    world.pass(10);
    let open = |core: &crate::Partition| core.sealing().saved == Some(0);
    assert!(world.nodes[0].cores.iter().all(open));
    assert_eq!(seal(&mut world, 0), [false, false]);
}

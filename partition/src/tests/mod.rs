//! The partition, stepped through scripts: what is heard is compared with what should be.

mod answers;
mod basics;
mod channels;
mod counting;
mod endings;
mod erasure;
mod intake;
mod jumps;
mod leases;
mod loading;
mod nonces;
mod noted;
mod projection;
mod reads;
mod relaying;
mod removal;
mod roles;
mod seal;
mod takeover;

use chappe_protocol::ChannelId;

use crate::testing::{Asker, World};

/// Steps a world through `script` and compares what was heard with `expect`, line by line.
fn check(mut world: World, script: impl FnOnce(&mut World), expect: &[&str]) -> World {
    script(&mut world);
    let heard: Vec<&str> = world.trace.lines.iter().map(String::as_str).collect();
    assert_eq!(heard, expect, "\nheard:\n{}\n", world.trace.lines.join("\n"));
    world
}

/// User 1 at the first broker, which leads, its first wait over; and a public channel of his.
fn begin(world: &mut World) -> (Asker, ChannelId) {
    world.assign(0);
    world.pass(1_300);
    let ann = Asker::new(0, 1);
    let channel = ann.create(world, "general");
    world.pass(100);
    world.trace.clear();
    (ann, channel)
}

//! The partition, stepped through scripts: what is heard is compared with what should be.

mod basics;

use crate::testing::World;

/// Steps a world through `script` and compares what was heard with `expect`, line by line.
fn check(mut world: World, script: impl FnOnce(&mut World), expect: &[&str]) -> World {
    script(&mut world);
    let heard: Vec<&str> = world.trace.lines.iter().map(String::as_str).collect();
    assert_eq!(heard, expect, "\nheard:\n{}\n", world.trace.lines.join("\n"));
    world
}

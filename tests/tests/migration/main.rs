//! Moving everything between embedded and clustered, with the real binary: what clients see is the
//! same, whatever was killed on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod adoption;
mod kills;
mod place;
mod refusals;
mod world;

use chappe_tests::{Client, Transport};
use serde_json::json;

use crate::{
    place::Place,
    world::{World, observe},
};

/// Exports from one place, imports into the next, and looks at it with the same clients.
async fn moves(world: &mut World, place: &Place, next: &Place, incarnation: u64) {
    let before = observe(&world.server, &world.channels).await;
    world.server.terminate();
    assert!(world.server.stopped().await);
    let folder = tempfile::tempdir().unwrap();
    let said = place.chappe(&["export", "--to"], &[folder.path()]).await.ok();
    assert!(said.contains(" channels and inboxes to "), "{said}");
    next.prepare().await;
    let said = next.chappe(&["import", "--from"], &[folder.path()]).await.ok();
    assert!(said.contains("are as they were exported"), "{said}");
    let said = next.chappe(&["import", "--verify", "--from"], &[folder.path()]).await.ok();
    assert!(said.contains("are as they were exported"), "{said}");
    world.server = next.server(Some(&world.server)).await;
    assert_eq!(observe(&world.server, &world.channels).await, before);
    world.goes_on(incarnation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_between_embedded_stores_of_different_partitions() {
    let (place, next) = (Place::embedded(4), Place::embedded(7));
    let mut world = World::new(&place).await;
    moves(&mut world, &place, &next, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_to_a_cluster_to_another_and_back() {
    let places = [Place::embedded(4), Place::clustered(6), Place::clustered(3), Place::embedded(5)];
    let mut world = World::new(&places[0]).await;
    for (step, pair) in places.windows(2).enumerate() {
        moves(&mut world, &pair[0], &pair[1], step as u64 + 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_source_answers_reads_refuses_changes_and_is_opened_again() {
    let place = Place::embedded(3);
    let mut world = World::new(&place).await;
    let before = observe(&world.server, &world.channels).await;
    world.server.terminate();
    assert!(world.server.stopped().await);
    let folder = tempfile::tempdir().unwrap();
    place.chappe(&["export", "--to"], &[folder.path()]).await.ok();
    world.server = place.server(Some(&world.server)).await;
    assert_eq!(observe(&world.server, &world.channels).await, before);
    let mut alice = Client::signed_in(&world.server, Transport::WsJson, "alice").await;
    let publish = json!({"publish": {"channel": world.channels[0], "text": "late"}});
    let refused = alice.ask(publish.clone()).await.unwrap_err();
    assert_eq!(
        (&refused["name"], &refused["retry_after_ms"]),
        (&json!("unavailable"), &json!(2_000))
    );
    assert!(refused["message"].as_str().unwrap().contains("everything is exported"), "{refused}");
    assert!(world.server.log().contains("chappe export --abort"), "{}", world.server.log());
    world.server.terminate();
    assert!(world.server.stopped().await);
    let said = place.chappe(&["export", "--abort"], &[]).await.ok();
    assert!(said.contains("changes are taken again"), "{said}");
    world.server = place.server(Some(&world.server)).await;
    let mut alice = Client::signed_in(&world.server, Transport::WsJson, "alice").await;
    alice.ask(publish).await.unwrap();
    // The folder is of an export that was given up; another one is another.
    world.server.terminate();
    assert!(world.server.stopped().await);
    let said = place.chappe(&["export", "--to"], &[folder.path()]).await.refused();
    assert!(said.contains("name an empty folder"), "{said}");
}

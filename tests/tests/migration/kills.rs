//! An export and an import that are killed in the middle, and go on.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use chappe_tests::soon;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    moves,
    place::Place,
    world::{World, observe},
};

/// Starts a tool, and kills it as `kill -9` does when it has said this: in the middle.
pub(crate) async fn killed_at(place: &Place, line: &str, args: &[&str], paths: &[&Path]) {
    let status = killed_after(place, line, args, paths).await;
    assert!(!status.success(), "it was not killed in the middle");
}

/// The same where little is left to do then: the kill may come too late.
async fn killed_after(place: &Place, line: &str, args: &[&str], paths: &[&Path]) -> ExitStatus {
    let mut command = place.command(args, paths);
    let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    soon(line, async {
        while let Some(said) = lines.next_line().await.unwrap() {
            if said.starts_with(line) {
                return;
            }
        }
        panic!("it ended before it said {line:?}");
    })
    .await;
    process.start_kill().unwrap();
    process.wait().await.unwrap()
}

async fn is_moved_through_kills(mut world: World, place: &Place, next: &Place, incarnation: u64) {
    let before = observe(&world.server, &world.channels).await;
    world.server.terminate();
    assert!(world.server.stopped().await);
    let folder = tempfile::tempdir().unwrap();
    let to = ["export", "--file-size", "64B", "--to"];
    killed_at(place, "sealed", &to, &[folder.path()]).await;
    killed_at(place, "exported file 3,", &to, &[folder.path()]).await;
    assert!(!folder.path().join("manifest").exists());
    killed_at(place, "goes on behind file", &to, &[folder.path()]).await;
    next.prepare().await;
    let refused = next.chappe(&["import", "--from"], &[folder.path()]).await.refused();
    assert!(refused.contains("the export is not finished"), "{refused}");
    place.chappe(&to, &[folder.path()]).await.ok();
    let from = ["import", "--from"];
    for line in ["checked file 3", "imported file 2", "imported file 4"] {
        killed_at(next, line, &from, &[folder.path()]).await;
    }
    let refused = next.chappe(&["serve"], &[]).await.refused();
    assert!(refused.contains("run `chappe import` again"), "{refused}");
    killed_after(next, "compared", &from, &[folder.path()]).await;
    next.chappe(&from, &[folder.path()]).await.ok();
    let said = next.chappe(&from, &[folder.path()]).await.ok();
    assert!(said.contains("was imported before"), "{said}");
    world.server = next.server(Some(&world.server)).await;
    assert_eq!(observe(&world.server, &world.channels).await, before);
    world.goes_on(incarnation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_and_an_import_that_are_killed_go_on_between_embedded_stores() {
    let place = Place::embedded(4);
    let world = World::new(&place).await;
    is_moved_through_kills(world, &place, &Place::embedded(2), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_and_an_import_that_are_killed_go_on_from_a_cluster_to_another() {
    let (first, place, next) = (Place::embedded(2), Place::clustered(4), Place::clustered(3));
    let mut world = World::new(&first).await;
    moves(&mut world, &first, &place, 2).await;
    is_moved_through_kills(world, &place, &next, 3).await;
}

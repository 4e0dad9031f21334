//! A log that was restored from an older copy, made anew, or whose adoption is cut off: refused by
//! name, taken over, and used again, with everything that the store has.

use std::{fs, path::Path};

use chappe_tests::{Server, http, services, soon};

use crate::{
    kills::killed_at,
    place::Place,
    world::{World, observe},
};

const ADOPT: [&str; 3] = ["log", "adopt", "--yes"];
const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A world whose server was stopped, and what was seen before.
async fn stopped(place: &Place) -> (World, serde_json::Value) {
    let mut world = World::new(place).await;
    let before = observe(&world.server, &world.channels).await;
    // What only the log has is lost with it: here the store has everything.
    soon("the projection of everything", async {
        loop {
            let report = http::get(world.server.run().admin, "/cluster").await.json();
            let brokers = report["brokers"].as_array().unwrap();
            if brokers.iter().all(|broker| broker["unprojected_records"] == 0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    stop(&mut world.server).await;
    (world, before)
}

async fn stop(server: &mut Server) {
    server.terminate();
    assert!(server.stopped().await);
}

/// A start is refused with the command that mends it.
async fn is_refused(place: &Place) {
    let said = place.chappe(&SERVE, &[]).await.refused();
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("chappe log adopt"), "{said}");
}

/// After an adoption: everything is there, old cursors are reset, and numbers go on.
async fn goes_on(mut world: World, place: &Place, before: serde_json::Value, incarnation: u64) {
    let said = place.chappe(&ADOPT, &[]).await.ok();
    assert!(said.contains("there is nothing to adopt"), "{said}");
    world.server = place.server(Some(&world.server)).await;
    assert_eq!(observe(&world.server, &world.channels).await, before);
    world.goes_on(incarnation).await;
    // And it is a log as any other.
    world.server.kill().await;
    world.server = place.server(Some(&world.server)).await;
    world.goes_on(incarnation).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file(), "{:?}", entry.path());
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_restored_from_an_older_copy_is_refused_and_adopted() {
    let place = Place::embedded(4);
    // Before anything was published, and after.
    stop(&mut place.begin().await).await;
    let (log, older) = (place.data().join("log"), place.data().join("older"));
    copy(&log, &older);
    let (world, before) = stopped(&place).await;
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&older, &log).unwrap();

    is_refused(&place).await;
    let said = place.chappe(&["log", "adopt"], &[]).await.misused();
    assert!(said.contains("and the store is at") && said.contains("--yes"), "{said}");
    is_refused(&place).await;
    let said = place.chappe(&ADOPT, &[]).await.ok();
    assert!(said.contains("adopted as incarnation 2"), "{said}");
    goes_on(world, &place, before, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_of_a_lost_log_that_is_killed_on_the_way_is_made_again() {
    let place = Place::embedded(3);
    let (world, before) = stopped(&place).await;
    fs::remove_dir_all(place.data().join("log")).unwrap();
    is_refused(&place).await;
    for line in ["begun", "recorded", "begun", "recorded"] {
        killed_at(&place, line, &ADOPT, &[]).await;
        is_refused(&place).await;
    }
    let said = place.chappe(&ADOPT, &[]).await.ok();
    assert!(said.contains("was begun and cut off"), "{said}");
    // The log may have had the third run's records when the kill came, or not yet.
    let incarnation = if said.contains("adopted as incarnation 6") { 6 } else { 5 };
    assert!(said.contains(&format!("adopted as incarnation {incarnation}")), "{said}");
    goes_on(world, &place, before, incarnation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_not_adopted_while_a_server_leads_it() {
    for place in [Place::embedded(2), Place::clustered(2)] {
        let mut server = place.begin().await;
        let said = place.chappe(&ADOPT, &[]).await.refused();
        assert!(said.contains("stop"), "{said}");
        stop(&mut server).await;
        let said = place.chappe(&ADOPT, &[]).await.ok();
        assert!(said.contains("there is nothing to adopt"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_deleted_and_made_anew_is_refused_and_adopted() {
    let place = Place::clustered(3);
    let (world, before) = stopped(&place).await;
    services::run("kafka", &["topics", "--delete", "--topic", place.topic()]).await;
    // Kafka takes its time to forget a topic.
    soon("another topic", async {
        loop {
            let said = place.chappe(&["log", "create"], &[]).await.refused();
            if said.contains("chappe log adopt") {
                return;
            }
        }
    })
    .await;
    is_refused(&place).await;
    killed_at(&place, "recorded", &ADOPT, &[]).await;
    is_refused(&place).await;
    let said = place.chappe(&ADOPT, &[]).await.ok();
    assert!(said.contains("adopted as incarnation 3"), "{said}");
    goes_on(world, &place, before, 3).await;
}

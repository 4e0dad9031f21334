//! What is refused, and with which line.

use std::fs;

use crate::{place::Place, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_a_used_target_and_a_damaged_folder_are_refused() {
    let place = Place::embedded(2);
    let mut world = World::new(&place).await;
    let folder = tempfile::tempdir().unwrap();
    let said = place.chappe(&["export", "--to"], &[folder.path()]).await.refused();
    assert!(said.contains("stop the server first"), "{said}");
    world.server.terminate();
    assert!(world.server.stopped().await);
    let said = place.chappe(&["export", "--to"], &[folder.path()]).await.ok();
    assert!(said.contains("chappe import --from"), "{said}");
    // Into what is exported itself, and into what somebody began to use.
    let said = place.chappe(&["import", "--from"], &[folder.path()]).await.refused();
    assert!(said.contains("the target is not empty: it is being exported"), "{said}");
    let used = Place::embedded(2);
    drop(World::new(&used).await);
    let said = used.chappe(&["import", "--from"], &[folder.path()]).await.refused();
    assert!(said.contains("the target is not empty: it belongs to log"), "{said}");
    let said = used.chappe(&["import", "--verify", "--from"], &[folder.path()]).await.refused();
    assert!(said.contains("it is not what was exported"), "{said}");
    // One byte of one row.
    let rows = folder.path().join("rows-000001");
    let mut bytes = fs::read(&rows).unwrap();
    let at = bytes.windows(7).position(|text| text == b"message").unwrap();
    bytes[at] ^= 1;
    fs::write(&rows, bytes).unwrap();
    let said = Place::embedded(2).chappe(&["import", "--from"], &[folder.path()]).await.refused();
    assert!(said.contains("rows-000001 is damaged at byte"), "{said}");
    // A folder of something else is not written into.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("letter.txt"), "dear").unwrap();
    let said = place.chappe(&["export", "--to"], &[other.path()]).await.refused();
    assert!(said.contains("letter.txt is none of an export's files"), "{said}");
}

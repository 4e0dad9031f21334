//! Export and import of real embedded stores: what was altered is found and named, in the folder
//! and in the target, and ticks come into one frame.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_broker::{
    Config, Parts, Running,
    migration::{self, ExportId, Migration},
};
use chappe_migration::{
    Begun, Difference, ExportError, Exporter, ImportError, Importer, Manifest, Progress, seal,
    verify,
};
use chappe_partition::row::{Detail, EventRow, MemberRow, RowValue};
use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, Seq, UserId, message::Role};
use chappe_storage::{
    log::{
        Log,
        segment::{SegmentConfig, SegmentLog},
    },
    store::{Key, Mutation, Stamp, Store, UniqueKey, lsm::LsmStore},
};
use tokio::runtime::Handle;

const PATIENCE: Duration = Duration::from_secs(20);

async fn running(dir: &Path, partitions: u32) -> (Running, Arc<dyn Store>) {
    let parts = Parts::alone(log(dir, partitions), store(dir));
    let store = Arc::clone(&parts.store);
    let (_, running) = chappe_broker::start(Config::default(), parts).await.unwrap();
    (running, store)
}

fn log(dir: &Path, partitions: u32) -> Arc<dyn Log> {
    let config = SegmentConfig { segment_bytes: 4 << 20, ..SegmentConfig::default() };
    Arc::new(SegmentLog::open(&dir.join("log"), partitions, config).unwrap())
}

fn store(dir: &Path) -> Arc<dyn Store> {
    Arc::new(LsmStore::open(dir.join("store")).unwrap())
}

/// A channel of the partition, of so many.
fn channel_in(partition: u32, partitions: u32) -> ChannelId {
    let all = (1..).map(ChannelId::new);
    all.into_iter().find(|id| id.partition(partitions) == PartitionId(partition)).unwrap()
}

fn put(key: Key, rev: u64, value: Bytes) -> Mutation {
    Mutation { key, stamp: Stamp::of(Incarnation(1), Rev::new(rev)), value: Some(value) }
}

fn event(tick: u64) -> Bytes {
    let row = EventRow {
        kind: 1,
        seq: None,
        by: UserId::new(1),
        at: 7,
        tick,
        nonce: None,
        client_nonce: false,
        digest: chappe_partition::record::Digest([0; 16]),
        detail: Detail::None,
    };
    RowValue::Event(row).encode()
}

fn member(published_tick: Option<u64>) -> Bytes {
    let (since, name, removed) = (Rev::new(1), None, None);
    RowValue::Member(MemberRow { role: Role::Member, since, name, removed, published_tick })
        .encode()
}

fn message(channel: ChannelId, seq: u64, text: &str) -> Mutation {
    let key = Key::Message(channel, Seq::new(seq));
    put(key, seq, Bytes::copy_from_slice(text.as_bytes()))
}

/// A sealed source with some rows, exported into `folder`.
async fn exported(dir: &Path, folder: &Path, rows: Vec<Mutation>) -> Manifest {
    let (running, store) = running(dir, 2).await;
    running.leads_all().await;
    store.write(rows).await.unwrap();
    let name = UniqueKey::ChannelName("general".to_owned());
    store.claim(name, Bytes::from_static(b"holder")).await.unwrap();
    seal(&running, &store, PATIENCE, &mut |_| {}).await.unwrap();
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    Exporter::new(store, folder, 1).run(&mut |_| {}).await.unwrap()
}

async fn import(dir: &Path, folder: &Path) -> Result<Arc<dyn Store>, ImportError> {
    let (store, scratch) = (store(dir), dir.join("scratch"));
    let begun = Importer::begin(Arc::clone(&store), folder, &scratch, 3, &mut |_| {}).await?;
    let Begun::Now(importer) = begun else { panic!("it was imported before") };
    importer.run(&log(dir, 3), &mut |_| {}).await?;
    Ok(store)
}

fn rows() -> Vec<Mutation> {
    let mut rows: Vec<_> =
        (1..=600).map(|n| message(ChannelId::new(n % 3 + 1), n, &format!("message {n}"))).collect();
    rows.push(message(ChannelId::inbox(UserId::new(5)), 1, "inbox"));
    rows.push(put(Key::ReadMarker(UserId::new(5), ChannelId::new(1)), 3, member(None)));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_or_lost_in_the_target_is_named() {
    let (source, target, folder) = three();
    let manifest = exported(source.path(), folder.path(), rows()).await;
    assert_eq!((manifest.rows, manifest.channels), (603, 4));
    let store = import(target.path(), folder.path()).await.unwrap();
    let scratch = target.path().join("scratch");
    let same = verify(&store, folder.path(), &scratch, &mut |_| {}).await.unwrap();
    assert!(same.is_same() && same.rows == 603, "{same:?}");
    // As no projection would: another value under the same key.
    let altered = message(ChannelId::new(2), 301, "another");
    let altered = Mutation { stamp: Stamp(altered.stamp.0 + 1), ..altered };
    store.write(vec![altered.clone()]).await.unwrap();
    let found = verify(&store, folder.path(), &scratch, &mut |_| {}).await.unwrap();
    let Difference::Channel { channel, exported, found: there } = found.differences[0] else {
        panic!("{found:?}");
    };
    assert_eq!((channel, exported.rows, there.rows), (ChannelId::new(2), 200, 200));
    assert_eq!(found.differences[1..], [Difference::Row(altered.key)]);
    // A name that nobody exported, and a row that is gone.
    let gone = Key::ReadMarker(UserId::new(5), ChannelId::new(1));
    let stamp = Stamp::of(Incarnation(1), Rev::new(3));
    store.write(vec![Mutation { key: gone, stamp, value: None }]).await.unwrap();
    let name = UniqueKey::ChannelName("another".to_owned());
    store.claim(name, Bytes::from_static(b"holder")).await.unwrap();
    let found = verify(&store, folder.path(), &scratch, &mut |_| {}).await.unwrap();
    let said = found.differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(found.differences.contains(&Difference::Row(gone)), "{said}");
    assert!(said.contains("inbox ") && said.contains("names of channels"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_in_the_folder_with_its_checksum_is_found_before_anything_is_written()
 {
    let (source, target, folder) = three();
    exported(source.path(), folder.path(), rows()).await;
    let mut altered = false;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let text = b"message 301";
        let Some(at) = bytes.windows(text.len()).position(|found| found == text) else { continue };
        bytes[at + 8] = b'9';
        // The block with its checksum made right: header of the file, then the first block.
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        assert!(at < 28 + length, "the row is in the first block");
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..24]), &bytes[28..28 + length]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        altered = true;
    }
    assert!(altered);
    let Err(ImportError::Altered(verdict)) = import(target.path(), folder.path()).await else {
        panic!("it was imported")
    };
    let [Difference::Channel { channel, .. }] = verdict.differences[..] else {
        panic!("{verdict:?}")
    };
    assert_eq!(channel, ChannelId::new(2));
    let store = store(target.path());
    assert_eq!(migration::begun(&store).await.unwrap(), None, "the target is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_byte_of_a_file_is_noticed() {
    let (source, target, folder) = three();
    exported(source.path(), folder.path(), rows()[..40].to_vec()).await;
    for name in ["rows-000001", "digests"] {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let outcome = import(target.path(), folder.path()).await;
            assert!(outcome.is_err(), "{name}: byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(import(target.path(), folder.path()).await.is_err(), "{name}: cut");
        std::fs::write(&path, whole).unwrap();
    }
    import(target.path(), folder.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_of_all_partitions_come_into_the_frame_of_the_furthest() {
    let (source, target, folder) = three();
    let channels = [0, 1].map(|partition| channel_in(partition, 2));
    let mut rows = Vec::new();
    for channel in channels {
        rows.push(put(Key::Event(channel, Rev::new(1)), 1, event(100)));
        rows.push(put(Key::Member(channel, UserId::new(1)), 1, member(Some(90))));
        rows.push(put(Key::Member(channel, UserId::new(2)), 1, member(None)));
    }
    let manifest = exported(source.path(), folder.path(), rows).await;
    let furthest = manifest.source.tick();
    let store = import(target.path(), folder.path()).await.unwrap();
    for (partition, channel) in channels.into_iter().enumerate() {
        let shift = furthest - manifest.source.ticks[partition];
        for (key, value) in [
            (Key::Event(channel, Rev::new(1)), event(100 + shift)),
            (Key::Member(channel, UserId::new(1)), member(Some(90 + shift))),
            (Key::Member(channel, UserId::new(2)), member(None)),
        ] {
            assert_eq!(store.get(key).await.unwrap().unwrap().value, value, "{key:?}");
        }
    }
    for partition in 0..3 {
        let key = Key::Checkpoint(PartitionId(partition));
        let row = store.get(key).await.unwrap().unwrap();
        let Ok(RowValue::Checkpoint(row)) = RowValue::decode(&key, &row.value) else { panic!() };
        assert_eq!((row.last_tick, row.incarnation, row.offset), (furthest, Incarnation(2), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_export_is_another_afterwards_and_a_half_opened_one_is_sealed_again() {
    let (source, _, folder) = three();
    exported(source.path(), folder.path(), rows()).await;
    let (running, store) = running(source.path(), 2).await;
    let first = seal(&running, &store, PATIENCE, &mut |_| {}).await.unwrap();
    assert_eq!(first, seal(&running, &store, PATIENCE, &mut |_| {}).await.unwrap());
    // What an abort does first; the partitions were left sealed.
    migration::end(&store, Migration::Export(first)).await.unwrap();
    let second = seal(&running, &store, PATIENCE, &mut |_| {}).await.unwrap();
    assert_ne!(first, second);
    chappe_migration::open(&running, &store, PATIENCE, &mut |_| {}).await.unwrap();
    assert_eq!(migration::begun(&store).await.unwrap(), None);
    assert!(running.sealings().borrow().iter().all(|at| at.stage == Some(0)));
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    let refused = Exporter::new(store, folder.path(), 1).run(&mut |_| {}).await;
    assert!(refused.is_err(), "it is not sealed");
}

/// Exports a sealed source, and at the first progress of this kind gives the export up, as another
/// host would.
async fn given_up_at(at: impl Fn(&Progress) -> bool, then: Option<ExportId>) -> Vec<String> {
    let (source, _, folder) = three();
    let (running, store) = running(source.path(), 2).await;
    running.leads_all().await;
    store.write(rows()).await.unwrap();
    let this = seal(&running, &store, PATIENCE, &mut |_| {}).await.unwrap();
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    let exporter = Exporter::new(Arc::clone(&store), folder.path(), 1);
    let give_up = async || {
        migration::end(&store, Migration::Export(this)).await.unwrap();
        if let Some(other) = then {
            migration::begin(&store, Migration::Export(other)).await.unwrap();
        }
    };
    let mut given_up = false;
    let mut report = |progress| {
        if !given_up && at(&progress) {
            given_up = true;
            tokio::task::block_in_place(|| Handle::current().block_on(give_up()));
        }
    };
    let outcome = exporter.run(&mut report).await;
    let Err(ExportError::GivenUp(refused)) = outcome else { panic!("it was exported") };
    assert!(given_up && refused == this);
    let names = std::fs::read_dir(folder.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_given_up_while_it_runs_stops_and_is_none() {
    let first = |progress: &Progress| matches!(progress, Progress::Exported { file: 1, .. });
    let last = |progress: &Progress| match progress {
        Progress::Checked { file, files } => file == files,
        _ => false,
    };
    for then in [None, Some(ExportId::random())] {
        let files = given_up_at(first, then).await;
        assert!(!files.iter().any(|name| name == "manifest"), "{files:?}");
        assert!(files.iter().filter(|name| name.starts_with("rows-")).count() <= 2, "{files:?}");
        let files = given_up_at(last, then).await;
        assert!(!files.iter().any(|name| name == "manifest"), "{files:?}");
    }
}

fn three() -> (tempfile::TempDir, tempfile::TempDir, tempfile::TempDir) {
    let dir = || tempfile::tempdir().unwrap();
    (dir(), dir(), dir())
}

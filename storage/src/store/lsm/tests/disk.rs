//! What the disk may do to the store: a kill in the middle of writing, a damaged file.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::*;

/// Small, so that a test's rows reach the tree's files.
fn small() -> LsmOptions {
    LsmOptions { memtable_bytes: 64 * 1024, cache_bytes: 64 * 1024, ..LsmOptions::default() }
}

/// Rows that no compression makes small.
fn noise(seq: u64) -> String {
    let mut word = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        format!("{word:016x}")
    });
    words.take(32).collect()
}

#[tokio::test]
async fn rows_that_were_flushed_and_compacted_are_all_there() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open_with(dir.path(), small()).unwrap();
    for round in 1..=3 {
        for seqs in (1..=1500).collect::<Vec<u64>>().chunks(200) {
            let writes = seqs.iter().map(|seq| message(*seq, round, &noise(seq + round)));
            store.write(writes.collect()).await.unwrap();
        }
    }
    drop(store);
    assert!(!table_files(dir.path()).is_empty(), "nothing was flushed");
    let store = LsmStore::open_with(dir.path(), small()).unwrap();
    let rows = store.scan(Scan::MessagesAfter(ChannelId::new(1), Seq::ZERO), 5000).await.unwrap();
    assert_eq!(rows.len(), 1500);
    for ((key, row), seq) in rows.into_iter().zip(1..) {
        assert_eq!(key, Key::Message(ChannelId::new(1), Seq::new(seq)));
        assert_eq!(row.value, noise(seq + 3));
    }
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_never_read_as_a_row() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open_with(dir.path(), small()).unwrap();
    for seqs in (1..=600).collect::<Vec<u64>>().chunks(200) {
        let writes = seqs.iter().map(|seq| message(*seq, 1, &noise(*seq)));
        store.write(writes.collect()).await.unwrap();
    }
    drop(store);
    for file in table_files(dir.path()) {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x10;
        fs::write(&file, bytes).unwrap();
    }
    let store = match LsmStore::open_with(dir.path(), small()) {
        Err(error) => return assert!(matches!(error, OpenError::Damaged(_)), "{error:?}"),
        Ok(store) => store,
    };
    let mut damaged = 0;
    for seq in 1..=600 {
        match store.get(Key::Message(ChannelId::new(1), Seq::new(seq))).await {
            Ok(row) => assert_eq!(row.unwrap().value, noise(seq)),
            Err(StoreError::Damaged(_)) => damaged += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(damaged > 0, "no damage was found");
    let scan = Scan::MessagesAfter(ChannelId::new(1), Seq::ZERO);
    let scanned = store.scan(scan, 5000).await;
    assert!(matches!(scanned, Err(StoreError::Damaged(_))));
}

/// The tree's own files of rows.
fn table_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("tree/keyspaces/1")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().unwrap().ends_with("tables") {
                found.push(path);
            }
        }
    }
    found
}

/// The test runs itself as another process, which writes and says what was answered until it is
/// killed.
#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    if let Some(dir) = env::var_os(KILLED) {
        return write_until_killed(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    let mut answered = 0;
    for round in 1..=4 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", KILLED_TEST])
            .env(KILLED, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed at another place each time, with writes under way; what it still says counts.
        let mut seqs = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("seq ")?.parse().ok());
        answered = seqs.by_ref().take(20 * round).last().unwrap_or(answered);
        child.kill().unwrap();
        answered = seqs.last().unwrap_or(answered);
        child.wait().unwrap();
        let store = LsmStore::open(dir.path()).unwrap();
        let scan = Scan::MessagesAfter(ChannelId::new(1), Seq::ZERO);
        let rows = store.scan(scan, 100_000).await.unwrap();
        assert!(rows.len() as u64 >= answered, "{} rows of {answered}", rows.len());
        for ((key, row), seq) in rows.into_iter().zip(1..) {
            assert_eq!(key, Key::Message(ChannelId::new(1), Seq::new(seq)));
            assert_eq!(row.value, noise(seq));
        }
    }
    assert!(answered >= 20, "it was killed before it wrote");
}

/// Writes on where the last one stopped, and prints each message's number once it is answered.
async fn write_until_killed(dir: &Path) {
    let store = LsmStore::open(dir).unwrap();
    let newest = Scan::MessagesBefore(ChannelId::new(1), Seq::new(1 << 30));
    let newest = store.scan(newest, 1).await.unwrap();
    let first = match newest.first() {
        Some((Key::Message(_, seq), _)) => seq.get() + 1,
        _ => 1,
    };
    for seq in first.. {
        store.write(vec![message(seq, 1, &noise(seq))]).await.unwrap();
        if io::Write::write_all(&mut io::stdout(), format!("seq {seq}\n").as_bytes()).is_err() {
            return; // whoever started it is gone
        }
    }
}

const KILLED: &str = "CHAPPE_TEST_KILLED_STORE";
const KILLED_TEST: &str =
    "store::lsm::tests::disk::what_was_answered_before_a_kill_is_there_after_it";

//! The segment log on the real file system.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use crate::log::conformance::{PARTITIONS, Subject};
use crate::log::segment::{OpenError, SegmentConfig, SegmentLog};
use crate::log::{Acks, AppendRefused, Log, Offset};

struct SegmentSubject(tempfile::TempDir);

impl Subject for SegmentSubject {
    type Log = SegmentLog;

    const RECORD_BYTES_MAX: usize = 4 << 10;

    async fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    async fn open(&self) -> SegmentLog {
        SegmentLog::open(self.0.path(), PARTITIONS, small()).expect("the log opens")
    }
}

crate::log_conformance!(SegmentSubject);

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

fn small() -> SegmentConfig {
    SegmentConfig {
        segment_bytes: 16 << 10,
        record_bytes_max: 4 << 10,
        bytes_in_flight_max: 64 << 10,
        keep: Duration::ZERO,
        ..SegmentConfig::default()
    }
}

fn open(dir: &Path) -> SegmentLog {
    SegmentLog::open(dir, 2, small()).expect("the log opens")
}

/// Waits for so many outcomes, all of which must be offsets.
async fn offsets(acks: &mut Acks, count: usize) -> Vec<(PartitionId, u64, Offset)> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        for acked in acks.recv().await.expect("an outcome for each append") {
            offsets.push((acked.partition, acked.token, acked.result.expect("it is durable")));
        }
    }
    offsets
}

async fn append_all(log: &SegmentLog, partition: PartitionId, records: &[String]) {
    let (mut appender, mut acks) = log.appender();
    for (token, record) in records.iter().enumerate() {
        let record = Bytes::from(record.clone());
        appender.append(partition, token as u64, record).expect("it is taken");
        appender.flush();
        offsets(&mut acks, 1).await;
    }
}

async fn read_all(log: &SegmentLog, partition: PartitionId) -> Vec<String> {
    let mut records = Vec::new();
    let mut next = log.bounds(partition).await.expect("bounds").start;
    loop {
        let entries = log.read(partition, next, 1000).await.expect("it can be read");
        let Some(last) = entries.last() else { return records };
        next = last.offset.next();
        let text = |e: &crate::log::Entry| String::from_utf8(e.record.to_vec()).expect("text");
        records.extend(entries.iter().map(text));
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("record {n} {}", "x".repeat(n % 300))).collect()
}

fn segments(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.ends_with(".segment"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn records_of_many_segments_are_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let records = numbered(500);
    let log = open(dir.path());
    append_all(&log, P0, &records).await;
    append_all(&log, P1, &records[..10]).await;
    assert_eq!(read_all(&log, P0).await, records);
    drop(log);
    assert!(segments(dir.path()).len() > 3);
    let log = open(dir.path());
    assert_eq!(read_all(&log, P0).await, records);
    assert_eq!(read_all(&log, P1).await, records[..10]);
}

#[tokio::test]
async fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    let second = SegmentLog::open(dir.path(), 2, small());
    let Err(error @ OpenError::Locked(_)) = second else { panic!("it opened twice") };
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(log);
    open(dir.path());
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path()));
    let other = SegmentLog::open(dir.path(), 3, small());
    assert!(matches!(other, Err(OpenError::Partitions { recorded: 2, asked: 3 })));
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path()));
    let text = "chappe log\nformat 2\npartitions 2\n";
    let text = format!("{text}crc {:08x}\n", crc32c::crc32c(text.as_bytes()));
    fs::write(dir.path().join("format"), text).expect("it is written");
    let newer = SegmentLog::open(dir.path(), 2, small());
    assert!(matches!(newer, Err(OpenError::Format { found: 2, known: 1 })));
}

#[tokio::test]
async fn trimmed_segments_go_and_bounds_survive_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    append_all(&log, P0, &numbered(500)).await;
    let before = segments(dir.path()).len();
    log.trim(P0, Offset(400)).await.expect("it may be forgotten");
    let bounds = log.bounds(P0).await.expect("bounds");
    assert!(bounds.start > Offset(0) && bounds.start <= Offset(400), "{bounds:?}");
    assert_eq!(bounds.end, Offset(500));
    drop(log);
    assert!(segments(dir.path()).len() < before);
    let log = open(dir.path());
    assert_eq!(log.bounds(P0).await, Ok(bounds));
    assert_eq!(log.shared.map().marks, [400, 0]);
    let start = bounds.start.0 as usize;
    assert_eq!(read_all(&log, P0).await, numbered(500)[start..]);
}

#[test]
fn a_log_closes_although_somebody_appends_without_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    let (mut appender, mut acks) = log.appender();
    let endless = std::thread::spawn(move || {
        let (mut accepted, mut told) = (0, 0);
        loop {
            match appender.append(P0, accepted, Bytes::from_static(b"more")) {
                Ok(()) => accepted += 1,
                Err(AppendRefused::Full) => {
                    appender.flush();
                    told += acks.blocking_recv().expect("room").len();
                }
                Err(refused) => break assert_eq!(refused, AppendRefused::Failed),
            }
        }
        drop(appender);
        while let Some(outcomes) = acks.blocking_recv() {
            told += outcomes.len();
        }
        assert_eq!(told as u64, accepted, "each append has its outcome");
        accepted
    });
    while log.shared.bounds(P0).end < Offset(1000) {
        std::thread::yield_now();
    }
    drop(log);
    let accepted = endless.join().expect("it was refused in the end");
    assert_eq!(open(dir.path()).shared.bounds(P0).end, Offset(accepted));
}

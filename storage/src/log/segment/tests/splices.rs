//! Bytes that are right by themselves and stand in the wrong place: old batches behind new ones,
//! another history's segment, records that look like batches.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::model::read_all;
use super::sim::{Loss, SimDisk};
use crate::log::segment::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::log::segment::entry::{self, EntryKind};
use crate::log::segment::header::{SegmentHeader, header_bytes, segment_name};
use crate::log::segment::queue::SegmentAppender;
use crate::log::segment::writer::Writer;
use crate::log::segment::{OpenError, SegmentConfig, Shared, reader};
use crate::log::{Appender, Offset, ReadError};

const PARTITIONS: u32 = 2;
const P0: PartitionId = PartitionId(0);

fn config() -> SegmentConfig {
    SegmentConfig {
        segment_bytes: 1 << 10,
        record_bytes_max: 256,
        bytes_in_flight_max: 8 << 10,
        ..SegmentConfig::default()
    }
}

fn open(disk: &SimDisk) -> Result<(Arc<Shared>, Writer), OpenError> {
    open_with(disk, config())
}

fn open_with(disk: &SimDisk, config: SegmentConfig) -> Result<(Arc<Shared>, Writer), OpenError> {
    let (shared, end) = Shared::recover(Arc::new(disk.clone()), PARTITIONS, config)?;
    let writer = Writer::new(Arc::clone(&shared), end);
    Ok((shared, writer))
}

/// Opens the log and appends one batch for each record; returns where they end.
fn with_batches(disk: &SimDisk, records: &[&'static str]) -> Vec<u32> {
    let (shared, mut writer) = open(disk).expect("it opens");
    let (mut appender, _acks) =
        SegmentAppender::new(Arc::clone(&shared.queue), PARTITIONS, &config());
    let mut ends = Vec::new();
    for record in records {
        appender.append(P0, 0, Bytes::from_static(record.as_bytes())).expect("taken");
        writer.turn();
        ends.push(writer.position());
    }
    ends
}

fn texts(disk: &SimDisk) -> Vec<Bytes> {
    let (shared, _) = open(disk).expect("it opens");
    let entries = read_all(&shared, P0).expect("it can be read");
    entries.into_iter().map(|entry| entry.record).collect()
}

/// Two ways on from the same batch, the second of which was taken: what the first one left on the
/// disk fits in size and in offsets, and is not what follows.
#[test]
fn an_old_batch_never_follows_a_new_one() {
    let disk = SimDisk::new(7);
    with_batches(&disk, &["first"]);
    let other = disk.crash(Loss::All);
    let ends = with_batches(&disk, &["old 1", "old 2"]);
    assert_eq!(with_batches(&other, &["new 1"]), ends[..1]);
    let name = segment_name(1);
    let mut spliced = other.content(&name);
    let old = ends[0] as usize..ends[1] as usize;
    spliced[old.clone()].copy_from_slice(&disk.content(&name)[old]);
    other.set_content(&name, spliced);
    assert_eq!(texts(&other), ["first", "new 1"]);
}

#[test]
fn a_torn_end_is_durably_zero_before_anything_is_appended() {
    let disk = SimDisk::new(19);
    let ends = with_batches(&disk, &["first", "second"]);
    let (from, to) = (ends[0] as usize, ends[1] as usize);
    for cut in from + 1..to {
        let torn = disk.crash(Loss::All);
        torn.poke(&segment_name(1), cut, &vec![0; to - cut]);
        assert_eq!(texts(&torn), ["first"], "cut at {cut}");
        let durable = torn.crash(Loss::All).content(&segment_name(1));
        assert!(durable[from..].iter().all(|byte| *byte == 0), "cut at {cut}");
    }
}

/// A record is a user's to choose. Were it taken for a batch header, a torn write could be made to
/// look like damage.
#[test]
fn a_record_that_holds_a_batch_is_not_taken_for_one() {
    let disk = SimDisk::new(9);
    with_batches(&disk, &["first", "second"]);
    let content = disk.content(&segment_name(1));
    let header = SegmentHeader::decode(&content[..header_bytes(PARTITIONS) as usize], PARTITIONS);
    let forged =
        BatchHeader { previous_crc: 0, synced_to: 1000, body_bytes: 0, entries: 0, entries_crc: 0 };
    for (salt, is_refused) in [(1234, false), (header.expect("a header").0.salt, true)] {
        let disk = disk.crash(Loss::All);
        let mut content = content.clone();
        content[700..732].copy_from_slice(&forged.encode(salt).0);
        disk.set_content(&segment_name(1), content);
        assert_eq!(open(&disk).is_err(), is_refused, "salt {salt}");
    }
}

/// The segment before the newest is checked against what the newest continues.
#[test]
fn a_segment_of_another_history_is_refused() {
    let disk = SimDisk::new(11);
    while open(&disk).expect("it opens").0.map().segments.len() < 2 {
        with_batches(&disk, &["the history that both have in common"]);
    }
    let other = disk.crash(Loss::All);
    for (disk, record) in [(&disk, "this history"), (&other, "that history")] {
        while open(disk).expect("it opens").0.map().segments.len() < 3 {
            with_batches(disk, &[record]);
        }
    }
    let name = segment_name(2);
    let header = header_bytes(PARTITIONS) as usize;
    assert_eq!(disk.content(&name)[..header], other.content(&name)[..header]);
    disk.set_content(&name, other.content(&name));
    let opened = open(&disk).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
    let lazy = SegmentConfig { verify_bytes_max: 0, ..config() };
    let (shared, _) = open_with(&disk, lazy).expect("it opens, for it was not looked at");
    let read = read_all(&shared, P0);
    let at = shared.map().segments[1].header.next[0];
    assert!(matches!(read, Err(ReadError::Damaged { at: Offset(n), .. }) if n == at), "{read:?}");
}

/// Each entry's checksum is right; the batch's is not.
#[test]
fn an_entry_that_its_batch_was_not_written_with_is_refused() {
    let disk = SimDisk::new(13);
    with_batches(&disk, &["first", "second"]);
    let mut forged = Vec::new();
    entry::encode(&mut forged, EntryKind::Record, P0, Offset(0), b"worst");
    disk.poke(&segment_name(1), (header_bytes(PARTITIONS) + BATCH_HEADER_BYTES) as usize, &forged);
    let opened = open(&disk).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
}

/// Damage that comes while the log is open is met by the read, at its offset.
#[test]
fn a_record_that_changes_under_an_open_log_is_not_read() {
    let disk = SimDisk::new(17);
    let ends = with_batches(&disk, &["one", "two", "six"]);
    let content = disk.content(&segment_name(1));
    let second = (ends[0] + BATCH_HEADER_BYTES) as usize..ends[1] as usize;
    let third = (ends[1] + BATCH_HEADER_BYTES) as usize..ends[2] as usize;
    let mut flipped = content[second.clone()].to_vec();
    *flipped.last_mut().expect("a byte") ^= 1;
    // A flipped bit, and another record in its place that is right by itself.
    for bytes in [&flipped[..], &content[third]] {
        let disk = disk.crash(Loss::All);
        let (shared, _writer) = open(&disk).expect("it opens");
        disk.poke(&segment_name(1), second.start, bytes);
        let before = reader::read(&shared, P0, Offset(0), 1000).expect("what is before it");
        assert_eq!(before.len(), 1);
        let read = reader::read(&shared, P0, Offset(1), 1000);
        assert!(matches!(read, Err(ReadError::Damaged { at: Offset(1), .. })), "{read:?}");
        let behind = reader::read(&shared, P0, Offset(2), 1000).expect("what is behind it");
        assert_eq!(&behind[0].record[..], b"six");
    }
}

//! Damage: flipped bits, and files that are short, gone or another's.
//!
//! The log must be refused, or say where it is damaged when it is read, or hold what it held. What
//! may be missing is the very last batch, if nothing written behind it says that it was synced.

use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::model::read_all;
use super::sim::{Loss, SimDisk};
use crate::log::segment::header::segment_name;
use crate::log::segment::queue::SegmentAppender;
use crate::log::segment::writer::Writer;
use crate::log::segment::{OpenError, SegmentConfig, Shared};
use crate::log::{Appender, Entry, Offset, ReadError};

const PARTITIONS: u32 = 2;

fn config() -> SegmentConfig {
    SegmentConfig {
        segment_bytes: 1 << 10,
        record_bytes_max: 256,
        bytes_in_flight_max: 8 << 10,
        ..SegmentConfig::default()
    }
}

/// A log with every kind of thing in it.
struct Sample {
    disk: SimDisk,
    /// What it holds, by partition.
    records: Vec<Vec<Entry>>,
    /// Where the last batch with records begins in the newest segment.
    last_batch: (String, usize),
    /// What it holds without that batch.
    records_before: Vec<Vec<Entry>>,
}

/// What became of a damaged log.
#[derive(Debug, Default)]
struct Tally {
    refused: u32,
    damaged_when_read: u32,
    cut: u32,
    unharmed: u32,
}

fn open(disk: &SimDisk, config: &SegmentConfig) -> Result<(Arc<Shared>, Writer), OpenError> {
    let disk = Arc::new(disk.clone());
    let (shared, end) = Shared::recover(disk, PARTITIONS, config.clone())?;
    let writer = Writer::new(Arc::clone(&shared), end);
    Ok((shared, writer))
}

fn holds(shared: &Shared) -> Result<Vec<Vec<Entry>>, ReadError> {
    (0..PARTITIONS).map(|p| read_all(shared, PartitionId(p))).collect()
}

/// Three segments with batches of one and of several records, empty ones, trim marks and idle
/// markers.
fn sample() -> Sample {
    let disk = SimDisk::new(3);
    let (shared, mut writer) = open(&disk, &config()).expect("it opens");
    let (mut appender, _acks) =
        SegmentAppender::new(Arc::clone(&shared.queue), PARTITIONS, &config());
    let mut append = |n: u64, bytes: usize| {
        let record = Bytes::from(vec![n as u8 + 1; bytes]);
        appender.append(PartitionId((n % 2) as u32), n, record).expect("it is taken");
    };
    for n in 0..14 {
        append(3 * n, 20 + n as usize);
        append(3 * n + 1, 50);
        append(3 * n + 2, if n % 4 == 0 { 0 } else { 33 });
        writer.turn();
        if n % 3 == 0 {
            writer.silence();
        }
        if n % 5 == 1 {
            shared.raise_mark(PartitionId(0), Offset(n)).expect("a higher mark");
            writer.turn();
        }
    }
    assert_eq!(shared.map().segments.len(), 4, "the sample has another size");
    let records_before = holds(&shared).expect("it can be read");
    let newest = segment_name(shared.map().segments.back().expect("one").header.number);
    let last_batch = (newest, writer.position() as usize);
    append(100, 41);
    append(101, 7);
    writer.turn();
    let records = holds(&shared).expect("it can be read");
    assert_eq!(shared.map().segments.len(), 4, "the last batch is not where it was meant to be");
    Sample { disk: disk.crash(Loss::All), records, last_batch, records_before }
}

impl Sample {
    /// The same with an idle marker at the end.
    fn marked() -> Self {
        let sample = Self { ..sample() };
        let (_, writer) = open(&sample.disk, &config()).expect("it opens");
        writer.close();
        Self { disk: sample.disk.crash(Loss::All), ..sample }
    }

    /// Opens and reads a damaged copy. It must be what it was, or without the last batch if that
    /// is `cut` for the reader to judge.
    fn judge(
        &self,
        disk: &SimDisk,
        config: &SegmentConfig,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let shared = match open(disk, config) {
            Ok((shared, _)) => shared,
            Err(OpenError::Damaged { .. } | OpenError::Partitions { .. }) => {
                tally.refused += 1;
                return Ok(false);
            }
            Err(other) => return Err(format!("refused as {other}")),
        };
        match holds(&shared) {
            Err(ReadError::Damaged { .. }) => tally.damaged_when_read += 1,
            Err(other) => return Err(format!("unreadable as {other}")),
            Ok(found) if found == self.records => tally.unharmed += 1,
            Ok(found) if found == self.records_before => {
                tally.cut += 1;
                return Ok(true);
            }
            Ok(_) => return Err("a wrong answer".to_owned()),
        }
        Ok(false)
    }

    /// Flips every bit of every file.
    fn flip_all(&self, config: &SegmentConfig, may_be_cut: impl Fn(&str, usize) -> bool) -> Tally {
        let mut tally = Tally::default();
        for (name, bytes) in self.disk.files() {
            let content = self.disk.content(&name);
            for bit in 0..bytes * 8 {
                let mut flipped = content.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let disk = self.disk.crash(Loss::All);
                disk.set_content(&name, flipped);
                match self.judge(&disk, config, &mut tally) {
                    Ok(is_cut) if !is_cut || may_be_cut(&name, bit / 8) => {}
                    Ok(_) => panic!("{name} bit {bit}: a durable batch is gone"),
                    Err(wrong) => panic!("{name} bit {bit}: {wrong}"),
                }
            }
        }
        tally
    }
}

#[test]
fn a_flipped_bit_costs_at_most_the_last_batch() {
    let sample = sample();
    let (newest, from) = &sample.last_batch;
    let tally = sample.flip_all(&config(), |name, at| name == newest && at >= *from);
    println!("{tally:?}");
    assert!(tally.refused > 10_000 && tally.cut > 500 && tally.unharmed > 500, "{tally:?}");
}

#[test]
fn behind_an_idle_marker_a_flipped_bit_costs_nothing() {
    let tally = Sample::marked().flip_all(&config(), |_, _| false);
    println!("{tally:?}");
    assert!(tally.refused > 10_000 && tally.cut == 0 && tally.unharmed > 500, "{tally:?}");
}

#[test]
fn damage_in_an_older_segment_shows_when_it_is_read_if_it_was_not_at_open() {
    let lazy = SegmentConfig { verify_bytes_max: 0, ..config() };
    let sample = Sample::marked();
    let tally = sample.flip_all(&lazy, |_, _| false);
    println!("{tally:?}");
    assert!(tally.damaged_when_read > 5_000 && tally.cut == 0, "{tally:?}");
}

#[test]
fn a_missing_file_is_refused() {
    let sample = Sample::marked();
    let newest = &sample.last_batch.0;
    for (name, _) in sample.disk.files() {
        let disk = sample.disk.crash(Loss::All);
        disk.remove_content(&name);
        let outcome = open(&disk, &config()).map(|_| ());
        // The oldest could have been trimmed, and that nothing follows the newest is a stated
        // limit; the file that says which format it is, and what is in between, is missed.
        let is_end = name == segment_name(1) || name == *newest;
        assert_eq!(outcome.is_err(), !is_end, "{name}: {outcome:?}");
    }
}

#[test]
fn a_missing_format_file_is_refused_once_something_was_appended() {
    for records in [0, 1] {
        let disk = SimDisk::new(5);
        let (shared, mut writer) = open(&disk, &config()).expect("it opens");
        let (mut appender, _acks) =
            SegmentAppender::new(Arc::clone(&shared.queue), PARTITIONS, &config());
        for _ in 0..records {
            appender.append(PartitionId(0), 0, Bytes::from_static(b"one")).expect("it is taken");
            writer.turn();
        }
        disk.remove_content("format");
        // With nothing in it, it is a log whose creation a crash cut off.
        assert_eq!(open(&disk, &config()).is_err(), records > 0, "{records} records");
    }
}

#[test]
fn a_shortened_file_is_refused() {
    let sample = Sample::marked();
    for (name, bytes) in sample.disk.files() {
        for length in [0, 1, bytes / 2, bytes - 1] {
            let disk = sample.disk.crash(Loss::All);
            disk.set_content(&name, sample.disk.content(&name)[..length].to_vec());
            let outcome = open(&disk, &config()).map(|_| ());
            assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{name}: {outcome:?}");
        }
    }
}

#[test]
fn a_segment_in_anothers_place_is_refused() {
    let sample = Sample::marked();
    for (from, to) in [(1, 2), (2, 1), (3, 4), (4, 3), (2, 3)] {
        let disk = sample.disk.crash(Loss::All);
        disk.set_content(&segment_name(to), disk.content(&segment_name(from)));
        let outcome = open(&disk, &config()).map(|_| ());
        assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{from} as {to}: {outcome:?}");
    }
}

#[test]
fn damage_names_the_file_and_the_place() {
    let sample = Sample::marked();
    let name = segment_name(2);
    let mut content = sample.disk.content(&name);
    content[300] ^= 1;
    let disk = sample.disk.crash(Loss::All);
    disk.set_content(&name, content);
    let Err(OpenError::Damaged { file, position, what }) = open(&disk, &config()).map(|_| ())
    else {
        panic!("it opened")
    };
    assert_eq!(file, name);
    assert!((116..=300).contains(&position), "{position}: {what}");
}

//! What a durable append costs, as a ratio to its floor in the same run.
//!
//! The floor is a bare file whose length is set ahead, like a segment's: the same number of
//! 256-byte records put into one buffer, one write behind the last, one `fdatasync`, and nothing
//! else. The log does the same through its port:
//! queue, thread, checksums, index, outcomes, with 1, 32 and 256 appends in flight. The two take
//! turns, and the best round of each counts. Beside the ratio of these stands the median of the
//! ratios of neighbouring rounds, which says the same on a machine that is busy with other things.
//!
//! `cargo bench -p chappe-storage --bench log_append [-- SECONDS [FOLDER]]`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use chappe_storage::log::segment::{SegmentConfig, SegmentLog};
use chappe_storage::log::{Acks, Appender, Log};

const RECORD_BYTES: usize = 256;
const PARTITIONS: u32 = 64;
const ROUNDS: usize = 9;
/// Sparse, and more than a round writes.
const FLOOR_FILE_BYTES: u64 = 16 << 30;

/// One round of one contestant.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    records_per_second: f64,
    cpu_us_per_record: f64,
    records_per_sync: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let seconds = arguments.first().and_then(|s| s.parse().ok()).unwrap_or(0.5);
    let length = Duration::from_secs_f64(seconds);
    let folder = arguments.get(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder on the disk to measure");
    let threads = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");

    println!("append + fdatasync of {RECORD_BYTES} B, best of {ROUNDS} rounds of {seconds} s");
    println!("                     floor                          log");
    println!(
        "in flight    records/s  cpu us/rec    records/s  cpu us/rec  rec/sync    ratio  median"
    );
    for in_flight in [1, 32, 256] {
        let (mut floor, mut log) = (Round::default(), Round::default());
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let place = folder.path().join(format!("{in_flight}-{round}"));
            let bare = bare(&place.with_extension("bare"), in_flight, length);
            let logged = threads.block_on(logged(&place, in_flight, length));
            ratios.push(logged.records_per_second / bare.records_per_second);
            (floor, log) = (better(floor, bare), better(log, logged));
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{in_flight:>9} {:>12.0} {:>11.2} {:>12.0} {:>11.2} {:>9.1} {:>8.2} {:>7.2}",
            floor.records_per_second,
            floor.cpu_us_per_record,
            log.records_per_second,
            log.cpu_us_per_record,
            log.records_per_sync,
            log.records_per_second / floor.records_per_second,
            ratios[ROUNDS / 2],
        );
    }
}

fn better(a: Round, b: Round) -> Round {
    if a.records_per_second > b.records_per_second { a } else { b }
}

/// The floor: a file, a buffer, a write, a sync.
fn bare(path: &Path, batch: usize, length: Duration) -> Round {
    let file = File::create_new(path).expect("a new file");
    file.set_len(FLOOR_FILE_BYTES).and_then(|()| file.sync_all()).expect("a length");
    let record = [7; RECORD_BYTES];
    let mut buffer = Vec::new();
    let meter = Meter::start();
    let (mut syncs, mut position) = (0, 0);
    while meter.started.elapsed() < length {
        buffer.clear();
        for _ in 0..batch {
            buffer.extend_from_slice(&record);
        }
        file.write_all_at(&buffer, position).expect("a write");
        file.sync_data().expect("a sync");
        syncs += 1;
        position += buffer.len() as u64;
    }
    let round = meter.stop(syncs * batch as u64, syncs);
    drop(file);
    std::fs::remove_file(path).expect("it is removed");
    round
}

/// The log, with so many appends in flight from one caller.
async fn logged(path: &Path, in_flight: usize, length: Duration) -> Round {
    let log = SegmentLog::open(path, PARTITIONS, SegmentConfig::default()).expect("a new log");
    let (mut appender, mut acks) = log.appender();
    let record = Bytes::from(vec![7; RECORD_BYTES]);
    let mut token = 0;
    let meter = Meter::start();
    append(&mut *appender, &record, in_flight, &mut token);
    let mut batches = 0;
    while meter.started.elapsed() < length {
        let count = outcomes(&mut acks).await;
        batches += 1;
        append(&mut *appender, &record, count, &mut token);
    }
    let mut left = in_flight;
    while left > 0 {
        left -= outcomes(&mut acks).await;
        batches += 1;
    }
    let round = meter.stop(token, batches);
    drop(log);
    std::fs::remove_dir_all(path).expect("it is removed");
    round
}

fn append(appender: &mut dyn Appender, record: &Bytes, count: usize, token: &mut u64) {
    for _ in 0..count {
        let partition = PartitionId((*token % u64::from(PARTITIONS)) as u32);
        appender.append(partition, *token, record.clone()).expect("there is room");
        *token += 1;
    }
    appender.flush();
}

/// Waits for outcomes; returns how many came. Each of them must be an offset.
async fn outcomes(acks: &mut Acks) -> usize {
    let outcomes = acks.recv().await.expect("the log is open");
    assert!(outcomes.iter().all(|acked| acked.result.is_ok()), "an append failed");
    outcomes.len()
}

struct Meter {
    started: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Self {
        Self { cpu: cpu_time(), started: Instant::now() }
    }

    fn stop(self, records: u64, syncs: u64) -> Round {
        let records = records as f64;
        Round {
            records_per_second: records / self.started.elapsed().as_secs_f64(),
            cpu_us_per_record: (cpu_time() - self.cpu).as_secs_f64() * 1e6 / records,
            records_per_sync: records / syncs as f64,
        }
    }
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

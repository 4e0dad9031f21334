//! The promises of the log port, each as a test that a backend passes.
//!
//! [`log_conformance!`](crate::log_conformance) makes them tests of one backend. They panic where
//! a promise is broken. A backend's own errors, formats and limits are its own tests' affair.
#![allow(clippy::unwrap_used)] // what fails here fails a test

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;
use tokio::time::timeout;

use super::{Acked, Acks, AppendRefused, Appender, Bounds, Entry, Log, Offset, ReadError};

/// A backend under test: a place for one log, empty at first, with [`PARTITIONS`] partitions.
pub trait Subject: Sized {
    /// The backend.
    type Log: Log;

    /// The largest record that it takes.
    const RECORD_BYTES_MAX: usize;

    /// A new place.
    fn new() -> impl Future<Output = Self>;

    /// Opens the log of this place. Called again only after the one before was dropped.
    fn open(&self) -> impl Future<Output = Self::Log>;
}

/// How many partitions a log under test has.
pub const PARTITIONS: u32 = 4;

/// Makes the suite tests of a backend, given its [`Subject`](crate::log::conformance::Subject).
#[macro_export]
macro_rules! log_conformance {
    ($subject:ty) => {
        $crate::log_conformance! { $subject:
            a_new_log_is_empty,
            offsets_follow_the_order_of_appends,
            each_partition_counts_for_itself,
            concurrent_appenders_share_offsets_without_a_gap,
            outcomes_come_in_order_with_their_tokens,
            an_acknowledged_record_is_read_at_once,
            an_empty_record_is_a_record,
            what_was_acknowledged_outlives_a_reopen,
            a_read_keeps_to_its_size_but_brings_one,
            a_read_at_the_end_is_empty,
            a_dropped_read_harms_no_other,
            the_largest_record_comes_back_whole,
            a_record_that_is_too_large_is_refused,
            a_full_queue_refuses_until_outcomes_come,
            an_appender_that_nobody_drains_holds_up_no_other,
            every_accepted_append_has_an_outcome_when_the_log_closes,
            a_closed_log_refuses,
            a_trim_never_forgets_at_or_above_its_mark,
            a_lower_trim_mark_changes_nothing,
            bounds_outlive_a_reopen,
        }
    };
    ($subject:ty: $($promise:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let subject = <$subject as $crate::log::conformance::Subject>::new().await;
                $crate::log::conformance::$promise(subject).await;
            }
        )*
    };
}

/// Every partition is there, and starts and ends at 0.
pub async fn a_new_log_is_empty(subject: impl Subject) {
    let log = subject.open().await;
    assert_eq!(log.partitions(), PARTITIONS);
    for partition in (0..PARTITIONS).map(PartitionId) {
        assert_eq!(log.bounds(partition).await, Ok(bounds(0, 0)));
        assert_eq!(log.read(partition, Offset(0), 1000).await, Ok(Vec::new()));
    }
}

/// The first record's offset is 0, and the log reads as it was appended.
pub async fn offsets_follow_the_order_of_appends(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    for n in 0..300 {
        end.append(P0, n, record(n));
    }
    let acked = end.outcomes(300).await;
    assert_eq!(acked, (0..300).map(|n| (P0, n, Offset(n))).collect::<Vec<_>>());
    assert_eq!(read_all(&log, P0).await, records(0..300));
}

/// Appends to several partitions through one appender do not mix.
pub async fn each_partition_counts_for_itself(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    for n in 0..400 {
        end.append(PartitionId((n % 4) as u32), n, record(n));
    }
    for (partition, token, offset) in end.outcomes(400).await {
        assert_eq!(u64::from(partition.0), token % 4);
        assert_eq!(offset, Offset(token / 4));
    }
    for partition in 0..4_u32 {
        let expected: Vec<_> = (0..100).map(|n| record(4 * n + u64::from(partition))).collect();
        assert_eq!(read_all(&log, PartitionId(partition)).await, expected);
    }
}

/// Offsets have no gap and no double, whoever wrote; each appender's records are in its order.
pub async fn concurrent_appenders_share_offsets_without_a_gap(subject: impl Subject) {
    let log = Arc::new(subject.open().await);
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut end = End::of(&*log);
                for n in 0..200 {
                    end.append(P0, n, Bytes::from(format!("{writer} {n}")));
                    if n % 7 == writer % 7 {
                        tokio::task::yield_now().await;
                    }
                }
                let acked = end.outcomes(200).await;
                assert!(acked.is_sorted_by_key(|(_, _, offset)| *offset));
                acked.into_iter().map(move |(_, token, offset)| (offset, (writer, token)))
            })
        })
        .collect();
    let mut by_offset = Vec::new();
    for writer in writers {
        by_offset.extend(writer.await.unwrap());
    }
    by_offset.sort_unstable();
    let offsets: Vec<u64> = by_offset.iter().map(|(offset, _)| offset.0).collect();
    assert_eq!(offsets, (0..1600).collect::<Vec<_>>());
    let told = by_offset.iter().map(|(_, (writer, n))| Bytes::from(format!("{writer} {n}")));
    assert_eq!(read_all(&*log, P0).await, told.collect::<Vec<_>>());
}

/// One outcome for each append, with the token it was made with, in the order of the partition's
/// appends; tokens need not differ.
pub async fn outcomes_come_in_order_with_their_tokens(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    let token = |n: u64| n * n % 17;
    for n in 0..200 {
        end.append(P1, token(n), record(n));
        if n % 50 == 49 {
            let acked = end.outcomes(50).await;
            let expected = (n - 49..=n).map(|n| (P1, token(n), Offset(n)));
            assert_eq!(acked, expected.collect::<Vec<_>>());
        }
    }
    assert!(end.acks.try_recv().is_err(), "an outcome too many");
}

/// Reads and bounds show a record no later than its outcome.
pub async fn an_acknowledged_record_is_read_at_once(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    for n in 0..50 {
        end.append(P0, n, record(n));
        end.outcomes(1).await;
        assert_eq!(log.bounds(P0).await, Ok(bounds(0, n + 1)));
        let entry = Entry { offset: Offset(n), record: record(n) };
        assert_eq!(log.read(P0, Offset(n), 1000).await, Ok(vec![entry]));
    }
}

/// It has an offset, and comes back empty.
pub async fn an_empty_record_is_a_record(subject: impl Subject) {
    let log = subject.open().await;
    let expected = vec![Bytes::new(), record(1), Bytes::new()];
    append_all(&log, P0, &expected).await;
    assert_eq!(read_all(&log, P0).await, expected);
}

/// And the log goes on where it was.
pub async fn what_was_acknowledged_outlives_a_reopen(subject: impl Subject) {
    for life in 0..4 {
        let log = subject.open().await;
        assert_eq!(log.bounds(P0).await, Ok(bounds(0, 100 * life)));
        append_all(&log, P0, &records(100 * life..100 * (life + 1))).await;
        append_all(&log, P1, &records(life..life + 1)).await;
    }
    let log = subject.open().await;
    assert_eq!(read_all(&log, P0).await, records(0..400));
    assert_eq!(read_all(&log, P1).await, records(0..4));
}

/// Whatever the size, paging brings everything once and in order.
pub async fn a_read_keeps_to_its_size_but_brings_one(subject: impl Subject) {
    let log = subject.open().await;
    let expected = records(0..200);
    append_all(&log, P0, &expected).await;
    for bytes_max in [0, 1, 100, 1000, 5000] {
        let mut found = Vec::new();
        while found.len() < 200 {
            let page = log.read(P0, Offset(found.len() as u64), bytes_max).await.unwrap();
            assert!(!page.is_empty(), "there is a record at {}", found.len());
            let bytes: usize = page.iter().map(|entry| entry.record.len()).sum();
            assert!(page.len() == 1 || bytes <= bytes_max, "{bytes} are not about {bytes_max}");
            found.extend(page.into_iter().map(|entry| entry.record));
        }
        assert_eq!(found, expected);
    }
}

/// Neither at the end nor above it is there anything to wait for, or an error.
pub async fn a_read_at_the_end_is_empty(subject: impl Subject) {
    let log = subject.open().await;
    append_all(&log, P0, &records(0..10)).await;
    assert_eq!(log.read(P0, Offset(10), 1000).await, Ok(Vec::new()));
    assert_eq!(log.read(P0, Offset(1_000_000), 1000).await, Ok(Vec::new()));
}

/// A read may be given up at any time.
pub async fn a_dropped_read_harms_no_other(subject: impl Subject) {
    let log = Arc::new(subject.open().await);
    append_all(&*log, P0, &records(0..300)).await;
    for n in 0..100 {
        let reader = Arc::clone(&log);
        let read = tokio::spawn(async move { reader.read(P0, Offset(n), 100_000).await });
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        read.abort();
    }
    assert_eq!(read_all(&*log, P0).await, records(0..300));
}

/// The largest size is taken.
pub async fn the_largest_record_comes_back_whole(subject: impl Subject) {
    let log = subject.open().await;
    let largest: Vec<u8> = (0..largest_of(&subject)).map(|n| (n * n / 251) as u8).collect();
    let expected = vec![record(0), Bytes::from(largest), record(2)];
    append_all(&log, P0, &expected).await;
    assert!(read_all(&log, P0).await == expected, "the largest record is another one");
    drop(log);
    let log = subject.open().await;
    assert!(read_all(&log, P0).await == expected, "the largest record is another one");
}

/// It uses up no offset, and nobody hears of it.
pub async fn a_record_that_is_too_large_is_refused(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    let large = Bytes::from(vec![7; largest_of(&subject) + 1]);
    end.append(P0, 1, record(0));
    assert_eq!(end.appender.append(P0, 2, large), Err(AppendRefused::TooLarge));
    end.append(P0, 3, record(1));
    assert_eq!(end.outcomes(2).await, [(P0, 1, Offset(0)), (P0, 3, Offset(1))]);
    assert_eq!(read_all(&log, P0).await, records(0..2));
}

/// A producer that never waits is refused sooner or later; what it was refused is not in the log,
/// and it is heard again when outcomes come.
pub async fn a_full_queue_refuses_until_outcomes_come(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        let body = Bytes::from(format!("{} {}", accepted.len(), "x".repeat(500)));
        match end.appender.append(P0, accepted.len() as u64, body.clone()) {
            Ok(()) => accepted.push(body),
            Err(AppendRefused::Full) => {
                refused += 1;
                // All that is in flight comes back, and then there must be room again.
                let told = end.told;
                end.outcomes(accepted.len() - told).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let told = end.told;
    end.outcomes(accepted.len() - told).await;
    assert!(read_all(&log, P0).await == accepted, "the log is not what was accepted");
}

/// Its limit is its own.
pub async fn an_appender_that_nobody_drains_holds_up_no_other(subject: impl Subject) {
    let log = subject.open().await;
    let mut idle = End::of(&log);
    let mut accepted = 0;
    let refused = loop {
        match idle.appender.append(P0, accepted, Bytes::from(vec![1; 500])) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
        if accepted.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(refused, AppendRefused::Full);
    append_all(&log, P1, &records(0..50)).await;
    assert_eq!(read_all(&log, P1).await, records(0..50));
    let outcomes = idle.outcomes(accepted as usize).await;
    assert!(outcomes.is_sorted_by_key(|(_, token, _)| *token));
}

/// Durable or not: exactly one outcome each, then the end.
pub async fn every_accepted_append_has_an_outcome_when_the_log_closes(subject: impl Subject) {
    let log = subject.open().await;
    let End { mut appender, mut acks, .. } = End::of(&log);
    for n in 0..100 {
        appender.append(P0, n, record(n)).unwrap();
    }
    drop(log);
    drop(appender);
    let (mut told, mut durable) = (HashSet::new(), Vec::new());
    while let Some(outcomes) = timeout(PATIENCE, acks.recv()).await.expect("the channel ends") {
        for Acked { token, result, .. } in outcomes {
            assert!(told.insert(token), "two outcomes");
            durable.extend(result.ok().map(|offset| (offset, token)));
        }
    }
    assert_eq!(told.len(), 100);
    let log = subject.open().await;
    let found = read_all(&log, P0).await;
    for (offset, token) in durable {
        assert_eq!(found[offset.0 as usize], record(token));
    }
}

/// An appender that is left over cannot append.
pub async fn a_closed_log_refuses(subject: impl Subject) {
    let log = subject.open().await;
    let mut end = End::of(&log);
    drop(log);
    assert_eq!(end.appender.append(P0, 1, record(1)), Err(AppendRefused::Failed));
    let log = subject.open().await;
    assert_eq!(log.bounds(P0).await, Ok(bounds(0, 0)));
}

/// What is kept reads as before; what is not says where the log starts.
pub async fn a_trim_never_forgets_at_or_above_its_mark(subject: impl Subject) {
    let log = subject.open().await;
    append_all(&log, P0, &records(0..500)).await;
    append_all(&log, P1, &records(0..500)).await;
    for mark in [0, 1, 250, 499, 500] {
        log.trim(P0, Offset(mark)).await.unwrap();
        let start = log.bounds(P0).await.unwrap().start;
        assert!(start <= Offset(mark), "start {start} for mark {mark}");
        assert_eq!(read_all(&log, P0).await, records(start.0..500));
        if let Some(below) = start.0.checked_sub(1) {
            let read = log.read(P0, Offset(below), 1000).await;
            assert_eq!(read, Err(ReadError::Trimmed { start }));
        }
    }
    assert_eq!(log.bounds(P1).await.unwrap().start, Offset(0), "another partition was trimmed");
    append_all(&log, P0, &records(500..510)).await;
    assert_eq!(log.bounds(P0).await.unwrap().end, Offset(510));
}

/// A mark only rises.
pub async fn a_lower_trim_mark_changes_nothing(subject: impl Subject) {
    let log = subject.open().await;
    append_all(&log, P0, &records(0..300)).await;
    for mark in [200, 100, 0] {
        log.trim(P0, Offset(mark)).await.unwrap();
        let start = log.bounds(P0).await.unwrap().start;
        assert_eq!(read_all(&log, P0).await, records(start.0..300));
    }
}

/// A trimmed log is not longer, and not shorter above the mark, after a reopen.
pub async fn bounds_outlive_a_reopen(subject: impl Subject) {
    let log = subject.open().await;
    append_all(&log, P0, &records(0..500)).await;
    log.trim(P0, Offset(400)).await.unwrap();
    drop(log);
    let log = subject.open().await;
    let reopened = log.bounds(P0).await.unwrap();
    assert_eq!(reopened.end, Offset(500));
    assert!(reopened.start <= Offset(400));
    assert_eq!(read_all(&log, P0).await, records(reopened.start.0..500));
}

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);
/// Nothing here takes long; whoever waits for longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// An appender with its outcomes.
struct End {
    appender: Box<dyn Appender>,
    acks: Acks,
    /// How many outcomes came.
    told: usize,
}

impl End {
    fn of(log: &dyn Log) -> Self {
        let (appender, acks) = log.appender();
        Self { appender, acks, told: 0 }
    }

    fn append(&mut self, partition: PartitionId, token: u64, record: Bytes) {
        self.appender.append(partition, token, record).unwrap();
    }

    /// Waits for so many outcomes, each of which must be an offset.
    async fn outcomes(&mut self, count: usize) -> Vec<(PartitionId, u64, Offset)> {
        self.appender.flush();
        let mut found = Vec::new();
        while found.len() < count {
            let outcomes = timeout(PATIENCE, self.acks.recv()).await.expect("an outcome comes");
            let outcomes = outcomes.expect("the log is open");
            assert!(!outcomes.is_empty(), "an empty batch of outcomes");
            found.extend(outcomes.into_iter().map(|a| (a.partition, a.token, a.result.unwrap())));
        }
        assert_eq!(found.len(), count, "more outcomes than appends");
        self.told += count;
        found
    }
}

async fn append_all(log: &dyn Log, partition: PartitionId, records: &[Bytes]) {
    let mut end = End::of(log);
    for record in records {
        end.append(partition, 0, record.clone());
    }
    end.outcomes(records.len()).await;
}

/// All records from the start on, whose offsets must follow each other.
async fn read_all(log: &dyn Log, partition: PartitionId) -> Vec<Bytes> {
    let Bounds { start, end } = log.bounds(partition).await.unwrap();
    let (mut records, mut next) = (Vec::new(), start);
    while next < end {
        let page = log.read(partition, next, 10_000).await.unwrap();
        assert!(!page.is_empty(), "nothing at {next}, below {end}");
        for entry in page {
            assert_eq!(entry.offset, next);
            next = next.next();
            records.push(entry.record);
        }
    }
    assert_eq!(next, end, "more records than the bounds say");
    records
}

const fn bounds(start: u64, end: u64) -> Bounds {
    Bounds { start: Offset(start), end: Offset(end) }
}

/// The bytes of the n-th record, which follow from its number.
fn record(n: u64) -> Bytes {
    Bytes::from(format!("record {n} {}", "x".repeat((n * 7 % 90) as usize)))
}

fn records(numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    numbers.map(record).collect()
}

fn largest_of<S: Subject>(_: &S) -> usize {
    S::RECORD_BYTES_MAX
}

//! Full disks and failing ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::model::read_all;
use super::sim::{Fault, FaultKind, Loss, SimDisk};
use crate::log::segment::queue::SegmentAppender;
use crate::log::segment::writer::Writer;
use crate::log::segment::{OpenError, SegmentConfig, Shared};
use crate::log::{Acked, Acks, AppendRefused, Appender, Offset};

const P0: PartitionId = PartitionId(0);
const SEGMENT_BYTES: u32 = 2 << 10;

fn config() -> SegmentConfig {
    SegmentConfig {
        segment_bytes: SEGMENT_BYTES,
        record_bytes_max: 1 << 10,
        bytes_in_flight_max: 8 << 10,
        keep: Duration::ZERO,
        ..SegmentConfig::default()
    }
}

/// A log of one partition, whose writer is stepped by hand.
struct Subject {
    disk: SimDisk,
    shared: Arc<Shared>,
    writer: Writer,
    appender: SegmentAppender,
    acks: Acks,
}

impl Subject {
    fn open(disk: &SimDisk) -> Self {
        Self::try_open(disk).expect("it opens")
    }

    fn try_open(disk: &SimDisk) -> Result<Self, OpenError> {
        let (shared, end) = Shared::recover(Arc::new(disk.clone()), 1, config())?;
        let writer = Writer::new(Arc::clone(&shared), end);
        let (appender, acks) = SegmentAppender::new(Arc::clone(&shared.queue), 1, &config());
        Ok(Self { disk: disk.clone(), shared, writer, appender, acks })
    }

    fn append(&mut self, text: &str) -> Result<(), AppendRefused> {
        self.appender.append(P0, 0, Bytes::from(text.to_owned()))
    }

    /// Appends and commits; whether it is durable then.
    fn commit(&mut self, text: &str) -> bool {
        self.append(text).expect("it is taken");
        self.writer.turn();
        let outcomes = self.outcomes();
        assert_eq!(outcomes.len(), 1, "one outcome");
        outcomes[0]
    }

    /// Whether each append whose outcome has come is durable.
    fn outcomes(&mut self) -> Vec<bool> {
        let mut outcomes: Vec<Acked> = Vec::new();
        while let Ok(batch) = self.acks.try_recv() {
            outcomes.extend(batch);
        }
        outcomes.into_iter().map(|acked| acked.result.is_ok()).collect()
    }

    fn fail(&self, after: u64, kind: FaultKind) {
        self.disk.set_fault(Some(Fault { after, kind }));
    }

    fn texts(&self) -> Vec<String> {
        let entries = read_all(&self.shared, P0).expect("it can be read");
        entries.iter().map(|e| String::from_utf8(e.record.to_vec()).expect("text")).collect()
    }

    /// What a new process finds after the machine went down now.
    fn after_power_loss(&self, loss: Loss) -> Vec<String> {
        Self::open(&self.disk.crash(loss)).texts()
    }
}

/// Fills the first segment and lets the disk have no room for a second.
fn full_disk() -> (Subject, Vec<String>) {
    let disk = SimDisk::new(1);
    let mut log = Subject::open(&disk);
    let used: usize = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(Some(used as u64 + 100));
    let mut texts = Vec::new();
    loop {
        let text = format!("record {} {}", texts.len(), "x".repeat(150));
        if !log.commit(&text) {
            return (log, texts);
        }
        texts.push(text);
    }
}

#[test]
fn a_full_disk_refuses_appends_and_goes_on_reading() {
    let (mut log, texts) = full_disk();
    assert!(texts.len() > 5);
    assert_eq!(log.append("more"), Err(AppendRefused::NoSpace));
    assert_eq!(log.texts(), texts);
    log.writer.silence();
    assert_eq!(log.append("more"), Err(AppendRefused::NoSpace), "there is still no space");
    assert_eq!(log.after_power_loss(Loss::Some(1)), texts);
}

#[test]
fn appends_are_taken_again_once_there_is_space() {
    let (mut log, mut texts) = full_disk();
    log.disk.set_capacity(None);
    assert_eq!(log.append("more"), Err(AppendRefused::NoSpace), "nobody has looked yet");
    log.writer.silence();
    assert!(log.commit("more"));
    texts.push("more".to_owned());
    assert_eq!(log.texts(), texts);
    assert_eq!(log.after_power_loss(Loss::All), texts);
}

#[test]
fn trimming_makes_space_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let mut log = Subject::open(&disk);
    let mut count = 0;
    while log.shared.map().segments.len() < 3 {
        assert!(log.commit(&"x".repeat(200)));
        count += 1;
    }
    let used: usize = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(Some(used as u64));
    while log.commit(&"x".repeat(200)) {
        count += 1;
    }
    assert_eq!(log.append("more"), Err(AppendRefused::NoSpace));
    log.shared.raise_mark(P0, Offset(count)).expect("a higher mark");
    log.writer.turn();
    log.writer.silence();
    assert!(log.commit("more"));
    assert_eq!(log.shared.bounds(P0).end, Offset(count + 1));
    assert!(log.shared.bounds(P0).start > Offset(0));
    assert_eq!(log.shared.map().marks, [count]);
    let reopened = Subject::open(&disk.crash(Loss::All));
    assert_eq!(reopened.shared.map().marks, [count], "the mark went into the new segment");
}

/// Where space cannot be reserved ahead, a write can be cut short in the middle of a segment.
#[test]
fn what_a_full_disk_cut_short_never_turns_up_later() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut log = Subject::open(&disk);
        assert!(log.commit("first"));
        log.fail(0, FaultKind::NoSpace);
        assert!(!log.commit(&"lost ".repeat(150)));
        assert_eq!(log.append("more"), Err(AppendRefused::NoSpace));
        assert_eq!(log.texts(), ["first"]);
        log.writer.silence();
        assert_eq!(log.append("more"), Err(AppendRefused::NoSpace), "there is still no space");
        disk.set_fault(None);
        log.writer.silence();
        assert_eq!(log.after_power_loss(Loss::Some(seed)), ["first"]);
        assert!(log.commit("second"));
        assert_eq!(log.texts(), ["first", "second"]);
        assert_eq!(log.after_power_loss(Loss::Some(seed)), ["first", "second"]);
    }
}

#[test]
fn after_a_failed_write_nothing_is_taken_until_it_is_opened_again() {
    let disk = SimDisk::new(1);
    let mut log = Subject::open(&disk);
    assert!(log.commit("first"));
    log.fail(0, FaultKind::Io);
    for n in 0..3 {
        log.append(&format!("in flight {n}")).expect("it is taken");
    }
    log.writer.turn();
    assert_eq!(log.outcomes(), [false; 3]);
    assert_eq!(log.append("more"), Err(AppendRefused::Failed));
    log.writer.silence();
    assert_eq!(log.append("more"), Err(AppendRefused::Failed), "time heals nothing");
    assert_eq!(log.texts(), ["first"], "reads go on");
    let mut log = Subject::open(&disk.crash(Loss::None));
    assert!(log.commit("after"));
    let texts = log.texts();
    assert_eq!((&*texts[0], &*texts[texts.len() - 1]), ("first", "after"));
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::new(1);
    let mut log = Subject::open(&disk);
    assert!(log.commit("first"));
    log.fail(1, FaultKind::Io);
    assert!(!log.commit("in flight"));
    let operations = disk.operations();
    assert_eq!(log.append("more"), Err(AppendRefused::Failed));
    log.writer.turn();
    log.writer.silence();
    assert!(log.shared.raise_mark(P0, Offset(1)).is_some());
    log.writer.turn();
    assert_eq!(log.texts(), ["first"]);
    log.writer.close();
    assert_eq!(disk.operations(), operations, "the disk was touched after a failed sync");
}

/// The file system holds the batch in memory, believes that it is on the disk, and says so.
#[test]
fn a_batch_that_only_memory_has_is_written_again_before_it_is_shown() {
    let mut shown = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut log = Subject::open(&disk);
        assert!(log.commit("first"));
        log.fail(1, FaultKind::Io);
        assert!(!log.commit(&"doubtful ".repeat(100)));
        let reopened = Subject::open(&disk.crash(Loss::None));
        let texts = reopened.texts();
        shown += usize::from(texts.len() == 2);
        assert_eq!(reopened.after_power_loss(Loss::All), texts, "seed {seed}");
    }
    assert!(shown > 25, "{shown}");
}

#[test]
fn a_failed_opening_leaves_a_log_that_opens() {
    for after in 0..20 {
        let disk = SimDisk::new(after);
        disk.set_fault(Some(Fault { after, kind: FaultKind::Io }));
        let is_open = Subject::try_open(&disk).is_ok();
        disk.set_fault(None);
        for loss in [Loss::None, Loss::All, Loss::Some(after)] {
            let mut log = Subject::open(&disk.crash(loss));
            assert!(log.commit("first"), "after {after} operations, open: {is_open}");
        }
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_removed_later() {
    let disk = SimDisk::new(1);
    let mut log = Subject::open(&disk);
    while log.shared.map().segments.len() < 3 {
        assert!(log.commit(&"x".repeat(200)));
    }
    log.shared.raise_mark(P0, log.shared.bounds(P0).end).expect("a higher mark");
    // The mark is written and synced; then the removal fails.
    log.fail(2, FaultKind::Io);
    log.writer.turn();
    assert_eq!(disk.files().len(), 4, "nothing is removed yet");
    let start = log.shared.bounds(P0).start;
    assert!(start > Offset(0), "and nobody sees it any more");
    disk.advance_ms(120_000);
    log.writer.silence();
    assert_eq!(disk.files().len(), 3, "one segment was begun for its age, two are gone");
    assert!(log.commit("more"));
}

#[test]
fn a_panic_of_the_writer_leaves_nobody_waiting() {
    let disk = SimDisk::new(1);
    let Subject { writer, mut appender, mut acks, shared, .. } = Subject::open(&disk);
    for n in 0..3 {
        appender.append(P0, n, Bytes::from_static(b"in flight")).expect("it is taken");
    }
    disk.watch(|_| panic!("the disk does what nobody thought of"));
    let outcome = std::thread::spawn(move || {
        let mut writer = writer;
        writer.turn();
    });
    assert!(outcome.join().is_err(), "the writer panics");
    let outcomes = acks.try_recv().expect("outcomes");
    assert!(outcomes.len() == 3 && outcomes.iter().all(|acked| acked.result.is_err()));
    assert_eq!(appender.append(P0, 3, Bytes::new()), Err(AppendRefused::Failed));
    assert_eq!(shared.bounds(P0).end, Offset(0));
}

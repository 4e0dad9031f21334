//! Crashes at every write and sync boundary of a long run.
//!
//! After each operation that changes the disk the machine is switched off in a copy of the world,
//! the log is opened there, and everything in it is compared with what was acknowledged. The run
//! itself also crashes, fails and closes now and then, and goes on with what is left.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::model::Model;
use super::random::Random;
use super::sim::{Fault, FaultKind, Loss, SimDisk};
use crate::log::segment::queue::SegmentAppender;
use crate::log::segment::writer::Writer;
use crate::log::segment::{SegmentConfig, Shared};
use crate::log::{AppendRefused, Appender, Offset};

const PARTITIONS: u32 = 3;

fn config() -> SegmentConfig {
    SegmentConfig {
        segment_bytes: 4 << 10,
        record_bytes_max: 1 << 10,
        batch_bytes_max: 2 << 10,
        bytes_in_flight_max: 8 << 10,
        keep: Duration::from_millis(300),
        keep_bytes: Some(3 * (4 << 10)),
        ..SegmentConfig::default()
    }
}

/// What a run saw. The test asserts that none of it is too little.
#[derive(Debug, Default)]
struct Seen {
    operations: u64,
    boundaries: u64,
    /// Crashes after which a record was there that nobody had been told of.
    unacknowledged: u64,
    /// Crashes in the middle of an opening.
    nested: u64,
    lives: u64,
    failures: u64,
    full: u64,
    trimmed: u64,
    records: u64,
}

struct Run {
    config: SegmentConfig,
    random: Random,
    model: Arc<Mutex<Model>>,
    seen: Arc<Mutex<Seen>>,
    /// The first thing that was wrong.
    wrong: Arc<Mutex<Option<String>>>,
    disk: SimDisk,
}

/// One process.
struct Life {
    shared: Arc<Shared>,
    writer: Writer,
    appenders: Vec<SegmentAppender>,
}

/// Runs until so many operations were done; says what was wrong first.
fn run(seed: u64, operations: u64, config: SegmentConfig) -> Result<Seen, String> {
    let mut run = Run {
        config,
        random: Random(seed),
        model: Arc::new(Mutex::new(Model::new(PARTITIONS))),
        seen: Arc::default(),
        wrong: Arc::default(),
        disk: SimDisk::new(seed),
    };
    while run.seen.lock().unwrap().operations < operations {
        run.life()?;
    }
    drop(run.disk);
    let seen = std::mem::take(&mut *run.seen.lock().unwrap());
    Ok(seen)
}

impl Run {
    /// From an opening to a crash, a failure or a close.
    fn life(&mut self) -> Result<(), String> {
        self.seen.lock().unwrap().lives += 1;
        self.watch();
        let mut life = self.open()?;
        for _ in 0..20 + self.random.below(200) {
            self.step(&mut life);
            self.error()?;
        }
        match self.random.below(4) {
            0 => {
                self.disk.set_fault(None);
                self.disk.set_capacity(None);
                life.writer.close();
            }
            1 => self.fail(&mut life)?,
            _ => {}
        }
        self.model.lock().unwrap().drain()?;
        self.error()?;
        self.disk.unwatch();
        let loss = match self.random.below(4) {
            0 => Loss::All,
            1 => Loss::None,
            _ => Loss::Some(self.random.next()),
        };
        self.disk = self.disk.crash(loss);
        Ok(())
    }

    fn open(&mut self) -> Result<Life, String> {
        let opened = Shared::recover(Arc::new(self.disk.clone()), PARTITIONS, self.config.clone());
        self.error()?;
        let (shared, end) = opened.map_err(|error| format!("it does not open: {error}"))?;
        let mut model = self.model.lock().unwrap();
        model.compare(&shared)?;
        model.restart(&shared);
        let mut appenders = Vec::new();
        for _ in 0..2 {
            let queue = Arc::clone(&shared.queue);
            let (appender, acks) = SegmentAppender::new(queue, PARTITIONS, &self.config);
            appenders.push(appender);
            model.acks.push(acks);
        }
        let writer = Writer::new(Arc::clone(&shared), end);
        Ok(Life { shared, writer, appenders })
    }

    fn step(&mut self, life: &mut Life) {
        match self.random.below(100) {
            0..70 => {
                for _ in 0..=self.random.below(4) {
                    self.append(life);
                }
                if self.random.below(3) > 0 {
                    life.writer.turn();
                }
            }
            70..78 => life.writer.turn(),
            78..84 => life.writer.silence(),
            84..92 => self.trim(life),
            92..97 => self.disk.advance_ms(self.random.below(300)),
            97 => self.disk.advance_ms(70_000),
            98 => {
                self.seen.lock().unwrap().full += 1;
                let files: usize = self.disk.files().iter().map(|(_, bytes)| bytes).sum();
                match self.random.below(2) {
                    0 => self.disk.set_capacity(Some(files as u64)),
                    _ => self.fault(FaultKind::NoSpace),
                }
            }
            _ => {
                self.disk.set_capacity(None);
                self.disk.set_fault(None);
            }
        }
    }

    fn append(&mut self, life: &mut Life) {
        let partition = PartitionId(self.random.below(PARTITIONS.into()) as u32);
        let bytes = match self.random.below(20) {
            0 => self.random.below(1025),
            1 => 0,
            _ => 10 + self.random.below(120),
        };
        let record: Bytes = (0..bytes).map(|_| self.random.next() as u8).collect();
        let appender = &mut life.appenders[self.random.below(2) as usize];
        let mut model = self.model.lock().unwrap();
        // The model hears of it when it is accepted, and not before: a refusal has no effect.
        let token = model.next_token();
        match appender.append(partition, token, record.clone()) {
            Ok(()) => {
                assert_eq!(model.accept(partition, record), token);
                self.seen.lock().unwrap().operations += 1;
            }
            Err(AppendRefused::Full | AppendRefused::NoSpace | AppendRefused::Failed) => {}
            Err(AppendRefused::TooLarge) => panic!("no record is too large"),
        }
    }

    /// Raises trim marks. They must survive once a turn has gone well.
    fn trim(&mut self, life: &mut Life) {
        for index in 0..PARTITIONS as usize {
            let end = life.shared.map().next[index];
            let below = end.saturating_sub(self.random.below(20));
            // The model hears of it first: the mark holds at once.
            let mut model = self.model.lock().unwrap();
            let expected = &mut model.partitions[index];
            expected.mark = expected.mark.max(below);
            drop(model);
            life.shared.raise_mark(PartitionId(index as u32), Offset(below));
        }
        let before = life.shared.map().segments.len();
        life.writer.turn();
        let mut seen = self.seen.lock().unwrap();
        seen.trimmed += u64::from(life.shared.map().segments.len() < before);
        seen.operations += 1;
        drop(seen);
        if life.writer.has_recorded_marks() {
            let mut model = self.model.lock().unwrap();
            for (expected, mark) in model.partitions.iter_mut().zip(&life.shared.map().marks) {
                expected.mark_durable = *mark;
            }
        }
    }

    fn fault(&mut self, kind: FaultKind) {
        let after = self.random.below(6);
        self.disk.set_fault(Some(Fault { after, kind }));
    }

    /// Lets something fail, and sees that appends are refused and reads go on.
    fn fail(&mut self, life: &mut Life) -> Result<(), String> {
        self.disk.set_capacity(None);
        self.fault(FaultKind::Io);
        for _ in 0..100 {
            self.append(life);
            life.writer.turn();
            self.error()?;
            if life.shared.queue.is_failed() {
                break;
            }
        }
        if !life.shared.queue.is_failed() {
            return Ok(()); // what failed was a removal, which is tried again
        }
        self.seen.lock().unwrap().failures += 1;
        let operations = self.disk.operations();
        let refused = life.appenders[0].append(PartitionId(0), 0, Bytes::new());
        life.writer.turn();
        life.writer.silence();
        let mut model = self.model.lock().unwrap();
        model.drain()?;
        if refused != Err(AppendRefused::Failed) || model.is_waiting() {
            return Err("a failed log does not refuse".to_owned());
        }
        if self.disk.operations() != operations {
            return Err("a failed log writes".to_owned());
        }
        let mut readable = Model::new(PARTITIONS);
        readable.partitions.clone_from(&model.partitions);
        readable.compare(&life.shared).map(|_| ())
    }

    /// Has every boundary checked from now on.
    fn watch(&self) {
        let (model, seen) = (Arc::clone(&self.model), Arc::clone(&self.seen));
        let (wrong, config) = (Arc::clone(&self.wrong), self.config.clone());
        self.disk.watch(move |disk| {
            let mut wrong = wrong.lock().unwrap();
            if wrong.is_none() {
                let mut model = model.lock().unwrap();
                let mut seen = seen.lock().unwrap();
                let outcome =
                    model.drain().and_then(|()| boundary(disk, &model, &config, &mut seen));
                *wrong = outcome.err().map(|what| {
                    format!("operation {}, boundary {}: {what}", seen.operations, seen.boundaries)
                });
            }
        });
    }

    fn error(&self) -> Result<(), String> {
        self.wrong.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

/// Crashes here, in a copy.
fn boundary(
    disk: &SimDisk,
    model: &Model,
    config: &SegmentConfig,
    seen: &mut Seen,
) -> Result<(), String> {
    seen.boundaries += 1;
    let config = SegmentConfig { acks_before_sync: false, ..config.clone() };
    let loss = match seen.boundaries % 4 {
        0 => Loss::All,
        1 => Loss::None,
        _ => Loss::Some(seen.boundaries),
    };
    let image = disk.crash(loss);
    let nested = Arc::new(Mutex::new(0));
    if seen.boundaries % 8 == 2 {
        watch_opening(&image, model, &config, &nested);
    }
    let (found, shared) = model.check(&image, &config)?;
    image.unwatch();
    seen.nested += *nested.lock().unwrap();
    seen.records += found.records as u64;
    seen.unacknowledged += u64::from(found.unacknowledged > 0);
    if seen.boundaries % 8 == 5 {
        // What could be read once must be there after the next crash.
        let (again, _) = model.check(&image.crash(Loss::All), &config)?;
        if again != found {
            return Err("what was read after a crash is lost in the next one".to_owned());
        }
    }
    drop(shared);
    Ok(())
}

/// Crashes at every boundary of an opening, too.
fn watch_opening(image: &SimDisk, model: &Model, config: &SegmentConfig, count: &Arc<Mutex<u64>>) {
    let mut copy = Model::new(PARTITIONS);
    copy.partitions.clone_from(&model.partitions);
    let (config, count) = (config.clone(), Arc::clone(count));
    image.watch(move |disk| {
        let mut count = count.lock().unwrap();
        *count += 1;
        let outcome = copy.check(&disk.crash(Loss::Some(*count)), &config);
        outcome.map(|_| ()).expect("a crash while it opens");
    });
}

#[test]
fn no_acknowledged_record_is_lost_at_any_boundary_of_10000_operations() {
    let seed = 1;
    let seen = run(seed, 10_000, config()).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    println!("{seen:?}");
    assert!(seen.boundaries > 9_000, "{seen:?}");
    assert!(seen.unacknowledged > 1_000 && seen.nested > 1_000, "{seen:?}");
    assert!(seen.lives > 20 && seen.failures > 3 && seen.full > 10, "{seen:?}");
    assert!(seen.trimmed > 30 && seen.records > 100_000, "{seen:?}");
}

#[test]
fn a_log_that_acknowledges_before_it_syncs_is_caught() {
    let wrong = run(1, 1_000, SegmentConfig { acks_before_sync: true, ..config() });
    let wrong = wrong.expect_err("a log that loses what it acknowledged");
    assert!(wrong.contains("acknowledged records of partition"), "{wrong}");
}

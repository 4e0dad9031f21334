//! A node is killed while records are appended.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::timeout;

use super::{Topic, storm, var};
use crate::log::kafka::KafkaLog;
use crate::log::{Acked, Acks, AppendRefused, Appender, Bounds, Log, Offset};

const PARTITIONS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// Node 3, dead. It starts again at the end, also when its test failed.
struct Dead;

impl Dead {
    fn new() -> Self {
        kafka("kill");
        Self
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        kafka("start");
    }
}

/// Does something with node 3.
fn kafka(what: &str) {
    let mut kafka = Command::new(format!("{}/kafka", var("CHAPPE_TEST_SERVICES")));
    let done = kafka.args([what, "3"]).output().unwrap();
    assert!(done.status.success(), "{what}: {done:?}");
}

/// Waits until all replicas of a topic are in sync.
fn await_replicas(topic: &Topic) {
    let consumer: BaseConsumer = topic.config().connection.client().create().unwrap();
    let begin = Instant::now();
    loop {
        let metadata = consumer.fetch_metadata(Some(&topic.name), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions();
        if partitions.iter().all(|partition| partition.isr().len() == 3) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "the node does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Appends to all partitions, the n-th record with the token n, and keeps what it is told.
struct Writer {
    appender: Box<dyn Appender>,
    acks: Acks,
    accepted: Vec<u64>,
    told: Vec<Vec<Acked>>,
}

impl Writer {
    fn new(log: &KafkaLog) -> Self {
        let (appender, acks) = log.appender();
        let (accepted, told) = (vec![0; PARTITIONS as usize], Vec::new());
        let mut this = Self { appender, acks, accepted, told };
        this.told.resize_with(PARTITIONS as usize, Vec::new);
        this
    }

    fn append(&mut self) {
        for partition in 0..PARTITIONS {
            let n = &mut self.accepted[partition as usize];
            let record = Bytes::from(format!("{partition} {n}"));
            match self.appender.append(PartitionId(partition), *n, record) {
                Ok(()) => *n += 1,
                Err(AppendRefused::Full) => {}
                Err(refused) => panic!("{refused}"),
            }
        }
        while let Ok(outcomes) = self.acks.try_recv() {
            self.take(outcomes);
        }
    }

    fn take(&mut self, outcomes: Vec<Acked>) {
        for outcome in outcomes {
            self.told[outcome.partition.0 as usize].push(outcome);
        }
    }

    /// Goes on until every partition has told so many outcomes beyond those.
    async fn append_until(&mut self, count: u64, beyond: &[u64]) {
        let begin = Instant::now();
        let reached = |told: &[Vec<Acked>]| {
            told.iter().zip(beyond).all(|(told, beyond)| told.len() as u64 >= beyond + count)
        };
        while !reached(&self.told) {
            let told: Vec<_> = self.told.iter().map(Vec::len).collect();
            assert!(begin.elapsed() < PATIENCE, "it does not go on: {told:?}");
            self.append();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All outcomes, and no more of them than appends.
    async fn finish(mut self) -> (Vec<u64>, Vec<Vec<Acked>>) {
        while self.told.iter().map(|told| told.len() as u64).sum::<u64>()
            < self.accepted.iter().sum()
        {
            let outcomes = timeout(PATIENCE, self.acks.recv()).await.unwrap().unwrap();
            self.take(outcomes);
        }
        let Self { appender, mut acks, accepted, told } = self;
        drop(appender);
        assert!(timeout(PATIENCE, acks.recv()).await.unwrap().is_none(), "an outcome too many");
        (accepted, told)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_leaves_the_log_dense_and_in_order_and_every_append_answered_once() {
    let _storm = storm().await;
    let topic = Topic::with(PARTITIONS, 3, &[("min.insync.replicas", "2")]).await;
    let log = KafkaLog::open(topic.config()).await.unwrap();
    let mut writer = Writer::new(&log);
    writer.append_until(100, &[0; PARTITIONS as usize]).await;
    let kill = tokio::task::spawn_blocking(Dead::new);
    while !kill.is_finished() {
        writer.append();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dead = kill.await.unwrap();
    // What was in flight at the kill, and more.
    let accepted = writer.accepted.clone();
    writer.append_until(200, &accepted).await;
    let (accepted, told) = writer.finish().await;
    for (partition, (accepted, told)) in (0..).map(PartitionId).zip(accepted.into_iter().zip(told))
    {
        // Once each and in order, at offsets that follow each other. A batch that was sent again
        // may be known already by a node that cannot say where it stands: that is doubt, and the
        // records are there.
        assert_eq!(told.len() as u64, accepted);
        for (n, acked) in (0..).zip(told) {
            assert_eq!(acked.token, n);
            match acked.result {
                Ok(offset) => assert_eq!(offset, Offset(n)),
                Err(error) => assert!(error.0.contains("without its offset"), "{n}: {error}"),
            }
        }
        reads_as_appended(&log, partition, accepted).await;
    }
    drop(dead);
    tokio::task::spawn_blocking(move || await_replicas(&topic)).await.unwrap();
}

async fn reads_as_appended(log: &KafkaLog, partition: PartitionId, count: u64) {
    let bounds = Bounds { start: Offset(0), end: Offset(count) };
    assert_eq!(log.bounds(partition).await, Ok(bounds));
    let mut next = Offset(0);
    while next < bounds.end {
        for entry in log.read(partition, next, 1 << 20).await.unwrap() {
            assert_eq!(entry.offset, next);
            assert_eq!(entry.record, format!("{partition} {next}"));
            next = next.next();
        }
    }
}

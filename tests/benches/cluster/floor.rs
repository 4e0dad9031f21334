//! The floor: a bare producer of the same library, with the log's settings, on a topic of its own
//! with the same settings. (Chappe's own topic takes Chappe's records alone.)

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use chappe_tests::{cluster::PARTITIONS, fresh, services};
use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
    topic_partition_list::{Offset, TopicPartitionList},
};

pub(crate) struct Floor {
    producer: ThreadedProducer<Flight>,
    topic: String,
}

/// What is in flight, and how much was acknowledged.
#[derive(Clone, Default)]
struct Flight(Arc<(Mutex<Counts>, Condvar)>);

#[derive(Default)]
struct Counts {
    in_flight: usize,
    acked: u64,
}

impl ClientContext for Flight {}

impl ProducerContext for Flight {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "the floor loses nothing");
        let mut counts = self.0.0.lock().unwrap();
        counts.in_flight -= 1;
        counts.acked += 1;
        self.0.1.notify_one();
    }
}

fn client() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", services::given("KAFKA")).set("socket.nagle.disable", "true");
    client
}

impl Floor {
    pub(crate) async fn new() -> Self {
        let topic = fresh("floor");
        let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
        let new = NewTopic::new(&topic, PARTITIONS as i32, TopicReplication::Fixed(3))
            .set("min.insync.replicas", "2");
        let made = admin.create_topics(&[new], &AdminOptions::new()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let mut config = client();
        // As `storage/src/log/kafka/config.rs` has them.
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "2");
        let producer = config.create_with_context(Flight::default()).unwrap();
        let floor = Self { producer, topic };
        floor.publish(64, 1, Duration::from_secs(2)); // knows its leaders now
        floor
    }

    /// Publishes one record to the partitions in turn. Returns the time to its acknowledgement.
    pub(crate) fn publish_one(&self, bytes: usize) -> Duration {
        let (counts, changed) = &*self.producer.context().0;
        let record = vec![b'x'; bytes];
        let partition = counts.lock().unwrap().acked as i32 % PARTITIONS as i32;
        let started = Instant::now();
        self.send(&record, partition);
        drop(changed.wait_while(counts.lock().unwrap(), |counts| counts.in_flight > 0).unwrap());
        started.elapsed()
    }

    fn send(&self, record: &[u8], partition: i32) {
        self.producer.context().0.0.lock().unwrap().in_flight += 1;
        let record = BaseRecord::<(), [u8]>::to(&self.topic).payload(record);
        self.producer.send(record.partition(partition)).map_err(|(error, _)| error).unwrap();
    }

    /// Keeps so many records in flight for so long, over all partitions in turn. Returns how many
    /// were acknowledged, and the time until the last was.
    pub(crate) fn publish(
        &self,
        bytes: usize,
        in_flight: usize,
        length: Duration,
    ) -> (u64, Duration) {
        let (counts, changed) = &*self.producer.context().0;
        let record = vec![b'x'; bytes];
        let (started, before) = (Instant::now(), counts.lock().unwrap().acked);
        let mut partition = 0;
        while started.elapsed() < length {
            let full = |counts: &mut Counts| counts.in_flight >= in_flight;
            drop(changed.wait_while(counts.lock().unwrap(), full).unwrap());
            self.send(&record, partition);
            partition = (partition + 1) % PARTITIONS as i32;
        }
        let some = |counts: &mut Counts| counts.in_flight > 0;
        let acked = changed.wait_while(counts.lock().unwrap(), some).unwrap().acked - before;
        (acked, started.elapsed())
    }
}

/// The mean size of the newest records of a topic's first partition.
pub(crate) fn record_bytes(topic: &str) -> usize {
    let mut config = client();
    config.set("group.id", "bench").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::OffsetTail(100)).unwrap();
    consumer.assign(&list).unwrap();
    let sizes: Vec<_> = (0..100)
        .map(|_| consumer.poll(Duration::from_secs(10)).unwrap().unwrap().payload_len())
        .collect();
    sizes.iter().sum::<usize>() / sizes.len()
}

//! What the port's suite does not ask: gaps, retention, readers, errors of the library.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaApiKey;
use tokio::time::timeout;

use super::relay::Relays;
use super::{Topic, calm, cluster, unique};
use crate::log::kafka::{Connection, KafkaConfig, KafkaLog, Login, Mechanism, OpenError};
use crate::log::{Acks, AppendRefused, Bounds, Log, Offset, ReadError};

const P0: PartitionId = PartitionId(0);
const PATIENCE: Duration = Duration::from_secs(60);

/// Appends so many records to each partition, and waits for them.
async fn fill(log: &KafkaLog, count: u64) {
    let (mut appender, mut acks) = log.appender();
    for n in 0..count {
        for partition in (0..log.partitions()).map(PartitionId) {
            appender.append(partition, n, Bytes::from(format!("{partition} {n}"))).unwrap();
        }
    }
    appender.flush();
    let mut left = count * u64::from(log.partitions());
    while left > 0 {
        let acked = timeout(PATIENCE, acks.recv()).await.unwrap().unwrap();
        left -= acked.len() as u64;
        assert!(acked.into_iter().all(|acked| acked.result.is_ok()));
    }
}

async fn outcome(acks: &mut Acks) -> Result<Offset, String> {
    let mut acked = timeout(PATIENCE, acks.recv()).await.unwrap().unwrap();
    assert_eq!(acked.len(), 1);
    acked.remove(0).result.map_err(|error| error.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_between_offsets_is_damage_with_its_place() {
    let topic = Topic::new(1).await;
    let log = KafkaLog::open(topic.config()).await.unwrap();
    fill(&log, 3).await;
    // The end of a transaction takes an offset that no reader is shown.
    let (config, name) = (topic.config(), topic.name.clone());
    let transaction = move || {
        let mut client = config.connection.client();
        client.set("transactional.id", &name);
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<(), [u8]>::to(&name).partition(0).payload(b"of a transaction");
        producer.send(record).unwrap();
        producer.commit_transaction(PATIENCE).unwrap();
    };
    tokio::task::spawn_blocking(transaction).await.unwrap();
    fill(&log, 1).await;
    assert_eq!(log.bounds(P0).await, Ok(Bounds { start: Offset(0), end: Offset(6) }));
    let what = "the next record has offset 5".to_owned();
    let damaged = ReadError::Damaged { partition: P0, at: Offset(4), what };
    assert_eq!(log.read(P0, Offset(0), 1 << 20).await, Err(damaged.clone()));
    assert_eq!(log.read(P0, Offset(4), 1).await, Err(damaged));
    assert_eq!(log.read(P0, Offset(5), 1).await.unwrap()[0].offset, Offset(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_trimmed_goes_when_it_is_old_enough_and_not_before() {
    let topic = Topic::new(2).await;
    let keeping = |keep| KafkaConfig { keep, trim_every: Duration::ZERO, ..topic.config() };
    let log = KafkaLog::open(keeping(Duration::from_secs(3600))).await.unwrap();
    fill(&log, 10).await;
    log.trim(P0, Offset(7)).await.unwrap();
    assert_eq!(log.bounds(P0).await.unwrap().start, Offset(0));
    let log = KafkaLog::open(keeping(Duration::from_millis(1))).await.unwrap();
    let begin = Instant::now();
    while log.bounds(P0).await.unwrap().start < Offset(7) {
        assert!(begin.elapsed() < PATIENCE);
        log.trim(P0, Offset(7)).await.unwrap();
    }
    assert_eq!(log.bounds(P0).await, Ok(Bounds { start: Offset(7), end: Offset(10) }));
    assert_eq!(log.bounds(PartitionId(1)).await.unwrap().start, Offset(0));
    let read = log.read(P0, Offset(6), 1).await;
    assert_eq!(read, Err(ReadError::Trimmed { start: Offset(7) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trims_happen_by_themselves_and_for_all_partitions() {
    let topic = Topic::new(3).await;
    let (keep, trim_every) = (Duration::ZERO, Duration::from_millis(20));
    let log = KafkaLog::open(KafkaConfig { keep, trim_every, ..topic.config() }).await.unwrap();
    fill(&log, 5).await;
    for partition in 0..3 {
        log.trim(PartitionId(partition), Offset(u64::from(partition) + 2)).await.unwrap();
    }
    let begin = Instant::now();
    for partition in 0..3 {
        let mark = Offset(u64::from(partition) + 2);
        while log.bounds(PartitionId(partition)).await.unwrap().start != mark {
            assert!(begin.elapsed() < PATIENCE, "partition {partition} is not trimmed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_serves_many_readings_in_turn() {
    let topic = Topic::new(4).await;
    let log = KafkaLog::open(KafkaConfig { readers_max: 1, ..topic.config() }).await.unwrap();
    fill(&log, 60).await;
    let log = Arc::new(log);
    let readings = (0..8_u32).map(|reading| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let partition = PartitionId(reading % 4);
            let mut next = Offset(0);
            while next < Offset(60) {
                for entry in log.read(partition, next, 150).await.unwrap() {
                    assert_eq!(entry.offset, next);
                    assert_eq!(entry.record, format!("{partition} {next}"));
                    next = next.next();
                }
            }
        })
    });
    for reading in readings.collect::<Vec<_>>() {
        reading.await.unwrap();
    }
}

/// Else each partition's beginning, which is read at a start, would be a poll for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_that_does_not_go_on_leaves_kafka_alone() {
    let topic = Topic::new(2).await;
    let log = KafkaLog::open(topic.config()).await.unwrap();
    fill(&log, 3).await;
    for partition in [PartitionId(0), PartitionId(1)] {
        assert_eq!(log.read(partition, Offset(0), 1).await.unwrap().len(), 1);
    }
    assert_eq!(log.readers.fetching(), 2, "what comes next is fetched ahead");
    let begin = Instant::now();
    while log.readers.fetching() > 0 {
        assert!(begin.elapsed() < PATIENCE, "it is fetched ahead for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log.read(P0, Offset(1), 1).await.unwrap()[0].offset, Offset(1));
}

/// Kafka itself cannot be made to lose track of a producer; the library's own cluster can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fatal_error_another_producer_goes_on() {
    let nodes = MockCluster::new(1).unwrap();
    let name = unique("fatal");
    nodes.create_topic(&name, 2, 1).unwrap();
    let config = KafkaConfig::new(Connection::to(&nodes.bootstrap_servers()), &name, 2);
    let log = KafkaLog::open(config).await.unwrap();
    let (mut appender, mut acks) = log.appender();
    appender.append(P0, 1, Bytes::from_static(b"one")).unwrap();
    assert_eq!(outcome(&mut acks).await, Ok(Offset(0)));
    nodes.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    appender.append(P0, 2, Bytes::from_static(b"two")).unwrap();
    let doubt = outcome(&mut acks).await;
    assert!(doubt.is_err(), "{doubt:?}");
    appender.append(P0, 3, Bytes::from_static(b"three")).unwrap();
    assert_eq!(outcome(&mut acks).await, Ok(Offset(1)));
    appender.append(PartitionId(1), 4, Bytes::from_static(b"four")).unwrap();
    assert_eq!(outcome(&mut acks).await, Ok(Offset(0)));
    drop(appender);
    assert!(timeout(PATIENCE, acks.recv()).await.unwrap().is_none(), "an outcome too many");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_is_told_in_time_and_goes_on_afterwards() {
    let relays = Relays::new().await;
    let topic = Topic::new(1).await;
    let connection = relays.connection();
    let call_timeout = Duration::from_secs(2);
    let config = KafkaConfig { connection, call_timeout, ..topic.config() };
    let log = KafkaLog::open(config.clone()).await.unwrap();
    fill(&log, 1).await;
    let hasty = KafkaLog::open(KafkaConfig { message_timeout: call_timeout, ..config }).await;
    let (mut patient, mut patient_acks) = log.appender();
    let (mut hasty, mut hasty_acks) = hasty.as_ref().unwrap().appender();
    relays.cut();
    let begin = Instant::now();
    let bounds = log.bounds(P0).await;
    assert!(matches!(bounds, Err(ReadError::Unavailable(_))), "{bounds:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "after {:?}", begin.elapsed());
    patient.append(P0, 1, Bytes::from_static(b"patient")).unwrap();
    hasty.append(P0, 1, Bytes::from_static(b"hasty")).unwrap();
    let doubt = outcome(&mut hasty_acks).await;
    assert!(doubt.is_err(), "{doubt:?}");
    relays.mend();
    assert_eq!(outcome(&mut patient_acks).await, Ok(Offset(1)));
    let begin = Instant::now();
    let entries = loop {
        match log.read(P0, Offset(0), 1000).await {
            Ok(entries) => break entries,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(entries.last().unwrap().record, "patient");
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_says_why() {
    let _calm = calm().await;
    let open = |config| async { KafkaLog::open(config).await.err() };
    let topic = Topic::named(4);
    let no_topic = open(topic.config()).await;
    assert!(matches!(no_topic, Some(OpenError::NoTopic { .. })), "{no_topic:?}");
    let topic = Topic::with(4, 3, &[]).await;
    let partitions = open(KafkaConfig { partitions: 5, ..topic.config() }).await;
    let (name, found, asked) = (topic.name.clone(), 4, 5);
    assert_eq!(partitions, Some(OpenError::Partitions { topic: name, found, asked }));
    let (connection, call_timeout) = (Connection::to("127.0.0.1:1"), Duration::from_secs(1));
    let nobody = open(KafkaConfig { connection, call_timeout, ..topic.config() }).await.unwrap();
    let nobody = nobody.to_string();
    assert!(nobody.contains("127.0.0.1:1") && nobody.contains("refused"), "{nobody}");
}

#[tokio::test]
async fn settings_out_of_their_range_are_refused() {
    let config = || KafkaConfig::new(cluster(), "topic", 4);
    let (mechanism, user, password) = (Mechanism::Plain, "user".to_owned(), "word".to_owned());
    let login = Some(Login { mechanism, user, password });
    assert!(!format!("{login:?}").contains("word"), "a password is shown");
    for config in [
        KafkaConfig { partitions: 0, ..config() },
        KafkaConfig { topic: "a topic".to_owned(), ..config() },
        KafkaConfig { bytes_in_flight_max: 1 << 20, ..config() },
        KafkaConfig { readers_max: 0, ..config() },
        KafkaConfig { connection: Connection::to(""), ..config() },
        KafkaConfig { connection: Connection { login, ..cluster() }, ..config() },
    ] {
        let refused = KafkaLog::open(config).await.err();
        assert!(matches!(refused, Some(OpenError::Config(_))), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_takes_less_than_the_log_leaves_the_append_in_doubt_and_no_other() {
    let _calm = calm().await;
    let topic = Topic::with(1, 3, &[("max.message.bytes", "2000")]).await;
    let log = KafkaLog::open(topic.config()).await.unwrap();
    let (mut appender, mut acks) = log.appender();
    appender.append(P0, 1, Bytes::from(vec![b'x'; 3000])).unwrap();
    let doubt = outcome(&mut acks).await;
    assert!(doubt.as_ref().is_err_and(|why| why.contains("large")), "{doubt:?}");
    appender.append(P0, 2, Bytes::from(vec![b'x'; 1000])).unwrap();
    assert_eq!(outcome(&mut acks).await, Ok(Offset(0)));
    let large = Bytes::from(vec![b'x'; (1 << 20) + 1]);
    assert_eq!(appender.append(P0, 3, large), Err(AppendRefused::TooLarge));
}

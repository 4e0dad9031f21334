//! The promises of the port.

use std::time::Duration;

use super::Topic;
use crate::log::conformance::{PARTITIONS, Subject};
use crate::log::kafka::KafkaLog;

/// A topic of its own for each test.
struct KafkaSubject {
    topic: Topic,
}

impl Subject for KafkaSubject {
    type Log = KafkaLog;

    const RECORD_BYTES_MAX: usize = 200_000;

    async fn new() -> Self {
        Self { topic: Topic::new(PARTITIONS).await }
    }

    async fn open(&self) -> KafkaLog {
        let mut config = self.topic.config();
        config.record_bytes_max = Self::RECORD_BYTES_MAX as u32;
        config.bytes_in_flight_max = 512 << 10;
        // What may go is gone when the suite looks.
        config.keep = Duration::ZERO;
        config.trim_every = Duration::ZERO;
        KafkaLog::open(config).await.unwrap()
    }
}

crate::log_conformance!(KafkaSubject);

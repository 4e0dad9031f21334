//! Appends to a topic: hands records to an idempotent producer of its own, and tells outcomes.
//!
//! ```text
//!   append ──> ledger ──> library ··> Kafka
//!                 ^                     :
//!                 └── deliveries <······┘
//!                 └──> teller thread ──> outcomes
//! ```
//!
//! The library tells outcomes one by one; the teller takes those that have come together, so that
//! whoever waits for them is woken once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;
use tokio::sync::mpsc;

use super::config::KafkaConfig;
use super::producer::{Desk, Producer, Unsent};
use crate::log::{Acked, Acks, AppendRefused, Appender};

/// The Kafka log's [`Appender`].
pub(super) struct KafkaAppender {
    config: Arc<KafkaConfig>,
    is_closed: Arc<AtomicBool>,
    desk: Arc<Desk>,
    /// Only to see how many outcomes nobody has taken yet.
    outcomes: mpsc::WeakSender<Vec<Acked>>,
    producer: Option<Producer>,
    producers: u64,
}

impl KafkaAppender {
    pub(super) fn new(config: Arc<KafkaConfig>, is_closed: Arc<AtomicBool>) -> (Self, Acks) {
        // A place for every record in flight, should each be acknowledged alone, and one for the
        // outcomes that are on their way and no longer counted.
        let (outcomes, acks) = mpsc::channel(config.records_in_flight_max() + 1);
        let desk = Arc::new(Desk::new(&config));
        let weak = outcomes.downgrade();
        let teller = Arc::clone(&desk);
        let tell = move || {
            while let Some(acked) = teller.outcomes() {
                // Without a receiver nobody wants to know, and there is still a queue to empty.
                outcomes.blocking_send(acked).ok();
            }
        };
        let mut this =
            Self { config, is_closed, desk, outcomes: weak, producer: None, producers: 0 };
        // Without its teller an appender refuses.
        match thread::Builder::new().name("kafka-outcomes".to_owned()).spawn(tell) {
            // Made now, so that it has its identity from Kafka when the first record comes.
            Ok(_) => drop(this.produce()),
            Err(error) => {
                tracing::error!(%error, "no thread for the outcomes of appends");
                this.is_closed = Arc::new(AtomicBool::new(true));
            }
        }
        (this, acks)
    }

    /// The producer, a new one if there is none.
    fn produce(&mut self) -> Result<&Producer, AppendRefused> {
        if self.producer.is_none() {
            let made = Producer::new(&self.config, self.producers, Arc::clone(&self.desk));
            self.producers += 1;
            match made {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => tracing::error!(%error, "no producer for Kafka"),
            }
        }
        self.producer.as_ref().ok_or(AppendRefused::Failed)
    }

    fn send(&mut self, partition: PartitionId, token: u64, record: &[u8]) -> Result<(), Unsent> {
        let unread =
            self.outcomes.upgrade().map_or(0, |told| told.max_capacity() - told.capacity());
        let (config, desk) = (Arc::clone(&self.config), Arc::clone(&self.desk));
        let producer = self.produce().map_err(Unsent::Refused)?;
        let number = desk
            .accept(partition, token, record.len(), producer.id(), unread)
            .ok_or(Unsent::Refused(AppendRefused::Full))?;
        let sent = producer.send(&config.topic, partition, number, record);
        if sent.is_err() {
            desk.withdraw(partition);
        }
        sent
    }

    /// Lets a producer end in its own time, on a thread of its own. Without one it ends here.
    fn retire(producer: Producer, patience: Duration, last: Option<Finish>) {
        let retire = move || {
            producer.flush(patience);
            drop(producer);
            drop(last);
        };
        if let Err(error) = thread::Builder::new().name("kafka-retire".to_owned()).spawn(retire) {
            tracing::error!(%error, "no thread for the end of a producer");
        }
    }
}

/// Lets the teller end, when it is dropped.
struct Finish(Arc<Desk>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Appender for KafkaAppender {
    fn append(
        &mut self,
        partition: PartitionId,
        token: u64,
        record: Bytes,
    ) -> Result<(), AppendRefused> {
        assert!(partition.0 < self.config.partitions, "the log has no such partition");
        if record.len() > self.config.record_bytes_max as usize {
            return Err(AppendRefused::TooLarge);
        }
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(AppendRefused::Failed);
        }
        match self.send(partition, token, &record) {
            Ok(()) => return Ok(()),
            Err(Unsent::Refused(refused)) => return Err(refused),
            Err(Unsent::Fatal) => {}
        }
        if let Some(producer) = self.producer.take() {
            tracing::warn!("the producer cannot go on; another one takes its place");
            Self::retire(producer, Duration::ZERO, None);
        }
        match self.send(partition, token, &record) {
            Ok(()) => Ok(()),
            Err(Unsent::Refused(refused)) => Err(refused),
            Err(Unsent::Fatal) => Err(AppendRefused::Failed),
        }
    }

    /// The library sends in its own time, after the linger at the latest.
    fn flush(&mut self) {}
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        let finish = Finish(Arc::clone(&self.desk));
        if let Some(producer) = self.producer.take() {
            Self::retire(producer, CLOSE_PATIENCE, Some(finish));
        }
    }
}

/// What was accepted is waited for so long when its appender is dropped.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

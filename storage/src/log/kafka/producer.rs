//! One idempotent producer of the client library, and the desk to which it reports.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chappe_protocol::PartitionId;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;

use super::config::KafkaConfig;
use super::connection::{Voice, log_line};
use super::ledger::Ledger;
use crate::log::{Acked, AppendError, AppendRefused, Offset};

/// Where an appender's records wait for their outcomes, and the teller for the outcomes.
pub(super) struct Desk {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    ledger: Ledger,
    /// Nothing comes any more.
    is_done: bool,
}

impl Desk {
    pub(super) fn new(config: &KafkaConfig) -> Self {
        let ledger = Ledger::new(config.bytes_in_flight_max, config.records_in_flight_max());
        Self { state: Mutex::new(State { ledger, is_done: false }), wake: Condvar::new() }
    }

    pub(super) fn accept(
        &self,
        partition: PartitionId,
        token: u64,
        record_bytes: usize,
        producer: u64,
        unread: usize,
    ) -> Option<u64> {
        self.lock().ledger.accept(partition, token, record_bytes, producer, unread)
    }

    pub(super) fn withdraw(&self, partition: PartitionId) {
        self.lock().ledger.withdraw(partition);
    }

    fn settle(&self, partition: PartitionId, number: u64, outcome: Result<Offset, AppendError>) {
        let mut state = self.lock();
        let had_outcomes = state.ledger.has_outcomes();
        state.ledger.settle(partition, number, outcome);
        let is_news = !had_outcomes && state.ledger.has_outcomes();
        drop(state);
        if is_news {
            self.wake.notify_one();
        }
    }

    fn give_up(&self, producer: u64, why: &str) {
        self.lock().ledger.give_up(producer, &AppendError(why.to_owned()));
        self.wake.notify_one();
    }

    /// Lets the teller end once it has told what there is.
    pub(super) fn finish(&self) {
        self.lock().is_done = true;
        self.wake.notify_one();
    }

    /// Waits for outcomes. None when there will be no more.
    pub(super) fn outcomes(&self) -> Option<Vec<Acked>> {
        let has_nothing = |state: &mut State| !state.ledger.has_outcomes() && !state.is_done;
        let waited = self.wake.wait_while(self.lock(), has_nothing);
        let outcomes = waited.unwrap_or_else(PoisonError::into_inner).ledger.take();
        if outcomes.is_empty() { None } else { Some(outcomes) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer. After a fatal error it takes nothing more, and another one takes its place.
///
/// Dropping it gives up what is in flight, and blocks for that.
pub(super) struct Producer {
    id: u64,
    /// There until it is dropped.
    client: Option<ThreadedProducer<Deliveries>>,
    desk: Arc<Desk>,
}

impl Producer {
    pub(super) fn new(config: &KafkaConfig, id: u64, desk: Arc<Desk>) -> Result<Self, KafkaError> {
        let context = Deliveries { desk: Arc::clone(&desk), voice: Voice::default() };
        Ok(Self { id, client: Some(config.producer().create_with_context(context)?), desk })
    }

    /// Hands a record over under the number that the ledger gave it.
    pub(super) fn send(
        &self,
        topic: &str,
        partition: PartitionId,
        number: u64,
        record: &[u8],
    ) -> Result<(), Unsent> {
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, number as usize)
            .partition(partition.0 as i32)
            .payload(record);
        let Some(client) = &self.client else { return Err(Unsent::Fatal) };
        client.send(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Unsent::Refused(AppendRefused::Full),
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => Unsent::Refused(AppendRefused::TooLarge),
            Some(RDKafkaErrorCode::Fatal) => Unsent::Fatal,
            _ => {
                let why = format!("a record was not taken: {error}");
                client.client().context().voice.heard(&error, &why);
                Unsent::Refused(AppendRefused::Failed)
            }
        })
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Waits at most so long for what is in flight. Blocks.
    pub(super) fn flush(&self, patience: Duration) {
        if let Some(client) = &self.client {
            // In time or not: what is left is in doubt, and is told so in the end.
            client.flush(patience).ok();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        drop(self.client.take());
        self.desk.give_up(self.id, "its producer ended before it was acknowledged");
    }
}

/// Why the library did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    Refused(AppendRefused),
    /// This producer takes no more.
    Fatal,
}

/// What the library calls when it knows an outcome.
struct Deliveries {
    desk: Arc<Desk>,
    voice: Voice,
}

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.heard(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, number: usize) {
        let (message, outcome) = match delivery {
            Ok(message) => (message, offset(message.offset())),
            Err((error, message)) => (message, Err(AppendError(self.voice.explain(error)))),
        };
        self.desk.settle(PartitionId(message.partition() as u32), number as u64, outcome);
    }
}

/// A record that Kafka had already is acknowledged, but without its place.
fn offset(offset: i64) -> Result<Offset, AppendError> {
    let without_place = |_| AppendError("it was acknowledged without its offset".to_owned());
    u64::try_from(offset).map(Offset).map_err(without_place)
}

/// Numbers pass through the library in a pointer's place.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

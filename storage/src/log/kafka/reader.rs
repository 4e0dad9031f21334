//! Reads a topic from an offset on: readers that are told where, and that check what comes.
//!
//! A reader stays where it stopped, with what it has fetched ahead, for the next read from there.
//! If none comes soon it leaves: at the end of a partition it would ask Kafka for more a hundred
//! times a second. There are so many readers at most; the one that was used least recently is sent
//! elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::config::KafkaConfig;
use super::connection::{SERVED_EVERY, Voice};
use crate::log::{Entry, Offset, ReadError};

/// The readers. Whoever reads holds a permit, of which there are as many as there may be readers.
pub(super) struct Readers {
    config: Arc<KafkaConfig>,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Reader>,
    /// How many there are with those that read.
    count: usize,
}

impl Readers {
    pub(super) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, pool: Mutex::default() }
    }

    /// The records of `partition` from `from` on, up to `end`, to about `bytes_max`. Blocks, until
    /// the deadline at most.
    pub(super) fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Vec<Entry>, Failure> {
        let taken = self.take(partition, from);
        let read = |mut reader: Reader| {
            let entries = reader.read(partition, from, end, bytes_max, deadline)?;
            Ok((reader, entries))
        };
        let read = match taken.map(read) {
            // Is it the log, or a client that lost its place? A new one tells.
            None | Some(Err(Failure::Error(ReadError::Damaged { .. }))) => {
                Reader::new(&self.config).and_then(read)
            }
            Some(read) => read,
        };
        let mut pool = self.pool();
        match read {
            Ok((reader, entries)) => {
                pool.idle.push(reader);
                Ok(entries)
            }
            // It is not known where its reader stands, so that has ended.
            Err(failure) => {
                pool.count -= 1;
                Err(failure)
            }
        }
    }

    /// Lets go of what is fetched ahead for a reading that does not go on. Whoever calls holds a
    /// permit. Blocks.
    pub(super) fn rest(&self) {
        let taken = || {
            let mut pool = self.pool();
            let index = pool.idle.iter().position(Reader::waits_in_vain)?;
            Some(pool.idle.remove(index))
        };
        while let Some(mut reader) = taken() {
            let left = reader.leave();
            let mut pool = self.pool();
            match left {
                Ok(()) => pool.idle.push(reader),
                Err(_) => pool.count -= 1,
            }
        }
    }

    /// How many are told to fetch, and not reading.
    #[cfg(test)]
    pub(super) fn fetching(&self) -> usize {
        let assigned = |reader: &&Reader| reader.consumer.assignment().unwrap().count() > 0;
        self.pool().idle.iter().filter(assigned).count()
    }

    /// Ends the readers that are not reading. Blocks.
    pub(super) fn close(&self) {
        let idle = std::mem::take(&mut self.pool().idle);
        drop(idle);
    }

    /// The reader that stands there; or one that stands nowhere; or the one that has waited the
    /// longest, if there may be no more. Without one there is a place for a new one.
    fn take(&self, partition: PartitionId, from: Offset) -> Option<Reader> {
        let mut pool = self.pool();
        let place = Some((partition, from));
        let stands = |at: &dyn Fn(&Reader) -> bool| pool.idle.iter().position(at);
        let index = stands(&|reader| reader.at == place)
            .or_else(|| stands(&|reader| reader.at.is_none()))
            // Of so many some do not read: whoever comes here is one of the readings himself.
            .or_else(|| (pool.count >= self.config.readers_max).then_some(0));
        if index.is_none() {
            pool.count += 1;
        }
        index.map(|index| pool.idle.remove(index))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a read brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The offset is not there any more. The log's start says more.
    OutOfRange,
    Error(ReadError),
}

/// One consumer, with one partition at a time.
struct Reader {
    topic: String,
    consumer: BaseConsumer<Voice>,
    /// Where it stands: the next record that it will give.
    at: Option<(PartitionId, Offset)>,
    /// Since when it stands there.
    since: Instant,
    /// The record there, if it was fetched and did not fit the read before.
    ahead: Option<Entry>,
}

impl Reader {
    fn new(config: &KafkaConfig) -> Result<Self, Failure> {
        let consumer = config.reader().create_with_context(Voice::default());
        let consumer = consumer.map_err(|error| unavailable(error.to_string()))?;
        Ok(Self {
            topic: config.topic.clone(),
            consumer,
            at: None,
            since: Instant::now(),
            ahead: None,
        })
    }

    fn read(
        &mut self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Vec<Entry>, Failure> {
        if self.at != Some((partition, from)) {
            self.go_to(partition, from)?;
        }
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, from);
        while next < end {
            let entry = match self.ahead.take() {
                Some(entry) => entry,
                None => self.poll(partition, next, deadline)?,
            };
            bytes += entry.record.len();
            if bytes > bytes_max && !entries.is_empty() {
                self.ahead = Some(entry);
                break;
            }
            next = next.next();
            entries.push(entry);
        }
        if next < end {
            self.at = Some((partition, next));
            self.since = Instant::now();
        } else {
            self.leave()?;
        }
        Ok(entries)
    }

    fn go_to(&mut self, partition: PartitionId, from: Offset) -> Result<(), Failure> {
        self.at = None;
        self.ahead = None;
        let mut place = TopicPartitionList::with_capacity(1);
        place
            .add_partition_offset(&self.topic, partition.0 as i32, Place::Offset(from.0 as i64))
            .and_then(|()| self.consumer.assign(&place))
            .map_err(|error| unavailable(error.to_string()))
    }

    fn waits_in_vain(&self) -> bool {
        self.at.is_some() && self.since.elapsed() >= AHEAD_FOR
    }

    /// At the end there is nothing to fetch ahead, and nobody to wait for.
    fn leave(&mut self) -> Result<(), Failure> {
        self.at = None;
        self.ahead = None;
        self.consumer.unassign().map_err(|error| unavailable(error.to_string()))
    }

    /// The record at `expected`, and no other.
    fn poll(
        &self,
        partition: PartitionId,
        expected: Offset,
        deadline: Instant,
    ) -> Result<Entry, Failure> {
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("nothing came from partition {partition} at {expected}");
                return Err(unavailable(self.consumer.context().with_complaint(what)));
            }
            match self.consumer.poll(left.min(SERVED_EVERY)) {
                None if Instant::now() > look_at => {
                    // Its node may be frozen, and another one lead by now: the library then goes
                    // there, but by itself it looks much later.
                    drop(self.consumer.fetch_metadata(Some(&self.topic), left.min(ONE_LOOK)));
                    look_at = Instant::now() + LOOK_EVERY;
                }
                None => {}
                Some(Err(error)) => self.check(partition, expected, &error)?,
                Some(Ok(message)) => {
                    let offset = Offset(message.offset().max(0) as u64);
                    // What a client fetched twice is dropped; what it skipped is not forgiven.
                    if message.partition() as u32 != partition.0 || offset < expected {
                        continue;
                    }
                    if offset > expected {
                        let what = format!("the next record has offset {offset}");
                        return Err(damaged(partition, expected, what));
                    }
                    let record = message.payload().map(Bytes::copy_from_slice).unwrap_or_default();
                    return Ok(Entry { offset, record });
                }
            }
        }
    }

    /// An error of the connection passes: the library tries again, up to the deadline.
    fn check(&self, partition: PartitionId, at: Offset, error: &KafkaError) -> Result<(), Failure> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                Err(Failure::OutOfRange)
            }
            Some(
                RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::Underflow
                | RDKafkaErrorCode::NotImplemented,
            ) => Err(damaged(partition, at, error.to_string())),
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::Fatal,
            ) => Err(unavailable(self.consumer.context().explain(error))),
            _ => Ok(()),
        }
    }
}

/// A reader that stopped before the end waits for so long for whoever reads on.
pub(super) const AHEAD_FOR: Duration = Duration::from_secs(1);
/// Without a record for so long a reader asks who leads now.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And waits for so long for that.
const ONE_LOOK: Duration = Duration::from_secs(1);

fn unavailable(what: String) -> Failure {
    Failure::Error(ReadError::Unavailable(what))
}

fn damaged(partition: PartitionId, at: Offset, what: String) -> Failure {
    Failure::Error(ReadError::Damaged { partition, at, what })
}

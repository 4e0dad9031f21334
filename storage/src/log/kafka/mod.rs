//! The clustered backend of the log port: a topic of Kafka.
//!
//! ```text
//!   appender ──> idempotent producer, acks=all ──> topic, P partitions
//!   read ──────> consumer, told where ───────────┘   |
//!   bounds ────> watermarks ─────────────────────────┘
//! ```
//!
//! A record's offset is Kafka's. They are dense because the topic is never compacted and nobody
//! uses transactions on it; a reader that finds a gap says so and reads no further.
//!
//! What it refuses: a topic with another number of partitions, or none: it is made by [`create`]
//! and judged by [`check`], never on the way. What it does not do: decide who may append (ownership
//! and the claims in the log do), or skip a record. Kafka's acknowledgement means that all in-sync
//! replicas have the record in memory, not that it is on their disks.

mod appender;
mod asker;
mod config;
pub(crate) mod connection;
mod ledger;
mod preflight;
mod producer;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod trim;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use async_trait::async_trait;
use chappe_protocol::PartitionId;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::appender::KafkaAppender;
use self::asker::Asker;
pub use self::config::{KafkaConfig, OpenError};
pub use self::connection::{Connection, Identity, Login, Mechanism, Tls};
pub use self::preflight::{
    Check, CreateError, Created, Finding, Genesis, Layout, Severity, check, create,
};
use self::reader::{AHEAD_FOR, Failure, Readers};
use self::trim::Trims;
use crate::log::{Acks, Appender, Bounds, Entry, Log, Offset, ReadError};

/// A log on a topic of Kafka.
///
/// Dropping it does not wait. Its appenders refuse afterwards; what they have accepted is
/// acknowledged, or given up, within five seconds of their own end.
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    is_closed: Arc<AtomicBool>,
    asker: Arc<Asker>,
    readers: Arc<Readers>,
    /// Reads under way, and other questions: each takes a thread.
    reads: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    trims: Arc<Trims>,
}

impl KafkaLog {
    /// Opens the log. Asks Kafka whether the topic is there and has this many partitions, and
    /// nothing else.
    pub async fn open(config: KafkaConfig) -> Result<Self, OpenError> {
        config.check()?;
        let config = Arc::new(config);
        let asking = Arc::clone(&config);
        let opened = spawn_blocking(move || {
            let asker = Asker::new(&asking)?;
            let partitions = asker.partitions().map_err(|what| asking.unavailable(what))?;
            asking.compare(partitions)?;
            Ok(asker)
        });
        let asker = opened.await.map_err(|error| config.unavailable(error.to_string()))?;
        let asker = Arc::new(asker?);
        let trims = Trims::start(Arc::clone(&config), Arc::clone(&asker));
        let trims = trims.map_err(|error| OpenError::Config(error.to_string()))?;
        Ok(Self {
            is_closed: Arc::default(),
            asker,
            readers: Arc::new(Readers::new(Arc::clone(&config))),
            reads: Arc::new(Semaphore::new(config.readers_max)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            trims,
            config,
        })
    }

    /// Lets readers rest whose readings do not go on.
    fn rest_later(&self) {
        let (readers, reads) = (Arc::downgrade(&self.readers), Arc::clone(&self.reads));
        tokio::spawn(async move {
            // The same reading goes on before that, most often, and takes what was fetched ahead.
            sleep(AHEAD_FOR).await;
            let Some(readers) = readers.upgrade() else { return };
            let rest = move || {
                readers.rest();
                Ok(())
            };
            on_thread(&reads, rest).await.ok();
        });
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Asker) -> Result<T, String> + Send + 'static,
    ) -> Result<T, ReadError> {
        let asker = Arc::clone(&self.asker);
        on_thread(&self.questions, move || question(&asker).map_err(ReadError::Unavailable)).await
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.trims.close();
        // Consumers say goodbye when they end, which takes them a while.
        let readers = Arc::clone(&self.readers);
        let ended = thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
            readers.close();
        });
        if let Err(error) = ended {
            tracing::error!(%error, "no thread for the end of the log's readers");
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn partitions(&self) -> u32 {
        self.config.partitions
    }

    fn appender(&self) -> (Box<dyn Appender>, Acks) {
        let is_closed = Arc::clone(&self.is_closed);
        let (appender, acks) = KafkaAppender::new(Arc::clone(&self.config), is_closed);
        (Box::new(appender), acks)
    }

    /// What is read is below the high watermark at the time of the call.
    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let Bounds { start, end } = self.bounds(partition).await?;
        if from < start {
            return Err(ReadError::Trimmed { start });
        }
        if from >= end {
            return Ok(Vec::new());
        }
        let (readers, timeout) = (Arc::clone(&self.readers), self.config.call_timeout);
        let read =
            move || Ok(readers.read(partition, from, end, bytes_max, Instant::now() + timeout));
        match on_thread(&self.reads, read).await? {
            Ok(entries) => {
                if entries.last().is_some_and(|last| last.offset.next() < end) {
                    self.rest_later();
                }
                Ok(entries)
            }
            Err(Failure::Error(error)) => Err(error),
            // Trimmed in between; or another node leads and does not have what this one had.
            Err(Failure::OutOfRange) => match self.bounds(partition).await? {
                Bounds { start, .. } if from < start => Err(ReadError::Trimmed { start }),
                Bounds { start, end } => Err(ReadError::Unavailable(format!(
                    "partition {partition} is said to go from {start} to {end}, but not to have {from}"
                ))),
            },
        }
    }

    /// Kafka's watermarks, from the partition's leader. A leader that is cut off from the others
    /// goes on answering: an end is a lower bound, and no proof of anything.
    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, ReadError> {
        assert!(partition.0 < self.config.partitions, "the log has no such partition");
        self.ask(move |asker| asker.bounds(partition)).await
    }

    /// Takes note of the mark; what is below goes within `trim_every` once it is older than
    /// `keep`. With a `trim_every` of zero it has gone when this returns.
    async fn trim(&self, partition: PartitionId, below: Offset) -> Result<(), ReadError> {
        assert!(partition.0 < self.config.partitions, "the log has no such partition");
        self.trims.allow(partition, below);
        if !self.config.trim_every.is_zero() {
            return Ok(());
        }
        let (trims, config) = (Arc::clone(&self.trims), Arc::clone(&self.config));
        self.ask(move |asker| trims.round(&config, asker)).await
    }
}

/// Runs a call that blocks, when it is its turn. The call goes on when this is dropped, and so
/// does its turn.
async fn on_thread<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    call: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let unavailable = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
    let turn = Arc::clone(turns).acquire_owned().await.map_err(|error| unavailable(&error))?;
    let called = spawn_blocking(move || {
        let answer = call();
        drop(turn);
        answer
    });
    called.await.map_err(|error| unavailable(&error))?
}

impl KafkaConfig {
    fn unavailable(&self, what: String) -> OpenError {
        OpenError::Unavailable { brokers: self.connection.brokers.clone(), what }
    }

    fn compare(&self, partitions: Option<u32>) -> Result<(), OpenError> {
        let (brokers, topic) = (self.connection.brokers.clone(), self.topic.clone());
        match partitions {
            None => Err(OpenError::NoTopic { brokers, topic }),
            Some(found) if found != self.partitions => {
                Err(OpenError::Partitions { topic, found, asked: self.partitions })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Questions under way at once.
const QUESTIONS_MAX: usize = 16;

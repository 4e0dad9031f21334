//! The settings of a log on Kafka, and why it does not open.

use std::time::Duration;

use rdkafka::config::ClientConfig;

use super::connection::Connection;

/// The settings of a log on Kafka.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// The cluster.
    pub connection: Connection,
    /// The topic. It is made by [`create`](super::create), never on the way.
    pub topic: String,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// The consumer group's name. Readers never join it; some clusters allow names by prefix.
    pub group: String,
    /// The largest record. The topic must take [`message_bytes`](Self::message_bytes).
    pub record_bytes_max: u32,
    /// What one appender may have in flight: records, with 64 bytes added for each.
    pub bytes_in_flight_max: usize,
    /// How long a record waits for others to share its request. On three nodes that share two
    /// cores, 2 ms took a millisecond more than none with one record in flight, and acknowledged
    /// half again to three times as many with 32 and 256.
    pub linger: Duration,
    /// After this a record that was not acknowledged is in doubt.
    pub message_timeout: Duration,
    /// After this a call without an answer fails.
    pub call_timeout: Duration,
    /// How many reads are under way at once, each with its own connections.
    pub readers_max: usize,
    /// How long a record stays at least, also when it may be trimmed.
    pub keep: Duration,
    /// How often what may be trimmed is. Zero: at every call.
    pub trim_every: Duration,
}

impl KafkaConfig {
    /// The defaults, for a topic of a cluster.
    #[must_use]
    pub fn new(connection: Connection, topic: &str, partitions: u32) -> Self {
        Self {
            connection,
            topic: topic.to_owned(),
            partitions,
            group: "chappe".to_owned(),
            record_bytes_max: 1 << 20,
            bytes_in_flight_max: 8 << 20,
            linger: Duration::from_millis(2),
            message_timeout: Duration::from_secs(120),
            call_timeout: Duration::from_secs(8),
            readers_max: 8,
            keep: Duration::from_secs(7 * 24 * 60 * 60),
            trim_every: Duration::from_secs(60),
        }
    }

    /// What the topic's `max.message.bytes` must be at least: Kafka counts what it wraps around a
    /// record.
    #[must_use]
    pub const fn message_bytes(&self) -> u32 {
        self.record_bytes_max + WRAPPING_BYTES
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: &str| Err(OpenError::Config(what.to_owned()));
        self.connection.check().map_err(OpenError::Config)?;
        if !is_topic_name(&self.topic) {
            return refuse("a topic's name is 1 to 249 of letters, digits, '.', '_' and '-'");
        }
        if !(1..=4096).contains(&self.partitions) {
            return refuse("a log has 1 to 4096 partitions");
        }
        if self.record_bytes_max > 100 << 20 {
            return refuse("a record has at most 100 MiB");
        }
        if self.bytes_in_flight_max < self.record_bytes_max as usize + IN_FLIGHT_OVERHEAD_BYTES {
            return refuse("the bytes in flight must have room for one record of the largest size");
        }
        if self.bytes_in_flight_max > 1 << 30 {
            return refuse("an appender has at most 1 GiB in flight");
        }
        if self.linger >= Duration::from_secs(1) || self.message_timeout < Duration::from_secs(1) {
            return refuse("a record lingers for less than a second and times out after one");
        }
        if self.readers_max == 0 || self.call_timeout.is_zero() {
            return refuse("there must be a reader, and time for a call");
        }
        Ok(())
    }

    /// An idempotent producer. What it may hold is limited by the appender; its own limits only
    /// lie above that.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.connection.client();
        let kibibytes =
            (self.bytes_in_flight_max >> 10) + 2 * (self.message_bytes() as usize >> 10);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", self.linger.as_millis().to_string())
            .set("message.timeout.ms", self.message_timeout.as_millis().to_string())
            // The leader says so before the connection is given up.
            .set("request.timeout.ms", "4000")
            .set("message.max.bytes", self.message_bytes().max(1000).to_string())
            .set("queue.buffering.max.kbytes", (kibibytes + 1024).to_string())
            .set("queue.buffering.max.messages", (self.records_in_flight_max() + 1000).to_string())
            // A leader that moved is looked for at once, and not only every few minutes.
            .set("topic.metadata.refresh.fast.interval.ms", "100");
        client
    }

    /// A consumer that is told where to read, and told so if it cannot.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut client = self.connection.client();
        let fetch_bytes = self.message_bytes().max(READ_AHEAD_BYTES);
        client
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.message.max.bytes", fetch_bytes.to_string())
            .set("fetch.max.bytes", (2 * fetch_bytes).to_string())
            .set("receive.message.max.bytes", (3 * fetch_bytes).max(10 << 20).to_string())
            .set("queued.max.messages.kbytes", (2 * (fetch_bytes >> 10)).to_string())
            // The next read may be of another partition of the same node, and waits for this one.
            .set("fetch.wait.max.ms", "10")
            // A reader that has read its fill goes on as soon as it is emptied.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "50");
        client
    }

    /// A client that asks questions only.
    pub(super) fn asker(&self) -> ClientConfig {
        let mut client = self.connection.client();
        client.set("allow.auto.create.topics", "false").set("isolation.level", "read_uncommitted");
        client
    }

    pub(super) const fn records_in_flight_max(&self) -> usize {
        self.bytes_in_flight_max / IN_FLIGHT_OVERHEAD_BYTES
    }
}

fn is_topic_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(is_legal) && name != "." && name != ".."
}

/// Why a log on Kafka does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A setting is out of its range, or the client library does not take it.
    #[error("a setting of the log is wrong: {0}")]
    Config(String),
    /// Nobody answers, or not to us.
    #[error("Kafka at {brokers} cannot be used: {what}")]
    Unavailable {
        /// The nodes that were asked.
        brokers: String,
        /// What came of it.
        what: String,
    },
    /// There is no such topic.
    #[error("Kafka at {brokers} has no topic {topic}: make it with `chappe log create`")]
    NoTopic {
        /// The nodes that were asked.
        brokers: String,
        /// The topic.
        topic: String,
    },
    /// It was made with another number of partitions, which cannot change.
    #[error("topic {topic} has {found} partitions, not {asked}")]
    Partitions {
        /// The topic.
        topic: String,
        /// What it has.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
}

/// Added to a record's size when bytes in flight are counted, so that empty records count too.
pub(super) const IN_FLIGHT_OVERHEAD_BYTES: usize = 64;
/// What Kafka wraps around a batch and a record: 61 bytes for the one, 70 at most for the other.
const WRAPPING_BYTES: u32 = 512;
/// What a reader fetches at a time; it holds at most two such pieces.
const READ_AHEAD_BYTES: u32 = 1 << 20;

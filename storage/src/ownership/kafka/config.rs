//! The settings of a group member.

use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::log::kafka::Connection;

/// The settings of a member of the group whose members lead the partitions of a topic.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The cluster.
    pub connection: Connection,
    /// The group. One for all processes that share the topic's partitions.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// A member that is silent for so long has lost everything. Kafka takes 6 s at least, unless
    /// it was told otherwise.
    pub session: Duration,
    /// How often a member says that it is there. It learns of changes at the same pace.
    pub heartbeat: Duration,
    /// A revoked partition that was not released by then is given up all the same.
    pub hand_over: Duration,
    /// After this a commit without an answer fails.
    pub call_timeout: Duration,
}

impl GroupConfig {
    /// The defaults, for a topic of a cluster.
    #[must_use]
    pub fn new(connection: Connection, group: &str, topic: &str, partitions: u32) -> Self {
        Self {
            connection,
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            session: Duration::from_secs(6),
            heartbeat: Duration::from_millis(200),
            hand_over: Duration::from_secs(1),
            call_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn check(&self) -> Result<(), JoinError> {
        let refuse = |what: &str| Err(JoinError(what.to_owned()));
        self.connection.check().map_err(JoinError)?;
        if self.group.is_empty() || self.topic.is_empty() {
            return refuse("a group and a topic have names");
        }
        if !(1..=4096).contains(&self.partitions) {
            return refuse("a log has 1 to 4096 partitions");
        }
        if self.heartbeat.is_zero() || self.heartbeat * 3 > self.session {
            return refuse("a session has room for three heartbeats at least");
        }
        if self.hand_over > Duration::from_secs(60) {
            return refuse("a hand-over takes a minute at most");
        }
        Ok(())
    }

    /// A dynamic member: a static one does not leave when it closes, and its partitions would wait
    /// for its session to end. It never fetches.
    pub(super) fn member(&self) -> ClientConfig {
        let mut client = self.connection.client();
        client
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.session.as_millis().to_string())
            .set("heartbeat.interval.ms", self.heartbeat.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.message.max.bytes", "1024")
            .set("queued.max.messages.kbytes", "1")
            .set("queued.min.messages", "1");
        client
    }
}

/// A member cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the group cannot be joined: {0}")]
pub struct JoinError(pub(super) String);

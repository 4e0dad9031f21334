//! What a preflight finds: what is, what must be, and the command that mends it.

use std::fmt;

/// Something about a topic that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// Whether it can be worked with.
    pub severity: Severity,
    /// What is.
    pub is: String,
    /// What must be.
    pub must_be: String,
    /// The command that mends it, or what to do where no command does.
    pub mend: String,
}

/// Whether a topic can be worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Records would be lost, or appends fail: start-up is refused.
    Refuse,
    /// It works, but an operator should know.
    Warn,
}

/// What a preflight looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Whether there is such a topic.
    Topic,
    /// How many partitions it has.
    Partitions,
    /// How many nodes have a copy of a record.
    Replication,
    /// `min.insync.replicas`: how many have it before it is acknowledged.
    MinInsync,
    /// `unclean.leader.election.enable`: whether one who does not have it may lead.
    UncleanElection,
    /// `cleanup.policy`: whether offsets stay dense.
    CleanupPolicy,
    /// `retention.ms` and `retention.bytes`: whether Kafka deletes what is still needed.
    Retention,
    /// `max.message.bytes`: whether the largest record fits.
    MessageBytes,
    /// `message.timestamp.type`: whose clock says how old a record is.
    TimestampType,
    /// `compression.type`: whether this client can read what Kafka makes of a record.
    Compression,
    /// `auto.create.topics.enable` of the nodes: whether a deleted topic comes back by itself.
    AutoCreate,
    /// Whether every partition begins with the same record.
    Beginning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is, must_be, mend, .. } = self;
        write!(f, "{is}; {must_be}. {mend}")
    }
}

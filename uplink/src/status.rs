//! What the processes of a cluster tell of themselves, for the people who operate it.
//!
//! A gateway tells each broker who it is; a broker tells whoever asks how it stands. Nothing here
//! decides anything: no request is routed by it and nobody is refused for it.

use chappe_protocol::PartitionId;
use serde::{Deserialize, Serialize};

use crate::Generation;

/// A process that connects to brokers, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Drawn at random when it starts: tells its pipes from those of another with the same name.
    pub process: u64,
    /// What people call it: at most [`About::NAME_BYTES_MAX`] bytes, without control characters.
    pub name: String,
    /// What it runs: at most [`About::ROLES_MAX`], each as short as a name.
    pub roles: Vec<String>,
    /// The clients that are connected to it.
    pub connections: u64,
}

impl About {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 128;
    /// The most roles.
    pub const ROLES_MAX: usize = 8;

    /// Whether it keeps to its limits: what it says is shown on terminals.
    pub fn is_sound(&self) -> bool {
        let fits = |text: &String| {
            (1..=Self::NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
        };
        fits(&self.name) && self.roles.len() <= Self::ROLES_MAX && self.roles.iter().all(fits)
    }
}

/// How a broker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// What people call it.
    pub name: String,
    /// How long it has been running.
    pub up_ms: u64,
    /// How many partitions the log has.
    pub partitions: u32,
    /// Those that it has to do with.
    pub holds: Vec<PartitionStatus>,
    /// Half of this many bytes may be in the log and not yet in the store before commands are
    /// refused.
    pub unprojected_bytes_max: u64,
    /// The same for the age of the oldest such record.
    pub unprojected_age_ms_max: u64,
    /// The pipes that it serves, those of this process included.
    pub pipes: u64,
    /// The processes whose pipes come in over the uplink.
    pub gateways: Vec<GatewayStatus>,
}

/// How one partition stands at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Which.
    pub partition: PartitionId,
    /// How far the broker is with it.
    pub state: PartitionState,
    /// The last leadership that the broker had or has of it.
    pub generation: Generation,
    /// The offset after the last record that the broker knows to count.
    pub end: u64,
    /// The offset below which everything is in the store; none before it is known.
    pub checkpoint: Option<u64>,
    /// Facts that are in the log and not yet in the store.
    pub unprojected_records: u64,
    /// Their bytes.
    pub unprojected_bytes: u64,
    /// The age of the oldest of them.
    pub oldest_ms: Option<u64>,
    /// Why it stopped for good, if it did.
    pub halt: Option<String>,
}

/// How far a broker is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// On its way to lead it.
    TakingOver,
    /// It leads it.
    Leading,
    /// It led it, and will claim it again if it still may.
    Deposed,
    /// It stopped for good.
    Halted,
}

/// A process whose pipes come in at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// In its own words.
    pub about: About,
    /// The address that it connects from.
    pub address: String,
    /// Its pipes to this broker: one for each of its shards.
    pub pipes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, roles: &[&str]) -> About {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        About { process: 1, name: name.to_owned(), roles, connections: 0 }
    }

    #[test]
    fn what_is_too_long_or_drives_a_terminal_is_not_sound() {
        assert!(about("ws-1", &["gateway-ws", "gateway-http"]).is_sound());
        assert!(about(&"n".repeat(About::NAME_BYTES_MAX), &[]).is_sound());
        assert!(!about(&"n".repeat(About::NAME_BYTES_MAX + 1), &[]).is_sound());
        assert!(!about("", &[]).is_sound());
        assert!(!about("ws\x1b[2J", &[]).is_sound());
        assert!(!about("ws-1", &["a\nb"]).is_sound());
        assert!(!about("ws-1", &["r"; About::ROLES_MAX + 1]).is_sound());
    }
}

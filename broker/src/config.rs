//! How a broker runs.

use chappe_partition::{Bounds, Leadership};

/// How a broker runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that lead partitions, at least one; each leads every so-manieth.
    pub threads: usize,
    /// Where this process can be reached, for people who read its claims in the log.
    pub address: String,
    /// What proves that a partition is led: the lock on an embedded log, or a lease.
    pub leadership: Leadership,
    /// The bounds of each partition.
    pub bounds: Bounds,
    /// Client commands are refused once half of this many bytes of facts are not in the store.
    pub unprojected_bytes_max: usize,
    /// Client commands are refused once the oldest fact that is not in the store has half this
    /// age, in milliseconds.
    pub unprojected_age_ms_max: u64,
    /// What may wait on a gateway's pipe in either direction, in bytes. A gateway that does not
    /// take its events within this loses its pipe, and attaches again.
    pub pipe_bytes_max: usize,
    /// Calls of the store under way at once, for each thread.
    pub store_calls_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 1,
            address: "local".to_owned(),
            leadership: Leadership::Lock,
            bounds: Bounds::default(),
            unprojected_bytes_max: 256 << 20,
            unprojected_age_ms_max: 600_000,
            pipe_bytes_max: 16 << 20,
            store_calls_max: 256,
        }
    }
}

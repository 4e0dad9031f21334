//! What can be set about a gateway, with defaults that suit a single machine.

use chappe_protocol::limits;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that hold connections; 0 for one per core.
    pub shards: usize,
    /// The server's name and version, as `hello` tells them.
    pub server: String,
    /// The web origins that may connect, exactly as a browser sends them.
    pub origins: Vec<String>,
    /// How long things may take.
    pub timing: Timing,
    /// How much of everything there may be.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 0,
            server: concat!("chappe/", env!("CARGO_PKG_VERSION")).to_owned(),
            origins: Vec::new(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A connection signs in within this time.
    pub hello_ms: u64,
    /// The server pings this often.
    pub ping_ms: u64,
    /// A connection that sent nothing for this long is dead.
    pub dead_after_ms: u64,
    /// A request without an answer is given up after this time: `unknown` for a command that may
    /// have been carried out.
    pub command_ms: u64,
    /// How long the `ok` of a create, join or leave waits for the caller's own inbox.
    pub inbox_ms: u64,
    /// A connection that is behind for this long without reading anything is slow.
    pub slow_ms: u64,
    /// A shard that stood still for this long closes its sessions.
    pub still_ms: u64,
    /// A token that was not refreshed is given this long after its end.
    pub expiry_grace_ms: u64,
    /// A closing connection is dropped after this time, read or not.
    pub linger_ms: u64,
    /// A channel without subscribers stays attached for this long.
    pub detach_ms: u64,
    /// A ring that nothing entered for this long is given up.
    pub ring_idle_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            hello_ms: limits::HELLO_TIMEOUT_MS,
            ping_ms: limits::PING_INTERVAL_MS,
            dead_after_ms: limits::DEAD_AFTER_MS,
            command_ms: 10_000,
            inbox_ms: 2_000,
            slow_ms: 30_000,
            still_ms: 30_000,
            expiry_grace_ms: 30_000,
            linger_ms: 3_000,
            detach_ms: 30_000,
            ring_idle_ms: 30_000,
        }
    }
}

/// How much of everything there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of the process.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Connections of one user.
    pub connections_per_user: usize,
    /// Bytes that may wait for one connection.
    pub outbox_bytes: usize,
    /// Bytes of one channel's ring in one form.
    pub ring_bytes: usize,
    /// Bytes of all rings of a shard.
    pub rings_bytes: usize,
    /// Requests of one connection under way; no more is read from it while there are as many.
    pub requests_under_way: usize,
    /// Pages of history that a shard reads at once for those who catch up.
    pub pages_under_way: usize,
    /// Handshakes of one address.
    pub handshakes: Option<Rate>,
    /// Commands by cost, for each of the four who may ask too much.
    pub rates: Rates,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 20_000,
            connections_per_user: 100,
            outbox_bytes: 256 * 1024,
            ring_bytes: 256 * 1024,
            rings_bytes: 64 * 1024 * 1024,
            requests_under_way: 256,
            pages_under_way: 16,
            handshakes: Some(Rate { per_second: 1_000, burst: 20_000 }),
            rates: Rates::default(),
        }
    }
}

/// Rates of commands, by cost: most commands cost 1, reading a page costs 10. `None` for no limit.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of one connection.
    pub connection: Option<Rate>,
    /// Of one user's connections together.
    pub user: Option<Rate>,
    /// On one channel, by everyone together.
    pub channel: Option<Rate>,
    /// From one address (IPv6: one /64).
    pub address: Option<Rate>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            connection: Some(Rate { per_second: 2_000, burst: 4_000 }),
            user: Some(Rate { per_second: 4_000, burst: 8_000 }),
            channel: Some(Rate { per_second: 10_000, burst: 20_000 }),
            address: Some(Rate { per_second: 20_000, burst: 40_000 }),
        }
    }
}

impl Rates {
    /// No limit at all: for floods that are meant.
    pub const UNLIMITED: Self = Self { connection: None, user: None, channel: None, address: None };
}

/// A token bucket's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Cost that is given back each second.
    pub per_second: u32,
    /// Cost that may be spent at once.
    pub burst: u32,
}

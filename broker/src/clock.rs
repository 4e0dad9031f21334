//! The driver's clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use chappe_partition::Now;
use rustix::time::{ClockId, clock_gettime};

/// The moment. The first clock counts suspension, as leases and nonces need it.
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let boot_ms = boot.tv_sec as u64 * 1_000 + boot.tv_nsec as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { boot_ms, wall_ms: wall.as_millis() as u64 }
}

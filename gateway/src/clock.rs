//! Time as the cores see it: an argument, never asked for.
//!
//! Waiting and age are measured on a clock that counts the machine's suspension
//! (`CLOCK_BOOTTIME`); the wall clock is for tokens and for people.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the machine started, suspension included.
    pub boot_ms: u64,
    /// Milliseconds since 1970 UTC.
    pub unix_ms: u64,
}

impl Now {
    /// The present. Only drivers call it.
    pub fn read() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            boot_ms: boot.tv_sec as u64 * 1_000 + boot.tv_nsec as u64 / 1_000_000,
            unix_ms: unix.as_millis() as u64,
        }
    }
}

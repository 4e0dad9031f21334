//! The clock that deadlines and the age of retries are measured on.

/// Milliseconds on a clock that never jumps and, where the system has one, goes on while the
/// machine is suspended: a command that slept with a laptop is as old as it looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    #[cfg(not(target_os = "linux"))]
    start: std::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(not(target_os = "linux"))]
            start: std::time::Instant::now(),
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn now_ms(self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now_ms(self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

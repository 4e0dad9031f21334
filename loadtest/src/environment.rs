//! On what a run ran: figures without it mean nothing.

use std::fs;

use serde::Serialize;

/// The machine and the program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Environment {
    pub(crate) version: &'static str,
    pub(crate) optimised: bool,
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
}

impl Environment {
    pub(crate) fn here() -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name);
        let kernel = rustix::system::uname();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            cpu: cpu.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.release().to_string_lossy().into_owned(),
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
        }
    }
}

/// Processor time of the calling thread, on which a run's sessions live.
#[cfg(target_os = "linux")]
pub(crate) fn thread_cpu() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processor time of the process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_cpu() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

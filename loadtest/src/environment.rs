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

/// Processor time of the whole machine, in ticks, as Linux counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineTime {
    all: u64,
    /// What the hypervisor gave to other guests while somebody here wanted it.
    stolen: u64,
}

impl MachineTime {
    /// None where it is not told.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (man 5
    /// `proc_stat`); what follows is part of user and nice.
    fn parse(stat: &str) -> Option<Self> {
        let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.take(8).map(|tick| tick.parse().ok()).collect::<Option<_>>()?;
        let stolen = *ticks.get(7)?;
        Some(Self { all: ticks.iter().sum(), stolen })
    }

    /// The stolen part of the time since `before`.
    pub(crate) fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_part_of_all_time_in_between() {
        let parse = |text| MachineTime::parse(text).unwrap();
        let before = parse("cpu  100 0 50 800 10 0 5 35 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        let after = parse("cpu  130 0 60 840 10 0 5 55 9 0\n");
        assert!((after.stolen_since(before) - 0.2).abs() < 1e-9);
        assert!(after.stolen_since(after).abs() < 1e-9);
        assert_eq!(MachineTime::parse("cpu  1 2 3\n"), None);
        assert_eq!(MachineTime::parse(""), None);
    }
}

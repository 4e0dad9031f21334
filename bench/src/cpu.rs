//! Processor time of another process, and which processor runs what.

use std::{collections::BTreeMap, fs, io};

use anyhow::{Context, Result, ensure};
use rustix::{
    param::clock_ticks_per_second,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The two processors of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) load: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (server, load) = (cores.next(), cores.next());
        ensure!(load.is_some(), "server and load need a core each, and there is one");
        Ok(Self { server: server.unwrap_or(0), load: load.unwrap_or(1) })
    }
}

/// Puts this thread, and what it starts from now on, on one processor.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("processor {core}"))
}

/// The processor time that a process has used up to a moment.
#[derive(Debug, Clone)]
pub(crate) struct CpuTime {
    /// Nanoseconds of each thread, by the scheduler's own count.
    threads: BTreeMap<u32, u64>,
    /// All threads, also those that have ended, in clock ticks: exact to a hundredth of a second.
    ticks: u64,
}

impl CpuTime {
    /// What `pid` has used until now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = || -> io::Result<Self> {
            let mut threads = BTreeMap::new();
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let entry = entry?;
                let Some(thread) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
                    continue;
                };
                // It may have ended since it was listed.
                let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
                let used = text.split(' ').next().and_then(|field| field.parse().ok());
                threads.insert(thread, used.unwrap_or(0));
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            Ok(Self { threads, ticks: ticks(&stat).unwrap_or(0) })
        };
        read().context("the server's processor time")
    }

    /// Seconds used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> f64 {
        let all_live = earlier.threads.keys().all(|thread| self.threads.contains_key(thread));
        let nanoseconds: u64 = self
            .threads
            .iter()
            .map(|(thread, used)| used - earlier.threads.get(thread).unwrap_or(&0).min(used))
            .sum();
        if all_live && nanoseconds > 0 {
            return nanoseconds as f64 / 1e9;
        }
        // A thread has ended and took its count along, or this kernel does not count so finely.
        (self.ticks - earlier.ticks) as f64 / clock_ticks_per_second() as f64
    }
}

/// User and system time from `/proc/PID/stat`. The name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_busy_process_uses_time() {
        let before = CpuTime::of(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let used = CpuTime::of(std::process::id()).unwrap().since(&before);
        assert!(used > 0.01, "{used} s");
    }

    #[test]
    fn ticks_are_found_behind_a_strange_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        assert_eq!(ticks(stat), Some(42));
    }
}

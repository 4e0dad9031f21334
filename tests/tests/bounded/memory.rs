//! What a server's process holds, looked at while something goes on.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::Duration,
};

use chappe_tests::Server;

/// How much more than idle a server may ever hold, whatever its clients do.
pub(crate) const GROWTH_KIB_MAX: u64 = 64 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Watches a server's memory, from a thread of its own so that a busy test does not hold it up.
pub(crate) struct MemoryWatch {
    idle: Held,
    pid: u32,
    most_kib: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What a process holds, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) resident_kib: u64,
    /// The most that it ever had mapped: shows what was allocated and never touched.
    pub(crate) mapped_peak_kib: u64,
}

impl MemoryWatch {
    /// Begins with a server that is idle.
    pub(crate) fn begin(server: &Server) -> Self {
        let pid = server.run().pid;
        let idle = Held::read(pid);
        let most_kib = Arc::new(AtomicU64::new(idle.resident_kib));
        let over = Arc::new(AtomicBool::new(false));
        let (most, ended) = (Arc::clone(&most_kib), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            // A server that is gone has failed its test, which says so itself.
            while !ended.load(Ordering::Acquire)
                && let Some(held) = Held::try_read(pid)
            {
                most.fetch_max(held.resident_kib, Ordering::AcqRel);
                sleep(LOOK_EVERY);
            }
        });
        Self { idle, pid, most_kib, over, thread }
    }

    /// Ends it, and fails if the server ever held too much more than idle. Returns what it held
    /// when it was idle and by how much that grew at most, in KiB.
    pub(crate) fn end(self, what: &str) -> (Held, u64) {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap();
        let most_kib = self.most_kib.load(Ordering::Acquire).max(Held::read(self.pid).resident_kib);
        let grown_kib = most_kib - self.idle.resident_kib;
        println!(
            "{what}: {} KiB resident when idle, at most {grown_kib} KiB more",
            self.idle.resident_kib
        );
        assert!(grown_kib <= GROWTH_KIB_MAX, "{what}: {grown_kib} KiB more than idle");
        (self.idle, grown_kib)
    }
}

impl Held {
    pub(crate) fn read(pid: u32) -> Self {
        Self::try_read(pid).expect("the server runs")
    }

    fn try_read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Some(Self { resident_kib: value("VmRSS:")?, mapped_peak_kib: value("VmPeak:")? })
    }
}

//! What the figures were measured on.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::floor::append;

/// A machine and its disk.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    pub(crate) disk: String,
    /// One sync of 4 KiB, in milliseconds.
    pub(crate) sync_ms: f64,
}

impl Host {
    /// Looks at this machine and at the disk that holds `dir`.
    pub(crate) fn describe(dir: &Path) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let synced = append::append(dir, 4096, 1, Duration::from_millis(300))?;
        Ok(Self {
            cpu: field(&cpus, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo")?),
            disk: disk(dir).unwrap_or_else(|| "unknown".to_owned()),
            sync_ms: synced.seconds * 1e3 / synced.syncs.max(1) as f64,
        })
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

fn memory_mib(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| value.split(' ').next()?.parse().ok());
    kib.unwrap_or(0_u64) / 1024
}

/// File system and device of the mount that holds `dir`.
fn disk(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| dir.starts_with(mount.point))
        .max_by_key(|mount| mount.point.len())?;
    let queue = ["queue", "../queue"]
        .map(|queue| Path::new("/sys/dev/block").join(mount.device).join(queue));
    let read = |name: &str| {
        let text = queue.iter().find_map(|queue| fs::read_to_string(queue.join(name)).ok());
        text.map(|text| text.trim().to_owned())
    };
    let spins = match read("rotational").as_deref() {
        Some("0") => ", solid",
        Some("1") => ", rotational as it says",
        _ => "",
    };
    let cache = read("write_cache").map(|cache| format!(", {cache}")).unwrap_or_default();
    Some(format!("{} on {}{spins}{cache}", mount.kind, mount.source))
}

struct Mount<'a> {
    device: &'a str,
    point: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let mut right = right.split(' ');
        Some(Self {
            device: left.next()?,
            point: left.nth(1)?,
            kind: right.next()?,
            source: right.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_read() {
        let line = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(
            (mount.device, mount.point, mount.kind, mount.source),
            ("254:0", "/", "ext4", "/dev/vda")
        );
    }

    #[test]
    fn this_machine_can_be_described() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::describe(dir.path()).unwrap();
        assert!(host.cores > 0 && host.memory_mib > 0 && !host.kernel.is_empty(), "{host:?}");
    }
}

//! Bare append and `fdatasync`: the floor of everything that is durable.
//!
//! One file whose length is set ahead, so that a sync has no size to journal; for each batch one
//! write and one sync. No checksum, no index, no reader.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::tell;

const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What was done in how long.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub(crate) records: u64,
    pub(crate) syncs: u64,
    pub(crate) seconds: f64,
}

impl Appended {
    /// Durable records in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Appends and prints what was done.
pub(crate) fn run(dir: &Path, record_bytes: usize, batch: usize, time: Duration) -> Result<()> {
    tell(&append(dir, record_bytes, batch, time)?)
}

/// Appends batches of `batch` records of `record_bytes` in a new file in `dir` for `time`.
pub(crate) fn append(
    dir: &Path,
    record_bytes: usize,
    batch: usize,
    time: Duration,
) -> Result<Appended> {
    ensure!(record_bytes > 0 && batch > 0, "a batch has a size");
    let bytes: Vec<u8> = (0..record_bytes * batch).map(|at| at as u8).collect();
    ensure!(bytes.len() as u64 <= FILE_BYTES, "a batch fits into a file");
    let path = dir.join("floor-append");
    let mut file = new_file(&path)?;
    let (mut at, mut syncs) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < time {
        if at + bytes.len() as u64 > FILE_BYTES {
            file = new_file(&path)?;
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += bytes.len() as u64;
        syncs += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(file);
    fs::remove_file(&path)?;
    Ok(Appended { records: syncs * batch as u64, syncs, seconds })
}

fn new_file(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("{}", path.display()))?;
    file.set_len(FILE_BYTES)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_synced_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let done = append(dir.path(), 256, 32, Duration::from_millis(20)).unwrap();
        assert!(done.syncs > 0 && done.records == done.syncs * 32, "{done:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! The segment log's settings, and why it refuses to open.

use std::path::PathBuf;
use std::time::Duration;

use super::batch::BATCH_HEADER_BYTES;
use super::entry::ENTRY_HEADER_BYTES;
use super::header::header_bytes;

/// The settings of a segment log.
#[derive(Debug, Clone)]
pub struct SegmentConfig {
    /// The length of a new segment's file, set ahead. At most 1 GiB, and a record of the largest
    /// size must fit in one.
    pub segment_bytes: u32,
    /// The largest record.
    pub record_bytes_max: u32,
    /// About the most that one commit writes. It bounds the time of one `fdatasync`.
    pub batch_bytes_max: u32,
    /// What one appender may have in flight: records, with 64 bytes added for each.
    pub bytes_in_flight_max: usize,
    /// How long a record stays at least, also when it may be trimmed.
    pub keep: Duration,
    /// The size of the log above which the oldest segments go before their time. A record above
    /// its partition's trim mark stays all the same.
    pub keep_bytes: Option<u64>,
    /// The silence after which an idle marker is written.
    pub idle_after: Duration,
    /// How often a full disk is asked whether there is space again.
    pub space_probe_every: Duration,
    /// How much of the newest part of the log is read and checked at open. What is older is
    /// checked when it is first read.
    pub verify_bytes_max: u64,
    /// How many older segments stay indexed in memory. One index takes 8 bytes a record.
    pub indexes_max: usize,
    /// A log that acknowledges before it syncs, for the test that must notice.
    #[cfg(test)]
    pub(super) acks_before_sync: bool,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            record_bytes_max: 1 << 20,
            batch_bytes_max: 4 << 20,
            bytes_in_flight_max: 8 << 20,
            keep: Duration::from_secs(7 * 24 * 60 * 60),
            keep_bytes: None,
            idle_after: Duration::from_secs(1),
            space_probe_every: Duration::from_millis(250),
            verify_bytes_max: 1 << 30,
            indexes_max: 8,
            #[cfg(test)]
            acks_before_sync: false,
        }
    }
}

/// Added to a record's size when bytes in flight are counted, so that empty records count too.
pub(super) const IN_FLIGHT_OVERHEAD_BYTES: usize = 64;

impl SegmentConfig {
    pub(super) fn check(&self, partitions: u32) -> Result<(), OpenError> {
        let refuse = |what: &str| Err(OpenError::Config(what.to_owned()));
        if !(1..=4096).contains(&partitions) {
            return refuse("a log has 1 to 4096 partitions");
        }
        if self.segment_bytes > 1 << 30 || self.record_bytes_max > 1 << 30 {
            return refuse("a segment has at most 1 GiB");
        }
        let smallest = header_bytes(partitions) + BATCH_HEADER_BYTES + ENTRY_HEADER_BYTES;
        if self.segment_bytes < smallest + self.record_bytes_max {
            return refuse("a segment must have room for one record of the largest size");
        }
        let largest = self.record_bytes_max as usize + IN_FLIGHT_OVERHEAD_BYTES;
        if self.bytes_in_flight_max < largest {
            return refuse("the bytes in flight must have room for one record of the largest size");
        }
        if self.indexes_max == 0 {
            return refuse("at least one segment must be indexed");
        }
        Ok(())
    }
}

/// Why a segment log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Its layout is one that this version does not know.
    #[error("the log has format {found}, this version reads format {known}")]
    Format {
        /// What the log says.
        found: u32,
        /// What this version reads.
        known: u32,
    },
    /// It was created with another number of partitions, which cannot change.
    #[error("the log has {recorded} partitions, not {asked}")]
    Partitions {
        /// What it was created with.
        recorded: u32,
        /// What it was opened with.
        asked: u32,
    },
    /// Something that was durable is not there any more, or not what it was. Nothing was changed.
    #[error("the log is damaged: {file} at byte {position}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// The place in it.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// A setting is out of its range.
    #[error("a setting of the log is wrong: {0}")]
    Config(String),
    /// The file system refused.
    #[error("the log cannot be opened: {0}")]
    Io(#[from] std::io::Error),
}

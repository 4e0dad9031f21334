//! How the writer removes segments that may be forgotten.

use super::Writer;
use super::stop::Stop;
use crate::log::segment::header::segment_name;
use crate::log::segment::trim::{Keep, removable};

/// How often the age of segments is looked at.
pub(super) const TRIM_EVERY_MS: u64 = 60_000;

impl Writer {
    pub(super) fn trim_if_due(&mut self) {
        let now_ms = self.shared.disk.now_ms();
        self.is_trim_due |= now_ms.abs_diff(self.trimmed_at_ms) >= TRIM_EVERY_MS;
        if self.is_trim_due && !self.has_failed {
            self.is_trim_due = false;
            self.trimmed_at_ms = now_ms;
            self.trim(now_ms);
        }
    }

    /// Removes the segments that may go, oldest first, each durably before the next one: a crash
    /// must not leave a gap.
    fn trim(&mut self, now_ms: u64) {
        let config = &self.shared.config;
        let keep = Keep { age: config.keep, bytes: config.keep_bytes };
        let mut map = self.shared.map_mut();
        let count = removable(&map.segments, &map.marks, keep, now_ms);
        self.doomed.extend(map.segments.drain(..count).map(|segment| segment.header.number));
        drop(map);
        while let Some(&number) = self.doomed.front() {
            self.shared.indexes.remove(number);
            if let Err(error) = self.shared.disk.remove(&segment_name(number)) {
                tracing::warn!(%error, segment = number, "an old segment cannot be removed");
                return;
            }
            self.doomed.pop_front();
            if let Err(error) = self.shared.disk.sync_dir() {
                return self.stop(Stop::Failed("a sync failed", error));
            }
        }
    }
}

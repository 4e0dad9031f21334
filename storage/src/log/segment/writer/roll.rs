//! How the writer begins the next segment.

use std::sync::Arc;
use std::time::Duration;

use super::Writer;
use super::stop::{Stop, Wanted};
use crate::log::segment::disk::{File, is_no_space};
use crate::log::segment::header::{SegmentHeader, header_bytes, segment_name};
use crate::log::segment::map::{Active, Sealed, Segment};
use crate::log::segment::recover::create_whole;

impl Writer {
    /// An old segment is closed although there is room in it, so that it can be forgotten.
    pub(super) fn is_due_for_roll(&self, now_ms: u64) -> bool {
        let age = (self.shared.config.keep / 4).max(Duration::from_secs(60));
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.next != self.header.next && self.header.created_ms.saturating_add(age_ms) <= now_ms
    }

    /// Begins the next segment. Everything in this one is durable.
    pub(super) fn roll(&mut self) -> Result<(), Stop> {
        let disk = &*self.shared.disk;
        let failed = |error| Stop::Failed("a segment could not be begun", error);
        let marks = self.shared.map().marks.clone();
        let header = SegmentHeader {
            number: self.header.number + 1,
            created_ms: disk.now_ms(),
            salt: disk.random().map_err(failed)?,
            segment_bytes: self.shared.config.segment_bytes,
            previous_end: self.position,
            previous_crc: self.crc,
            next: self.next.clone(),
            marks,
        };
        let (bytes, crc) = header.encode();
        let name = segment_name(header.number);
        let file = create_whole(disk, &name, u64::from(header.segment_bytes), &bytes);
        let file = file.map_err(|error| match is_no_space(&error) {
            true => Stop::NoSpace(Wanted::Segment, error),
            false => failed(error),
        })?;
        self.marks.clone_from(&header.marks);
        self.seal(Arc::new(header), crc, file);
        Ok(())
    }

    fn seal(&mut self, header: Arc<SegmentHeader>, header_crc: u32, file: Arc<dyn File>) {
        let sealed = Sealed { end: self.position, crc: self.crc, newest_ms: header.created_ms };
        let segment = Segment { header: Arc::clone(&header), header_crc, sealed: None };
        let places = vec![Vec::new(); header.next.len()];
        let active = Active { file: Arc::clone(&file), places };
        let mut map = self.shared.map_mut();
        if let Some(last) = map.segments.back_mut() {
            last.sealed = Some(sealed);
        }
        map.segments.push_back(segment);
        let full = std::mem::replace(&mut map.active, active);
        self.shared.indexes.insert(self.header.number, Arc::new(full.into()));
        drop(map);
        self.position = header_bytes(header.next.len() as u32);
        self.crc = header_crc;
        self.header = header;
        self.file = file;
        self.is_marked = true;
        self.is_trim_due = true;
    }
}

//! Which segments may be forgotten.

use std::collections::VecDeque;
use std::time::Duration;

use super::map::Segment;

/// What a log may keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// How long a record stays at least.
    pub(super) age: Duration,
    /// The size above which the oldest segments go before their time.
    pub(super) bytes: Option<u64>,
}

/// How many of the oldest segments may go. Every record in them is below its partition's trim mark
/// and either older than the retention or beyond the size; the newest segment always stays.
pub(super) fn removable(
    segments: &VecDeque<Segment>,
    marks: &[u64],
    keep: Keep,
    now_ms: u64,
) -> usize {
    let age_ms = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
    let mut bytes: u64 = segments.iter().map(|s| u64::from(s.header.segment_bytes)).sum();
    let mut count = 0;
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        let Some(sealed) = segment.sealed else { break };
        let old = sealed.newest_ms.saturating_add(age_ms) <= now_ms;
        let beyond = keep.bytes.is_some_and(|limit| bytes > limit);
        if !(old || beyond) || !is_below_marks(segment, next, marks) {
            break;
        }
        bytes -= u64::from(segment.header.segment_bytes);
        count += 1;
    }
    count
}

/// Whether all records of a segment are below the marks. A partition without a record in it has
/// nothing to lose.
fn is_below_marks(segment: &Segment, next: &Segment, marks: &[u64]) -> bool {
    let bounds = segment.header.next.iter().zip(&next.header.next);
    bounds.zip(marks).all(|((start, end), mark)| end == start || end <= mark)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::segment::header::SegmentHeader;
    use crate::log::segment::map::Sealed;

    /// Segments of 100 bytes, created every 10 ms, that begin at the given offsets of two
    /// partitions.
    fn segments(bases: &[[u64; 2]]) -> VecDeque<Segment> {
        let segment = |(index, base): (usize, &[u64; 2])| Segment {
            header: Arc::new(SegmentHeader {
                number: index as u64 + 1,
                created_ms: 10 * index as u64,
                salt: 0,
                segment_bytes: 100,
                previous_end: 0,
                previous_crc: 0,
                next: base.to_vec(),
                marks: vec![0, 0],
            }),
            header_crc: 0,
            sealed: (index + 1 < bases.len()).then(|| Sealed {
                end: 0,
                crc: 0,
                newest_ms: 10 * (index as u64 + 1),
            }),
        };
        bases.iter().enumerate().map(segment).collect()
    }

    fn keep(age_ms: u64, bytes: Option<u64>) -> Keep {
        Keep { age: Duration::from_millis(age_ms), bytes }
    }

    #[test]
    fn only_segments_below_every_mark_go() {
        let segments = segments(&[[0, 0], [5, 5], [10, 5], [15, 10]]);
        assert_eq!(removable(&segments, &[5, 4], keep(0, None), 1000), 0);
        assert_eq!(removable(&segments, &[5, 5], keep(0, None), 1000), 1);
        assert_eq!(removable(&segments, &[10, 5], keep(0, None), 1000), 2);
        assert_eq!(removable(&segments, &[99, 99], keep(0, None), 1000), 3);
    }

    #[test]
    fn a_partition_without_a_record_in_a_segment_does_not_hold_it() {
        let segments = segments(&[[0, 0], [5, 0], [10, 0]]);
        assert_eq!(removable(&segments, &[10, 0], keep(0, None), 1000), 2);
    }

    #[test]
    fn a_segment_stays_until_its_youngest_record_is_old() {
        let segments = segments(&[[0, 0], [5, 5], [10, 5]]);
        assert_eq!(removable(&segments, &[99, 99], keep(50, None), 59), 0);
        assert_eq!(removable(&segments, &[99, 99], keep(50, None), 60), 1);
        assert_eq!(removable(&segments, &[99, 99], keep(50, None), 70), 2);
    }

    #[test]
    fn size_trims_before_the_age_but_not_above_the_marks() {
        let segments = segments(&[[0, 0], [5, 5], [10, 10], [15, 15]]);
        let keep = keep(1_000_000, Some(250));
        assert_eq!(removable(&segments, &[99, 99], keep, 50), 2);
        assert_eq!(removable(&segments, &[5, 99], keep, 50), 1);
        assert_eq!(removable(&segments, &[0, 0], keep, 50), 0);
    }
}

//! One page of events on its way to the readers who shared its read: written once per form.

use chappe_protocol::{Rev, ServerFrame};
use chappe_uplink::EventsPage;

use crate::hub::Form;

/// A page, in the forms that its readers use.
pub(super) struct Page<'a> {
    page: &'a EventsPage,
    after: Rev,
    written: Vec<Written>,
}

/// All frames of the page in one form.
struct Written {
    form: Form,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What a reader gets of a page.
pub(super) struct Part<'a> {
    pub(super) frames: &'a [u8],
    /// The last revision among them.
    pub(super) cursor: Rev,
}

impl<'a> Page<'a> {
    pub(super) fn new(page: &'a EventsPage, after: Rev) -> Self {
        let after = page.events.first().map_or(after, |first| Rev::new(first.rev.get() - 1));
        Self { page, after, written: Vec::new() }
    }

    /// Whether the leader kept its promise: no gap after what was asked, and something to show
    /// if there is something.
    pub(super) fn is_whole(page: &EventsPage, after: Rev) -> bool {
        let start = page.reset.map_or(after, |base| base.max(after));
        let revs = page.events.iter().map(|event| event.rev.get());
        let first = page.events.first().map_or(start, |first| Rev::new(first.rev.get().max(1) - 1));
        let dense = revs.zip(first.get() + 1..).all(|(rev, expected)| rev == expected);
        dense
            && first >= after
            && first <= start
            && (page.reset.is_some() || !page.events.is_empty())
    }

    /// The events before this revision are no longer kept.
    pub(super) fn reset(&self) -> Option<Rev> {
        self.page.reset
    }

    /// As many frames after `cursor` and up to `until` as fit into `room`, at least one if that
    /// is not 0.
    pub(super) fn after(&mut self, form: Form, cursor: Rev, until: Rev, room: usize) -> Part<'_> {
        let nothing = Part { frames: &[], cursor };
        let place = |rev: Rev| rev.get().checked_sub(self.after.get());
        let (Some(skipped), Some(end)) = (place(cursor), place(until)) else { return nothing };
        let skipped = skipped as usize;
        let end = (end as usize).min(self.page.events.len());
        if skipped >= end || room == 0 {
            return nothing;
        }
        let base = self.after;
        let written = self.written(form);
        let from = skipped.checked_sub(1).map_or(0, |last| written.ends[last]);
        let fit = written.ends.partition_point(|end| *end <= from + room);
        let last = fit.max(skipped + 1).min(end);
        let frames = &written.bytes[from..written.ends[last - 1]];
        Part { frames, cursor: Rev::new(base.get() + last as u64) }
    }

    fn written(&mut self, form: Form) -> &Written {
        if let Some(place) = self.written.iter().position(|written| written.form == form) {
            return &self.written[place];
        }
        let mut written = Written { form, bytes: Vec::new(), ends: Vec::new() };
        let mut payload = Vec::new();
        for event in &self.page.events {
            form.write(&ServerFrame::Event { event }, &mut payload, &mut written.bytes);
            written.ends.push(written.bytes.len());
        }
        self.written.push(written);
        &self.written[self.written.len() - 1]
    }
}

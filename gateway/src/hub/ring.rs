//! A channel's latest events, finished frames in each form in use, behind one another in memory:
//! whatever a subscriber lacks is one slice.
//!
//! It refuses to show what is no longer so: when an edit or a deletion enters, the earlier frames
//! of that message take their present form first.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use chappe_protocol::{Event, EventBody, Message, Rev, ServerFrame};

use super::form::Form;

/// Most events of a ring, whatever their size.
const EVENTS_MAX: usize = 1_024;

/// The events after `base` up to the channel's head.
#[derive(Debug)]
pub(crate) struct Ring {
    base: Rev,
    events: VecDeque<Arc<Event>>,
    written: Vec<Written>,
    bytes_max: usize,
    /// Bytes that ever entered, over all forms.
    entered: u64,
}

/// The frames of all events in one form.
#[derive(Debug)]
struct Written {
    form: Form,
    bytes: Vec<u8>,
    /// Where the first frame begins; what lies before it was given up.
    start: usize,
    /// Where each event's frame ends, counted from the beginning of the channel's time.
    ends: VecDeque<u64>,
    /// What `bytes[0]` counts as.
    origin: u64,
}

/// Where a link stopped in the middle of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The last revision of which the link took something.
    pub(crate) cursor: Rev,
    /// What is left of that one's frame, as a range of the slice that was sent.
    pub(crate) rest: Range<usize>,
}

impl Ring {
    pub(crate) fn new(base: Rev, bytes_max: usize) -> Self {
        Self { base, events: VecDeque::new(), written: Vec::new(), bytes_max, entered: 0 }
    }

    /// The revision before the first that it holds.
    pub(crate) fn base(&self) -> Rev {
        self.base
    }

    /// Takes the next event. Those that no longer fit go, oldest first.
    pub(crate) fn push(&mut self, event: Arc<Event>, scratch: &mut Vec<u8>) {
        if let EventBody::MessageEdited(body) | EventBody::MessageDeleted(body) = &event.body {
            self.rewrite(&body.message, scratch);
        }
        for written in &mut self.written {
            let before = written.bytes.len();
            written.push(&event, scratch);
            self.entered += (written.bytes.len() - before) as u64;
        }
        self.events.push_back(event);
        while self.events.len() > 1 && self.is_over() {
            self.pop();
        }
    }

    /// Begins to keep frames of this form, those of the events that it holds included.
    pub(crate) fn keep(&mut self, form: Form, scratch: &mut Vec<u8>) {
        if self.written.iter().any(|written| written.form == form) {
            return;
        }
        let mut written =
            Written { form, bytes: Vec::new(), start: 0, ends: VecDeque::new(), origin: 0 };
        for event in &self.events {
            written.push(event, scratch);
        }
        self.written.push(written);
    }

    /// Keeps frames of this form no longer.
    pub(crate) fn give_up(&mut self, form: Form) {
        self.written.retain(|written| written.form != form);
    }

    /// The frames of the events after `cursor` up to `until`, or none if it is before the ring.
    pub(crate) fn frames(&self, form: Form, cursor: Rev, until: Rev) -> Option<&[u8]> {
        let written = self.written.iter().find(|written| written.form == form)?;
        let skipped = cursor.get().checked_sub(self.base.get())? as usize;
        let last = (until.get().checked_sub(self.base.get())? as usize).min(self.events.len());
        let from = written.end_of(skipped);
        Some(written.bytes.get(from..written.end_of(last)).unwrap_or_default())
    }

    /// Where a link stopped that took only `taken` bytes of the frames after `cursor`.
    pub(crate) fn cut(&self, form: Form, cursor: Rev, taken: usize) -> Option<Cut> {
        let written = self.written.iter().find(|written| written.form == form)?;
        let skipped = cursor.get().checked_sub(self.base.get())? as usize;
        let from = written.end_of(skipped);
        let stop = written.origin + (from + taken) as u64;
        // Frames end at ascending places: the first that ends at or after the stop was cut there.
        let whole = written.ends.partition_point(|end| *end <= stop).max(skipped);
        let boundary = written.end_of(whole);
        if boundary == from + taken {
            return Some(Cut { cursor: self.rev(whole), rest: taken..taken });
        }
        let end = written.end_of(whole + 1);
        Some(Cut { cursor: self.rev(whole + 1), rest: taken..end - from })
    }

    /// As many whole frames after `cursor` as fit into `room`, and the last revision among them.
    /// At least one, if `room` is not 0 and there is one.
    pub(crate) fn fitting(
        &self,
        form: Form,
        cursor: Rev,
        until: Rev,
        room: usize,
    ) -> Option<(&[u8], Rev)> {
        let frames = self.frames(form, cursor, until)?;
        if frames.len() <= room {
            return Some((frames, until.max(cursor)));
        }
        let written = self.written.iter().find(|written| written.form == form)?;
        let skipped = (cursor.get() - self.base.get()) as usize;
        let from = written.end_of(skipped);
        let limit = written.origin + (from + room) as u64;
        let fit = written.ends.partition_point(|end| *end <= limit);
        let last = if room == 0 { skipped } else { fit.max(skipped + 1) };
        Some((&frames[..written.end_of(last) - from], self.rev(last)))
    }

    /// Bytes that ever entered, over all forms.
    pub(crate) fn entered(&self) -> u64 {
        self.entered
    }

    /// Bytes of memory that it holds for frames.
    pub(crate) fn bytes(&self) -> usize {
        self.written.iter().map(|written| written.bytes.capacity()).sum()
    }

    fn rev(&self, index: usize) -> Rev {
        Rev::new(self.base.get() + index as u64)
    }

    fn is_over(&self) -> bool {
        self.events.len() > EVENTS_MAX
            || self.written.iter().any(|written| written.held() > self.bytes_max)
    }

    fn pop(&mut self) {
        self.events.pop_front();
        self.base = self.base.next();
        for written in &mut self.written {
            written.pop();
        }
    }

    fn rewrite(&mut self, message: &Message, scratch: &mut Vec<u8>) {
        for (index, event) in self.events.iter_mut().enumerate() {
            if event.seq() != Some(message.seq) {
                continue;
            }
            *event = Arc::new(with_message(event, message));
            for written in &mut self.written {
                written.replace(index, event, scratch);
            }
        }
    }
}

impl Written {
    fn push(&mut self, event: &Event, scratch: &mut Vec<u8>) {
        self.form.write(&ServerFrame::Event { event }, scratch, &mut self.bytes);
        self.ends.push_back(self.origin + self.bytes.len() as u64);
    }

    /// Where the frame before the event at `index` ends.
    fn end_of(&self, index: usize) -> usize {
        match index.checked_sub(1).and_then(|last| self.ends.get(last)) {
            Some(end) => (*end - self.origin) as usize,
            None if index == 0 => self.start,
            None => self.bytes.len(),
        }
    }

    fn held(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn pop(&mut self) {
        if let Some(end) = self.ends.pop_front() {
            self.start = (end - self.origin) as usize;
        }
        // Moving the rest down costs as much as what was given up: each byte moves once.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.origin += self.start as u64;
            self.start = 0;
        }
    }

    fn replace(&mut self, index: usize, event: &Event, scratch: &mut Vec<u8>) {
        let mut frame = Vec::new();
        self.form.write(&ServerFrame::Event { event }, scratch, &mut frame);
        let place = self.end_of(index)..self.end_of(index + 1);
        let (before, after) = (place.len(), frame.len());
        self.bytes.splice(place, frame);
        for end in self.ends.range_mut(index..) {
            *end = *end - before as u64 + after as u64;
        }
    }
}

/// The event with its message as it is now.
fn with_message(event: &Event, message: &Message) -> Event {
    let mut event = event.clone();
    match &mut event.body {
        EventBody::MessageCreated(body)
        | EventBody::MessageEdited(body)
        | EventBody::MessageDeleted(body) => body.message = message.clone(),
        EventBody::ReactionAdded(body) | EventBody::ReactionRemoved(body) => {
            body.message = message.clone();
        }
        _ => {}
    }
    event
}

#[cfg(test)]
mod tests {
    use chappe_protocol::{
        ChannelId, Emoji, Seq, Text, UserId,
        event::{MessageBody, ReactionBody},
    };

    use super::*;

    const SECRET: &str = "a secret";

    fn message(seq: u64, text: Option<&str>) -> Message {
        Message {
            seq: Seq::new(seq),
            rev: Rev::new(seq),
            changed: Rev::new(seq),
            by: UserId::new(1),
            at: 7,
            text: text.map(|text| Text::parse(text).unwrap()),
            data: None,
            reply_to: None,
            mentions: Vec::new(),
            edited_at: None,
            deleted: text.is_none(),
            reactions: Vec::new(),
        }
    }

    fn push(ring: &mut Ring, rev: u64, body: EventBody) {
        let (channel, by) = (ChannelId::new(7), UserId::new(1));
        let event = Event { channel, rev: Rev::new(rev), by, at: 7, nonce: None, body };
        ring.push(Arc::new(event), &mut Vec::new());
    }

    fn holds(frames: &[u8], text: &str) -> bool {
        frames.windows(text.len()).any(|bytes| bytes == text.as_bytes())
    }

    #[test]
    fn a_deleted_text_is_in_no_frame_of_any_form_old_or_new() {
        let mut ring = Ring::new(Rev::ZERO, 1 << 20);
        let late = Form::at(Form::COUNT - 1);
        (0..late.index()).for_each(|form| ring.keep(Form::at(form), &mut Vec::new()));
        let secret = || message(1, Some(SECRET));
        let emoji = Emoji::parse("+1").unwrap();
        push(&mut ring, 1, EventBody::MessageCreated(MessageBody { message: secret() }));
        let kept = message(2, Some("kept"));
        push(&mut ring, 2, EventBody::MessageCreated(MessageBody { message: kept }));
        let added = ReactionBody { emoji: emoji.clone(), message: secret() };
        push(&mut ring, 3, EventBody::ReactionAdded(added));
        let removed = ReactionBody { emoji, message: secret() };
        push(&mut ring, 4, EventBody::ReactionRemoved(removed));
        push(&mut ring, 5, EventBody::MessageEdited(MessageBody { message: secret() }));
        let all = |ring: &Ring, form| ring.frames(form, Rev::ZERO, Rev::new(9)).unwrap().to_vec();
        assert!(holds(&all(&ring, Form::at(0)), SECRET));
        let gone = message(1, None);
        push(&mut ring, 6, EventBody::MessageDeleted(MessageBody { message: gone }));
        ring.keep(late, &mut Vec::new()); // a reader in a form that nobody used
        for form in (0..Form::COUNT).map(Form::at) {
            let whole = all(&ring, form);
            assert!(!holds(&whole, SECRET) && holds(&whole, "kept"), "{form:?}");
            let one = |rev| ring.frames(form, Rev::new(rev), Rev::new(rev + 1)).unwrap();
            assert_eq!((0..6).map(one).collect::<Vec<_>>().concat(), whole, "{form:?}");
        }
    }
}

//! What the kernel sends, as the text of server-sent events, with the cursor as their id.

use std::collections::BTreeMap;

use chappe_protocol::{
    ChannelId, Cursor, Encoding, ErrorCode, EventBody, Incarnation, Rev, UserId, WireError,
    event::Event,
    frame::Incoming,
    reply::{HelloReply, SubscribeReply},
};

/// Turns frames into text and keeps the cursor that they make.
#[derive(Default)]
pub(super) struct EventText {
    user: Option<UserId>,
    incarnation: Option<Incarnation>,
    cursor: BTreeMap<ChannelId, Rev>,
    /// The cursor moved since its text was last written.
    moved: bool,
}

/// What a frame means to the link, beside the text that it became.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    Text,
    /// The session is signed in.
    SignedIn,
    /// The subscription with this request id was made.
    Subscribed(u32),
    /// A request failed, or the connection ends.
    Failed(WireError),
    /// The kernel asks for a sign of life.
    Ping,
}

impl EventText {
    /// Writes one frame's text. Fails if the kernel sent something that is no frame.
    pub(super) fn write(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Meaning, &'static str> {
        let incoming = Encoding::Json.decode_server(frame).map_err(|_| "a frame that is none")?;
        let (name, meaning) = match &incoming {
            Incoming::Ok { id: HELLO_ID } => return self.sign_in(frame),
            Incoming::Ok { id } => {
                self.begin(frame)?;
                ("subscribed", Meaning::Subscribed(*id))
            }
            Incoming::Error { error, .. } => ("error", Meaning::Failed(error.clone())),
            Incoming::Event(event) => {
                self.advance(event);
                ("event", Meaning::Text)
            }
            Incoming::UnknownEvent(place) => {
                self.move_to(place.channel, place.rev);
                ("event", Meaning::Text)
            }
            Incoming::Live(live) => {
                self.move_to(live.channel, live.rev);
                ("live", Meaning::Text)
            }
            Incoming::Reset(reset) => {
                self.incarnation = Some(reset.incarnation);
                self.cursor.insert(reset.channel, reset.base);
                self.moved = true;
                ("reset", Meaning::Text)
            }
            Incoming::Signal(_) => ("signal", Meaning::Text),
            Incoming::Ping(_) => {
                out.extend_from_slice(b": ping\n\n");
                return Ok(Meaning::Ping);
            }
            Incoming::Closing(closing) => {
                if let Some(wait_ms) = closing.reconnect_after_ms {
                    out.extend_from_slice(format!("retry: {wait_ms}\n").as_bytes());
                }
                let code = ErrorCode::from_number(closing.code).unwrap_or(ErrorCode::Unavailable);
                let error = WireError::with_message(code, closing.message.clone());
                ("closing", Meaning::Failed(error))
            }
            Incoming::Unknown => ("message", Meaning::Text),
        };
        out.extend_from_slice(format!("event: {name}\n").as_bytes());
        // A long cursor would be most of the stream, so it goes once for many events.
        if self.cursor.len() <= CURSOR_WITH_EACH_EVENT_MAX {
            self.write_id(out);
        }
        for line in frame.split(|byte| matches!(byte, b'\n' | b'\r')) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        Ok(meaning)
    }

    /// Writes the cursor if it moved since it was last written: a block without data sets a
    /// client's last event id and tells it nothing else.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.write_id(out) {
            out.push(b'\n');
        }
    }

    fn sign_in(&mut self, frame: &[u8]) -> Result<Meaning, &'static str> {
        let hello: HelloReply =
            Encoding::Json.decode_ok(frame).map_err(|_| "an answer to hello that is none")?;
        self.user = Some(hello.user);
        self.incarnation = Some(hello.incarnation);
        Ok(Meaning::SignedIn)
    }

    fn begin(&mut self, frame: &[u8]) -> Result<(), &'static str> {
        let reply: SubscribeReply =
            Encoding::Json.decode_ok(frame).map_err(|_| "an answer to subscribe that is none")?;
        for subscribed in reply.channels {
            if let (Some(rev), None) = (subscribed.rev, subscribed.error)
                && subscribed.channel.inbox_owner().is_none()
            {
                self.cursor.entry(subscribed.channel).or_insert(rev);
                self.moved = true;
            }
        }
        Ok(())
    }

    fn advance(&mut self, event: &Event) {
        match &event.body {
            EventBody::MemberRemoved(body) if Some(body.user) == self.user => {
                self.moved |= self.cursor.remove(&event.channel).is_some();
            }
            EventBody::ChannelRemoved(body) => {
                self.moved |= self.cursor.remove(&body.channel).is_some();
            }
            _ => self.move_to(event.channel, event.rev),
        }
    }

    fn move_to(&mut self, channel: ChannelId, rev: Rev) {
        // The inbox goes with the session, not with the cursor: `mine` says what is in it.
        if channel.inbox_owner().is_some() {
            return;
        }
        let held = self.cursor.entry(channel).or_default();
        if *held < rev {
            *held = rev;
            self.moved = true;
        }
    }

    fn write_id(&mut self, out: &mut Vec<u8>) -> bool {
        let (true, Some(incarnation)) = (self.moved, self.incarnation) else { return false };
        self.moved = false;
        let channels = self.cursor.iter().map(|(channel, rev)| (*channel, *rev)).collect();
        let cursor = Cursor { incarnation, channels };
        out.extend_from_slice(format!("id: {}\n", cursor.to_text()).as_bytes());
        true
    }
}

/// The request id of the link's own `hello`; its subscriptions count on from it.
pub(super) const HELLO_ID: u32 = 1;
/// With more channels than these, the cursor is not written with each event.
const CURSOR_WITH_EACH_EVENT_MAX: usize = 32;

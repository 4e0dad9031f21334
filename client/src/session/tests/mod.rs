//! The session's core against a script: the test plays server, owner and clock.

mod retry;
mod stream;

use bytes::Bytes;
use chappe_protocol::{
    ChannelId, ChannelName, ClientFrame, CloseCode, Command, Encoding, ErrorCode, Event, EventBody,
    Incarnation, Message, Nonce, Rev, Seq, ServerFrame, SessionId, Text, UserId, WireError,
    command::{ChannelFrom, Channels, Publish, Subscribe},
    event::{ChannelAddedBody, ChannelBody, MemberRemovedBody, MessageBody},
    frame::{Live, Reset, ServerPing},
    limits::Limits,
    message::{Channel, ChannelKind, Role},
    reply::{Change, HelloReply, Reply, SubscribeReply, Subscribed},
};

use super::{
    backoff::Backoff,
    commands::Ticket,
    core::{Answer, Core, Output, Plan, Settings},
    update::{Anomaly, Update},
};
use crate::{
    connection::Frame,
    error::{Closed, Error},
};

const ME: UserId = UserId::new(7);
const A: ChannelId = ChannelId::new(1);
const B: ChannelId = ChannelId::new(2);
const CURSOR_MAX: usize = 100;

/// A core, what it said, and the time.
struct Script {
    core: Core,
    now_ms: u64,
    incarnation: Incarnation,
}

impl Script {
    /// Signed in at time 1,000,000.
    fn connected() -> Self {
        let mut script = Self::new(|_| {});
        script.connect(Vec::new());
        script.updates();
        script
    }

    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            backoff: Backoff { base_ms: 100, cap_ms: 1_000 },
            in_flight_max: 8,
            queue_max: 16,
            keep_trying: false,
            token_renews: false,
            seed: 7,
        };
        change(&mut settings);
        Self { core: Core::new(settings), now_ms: 1_000_000, incarnation: Incarnation(1) }
    }

    /// The attempt that is due succeeds.
    #[track_caller]
    fn connect(&mut self, subscribed: Vec<Subscribed>) -> Plan {
        let plan = self.attempt();
        let hello = HelloReply {
            user: ME,
            session: SessionId::new(1),
            incarnation: self.incarnation,
            ping_ms: 25_000,
            limits: Limits::default(),
            server: "script".to_owned(),
            subscribed,
        };
        self.core.handle_connected(self.now_ms, &hello);
        plan
    }

    #[track_caller]
    fn attempt(&mut self) -> Plan {
        self.core.poll_connect(self.now_ms, CURSOR_MAX).expect("an attempt is due")
    }

    /// The link breaks and the wait before the next attempt passes.
    fn lose(&mut self) {
        self.core.handle_lost(self.now_ms, Error::Closed(Closed::broken("cut")));
        self.pass(1_000);
    }

    fn close(&mut self, code: CloseCode, reconnect_after_ms: Option<u64>) {
        let closed =
            Closed { code: Some(code.number()), reason: String::new(), reconnect_after_ms };
        self.core.handle_lost(self.now_ms, Error::Closed(closed));
    }

    /// Time passes, and the core is told at each moment that it asked for.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(due_ms) = self.core.poll_timeout(self.now_ms).filter(|due| *due <= until_ms)
        {
            if due_ms <= self.now_ms {
                break; // waits for a connection
            }
            self.now_ms = due_ms;
            self.core.handle_time(self.now_ms);
        }
        self.now_ms = until_ms;
        self.core.handle_time(self.now_ms);
    }

    /// The server sends.
    fn server(&mut self, frame: &ServerFrame<'_>) {
        let mut bytes = Vec::new();
        Encoding::MessagePack.encode(frame, &mut bytes);
        let frame = Frame::decode(Encoding::MessagePack, Bytes::from(bytes)).unwrap();
        self.core.handle_frame(self.now_ms, frame);
    }

    fn ok(&mut self, id: u32, reply: Reply) {
        self.server(&ServerFrame::Ok { id, ok: &reply });
    }

    fn refuse(&mut self, id: u32, error: WireError) {
        self.server(&ServerFrame::Error { id: Some(id), error });
    }

    fn event(&mut self, channel: ChannelId, rev: u64) {
        self.server(&ServerFrame::Event { event: &message_created(channel, rev) });
    }

    fn heads(&mut self, heads: &[(ChannelId, u64)]) {
        let heads = heads.iter().map(|(channel, rev)| (*channel, Rev::new(*rev))).collect();
        self.server(&ServerFrame::Ping { ping: ServerPing { at: 0, heads } });
    }

    /// The owner asks.
    fn submit(&mut self, command: impl Into<Command>, nonce: Option<&str>) -> Ticket {
        let nonce = nonce.map(|nonce| Nonce::parse(nonce).unwrap());
        self.core.handle_command(command.into(), nonce, self.now_ms + 30_000).unwrap()
    }

    /// The owner follows channels from these revisions, and the server agrees.
    fn subscribe(&mut self, channels: &[(ChannelId, u64)]) {
        self.submit(subscribe_to(channels), None);
        let id = self.sent_one().id;
        let reply = SubscribeReply { channels: outcomes(channels) };
        self.ok(id, Reply::Subscribe(reply));
        self.updates();
    }

    /// What is sent now.
    fn sent(&mut self) -> Vec<ClientFrame> {
        std::iter::from_fn(|| self.core.poll_transmit(self.now_ms)).collect()
    }

    #[track_caller]
    fn sent_one(&mut self) -> ClientFrame {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// The nonces that are sent now, as far as there are.
    fn sent_nonces(&mut self) -> Vec<String> {
        self.sent().iter().filter_map(|frame| Some(frame.nonce.as_ref()?.to_string())).collect()
    }

    fn output(&mut self) -> (Vec<Update>, Vec<Answer>) {
        let (mut updates, mut answers) = (Vec::new(), Vec::new());
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Update(update) => updates.push(update),
                Output::Answer(answer) => answers.push(answer),
            }
        }
        (updates, answers)
    }

    fn updates(&mut self) -> Vec<Update> {
        self.output().0
    }

    #[track_caller]
    fn answer(&mut self) -> Answer {
        let mut answers = self.output().1;
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// The revisions of a channel that the owner is given now.
    fn delivered(&mut self, channel: ChannelId) -> Vec<u64> {
        let of_channel = |update: Update| match update {
            Update::Event(event) if event.channel == channel => Some(event.rev.get()),
            _ => None,
        };
        self.updates().into_iter().filter_map(of_channel).collect()
    }
}

fn publish(channel: ChannelId) -> Publish {
    let text = Some(Text::parse("hello").unwrap());
    Publish { channel, text, data: None, reply_to: None, mentions: Vec::new() }
}

fn change(channel: ChannelId, rev: u64) -> Reply {
    let (rev, seq) = (Rev::new(rev), Some(Seq::new(rev)));
    Reply::Change(Change { channel, rev, seq, at: 0, inbox: None })
}

fn subscribe_to(channels: &[(ChannelId, u64)]) -> Subscribe {
    let from = |(id, rev): &(ChannelId, u64)| ChannelFrom { id: *id, from: Some(Rev::new(*rev)) };
    Subscribe { channels: Channels::These(channels.iter().map(from).collect()), incarnation: None }
}

fn outcomes(channels: &[(ChannelId, u64)]) -> Vec<Subscribed> {
    let outcome = |(channel, rev): &(ChannelId, u64)| Subscribed {
        channel: *channel,
        rev: Some(Rev::new(*rev)),
        head: Some(Rev::new(*rev)),
        catching_up: false,
        error: None,
    };
    channels.iter().map(outcome).collect()
}

fn event(channel: ChannelId, rev: u64, body: EventBody) -> Event {
    Event { channel, rev: Rev::new(rev), by: ME, at: 0, nonce: None, body }
}

fn message_created(channel: ChannelId, rev: u64) -> Event {
    let message = Message {
        seq: Seq::new(rev),
        rev: Rev::new(rev),
        changed: Rev::new(rev),
        by: ME,
        at: 0,
        text: Some(Text::parse("hello").unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    };
    event(channel, rev, EventBody::MessageCreated(MessageBody { message }))
}

fn refusal(code: ErrorCode) -> WireError {
    WireError::new(code)
}

fn asked(frame: &ClientFrame) -> Vec<(ChannelId, Option<u64>)> {
    let Command::Subscribe(Subscribe { channels: Channels::These(channels), .. }) = &frame.command
    else {
        return Vec::new();
    };
    channels.iter().map(|asked| (asked.id, asked.from.map(Rev::get))).collect()
}

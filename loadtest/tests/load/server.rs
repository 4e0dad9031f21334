//! A server in memory that keeps its promises, but for the one that a test breaks.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_protocol::{
    ChannelId, ClientFrame, Command, Encoding, ErrorCode, Event, EventBody, Incarnation, Message,
    Rev, Seq, ServerFrame, SessionId, UserId, WireError,
    command::{ChannelFrom, ChannelRef, Channels, CreateChannel, History, Publish},
    event::{ChannelBody, MemberBody, MessageBody},
    limits::{self, Limits},
    message::{Channel, Member, Role},
    reply::{Change, ChannelReply, HelloReply, HistoryReply, Reply, SubscribeReply, Subscribed},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as WsMessage,
        handshake::server::{Request, Response},
    },
};

/// Frames that wait for a connection; no test sends as many.
const OUTBOX_MAX: usize = 1 << 16;

/// The promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every tenth message is acknowledged and nothing else.
    AcksWithoutStoring,
    /// Every tenth message is there twice.
    StoresTwice,
    /// Every tenth message is refused and there all the same.
    RefusesAndStores,
    /// Every tenth message is missing in the history.
    HidesFromHistory,
    /// A restart loses the last five messages.
    ForgetsAtRestart,
    /// A nonce is not remembered over a restart.
    ForgetsNonces,
}

#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Changes with each restart.
    generation: watch::Sender<u32>,
}

struct State {
    fault: Fault,
    down: bool,
    /// Publishes are carried out and not answered.
    silent: bool,
    channels: HashMap<ChannelId, Room>,
    names: HashMap<String, ChannelId>,
    connections: u64,
    published: u64,
}

struct Room {
    channel: Channel,
    members: HashMap<UserId, Member>,
    events: Vec<Event>,
    messages: Vec<Message>,
    results: HashMap<(UserId, String), Change>,
    readers: Vec<(u64, Outbox)>,
}

type Outbox = mpsc::Sender<Vec<u8>>;

impl Server {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            fault,
            down: false,
            silent: false,
            channels: HashMap::new(),
            names: HashMap::new(),
            connections: 0,
            published: 0,
        };
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(state)),
            generation: watch::Sender::new(0),
        };
        tokio::spawn(server.clone().serve(listener));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Messages that were published, retries left out.
    pub(crate) fn published(&self) -> u64 {
        self.lock().published
    }

    /// From now on publishes are carried out and not answered: the next crash leaves their
    /// publishers in doubt. Gives the number of messages published before.
    pub(crate) fn fall_silent(&self) -> u64 {
        let mut state = self.lock();
        state.silent = true;
        state.published
    }

    /// Cuts all connections and refuses new ones until [`Server::come_back`].
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        state.down = true;
        let fault = state.fault;
        for room in state.channels.values_mut() {
            room.readers.clear();
            if fault == Fault::ForgetsNonces {
                room.results.clear();
            }
            for _ in 0..if fault == Fault::ForgetsAtRestart { 5 } else { 0 } {
                if room.messages.pop().is_some() {
                    room.events.pop();
                }
            }
        }
        drop(state);
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn come_back(&self) {
        let mut state = self.lock();
        (state.down, state.silent) = (false, false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if !self.lock().down {
                tokio::spawn(self.clone().connection(stream));
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut generation = self.generation.subscribe();
        let mut encoding = Encoding::MessagePack;
        // The signature is the library's.
        #[allow(clippy::result_large_err)]
        let choose = |request: &Request, mut response: Response| {
            let asked = request.headers().get("sec-websocket-protocol").cloned().unwrap();
            if asked == Encoding::Json.subprotocol() {
                encoding = Encoding::Json;
            }
            response.headers_mut().insert("sec-websocket-protocol", asked);
            Ok(response)
        };
        let Ok(stream) = accept_hdr_async(stream, choose).await else { return };
        let (mut sink, mut source) = stream.split();
        let (outbox, mut outgoing) = mpsc::channel::<Vec<u8>>(OUTBOX_MAX);
        let number = {
            let mut state = self.lock();
            state.connections += 1;
            state.connections
        };
        let mut caller = Caller { number, user: UserId::new(0), encoding, outbox };
        loop {
            tokio::select! {
                _ = generation.changed() => return,
                Some(bytes) = outgoing.recv() => {
                    let message = match encoding {
                        Encoding::Json => WsMessage::text(String::from_utf8(bytes).unwrap()),
                        Encoding::MessagePack => WsMessage::binary(bytes),
                    };
                    if sink.send(message).await.is_err() {
                        break;
                    }
                }
                message = source.next() => match message {
                    Some(Ok(WsMessage::Binary(bytes))) => self.handle(&mut caller, &bytes),
                    Some(Ok(WsMessage::Text(text))) => self.handle(&mut caller, text.as_ref()),
                    Some(Ok(WsMessage::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {}
                }
            }
        }
        for room in self.lock().channels.values_mut() {
            room.readers.retain(|(reader, _)| *reader != number);
        }
    }

    fn handle(&self, caller: &mut Caller, bytes: &[u8]) {
        let frame = caller.encoding.decode_client(bytes).unwrap();
        self.lock().handle(caller, frame);
    }
}

struct Caller {
    number: u64,
    user: UserId,
    encoding: Encoding,
    outbox: Outbox,
}

impl Caller {
    fn send(&self, frame: &ServerFrame<'_>) {
        let mut bytes = Vec::new();
        self.encoding.encode(frame, &mut bytes);
        self.outbox.try_send(bytes).unwrap();
    }

    fn ok(&self, id: u32, reply: Reply) {
        self.send(&ServerFrame::Ok { id, ok: &reply });
    }

    fn refuse(&self, id: u32, code: ErrorCode) {
        self.send(&ServerFrame::Error { id: Some(id), error: WireError::new(code) });
    }
}

impl State {
    fn handle(&mut self, caller: &mut Caller, frame: ClientFrame) {
        let (id, nonce) = (frame.id, frame.nonce.map(|nonce| nonce.to_string()));
        match frame.command {
            Command::Hello(hello) => {
                let Some(user) = subject(&hello.token) else {
                    return caller.refuse(id, ErrorCode::TokenInvalid);
                };
                caller.user = UserId::of("chappe-dev", &user);
                let cursor = hello.resume.map(|cursor| cursor.channels).unwrap_or_default();
                let from = |(id, rev): (ChannelId, Rev)| ChannelFrom { id, from: Some(rev) };
                let asked: Vec<ChannelFrom> = cursor.into_iter().map(from).collect();
                let reply = HelloReply {
                    user: caller.user,
                    session: SessionId::new(caller.number),
                    incarnation: Incarnation(1),
                    ping_ms: 25_000,
                    limits: Limits::default(),
                    server: "memory".to_owned(),
                    subscribed: self.outcomes(&asked),
                };
                caller.ok(id, Reply::Hello(Box::new(reply)));
                self.follow(caller, &asked);
            }
            Command::CreateChannel(create) => self.create(caller, id, &nonce.unwrap(), create),
            Command::GetChannel(get) => {
                let found = match get.channel {
                    ChannelRef::Id(channel) => Some(channel),
                    ChannelRef::Name(name) => self.names.get(&name.folded()).copied(),
                };
                match found.and_then(|channel| self.channels.get(&channel)) {
                    Some(room) => caller.ok(id, Reply::Channel(Box::new(room.reply(caller.user)))),
                    None => caller.refuse(id, ErrorCode::NotFound),
                }
            }
            Command::Join(join) => {
                let room = self.channels.get_mut(&join.channel).unwrap();
                let change = room.once(caller.user, &nonce.unwrap(), Room::join);
                caller.ok(id, Reply::Change(change));
            }
            Command::Subscribe(subscribe) => {
                let Channels::These(asked) = subscribe.channels else { panic!("mine") };
                let channels = self.outcomes(&asked);
                caller.ok(id, Reply::Subscribe(SubscribeReply { channels }));
                self.follow(caller, &asked);
            }
            Command::Publish(publish) => self.publish(caller, id, &nonce.unwrap(), publish),
            Command::History(history) => {
                let room = self.channels.get(&history.channel).unwrap();
                caller.ok(id, Reply::History(room.history(&history, self.fault)));
            }
            Command::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, caller: &Caller, id: u32, nonce: &str, create: CreateChannel) {
        let channel = ChannelId::created_by(caller.user, nonce);
        let name = create.name.clone().unwrap().folded();
        if self.names.get(&name).is_some_and(|taken| *taken != channel) {
            return caller.refuse(id, ErrorCode::NameTaken);
        }
        self.names.insert(name, channel);
        let by = caller.user;
        let room = self.channels.entry(channel).or_insert_with(|| Room::new(channel, by, create));
        let change = room.once(by, nonce, Room::open);
        caller.ok(id, Reply::Change(change));
    }

    fn publish(&mut self, caller: &Caller, id: u32, nonce: &str, publish: Publish) {
        let room = self.channels.get_mut(&publish.channel).unwrap();
        let known = room.results.contains_key(&(caller.user, nonce.to_owned()));
        self.published += u64::from(!known);
        let faulty = self.published.is_multiple_of(10) && !known;
        if faulty && self.fault == Fault::AcksWithoutStoring {
            let (rev, seq) = (room.head().next(), Some(room.last().next()));
            let change = Change { channel: publish.channel, rev, seq, at: 0, inbox: None };
            return caller.ok(id, Reply::Change(change));
        }
        let change = room.once(caller.user, nonce, |room, user| room.take(user, &publish));
        match self.fault {
            Fault::StoresTwice if faulty => drop(room.take(caller.user, &publish)),
            Fault::RefusesAndStores if faulty => {
                return caller.refuse(id, ErrorCode::EmptyMessage);
            }
            _ => {}
        }
        if !self.silent {
            caller.ok(id, Reply::Change(change));
        }
    }

    fn outcomes(&self, asked: &[ChannelFrom]) -> Vec<Subscribed> {
        let outcome = |asked: &ChannelFrom| {
            let head = self.channels[&asked.id].head();
            let rev = asked.from.unwrap_or(head);
            // A cursor from before a loss is beyond the head; this server does not notice.
            let catching_up = rev < head;
            let (rev, head, error) = (Some(rev), Some(head), None);
            Subscribed { channel: asked.id, rev, head, catching_up, error }
        };
        asked.iter().map(outcome).collect()
    }

    fn follow(&mut self, caller: &Caller, asked: &[ChannelFrom]) {
        for asked in asked {
            let room = self.channels.get_mut(&asked.id).unwrap();
            let from = asked.from.unwrap_or(room.head());
            for event in room.events.iter().filter(|event| event.rev > from) {
                caller.send(&ServerFrame::Event { event });
            }
            room.readers.retain(|(reader, _)| *reader != caller.number);
            room.readers.push((caller.number, caller.outbox.clone()));
        }
    }
}

impl Room {
    fn new(id: ChannelId, by: UserId, create: CreateChannel) -> Self {
        let CreateChannel { kind, name, topic, .. } = create;
        let channel = Channel {
            id,
            kind,
            name,
            topic,
            slow_mode_ms: 0,
            archived: false,
            deleted: false,
            by,
            at: 0,
            members: 1,
        };
        Self {
            channel,
            members: HashMap::new(),
            events: Vec::new(),
            messages: Vec::new(),
            results: HashMap::new(),
            readers: Vec::new(),
        }
    }

    fn head(&self) -> Rev {
        self.events.last().map_or(Rev::ZERO, |event| event.rev)
    }

    fn last(&self) -> Seq {
        self.messages.last().map_or(Seq::ZERO, |message| message.seq)
    }

    fn reply(&self, user: UserId) -> ChannelReply {
        ChannelReply {
            channel: self.channel.clone(),
            rev: self.head(),
            seq: self.last(),
            member: self.members.get(&user).cloned(),
        }
    }

    /// Does something once for each nonce.
    fn once(
        &mut self,
        user: UserId,
        nonce: &str,
        act: impl FnOnce(&mut Self, UserId) -> Change,
    ) -> Change {
        let key = (user, nonce.to_owned());
        if let Some(known) = self.results.get(&key) {
            return known.clone();
        }
        let change = act(self, user);
        self.results.insert(key, change.clone());
        change
    }

    fn open(&mut self, user: UserId) -> Change {
        let body = EventBody::ChannelCreated(ChannelBody { channel: self.channel.clone() });
        self.record(user, body, None)
    }

    fn join(&mut self, user: UserId) -> Change {
        let since = self.head().next();
        let member = Member { user, name: None, role: Role::Member, since };
        self.members.insert(user, member.clone());
        self.record(user, EventBody::MemberAdded(MemberBody { member }), None)
    }

    fn take(&mut self, by: UserId, publish: &Publish) -> Change {
        let (seq, rev) = (self.last().next(), self.head().next());
        let message = Message {
            seq,
            rev,
            changed: rev,
            by,
            at: 0,
            text: publish.text.clone(),
            data: publish.data.clone(),
            reply_to: None,
            mentions: Vec::new(),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        };
        self.messages.push(message.clone());
        self.record(by, EventBody::MessageCreated(MessageBody { message }), Some(seq))
    }

    fn record(&mut self, by: UserId, body: EventBody, seq: Option<Seq>) -> Change {
        let (channel, rev) = (self.channel.id, self.head().next());
        let event = Event { channel, rev, by, at: 0, nonce: None, body };
        // Every test reads in one encoding: the readers' frames are the same.
        let mut bytes = Vec::new();
        Encoding::MessagePack.encode(&ServerFrame::Event { event: &event }, &mut bytes);
        for (_, reader) in &self.readers {
            // A reader whose connection has just broken is none any more.
            let _ = reader.try_send(bytes.clone());
        }
        self.events.push(event);
        Change { channel, rev, seq, at: 0, inbox: None }
    }

    fn history(&self, history: &History, fault: Fault) -> HistoryReply {
        let after = history.after.unwrap_or(Seq::ZERO);
        let limit = history.limit.unwrap_or(limits::PAGE_ITEMS_DEFAULT) as usize;
        let mut shown = self.messages.clone();
        if fault == Fault::HidesFromHistory {
            for message in shown.iter_mut().filter(|message| message.seq.get() % 10 == 0) {
                message.data = None;
            }
        }
        let page = shown.into_iter().filter(|message| message.seq > after);
        let messages: Vec<Message> = page.take(limit).collect();
        let more_after = messages.last().is_some_and(|message| message.seq < self.last());
        HistoryReply { messages, rev: self.head(), more_before: after > Seq::ZERO, more_after }
    }
}

/// The subject of a JWT; what signs it is not looked at.
fn subject(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    Some(claims["sub"].as_str()?.to_owned())
}

//! A kernel for tests of frontends: it answers every command by the book and lets the test see
//! and say everything on a link. It runs links on a thread of its own, as a shard does.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use chappe_gateway::{
    frontend::{Call, ConnectRefused, Kernel, MakeLink},
    link::{Describe, Lane, Link, LinkEnd},
};
use chappe_protocol::{
    ChannelId, ClientFrame, CloseCode, Command, ErrorCode, Incarnation, Rev, ServerFrame,
    SessionId, UserId, WireError,
    command::Channels,
    frame::Closing,
    limits::Limits,
    reply::{Change, Done, HelloReply, Reply, SubscribeReply, Subscribed},
};
use tokio::{sync::mpsc, task::LocalSet};

/// The only token that signs in.
pub(crate) const TOKEN: &str = "good";
/// Where every channel stands.
pub(crate) const HEAD: Rev = Rev::new(5);
/// The channels of the one who signs in.
pub(crate) const MINE: [ChannelId; 2] = [ChannelId::new(1), ChannelId::new(2)];
pub(crate) const USER: UserId = UserId::new(77);

#[derive(Clone)]
pub(crate) struct FakeKernel(Arc<Inner>);

struct Inner {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<Result<Reply, WireError>>>,
    closed: Mutex<Vec<UserId>>,
    refuse: Mutex<Option<ConnectRefused>>,
    shard: mpsc::Sender<MakeLink>,
}

/// One link, from the test's side.
pub(crate) struct Session {
    pub(crate) describe: Describe,
    pub(crate) heard: mpsc::Receiver<Heard>,
    say: mpsc::Sender<Say>,
}

/// What came from the client.
#[derive(Debug)]
pub(crate) enum Heard {
    Frame(ClientFrame),
    SignOfLife,
    Refused(ErrorCode),
    End(LinkEnd),
}

enum Say {
    Bytes(Lane, Vec<u8>),
    Close(CloseCode),
}

impl FakeKernel {
    /// A kernel, and the sessions that its frontend brings.
    pub(crate) fn start() -> (Self, mpsc::Receiver<Session>) {
        let (shard, mut links) = mpsc::channel::<MakeLink>(64);
        let (arrivals, sessions) = mpsc::channel(64);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let local = LocalSet::new();
            local.block_on(&runtime.unwrap(), async move {
                while let Some(make) = links.recv().await {
                    let Ok(link) = make() else { continue };
                    tokio::task::spawn_local(run(link, arrivals.clone()));
                }
            });
        });
        let inner = Inner {
            calls: Mutex::default(),
            answers: Mutex::default(),
            closed: Mutex::default(),
            refuse: Mutex::default(),
            shard,
        };
        (Self(Arc::new(inner)), sessions)
    }

    /// Answers the next call with this instead of success.
    pub(crate) fn answer(&self, answer: Result<Reply, WireError>) {
        self.0.answers.lock().unwrap().push_back(answer);
    }

    pub(crate) fn refuse(&self, refused: Option<ConnectRefused>) {
        *self.0.refuse.lock().unwrap() = refused;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.calls.lock().unwrap())
    }

    pub(crate) fn closed(&self) -> Vec<UserId> {
        std::mem::take(&mut *self.0.closed.lock().unwrap())
    }
}

impl Kernel for FakeKernel {
    fn connect(&self, _: IpAddr, make: MakeLink) -> Result<(), ConnectRefused> {
        if let Some(refused) = *self.0.refuse.lock().unwrap() {
            return Err(refused);
        }
        self.0.shard.try_send(make).map_err(|_| ConnectRefused::TooMany)
    }

    async fn call(&self, call: Call) -> Result<Reply, WireError> {
        if call.token != TOKEN {
            return Err(WireError::new(ErrorCode::TokenInvalid));
        }
        let reply = reply_to(&call.command);
        self.0.calls.lock().unwrap().push(call);
        self.0.answers.lock().unwrap().pop_front().unwrap_or(Ok(reply))
    }

    async fn close_sessions(&self, token: String, user: UserId) -> Result<Reply, WireError> {
        if token != TOKEN {
            return Err(WireError::new(ErrorCode::TokenInvalid));
        }
        self.0.closed.lock().unwrap().push(user);
        Ok(Reply::Done(Done {}))
    }

    fn origin_allowed(&self, origin: &str) -> bool {
        origin == "https://app.example.com"
    }
}

impl Session {
    /// Sends one frame to the client.
    pub(crate) async fn send(&self, lane: Lane, frame: &ServerFrame<'_>) {
        let mut payload = Vec::new();
        self.describe.encoding.encode(frame, &mut payload);
        self.send_payload(lane, &payload).await;
    }

    pub(crate) async fn send_payload(&self, lane: Lane, payload: &[u8]) {
        let mut bytes = Vec::new();
        self.describe.framing.write(payload, &mut bytes);
        drop(self.say.send(Say::Bytes(lane, bytes)).await); // a session that has ended hears nothing
    }

    pub(crate) async fn close(&self, code: CloseCode) {
        self.say.send(Say::Close(code)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Heard {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.heard.recv());
        next.await.expect("the client is heard in time").expect("the session goes on")
    }

    /// Skips what is not the end.
    pub(crate) async fn end(&mut self) -> LinkEnd {
        loop {
            if let Heard::End(end) = self.next().await {
                return end;
            }
        }
    }
}

/// Drives one link to its end: answers by the book, and says what the test says.
async fn run(mut link: Box<dyn Link>, arrivals: mpsc::Sender<Session>) {
    let (say, mut says) = mpsc::channel(1024);
    let (hear, heard) = mpsc::channel(1 << 16);
    let describe = link.describe().clone();
    let session = Session { describe: describe.clone(), heard, say };
    if arrivals.send(session).await.is_err() {
        return;
    }
    let mut state = Driver { describe, outbox: HashMap::new(), blocked: HashMap::new(), hear };
    poll_fn(|cx| state.poll(cx, &mut *link, &mut says)).await;
}

struct Driver {
    describe: Describe,
    outbox: HashMap<Lane, Vec<u8>>,
    blocked: HashMap<Lane, bool>,
    hear: mpsc::Sender<Heard>,
}

impl Driver {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut dyn Link,
        says: &mut mpsc::Receiver<Say>,
    ) -> Poll<()> {
        let mut payloads = Vec::new();
        let mut scratch = Vec::new();
        let end = loop {
            match link.poll_recv(cx, &mut scratch, &mut |payload| payloads.push(payload.to_vec())) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => break Some(end),
                Poll::Pending => break None,
            }
        };
        for payload in payloads {
            self.handle(&payload, link);
        }
        while let Poll::Ready(Some(say)) = says.poll_recv(cx) {
            match say {
                Say::Bytes(lane, bytes) => self.outbox.entry(lane).or_default().extend(bytes),
                Say::Close(code) => {
                    self.flush(cx, link);
                    link.close(code, code.message());
                }
            }
        }
        self.flush(cx, link);
        match end {
            Some(end) => {
                drop(self.hear.try_send(Heard::End(end)));
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, link: &mut dyn Link) {
        for (lane, bytes) in &mut self.outbox {
            let blocked = self.blocked.entry(*lane).or_default();
            while !bytes.is_empty() {
                if *blocked && link.poll_writable(cx, *lane).is_pending() {
                    break;
                }
                *blocked = false;
                match link.send(*lane, bytes) {
                    Ok(taken) => {
                        bytes.drain(..taken);
                        *blocked = !bytes.is_empty();
                    }
                    Err(_) => bytes.clear(), // its end comes by poll_recv
                }
            }
        }
    }

    fn handle(&mut self, payload: &[u8], link: &mut dyn Link) {
        if payload.is_empty() {
            return self.hear.try_send(Heard::SignOfLife).unwrap();
        }
        let mut rest = payload;
        while !rest.is_empty() {
            let split = self.describe.encoding.split_frame(rest);
            let read = split.and_then(|(frame, behind)| {
                rest = behind;
                self.describe.encoding.decode_client(frame)
            });
            match read {
                Ok(frame) => {
                    self.answer(&frame, link);
                    self.hear.try_send(Heard::Frame(frame)).unwrap();
                }
                Err(error) => {
                    let wire = WireError::with_message(error.code, error.message);
                    self.write(&ServerFrame::Error { id: error.id, error: wire });
                    self.hear.try_send(Heard::Refused(error.code)).unwrap();
                    if let Some(code) = error.code.closes() {
                        self.close(link, code);
                        return;
                    }
                }
            }
        }
    }

    fn answer(&mut self, frame: &ClientFrame, link: &mut dyn Link) {
        match &frame.command {
            Command::Pong(_) => {}
            Command::Hello(hello) if hello.token != TOKEN => {
                let error = WireError::new(ErrorCode::TokenInvalid);
                self.write(&ServerFrame::Error { id: Some(frame.id), error });
                self.close(link, CloseCode::Unauthenticated);
            }
            command => {
                if matches!(command, Command::Hello(_)) {
                    link.signed_in();
                }
                let reply = reply_to(command);
                self.write(&ServerFrame::Ok { id: frame.id, ok: &reply });
            }
        }
    }

    fn close(&mut self, link: &mut dyn Link, code: CloseCode) {
        self.write(&ServerFrame::Closing { closing: Closing::new(code) });
        self.flush(&mut Context::from_waker(std::task::Waker::noop()), link);
        link.close(code, code.message());
    }

    fn write(&mut self, frame: &ServerFrame<'_>) {
        let mut payload = Vec::new();
        self.describe.encoding.encode(frame, &mut payload);
        let outbox = self.outbox.entry(Lane::Control).or_default();
        self.describe.framing.write(&payload, outbox);
    }
}

fn reply_to(command: &Command) -> Reply {
    match command {
        Command::Hello(_) => Reply::Hello(Box::new(HelloReply {
            user: USER,
            session: SessionId::new(1),
            incarnation: Incarnation(3),
            ping_ms: 25_000,
            limits: Limits::default(),
            server: "test".to_owned(),
            subscribed: Vec::new(),
        })),
        Command::Subscribe(subscribe) => {
            let channels: Vec<_> = match &subscribe.channels {
                Channels::Mine => MINE.map(|channel| (channel, HEAD)).to_vec(),
                Channels::These(channels) => channels
                    .iter()
                    .map(|channel| (channel.id, channel.from.unwrap_or(HEAD)))
                    .collect(),
            };
            let subscribed = |(channel, rev)| Subscribed {
                channel,
                rev: Some(rev),
                head: Some(HEAD),
                catching_up: rev < HEAD,
                error: None,
            };
            let channels = channels.into_iter().map(subscribed).collect();
            Reply::Subscribe(SubscribeReply { channels })
        }
        Command::Ping(_) | Command::Typing(_) | Command::Signal(_) | Command::Unsubscribe(_) => {
            Reply::Done(Done {})
        }
        _ => Reply::Change(Change {
            channel: MINE[0],
            rev: HEAD,
            seq: None,
            at: 1_700_000_000_000,
            inbox: None,
        }),
    }
}

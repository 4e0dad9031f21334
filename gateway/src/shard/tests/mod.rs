//! A shard with a toy leader, clients whose sockets can be blocked, and time that passes when a
//! test says so.

mod calls;
mod catch_up;
mod channels;
mod commands;
mod cost;
mod lanes;
mod presence;
mod sign_in;
mod time;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use chappe_protocol::{ChannelId, CloseCode, Encoding, Rev, UserId};
use chappe_uplink::{ReadQuery, Refusal, Request, Response};
use serde_json::Value;

use super::Shard;
use crate::{
    auth::Authenticator,
    clock::Now,
    config::{Config, Rates},
    desk::Effect,
    hub::Sockets,
    limits::Gate,
    link::{Framing, Lane},
    session::{Answered, Errand},
    testing::{self, ToyLeader},
};

/// The channel of most tests.
const CHANNEL: ChannelId = ChannelId::new(7);

struct Rig {
    shard: Shard,
    leader: ToyLeader,
    gate: Arc<Gate>,
    now: Now,
    clients: Clients,
    answers: HashMap<u64, Answered>,
    closed: HashMap<u32, CloseCode>,
    keys_awaited: Vec<u32>,
    /// Questions who is connected, newest last.
    lookups: Vec<(u32, u64, Vec<UserId>)>,
    next_call: u64,
    /// The pipe is down: requests are not taken.
    down: bool,
    /// Answers that are on their way for longer.
    held: Vec<Response>,
    /// Connections whose task was told to ask its link about blocked lanes.
    attended: Vec<u32>,
}

#[derive(Default)]
struct Clients {
    sockets: HashMap<u32, Socket>,
}

#[derive(Default)]
struct Socket {
    bytes: Vec<u8>,
    /// How many bytes it takes before it blocks.
    room: Option<usize>,
    /// Lanes that take nothing.
    stalled: Vec<Lane>,
    sends: usize,
    signals: Vec<Value>,
}

impl Sockets for Clients {
    fn send(&mut self, peer: u32, lane: Lane, frames: &[u8]) -> usize {
        let socket = self.sockets.entry(peer).or_default();
        let taken = match socket.room {
            _ if socket.stalled.contains(&lane) => 0,
            Some(room) => room.min(frames.len()),
            None => frames.len(),
        };
        if lane == Lane::Signals {
            if taken == frames.len() {
                socket.signals.push(serde_json::from_slice(&frames[4..]).unwrap());
            }
            return taken;
        }
        socket.sends += 1;
        socket.room = socket.room.map(|room| room - taken);
        socket.bytes.extend_from_slice(&frames[..taken]);
        taken
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::with_auth(set, testing::authenticator())
    }

    fn with_auth(set: impl FnOnce(&mut Config), auth: Authenticator) -> Self {
        let mut config = Config::default();
        config.limits.rates = Rates::UNLIMITED;
        set(&mut config);
        let now = Now { boot_ms: 1_000_000, unix_ms: Now::read().unix_ms };
        let gate = Arc::new(Gate::new(config.limits.clone()));
        let mut rig = Self {
            shard: Shard::new(Arc::new(config), Arc::new(auth), Arc::clone(&gate), 1, now),
            leader: ToyLeader::default(),
            gate,
            now,
            clients: Clients::default(),
            answers: HashMap::new(),
            closed: HashMap::new(),
            keys_awaited: Vec::new(),
            lookups: Vec::new(),
            next_call: 0,
            down: false,
            held: Vec::new(),
            attended: Vec::new(),
        };
        rig.open_pipe();
        rig
    }

    /// A connection that said nothing yet.
    fn connect(&mut self) -> u32 {
        self.connect_with(None)
    }

    fn connect_with(&mut self, token: Option<String>) -> u32 {
        self.connect_over(1, token)
    }

    /// A connection whose channels are spread over so many lanes.
    fn connect_over(&mut self, lanes: u8, token: Option<String>) -> u32 {
        let address = IpAddr::from([127, 0, 0, 1]).into();
        let framing = Framing::LengthPrefixed;
        let peer = self.shard.handle_connect(address, Encoding::Json, framing, lanes, token);
        self.clients.sockets.insert(peer, Socket::default());
        self.pump();
        peer
    }

    /// A session of `name`.
    fn client(&mut self, name: &str) -> u32 {
        let peer = self.connect();
        let ok = self.ask(peer, &hello(name));
        assert_eq!(ok["ok"]["user"], testing::user(name).to_string(), "{ok}");
        peer
    }

    /// A session of `name` that reads [`CHANNEL`] from now on.
    fn reader(&mut self, name: &str) -> u32 {
        let peer = self.client(name);
        let ok = self.ask(peer, r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#);
        assert!(ok["ok"]["channels"][0]["error"].is_null(), "{ok}");
        peer
    }

    /// Sends a frame, and lets everybody do what follows from it.
    fn send(&mut self, peer: u32, frame: &str) {
        self.shard.handle_message(peer, frame.as_bytes());
        self.pump();
    }

    /// Sends a command and gives what came back, which is one frame.
    #[track_caller]
    fn ask(&mut self, peer: u32, frame: &str) -> Value {
        self.send(peer, frame);
        let mut frames = self.take(peer);
        assert_eq!(frames.len(), 1, "one reply to {frame}: {frames:?}");
        frames.remove(0)
    }

    /// Sends a command and gives the last frame that came.
    #[track_caller]
    fn send_and_last(&mut self, peer: u32, frame: &str) -> Value {
        self.send(peer, frame);
        self.take(peer).pop().expect("a reply")
    }

    /// An administrator closes the sessions of `name`.
    fn admin_call_close(&mut self, name: &str) -> u64 {
        let token = testing::admin_token("root");
        self.call(Errand::CloseSessions { token, user: testing::user(name) })
    }

    /// Takes the frames that a client received.
    fn take(&mut self, peer: u32) -> Vec<Value> {
        let socket = self.clients.sockets.get_mut(&peer).unwrap();
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(length) = socket.bytes.get(at..at + 4) {
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            let Some(frame) = socket.bytes.get(at + 4..at + 4 + length) else { break };
            frames.push(serde_json::from_slice(frame).unwrap());
            at += 4 + length;
        }
        socket.bytes.drain(..at);
        frames
    }

    /// The revisions of the events that a client received; anything else is an error.
    #[track_caller]
    fn revs(&mut self, peer: u32) -> Vec<u64> {
        let frames = self.take(peer);
        frames.iter().map(|frame| frame["event"]["rev"].as_u64().expect("an event")).collect()
    }

    /// What a leader says to the gateway.
    fn say(&mut self, mut responses: Vec<Response>) {
        self.shard.handle_responses(&mut responses, &mut self.clients);
        self.pump();
    }

    fn publish(&mut self, text: &str) -> Rev {
        let said = self.leader.publish(CHANNEL, testing::user("someone"), text);
        self.say(said);
        self.leader.head(CHANNEL)
    }

    /// Time passes, and nothing stands still: the shard is told of every moment.
    fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(100);
            ms -= step;
            self.jump(step);
        }
    }

    /// Time passes without the shard being told in between.
    fn jump(&mut self, ms: u64) {
        self.now.boot_ms += ms;
        self.now.unix_ms += ms;
        self.shard.handle_time(self.now);
        self.shard.handle_tick();
        self.pump();
    }

    fn block(&mut self, peer: u32, room: usize) {
        self.clients.sockets.get_mut(&peer).unwrap().room = Some(room);
    }

    /// The client reads again.
    fn unblock(&mut self, peer: u32) {
        self.clients.sockets.get_mut(&peer).unwrap().room = None;
        for lane in self.shard.blocked_lanes(peer).collect::<Vec<_>>() {
            self.shard.handle_writable(peer, lane, &mut self.clients);
        }
        self.pump();
    }

    /// The client's socket takes as much more as it has room for.
    fn writable(&mut self, peer: u32) {
        for lane in self.shard.blocked_lanes(peer).collect::<Vec<_>>() {
            self.shard.handle_writable(peer, lane, &mut self.clients);
        }
        self.pump();
    }

    fn flush_all(&mut self) {
        while self.shard.needs_flush() {
            self.shard.flush(&mut self.clients);
        }
    }

    /// Lets the leader answer everything up to the first read of events, which stays unanswered
    /// in `held`.
    fn answer_until_page(&mut self) {
        while let Some(request) = self.shard.poll_request() {
            if matches!(&request, Request::Read(read) if matches!(read.query, ReadQuery::Events { .. }))
            {
                self.held = self.leader.handle(request);
                return;
            }
            let mut responses = self.leader.handle(request);
            self.shard.handle_responses(&mut responses, &mut self.clients);
        }
        panic!("no page was asked for");
    }

    /// The read that is held is refused instead of answered.
    fn refuse_next(&mut self) {
        let Some(Response::Answer { token, generation, .. }) = self.held.pop() else {
            panic!("a read is held");
        };
        let result = Err(Refusal::resend());
        let mut refused = vec![Response::Answer { token, generation, result }];
        self.shard.handle_responses(&mut refused, &mut self.clients);
    }

    fn open_pipe(&mut self) {
        self.down = false;
        self.shard.handle_open();
        let said = self.leader.handle_open();
        self.say(said);
    }

    fn cut_pipe(&mut self) {
        self.down = true;
        self.shard.handle_end();
        self.pump();
    }

    fn call(&mut self, errand: Errand) -> u64 {
        self.next_call += 1;
        let address = IpAddr::from([127, 0, 0, 1]).into();
        self.shard.handle_call(self.next_call, address, errand);
        self.pump();
        self.next_call
    }

    /// Requests that the leader was asked since the last call.
    fn asked(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.leader.asked)
    }

    /// Lets everything that follows from something happen.
    fn pump(&mut self) {
        loop {
            let mut quiet = true;
            if !self.down {
                while let Some(request) = self.shard.poll_request() {
                    let mut responses = self.leader.handle(request);
                    self.shard.handle_responses(&mut responses, &mut self.clients);
                    quiet = false;
                }
            }
            if self.shard.needs_flush() {
                self.shard.flush(&mut self.clients);
                quiet = false;
            }
            while let Some(effect) = self.shard.poll_effect() {
                self.carry_out(effect);
                quiet = false;
            }
            self.attended.extend(std::iter::from_fn(|| self.shard.poll_blocked()));
            if quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Close(peer, code) => drop(self.closed.insert(peer, code)),
            Effect::Drop(peer) => self.shard.handle_gone(peer),
            Effect::Answer(call, result) => drop(self.answers.insert(call, *result)),
            Effect::LookUp { peer, serial, users } => self.lookups.push((peer, serial, users)),
            Effect::AwaitKeys(peer) => self.keys_awaited.push(peer),
            Effect::SignedIn(_) | Effect::Wake(_) => {}
        }
    }
}

fn hello(name: &str) -> String {
    format!(r#"{{"id":1,"hello":{{"token":"{}"}}}}"#, testing::token(name))
}

/// A `hello` that resumes [`CHANNEL`] after `rev`.
fn resume(name: &str, rev: u64) -> String {
    let token = testing::token(name);
    format!(
        r#"{{"id":1,"hello":{{"token":"{token}","resume":{{"incarnation":1,"channels":[["7",{rev}]]}}}}}}"#
    )
}

fn publish(id: u32, nonce: &str) -> String {
    format!(r#"{{"id":{id},"nonce":"{nonce}","publish":{{"channel":"7","text":"{nonce}"}}}}"#)
}

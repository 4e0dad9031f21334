//! A shard: the sessions of one thread, their hub and their timers, without thread, socket or
//! clock. Its driver feeds it what arrives and carries out what it asks for.

mod drain;
pub(crate) mod driver;
mod input;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chappe_protocol::{CloseCode, Encoding, ErrorCode, WireError};
use chappe_uplink::Request;
use slab::Slab;

use crate::{
    auth::Authenticator,
    clock::Now,
    config::Config,
    desk::{Desk, Effect},
    hub::{Form, Sockets},
    limits::{Address, Gate},
    link::{Framing, Lane},
    presence::Found,
    session::{Errand, Session},
    wheel::Wheel,
};

/// The sessions of one thread.
#[derive(Debug)]
pub(crate) struct Shard {
    desk: Desk,
    sessions: Slab<Session>,
    wheel: Wheel,
    /// Calls whose token waits for keys.
    awaiting_keys: Vec<(u64, Address, Errand)>,
    /// Who is closed when, while the process drains; the next is the last.
    draining: Option<Vec<(u64, u32)>>,
    moved_ms: u64,
    pipe_opened: bool,
}

impl Shard {
    pub(crate) fn new(
        config: Arc<Config>,
        auth: Arc<Authenticator>,
        gate: Arc<Gate>,
        seed: u64,
        now: Now,
    ) -> Self {
        Self {
            desk: Desk::new(config, auth, gate, seed, now),
            sessions: Slab::new(),
            wheel: Wheel::new(now.boot_ms),
            awaiting_keys: Vec::new(),
            draining: None,
            moved_ms: now.boot_ms,
            pipe_opened: false,
        }
    }

    /// Everything that is fed from now on happens at this time.
    ///
    /// A shard that stood still for too long does not know how old what it holds is: it closes
    /// its sessions and executes nothing of what they had sent.
    pub(crate) fn handle_time(&mut self, now: Now) {
        let still_ms = now.boot_ms.saturating_sub(self.moved_ms);
        self.moved_ms = now.boot_ms;
        self.desk.now = now;
        self.desk.hub.handle_time(now.boot_ms);
        if still_ms > self.desk.config.timing.still_ms {
            metrics::counter!("chappe_gateway_stood_still_total").increment(1);
            tracing::warn!(still_ms, "the shard stood still: its sessions are closed");
            for (_, session) in &mut self.sessions {
                session.stood_still(&mut self.desk);
            }
        }
    }

    /// A connection was handed over. Returns its index.
    pub(crate) fn handle_connect(
        &mut self,
        address: Address,
        encoding: Encoding,
        framing: Framing,
        channel_lanes: u8,
        token: Option<String>,
    ) -> u32 {
        let form = Form::new(encoding, framing);
        let peer = self.desk.hub.peers.insert(form, channel_lanes);
        let session = Session::new(peer, address, &mut self.desk);
        let index = self.sessions.insert(session) as u32;
        assert_eq!(index, peer, "sessions and peers are numbered alike");
        if let Some(token) = token {
            self.sessions[index as usize].introduce(&mut self.desk, token);
        }
        self.settle();
        self.arm(index);
        index
    }

    /// A message of a client arrived.
    pub(crate) fn handle_message(&mut self, peer: u32, message: &[u8]) {
        let Some(session) = self.sessions.get_mut(peer as usize) else { return };
        let Some(entry) = self.desk.hub.peers.get(peer) else { return };
        let encoding = entry.outlet.form().encoding();
        session.handle_message(&mut self.desk, encoding, message);
        self.settle();
        self.arm(peer);
    }

    /// A connection is gone.
    pub(crate) fn handle_gone(&mut self, peer: u32) {
        let Some(mut session) = self.sessions.try_remove(peer as usize) else { return };
        session.end(&mut self.desk);
        self.desk.hub.leave(peer);
        self.wheel.disarm(peer);
        self.desk.closing.retain(|closing| *closing != peer);
        self.desk.deaf.retain(|deaf| *deaf != peer);
        self.settle();
    }

    /// A call came in.
    pub(crate) fn handle_call(&mut self, call: u64, address: Address, errand: Errand) {
        match errand.identify(&self.desk) {
            Some(Ok(identity)) => {
                let peer = self.desk.hub.peers.insert(CALL_FORM, 1);
                let session = Session::for_call(peer, address, &mut self.desk, call, identity);
                let index = self.sessions.insert(session);
                assert_eq!(index as u32, peer, "sessions and peers are numbered alike");
                self.sessions[index].run(&mut self.desk, errand);
                self.settle();
                self.arm(peer);
            }
            Some(Err(error)) => self.desk.ask(Effect::Answer(call, Box::new(Err(error)))),
            None if self.awaiting_keys.len() >= AWAITING_KEYS_MAX => {
                let error = WireError::new(ErrorCode::Overloaded);
                self.desk.ask(Effect::Answer(call, Box::new(Err(error))));
            }
            None => {
                self.awaiting_keys.push((call, address, errand));
                self.desk.ask(Effect::AwaitKeys(NOBODY));
            }
        }
    }

    /// The issuer was asked for keys on behalf of a connection, or of calls.
    pub(crate) fn handle_keys(&mut self, peer: u32) {
        if let Some(session) = self.sessions.get_mut(peer as usize) {
            session.handle_keys(&mut self.desk);
        }
        if peer == NOBODY {
            for (call, address, errand) in std::mem::take(&mut self.awaiting_keys) {
                if errand.identify(&self.desk).is_some() {
                    self.handle_call(call, address, errand);
                } else {
                    let error = WireError::new(ErrorCode::TokenInvalid);
                    self.desk.ask(Effect::Answer(call, Box::new(Err(error))));
                }
            }
        }
        self.settle();
        self.arm(peer);
    }

    /// Somebody asked who is connected, and this was found out.
    pub(crate) fn handle_presence(&mut self, peer: u32, serial: u64, found: Found) {
        let Some(session) = self.sessions.get_mut(peer as usize) else { return };
        session.handle_presence(&mut self.desk, serial, found);
        self.settle();
        self.arm(peer);
    }

    /// Offers everything that is new to the connections that can take it.
    pub(crate) fn flush(&mut self, sockets: &mut impl Sockets) {
        self.desk.hub.flush(sockets);
        self.settle();
        self.flushed();
    }

    /// A link takes more on a lane.
    pub(crate) fn handle_writable(&mut self, peer: u32, lane: Lane, sockets: &mut impl Sockets) {
        self.desk.hub.handle_writable(peer, lane, sockets);
        self.settle();
        self.flushed();
    }

    /// Whether a connection should be read.
    pub(crate) fn wants_input(&mut self, peer: u32) -> bool {
        let session = self.sessions.get_mut(peer as usize);
        session.is_some_and(|session| session.wants_input(&mut self.desk))
    }

    /// Whether something waits for the next flush.
    pub(crate) fn needs_flush(&self) -> bool {
        self.desk.hub.needs_flush()
    }

    /// The lanes on which a connection's link has to say when it takes more.
    pub(crate) fn blocked_lanes(&self, peer: u32) -> impl Iterator<Item = Lane> + use<> {
        let entry = self.desk.hub.peers.get(peer);
        entry.map(|entry| entry.outlet.blocked_lanes()).into_iter().flatten()
    }

    /// The next request for the leaders.
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        self.desk.hub.uplink.poll_request()
    }

    /// The pipe took no more: this one is sent first, later.
    pub(crate) fn return_request(&mut self, request: Request) {
        self.desk.hub.uplink.return_request(request);
    }

    /// What the driver is to do next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.desk.poll_effect()
    }

    /// The next connection whose link has to say when it takes more.
    pub(crate) fn poll_blocked(&mut self) -> Option<u32> {
        let peer = self.desk.hub.peers.poll_blocked()?;
        self.arm(peer);
        Some(peer)
    }

    /// Takes the number of event deliveries since the last call.
    pub(crate) fn take_delivered(&mut self) -> u64 {
        self.desk.hub.take_delivered()
    }

    /// When it wants to be told the time next.
    pub(crate) fn next_wake_ms(&self) -> Option<u64> {
        let drain = self.draining.as_ref().and_then(|left| left.last()).map(|(at_ms, _)| *at_ms);
        let hub = &self.desk.hub;
        [self.wheel.next_ms(), hub.uplink.next_retry_ms(), drain].into_iter().flatten().min()
    }

    /// After a flush: links whose last bytes were sent are closed, and those that were not read
    /// because too much waited are read again.
    fn flushed(&mut self) {
        let hub = &self.desk.hub;
        let drained =
            |peer: &u32| hub.peers.get(*peer).is_none_or(|entry| entry.outlet.waiting() == 0);
        let (done, waiting) = std::mem::take(&mut self.desk.closing).into_iter().partition(drained);
        self.desk.closing = waiting;
        let closed: Vec<u32> = done;
        for peer in closed {
            let code = self.sessions.get(peer as usize).and_then(Session::close_code);
            self.desk.ask(Effect::Close(peer, code.unwrap_or(CloseCode::Normal)));
        }
        let deaf = std::mem::take(&mut self.desk.deaf);
        for peer in deaf {
            if self.desk.has_much_waiting(peer) {
                self.desk.deaf.push(peer);
            } else {
                self.desk.ask(Effect::Wake(peer));
            }
        }
    }

    fn arm(&mut self, peer: u32) {
        if let Some(session) = self.sessions.get(peer as usize) {
            self.wheel.arm(peer, session.next_due_ms(&self.desk));
        }
    }
}

/// What things weigh, in bytes.
#[cfg(test)]
#[derive(Debug)]
struct Sizes {
    session: usize,
    peer: usize,
    channel: usize,
    task: usize,
    link_entry: usize,
}

#[cfg(test)]
fn sizes() -> Sizes {
    Sizes {
        session: size_of::<Session>(),
        peer: size_of::<crate::hub::Peer>(),
        channel: size_of::<crate::hub::Channel>(),
        task: driver::TASK_BYTES,
        link_entry: driver::LINK_ENTRY_BYTES,
    }
}

#[cfg(test)]
impl Shard {
    fn waiting(&self, peer: u32) -> usize {
        self.desk.hub.peers.get(peer).map_or(0, |entry| entry.outlet.waiting())
    }

    fn close_code(&self, peer: u32) -> Option<CloseCode> {
        self.sessions.get(peer as usize).and_then(Session::close_code)
    }

    fn is_here(&self, peer: u32) -> bool {
        self.sessions.contains(peer as usize)
    }

    fn session(&self, peer: u32) -> Option<&Session> {
        self.sessions.get(peer as usize)
    }

    fn session_count(&self) -> usize {
        self.sessions.len()
    }

    fn ring_bytes(&self) -> usize {
        self.desk
            .hub
            .channels
            .iter()
            .filter_map(|(_, channel)| channel.ring.as_ref())
            .map(|ring| ring.bytes())
            .sum()
    }
}

/// The connection that calls are done for.
const NOBODY: u32 = u32::MAX;
/// Calls have no frames; any form does.
const CALL_FORM: Form = Form::new(Encoding::MessagePack, Framing::LengthPrefixed);
const AWAITING_KEYS_MAX: usize = 1_024;

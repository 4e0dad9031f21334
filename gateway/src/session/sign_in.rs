//! Signing in, and staying signed in with a newer token.
//!
//! A session is open once its token is verified, its user may have one more connection, its inbox
//! is followed and the subscriptions that it resumes are answered. Nothing else is taken before.

use chappe_protocol::{
    ChannelId, ClientFrame, CloseCode, Command, Cursor, ErrorCode, WireError,
    command::Hello,
    limits,
    reply::{Done, HelloReply, RefreshReply, Reply},
};
use chappe_uplink::{Refusal, Standing};

use super::{
    Phase, Session,
    operation::{SignIn, Subscribe, Work},
    wire,
};
use crate::{
    auth::{Identity, Verdict},
    desk::{Desk, Effect},
    hub::{Joined, Purpose},
};

impl Session {
    /// Signs in with a token that came with the handshake.
    pub(crate) fn introduce(&mut self, desk: &mut Desk, token: String) {
        self.introduced = true;
        self.sign_in(desk, None, token, None);
    }

    /// Takes the first frame: a `hello`, or a harmless question before it.
    pub(super) fn handle_first(&mut self, desk: &mut Desk, frame: ClientFrame) {
        match frame.command {
            Command::Hello(hello) => {
                let Hello { token, resume, .. } = hello;
                self.sign_in(desk, Some(frame.id), token, resume);
            }
            Command::Ping(_) => self.reply(desk, Some(frame.id), Ok(Reply::Done(Done {}))),
            Command::Pong(_) => {}
            _ => self.refuse_with(desk, Some(frame.id), ErrorCode::HelloRequired),
        }
    }

    /// Keeps what comes behind a `hello` until that is answered.
    pub(super) fn hold(&mut self, frame: ClientFrame) {
        for operation in &mut self.operations {
            if let Work::SignIn(sign_in) = &mut operation.work {
                sign_in.held.push(frame);
                return;
            }
        }
    }

    /// A `hello` on a connection that is signed in: an answer to the one that never asked, if its
    /// token is empty, and else a mistake.
    pub(super) fn handle_late_hello(&mut self, desk: &mut Desk, frame: u32, hello: Hello) {
        if !hello.token.is_empty() || !std::mem::take(&mut self.introduced) {
            return self.refuse_with(desk, Some(frame), ErrorCode::AlreadySignedIn);
        }
        self.phase = Phase::SigningIn;
        let sign_in = SignIn {
            token: String::new(),
            resume: hello.resume,
            inbox_awaited: false,
            subscribe: Subscribe::default(),
            held: Vec::new(),
        };
        let serial = self.begin(desk, Some(frame), Work::SignIn(Box::new(sign_in)));
        self.resume(desk, serial);
        self.open_if_complete(desk, serial);
    }

    /// Replaces the token by a newer one of the same user.
    pub(super) fn handle_refresh(&mut self, desk: &mut Desk, frame: Option<u32>, token: String) {
        match desk.auth.verify(&token, desk.now) {
            Verdict::Accepted(identity) => self.refreshed(desk, frame, &identity),
            Verdict::Refused(code) => self.refuse_with(desk, frame, code),
            Verdict::KeysNeeded => {
                self.begin(desk, frame, Work::Refresh(token));
                desk.ask(Effect::AwaitKeys(self.peer));
            }
        }
    }

    /// The issuer was asked for keys: those who wait for them are verified once more.
    pub(crate) fn handle_keys(&mut self, desk: &mut Desk) {
        let waiting = self.operations.iter().filter_map(|operation| match &operation.work {
            Work::Refresh(token) => Some((operation.serial, token.clone())),
            Work::SignIn(sign_in) if !sign_in.token.is_empty() => {
                Some((operation.serial, sign_in.token.clone()))
            }
            _ => None,
        });
        for (serial, token) in waiting.collect::<Vec<_>>() {
            let verdict = match desk.auth.verify(&token, desk.now) {
                // Asked a moment ago, and still unknown.
                Verdict::KeysNeeded => Verdict::Refused(ErrorCode::TokenInvalid),
                verdict => verdict,
            };
            if self.phase == Phase::SigningIn {
                self.judged(desk, serial, verdict);
            } else if let Some(operation) = self.remove(desk, serial) {
                match verdict {
                    Verdict::Accepted(identity) => self.refreshed(desk, operation.frame, &identity),
                    Verdict::Refused(code) => self.refuse_with(desk, operation.frame, code),
                    Verdict::KeysNeeded => {}
                }
            }
        }
    }

    /// The leader's answer about the session's inbox.
    pub(crate) fn handle_inbox_joined(
        &mut self,
        desk: &mut Desk,
        serial: u64,
        outcome: Result<Joined, Refusal>,
    ) {
        let Some(place) = self.find(serial) else { return };
        let Work::SignIn(sign_in) = &mut self.operations[place].work else { return };
        match outcome {
            Ok(_) => {
                sign_in.inbox_awaited = false;
                self.open_if_complete(desk, serial);
            }
            Err(refusal) => self.sign_in_failed(desk, serial, refusal.code, wire(refusal)),
        }
    }

    /// Gives a sign-in up. The client may try again on the same connection if its code says so.
    pub(super) fn sign_in_failed(
        &mut self,
        desk: &mut Desk,
        serial: u64,
        code: ErrorCode,
        error: WireError,
    ) {
        let Some(operation) = self.remove(desk, serial) else { return };
        desk.hub.give_up(serial);
        self.end(desk);
        self.phase = Phase::Fresh;
        self.since_ms = desk.now.boot_ms;
        self.refuse(desk, operation.frame, code, error);
        if operation.frame.is_none() && !self.is_closing() {
            // Nobody will say hello: the token came with the handshake.
            self.close(desk, CloseCode::Drain, Some(1_000));
        }
    }

    /// Opens the session once everything that its `hello` asked for is known.
    pub(super) fn open_if_complete(&mut self, desk: &mut Desk, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        let Work::SignIn(sign_in) = &self.operations[place].work else { return };
        let Some((caller, incarnation)) = self.caller.as_ref().zip(desk.hub.incarnation()) else {
            return;
        };
        if sign_in.inbox_awaited || !sign_in.subscribe.is_complete() {
            return;
        }
        let user = caller.user;
        let Some(operation) = self.remove(desk, serial) else { return };
        let Work::SignIn(sign_in) = operation.work else { return };
        let first = self.next_ping_ms == 0;
        self.phase = Phase::Open;
        if first {
            self.next_ping_ms = desk.now.boot_ms + self.first_ping_ms(desk);
            desk.ask(Effect::SignedIn(self.peer));
        }
        let places = sign_in.subscribe.places;
        if !places.is_empty() {
            metrics::counter!("chappe_gateway_resumes_total").increment(1);
        }
        let subscribed: Vec<_> = places.into_iter().filter_map(|(_, place)| place).collect();
        let channels: Vec<_> = subscribed
            .iter()
            .filter(|place| place.error.is_none())
            .map(|place| place.channel)
            .collect();
        let hello = HelloReply {
            user,
            session: self.id,
            incarnation,
            ping_ms: desk.config.timing.ping_ms as u32,
            limits: limits::Limits::default(),
            server: desk.config.server.clone(),
            subscribed,
        };
        self.reply(desk, operation.frame, Ok(Reply::Hello(Box::new(hello))));
        for channel in channels {
            desk.hub.release(self.peer, channel);
        }
        for frame in sign_in.held {
            self.handle_frame(desk, frame);
        }
        desk.ask(Effect::Wake(self.peer));
    }

    fn sign_in(
        &mut self,
        desk: &mut Desk,
        frame: Option<u32>,
        token: String,
        resume: Option<Cursor>,
    ) {
        self.phase = Phase::SigningIn;
        let verdict = desk.auth.verify(&token, desk.now);
        let sign_in = SignIn {
            token,
            resume,
            inbox_awaited: true,
            subscribe: Subscribe::default(),
            held: Vec::new(),
        };
        let serial = self.begin(desk, frame, Work::SignIn(Box::new(sign_in)));
        self.judged(desk, serial, verdict);
    }

    /// Goes on with a sign-in whose token was verified.
    fn judged(&mut self, desk: &mut Desk, serial: u64, verdict: Verdict) {
        let identity = match verdict {
            Verdict::Accepted(identity) => identity,
            Verdict::Refused(code) => {
                return self.sign_in_failed(desk, serial, code, WireError::new(code));
            }
            Verdict::KeysNeeded => return desk.ask(Effect::AwaitKeys(self.peer)),
        };
        let caller = identity.caller.clone();
        if !desk.gate.sign_in(caller.user, desk.now.boot_ms) {
            let code = ErrorCode::TooManyConnections;
            return self.sign_in_failed(desk, serial, code, WireError::new(code));
        }
        self.take_identity(desk, &identity);
        if caller.standing == Standing::Service {
            self.inbox_needless(serial); // a back end is no user and has none
        } else {
            let inbox = ChannelId::inbox(caller.user);
            desk.hub.subscribe(self.peer, &caller, inbox, None, Purpose::Inbox(serial));
        }
        self.resume(desk, serial);
        self.open_if_complete(desk, serial);
    }

    /// The incarnation is known by now: those who waited for that alone are open.
    pub(crate) fn handle_incarnation(&mut self, desk: &mut Desk) {
        let waiting = self.operations.iter().find(|one| matches!(one.work, Work::SignIn(_)));
        if let Some(serial) = waiting.map(|operation| operation.serial) {
            self.open_if_complete(desk, serial);
        }
    }

    fn inbox_needless(&mut self, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        if let Work::SignIn(sign_in) = &mut self.operations[place].work {
            sign_in.inbox_awaited = false;
        }
    }

    /// Asks for the subscriptions that a `hello` resumes.
    fn resume(&mut self, desk: &mut Desk, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        let Work::SignIn(sign_in) = &mut self.operations[place].work else { return };
        let Some((cursor, caller)) = sign_in.resume.take().zip(self.caller.clone()) else { return };
        let channels = cursor.channels.iter();
        sign_in.subscribe.places = channels.map(|(channel, _)| (*channel, None)).collect();
        for (channel, rev) in cursor.channels {
            let from = Some((cursor.incarnation, rev));
            desk.hub.subscribe(self.peer, &caller, channel, from, Purpose::Asked(serial));
        }
    }

    /// The token of a user who stays the same was replaced.
    fn refreshed(&mut self, desk: &mut Desk, frame: Option<u32>, identity: &Identity) {
        if self.caller.as_ref().is_none_or(|caller| caller.user != identity.caller.user) {
            return self.refuse_with(desk, frame, ErrorCode::WrongUser);
        }
        self.take_identity(desk, identity);
        let expires_at = identity.expires_ms.unwrap_or(NEVER_MS);
        self.reply(desk, frame, Ok(Reply::Refresh(RefreshReply { expires_at })));
    }

    fn take_identity(&mut self, desk: &mut Desk, identity: &Identity) {
        self.expires_ms = identity.expires_ms.unwrap_or(0);
        if let Some(peer) = desk.hub.peers.get_mut(self.peer) {
            peer.user = Some(identity.caller.user);
        }
        self.caller = Some(identity.caller.clone());
    }
}

/// The largest time that a JavaScript number holds: an API key does not end.
const NEVER_MS: u64 = (1 << 53) - 1;

//! A session: one client from its `hello` to its end, over whatever transport.
//!
//! It turns frames into requests and answers into frames, keeps the order of a client's commands
//! over leaders that move, and gives up what is not answered in time. It decides nothing about
//! channels: that is the leader's. It has no clock and no socket; what it wants done is in the
//! [`Desk`]'s effects and the hub's uplink.

mod answer;
mod call;
mod change;
mod command;
mod operation;
mod presence;
mod read;
mod sign_in;
mod subscribe;
mod timer;

use std::collections::VecDeque;

use chappe_protocol::{
    ChannelId, ClientFrame, CloseCode, Command, Encoding, ErrorCode, Rev, ServerFrame, SessionId,
    WireError, frame::Closing, reply::Reply,
};
use chappe_uplink::{Caller, Refusal};

pub(crate) use self::call::{Answered, Errand};
use self::operation::{Operation, Work};
use crate::{
    desk::{Desk, Effect},
    hub::Joined,
    limits::{Address, Bucket},
    link::Lane,
    uplink::Owner,
};

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its connection.
    peer: u32,
    id: SessionId,
    address: Address,
    phase: Phase,
    caller: Option<Caller>,
    /// When the token ends, in milliseconds since 1970 UTC; never when it is 0.
    expires_ms: u64,
    /// What is not answered yet, oldest first.
    operations: VecDeque<Operation>,
    /// Raised for each resending.
    attempts: u32,
    /// Revisions that the client was told of: what it reads includes them.
    seen: Vec<(ChannelId, Rev)>,
    bucket: Bucket,
    /// Commands in a row that came too fast.
    refused: u8,
    /// It follows all channels of its user.
    mine: bool,
    /// It came with a token in its handshake and was not asked for a `hello` yet.
    introduced: bool,
    /// Its link is not read because too much is under way.
    paused: bool,
    since_ms: u64,
    heard_ms: u64,
    next_ping_ms: u64,
    /// The number of the call that it carries out, and then it has no link.
    call: Option<u64>,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for `hello`.
    Fresh,
    /// Finds out who the client is.
    SigningIn,
    /// Takes commands.
    Open,
    /// Takes nothing more; the link is to be closed with this code.
    Closing(CloseCode),
}

impl Session {
    /// The session of a new connection.
    pub(crate) fn new(peer: u32, address: Address, desk: &mut Desk) -> Self {
        Self {
            peer,
            id: desk.draw_session(),
            address,
            phase: Phase::Fresh,
            caller: None,
            expires_ms: 0,
            operations: VecDeque::new(),
            attempts: 0,
            seen: Vec::new(),
            bucket: Bucket::default(),
            refused: 0,
            mine: false,
            introduced: false,
            paused: false,
            since_ms: desk.now.boot_ms,
            heard_ms: desk.now.boot_ms,
            next_ping_ms: 0,
            call: None,
        }
    }

    /// Takes one message of the client: one or more frames, or none as a sign of life.
    pub(crate) fn handle_message(&mut self, desk: &mut Desk, encoding: Encoding, message: &[u8]) {
        self.heard_ms = desk.now.boot_ms;
        let mut rest = message;
        while !rest.is_empty() && !self.is_closing() {
            match encoding.take_client(&mut rest) {
                Ok(frame) => self.handle_frame(desk, frame),
                Err(error) => {
                    let (id, code) = (error.id, error.code);
                    self.refuse(desk, id, code, error.into());
                }
            }
        }
    }

    /// Whether its link should be read: not while as much is under way as may be, and not while
    /// what it was told does not leave.
    pub(crate) fn wants_input(&mut self, desk: &mut Desk) -> bool {
        let limit = desk.config.limits.requests_under_way;
        let busy = self.phase == Phase::SigningIn || self.operations.len() >= limit;
        let deaf = desk.has_much_waiting(self.peer);
        if deaf && !desk.deaf.contains(&self.peer) {
            desk.deaf.push(self.peer);
        }
        self.paused = !self.is_closing() && (busy || deaf);
        !self.paused
    }

    /// Whether it was closed.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// Whether it carries out a call and has no link.
    pub(crate) fn is_call(&self) -> bool {
        self.call.is_some()
    }

    /// A number of its own, for spreading things out.
    pub(crate) fn number(&self) -> u64 {
        self.id.get()
    }

    /// Its shard stood still for too long: what it had sent is not executed.
    pub(crate) fn stood_still(&mut self, desk: &mut Desk) {
        if self.call.is_some() {
            self.reply(desk, None, Err(WireError::new(ErrorCode::Unknown)));
            self.operations.clear();
        } else {
            self.close(desk, CloseCode::Drain, Some(self.number() % 1_000));
        }
    }

    /// Its inbox cannot be followed from where it was: another connection starts anew.
    pub(crate) fn inbox_lost(&mut self, desk: &mut Desk) {
        self.close(desk, CloseCode::Drain, Some(self.number() % 1_000));
    }

    /// A channel that it read cannot be read any more.
    pub(crate) fn reading_ended(&mut self, desk: &mut Desk, refusal: Refusal) {
        let code = refusal.code;
        self.refuse(desk, None, code, wire(refusal));
    }

    /// A channel that was added for its user was asked for.
    pub(crate) fn handle_followed(&mut self, desk: &mut Desk, outcome: Result<Joined, Refusal>) {
        if let Err(refusal) = outcome
            && refusal.code == ErrorCode::TooManySubscriptions
        {
            self.refuse_with(desk, None, ErrorCode::TooManySubscriptions);
        }
    }

    /// The code that its link is to be closed with.
    pub(crate) fn close_code(&self) -> Option<CloseCode> {
        match self.phase {
            Phase::Closing(code) => Some(code),
            _ => None,
        }
    }

    /// Closes it: the client is told why, and when to come back.
    pub(crate) fn close(
        &mut self,
        desk: &mut Desk,
        code: CloseCode,
        reconnect_after_ms: Option<u64>,
    ) {
        if self.is_closing() {
            return;
        }
        let closing = Closing { reconnect_after_ms, ..Closing::new(code) };
        // What does not fit any more is lost with the connection; the code says it too.
        let _ = desk.hub.peers.send(self.peer, Lane::Control, &ServerFrame::Closing { closing });
        self.end(desk);
        self.phase = Phase::Closing(code);
        self.since_ms = desk.now.boot_ms;
        desk.closing.push(self.peer);
        if std::mem::take(&mut self.paused) {
            // Read again, to throw it away: who waits to write does not read why it ends.
            desk.ask(Effect::Wake(self.peer));
        }
        metrics::counter!("chappe_gateway_closes_total", "code" => code.name()).increment(1);
    }

    /// Ends it: nothing is under way and nothing is read any more.
    pub(crate) fn end(&mut self, desk: &mut Desk) {
        for operation in self.operations.drain(..) {
            desk.hub.uplink.forget(operation.token);
        }
        desk.hub.stop_reading(self.peer);
        if let Some(caller) = self.caller.take()
            && self.call.is_none()
        {
            desk.gate.sign_out(caller.user);
        }
    }

    fn handle_frame(&mut self, desk: &mut Desk, frame: ClientFrame) {
        match self.phase {
            Phase::Fresh => self.handle_first(desk, frame),
            Phase::SigningIn => self.hold(frame),
            Phase::Open => {
                if self.is_within_limits(desk, &frame) {
                    self.execute(desk, frame);
                }
            }
            Phase::Closing(_) => {}
        }
    }

    /// Charges a command, and refuses it if its client asks too much.
    fn is_within_limits(&mut self, desk: &mut Desk, frame: &ClientFrame) -> bool {
        let Some(caller) = &self.caller else { return false };
        if caller.standing == chappe_uplink::Standing::Service {
            return true; // a back end's key is its operator's own
        }
        let (user, now_ms) = (caller.user, desk.now.boot_ms);
        let charged =
            desk.gate.charge(&mut self.bucket, user, self.address, &frame.command, now_ms);
        let Err(wait_ms) = charged else {
            self.refused = 0;
            return true;
        };
        let error = WireError::new(ErrorCode::RateLimited).retry_after(wait_ms);
        if !matches!(frame.command, Command::Pong(_)) {
            self.reply(desk, Some(frame.id), Err(error));
        }
        self.refused += 1;
        if self.refused >= REFUSED_MAX {
            self.close(desk, CloseCode::Rate, Some(wait_ms));
        }
        false
    }

    /// Answers a command, or says something that belongs to none.
    fn reply(&mut self, desk: &mut Desk, frame: Option<u32>, result: Result<Reply, WireError>) {
        if let Err(error) = &result {
            metrics::counter!("chappe_gateway_refusals_total", "code" => error.name.clone())
                .increment(1);
        }
        if let Some(call) = self.call {
            desk.ask(Effect::Answer(call, Box::new(result)));
            return desk.ask(Effect::Drop(self.peer));
        }
        let sent = match (frame, result) {
            (Some(id), Ok(ok)) => {
                desk.hub.peers.send(self.peer, Lane::Control, &ServerFrame::Ok { id, ok: &ok })
            }
            (None, Ok(_)) => Ok(()),
            (id, Err(error)) => {
                desk.hub.peers.send(self.peer, Lane::Control, &ServerFrame::Error { id, error })
            }
        };
        if sent.is_err() {
            self.close(desk, CloseCode::Slow, None);
        }
    }

    /// Refuses a command, and closes where its code says so.
    fn refuse(&mut self, desk: &mut Desk, frame: Option<u32>, code: ErrorCode, error: WireError) {
        self.reply(desk, frame, Err(error));
        if let Some(close) = code.closes() {
            self.close(desk, close, None);
        }
    }

    /// Refuses with the code's own words.
    fn refuse_with(&mut self, desk: &mut Desk, frame: Option<u32>, code: ErrorCode) {
        self.refuse(desk, frame, code, WireError::new(code));
    }

    /// Begins an operation and returns its number.
    fn begin(&mut self, desk: &mut Desk, frame: Option<u32>, work: Work) -> u64 {
        let serial = desk.hub.uplink.serial();
        self.operations.push_back(Operation {
            serial,
            frame,
            started_ms: desk.now.boot_ms,
            token: 0,
            retry_at_ms: 0,
            tries: 0,
            work,
        });
        serial
    }

    fn find(&self, serial: u64) -> Option<usize> {
        self.operations.binary_search_by_key(&serial, |operation| operation.serial).ok()
    }

    /// Ends an operation and answers it.
    fn finish(&mut self, desk: &mut Desk, serial: u64, result: Result<Reply, WireError>) {
        let Some(operation) = self.remove(desk, serial) else { return };
        self.reply(desk, operation.frame, result);
    }

    fn remove(&mut self, desk: &mut Desk, serial: u64) -> Option<Operation> {
        let operation = self.operations.remove(self.find(serial)?)?;
        desk.hub.uplink.forget(operation.token);
        if self.operations.is_empty() {
            self.operations = VecDeque::new(); // an idle session holds no buffer
        }
        if self.paused && self.operations.len() <= desk.config.limits.requests_under_way / 2 {
            self.paused = false;
            desk.ask(Effect::Wake(self.peer));
        }
        Some(operation)
    }

    /// What a request of this operation is sent for.
    fn owner(&self, serial: u64) -> Owner {
        Owner::Operation { peer: self.peer, serial }
    }

    /// Notes a revision that the client was told of.
    fn saw(&mut self, channel: ChannelId, rev: Rev) {
        match self.seen.iter_mut().find(|(seen, _)| *seen == channel) {
            Some((_, newest)) => *newest = rev.max(*newest),
            None => {
                // The oldest goes first: its events were delivered or its channel is not read.
                if self.seen.len() >= SEEN_MAX {
                    self.seen.remove(0);
                }
                self.seen.push((channel, rev));
            }
        }
    }

    /// The revision that a read of this client's must include.
    fn at_least(&self, desk: &Desk, channel: ChannelId) -> Rev {
        let told = self.seen.iter().find(|(seen, _)| *seen == channel).map(|(_, rev)| *rev);
        told.unwrap_or(Rev::ZERO).max(desk.hub.cursor(self.peer, channel))
    }
}

/// The words of a refusal on the wire.
fn wire(refusal: Refusal) -> WireError {
    let error = match refusal.message {
        Some(message) => WireError::with_message(refusal.code, message),
        None => WireError::new(refusal.code),
    };
    match refusal.retry_after_ms {
        Some(wait_ms) => error.retry_after(wait_ms),
        None => error,
    }
}

/// So many commands in a row that come too fast close the connection.
const REFUSED_MAX: u8 = 5;
/// Channels whose last told revision a session remembers.
const SEEN_MAX: usize = 1_000;

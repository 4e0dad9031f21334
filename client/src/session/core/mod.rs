//! What a session decides: when to connect, what to resume, what to retry, what to pass on.
//!
//! Fed with `handle_*`, drained with `poll_*`. It has no clock, no socket and no randomness of
//! its own: `now_ms` is an argument, the seed comes with the settings.

mod receive;

use std::collections::VecDeque;

use chappe_protocol::{
    ChannelId, ClientFrame, CloseCode, Command, ErrorCode, Nonce, Rev,
    command::{Ping, Pong, Refresh},
    limits,
    reply::HelloReply,
};

use super::{
    backoff::{Backoff, Random},
    commands::{Commands, Nature, Origin, Pending, Ticket, nature},
    subscriptions::{Resumption, Subscriptions},
    update::{Anomaly, Connected, Update},
};
use crate::{
    connection::Frame,
    error::{Closed, Error, is_retried},
};

/// A connection that lasted this long was a good one: the next wait starts from the bottom.
const STABLE_AFTER_MS: u64 = 5_000;
/// Attempts from which the back-off starts when the server said that it is too much.
const RATE_ATTEMPTS: u32 = 3;
/// The server's ping and this much more: a connection that is silent longer is dead.
const DEAD_AFTER_PINGS: f64 = limits::DEAD_AFTER_MS as f64 / limits::PING_INTERVAL_MS as f64;

/// The core's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) backoff: Backoff,
    /// Most commands under way at once.
    pub(crate) in_flight_max: usize,
    /// Most commands unanswered.
    pub(crate) queue_max: usize,
    /// Whether to go on when the first connection fails.
    pub(crate) keep_trying: bool,
    /// Whether another token may be had when one expired.
    pub(crate) token_renews: bool,
    pub(crate) seed: u64,
}

/// The answer to a command.
#[derive(Debug)]
pub struct Answer {
    /// Which command.
    pub ticket: Ticket,
    /// The frame with the reply's body, or why there is none.
    pub outcome: Result<Frame, Error>,
    /// How often it was sent.
    pub attempts: u32,
    /// It failed, and may have taken effect all the same.
    pub in_doubt: bool,
    /// The server refused an attempt and it was sent again: later commands may have come before.
    pub overtaken: bool,
}

/// With commands under way and nothing heard for this long, the server is asked whether it is
/// there: a QUIC server that was killed, or a network that swallows everything, says nothing.
const PROBE_AFTER_MS: u64 = 5_000;
/// And with no answer to that either, the connection is given up.
const UNANSWERED_MAX_MS: u64 = 15_000;

/// What the core gives out.
#[derive(Debug)]
pub(crate) enum Output {
    Update(Update),
    Answer(Answer),
}

#[derive(Debug)]
enum Phase {
    /// No connection; the next attempt is due at this time.
    Down { connect_at_ms: u64 },
    /// An attempt is under way.
    Connecting,
    Up {
        since_ms: u64,
        heard_at_ms: u64,
        dead_after_ms: u64,
        /// The server was asked since it was last heard.
        probed: bool,
    },
    /// Over for good.
    Finished(Error),
}

#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    random: Random,
    phase: Phase,
    commands: Commands,
    subscriptions: Subscriptions,
    output: VecDeque<Output>,
    pongs: u32,
    hangs_up: bool,
    connections: u32,
    failures: u32,
    /// A token expired and no connection was made since.
    expired: bool,
    resumed: Resumption,
}

/// What a connection is to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) resume: Option<chappe_protocol::Cursor>,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            random: Random::new(settings.seed),
            phase: Phase::Down { connect_at_ms: 0 },
            commands: Commands::new(settings.in_flight_max),
            subscriptions: Subscriptions::default(),
            output: VecDeque::new(),
            pongs: 0,
            hangs_up: false,
            connections: 0,
            failures: 0,
            expired: false,
            resumed: Resumption::default(),
            settings,
        }
    }

    /// Takes a command, to be answered by `until_ms` at the latest.
    pub(crate) fn handle_command(
        &mut self,
        command: Command,
        nonce: Option<Nonce>,
        until_ms: u64,
    ) -> Result<Ticket, Error> {
        if let Phase::Finished(error) = &self.phase {
            return Err(error.clone());
        }
        if self.commands.len() >= self.settings.queue_max {
            return Err(Error::Overloaded);
        }
        let down = !matches!(self.phase, Phase::Up { .. });
        if down && nature(&command) == Nature::Ephemeral {
            return Err(Error::Unreachable("not connected now".to_owned()));
        }
        if let Command::Subscribe(subscribe) = &command {
            self.subscriptions.handle_asked(subscribe);
        }
        Ok(self.commands.push(command, nonce, until_ms))
    }

    /// The attempt that [`Core::poll_connect`] asked for has signed in.
    pub(crate) fn handle_connected(&mut self, now_ms: u64, hello: &HelloReply) {
        assert!(matches!(self.phase, Phase::Connecting), "nobody asked for a connection");
        let dead_after_ms = (f64::from(hello.ping_ms.max(1)) * DEAD_AFTER_PINGS) as u64;
        self.phase =
            Phase::Up { since_ms: now_ms, heard_at_ms: now_ms, dead_after_ms, probed: false };
        self.connections += 1;
        self.expired = false;
        self.hangs_up = false;
        self.subscriptions.handle_connected(hello.user, hello.incarnation);
        self.emit(Update::Connected(Connected {
            user: hello.user,
            session: hello.session,
            incarnation: hello.incarnation,
            connections: self.connections,
        }));
        let resumed = std::mem::take(&mut self.resumed);
        self.handle_outcomes(now_ms, &hello.subscribed);
        for subscribe in resumed.subscribes {
            self.commands.push_own(subscribe.into(), 0);
        }
    }

    /// The attempt failed.
    pub(crate) fn handle_connect_failed(&mut self, now_ms: u64, error: Error) {
        self.handle_end(now_ms, error);
    }

    /// The connection ended.
    pub(crate) fn handle_lost(&mut self, now_ms: u64, error: Error) {
        if let Phase::Up { since_ms, .. } = self.phase
            && now_ms.saturating_sub(since_ms) >= STABLE_AFTER_MS
        {
            self.failures = 0;
        }
        self.handle_end(now_ms, error);
    }

    fn handle_end(&mut self, now_ms: u64, error: Error) {
        let was_up = matches!(self.phase, Phase::Up { .. });
        let Some(wait_ms) = self.wait_before_next(&error) else {
            return self.finish(error);
        };
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Down { connect_at_ms: now_ms.saturating_add(wait_ms) };
        self.hangs_up = false;
        self.pongs = 0;
        self.subscriptions.handle_lost();
        for (ticket, pending) in self.commands.handle_lost() {
            self.fail(ticket, &pending, error.clone());
        }
        if was_up {
            self.emit(Update::Disconnected(error));
        }
    }

    /// How long to wait before the next attempt, or none if there is to be none.
    fn wait_before_next(&mut self, error: &Error) -> Option<u64> {
        let (again, asked_ms, close) = match error {
            Error::Unreachable(_) | Error::Protocol(_) | Error::Token(_) => (true, None, None),
            Error::Closed(closed) => {
                (closed.reconnects(), closed.reconnect_after_ms, closed.known())
            }
            Error::Refused(refusal) => {
                let close = ErrorCode::from_number(refusal.code).and_then(ErrorCode::closes);
                let again = is_retried(refusal) || close.is_some_and(CloseCode::reconnects);
                (again, refusal.retry_after_ms, close)
            }
            _ => (false, None, None),
        };
        let renewed = close == Some(CloseCode::Expired) && self.settings.token_renews;
        let again = again || (renewed && !std::mem::replace(&mut self.expired, true));
        if !again || (self.connections == 0 && !self.settings.keep_trying) {
            return None;
        }
        if close == Some(CloseCode::Rate) {
            self.failures = self.failures.max(RATE_ATTEMPTS);
        }
        Some(self.settings.backoff.wait_ms(self.failures, asked_ms, &mut self.random))
    }

    /// The owner wants no more.
    pub(crate) fn handle_close(&mut self) {
        self.finish(Error::Ended { in_doubt: false });
    }

    fn finish(&mut self, error: Error) {
        for (ticket, pending) in self.commands.drain() {
            self.fail(ticket, &pending, error.clone());
        }
        self.phase = Phase::Finished(error);
    }

    fn fail(&mut self, ticket: Ticket, pending: &Pending, error: Error) {
        if pending.origin == Origin::Session {
            return;
        }
        let in_doubt = pending.in_doubt;
        let error = match error {
            Error::Ended { .. } => Error::Ended { in_doubt },
            error => error,
        };
        let (attempts, overtaken) = (pending.attempts, pending.last_refusal.is_some());
        let answer = Answer { ticket, outcome: Err(error), attempts, in_doubt, overtaken };
        self.output.push_back(Output::Answer(answer));
    }

    /// The owner could not take an event that was given out, nor what follows it.
    pub(crate) fn handle_put_aside(&mut self, channel: ChannelId, rev: Rev) {
        self.subscriptions.put_aside(channel, rev);
        self.output.retain(|output| match output {
            Output::Update(Update::Event(event)) => event.channel != channel,
            Output::Update(Update::Unknown(event)) => event.channel != channel,
            _ => true,
        });
    }

    /// The owner takes events again.
    pub(crate) fn handle_take_up(&mut self, now_ms: u64) {
        for subscribe in self.subscriptions.take_up() {
            self.commands.push_own(subscribe.into(), now_ms);
        }
    }

    /// Puts a fresh token in force on the present connection.
    pub(crate) fn handle_fresh_token(&mut self, token: &str) {
        if matches!(self.phase, Phase::Up { .. }) {
            let refresh = Refresh { token: token.to_owned() };
            self.commands.push_own(refresh.into(), 0);
        }
    }

    /// Time has passed.
    pub(crate) fn handle_time(&mut self, now_ms: u64) {
        for (ticket, pending) in self.commands.expire(now_ms) {
            let error = match (&pending.last_refusal, pending.in_doubt) {
                (Some(refusal), false) => Error::Refused(refusal.clone()),
                (_, in_doubt) => Error::TimedOut { in_doubt },
            };
            self.fail(ticket, &pending, error);
        }
        while let Some((channel, held, head)) = self.subscriptions.poll_behind(now_ms) {
            self.mend(now_ms, channel, Anomaly::Behind { channel, held, head });
        }
        self.listen(now_ms);
    }

    /// Gives a connection up on which nothing is heard, after having asked if something is to be
    /// heard.
    fn listen(&mut self, now_ms: u64) {
        let under_way = self.commands.under_way() > 0;
        let Phase::Up { heard_at_ms, dead_after_ms, probed, .. } = &mut self.phase else { return };
        let silent_ms = now_ms.saturating_sub(*heard_at_ms);
        self.hangs_up |= silent_ms >= *dead_after_ms;
        self.hangs_up |= under_way && *probed && silent_ms >= UNANSWERED_MAX_MS;
        if under_way && silent_ms >= PROBE_AFTER_MS && !std::mem::replace(probed, true) {
            self.commands.push_own(Ping {}.into(), 0);
        }
    }

    /// What to begin a connection with, when one is due. The owner answers with
    /// [`Core::handle_connected`] or [`Core::handle_connect_failed`].
    pub(crate) fn poll_connect(&mut self, now_ms: u64, cursor_max: usize) -> Option<Plan> {
        match self.phase {
            Phase::Down { connect_at_ms } if connect_at_ms <= now_ms => {
                self.phase = Phase::Connecting;
                self.resumed = self.subscriptions.resume(cursor_max);
                Some(Plan { resume: self.resumed.cursor.take() })
            }
            _ => None,
        }
    }

    /// The next frame to send.
    pub(crate) fn poll_transmit(&mut self, now_ms: u64) -> Option<ClientFrame> {
        if !matches!(self.phase, Phase::Up { .. }) {
            return None;
        }
        if self.pongs > 0 {
            self.pongs -= 1;
            let command = Command::Pong(Pong {});
            return Some(ClientFrame { id: 0, nonce: None, age_ms: 0, command });
        }
        let subscriptions = &self.subscriptions;
        self.commands.next_frame(now_ms, |command| {
            if let Command::Subscribe(subscribe) = command {
                subscriptions.renew(subscribe);
            }
        })
    }

    /// The next thing for the owner.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Whether the present connection is to be given up: it is dead, or cannot be mended.
    pub(crate) fn poll_hang_up(&mut self) -> Option<Closed> {
        std::mem::take(&mut self.hangs_up)
            .then(|| Closed::broken("nothing was heard, or a channel could not be mended"))
    }

    /// When [`Core::handle_time`] or [`Core::poll_connect`] is to be called next.
    pub(crate) fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        let phase = match self.phase {
            Phase::Down { connect_at_ms } => Some(connect_at_ms),
            Phase::Up { heard_at_ms, dead_after_ms, probed, .. } => {
                let silent_ms = match (self.commands.under_way(), probed) {
                    (0, _) => dead_after_ms,
                    (_, false) => PROBE_AFTER_MS.min(dead_after_ms),
                    (_, true) => UNANSWERED_MAX_MS.min(dead_after_ms),
                };
                Some(heard_at_ms + silent_ms)
            }
            Phase::Connecting | Phase::Finished(_) => None,
        };
        let commands = self.commands.next_due_ms(now_ms);
        phase.into_iter().chain(commands).chain(self.subscriptions.next_due_ms()).min()
    }

    /// Why it is over, if it is.
    pub(crate) fn finished(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Finished(error) => Some(error),
            _ => None,
        }
    }

    /// How many commands are unanswered.
    pub(crate) fn unanswered(&self) -> usize {
        self.commands.len()
    }

    fn emit(&mut self, update: Update) {
        self.output.push_back(Output::Update(update));
    }
}

//! A session that lasts: it connects again, resumes, retries by nonce and watches for gaps.
//!
//! [`Session`] is driven by its owner's task, without a task or a queue of its own;
//! [`crate::Client`] puts it behind a handle. The decisions are in `core`, which does no I/O.

mod backoff;
mod commands;
mod core;
mod subscriptions;
#[cfg(test)]
mod tests;
mod update;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use chappe_protocol::{
    ChannelId, CloseCode, Command, Encoding, Nonce, Rev, command::Hello,
    limits::FRAME_BYTES_MAX_BEFORE_HELLO, reply::HelloReply,
};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::core::{Core, Settings};
use self::core::{Output, Plan};
pub use self::{
    backoff::Backoff,
    commands::Ticket,
    core::Answer,
    update::{Anomaly, Connected, Update},
};
use crate::{
    clock::Clock,
    connection::Connection,
    dial::Dialer,
    error::Error,
    options::Options,
    token::{Token, TokenSource},
};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Bytes of `hello` that are not token, client name or cursor.
const HELLO_OVERHEAD_BYTES: usize = 512;
/// A token is replaced when this part of its remaining life is over.
const REFRESH_AT: f64 = 0.75;
/// How long after a failed refresh the next is tried.
const REFRESH_RETRY: Duration = Duration::from_secs(5);

/// What [`Session::next`] gives.
#[derive(Debug)]
pub enum Next {
    /// News.
    Update(Update),
    /// A command is answered.
    Answer(Answer),
    /// It is over, for this reason. Nothing follows.
    Finished(Error),
}

/// A session: one connection at a time, made again whenever it is lost.
///
/// Its owner submits commands and calls [`Session::next`] all the time: nothing is sent or
/// received otherwise.
pub struct Session {
    core: Core,
    wire: Wire,
    dialers: Vec<Dialer>,
    /// The server that is tried now; the next one after a failure.
    dialer: usize,
    tokens: TokenSource,
    /// The length of the token in force.
    token_bytes: usize,
    client: String,
    version: String,
    deadline_ms: u64,
    clock: Clock,
    timer: Pin<Box<Sleep>>,
    refresh: Refresh,
    nonces: Nonces,
}

enum Wire {
    Down,
    Connecting(Boxed<Result<(Connection, HelloReply, Token), Error>>),
    Up(Box<Connection>),
    Closing(Boxed<()>),
}

/// The replacement of the token in force.
enum Refresh {
    Idle,
    At(u64),
    Fetching(Boxed<Result<Token, String>>),
}

/// Makes nonces: a random prefix and a count.
struct Nonces {
    prefix: String,
    count: u64,
}

impl Session {
    /// Prepares a session, inside the runtime that is to drive it. The first connection is made by
    /// [`Session::next`].
    pub fn new(options: &Options) -> Result<Self, Error> {
        Self::with_dialers(options.dialers()?, options)
    }

    /// Prepares a session that shares what [`Options::dialers`] made.
    pub fn with_dialers(dialers: Vec<Dialer>, options: &Options) -> Result<Self, Error> {
        if dialers.is_empty() {
            return Err(Error::Config("no server to connect to".to_owned()));
        }
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| Error::Config(error.to_string()))?;
        let (prefix, seed) = (u64::from_le_bytes(first(&seed)), u64::from_le_bytes(last(&seed)));
        Ok(Self {
            core: Core::new(options.settings(seed)),
            wire: Wire::Down,
            dialers,
            dialer: 0,
            tokens: options.token.clone(),
            token_bytes: 0,
            client: options.client.clone(),
            version: options.version.clone(),
            deadline_ms: options.command_deadline.as_millis() as u64,
            clock: Clock::start(),
            timer: Box::pin(sleep_until(Instant::now())),
            refresh: Refresh::Idle,
            nonces: Nonces { prefix: format!("{prefix:016x}"), count: 0 },
        })
    }

    /// Queues a command. Without a nonce, one is made for those that change something.
    ///
    /// Fails with [`Error::Overloaded`] when too many are unanswered.
    pub fn submit(
        &mut self,
        command: impl Into<Command>,
        nonce: Option<Nonce>,
    ) -> Result<Ticket, Error> {
        let until_ms = self.clock.now_ms().saturating_add(self.deadline_ms);
        let command = command.into();
        let nonce = match nonce {
            None if commands::nature(&command) == commands::Nature::Change => self.nonces.next(),
            nonce => nonce,
        };
        self.core.handle_command(command, nonce, until_ms)
    }

    /// Puts a channel aside whose event, just given, the owner cannot take now: nothing more of
    /// it is given until [`Session::take_up`], which asks the server again from that event on.
    pub fn put_aside(&mut self, channel: ChannelId, rev: Rev) {
        self.core.handle_put_aside(channel, rev);
    }

    /// Goes on with the channels that were put aside.
    pub fn take_up(&mut self) {
        self.core.handle_take_up(self.clock.now_ms());
    }

    /// How many commands are unanswered.
    pub fn unanswered(&self) -> usize {
        self.core.unanswered()
    }

    /// Sends, receives, and gives what comes of it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Ends the session: unanswered commands fail, the server is told. [`Session::next`] gives
    /// the answers and then the end.
    pub fn close(&mut self) {
        self.core.handle_close();
        self.wire = match std::mem::replace(&mut self.wire, Wire::Down) {
            Wire::Up(connection) => {
                Wire::Closing(Box::pin(async move { connection.close(CloseCode::Normal).await }))
            }
            Wire::Closing(closing) => Wire::Closing(closing),
            Wire::Down | Wire::Connecting(_) => Wire::Down,
        };
    }

    /// See [`Session::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.core.poll_output() {
                Some(Output::Update(update)) => return Poll::Ready(Next::Update(update)),
                Some(Output::Answer(answer)) => return Poll::Ready(Next::Answer(answer)),
                None => {}
            }
            if let Poll::Ready(Some(end)) = self.poll_finished(cx) {
                return Poll::Ready(Next::Finished(end));
            }
            let now_ms = self.clock.now_ms();
            self.core.handle_time(now_ms);
            if self.poll_wire(cx, now_ms).is_ready() || self.poll_refresh(cx, now_ms).is_ready() {
                continue;
            }
            if self.poll_timer(cx, now_ms).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The reason of the end, once the farewell has left.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        let Some(error) = self.core.finished().cloned() else { return Poll::Ready(None) };
        if let Wire::Closing(closing) = &mut self.wire
            && closing.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.wire = Wire::Down;
        Poll::Ready(Some(error))
    }

    /// Moves what can be moved; ready when that changed something.
    fn poll_wire(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<()> {
        match &mut self.wire {
            Wire::Closing(_) => Poll::Pending,
            Wire::Down => match self.core.poll_connect(now_ms, self.cursor_max()) {
                Some(plan) => {
                    self.wire = Wire::Connecting(self.connect(plan));
                    Poll::Ready(())
                }
                None => Poll::Pending,
            },
            Wire::Connecting(connecting) => {
                match std::task::ready!(connecting.as_mut().poll(cx)) {
                    Ok((connection, hello, token)) => {
                        self.wire = Wire::Up(Box::new(connection));
                        self.refresh = self.refresh_of(&token, now_ms);
                        self.token_bytes = token.as_str().len();
                        self.core.handle_connected(now_ms, &hello);
                    }
                    Err(error) => {
                        self.wire = Wire::Down;
                        self.dialer = (self.dialer + 1) % self.dialers.len();
                        self.core.handle_connect_failed(now_ms, error);
                    }
                }
                Poll::Ready(())
            }
            Wire::Up(connection) => {
                if let Some(closed) = self.core.poll_hang_up() {
                    return self.handle_lost(now_ms, Error::Closed(closed));
                }
                match poll_connection(connection, &mut self.core, cx, now_ms) {
                    Poll::Ready(Ok(())) => Poll::Ready(()),
                    Poll::Ready(Err(error)) => self.handle_lost(now_ms, error),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn handle_lost(&mut self, now_ms: u64, error: Error) -> Poll<()> {
        self.wire = Wire::Down;
        self.refresh = Refresh::Idle;
        self.dialer = (self.dialer + 1) % self.dialers.len();
        self.core.handle_lost(now_ms, error);
        Poll::Ready(())
    }

    fn connect(&self, plan: Plan) -> Boxed<Result<(Connection, HelloReply, Token), Error>> {
        let dialer = self.dialers[self.dialer].clone();
        let (tokens, client, version) =
            (self.tokens.clone(), self.client.clone(), self.version.clone());
        Box::pin(async move {
            let token = tokens.fetch().await.map_err(Error::Token)?;
            let text = token.as_str().to_owned();
            let hello = Hello { token: text, client, version, resume: plan.resume };
            let (connection, reply) = Connection::sign_in(&dialer, hello).await?;
            Ok((connection, reply, token))
        })
    }

    /// How many channels fit into a `hello`, which is smaller than other frames.
    fn cursor_max(&self) -> usize {
        let entry_bytes = match self.dialers[self.dialer].encoding() {
            Encoding::Json => 40,
            Encoding::MessagePack => 20,
        };
        let fixed = self.client.len() + self.version.len() + HELLO_OVERHEAD_BYTES;
        // The next token is not at hand yet: about as long as the last one.
        FRAME_BYTES_MAX_BEFORE_HELLO.saturating_sub(fixed + self.token_bytes) / entry_bytes
    }

    fn poll_refresh(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<()> {
        match &mut self.refresh {
            Refresh::At(due_ms) if *due_ms <= now_ms => {
                let tokens = self.tokens.clone();
                self.refresh = Refresh::Fetching(Box::pin(async move { tokens.fetch().await }));
                Poll::Ready(())
            }
            Refresh::Idle | Refresh::At(_) => Poll::Pending,
            Refresh::Fetching(fetching) => {
                self.refresh = match std::task::ready!(fetching.as_mut().poll(cx)) {
                    Ok(token) => {
                        self.core.handle_fresh_token(token.as_str());
                        self.refresh_of(&token, now_ms)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no fresh token; the present one stays");
                        Refresh::At(now_ms + REFRESH_RETRY.as_millis() as u64)
                    }
                };
                Poll::Ready(())
            }
        }
    }

    fn refresh_of(&self, token: &Token, now_ms: u64) -> Refresh {
        let Some(expires_at_s) = token.expires_at_s().filter(|_| self.tokens.renews()) else {
            return Refresh::Idle;
        };
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(expires_at_s);
        let left = expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        // A provider that gives stale tokens is not asked in a tight loop.
        let wait = left.mul_f64(REFRESH_AT).max(Duration::from_secs(1));
        Refresh::At(now_ms + wait.as_millis() as u64)
    }

    /// Ready when something is due. The timer is only ever moved ahead: a frame that puts a
    /// deadline off does not touch it, and a timer that fires early is set anew.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<()> {
        let refresh_ms = match self.refresh {
            Refresh::At(due_ms) => Some(due_ms),
            Refresh::Idle | Refresh::Fetching(_) => None,
        };
        let Some(due_ms) = self.core.poll_timeout(now_ms).into_iter().chain(refresh_ms).min()
        else {
            return Poll::Pending;
        };
        let due = Instant::now() + Duration::from_millis(due_ms.saturating_sub(now_ms));
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx)
    }
}

/// Sends what waits and takes one frame.
fn poll_connection(
    connection: &mut Connection,
    core: &mut Core,
    cx: &mut Context<'_>,
    now_ms: u64,
) -> Poll<Result<(), Error>> {
    let sent = poll_send(connection, core, cx, now_ms);
    // What has arrived counts even if nothing can be sent any more: the last words of a server
    // that closes say what to do.
    match connection.poll_recv(cx) {
        Poll::Ready(Ok(frame)) => {
            core.handle_frame(now_ms, frame);
            Poll::Ready(Ok(()))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => match sent {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        },
    }
}

fn poll_send(
    connection: &mut Connection,
    core: &mut Core,
    cx: &mut Context<'_>,
    now_ms: u64,
) -> Result<(), Error> {
    while let Poll::Ready(ready) = connection.poll_ready(cx) {
        ready?;
        let Some(frame) = core.poll_transmit(now_ms) else { break };
        connection.start_send(&frame)?;
    }
    match connection.poll_flush(cx) {
        Poll::Ready(flushed) => flushed,
        Poll::Pending => Ok(()),
    }
}

impl Nonces {
    fn next(&mut self) -> Option<Nonce> {
        self.count += 1;
        Nonce::parse(format!("{}-{}", self.prefix, self.count)).ok()
    }
}

fn first(seed: &[u8; 16]) -> [u8; 8] {
    std::array::from_fn(|index| seed[index])
}

fn last(seed: &[u8; 16]) -> [u8; 8] {
    std::array::from_fn(|index| seed[index + 8])
}

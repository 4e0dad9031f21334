//! One signed-in connection: frames out, frames in, nothing remembered.
//!
//! It does not connect again, retry or watch for gaps: that is [`crate::Session`]'s part. Use it
//! directly where every frame matters, as in tests of a server.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use chappe_protocol::{
    ClientFrame, CloseCode, DecodeError, Encoding,
    command::{Command, Hello},
    frame::Incoming,
    reply::HelloReply,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    dial::{CONNECT_TIMEOUT, Dialer},
    error::{Closed, Error},
    link::Link,
};

/// Frames that may come before the reply to `hello`.
const EARLY_FRAMES_MAX: usize = 64;
/// The id of `hello`; a session's own ids start above it.
const HELLO_ID: u32 = 0;

/// One signed-in connection.
pub struct Connection {
    link: Link,
    encoding: Encoding,
    /// What is left of the last message, which may hold several frames.
    rest: Bytes,
    early: VecDeque<Frame>,
    /// The last word of a server that closes: says more than the transport's close does.
    closing: Option<Closed>,
}

/// A server's frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    incoming: Incoming,
    bytes: Bytes,
    encoding: Encoding,
}

impl Connection {
    /// Connects and signs in.
    pub async fn sign_in(dialer: &Dialer, hello: Hello) -> Result<(Self, HelloReply), Error> {
        let mut connection = Self::over(dialer.open().await?);
        let signing_in = connection.say_hello(hello);
        let reply = match timeout(CONNECT_TIMEOUT, signing_in).await {
            Ok(reply) => reply?,
            Err(_) => return Err(Error::Unreachable("no answer to the sign-in".to_owned())),
        };
        connection.link.open_lanes();
        Ok((connection, reply))
    }

    fn over(link: Link) -> Self {
        let encoding = link.encoding();
        Self { link, encoding, rest: Bytes::new(), early: VecDeque::new(), closing: None }
    }

    async fn say_hello(&mut self, hello: Hello) -> Result<HelloReply, Error> {
        let command = Command::Hello(hello);
        self.send(&ClientFrame { id: HELLO_ID, nonce: None, age_ms: 0, command }).await?;
        loop {
            let frame = poll_fn(|cx| self.poll_link(cx)).await?;
            match frame.incoming() {
                Incoming::Ok { id: HELLO_ID } => return frame.body(),
                Incoming::Error { id: Some(HELLO_ID) | None, error } => {
                    return Err(Error::Refused(error.clone()));
                }
                _ if self.early.len() < EARLY_FRAMES_MAX => self.early.push_back(frame),
                _ => return Err(Error::Protocol("no reply to hello".to_owned())),
            }
        }
    }

    /// How its frames are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Sends one frame and waits until the transport has it.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), Error> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(frame)?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Receives the next frame. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Frame, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Closes with a code and waits, at most a second, for the server to have heard it.
    pub async fn close(mut self, code: CloseCode) {
        let closing = poll_fn(|cx| self.link.poll_close(cx, code));
        // A server that does not answer the farewell is none of our concern any more.
        let _ = timeout(std::time::Duration::from_secs(1), closing).await;
    }

    /// Ready when [`Connection::start_send`] may be called.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.link.poll_ready(cx).map_err(|closed| self.ended(closed))
    }

    /// Takes one frame, which leaves with the next flush at the latest.
    pub fn start_send(&mut self, frame: &ClientFrame) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.encoding.encode(frame, &mut bytes);
        self.link.start_send(bytes).map_err(|closed| self.ended(closed))
    }

    /// Ready when everything that was taken has left.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.link.poll_flush(cx).map_err(|closed| self.ended(closed))
    }

    /// The next frame.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Error>> {
        match self.early.pop_front() {
            Some(frame) => Poll::Ready(Ok(frame)),
            None => self.poll_link(cx),
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Error>> {
        while self.rest.is_empty() {
            match ready!(self.link.poll_recv(cx)) {
                Ok(message) => self.rest = message,
                Err(closed) => return Poll::Ready(Err(self.ended(closed))),
            }
        }
        let frame = self.next_frame().map_err(|error| {
            Error::Protocol(format!("a frame of the server cannot be read: {error}"))
        })?;
        if let Incoming::Closing(closing) = frame.incoming() {
            self.closing = Some(Closed {
                code: Some(closing.code),
                reason: closing.message.clone(),
                reconnect_after_ms: closing.reconnect_after_ms,
            });
        }
        Poll::Ready(Ok(frame))
    }

    fn next_frame(&mut self) -> Result<Frame, DecodeError> {
        let (frame, rest) = self.encoding.split_frame(&self.rest)?;
        let bytes = self.rest.slice_ref(frame);
        self.rest = self.rest.slice_ref(rest);
        Frame::decode(self.encoding, bytes)
    }

    fn ended(&mut self, closed: Closed) -> Error {
        Error::Closed(self.closing.take().unwrap_or(closed))
    }
}

impl Frame {
    pub(crate) fn decode(encoding: Encoding, bytes: Bytes) -> Result<Self, DecodeError> {
        Ok(Self { incoming: encoding.decode_server(&bytes)?, bytes, encoding })
    }

    /// What it says.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// What it says, by value.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }

    /// The body of an `ok`, as the type that the command is answered with.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.encoding
            .decode_ok(&self.bytes)
            .map_err(|error| Error::Protocol(format!("a reply cannot be read: {error}")))
    }

    /// Its encoded form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

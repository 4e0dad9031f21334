//! A client of the wire protocol, whatever the transport: frames in, frames out, as JSON values.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::{
    Encoding, quic,
    server::{Run, Server},
    soon, ws,
};

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A WebSocket with JSON.
    WsJson,
    /// A WebSocket with MessagePack.
    WsMessagePack,
    /// QUIC.
    Quic,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WsJson, Self::WsMessagePack, Self::Quic];

    /// How its frames are encoded.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WsJson => Encoding::Json,
            Self::WsMessagePack | Self::Quic => Encoding::MessagePack,
        }
    }
}

/// What a connection brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Received<T> {
    /// A frame.
    Frame(T),
    /// Its end, with the server's code if it gave one.
    Closed(Option<u16>),
}

/// One connection.
pub struct Client {
    socket: Socket,
    transport: Transport,
    /// Frames that came in and were not asked for yet.
    waiting: VecDeque<Value>,
    closed: Option<Option<u16>>,
    next_id: u32,
    pings: usize,
    /// The reply to `hello`.
    pub hello: Value,
}

enum Socket {
    Ws(Box<ws::Socket>),
    Quic(Box<quic::Socket>),
}

impl Client {
    /// Connects, and says nothing.
    pub async fn connect(server: &Server, transport: Transport) -> Self {
        Self::connect_to(server.run(), transport).await
    }

    /// Connects to a server of which nothing is known but where it listens.
    pub async fn connect_to(run: &Run, transport: Transport) -> Self {
        let socket = soon("a connection", async {
            match transport {
                Transport::WsJson | Transport::WsMessagePack => {
                    Socket::Ws(Box::new(ws::Socket::connect(run, transport.encoding()).await))
                }
                Transport::Quic => Socket::Quic(Box::new(quic::Socket::connect(run).await)),
            }
        })
        .await;
        Self {
            socket,
            transport,
            waiting: VecDeque::new(),
            closed: None,
            next_id: 0,
            pings: 0,
            hello: Value::Null,
        }
    }

    /// Connects and signs in as a user.
    pub async fn signed_in(server: &Server, transport: Transport, user: &str) -> Self {
        Self::resumed(server, transport, user, None).await
    }

    /// Connects, signs in and resumes from a cursor, as `hello` takes it.
    pub async fn resumed(
        server: &Server,
        transport: Transport,
        user: &str,
        resume: Option<Value>,
    ) -> Self {
        let mut client = Self::connect(server, transport).await;
        client.sign_in(&server.token(user), resume).await;
        client
    }

    /// Says `hello` with a good token.
    pub async fn sign_in(&mut self, token: &str, resume: Option<Value>) {
        let mut hello = json!({"token": token, "client": "tests", "version": "1"});
        if let Some(cursor) = resume {
            hello["resume"] = cursor;
        }
        self.hello = self.ask(json!({"hello": hello})).await.expect("a good token signs in");
    }

    /// How it is connected.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Who it is signed in as.
    pub fn user(&self) -> String {
        self.hello["user"].as_str().expect("signed in").to_owned()
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) {
        self.send_bytes(self.transport.encoding().write(frame)).await;
    }

    /// Sends a message of these bytes, frame or not.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        match &mut self.socket {
            Socket::Ws(socket) => socket.send(bytes).await,
            Socket::Quic(socket) => socket.send(bytes).await,
        }
    }

    /// Sends a command and returns its id.
    pub async fn post(&mut self, mut command: Value) -> u32 {
        self.next_id += 1;
        command["id"] = self.next_id.into();
        self.send(&command).await;
        self.next_id
    }

    /// Sends a command and waits for its reply: the body of `ok`, or the error. What comes in
    /// between waits.
    pub async fn ask(&mut self, command: Value) -> Result<Value, Value> {
        let id = self.post(command).await;
        self.reply(id).await
    }

    /// Waits for the reply to the command with this id.
    pub async fn reply(&mut self, id: u32) -> Result<Value, Value> {
        let what = format!("the reply to {id}");
        let is_reply = |frame: &Value| frame["id"] == id;
        let mut reply = self.find(&what, is_reply).await;
        match reply.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(reply["ok"].take()),
        }
    }

    /// Waits for the next frame, whatever it is. The server's pings are answered and not shown.
    pub async fn recv(&mut self) -> Received<Value> {
        soon("a frame", self.receive()).await
    }

    /// The next frame, as long as the connection lives.
    pub async fn frame(&mut self) -> Value {
        match self.recv().await {
            Received::Frame(frame) => frame,
            Received::Closed(code) => panic!("closed with {code:?} instead of a frame"),
        }
    }

    /// Waits for the next event, and leaves what is none for later.
    pub async fn event(&mut self) -> Value {
        self.find("an event", |frame| frame.get("event").is_some()).await["event"].take()
    }

    /// Waits for the first frame for which `wanted` holds, and leaves the others for later.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut passed = VecDeque::new();
        let found = soon(what, async {
            loop {
                match self.receive().await {
                    Received::Frame(frame) if wanted(&frame) => break frame,
                    Received::Frame(frame) => passed.push_back(frame),
                    Received::Closed(code) => panic!("closed with {code:?} before {what}"),
                }
            }
        })
        .await;
        passed.append(&mut self.waiting);
        self.waiting = passed;
        found
    }

    /// Waits until the server has closed the connection, and returns its code.
    pub async fn closed(&mut self) -> Option<u16> {
        soon("the end of the connection", async {
            loop {
                if let Received::Closed(code) = self.receive().await {
                    break code;
                }
            }
        })
        .await
    }

    /// Does nothing but answer pings until the server closes the connection, however long that
    /// takes, and returns its code.
    pub async fn idle(&mut self) -> Option<u16> {
        loop {
            if let Received::Closed(code) = self.receive().await {
                return code;
            }
        }
    }

    /// The frames that came in and that nobody asked for.
    pub fn left_over(&self) -> Vec<Value> {
        self.waiting.iter().filter(|frame| frame.get("ping").is_none()).cloned().collect()
    }

    /// How often the server has pinged it.
    pub fn pings(&self) -> usize {
        self.pings
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        match &mut self.socket {
            Socket::Ws(socket) => socket.close(1000).await,
            Socket::Quic(socket) => socket.close(1000),
        }
    }

    /// The QUIC connection below, for what only QUIC has.
    pub fn quic(&mut self) -> &mut quic::Socket {
        match &mut self.socket {
            Socket::Quic(socket) => socket,
            Socket::Ws(_) => panic!("this is a WebSocket"),
        }
    }

    async fn receive(&mut self) -> Received<Value> {
        loop {
            while let Some(frame) = self.waiting.pop_front() {
                if frame.get("ping").is_none() {
                    return Received::Frame(frame);
                }
                self.pings += 1;
                self.send(&json!({"pong": {}})).await;
            }
            if let Some(code) = self.closed {
                return Received::Closed(code);
            }
            let received = match &mut self.socket {
                Socket::Ws(socket) => socket.recv().await,
                Socket::Quic(socket) => socket.recv().await,
            };
            match received {
                Received::Frame(message) => {
                    self.waiting.extend(self.transport.encoding().read(&message));
                }
                Received::Closed(code) => self.closed = Some(code),
            }
        }
    }
}

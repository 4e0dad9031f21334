//! A server that does what the test says, over WebSocket or QUIC.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use chappe_client::{Fingerprint, Options, Trust};
use chappe_protocol::{
    ChannelId, ClientFrame, Command, Encoding, Event, EventBody, Incarnation, Message, Rev, Seq,
    ServerFrame, SessionId, Text, UserId,
    command::Hello,
    event::MessageBody,
    limits::Limits,
    reply::{Change, HelloReply, Reply, Subscribed},
};
use futures_util::{SinkExt, StreamExt};
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message as WsMessage,
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    },
};

pub(crate) const ME: UserId = UserId::new(7);
pub(crate) const A: ChannelId = ChannelId::new(1);

/// A self-signed certificate for localhost and its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pub(crate) pem: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Self { certificate: made.cert.der().clone(), key, pem: made.cert.pem() }
    }

    pub(crate) fn fingerprint(&self) -> Trust {
        Trust::Fingerprint(Fingerprint::of(&self.certificate))
    }

    fn server_config(&self, alpn: &[u8]) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

/// A WebSocket listener.
pub(crate) struct WsServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl WsServer {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None }
    }

    pub(crate) async fn start_tls(identity: &Identity) -> Self {
        let config = identity.server_config(b"http/1.1");
        Self { tls: Some(TlsAcceptor::from(Arc::new(config))), ..Self::start().await }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let address = self.address();
        Options::new(&format!("{scheme}://{address}"), "token").unwrap()
    }

    /// The next connection, if its handshakes succeed.
    pub(crate) async fn try_accept(&self) -> Option<WsPeer> {
        let (stream, _) = self.listener.accept().await.unwrap();
        let stream: Box<dyn Duplex> = match &self.tls {
            Some(acceptor) => Box::new(acceptor.accept(stream).await.ok()?),
            None => Box::new(stream),
        };
        let mut encoding = None;
        // The signature is the library's.
        #[allow(clippy::result_large_err)]
        let choose = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            let asked = request.headers().get("sec-websocket-protocol").cloned().unwrap();
            encoding = [Encoding::Json, Encoding::MessagePack]
                .into_iter()
                .find(|encoding| encoding.subprotocol() == asked);
            response.headers_mut().insert("sec-websocket-protocol", asked);
            Ok(response)
        };
        let stream = accept_hdr_async(stream, choose).await.ok()?;
        Some(WsPeer { stream, encoding: encoding.unwrap() })
    }

    pub(crate) async fn accept(&self) -> WsPeer {
        self.try_accept().await.unwrap()
    }

    /// The next connection, signed in.
    pub(crate) async fn accept_signed_in(&self) -> (WsPeer, Hello) {
        let mut peer = self.accept().await;
        let hello = peer.sign_in(Vec::new()).await;
        (peer, hello)
    }

    /// Takes the next TCP connection and hangs up.
    pub(crate) async fn hang_up(&self) {
        drop::<(TcpStream, SocketAddr)>(self.listener.accept().await.unwrap());
    }
}

pub(crate) trait Duplex:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// The server's end of a WebSocket.
pub(crate) struct WsPeer {
    pub(crate) stream: WebSocketStream<Box<dyn Duplex>>,
    encoding: Encoding,
}

impl WsPeer {
    pub(crate) async fn recv(&mut self) -> ClientFrame {
        loop {
            match self.stream.next().await.unwrap().unwrap() {
                WsMessage::Text(text) => {
                    return self.encoding.decode_client(text.as_ref()).unwrap();
                }
                WsMessage::Binary(bytes) => return self.encoding.decode_client(&bytes).unwrap(),
                WsMessage::Ping(_) | WsMessage::Pong(_) => {}
                other => panic!("not a frame: {other:?}"),
            }
        }
    }

    /// Sends frames in one message.
    pub(crate) async fn send(&mut self, frames: &[ServerFrame<'_>]) {
        let mut bytes = Vec::new();
        for frame in frames {
            if self.encoding == Encoding::Json && !bytes.is_empty() {
                bytes.push(b'\n');
            }
            self.encoding.encode(frame, &mut bytes);
        }
        let message = match self.encoding {
            Encoding::Json => WsMessage::text(String::from_utf8(bytes).unwrap()),
            Encoding::MessagePack => WsMessage::binary(bytes),
        };
        self.stream.send(message).await.unwrap();
    }

    pub(crate) async fn ok(&mut self, id: u32, reply: Reply) {
        self.send(&[ServerFrame::Ok { id, ok: &reply }]).await;
    }

    pub(crate) async fn sign_in(&mut self, subscribed: Vec<Subscribed>) -> Hello {
        let frame = self.recv().await;
        let Command::Hello(hello) = frame.command else { panic!("not hello: {frame:?}") };
        self.ok(frame.id, hello_reply(subscribed)).await;
        hello
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.stream.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// A QUIC endpoint.
pub(crate) struct QuicServer {
    endpoint: quinn::Endpoint,
}

impl QuicServer {
    pub(crate) fn start(identity: &Identity) -> Self {
        let tls = identity.server_config(b"chappe/1");
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { endpoint: quinn::Endpoint::server(config, address).unwrap() }
    }

    pub(crate) fn options(&self, trust: Trust) -> Options {
        let url = format!("quic://{}", self.endpoint.local_addr().unwrap());
        Options::new(&url, "token").unwrap().trust(trust)
    }

    pub(crate) async fn try_accept(&self) -> Option<QuicPeer> {
        let connection = self.endpoint.accept().await.unwrap().await.ok()?;
        let (send, recv) = connection.accept_bi().await.ok()?;
        Some(QuicPeer { connection, control: (send, recv) })
    }

    pub(crate) async fn accept_signed_in(&self) -> (QuicPeer, Hello) {
        let mut peer = self.try_accept().await.unwrap();
        let hello = peer.sign_in().await;
        (peer, hello)
    }
}

/// The server's end of a QUIC connection.
pub(crate) struct QuicPeer {
    pub(crate) connection: quinn::Connection,
    control: (quinn::SendStream, quinn::RecvStream),
}

impl QuicPeer {
    pub(crate) async fn recv(&mut self) -> ClientFrame {
        let mut header = [0; 4];
        self.control.1.read_exact(&mut header).await.unwrap();
        let mut frame = vec![0; u32::from_le_bytes(header) as usize];
        self.control.1.read_exact(&mut frame).await.unwrap();
        Encoding::MessagePack.decode_client(&frame).unwrap()
    }

    pub(crate) async fn send(&mut self, frame: &ServerFrame<'_>) {
        self.control.0.write_all(&framed(frame)).await.unwrap();
    }

    pub(crate) async fn ok(&mut self, id: u32, reply: Reply) {
        self.send(&ServerFrame::Ok { id, ok: &reply }).await;
    }

    pub(crate) async fn sign_in(&mut self) -> Hello {
        let frame = self.recv().await;
        let Command::Hello(hello) = frame.command else { panic!("not hello: {frame:?}") };
        self.ok(frame.id, hello_reply(Vec::new())).await;
        hello
    }

    pub(crate) fn end_control(&mut self) {
        self.control.0.finish().unwrap();
    }

    pub(crate) async fn open_lane(&self, number: u8) -> quinn::SendStream {
        let mut lane = self.connection.open_uni().await.unwrap();
        lane.write_all(&[number]).await.unwrap();
        lane
    }

    pub(crate) fn datagram(&self, frame: &ServerFrame<'_>) {
        let mut bytes = Vec::new();
        Encoding::MessagePack.encode(frame, &mut bytes);
        self.connection.send_datagram(Bytes::from(bytes)).unwrap();
    }
}

pub(crate) fn framed(frame: &ServerFrame<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    Encoding::MessagePack.encode(frame, &mut payload);
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&payload);
    bytes
}

pub(crate) fn hello_reply(subscribed: Vec<Subscribed>) -> Reply {
    Reply::Hello(Box::new(HelloReply {
        user: ME,
        session: SessionId::new(1),
        incarnation: Incarnation(1),
        ping_ms: 25_000,
        limits: Limits::default(),
        server: "script".to_owned(),
        subscribed,
    }))
}

pub(crate) fn event(channel: ChannelId, rev: u64, text: &str) -> Event {
    let (seq, rev) = (Seq::new(rev), Rev::new(rev));
    let message = Message {
        seq,
        rev,
        changed: rev,
        by: ME,
        at: 0,
        text: Some(Text::parse(text).unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    };
    let body = EventBody::MessageCreated(MessageBody { message });
    Event { channel, rev, by: ME, at: 0, nonce: None, body }
}

pub(crate) fn change(channel: ChannelId, rev: u64) -> Reply {
    let (rev, seq) = (Rev::new(rev), Some(Seq::new(rev)));
    Reply::Change(Change { channel, rev, seq, at: 0, inbox: None })
}

pub(crate) fn subscribed(channel: ChannelId, rev: u64) -> Subscribed {
    let rev = Some(Rev::new(rev));
    Subscribed { channel, rev, head: rev, catching_up: false, error: None }
}

//! A gateway with its WebSocket listener, and clients of it.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "for tests, each of which uses a part of it"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chappe_gateway::{Config, Gateway, testing, testing::ToyBroker};
use chappe_gateway_ws::{Options, serve};
use chappe_protocol::{ChannelId, Encoding};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, protocol::CloseFrame},
};

pub struct Server {
    pub address: SocketAddr,
    pub gateway: Gateway,
    pub broker: ToyBroker,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Config::default(), Options::default()).await
    }

    pub async fn with(mut config: Config, options: Options) -> Self {
        config.shards = 1;
        config.origins.push("https://app.example.com".to_owned());
        let broker = ToyBroker::default();
        let auth = Arc::new(testing::authenticator());
        let gateway = Gateway::start(config, Arc::new(broker.clone()), auth).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(gateway.clone(), listener, options, std::future::pending()));
        Self { address, gateway, broker, tls: None }
    }

    /// The same over TLS, with a certificate that clients of this module believe.
    pub async fn with_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let options = Options { tls: Some(Arc::new(config)), ..Options::default() };
        let mut server = Self::with(Config::default(), options).await;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        server.tls = Some(Arc::new(client));
        server
    }

    /// Waits until something is so.
    pub async fn until(&self, so: impl Fn(&Self) -> bool) {
        let began = std::time::Instant::now();
        while !so(self) {
            assert!(began.elapsed() < Duration::from_secs(10), "it never became so");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn channel(&self, id: u64, members: &[&str]) {
        let users: Vec<_> = members.iter().map(|name| testing::user(name)).collect();
        self.broker.ask(|leader| leader.make(ChannelId::new(id), &users));
    }

    async fn dial(&self) -> Box<dyn Stream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        match &self.tls {
            None => Box::new(socket),
            Some(config) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let name = "localhost".try_into().unwrap();
                Box::new(connector.connect(name, socket).await.unwrap())
            }
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.gateway.stop();
    }
}

/// TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub struct Client {
    pub socket: WebSocketStream<Box<dyn Stream>>,
    pub encoding: Encoding,
}

impl Client {
    /// A client that has not said hello.
    pub async fn open(server: &Server, encoding: Encoding) -> Self {
        let mut request = server.url().into_client_request().unwrap();
        let protocol = HeaderValue::from_static(encoding.subprotocol());
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, response) = client_async(request, server.dial().await).await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol").unwrap();
        assert_eq!(chosen, encoding.subprotocol());
        Self { socket, encoding }
    }

    /// A client that brings its token in a header.
    pub async fn with_header(server: &Server, user: &str) -> Self {
        let mut request = server.url().into_client_request().unwrap();
        let token = format!("Bearer {}", testing::token(user));
        request.headers_mut().insert("authorization", token.parse().unwrap());
        let (socket, _) = client_async(request, server.dial().await).await.unwrap();
        Self { socket, encoding: Encoding::Json }
    }

    /// Sends bytes below the library.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).await.unwrap();
    }

    /// A client that is signed in.
    pub async fn connect(server: &Server, encoding: Encoding, user: &str) -> Self {
        let mut client = Self::open(server, encoding).await;
        let hello = format!(r#"{{"id":1,"hello":{{"token":"{}"}}}}"#, testing::token(user));
        let ok = client.ask(&hello).await;
        assert_eq!(ok["ok"]["user"], client.id(testing::user(user).get()), "{ok}");
        client
    }

    /// An id as this client's encoding shows it.
    pub fn id(&self, id: u64) -> Value {
        match self.encoding {
            Encoding::Json => Value::from(id.to_string()),
            Encoding::MessagePack => Value::from(id),
        }
    }

    /// Sends a frame, written in JSON, in its own encoding.
    pub async fn send(&mut self, frame: &str) {
        let message = match self.encoding {
            Encoding::Json => Message::text(frame),
            Encoding::MessagePack => {
                let frame = Encoding::Json.decode_client(frame.as_bytes()).unwrap();
                let mut bytes = Vec::new();
                Encoding::MessagePack.encode(&frame, &mut bytes);
                Message::binary(bytes)
            }
        };
        self.socket.send(message).await.unwrap();
    }

    /// Sends a command and waits for what comes next, which is its reply.
    pub async fn ask(&mut self, frame: &str) -> Value {
        self.send(frame).await;
        self.next().await
    }

    /// The next frame of the server.
    pub async fn next(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            Message::Binary(bytes) => rmp_serde::from_slice(&bytes).unwrap(),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next message of the server, control frames included.
    pub async fn message(&mut self) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await;
        next.expect("the server says something").expect("the connection is open").unwrap()
    }

    /// The close frame that the server sends, after whatever else it says.
    pub async fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            match self.message().await {
                Message::Close(Some(CloseFrame { code, .. })) => return (code.into(), before),
                Message::Text(text) => before.push(serde_json::from_str(&text).unwrap()),
                Message::Binary(bytes) => before.push(rmp_serde::from_slice(&bytes).unwrap()),
                _ => {}
            }
        }
    }

    /// Whether the connection ends here.
    pub async fn ended(&mut self) -> bool {
        !matches!(self.socket.next().await, Some(Ok(_)))
    }

    pub async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

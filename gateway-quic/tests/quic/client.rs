//! A client that is nothing but quinn: it says what a test wants said, byte by byte.

use std::{net::SocketAddr, sync::Arc};

use chappe_protocol::{
    ClientFrame, Command, Encoding,
    command::{Hello, Ping},
    frame::Incoming,
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
    crypto::rustls::QuicClientConfig,
};
use rustls::pki_types::CertificateDer;

use crate::{kernel::TOKEN, soon};

pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl Client {
    pub(crate) async fn connect(
        server: SocketAddr,
        certificate: &CertificateDer<'static>,
    ) -> Result<Self, ConnectionError> {
        let (endpoint, connection) =
            connect(server, config(certificate, &[b"chappe/1"], TransportConfig::default()))
                .await?;
        let (send, recv) = soon(connection.open_bi()).await?;
        Ok(Self { endpoint, connection, send, recv })
    }

    pub(crate) async fn hello(&mut self) {
        self.ask(1, hello()).await;
        assert!(matches!(self.next().await, Incoming::Ok { id: 1 }));
    }

    /// Sends a ping and waits for its answer: all before it was heard.
    pub(crate) async fn ping(&mut self, id: u32) {
        self.ask(id, Ping {}).await;
        loop {
            if self.next().await == (Incoming::Ok { id }) {
                return;
            }
        }
    }

    pub(crate) async fn ask(&mut self, id: u32, command: impl Into<Command>) {
        let frame = framed(&encoded(id, command));
        soon(self.send.write_all(&frame)).await.unwrap();
    }

    /// The next frame of the control stream.
    pub(crate) async fn next(&mut self) -> Incoming {
        frame(&mut self.recv).await.expect("a frame")
    }

    /// What came on the control stream until its end, and how the connection was closed.
    pub(crate) async fn end(&mut self) -> (Vec<Incoming>, ConnectionError) {
        let mut frames = Vec::new();
        while let Some(frame) = frame(&mut self.recv).await {
            frames.push(frame);
        }
        (frames, soon(self.connection.closed()).await)
    }
}

/// A connection without a control stream.
pub(crate) async fn connect(
    server: SocketAddr,
    config: ClientConfig,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(server, "localhost").unwrap();
    Ok((endpoint, soon(connecting).await?))
}

pub(crate) fn config(
    certificate: &CertificateDer<'static>,
    alpn: &[&[u8]],
    transport: TransportConfig,
) -> ClientConfig {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut tls =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

pub(crate) fn hello() -> Hello {
    let name = "test".to_owned();
    Hello { token: TOKEN.to_owned(), client: name, version: String::new(), resume: None }
}

pub(crate) fn encoded(id: u32, command: impl Into<Command>) -> Vec<u8> {
    let frame = ClientFrame { id, nonce: None, age_ms: 0, command: command.into() };
    let mut bytes = Vec::new();
    Encoding::MessagePack.encode(&frame, &mut bytes);
    bytes
}

pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], payload].concat()
}

/// The next frame of a stream, or none at its end.
pub(crate) async fn frame(stream: &mut RecvStream) -> Option<Incoming> {
    let mut header = [0; 4];
    soon(stream.read_exact(&mut header)).await.ok()?;
    let mut payload = vec![0; u32::from_le_bytes(header) as usize];
    soon(stream.read_exact(&mut payload)).await.ok()?;
    Some(Encoding::MessagePack.decode_server(&payload).unwrap())
}

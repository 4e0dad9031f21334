//! A QUIC connection: a control stream, the lanes that the server opens, datagrams. Each is read
//! by a task of its own, so that one lane can be left unread.

use std::{net::SocketAddr, sync::Arc};

use quinn::{
    Connection, Endpoint, RecvStream, SendStream, TransportConfig, crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

use crate::{client::Received, server::Run};

/// Frames that were read and not yet looked at. With it full, nothing more is read.
const FRAMES_WAITING_MAX: usize = 1_024;
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What one stream may bring that is not read yet: a lane that is left unread is soon full.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Where a frame came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The control stream.
    Control,
    /// The lane with this number.
    Lane(u8),
    /// A datagram.
    Datagram,
}

/// A connection.
pub struct Socket {
    endpoint: Endpoint,
    connection: Connection,
    control: SendStream,
    frames: mpsc::Receiver<(Origin, Vec<u8>)>,
    unread: watch::Sender<Option<u8>>,
    last_origin: Option<Origin>,
}

impl Socket {
    /// Connects, trusting the certificate by its fingerprint, and opens the control stream.
    pub async fn connect(run: &Run) -> Self {
        let connection_and_endpoint = dial(run, b"chappe/1").await;
        let (endpoint, connection) = connection_and_endpoint.unwrap();
        let (control, replies) = connection.open_bi().await.unwrap();
        let (sender, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        let (unread, unread_watch) = watch::channel(None);
        tokio::spawn(read_frames(replies, Origin::Control, sender.clone(), unread_watch.clone()));
        tokio::spawn(accept_lanes(connection.clone(), sender.clone(), unread_watch));
        tokio::spawn(read_datagrams(connection.clone(), sender));
        Self { endpoint, connection, control, frames, unread, last_origin: None }
    }

    /// Leaves a lane unread from its next frame on, or none.
    pub fn leave_unread(&self, lane: Option<u8>) {
        self.unread.send_replace(lane);
    }

    /// Moves to another port, as when a device changes its network.
    pub fn rebind(&self) {
        let before = self.endpoint.local_addr().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        self.endpoint.rebind(std::net::UdpSocket::bind(any).unwrap()).unwrap();
        assert_ne!(self.endpoint.local_addr().unwrap(), before, "it is another port");
    }

    /// Where the frame that was received last came in.
    pub fn last_origin(&self) -> Option<Origin> {
        self.last_origin
    }

    /// The connection itself, for what a client of ours would never do.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        let length = u32::try_from(bytes.len()).unwrap();
        self.send_bytes(&[&length.to_le_bytes()[..], &bytes].concat()).await;
    }

    /// Writes to the control stream as it is, without a length before it.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.control.write_all(bytes).await;
    }

    pub(crate) async fn recv(&mut self) -> Received<Vec<u8>> {
        // What was read before the end is still given.
        match self.frames.recv().await {
            Some((origin, frame)) => {
                self.last_origin = Some(origin);
                Received::Frame(frame)
            }
            None => Received::Closed(close_code(&self.connection.closed().await)),
        }
    }

    pub(crate) fn close(&self, code: u16) {
        self.connection.close(u32::from(code).into(), b"");
    }
}

/// Connects with an application protocol of the caller's choice.
pub async fn dial(
    run: &Run,
    alpn: &[u8],
) -> Result<(Endpoint, Connection), quinn::ConnectionError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned {
            fingerprint: run.fingerprint.clone(),
            provider,
        }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(STREAM_WINDOW_BYTES.into());
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connection = endpoint.connect_with(config, run.quic, "localhost").unwrap().await?;
    Ok((endpoint, connection))
}

/// The application's code that ended a connection.
pub fn close_code(error: &quinn::ConnectionError) -> Option<u16> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            u16::try_from(close.error_code.into_inner()).ok()
        }
        _ => None,
    }
}

type Frames = mpsc::Sender<(Origin, Vec<u8>)>;

async fn accept_lanes(connection: Connection, frames: Frames, unread: watch::Receiver<Option<u8>>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let mut number = [0];
        if stream.read_exact(&mut number).await.is_ok() {
            let origin = Origin::Lane(number[0]);
            tokio::spawn(read_frames(stream, origin, frames.clone(), unread.clone()));
        }
    }
}

async fn read_frames(
    mut stream: RecvStream,
    origin: Origin,
    frames: Frames,
    mut unread: watch::Receiver<Option<u8>>,
) {
    loop {
        let readable = |lane: &Option<u8>| lane.is_none_or(|lane| origin != Origin::Lane(lane));
        if unread.wait_for(readable).await.is_err() {
            return;
        }
        let mut length = [0; 4];
        if stream.read_exact(&mut length).await.is_err() {
            return;
        }
        let length = u32::from_le_bytes(length) as usize;
        assert!(length <= FRAME_BYTES_MAX, "the server announces {length} bytes");
        let mut frame = vec![0; length];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        if frames.send((origin, frame)).await.is_err() {
            return;
        }
    }
}

async fn read_datagrams(connection: Connection, frames: Frames) {
    while let Ok(datagram) = connection.read_datagram().await {
        // Datagrams are the frame itself, with or without room for another: lost when full.
        let _ = frames.try_send((Origin::Datagram, datagram.to_vec()));
    }
}

/// Trusts the one certificate whose fingerprint the server tells.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = Sha256::digest(certificate);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.fingerprint == format!("sha256:{hex}") {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(format!("the certificate is sha256:{hex}")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

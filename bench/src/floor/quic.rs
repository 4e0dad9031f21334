//! A bare quinn server with trimmed windows: the floor of an idle QUIC connection.
//!
//! It accepts, takes the client's first stream, answers its first message with one byte and then
//! holds the connection with one small task and one timer. No lanes, no session.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use quinn::{
    Endpoint, Incoming, ServerConfig, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Listening, tell};

/// The protocol that clients ask for, as Chappe names it.
pub(crate) const ALPN: &[u8] = b"chappe/1";
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
const DATAGRAM_BUFFER_BYTES: usize = 64 * 1024;
const FIRST_MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Serves until the process is ended.
pub(crate) fn run(cert: &Path, key: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = Endpoint::server(config(cert, key)?, ([127, 0, 0, 1], 0).into())?;
        tell(&Listening { addr: endpoint.local_addr()? })?;
        serve(endpoint).await;
        Ok(())
    })
}

/// Serves until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(shake(incoming));
    }
}

pub(crate) fn config(cert: &Path, key: &Path) -> Result<ServerConfig> {
    let certs = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut tls =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(trimmed()));
    Ok(config)
}

/// Limits for connections that carry little: quinn's own are for bulk.
pub(crate) fn trimmed() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(16))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .max_idle_timeout(Some(VarInt::from_u32(60_000).into()));
    transport
}

async fn shake(incoming: Incoming) {
    // A client that ends is no failure of the floor; the client counts what it got.
    drop(hold(incoming).await);
}

async fn hold(incoming: Incoming) -> Result<()> {
    let connection = incoming.await?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    let mut first = vec![0; FIRST_MESSAGE_BYTES_MAX];
    recv.read(&mut first).await?.context("a client that says nothing")?;
    drop(first);
    send.write_all(&[1]).await?;
    tokio::spawn(async move {
        connection.closed().await;
        drop((send, recv));
    });
    Ok(())
}

/// How often a client shows that it is there.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);

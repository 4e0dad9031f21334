//! The endpoint: takes handshakes, limits them, and hands each connection to the kernel.

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use chappe_gateway::frontend::{ConnectRefused, Kernel};
use chappe_protocol::CloseCode;
use quinn::{
    Connection, Endpoint, Incoming, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{sync::watch, time::timeout};

use crate::{
    admission::{Handshakes, Place},
    close::close_after,
    config::Config,
    link::QuicLink,
    meter,
};

/// The protocol that a client asks for in its handshake.
pub const ALPN: &[u8] = b"chappe/1";

/// The certificate in force; the sender swaps it when its file changes.
pub type TlsConfig = watch::Receiver<Arc<rustls::ServerConfig>>;

/// Opens the socket of `address` with buffers for many connections, as far as the system grants
/// them.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Serves QUIC until `stop`. The runtime that this runs on drives all connections: it must outlive
/// them.
///
/// Then nobody new is taken, and it returns when the kernel has closed the last connection or
/// after the configured time. Fails if the socket or the certificate cannot be used at all; a
/// later certificate that cannot be used leaves the one before in force.
pub async fn serve<K: Kernel>(
    socket: UdpSocket,
    mut tls: TlsConfig,
    kernel: K,
    config: Config,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let first = server_config(&tls.borrow_and_update(), &config)?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(config.endpoint(), Some(first), socket, runtime)?;
    let config = Arc::new(config);
    let handshakes = Handshakes::default();

    tokio::pin!(stop);
    let mut reloads = true;
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &kernel, &config, &handshakes),
                None => break,
            },
            changed = tls.changed(), if reloads => match changed {
                Ok(()) => match server_config(&tls.borrow_and_update(), &config) {
                    Ok(config) => endpoint.set_server_config(Some(config)),
                    Err(error) => tracing::warn!(%error, "the new certificate cannot be used"),
                },
                Err(_) => reloads = false, // there will be no other one
            },
            () = &mut stop => break,
        }
    }
    if timeout(config.stop_timeout, wait_idle(&endpoint)).await.is_err() {
        let code = CloseCode::Drain;
        endpoint.close(u32::from(code.number()).into(), code.name().as_bytes());
        endpoint.wait_idle().await;
    }
    Ok(())
}

/// Waits for the last connection to end, and refuses everybody new: who is refused tries another
/// gateway at once, who is ignored tries this one until its patience ends.
async fn wait_idle(endpoint: &Endpoint) {
    let idle = endpoint.wait_idle();
    tokio::pin!(idle);
    loop {
        tokio::select! {
            () = &mut idle => return,
            Some(incoming) = endpoint.accept() => incoming.refuse(),
        }
    }
}

fn server_config(tls: &rustls::ServerConfig, config: &Config) -> io::Result<ServerConfig> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // What comes before a handshake is complete can be replayed by who overheard it.
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(config.transport())
        .migration(true)
        .max_incoming(config.handshakes_max)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES_TOTAL);
    Ok(server)
}

/// Decides about a first packet, which costs next to nothing to send: a cheap answer until it is
/// worth more.
fn admit<K: Kernel>(incoming: Incoming, kernel: &K, config: &Arc<Config>, handshakes: &Handshakes) {
    let peer = incoming.remote_address().ip();
    let Some(place) = handshakes.enter(peer, config) else {
        meter::dropped("handshakes_full");
        return incoming.refuse();
    };
    if place.total > config.retry_above && incoming.may_retry() {
        meter::retried();
        drop(incoming.retry()); // it fails only if it may not
        return;
    }
    if kernel.admit(peer).is_err() {
        meter::dropped("not_admitted");
        return incoming.refuse();
    }
    tokio::spawn(greet(incoming, kernel.clone(), Arc::clone(config), place));
}

async fn greet<K: Kernel>(incoming: Incoming, kernel: K, config: Arc<Config>, place: Place) {
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%error, "a QUIC handshake could not begin");
            return meter::dropped("handshake");
        }
    };
    // Boxed, and dropped with the handshake: the connection's own life is not in this task.
    let connection = match timeout(config.handshake_timeout, Box::pin(connecting)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a QUIC handshake failed");
            return meter::dropped("handshake");
        }
        Err(_) => return meter::dropped("handshake_timeout"),
    };
    drop(place);
    meter::accepted();
    hand_over(connection, &kernel, &config).await;
}

async fn hand_over<K: Kernel>(connection: Connection, kernel: &K, config: &Config) {
    let (linked, linger) = (connection.clone(), config.linger);
    let make = Box::new(move || Ok(Box::new(QuicLink::new(linked, linger)) as Box<_>));
    let code = match kernel.connect(connection.remote_address().ip(), make) {
        Ok(()) => return,
        Err(ConnectRefused::Draining) => CloseCode::Drain,
        Err(ConnectRefused::TooMany) => CloseCode::Rate,
    };
    meter::dropped("not_connected");
    close_after(connection, None, Vec::new(), config.linger, code, code.name().to_owned()).await;
}

const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// What is kept of a client whose first packet was not answered yet.
const INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
const INCOMING_BUFFER_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

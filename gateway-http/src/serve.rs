//! The listener: accepts connections, counts them, and gives each its task.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use chappe_gateway::frontend::Kernel;
use chappe_protocol::{ErrorCode, WireError};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    admission::{Admission, Full},
    config::Config,
    connection::{Connection, Stopping},
    events::EventStreams,
    front::{Front, Shared},
    meter,
    problem::{self, Problem},
    rest::App,
    upgrade::Upgrade,
};

/// The certificate in force; the sender swaps it when its file changes.
pub type TlsConfig = watch::Receiver<Arc<rustls::ServerConfig>>;

/// Opens the listener of `address` with a backlog that outlasts a reconnect storm.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves HTTP, and what `upgrade` takes over at `/v1/ws`, until `stop`.
///
/// Then nothing new is accepted, requests under way are finished, and it returns when the last
/// one is or after the configured time. Streams of events end when the kernel closes their links.
/// Fails if the listener cannot be used at all; a failing `accept` is tried again.
pub async fn serve<K: Kernel>(
    listener: StdListener,
    tls: Option<TlsConfig>,
    kernel: K,
    upgrade: Option<Upgrade>,
    config: Config,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let config = Arc::new(config);
    let (stopping, seen) = watch::channel(Stopping::No);
    let event_streams = EventStreams::new(config.event_streams_max);
    let app = App { kernel, config: Arc::clone(&config), event_streams };
    let mut server = Server {
        shared: Arc::new(Shared::new(Arc::new(app), upgrade)),
        admission: Admission::new(&config),
        config,
        tls: tls.map(Certificate::new),
        stopping: seen,
    };

    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.admit(stream, peer),
                Err(error) => wait_after(&error).await,
            },
            () = &mut stop => break,
        }
    }
    drop(listener);
    stopping.send_replace(Stopping::Gracefully);
    if timeout(server.config.stop_timeout, server.admission.empty()).await.is_err() {
        stopping.send_replace(Stopping::Now);
        server.admission.empty().await;
    }
    Ok(())
}

struct Server<K> {
    shared: Arc<Shared<K>>,
    config: Arc<Config>,
    admission: Admission,
    tls: Option<Certificate>,
    stopping: watch::Receiver<Stopping>,
}

impl<K: Kernel> Server<K> {
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        meter::accepted();
        let exempt = self.config.trusted_proxies.iter().any(|proxy| proxy.contains(peer.ip()));
        let place = match self.admission.enter(peer.ip(), exempt) {
            Ok(place) => place,
            Err(Full::Total) => return self.turn_away(&stream, ErrorCode::Overloaded, "full"),
            Err(Full::Address) => {
                return self.turn_away(&stream, ErrorCode::TooManyConnections, "address_full");
            }
        };
        // A proxy's connections are judged by their requests, which name their clients.
        if !exempt && let Err(refused) = self.shared.kernel().admit(peer.ip()) {
            return self.turn_away(&stream, problem::refused(refused), "not_admitted");
        }
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        let connection = Connection {
            front: Front::new(Arc::clone(&self.shared), peer),
            config: Arc::clone(&self.config),
            stopping: self.stopping.clone(),
            place,
        };
        tokio::spawn(connection.serve(stream, self.tls.as_mut().map(Certificate::acceptor)));
    }

    /// Says no without reading the request; where a client wants TLS first, by closing.
    fn turn_away(&self, stream: &TcpStream, code: ErrorCode, reason: &'static str) {
        meter::dropped(reason);
        if self.tls.is_none() {
            let problem = Problem::from(WireError::new(code).retry_after(TURNED_AWAY_RETRY_MS));
            // A fresh socket's buffer takes it; if not, the connection closes without a word.
            drop(stream.try_write(&problem.to_bytes()));
        }
    }
}

/// The acceptor for the certificate in force.
struct Certificate {
    config: TlsConfig,
    acceptor: TlsAcceptor,
}

impl Certificate {
    fn new(mut config: TlsConfig) -> Self {
        let acceptor = acceptor(&config.borrow_and_update());
        Self { config, acceptor }
    }

    fn acceptor(&mut self) -> TlsAcceptor {
        // An error says that there will be no other certificate: the last one stays.
        if self.config.has_changed().unwrap_or(false) {
            self.acceptor = acceptor(&self.config.borrow_and_update());
        }
        self.acceptor.clone()
    }
}

fn acceptor(config: &Arc<rustls::ServerConfig>) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::clone(config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A peer that vanished is noticed within this time, also by a stream of events, which has no
    // other sign of life.
    SockRef::from(stream).set_tcp_user_timeout(Some(VANISHED_AFTER))
}

/// A connection that died in the backlog concerns nobody; a shortage (of descriptors, of memory)
/// passes only if we wait for it.
async fn wait_after(error: &io::Error) {
    let passing = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    if !passing.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept connections now");
        meter::dropped("accept");
        sleep(ACCEPT_AGAIN_AFTER).await;
    }
}

const BACKLOG: i32 = 4096;
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// When a client that was turned away should come again, in milliseconds.
const TURNED_AWAY_RETRY_MS: u64 = 1_000;
const VANISHED_AFTER: Duration = Duration::from_secs(60);

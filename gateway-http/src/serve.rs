//! The listener: accepts connections, counts them, and gives each its task.

use std::{
    future::Future,
    io::{self, Write},
    net::{SocketAddr, TcpListener as StdListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use chappe_gateway::frontend::Kernel;
use chappe_protocol::{ErrorCode, WireError};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    admission::{Admission, Full, Place},
    config::Config,
    connection::{Connection, Stopping},
    events::EventStreams,
    express::{Express, express},
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
    prepare(&socket)?; // before anybody can connect
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
    prepare(&SockRef::from(&listener))?;
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
            accepted = listener.accept() => {
                // The stream is registered with a runtime when it is known which one it stays on.
                let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
                match accepted {
                    Ok((stream, peer)) => server.admit(stream, peer),
                    Err(error) => wait_after(&error).await,
                }
            }
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
            Err(Full::Total) => return self.turn_away(stream, ErrorCode::Overloaded, "full"),
            Err(Full::Address) => {
                return self.turn_away(stream, ErrorCode::TooManyConnections, "address_full");
            }
        };
        // A proxy's connections are judged by their requests, which name their clients.
        if !exempt && let Err(refused) = self.shared.kernel().admit(peer.ip()) {
            return self.turn_away(stream, problem::refused(refused), "not_admitted");
        }
        let front = Front::new(Arc::clone(&self.shared), peer);
        let Some(tls) = &mut self.tls else {
            match express(stream, &front) {
                Express::Done => {}
                Express::Other(stream, read) => {
                    let connection = self.connection(front, place);
                    tokio::spawn(connection.serve_read(stream, read));
                }
                Express::Silent(stream) => {
                    tokio::spawn(self.connection(front, place).serve_silent(stream));
                }
            }
            return;
        };
        let tls = tls.acceptor();
        tokio::spawn(self.connection(front, place).serve_tls(stream, tls));
    }

    fn connection(&self, front: Front<K>, place: Place) -> Connection<K> {
        let (config, stopping) = (Arc::clone(&self.config), self.stopping.clone());
        Connection { front, config, stopping, place }
    }

    /// Says no without reading the request; where a client wants TLS first, by closing.
    fn turn_away(&self, mut stream: TcpStream, code: ErrorCode, reason: &'static str) {
        meter::dropped(reason);
        if self.tls.is_none() {
            let problem = Problem::from(WireError::new(code).retry_after(TURNED_AWAY_RETRY_MS));
            // A fresh socket's buffer takes it; if not, the connection closes without a word.
            drop(stream.write(&problem.to_bytes()));
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

/// Sets the options of a listener that the connections accepted from it inherit, for the price of
/// two calls instead of two for each.
fn prepare(listener: &Socket) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    listener.set_tcp_nodelay(true)?;
    // A peer that vanished is noticed within this time, also by a stream of events, which has no
    // other sign of life.
    listener.set_tcp_user_timeout(Some(VANISHED_AFTER))
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

//! A listener of its own: TCP, with or without TLS, and one route.
//!
//! It bounds what a stranger may cost before he has a session: the rate of handshakes of an
//! address, handshakes under way, header bytes and fields, and ten seconds for all of it.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chappe_gateway::frontend::Kernel;
use chappe_protocol::{ErrorCode, WireError};
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    handshake::{Upgrade, problem, upgrade},
    socket::Settle,
};

/// How a listener serves.
#[derive(Clone)]
pub struct Options {
    /// Serves WSS with this configuration.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Time for TLS and HTTP together.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once; more wait in the listener's backlog.
    pub handshakes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tls: None, handshake_timeout: Duration::from_secs(10), handshakes_max: 4_096 }
    }
}

/// Accepts connections at `/v1/ws` until `shutdown` is ready.
pub async fn serve<K: Kernel>(
    kernel: K,
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(options.handshakes_max));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            // Taken first: with none left nobody is accepted, and the backlog is what waits.
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|accepted| (permit, accepted))
        };
        let (permit, (socket, peer)) = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a client that was gone already: others may come.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        metrics::counter!("chappe_gateway_ws_accepted_total").increment(1);
        let _ = socket.set_nodelay(true); // what is flushed is complete: nothing is waited for
        tokio::spawn(meet(kernel.clone(), socket, peer, options.clone(), permit));
    }
}

/// Takes a connection through its handshakes.
async fn meet<K: Kernel>(
    kernel: K,
    socket: TcpStream,
    peer: SocketAddr,
    options: Options,
    permit: OwnedSemaphorePermit,
) {
    let handshake: Pin<Box<dyn Future<Output = ()> + Send>> = match options.tls.clone() {
        _ if kernel.admit(peer.ip()).is_err() => Box::pin(turn_away(socket, options.tls.is_none())),
        None => Box::pin(shake(kernel, socket, peer, "ws")),
        Some(config) => Box::pin(async move {
            match TlsAcceptor::from(config).accept(socket).await {
                Ok(socket) => shake(kernel, socket, peer, "wss").await,
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        }),
    };
    if tokio::time::timeout(options.handshake_timeout, handshake).await.is_err() {
        metrics::counter!("chappe_gateway_ws_handshake_timeouts_total").increment(1);
    }
    drop(permit);
}

/// Says that there is no room. Over TLS that would cost a handshake, so nothing is said.
async fn turn_away(mut socket: TcpStream, plain: bool) {
    metrics::counter!("chappe_gateway_ws_turned_away_total").increment(1);
    if plain {
        let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\
                      Connection: close\r\n\r\n";
        let _ = socket.write_all(answer.as_bytes()).await; // whether he hears it is his business
        let _ = socket.shutdown().await;
    }
}

/// Speaks HTTP until the request that upgrades, then hands the bare socket over.
async fn shake<K, S>(kernel: K, socket: S, peer: SocketAddr, transport: &'static str)
where
    K: Kernel,
    S: Settle + AsyncRead + AsyncWrite + Unpin,
{
    let agreed = Mutex::new(None);
    let service = service_fn(|mut request: Request<Incoming>| {
        let upgraded = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let response = match decide(&kernel, &parts, peer) {
            Ok(upgrade) => {
                let mut response = Response::new(Full::new(Bytes::new()));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().extend(upgrade.headers.clone());
                *lock(&agreed) = Some((upgrade, upgraded));
                response
            }
            Err(response) => {
                let mut response = response.map(Full::new);
                let close = HeaderValue::from_static("close");
                response.headers_mut().entry(header::CONNECTION).or_insert(close);
                response
            }
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a handshake failed");
    }
    let Some((upgrade, upgraded)) = lock(&agreed).take() else { return };
    let Ok(upgraded) = upgraded.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else { return };
    let (socket, read_ahead) = (parts.io.into_inner(), parts.read_buf);
    if let Err(refused) = upgrade.hand_over(&kernel, socket, read_ahead, transport) {
        tracing::debug!(%refused, "a connection was refused after its handshake");
    }
}

fn decide<K: Kernel>(
    kernel: &K,
    parts: &Parts,
    peer: SocketAddr,
) -> Result<Upgrade, Box<Response<Bytes>>> {
    if parts.headers.get_all(header::HOST).iter().count() != 1 {
        let error = WireError::with_message(ErrorCode::Invalid, "a request names one host");
        return Err(problem(StatusCode::BAD_REQUEST, &error));
    }
    if parts.uri.path() != PATH {
        return Err(problem(StatusCode::NOT_FOUND, &WireError::new(ErrorCode::NotFound)));
    }
    upgrade(kernel, parts, peer)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PATH: &str = "/v1/ws";
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

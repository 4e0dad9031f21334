//! The way out of HTTP: how a WebSocket frontend is mounted at `/v1/ws` without either crate
//! naming the other.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio_rustls::server::TlsStream;

/// Decides about a `GET /v1/ws`: the headers of the `101` and who takes the socket then, or the
/// whole refusal.
///
/// Host, origin and URL were checked before; the `Origin` of our own page, which is on no list, is
/// not passed on. The address is the client's, behind trusted proxies the one that they tell. It
/// is called on the thread of HTTP, must not block, and may be asked twice about one request.
pub type Upgrade = Arc<
    dyn Fn(&http::request::Parts, SocketAddr) -> Result<Accepted, Box<http::Response<Bytes>>>
        + Send
        + Sync,
>;

/// The request may leave HTTP.
pub struct Accepted {
    /// The headers of the `101`, `Connection` and `Upgrade` included.
    pub headers: HeaderMap,
    /// Called with the socket once the `101` is written. Nothing of HTTP is left behind it.
    pub take: TakeSocket,
}

/// Takes over a connection that left HTTP.
pub type TakeSocket = Box<dyn FnOnce(Switched) + Send>;

/// A connection that left HTTP.
pub struct Switched {
    /// Its socket.
    pub socket: Socket,
    /// What the client sent behind its request, which was read with it.
    pub read_ahead: Bytes,
}

/// A socket, with TLS or without.
pub enum Socket {
    /// Without: non-blocking, and registered with no runtime.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<tokio::net::TcpStream>>),
}

//! What an operator may set of the HTTP frontend.

use std::time::Duration;

use crate::network::Network;

/// The settings. [`Config::default`] suits one machine that faces its clients itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// The proxies whose `X-Forwarded-For` is believed. Nobody else's is read.
    pub trusted_proxies: Vec<Network>,
    /// The `Host` names that are served, without port; empty for any.
    pub hosts: Vec<String>,
    /// Whether anything but the upgrade is served.
    pub rest: Rest,
    /// Whether a port with a certificate also serves clients that do not use it.
    pub plaintext: Plaintext,
    /// Most connections that are inside HTTP. A connection that was upgraded no longer counts.
    pub connections_max: usize,
    /// Most of them from one address (an IPv6 /64 counts as one). Trusted proxies are exempt.
    pub connections_per_address_max: usize,
    /// Most streams of server-sent events.
    pub event_streams_max: usize,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// How long a request's head may take, and how long a connection may be idle before it.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a response may take to leave without the client reading any of it.
    pub stall_timeout: Duration,
    /// How long open requests may go on once the server stops.
    pub stop_timeout: Duration,
}

/// What a port serves beside the upgrade to a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Every route.
    Served,
    /// Nothing: another port does.
    Absent,
}

/// What a port with a certificate does with a client that speaks plain HTTP to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Serves it.
    Served,
    /// Closes the connection.
    Refused,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            hosts: Vec::new(),
            rest: Rest::Served,
            plaintext: Plaintext::Refused,
            connections_max: 16_384,
            connections_per_address_max: 4_096,
            event_streams_max: 4_096,
            tls_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// Largest head of a request in bytes, `Last-Event-ID` apart.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest `Last-Event-ID`: a cursor of 1,000 channels takes 28 KiB.
pub(crate) const LAST_EVENT_ID_BYTES_MAX: usize = 32 * 1024;
/// Most headers of a request.
pub(crate) const HEADERS_MAX: usize = 100;
/// Where hyper itself gives up, without a coded answer: far enough above our own limits that
/// what is a little too large still gets one.
pub(crate) const HYPER_HEAD_BYTES_MAX: usize = 96 * 1024;
/// See [`HYPER_HEAD_BYTES_MAX`].
pub(crate) const HYPER_HEADERS_MAX: usize = 200;

//! What an operator may set of the QUIC frontend, and what it tells quinn.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

/// The settings. [`Config::default`] suits many mostly idle connections.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most handshakes under way. More are refused.
    pub handshakes_max: usize,
    /// Most of them from one address (an IPv6 /64 counts as one).
    pub handshakes_per_address_max: usize,
    /// With more handshakes under way than this, a client first proves its address (a retry).
    pub retry_above: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// A connection that hears nothing for this long is dead.
    pub idle_timeout: Duration,
    /// A connection on which nothing was said for this long gets a packet that keeps it alive.
    pub keep_alive: Duration,
    /// How long a closed connection may take to hear what was sent before.
    pub linger: Duration,
    /// How long open connections may go on once the server stops.
    pub stop_timeout: Duration,
    /// A secret that outlives the process: a server that starts with it again on the same address
    /// tells the clients of the one before, at their next packet, that their connections are gone
    /// (a stateless reset, RFC 9000, 10.3). Without it they find out by their idle timeout.
    pub reset_key: Option<[u8; 32]>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshakes_max: 2_048,
            handshakes_per_address_max: 512,
            retry_above: 256,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(20),
            linger: Duration::from_secs(2),
            stop_timeout: Duration::from_secs(5),
            reset_key: None,
        }
    }
}

impl Config {
    /// The endpoint's keys.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let Some(key) = &self.reset_key else { return EndpointConfig::default() };
        let (reset, ids) = key.split_at(24);
        let reset = hmac::Key::new(hmac::HMAC_SHA256, reset);
        let mut config = EndpointConfig::new(Arc::new(reset));
        // A reset is sent only for an id that the generator recognises as its own.
        let mut id_key = [0; 8];
        id_key.copy_from_slice(ids);
        let id_key = u64::from_le_bytes(id_key);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
        config
    }

    /// The transport's limits. Everything a client may make us hold is bounded here: one stream
    /// of its own, its unread bytes, its datagrams, our unacknowledged bytes.
    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
            .send_window(SEND_WINDOW_BYTES)
            .send_fairness(false)
            .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES))
            .datagram_send_buffer_size(DATAGRAM_SEND_BYTES)
            .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
            .initial_rtt(INITIAL_RTT)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keep_alive));
        Arc::new(transport)
    }
}

/// Unread bytes that a client may send ahead. A larger frame arrives in pieces.
const RECEIVE_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of ours that may be on their way, unacknowledged.
const SEND_WINDOW_BYTES: u64 = 256 * 1024;
/// Datagrams that wait to be read; older ones give way.
const DATAGRAM_RECEIVE_BYTES: usize = 16 * 1024;
/// Datagrams that wait to be sent; older ones give way.
const DATAGRAM_SEND_BYTES: usize = 64 * 1024;
/// A handshake that comes out of order.
const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;
/// Before it is measured. The protocol's default is a third of a second, which makes a lost first
/// packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);

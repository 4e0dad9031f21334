//! The QUIC frontend: an endpoint that takes handshakes, and one [`Link`] for each connection.
//!
//! The wire is `chappe/1`: the client's first bidirectional stream is control; events come on up
//! to eight streams that the server opens, chosen by the channel; signals come as datagrams. On a
//! stream each frame has its length before it, a u32 in little-endian; a server's stream begins
//! with its lane's number. It knows nothing of sessions or channels.
//!
//! [`Link`]: chappe_gateway::link::Link

mod admission;
mod close;
mod config;
mod inbox;
mod lane;
mod link;
mod meter;
mod serve;

pub use config::Config;
pub use serve::{ALPN, TlsConfig, bind, serve};

//! The kernel of a gateway: sessions, hub, catch-up, auth, limits and drain, for any transport.
//!
//! It opens no socket and reaches neither log nor store: connections come to it as [`link::Link`]s,
//! and everything it knows of channels comes through the uplink.

pub mod frontend;
pub mod link;

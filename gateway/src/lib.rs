//! The kernel of a gateway: sessions, hub, catch-up, auth, limits and drain, for any transport.
//!
//! It opens no socket and reaches neither log nor store: connections come to it as [`link::Link`]s,
//! and everything it knows of channels comes through the uplink.

pub mod auth;
mod beacon;
mod catch_up;
pub mod clock;
pub mod config;
mod desk;
pub mod frontend;
mod gateway;
mod hub;
mod limits;
pub mod link;
mod presence;
mod session;
mod shard;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod uplink;
mod weight;
mod wheel;

pub use self::{config::Config, gateway::Gateway};

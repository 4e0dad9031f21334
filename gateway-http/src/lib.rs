//! The HTTP frontend: REST for every command, server-sent events for who only reads, the page to
//! try it in, and the door through which a WebSocket leaves HTTP.
//!
//! It holds no session and knows no permission: a request becomes one command to the kernel, a
//! stream of events one link. Nor does it know what is behind `/v1/ws`; it hands the socket over.

mod admission;
mod batch;
mod config;
mod connection;
mod events;
mod express;
mod front;
mod meter;
mod network;
mod page;
mod problem;
mod request;
mod rest;
pub mod routes;
mod serve;
pub mod upgrade;

pub use batch::BATCH_ITEMS_MAX;
pub use config::{Config, Plaintext, Rest};
pub use network::{Network, ParseNetworkError};
pub use serve::{TlsConfig, bind, serve};
pub use upgrade::Upgrade;

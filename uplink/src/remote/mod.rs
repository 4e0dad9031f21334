//! The uplink between processes: brokers listen, gateways connect to all of them.
//!
//! A gateway's shard opens one pipe, as it does to a broker in its own process. Behind it stands a
//! [`Remote`]: a connection to each broker, each of which says what it leads, and the routes that
//! follow from that. On the broker's side every connection is a pipe of the broker in that
//! process.
//!
//! People ask over it too, how the brokers stand: [`ask()`].

mod ask;
mod dial;
mod listen;
mod name;
mod register;
mod router;
mod routes;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

pub use ask::{Asked, ask};
pub use listen::listen;
pub use router::Remote;
pub use tls::{TlsError, TlsFiles};
pub use wire::Patience;

//! The ports of Chappe and the backends behind them.
//!
//! A port is a trait with a written contract ([`log`], [`ownership`], [`store`], [`presence`],
//! [`blobs`]); each of its backends is a module beside it and passes the port's conformance suite.
//! No driver's type crosses a port, and nothing here knows of sessions or of what a leader does.
#![warn(missing_docs)]

pub mod blobs;
#[cfg(feature = "runtime")]
mod folder;
pub mod log;
#[cfg(feature = "runtime")]
pub mod ownership;
pub mod presence;
#[cfg(all(test, feature = "runtime"))]
mod servers;
pub mod store;

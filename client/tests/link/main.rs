//! The client over real sockets, against a server that follows a script.

#![allow(clippy::unwrap_used)] // helpers of tests: a failure is to stop the test

mod quic;
mod server;
mod ws;

//! What black-box tests need: a real server on ports of its own, and clients written from the
//! protocol's document alone, not from our own client.
//!
//! ```no_run
//! # async fn example() {
//! use chappe_tests::{Client, Server, Transport};
//! use serde_json::json;
//!
//! let server = Server::start().await;
//! let mut alice = Client::signed_in(&server, Transport::Quic, "alice").await;
//! let made = alice.ask(json!({"create_channel": {"kind": "public", "name": "news"}})).await;
//! assert_eq!(made.unwrap()["rev"], 1);
//! # }
//! ```
#![warn(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod binary;
mod client;
pub mod cluster;
mod encoding;
mod files;
pub mod http;
pub mod quic;
pub mod relay;
mod server;
pub mod services;
pub mod token;
mod ws;

pub use binary::{chappe, chappe_load};
pub use client::{Client, Received, Transport};
pub use encoding::Encoding;
pub use files::allow_open_files;
pub use server::{Run, Server, ServerBuilder};

use std::time::Duration;

/// How long anything may take that is expected to happen soon. A test that waits this long fails.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits for something that is expected to happen, and fails with its name when it does not.
#[track_caller]
pub fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let (what, place) = (what.to_owned(), std::panic::Location::caller());
    async move {
        let outcome = tokio::time::timeout(SOON, future).await;
        outcome.unwrap_or_else(|_| panic!("{place}: {what} did not happen in {SOON:?}"))
    }
}

/// A text that was never used before, for names and nonces.
pub fn fresh(prefix: &str) -> String {
    format!("{prefix}-{:016x}", getrandom::u64().unwrap())
}

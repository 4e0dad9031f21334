//! The floors: the least that a program must do for the same outcome, and nothing else.
//!
//! They hold no session, check no token, keep no record. What Chappe costs above them is the price
//! of what it promises.

pub(crate) mod append;
pub(crate) mod quic;
pub(crate) mod websocket;

use std::{io::Write, net::SocketAddr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What a floor that listens prints once it does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    pub(crate) addr: SocketAddr,
}

/// Prints one line for the program that started this one.
pub(crate) fn tell<T: Serialize>(what: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

//! `chappe-load` as its users run it, against a server that keeps its promises or breaks one.

#![allow(clippy::unwrap_used)] // helpers of tests: a failure is to stop the test

mod broken;
mod command;
mod proxy;
mod real;
mod restart;
mod server;
mod status;

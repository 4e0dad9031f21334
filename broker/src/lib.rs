//! The partitioned broker: it gives the partition cores threads, a log, a store and pipes.
//!
//! The cores (`chappe-partition`) decide; nothing here does. It names no backend and never sees a
//! client's frame.
//!
//! ```text
//!   gateway ── pipe ──┐                                ┌── log
//!   gateway ── pipe ──┤ driver (a thread): inputs →    ├── store
//!   relays ─── pipe ──┘ cores → actions                └── responses on the pipes
//! ```
#![warn(missing_docs)]

pub mod adoption;
mod budget;
mod clock;
mod config;
mod driver;
mod fit;
mod leading;
mod lineage;
mod local;
pub mod migration;
mod overview;
mod sealing;
mod start;
mod weight;

pub use chappe_partition::{Bounds, Leadership, Sealing};
pub use config::Config;
pub use lineage::{LineageError, WhenEmpty, genesis, is_genesis};
pub use local::LocalBroker;
pub use sealing::Seal;
pub use start::{Join, JoinError, Joined, Parts, Running, StartError, create, start};

//! The core of Chappe's broker: one partition, from the command to the fact and its projection.
//!
//! A [`Partition`] is fed and drained. Its driver hands it requests, acknowledgements, rows and the
//! time (`handle_*`) and does what it asks for ([`Partition::poll_action`]): append, read, write,
//! answer. Nothing in here has a clock, randomness, a thread or a socket, so that a test or a
//! simulator can be its driver.
//!
//! What it does is said once, in [`record`] (what the log holds), [`count`] (which of it counts),
//! [`project`] (what it makes of the store's rows) and the modules of the machine itself.
#![warn(missing_docs)]

mod action;
mod answers;
mod append;
mod attach;
mod channel;
mod command;
mod config;
mod confirm;
pub mod count;
mod decide;
mod event;
mod expiry;
mod halt;
mod hand_over;
mod hot;
mod id_map;
mod intake;
mod jobs;
mod lease;
mod load;
mod names;
mod nonces;
mod noted;
mod order;
mod partition;
pub mod project;
mod projection;
mod read;
pub mod record;
mod relay;
pub mod row;
mod rows_wanted;
mod seal;
mod slot;
mod tail;
mod takeover;
mod tally;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use action::{Action, Outcome, PipeId, StoreFound, StoreRead};
pub use config::{Assignment, Bounds, Config, Leadership, Now};
pub use halt::{Halt, Poison};
pub use partition::{Partition, Standing};
pub use seal::Sealing;
pub use tally::Tally;

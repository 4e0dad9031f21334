//! Properties of the codec over arbitrary frames and arbitrary bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod arbitrary;
mod hostile_input;
mod round_trips;

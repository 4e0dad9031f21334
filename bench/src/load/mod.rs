//! The load: many raw connections in one thread, and the check of what they received.

pub(crate) mod audit;
pub(crate) mod generator;
pub(crate) mod link;
pub(crate) mod quic;
pub(crate) mod session;
pub(crate) mod stream;

#[cfg(test)]
mod tests;

//! The WebSocket frontend.
//!
//! It takes a connection from its handshake to a [`Link`](chappe_gateway::link::Link) on a shard
//! and knows the transport's rules: masks, fragments, control frames, sizes, the closing
//! handshake. It knows nothing of sessions or channels. A connection that left HTTP elsewhere
//! comes in by [`upgrade`]; alone, [`serve`] listens for itself.
//!
//! An idle connection holds its socket and no buffer: it is read into the shard's.

mod close;
mod handshake;
mod inbound;
mod link;
mod mask;
mod serve;
mod socket;

pub use self::{
    handshake::{Upgrade, upgrade},
    inbound::Kind,
    link::WsLink,
    serve::{Options, serve},
    socket::{Settle, Socket},
};

//! What all sessions of a shard share: the hub, the limits, the keys, the time, and what the
//! shard's driver is to do next.

use std::{collections::VecDeque, sync::Arc};

use chappe_protocol::{CloseCode, SessionId, UserId, WireError, reply::Reply};

use crate::{auth::Authenticator, clock::Now, config::Config, hub::Hub, limits::Gate};

/// Shared by a shard's sessions.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) hub: Hub,
    pub(crate) now: Now,
    effects: VecDeque<Effect>,
    /// Connections that are to be closed once what waits for them was sent.
    pub(crate) closing: Vec<u32>,
    /// Connections that are not read until less waits for them.
    pub(crate) deaf: Vec<u32>,
    /// Numbers drawn at random by the driver, for sessions.
    pub(crate) seed: u64,
    drawn: u64,
}

/// What the driver of a shard is to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Tell the link that its session is signed in.
    SignedIn(u32),
    /// Wait until the issuer was asked for keys, then say so to this connection's session.
    AwaitKeys(u32),
    /// Read from the link again: its session takes more.
    Wake(u32),
    /// Close the link.
    Close(u32, CloseCode),
    /// Drop the link.
    Drop(u32),
    /// Ask who of these is connected, for an operation of this connection's session.
    LookUp {
        /// The connection.
        peer: u32,
        /// The operation.
        serial: u64,
        /// Whom.
        users: Vec<UserId>,
    },
    /// Answer a call.
    Answer(u64, Box<Result<Reply, WireError>>),
}

impl Desk {
    pub(crate) fn new(
        config: Arc<Config>,
        auth: Arc<Authenticator>,
        gate: Arc<Gate>,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut hub = Hub::new(&config.limits, &config.timing);
        hub.handle_time(now.boot_ms);
        Self {
            hub,
            config,
            auth,
            gate,
            now,
            effects: VecDeque::new(),
            closing: Vec::new(),
            deaf: Vec::new(),
            seed,
            drawn: 0,
        }
    }

    /// Asks the driver for something.
    pub(crate) fn ask(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// What the driver is to do next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether half of what may wait for a connection does.
    pub(crate) fn has_much_waiting(&self, peer: u32) -> bool {
        let waiting = self.hub.peers.get(peer).map_or(0, |peer| peer.outlet.waiting());
        waiting > self.config.limits.outbox_bytes / 2
    }

    /// A session's id: unique over shards and restarts because the seed was drawn at random.
    pub(crate) fn draw_session(&mut self) -> SessionId {
        self.drawn += 1;
        // A bijection of the counter, so that no two are equal, and neighbours do not look alike.
        let mut mixed = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        SessionId::new((mixed ^ (mixed >> 31)) >> 1)
    }
}

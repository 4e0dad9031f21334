//! Head beacons: what tells a shard that a channel's last event was lost on the way, and a client
//! that it does not have it yet.

use chappe_protocol::{ServerFrame, frame::ServerPing};
use chappe_uplink::Heads;

use crate::{
    clock::Now,
    hub::{Attachment, Full, Hub},
    link::Lane,
};

impl Hub {
    /// The leaders' word on how far channels are. What this shard did not hear, it reads.
    pub(crate) fn handle_heads(&mut self, heads: &Heads) {
        for (channel, head) in &heads.heads {
            if let Some(index) = self.index_of(*channel)
                && self.channels[index as usize].attachment != Attachment::None
            {
                self.note_head(index, *head);
            }
        }
        self.pump_pages();
    }

    /// Asks a client whether it is there, and tells it how far its channels are.
    pub(crate) fn send_ping(&mut self, peer: u32, now: Now) -> Result<(), Full> {
        let ping = ServerPing { at: now.unix_ms, heads: self.heads(peer) };
        self.peers.send(peer, Lane::Control, &ServerFrame::Ping { ping })
    }
}

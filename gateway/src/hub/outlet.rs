//! A connection's way out: what waits for it on each lane, bounded in bytes.
//!
//! A connection that takes everything at once has no buffer at all: buffers are the shard's, lent
//! while something waits. What a link did not take is the rest of one frame; events stay in their
//! channel's ring until the lane is free again.

use chappe_protocol::ChannelId;

use crate::link::Lane;

use super::form::Form;

/// Where finished frames go: the links of a shard, or a test.
pub(crate) trait Sockets {
    /// Offers frames on a lane and says how many bytes were taken. A connection that ended takes
    /// everything.
    fn send(&mut self, peer: u32, lane: Lane, frames: &[u8]) -> usize;
}

/// A connection's way out.
#[derive(Debug)]
pub(crate) struct Outlet {
    form: Form,
    channel_lanes: u8,
    /// Lanes whose link refused to take more, a bit each.
    blocked: u32,
    /// Those of them that nobody asks the link about yet.
    unattended: u32,
    control: Queue,
    /// The channels' lanes on which something waits.
    channels: Vec<(Lane, Queue)>,
}

/// What waits on one lane.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outlet {
    pub(crate) fn new(form: Form, channel_lanes: u8) -> Self {
        Self {
            form,
            channel_lanes: channel_lanes.min(LANES_MAX),
            blocked: 0,
            unattended: 0,
            control: Queue::default(),
            channels: Vec::new(),
        }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The lane of a channel's events.
    pub(crate) fn lane(&self, channel: ChannelId) -> Lane {
        if self.has_one_lane() {
            return Lane::Control;
        }
        Lane::Channel(channel.partition(u32::from(self.channel_lanes)).0 as u8)
    }

    /// How many lanes the channels are spread over, at least one.
    pub(crate) fn channel_lanes(&self) -> usize {
        usize::from(self.channel_lanes.max(1))
    }

    /// Everything goes over one lane.
    pub(crate) fn has_one_lane(&self) -> bool {
        self.channel_lanes <= 1
    }

    pub(crate) fn is_blocked(&self, lane: Lane) -> bool {
        self.blocked & bit(lane) != 0
    }

    pub(crate) fn is_any_blocked(&self) -> bool {
        self.blocked != 0
    }

    /// Whether a lane was blocked since this was last asked: the connection's task has to ask the
    /// link when that one takes more, whatever it waits for already.
    pub(crate) fn take_unattended(&mut self) -> bool {
        std::mem::take(&mut self.unattended) != 0
    }

    /// The lanes that wait for their link, control first.
    pub(crate) fn blocked_lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let blocked = self.blocked;
        let control = std::iter::once(Lane::Control);
        let lanes = control.chain((0..LANES_MAX).map(Lane::Channel));
        lanes.filter(move |lane| blocked & bit(*lane) != 0)
    }

    /// Bytes that wait, on all lanes.
    pub(crate) fn waiting(&self) -> usize {
        let channels: usize = self.channels.iter().map(|(_, queue)| queue.waiting()).sum();
        self.control.waiting() + channels
    }

    /// Bytes that wait on a lane.
    pub(crate) fn waiting_on(&self, lane: Lane) -> usize {
        match self.channels.iter().find(|(of, _)| *of == lane) {
            Some((_, queue)) => queue.waiting(),
            None if lane == Lane::Control => self.control.waiting(),
            None => 0,
        }
    }

    /// The bytes that wait on a lane, to append whole frames to.
    pub(crate) fn queue(&mut self, lane: Lane, pool: &mut Pool) -> &mut Vec<u8> {
        let bytes = match (lane, self.channels.iter().position(|(of, _)| *of == lane)) {
            (Lane::Channel(_), Some(place)) => &mut self.channels[place].1.bytes,
            (Lane::Channel(_), None) => {
                self.channels.push((lane, Queue::default()));
                let last = self.channels.len() - 1;
                &mut self.channels[last].1.bytes
            }
            _ => &mut self.control.bytes,
        };
        if bytes.capacity() == 0 {
            *bytes = pool.take();
        }
        bytes
    }

    /// Notes that the link took only a part of what it was offered directly, and keeps the rest
    /// of the frame that it cut.
    pub(crate) fn block(&mut self, lane: Lane, rest: &[u8], pool: &mut Pool) {
        self.note_blocked(lane);
        if !rest.is_empty() {
            self.queue(lane, pool).extend_from_slice(rest);
        }
    }

    /// Offers what waits on all lanes that are not blocked.
    pub(crate) fn flush(&mut self, peer: u32, pool: &mut Pool, sockets: &mut impl Sockets) {
        self.flush_lane(Lane::Control, peer, pool, sockets);
        for place in (0..self.channels.len()).rev() {
            self.flush_lane(self.channels[place].0, peer, pool, sockets);
        }
    }

    /// The link takes more on a blocked lane: offers what waits there. Returns whether all of it
    /// was taken.
    pub(crate) fn unblock(
        &mut self,
        lane: Lane,
        peer: u32,
        pool: &mut Pool,
        sockets: &mut impl Sockets,
    ) -> bool {
        self.blocked &= !bit(lane);
        self.flush_lane(lane, peer, pool, sockets);
        self.unattended &= !bit(lane); // who calls this asks the link again
        !self.is_blocked(lane)
    }

    /// Gives up what waits.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        pool.give(std::mem::take(&mut self.control).bytes);
        for (_, queue) in self.channels.drain(..) {
            pool.give(queue.bytes);
        }
    }

    fn flush_lane(&mut self, lane: Lane, peer: u32, pool: &mut Pool, sockets: &mut impl Sockets) {
        if self.is_blocked(lane) {
            return;
        }
        let place = self.channels.iter().position(|(of, _)| *of == lane);
        let queue = match place {
            Some(place) => &mut self.channels[place].1,
            None if lane == Lane::Control => &mut self.control,
            None => return,
        };
        if queue.waiting() == 0 {
            return;
        }
        queue.sent += sockets.send(peer, lane, &queue.bytes[queue.sent..]);
        if queue.waiting() > 0 {
            queue.settle();
            return self.note_blocked(lane);
        }
        pool.give(std::mem::take(queue).bytes);
        if let Some(place) = place {
            self.channels.swap_remove(place);
        }
    }

    fn note_blocked(&mut self, lane: Lane) {
        self.blocked |= bit(lane);
        self.unattended |= bit(lane);
    }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Moves the rest down once half is gone, so that a slow reader's queue does not creep.
    fn settle(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Buffers of queues that are empty now: a shard's connections share them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    fn give(&mut self, mut bytes: Vec<u8>) {
        let worth_it = (1..=POOLED_BYTES_MAX).contains(&bytes.capacity());
        if worth_it && self.free.len() < POOLED_MAX {
            bytes.clear();
            self.free.push(bytes);
        }
    }
}

fn bit(lane: Lane) -> u32 {
    match lane {
        Lane::Control | Lane::Signals => 1,
        Lane::Channel(number) => 2 << number,
    }
}

/// Most lanes that the channels of a link are spread over.
const LANES_MAX: u8 = 16;
/// With 16 KiB each, a shard keeps at most 16 MiB of them.
const POOLED_MAX: usize = 1_024;
const POOLED_BYTES_MAX: usize = 16 * 1024;

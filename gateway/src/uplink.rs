//! A shard's side of its pipe to the leaders: what was asked and by whom, what still has to be
//! sent, and what is asked again later.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use chappe_uplink::Request;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// An operation of a session.
    Operation {
        /// The session's connection.
        peer: u32,
        /// The operation.
        serial: u64,
    },
    /// A connection's wish to read a channel.
    Join(u64),
    /// A channel that is attached again for its readers.
    Reattach(u32),
    /// A channel whose readers catch up.
    Page(u32),
}

/// The pipe as its shard sees it.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    next_serial: u64,
    owners: HashMap<u64, Owner>,
    outgoing: VecDeque<Request>,
    open: bool,
    retries: BinaryHeap<Reverse<(u64, Owner)>>,
}

impl Uplink {
    /// A number that this shard never used before. Never 0.
    pub(crate) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Sends a request and returns its token, or 0 while there is no pipe: then whoever asks
    /// does it again when one opens.
    pub(crate) fn ask(&mut self, owner: Owner, request: impl FnOnce(u64) -> Request) -> u64 {
        if !self.open {
            return 0;
        }
        let token = self.serial();
        self.owners.insert(token, owner);
        self.outgoing.push_back(request(token));
        token
    }

    /// Sends a request that has no answer.
    pub(crate) fn tell(&mut self, request: Request) {
        if self.open {
            self.outgoing.push_back(request);
        }
    }

    /// Whoever asks again at a time.
    pub(crate) fn retry_at(&mut self, at_ms: u64, owner: Owner) {
        self.retries.push(Reverse((at_ms, owner)));
    }

    /// Who waits for this answer; nobody any more after it was given up.
    pub(crate) fn answered(&mut self, token: u64) -> Option<Owner> {
        self.owners.remove(&token)
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&mut self, token: u64) {
        self.owners.remove(&token);
    }

    /// So much waits to be sent that new commands are refused.
    pub(crate) fn is_full(&self) -> bool {
        self.outgoing.len() >= OUTGOING_MAX
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn handle_open(&mut self) {
        self.open = true;
    }

    /// The pipe ended: nothing that was asked will be answered.
    pub(crate) fn handle_end(&mut self) {
        self.open = false;
        self.owners.clear();
        self.outgoing.clear();
    }

    /// The next request to send.
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        self.outgoing.pop_front()
    }

    /// The pipe was full: this one is sent first, later.
    pub(crate) fn return_request(&mut self, request: Request) {
        self.outgoing.push_front(request);
    }

    /// The next one whose time to ask again has come.
    pub(crate) fn poll_retry(&mut self, now_ms: u64) -> Option<Owner> {
        let due = self.retries.peek().is_some_and(|Reverse((at_ms, _))| *at_ms <= now_ms);
        if due { self.retries.pop().map(|Reverse((_, owner))| owner) } else { None }
    }

    /// When the next one asks again.
    pub(crate) fn next_retry_ms(&self) -> Option<u64> {
        self.retries.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

/// How long to wait before asking the `tries`-th time: from 20 ms, doubling up to a second.
pub(crate) fn back_off_ms(tries: u8) -> u64 {
    (20 << tries.min(6)).min(1_000)
}

const OUTGOING_MAX: usize = 8_192;

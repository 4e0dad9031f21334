//! All that a partition holds of one channel: its state once it is loaded, its facts that the
//! store may lack, its newest messages, who hears it, and who waits for it.

use std::{collections::VecDeque, sync::Arc};

use chappe_protocol::{ChannelId, Message, Rev, SessionId};
use chappe_uplink::Request;

use crate::{action::PipeId, channel::ChannelState, load::Load, record::Fact};

pub(crate) struct Slot {
    pub(crate) state: State,
    /// The facts that are not projected, decided ones included, and those that a read under way
    /// may have missed. Their revisions follow each other.
    pub(crate) tail: VecDeque<Arc<Fact>>,
    /// The newest messages: their numbers follow each other up to the channel's last.
    pub(crate) newest: VecDeque<Message>,
    /// Who hears the channel.
    pub(crate) pipes: Vec<PipeId>,
    /// Attach answers that have not left: their pipes will hear it.
    pub(crate) attaching: u32,
    /// The last revision that was told to those who hear it.
    pub(crate) told: Rev,
    /// Requests that wait for the state.
    pub(crate) waiting: VecDeque<Waiting>,
    /// Sessions whose commands wait for a row or a name.
    pub(crate) parked: Vec<Parked>,
    /// Reads of the store under way.
    pub(crate) reading: u32,
    /// When it was last used.
    pub(crate) used_ms: u64,
}

pub(crate) enum State {
    Unknown,
    Loading(Box<Load>),
    Known(Box<ChannelState>),
}

/// A request with the pipe that its answer goes to.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) pipe: PipeId,
    pub(crate) since_ms: u64,
    pub(crate) request: Request,
}

/// A session whose first waiting command needs something that is on its way.
pub(crate) struct Parked {
    pub(crate) session: SessionId,
    pub(crate) commands: VecDeque<Waiting>,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct To {
    pub(crate) pipe: PipeId,
    pub(crate) token: u64,
    /// Of a command: whose later ones wait if it is answered `retry`.
    pub(crate) ticket: Option<Ticket>,
}

/// A command's place in its session's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) session: SessionId,
    pub(crate) channel: ChannelId,
    pub(crate) attempt: u32,
}

impl Slot {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            state: State::Unknown,
            tail: VecDeque::new(),
            newest: VecDeque::new(),
            pipes: Vec::new(),
            attaching: 0,
            told: Rev::ZERO,
            waiting: VecDeque::new(),
            parked: Vec::new(),
            reading: 0,
            used_ms: now_ms,
        }
    }

    pub(crate) fn known(&self) -> Option<&ChannelState> {
        match &self.state {
            State::Known(state) => Some(state),
            _ => None,
        }
    }

    pub(crate) fn known_mut(&mut self) -> Option<&mut ChannelState> {
        match &mut self.state {
            State::Known(state) => Some(state),
            _ => None,
        }
    }

    /// Whether anyone hears the channel, or will once his attach answer has left.
    pub(crate) fn is_heard(&self) -> bool {
        !self.pipes.is_empty() || self.attaching > 0
    }

    /// Whether there is something to forget: its state, or itself as nobody hears it.
    pub(crate) fn is_kept(&self) -> bool {
        self.known().is_some() || !self.is_heard()
    }

    /// Whether its state may be forgotten: the store has all of it, and nobody is in the middle of
    /// anything.
    pub(crate) fn may_forget(&self) -> bool {
        self.tail.is_empty()
            && self.reading == 0
            && self.attaching == 0
            && self.waiting.is_empty()
            && self.parked.is_empty()
            && !matches!(self.state, State::Loading(_))
    }

    /// The fact at `rev`, if it is in the tail.
    pub(crate) fn fact(&self, rev: Rev) -> Option<&Arc<Fact>> {
        let first = self.tail.front()?.rev;
        self.tail.get(rev.get().checked_sub(first.get())? as usize)
    }

    /// The message `seq`, if it is among the newest.
    pub(crate) fn newest(&self, seq: chappe_protocol::Seq) -> Option<&Message> {
        let first = self.newest.front()?.seq;
        self.newest.get(seq.get().checked_sub(first.get())? as usize)
    }

    pub(crate) fn newest_mut(&mut self, seq: chappe_protocol::Seq) -> Option<&mut Message> {
        let first = self.newest.front()?.seq;
        self.newest.get_mut(seq.get().checked_sub(first.get())? as usize)
    }
}

impl Waiting {
    pub(crate) fn to(&self) -> Option<To> {
        let (token, ticket) = match &self.request {
            Request::Command(command) => {
                let (session, channel, attempt) =
                    (command.session, command.channel, command.attempt);
                (command.token, Some(Ticket { session, channel, attempt }))
            }
            Request::Attach(attach) => (attach.token, None),
            Request::Read(read) => (read.token, None),
            Request::Signal(signal) => (signal.token, None),
            Request::Detach(_) => return None,
        };
        Some(To { pipe: self.pipe, token, ticket })
    }
}

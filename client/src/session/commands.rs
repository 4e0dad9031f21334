//! The commands that wait for an answer: what is sent when, and what becomes of it when the
//! connection breaks.
//!
//! Order is kept for each channel: a command that waits for its retry holds back the later ones
//! of its channel. What the server took before it refused one cannot be taken back, so the order
//! among commands that were under way together is the server's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chappe_protocol::{
    ChannelId, ClientFrame, Command, Nonce, WireError, command::ChannelRef, limits,
};

/// The owner's handle of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a command is to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Changes a channel: has a nonce, is retried.
    Change,
    /// Reads, or sets what the server forgets with the connection: is retried without a nonce.
    Read,
    /// Is sent once or not at all.
    Ephemeral,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The session's owner: is answered.
    Owner,
    /// The session itself. Forgotten with the connection.
    Session,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) command: Command,
    pub(super) nonce: Option<Nonce>,
    pub(super) origin: Origin,
    pub(super) attempts: u32,
    /// An attempt's fate is not known: the connection broke, or the server could not tell.
    pub(super) in_doubt: bool,
    pub(super) last_refusal: Option<WireError>,
    nature: Nature,
    channel: Option<ChannelId>,
    first_sent_ms: Option<u64>,
    deadline_ms: u64,
    not_before_ms: u64,
    in_flight: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Commands {
    pending: BTreeMap<Ticket, Pending>,
    /// Not under way, the session's own first.
    to_send: BTreeSet<(Origin, Ticket)>,
    /// The part of `to_send` that waits for a time.
    waits: BTreeSet<(u64, Ticket)>,
    in_flight: HashMap<u32, Ticket>,
    deadlines: BTreeSet<(u64, Ticket)>,
    in_flight_max: usize,
    next_ticket: u64,
    next_id: u32,
}

impl PartialOrd for Origin {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Origin {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self == Self::Owner).cmp(&(*other == Self::Owner))
    }
}

impl Commands {
    pub(super) fn new(in_flight_max: usize) -> Self {
        Self {
            pending: BTreeMap::new(),
            to_send: BTreeSet::new(),
            waits: BTreeSet::new(),
            in_flight: HashMap::new(),
            deadlines: BTreeSet::new(),
            in_flight_max,
            next_ticket: 0,
            next_id: 1, // 0 is hello's
        }
    }

    /// Takes a command of the owner's.
    pub(super) fn push(&mut self, command: Command, nonce: Option<Nonce>, until_ms: u64) -> Ticket {
        self.insert(command, nonce, Origin::Owner, until_ms, 0)
    }

    /// Takes a command of the session's own, to be sent at `not_before_ms`.
    pub(super) fn push_own(&mut self, command: Command, not_before_ms: u64) -> Ticket {
        self.insert(command, None, Origin::Session, u64::MAX, not_before_ms)
    }

    fn insert(
        &mut self,
        command: Command,
        nonce: Option<Nonce>,
        origin: Origin,
        deadline_ms: u64,
        not_before_ms: u64,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (nature, channel) = (nature(&command), channel(&command));
        let pending = Pending {
            command,
            nonce,
            origin,
            attempts: 0,
            in_doubt: false,
            last_refusal: None,
            nature,
            channel,
            first_sent_ms: None,
            deadline_ms,
            not_before_ms,
            in_flight: None,
        };
        self.pending.insert(ticket, pending);
        if deadline_ms != u64::MAX {
            self.deadlines.insert((deadline_ms, ticket));
        }
        self.to_send.insert((origin, ticket));
        if not_before_ms > 0 {
            self.waits.insert((not_before_ms, ticket));
        }
        ticket
    }

    /// The next frame to send, if any may be sent now. `prepare` sees the command first.
    pub(super) fn next_frame(
        &mut self,
        now_ms: u64,
        prepare: impl FnOnce(&mut Command),
    ) -> Option<ClientFrame> {
        if self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let ticket = self.next_sendable(now_ms)?;
        let id = self.free_id();
        let pending = self.pending.get_mut(&ticket)?;
        self.to_send.remove(&(pending.origin, ticket));
        self.waits.remove(&(pending.not_before_ms, ticket));
        if pending.first_sent_ms.is_none() {
            // Past the window of its nonce a retry would be refused unseen.
            let give_up_ms = match pending.nature {
                Nature::Change => now_ms.saturating_add(limits::NONCE_AGE_MS_MAX),
                Nature::Read | Nature::Ephemeral => u64::MAX,
            };
            if pending.deadline_ms > give_up_ms {
                self.deadlines.remove(&(pending.deadline_ms, ticket));
                self.deadlines.insert((give_up_ms, ticket));
                pending.deadline_ms = give_up_ms;
            }
        }
        let first_sent_ms = *pending.first_sent_ms.get_or_insert(now_ms);
        pending.attempts += 1;
        pending.in_flight = Some(id);
        prepare(&mut pending.command);
        self.in_flight.insert(id, ticket);
        Some(ClientFrame {
            id,
            nonce: pending.nonce.clone(),
            age_ms: now_ms.saturating_sub(first_sent_ms),
            command: pending.command.clone(),
        })
    }

    fn next_sendable(&self, now_ms: u64) -> Option<Ticket> {
        if self.waits.is_empty() {
            return self.to_send.first().map(|(_, ticket)| *ticket);
        }
        let mut held_back = BTreeSet::new();
        for (_, ticket) in &self.to_send {
            let pending = self.pending.get(ticket)?;
            let waits = pending.not_before_ms > now_ms;
            match pending.channel {
                Some(channel) if held_back.contains(&channel) => {}
                Some(channel) if waits => drop(held_back.insert(channel)),
                None if waits => {}
                _ => return Some(*ticket),
            }
        }
        None
    }

    fn free_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&id) {
                return id;
            }
        }
    }

    /// A reply came: gives the command back, which is done with.
    pub(super) fn take(&mut self, id: u32) -> Option<(Ticket, Pending)> {
        let ticket = self.in_flight.remove(&id)?;
        let pending = self.remove(ticket)?;
        Some((ticket, pending))
    }

    /// A refusal came that is worth another attempt at `until_ms`. Gives the command back if its
    /// deadline is before that.
    pub(super) fn retry(
        &mut self,
        id: u32,
        until_ms: u64,
        refusal: &WireError,
        in_doubt: bool,
    ) -> Option<(Ticket, Pending)> {
        let ticket = *self.in_flight.get(&id)?;
        let pending = self.pending.get_mut(&ticket)?;
        pending.last_refusal = Some(refusal.clone());
        pending.in_doubt |= in_doubt;
        if pending.nature == Nature::Ephemeral || until_ms >= pending.deadline_ms {
            return self.take(id);
        }
        self.in_flight.remove(&id);
        pending.in_flight = None;
        pending.not_before_ms = until_ms;
        self.to_send.insert((pending.origin, ticket));
        self.waits.insert((until_ms, ticket));
        None
    }

    /// Whether a command with this id waits for its reply, and what it is.
    pub(super) fn in_flight(&self, id: u32) -> Option<&Pending> {
        self.in_flight.get(&id).and_then(|ticket| self.pending.get(ticket))
    }

    /// The connection is gone: what was under way is to be sent again, in its order, before
    /// anything later. Gives back what is not retried.
    pub(super) fn handle_lost(&mut self) -> Vec<(Ticket, Pending)> {
        let mut given_up = Vec::new();
        for (_, ticket) in std::mem::take(&mut self.in_flight) {
            let Some(pending) = self.pending.get_mut(&ticket) else { continue };
            pending.in_flight = None;
            pending.in_doubt |= pending.nature != Nature::Read;
            self.to_send.insert((pending.origin, ticket));
            if pending.nature == Nature::Ephemeral {
                given_up.extend(self.remove(ticket).map(|pending| (ticket, pending)));
            }
        }
        let own: Vec<Ticket> = self
            .to_send
            .iter()
            .take_while(|(origin, _)| *origin == Origin::Session)
            .map(|(_, ticket)| *ticket)
            .collect();
        for ticket in own {
            self.remove(ticket);
        }
        given_up
    }

    /// Gives back the commands whose time is up.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<(Ticket, Pending)> {
        let mut expired = Vec::new();
        while let Some((_, ticket)) =
            self.deadlines.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms)
        {
            self.deadlines.pop_first();
            let Some(mut pending) = self.remove(ticket) else { continue };
            pending.in_doubt |= pending.in_flight.is_some() && pending.nature != Nature::Read;
            expired.push((ticket, pending));
        }
        expired
    }

    /// Gives everything back.
    pub(super) fn drain(&mut self) -> Vec<(Ticket, Pending)> {
        self.to_send.clear();
        self.waits.clear();
        self.deadlines.clear();
        self.in_flight.clear();
        let mut drained: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        for (_, pending) in &mut drained {
            pending.in_doubt |= pending.in_flight.is_some() && pending.nature != Nature::Read;
        }
        drained
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        self.to_send.remove(&(pending.origin, ticket));
        self.waits.remove(&(pending.not_before_ms, ticket));
        self.deadlines.remove(&(pending.deadline_ms, ticket));
        if let Some(id) = pending.in_flight {
            self.in_flight.remove(&id);
        }
        Some(pending)
    }

    /// When something is due next.
    pub(super) fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(due_ms, _)| *due_ms);
        // One that is due already waits for something else: for room, or for the connection.
        let wait = self.waits.range((now_ms + 1, Ticket(0))..).next().map(|(due_ms, _)| *due_ms);
        deadline.into_iter().chain(wait).min()
    }

    /// How many commands were sent on this connection and are unanswered.
    pub(super) fn under_way(&self) -> usize {
        self.in_flight.len()
    }

    /// How many commands are unanswered.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

/// What a command is to the session.
pub(super) fn nature(command: &Command) -> Nature {
    match command {
        Command::CreateChannel(_)
        | Command::UpdateChannel(_)
        | Command::ArchiveChannel(_)
        | Command::UnarchiveChannel(_)
        | Command::DeleteChannel(_)
        | Command::Join(_)
        | Command::Leave(_)
        | Command::AddMember(_)
        | Command::RemoveMember(_)
        | Command::SetRole(_)
        | Command::Publish(_)
        | Command::Edit(_)
        | Command::Delete(_)
        | Command::React(_)
        | Command::Unreact(_)
        | Command::MarkRead(_) => Nature::Change,
        Command::GetChannel(_)
        | Command::ListChannels(_)
        | Command::ListMembers(_)
        | Command::History(_)
        | Command::Presence(_)
        | Command::Subscribe(_)
        | Command::Unsubscribe(_) => Nature::Read,
        Command::Hello(_)
        | Command::Refresh(_)
        | Command::Ping(_)
        | Command::Pong(_)
        | Command::Typing(_)
        | Command::Signal(_) => Nature::Ephemeral,
    }
}

/// The channel whose order a command belongs to.
fn channel(command: &Command) -> Option<ChannelId> {
    match command {
        Command::GetChannel(body) => match &body.channel {
            ChannelRef::Id(id) => Some(*id),
            ChannelRef::Name(_) => None,
        },
        Command::UpdateChannel(body) => Some(body.channel),
        Command::ArchiveChannel(body) => Some(body.channel),
        Command::UnarchiveChannel(body) => Some(body.channel),
        Command::DeleteChannel(body) => Some(body.channel),
        Command::Join(body) => Some(body.channel),
        Command::Leave(body) => Some(body.channel),
        Command::AddMember(body) => Some(body.channel),
        Command::RemoveMember(body) => Some(body.channel),
        Command::SetRole(body) => Some(body.channel),
        Command::ListMembers(body) => Some(body.channel),
        Command::Publish(body) => Some(body.channel),
        Command::Edit(body) => Some(body.channel),
        Command::Delete(body) => Some(body.channel),
        Command::React(body) => Some(body.channel),
        Command::Unreact(body) => Some(body.channel),
        Command::History(body) => Some(body.channel),
        Command::MarkRead(body) => Some(body.channel),
        Command::Hello(_)
        | Command::Refresh(_)
        | Command::Ping(_)
        | Command::Pong(_)
        | Command::CreateChannel(_)
        | Command::ListChannels(_)
        | Command::Typing(_)
        | Command::Signal(_)
        | Command::Presence(_)
        | Command::Subscribe(_)
        | Command::Unsubscribe(_) => None,
    }
}

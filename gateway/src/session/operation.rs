//! What a session waits for: an operation for each command that is not answered yet.

use std::fmt;

use chappe_protocol::{
    ChannelId, ClientFrame, Cursor, Data, Nonce, Rev, UserId,
    reply::{self, Subscribed},
};
use chappe_uplink::{Action, ReadQuery};

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its number, which also is the command's place among the session's commands.
    pub(super) serial: u64,
    /// The client's id of the command; none for what the session does by itself.
    pub(super) frame: Option<u32>,
    pub(super) started_ms: u64,
    /// Of the request that is under way; 0 when none is.
    pub(super) token: u64,
    /// When it is asked again; 0 when an answer is awaited.
    pub(super) retry_at_ms: u64,
    pub(super) tries: u8,
    pub(super) work: Work,
}

/// What an operation does.
pub(super) enum Work {
    /// Waits for keys, then for the session's inbox and its first subscriptions.
    SignIn(Box<SignIn>),
    /// Waits for keys.
    Refresh(String),
    /// Changes a channel.
    Change(Box<Change>),
    /// Changed a channel, and waits for the caller's own inbox to show it.
    Settle(Box<Settle>),
    /// Reads.
    Read(Box<Read>),
    /// Tells a channel something ephemeral.
    Signal(Box<(ChannelId, Option<Data>)>),
    /// Asks which of these are connected.
    Presence(Vec<UserId>),
    /// Subscribes to channels, or lists the caller's first.
    Subscribe(Box<Subscribe>),
}

pub(super) struct SignIn {
    /// What is verified again when keys have come.
    pub(super) token: String,
    /// What is subscribed to in the same round trip.
    pub(super) resume: Option<Cursor>,
    /// The inbox is not followed yet.
    pub(super) inbox_awaited: bool,
    pub(super) subscribe: Subscribe,
    /// What the client sent behind its `hello`.
    pub(super) held: Vec<ClientFrame>,
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) channel: ChannelId,
    pub(super) nonce: Nonce,
    /// The client chose the nonce.
    pub(super) client_nonce: bool,
    /// What the client says of its first attempt.
    pub(super) age_ms: u64,
    pub(super) action: Action,
    pub(super) attempt: u32,
    /// It went to a leader at least once: it may have happened.
    pub(super) was_sent: bool,
    /// What the caller's inbox will show of it.
    pub(super) settles: Option<Membership>,
    /// The channel's revision that the inbox has shown already.
    pub(super) shown: Rev,
}

/// What a change makes of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Member,
    NoMember,
}

#[derive(Debug)]
pub(super) struct Settle {
    pub(super) change: reply::Change,
    pub(super) membership: Membership,
    pub(super) until_ms: u64,
}

#[derive(Debug)]
pub(super) struct Read {
    /// The channel, or the caller's inbox; none while its name is looked up.
    pub(super) channel: Option<ChannelId>,
    pub(super) query: ReadQuery,
}

/// The channels of a subscription and what became of each.
#[derive(Debug, Default)]
pub(super) struct Subscribe {
    pub(super) places: Vec<(ChannelId, Option<Subscribed>)>,
    /// The caller's channels are still being listed, from after this one.
    pub(super) listing: Option<Option<ChannelId>>,
}

impl fmt::Debug for Work {
    /// Its name alone: tokens and texts belong into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignIn(_) => "SignIn",
            Self::Refresh(_) => "Refresh",
            Self::Change(_) => "Change",
            Self::Settle(_) => "Settle",
            Self::Read(_) => "Read",
            Self::Signal(_) => "Signal",
            Self::Presence(_) => "Presence",
            Self::Subscribe(_) => "Subscribe",
        })
    }
}

impl Subscribe {
    /// Everything is known.
    pub(super) fn is_complete(&self) -> bool {
        self.listing.is_none() && self.places.iter().all(|(_, place)| place.is_some())
    }

    /// Takes what became of a channel.
    pub(super) fn take(&mut self, subscribed: Subscribed) {
        let place = self
            .places
            .iter_mut()
            .find(|(channel, place)| *channel == subscribed.channel && place.is_none());
        if let Some((_, place)) = place {
            *place = Some(subscribed);
        }
    }
}

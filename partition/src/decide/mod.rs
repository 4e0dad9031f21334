//! Decisions: what a command does to its channel, or why it may not. One file for each family.
//!
//! A decision sees the channel's state, the rows at hand and the command, and nothing else; what it
//! lacks it asks for, and it is made again when that is there.

mod access;
mod channel;
mod create;
mod inbox;
mod members;
mod messages;
mod reactions;

use chappe_protocol::{ChannelName, ErrorCode, PartitionId, reply::Change};
use chappe_storage::store::Key;
use chappe_uplink::{Action, Command, Refusal};

use crate::{
    channel::ChannelState,
    hot::{Hot, Known},
    names::Named,
    record::{Digest, FactBody, Nothing},
    slot::Slot,
};

pub(crate) use access::{Access, may_signal};

/// A command as a decision sees it.
pub(crate) struct Asked<'a> {
    pub(crate) command: &'a Command,
    pub(crate) digest: Digest,
    /// The tick of the fact that it would become.
    pub(crate) tick: u64,
    /// The name that was claimed for it, if it needed one.
    pub(crate) named: Option<Named>,
    pub(crate) members_max: usize,
    pub(crate) partition: PartitionId,
    pub(crate) partitions: u32,
}

/// What is known of the command's channel.
pub(crate) struct Channel<'a> {
    pub(crate) state: &'a ChannelState,
    slot: &'a Slot,
    hot: &'a Hot,
}

/// A decision.
pub(crate) enum Verdict {
    /// This becomes a fact.
    Fact(FactBody),
    /// It has its answer without one.
    Again(Change),
    /// It cannot be decided without this.
    Need(Need),
}

/// What a decision lacks.
pub(crate) enum Need {
    Row(Key),
    Name(ChannelName),
}

type Decided = Result<Verdict, Refusal>;

/// Decides a command that was not decided before.
pub(crate) fn decide(state: &ChannelState, slot: &Slot, hot: &Hot, asked: &Asked<'_>) -> Decided {
    let channel = Channel { state, slot, hot };
    if asked.command.channel.partition(asked.partitions) != asked.partition {
        return Err(refuse(ErrorCode::Invalid)); // a gateway that counts partitions otherwise
    }
    let on_inbox = asked.command.channel.inbox_owner().is_some();
    match &asked.command.action {
        Action::Relay(relay) => inbox::relay(&channel, asked, relay),
        Action::MarkRead(mark) => inbox::mark_read(&channel, asked, mark),
        Action::CloseSessions { session } => inbox::close_sessions(asked, *session),
        // An inbox is nobody's channel, not even its owner's.
        _ if on_inbox => Err(refuse(ErrorCode::NotFound)),
        Action::Create(create) => create::create(&channel, asked, create),
        Action::Update(update) => channel::update(&channel, asked, update),
        Action::Archive => channel::archive(&channel, asked, true),
        Action::Unarchive => channel::archive(&channel, asked, false),
        Action::DeleteChannel => channel::delete(&channel, asked),
        Action::Join => members::join(&channel, asked),
        Action::Leave => members::leave(&channel, asked),
        Action::AddMember { user, role } => members::add(&channel, asked, *user, *role),
        Action::RemoveMember { user } => members::remove(&channel, asked, *user),
        Action::SetRole { user, role } => members::set_role(&channel, asked, *user, *role),
        Action::Publish(publish) => messages::publish(&channel, asked, publish),
        Action::Edit(edit) => messages::edit(&channel, asked, edit),
        Action::Delete { seq } => messages::delete(&channel, asked, *seq),
        Action::React(react) => reactions::react(&channel, asked, react),
        Action::Unreact(unreact) => reactions::unreact(&channel, asked, unreact),
    }
}

impl Channel<'_> {
    /// A row, known to exist or not; else what has to be read first.
    fn row(&self, key: Key) -> Result<Option<&crate::row::RowValue>, Need> {
        match self.hot.row(&key) {
            Known::Row(row) => Ok(Some(row)),
            Known::Missing => Ok(None),
            Known::Unknown => Err(Need::Row(key)),
        }
    }
}

fn fact(body: impl Into<FactBody>) -> Decided {
    Ok(Verdict::Fact(body.into()))
}

/// It changes nothing, which is recorded for its nonce.
fn nothing(seq: Option<chappe_protocol::Seq>) -> Decided {
    fact(Nothing { seq })
}

const fn refuse(code: ErrorCode) -> Refusal {
    Refusal::new(code)
}

//! A channel's settings and its members: both are in memory.

use std::ops::Bound;

use chappe_protocol::{
    ErrorCode, UserId,
    reply::{ChannelReply, MembersReply},
};
use chappe_uplink::{Answer, Read, Refusal};

use crate::{attach::readable_since, channel::ChannelState, row::ChannelRow};

pub(super) fn channel(state: &ChannelState, read: &Read) -> Result<Answer, Refusal> {
    let meta = visible(state, read)?;
    let caller = read.caller.as_ref().map(|caller| caller.user);
    let member = caller.and_then(|user| Some(state.members.get(&user)?.member(user)));
    let (rev, seq) = (state.head.rev, state.head.seq);
    Ok(Answer::Channel(ChannelReply { channel: meta.channel(read.channel), rev, seq, member }))
}

pub(super) fn members(
    state: &ChannelState,
    read: &Read,
    after: Option<UserId>,
    limit: usize,
) -> Result<Answer, Refusal> {
    visible(state, read)?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = state.members.range((from, Bound::Unbounded));
    let members: Vec<_> =
        rest.by_ref().take(limit).map(|(user, member)| member.member(*user)).collect();
    let next = rest.next().and_then(|_| members.last().map(|member| member.user));
    Ok(Answer::Members(MembersReply { members, next }))
}

/// The settings of a channel that the caller may see.
fn visible<'a>(state: &'a ChannelState, read: &Read) -> Result<&'a ChannelRow, Refusal> {
    if let Some(caller) = &read.caller {
        readable_since(state, read.channel, caller)?;
    }
    let meta = state.meta.as_ref().filter(|meta| !meta.deleted);
    meta.ok_or(Refusal::new(ErrorCode::NotFound))
}

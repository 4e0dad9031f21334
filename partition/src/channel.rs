//! A channel's state: what commands are decided against. It includes the facts that are in flight.

use std::{collections::BTreeMap, sync::Arc};

use chappe_protocol::{
    Rev, UserId,
    message::{ChannelKind, Member, Role},
};

use crate::{
    nonces::Nonces,
    project::{change_channel, created_channel},
    record::{Fact, FactBody},
    row::{ChannelRow, HeadRow, MemberRow},
};

pub(crate) struct ChannelState {
    /// The settings; none for an inbox, and for a channel that was never made.
    pub(crate) meta: Option<ChannelRow>,
    pub(crate) head: HeadRow,
    pub(crate) members: BTreeMap<UserId, MemberState>,
    pub(crate) nonces: Nonces,
}

#[derive(Debug, Clone)]
pub(crate) struct MemberState {
    pub(crate) role: Role,
    pub(crate) since: Rev,
    pub(crate) name: Option<Arc<str>>,
    /// The tick of his last message under slow mode.
    pub(crate) published_tick: Option<u64>,
}

impl MemberState {
    /// The state of a member's row; none of a former one's.
    pub(crate) fn of(row: MemberRow) -> Option<Self> {
        let MemberRow { role, since, name, removed, published_tick } = row;
        removed.is_none().then_some(Self { role, since, name, published_tick })
    }

    fn added(role: Role, name: Option<Arc<str>>, since: Rev) -> Self {
        Self { role, since, name, published_tick: None }
    }

    pub(crate) fn member(&self, user: UserId) -> Member {
        let name = self.name.as_deref().map(str::to_owned);
        Member { user, name, role: self.role, since: self.since }
    }
}

impl ChannelState {
    /// A channel without a past.
    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            meta: None,
            head: HeadRow::default(),
            members: BTreeMap::new(),
            nonces: Nonces::new(seed),
        }
    }

    /// Takes in the channel's next fact.
    pub(crate) fn apply(&mut self, fact: &Fact) {
        assert!(fact.rev == self.head.rev.next(), "a channel's facts follow each other");
        self.head.rev = fact.rev;
        if let Some(nonce) = &fact.nonce {
            self.nonces.insert(fact.by, nonce, fact.rev, fact.mark.tick);
        }
        match &fact.body {
            FactBody::Message(body) => {
                self.head.seq = body.seq;
                if body.slowed
                    && let Some(member) = self.members.get_mut(&fact.by)
                {
                    member.published_tick = Some(fact.mark.tick);
                }
            }
            FactBody::Created(body) => {
                self.meta = Some(created_channel(fact, body));
                for new in &body.members {
                    let member = MemberState::added(new.role, new.name.clone(), fact.rev);
                    self.members.insert(new.user, member);
                }
            }
            FactBody::MemberAdded(body) => {
                let member = MemberState::added(body.role, body.name.clone(), fact.rev);
                self.members.insert(body.user, member);
            }
            FactBody::MemberRemoved(body) => drop(self.members.remove(&body.user)),
            FactBody::RoleSet(body) => {
                if let Some(member) = self.members.get_mut(&body.user) {
                    member.role = body.role;
                }
            }
            _ => {}
        }
        if let Some(meta) = &mut self.meta
            && !matches!(fact.body, FactBody::Created(_))
        {
            change_channel(meta, fact);
        }
        if matches!(fact.body, FactBody::Deleted(_)) {
            self.members.clear(); // nobody is a member of what is gone
        }
    }

    /// Whether those who are not members may read it, from its beginning.
    pub(crate) fn is_open(&self) -> bool {
        let kind = self.meta.as_ref().map(|meta| meta.kind);
        matches!(kind, Some(ChannelKind::Public | ChannelKind::Announcement))
    }
}

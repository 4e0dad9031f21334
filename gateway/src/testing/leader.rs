//! The toy leader's decisions.

use std::{collections::BTreeMap, sync::Arc};

use chappe_protocol::{
    ChannelId, ErrorCode, Event, EventBody, Incarnation, Message, Nonce, PartitionId, Rev, Seq,
    UserId,
    event::{
        ChannelAddedBody, ChannelBody, ChannelRemovedBody, MemberBody, MemberRemovedBody,
        MessageBody, NothingBody, SessionsClosedBody,
    },
    message::{Channel, ChannelKind, Member, Role},
    reply::{Change, ChannelReply, ChannelsReply, HistoryReply, MembersReply, MyChannel},
};
use chappe_uplink::{
    Action, Answer, Attached, Caller, Command, EventsPage, Generation, Heads, Leading, Read,
    ReadQuery, Refusal, Request, Resolved, Response, SignalTo, Standing, Start,
};

/// A leader of all channels.
#[derive(Debug)]
pub struct ToyLeader {
    channels: BTreeMap<ChannelId, ToyChannel>,
    /// What its pipe is attached to.
    attached: Vec<ChannelId>,
    /// The generation that it speaks with.
    pub generation: Generation,
    /// So many of the next commands are to be sent again.
    pub resend: usize,
    /// The events of so many of the next changes get lost on the way.
    pub lose: usize,
    /// Inboxes hear nothing of what happens in channels.
    pub inboxes_lag: bool,
    /// Nothing is answered.
    pub silent: bool,
    /// All requests that it was asked, as they came.
    pub asked: Vec<Request>,
    /// Commands that it carried out, in that order.
    pub done: Vec<Nonce>,
    stopped: BTreeMap<(u64, ChannelId), u32>,
}

#[derive(Debug, Default)]
struct ToyChannel {
    meta: Option<Channel>,
    members: BTreeMap<UserId, Rev>,
    events: Vec<Arc<Event>>,
    messages: BTreeMap<Seq, Message>,
    results: BTreeMap<(UserId, Nonce), Change>,
    /// Events up to this revision are no longer kept.
    trimmed: Rev,
}

impl Default for ToyLeader {
    fn default() -> Self {
        Self {
            channels: BTreeMap::new(),
            attached: Vec::new(),
            generation: Generation { incarnation: Incarnation(1), epoch: 1 },
            resend: 0,
            lose: 0,
            inboxes_lag: false,
            silent: false,
            asked: Vec::new(),
            done: Vec::new(),
            stopped: BTreeMap::new(),
        }
    }
}

impl ToyLeader {
    /// A public channel that these users are members of.
    pub fn make(&mut self, channel: ChannelId, members: &[UserId]) {
        let by = members.first().copied().unwrap_or(UserId::new(0));
        let entry = self.channels.entry(channel).or_default();
        entry.meta = Some(meta(channel, by, ChannelKind::Public));
        for user in members {
            self.fact(channel, *user, None, member_added(*user), &mut Vec::new());
        }
    }

    /// Events of a channel up to `rev` are no longer kept.
    pub fn trim(&mut self, channel: ChannelId, rev: Rev) {
        self.channels.entry(channel).or_default().trimmed = rev;
    }

    /// The last revision of a channel.
    pub fn head(&self, channel: ChannelId) -> Rev {
        self.channels.get(&channel).map_or(Rev::ZERO, ToyChannel::head)
    }

    /// A message of `by`, as if it came over another gateway.
    pub fn publish(&mut self, channel: ChannelId, by: UserId, text: &str) -> Vec<Response> {
        let mut out = Vec::new();
        let seq = self.channels.entry(channel).or_default().next_seq();
        self.message(channel, by, None, seq, Some(text), &mut out);
        out
    }

    /// An edit (or, without text, the deletion) of a message, as if over another gateway.
    pub fn change(
        &mut self,
        channel: ChannelId,
        by: UserId,
        seq: Seq,
        text: Option<&str>,
    ) -> Vec<Response> {
        let mut out = Vec::new();
        self.message(channel, by, None, seq, text, &mut out);
        out
    }

    /// The removal of a member, as if over another gateway.
    pub fn remove(&mut self, channel: ChannelId, user: UserId) -> Vec<Response> {
        let mut out = Vec::new();
        self.fact(channel, user, None, member_removed(user), &mut out);
        out
    }

    /// The end of a channel, as if over another gateway.
    pub fn delete_channel(&mut self, channel: ChannelId, by: UserId) -> Vec<Response> {
        let mut out = Vec::new();
        let channel_now = Channel { deleted: true, ..meta(channel, by, ChannelKind::Public) };
        let body = EventBody::ChannelDeleted(ChannelBody { channel: channel_now });
        self.fact(channel, by, None, body, &mut out);
        out
    }

    /// The end of a user's sessions, as if over another gateway.
    pub fn close_sessions(&mut self, user: UserId) -> Vec<Response> {
        let mut out = Vec::new();
        let body = EventBody::SessionsClosed(SessionsClosedBody { session: None });
        self.fact(ChannelId::inbox(user), user, None, body, &mut out);
        out
    }

    /// A member is added, as if over another gateway.
    pub fn add(&mut self, channel: ChannelId, user: UserId) -> Vec<Response> {
        let mut out = Vec::new();
        self.fact(channel, user, None, member_added(user), &mut out);
        out
    }

    /// What it tells a pipe that was opened.
    pub fn handle_open(&mut self) -> Vec<Response> {
        self.attached.clear();
        let leads = vec![(PartitionId(0), self.generation)];
        vec![Response::Leading(Leading { partitions: 1, leads })]
    }

    /// The heads of attached channels.
    pub fn beacon(&self) -> Response {
        let heads = self.attached.iter().map(|channel| (*channel, self.head(*channel)));
        Response::Heads(Heads { heads: heads.collect() })
    }

    /// Answers a request.
    pub fn handle(&mut self, request: Request) -> Vec<Response> {
        self.asked.push(request.clone());
        if self.silent {
            return Vec::new();
        }
        let mut out = Vec::new();
        match request {
            Request::Command(command) => {
                let token = command.token;
                let result = self.command(*command, &mut out);
                out.push(self.answer(token, result.map(Answer::Change)));
            }
            Request::Attach(attach) => {
                let result = self.attach(&attach.caller, attach.channel, attach.from);
                if result.is_ok() && !self.attached.contains(&attach.channel) {
                    self.attached.push(attach.channel);
                }
                out.push(self.answer(attach.token, result.map(Answer::Attached)));
            }
            Request::Detach(detach) => self.attached.retain(|channel| *channel != detach.channel),
            Request::Read(read) => {
                let token = read.token;
                let result = self.read(read);
                out.push(self.answer(token, result));
            }
            Request::Signal(signal) => {
                let to =
                    SignalTo { channel: signal.channel, by: signal.caller.user, data: signal.data };
                out.push(Response::Signal(to));
                out.push(self.answer(signal.token, Ok(Answer::Done)));
            }
        }
        out
    }

    fn answer(&self, token: u64, result: Result<Answer, Refusal>) -> Response {
        Response::Answer { token, generation: self.generation, result: result.map(Box::new) }
    }

    fn command(&mut self, command: Command, out: &mut Vec<Response>) -> Result<Change, Refusal> {
        let order = (command.session.get(), command.channel);
        if self.stopped.get(&order).is_some_and(|attempt| command.attempt <= *attempt) {
            return Err(Refusal::resend());
        }
        if self.resend > 0 {
            self.resend -= 1;
            self.stopped.insert(order, command.attempt);
            return Err(Refusal::resend());
        }
        let Command { caller, channel, nonce, client_nonce, action, .. } = command;
        let entry = self.channels.entry(channel).or_default();
        if let Some(result) = entry.results.get(&(caller.user, nonce.clone())) {
            return Ok(result.clone());
        }
        self.permit(&caller, channel, &action)?;
        let shown = client_nonce.then(|| nonce.clone());
        let seq = self.act(&caller, channel, shown, action, out)?;
        let change = Change { channel, rev: self.head(channel), seq, at: 7, inbox: None };
        self.done.push(nonce.clone());
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.results.insert((caller.user, nonce), change.clone());
        }
        Ok(change)
    }

    fn permit(&self, caller: &Caller, channel: ChannelId, action: &Action) -> Result<(), Refusal> {
        let Some(entry) = self.channels.get(&channel) else { return Ok(()) };
        let free =
            matches!(action, Action::Create(_) | Action::Join | Action::CloseSessions { .. })
                || caller.standing != Standing::User
                || channel.inbox_owner() == Some(caller.user);
        if entry.meta.is_none() && !free {
            return Err(Refusal::new(ErrorCode::NotFound));
        }
        if free || entry.members.contains_key(&caller.user) {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::NotAMember))
    }

    /// Carries an action out, and tells which message it was about.
    fn act(
        &mut self,
        caller: &Caller,
        channel: ChannelId,
        nonce: Option<Nonce>,
        action: Action,
        out: &mut Vec<Response>,
    ) -> Result<Option<Seq>, Refusal> {
        let user = caller.user;
        match action {
            Action::Create(create) => {
                let meta = meta(channel, user, create.kind);
                self.channels.entry(channel).or_default().meta = Some(meta.clone());
                let body = EventBody::ChannelCreated(ChannelBody { channel: meta });
                self.fact(channel, user, nonce, body, out);
                self.fact(channel, user, None, member_added(user), out);
            }
            Action::Join => self.fact(channel, user, nonce, member_added(user), out),
            Action::Leave => self.fact(channel, user, nonce, member_removed(user), out),
            Action::AddMember { user, .. } => {
                self.fact(channel, caller.user, nonce, member_added(user), out);
            }
            Action::RemoveMember { user } => {
                self.fact(channel, caller.user, nonce, member_removed(user), out);
            }
            Action::Publish(publish) => {
                let seq = self.channels.entry(channel).or_default().next_seq();
                let text = publish.text.as_deref().unwrap_or("");
                self.message(channel, user, nonce, seq, Some(text), out);
                return Ok(Some(seq));
            }
            Action::Edit(edit) => {
                self.message(channel, user, nonce, edit.seq, edit.text.as_deref(), out);
                return Ok(Some(edit.seq));
            }
            Action::Delete { seq } => {
                self.message(channel, user, nonce, seq, None, out);
                return Ok(Some(seq));
            }
            Action::CloseSessions { session } => {
                let body = EventBody::SessionsClosed(SessionsClosedBody { session });
                self.fact(channel, user, nonce, body, out);
            }
            _ => self.fact(channel, user, nonce, EventBody::Nothing(NothingBody {}), out),
        }
        Ok(None)
    }

    fn message(
        &mut self,
        channel: ChannelId,
        by: UserId,
        nonce: Option<Nonce>,
        seq: Seq,
        text: Option<&str>,
        out: &mut Vec<Response>,
    ) {
        let entry = self.channels.entry(channel).or_default();
        let rev = entry.head().next();
        let old = entry.messages.get(&seq).cloned();
        let is_new = old.is_none();
        let message = Message {
            seq,
            rev: old.as_ref().map_or(rev, |old| old.rev),
            changed: rev,
            by,
            at: 7,
            text: text.and_then(|text| chappe_protocol::Text::parse(text).ok()),
            data: None,
            reply_to: None,
            mentions: Vec::new(),
            edited_at: (!is_new).then_some(7),
            deleted: text.is_none(),
            reactions: Vec::new(),
        };
        entry.messages.insert(seq, message.clone());
        let body = MessageBody { message };
        let body = match (is_new, text) {
            (true, _) => EventBody::MessageCreated(body),
            (false, Some(_)) => EventBody::MessageEdited(body),
            (false, None) => EventBody::MessageDeleted(body),
        };
        self.fact(channel, by, nonce, body, out);
    }

    /// Records a fact, and tells those who hear the channel.
    fn fact(
        &mut self,
        channel: ChannelId,
        by: UserId,
        nonce: Option<Nonce>,
        body: EventBody,
        out: &mut Vec<Response>,
    ) {
        let entry = self.channels.entry(channel).or_default();
        let rev = entry.head().next();
        let mut inbox = None;
        match &body {
            EventBody::MemberAdded(body) => {
                entry.members.insert(body.member.user, rev);
                let incarnation = self.generation.incarnation;
                let added = ChannelAddedBody { channel, incarnation, rev, role: Role::Member };
                inbox = Some((body.member.user, EventBody::ChannelAdded(added)));
            }
            EventBody::MemberRemoved(body) => {
                entry.members.remove(&body.user);
                let removed = ChannelRemovedBody { channel, rev };
                inbox = Some((body.user, EventBody::ChannelRemoved(removed)));
            }
            _ => {}
        }
        let event = Arc::new(Event { channel, rev, by, at: 7, nonce, body });
        entry.events.push(Arc::clone(&event));
        if self.lose > 0 {
            self.lose -= 1;
        } else if self.attached.contains(&channel) {
            out.push(Response::Event { generation: self.generation, event });
        }
        if let Some((user, body)) = inbox.filter(|_| !self.inboxes_lag) {
            self.fact(ChannelId::inbox(user), by, None, body, out);
        }
    }

    fn attach(
        &self,
        caller: &Option<Caller>,
        channel: ChannelId,
        from: Option<(Incarnation, Rev)>,
    ) -> Result<Attached, Refusal> {
        let head = self.head(channel);
        let known = self.channels.get(&channel);
        let since = match (caller, channel.inbox_owner()) {
            (None, _) => Rev::ZERO,
            (Some(caller), Some(owner)) if owner == caller.user => Rev::ZERO,
            (Some(caller), None) if caller.standing != Standing::User => Rev::ZERO,
            (Some(caller), None) => *known
                .and_then(|channel| channel.members.get(&caller.user))
                .ok_or(Refusal::new(ErrorCode::NotFound))?,
            (Some(_), Some(_)) => return Err(Refusal::new(ErrorCode::NotFound)),
        };
        let public = known
            .and_then(|known| known.meta.as_ref())
            .is_some_and(|meta| meta.kind == ChannelKind::Public);
        let start = match from {
            None => Start::After(head),
            Some((of, _)) if of != self.generation.incarnation => Start::Reset(head),
            Some((_, rev)) if rev > head => Start::Reset(head),
            Some((_, rev)) if rev < since && !public => Start::Reset(since),
            Some((_, rev)) => Start::After(rev),
        };
        Ok(Attached { head, start })
    }

    fn read(&self, read: Read) -> Result<Answer, Refusal> {
        if let ReadQuery::Resolve(name) = &read.query {
            let found = self.channels.iter().find(|(_, channel)| {
                channel.meta.as_ref().is_some_and(|meta| meta.name.as_ref() == Some(name))
            });
            let (channel, _) = found.ok_or(Refusal::new(ErrorCode::NotFound))?;
            return Ok(Answer::Resolved(Resolved { channel: *channel }));
        }
        let empty = ToyChannel::default();
        let entry = self.channels.get(&read.channel).unwrap_or(&empty);
        Ok(match read.query {
            ReadQuery::Resolve(_) => return Err(Refusal::new(ErrorCode::NotFound)),
            ReadQuery::Channel => {
                let channel = entry.meta.clone().ok_or(Refusal::new(ErrorCode::NotFound))?;
                let seq = entry.messages.keys().next_back().copied().unwrap_or(Seq::ZERO);
                Answer::Channel(ChannelReply { channel, rev: entry.head(), seq, member: None })
            }
            ReadQuery::Members { .. } => {
                let members = entry.members.iter().map(|(user, since)| Member {
                    user: *user,
                    name: None,
                    role: Role::Member,
                    since: *since,
                });
                Answer::Members(MembersReply { members: members.collect(), next: None })
            }
            ReadQuery::Messages(_) => Answer::Messages(HistoryReply {
                messages: entry.messages.values().cloned().collect(),
                rev: entry.head(),
                more_before: false,
                more_after: false,
            }),
            ReadQuery::Events { after, limit } => Answer::Events(entry.page(after, limit)),
            ReadQuery::MyChannels { after, limit } => {
                Answer::MyChannels(self.mine(read.caller.as_ref(), after, limit))
            }
        })
    }

    fn mine(&self, caller: Option<&Caller>, after: Option<ChannelId>, limit: u32) -> ChannelsReply {
        let user = caller.map(|caller| caller.user);
        let theirs = |members: &BTreeMap<UserId, Rev>| {
            user.and_then(|user| members.get(&user).copied()).filter(|_| !self.inboxes_lag)
        };
        let mut found =
            self.channels.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        let mut channels = Vec::new();
        for (channel, entry) in found.by_ref() {
            if let Some(since) = theirs(&entry.members) {
                channels.push(MyChannel {
                    channel: *channel,
                    role: Role::Member,
                    since,
                    read: Seq::ZERO,
                });
            }
            if channels.len() as u32 == limit {
                let more = found.any(|(_, entry)| theirs(&entry.members).is_some());
                let next = more.then_some(*channel);
                return ChannelsReply { channels, next };
            }
        }
        ChannelsReply { channels, next: None }
    }
}

impl ToyChannel {
    fn head(&self) -> Rev {
        self.events.last().map_or(Rev::ZERO, |event| event.rev)
    }

    fn next_seq(&self) -> Seq {
        self.messages.keys().next_back().map_or(Seq::new(1), |last| last.next())
    }

    fn page(&self, after: Rev, limit: u32) -> EventsPage {
        let reset = (after < self.trimmed).then_some(self.trimmed);
        let start = reset.unwrap_or(after);
        let events = self.events.iter().filter(|event| event.rev > start).take(limit as usize);
        let now = |event: &Arc<Event>| Arc::new(self.with_message_now(event));
        EventsPage { events: events.map(now).collect(), head: self.head(), reset }
    }

    fn with_message_now(&self, event: &Event) -> Event {
        let mut event = event.clone();
        let Some(now) = event.seq().and_then(|seq| self.messages.get(&seq)).cloned() else {
            return event;
        };
        match &mut event.body {
            EventBody::MessageCreated(body)
            | EventBody::MessageEdited(body)
            | EventBody::MessageDeleted(body) => body.message = now,
            _ => {}
        }
        event
    }
}

fn meta(id: ChannelId, by: UserId, kind: ChannelKind) -> Channel {
    Channel {
        id,
        kind,
        name: None,
        topic: None,
        slow_mode_ms: 0,
        archived: false,
        deleted: false,
        by,
        at: 7,
        members: 0,
    }
}

fn member_added(user: UserId) -> EventBody {
    let member = Member { user, name: None, role: Role::Member, since: Rev::ZERO };
    EventBody::MemberAdded(MemberBody { member })
}

fn member_removed(user: UserId) -> EventBody {
    EventBody::MemberRemoved(MemberRemovedBody { user })
}

//! What comes back for an operation: an answer, a wish to ask again, or nothing in time.

use chappe_protocol::{ChannelId, ErrorCode, Rev, reply};
use chappe_uplink::{self as uplink, Answer, Generation, ReadQuery, Refusal, Request};

use super::{
    Session,
    command::coded,
    operation::{Membership, Operation, Work},
    wire,
};
use crate::{
    desk::Desk,
    presence::Found,
    uplink::{Owner, back_off_ms},
};

impl Session {
    /// Takes the leader's answer to a request of an operation.
    pub(crate) fn handle_answer(
        &mut self,
        desk: &mut Desk,
        serial: u64,
        token: u64,
        generation: Generation,
        result: Result<Answer, Refusal>,
    ) {
        let Some(place) = self.find(serial) else { return };
        let operation = &mut self.operations[place];
        // What an earlier attempt did is done; what it was refused for is being asked again.
        let is_current = operation.token == token;
        if is_current {
            operation.token = 0;
        }
        match (&operation.work, result) {
            (Work::Change(_), Ok(Answer::Change(change))) => self.changed(desk, place, change),
            (_, _) if !is_current => {}
            (Work::Change(_), Err(refusal)) => {
                self.change_refused(desk, place, generation, refusal);
            }
            // It may have reached its channel, and must not do so twice.
            (Work::Signal(_), Err(refusal)) if refusal.code == ErrorCode::Unknown => {
                self.finish(desk, serial, Err(wire(refusal)));
            }
            (_, Err(refusal)) if refusal.resend => self.ask_later(desk, place),
            (Work::Settle(_), Ok(Answer::MyChannels(page))) => {
                self.inbox_listed(desk, place, &page);
            }
            (Work::Settle(_), _) => self.ask_later(desk, place),
            (Work::Read(_), Ok(answer)) => self.read_answered(desk, place, generation, answer),
            (Work::Signal(_), Ok(Answer::Done)) => {
                self.finish(desk, serial, Ok(reply::Reply::Done(reply::Done {})));
            }
            (Work::Subscribe(_), Ok(Answer::MyChannels(page))) => {
                self.mine_listed(desk, serial, page);
            }
            (_, Err(refusal)) => self.finish(desk, serial, Err(wire(refusal))),
            (_, Ok(_)) => {
                tracing::error!("a leader answered something else than was asked");
                self.finish(desk, serial, Err(coded(ErrorCode::Unavailable)));
            }
        }
    }

    /// The time to ask again has come for one of its operations.
    pub(crate) fn handle_retry(&mut self, desk: &mut Desk, serial: u64) {
        self.resend_lines(desk);
        let Some(place) = self.find(serial) else { return };
        let operation = &mut self.operations[place];
        if let Work::Settle(settle) = &operation.work
            && settle.until_ms <= desk.now.boot_ms
        {
            return self.settled(desk, serial, Some(reply::InboxState::Pending));
        }
        let due = (1..=desk.now.boot_ms).contains(&operation.retry_at_ms);
        if due && !matches!(operation.work, Work::Change(_)) {
            operation.retry_at_ms = 0;
            self.send(desk, serial);
        }
    }

    /// An operation was not answered in time.
    pub(super) fn handle_deadline(&mut self, desk: &mut Desk, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        metrics::counter!("chappe_gateway_overdue_total").increment(1);
        match &self.operations[place].work {
            Work::Change(change) => self.line_overdue(desk, change.channel),
            Work::Settle(_) => self.settled(desk, serial, Some(reply::InboxState::Pending)),
            Work::SignIn(_) => {
                let code = ErrorCode::Unavailable;
                self.sign_in_failed(desk, serial, code, coded(code));
            }
            Work::Presence(_) => self.handle_presence(desk, serial, Found::Unknown),
            Work::Subscribe(_) => self.subscribe_overdue(desk, serial),
            Work::Signal(_) if self.operations[place].token != 0 => {
                self.finish(desk, serial, Err(coded(ErrorCode::Unknown)));
            }
            Work::Read(_) | Work::Signal(_) | Work::Refresh(_) => {
                self.finish(desk, serial, Err(coded(ErrorCode::Unavailable)));
            }
        }
        // Nothing that was given up may stay, or its time would be over again and again.
        assert!(self.find(serial).is_none(), "an operation that is overdue ends");
    }

    /// Some channels have a new leader: what waited to be sent again need not wait for it, and its
    /// refusals are counted anew.
    pub(crate) fn handle_led(&mut self, desk: &mut Desk, is_led: impl Fn(ChannelId) -> bool) {
        let mut lines: Vec<ChannelId> = Vec::new();
        let mut others = Vec::new();
        for operation in self.operations.iter_mut().filter(|one| one.retry_at_ms != 0) {
            match &operation.work {
                Work::Change(change) if !is_led(change.channel) => {}
                Work::Change(change) => {
                    operation.tries = 0;
                    if !lines.contains(&change.channel) {
                        lines.push(change.channel);
                    }
                }
                _ => {
                    operation.tries = 0;
                    operation.retry_at_ms = 0;
                    others.push(operation.serial);
                }
            }
        }
        for channel in lines {
            self.resend_line(desk, channel);
        }
        for serial in others {
            self.send(desk, serial);
        }
    }

    /// The pipe ended: nothing that was sent will be answered.
    pub(crate) fn handle_end(&mut self, desk: &mut Desk) {
        let mut signals = Vec::new();
        for operation in &mut self.operations {
            // It may have reached its channel, and must not do so twice.
            if operation.token != 0 && matches!(operation.work, Work::Signal(_)) {
                signals.push(operation.serial);
            }
            operation.token = 0;
            operation.retry_at_ms = 0;
        }
        for serial in signals {
            self.finish(desk, serial, Err(coded(ErrorCode::Unknown)));
        }
    }

    /// A new pipe is open: everything that is not answered is sent again, the lines in order.
    pub(crate) fn handle_open(&mut self, desk: &mut Desk) {
        let mut lines: Vec<ChannelId> = Vec::new();
        let mut others = Vec::new();
        for operation in &self.operations {
            match &operation.work {
                Work::Change(change) if lines.contains(&change.channel) => {}
                Work::Change(change) => lines.push(change.channel),
                _ => others.push(operation.serial),
            }
        }
        for channel in lines {
            self.resend_line(desk, channel);
        }
        for serial in others {
            self.send(desk, serial);
        }
    }

    /// Sends what an operation asks of a leader.
    pub(super) fn send(&mut self, desk: &mut Desk, serial: u64) {
        let Some(place) = self.find(serial) else { return };
        let Some(caller) = self.caller.clone() else { return };
        let owner = self.owner(serial);
        let operation = &self.operations[place];
        let at_least = match &operation.work {
            Work::Read(read) => read.channel.map_or(Rev::ZERO, |of| self.at_least(desk, of)),
            _ => self.at_least(desk, ChannelId::inbox(caller.user)),
        };
        let read = |token, caller: uplink::Caller, channel, query| {
            Request::Read(uplink::Read { token, caller: Some(caller), channel, at_least, query })
        };
        let inbox = ChannelId::inbox(caller.user);
        let request: Request = match &operation.work {
            Work::Change(change) => self.command_request(desk, operation, change, caller, 0),
            Work::Read(work) => {
                let channel = work.channel.unwrap_or(ChannelId::new(0)); // a name has none yet
                read(0, caller, channel, work.query.clone())
            }
            Work::Signal(work) => {
                let (channel, data) = (**work).clone();
                Request::Signal(uplink::Signal { token: 0, caller, channel, data })
            }
            Work::Settle(settle) => {
                // Only the one channel matters: the page is what comes after the id before it.
                let after = settle.change.channel.get().checked_sub(1).map(ChannelId::new);
                read(0, caller, inbox, ReadQuery::MyChannels { after, limit: 1 })
            }
            Work::Subscribe(subscribe) => {
                let Some(after) = subscribe.listing else { return };
                read(0, caller, inbox, ReadQuery::MyChannels { after, limit: LISTED })
            }
            // No leader's.
            Work::SignIn(_) | Work::Refresh(_) | Work::Presence(_) => return,
        };
        let token = desk.hub.uplink.ask(owner, |token| with_token(request, token));
        let operation = &mut self.operations[place];
        operation.token = token;
        if let Work::Change(change) = &mut operation.work {
            change.was_sent |= token != 0;
        }
    }

    /// Asks again in a moment.
    pub(super) fn ask_later(&mut self, desk: &mut Desk, place: usize) {
        let operation: &mut Operation = &mut self.operations[place];
        operation.tries = operation.tries.saturating_add(1);
        let at_ms = desk.now.boot_ms + back_off_ms(operation.tries);
        operation.retry_at_ms = at_ms;
        let owner = Owner::Operation { peer: self.peer, serial: operation.serial };
        desk.hub.uplink.retry_at(at_ms, owner);
    }

    /// The page of the caller's inbox on which a change would show.
    fn inbox_listed(&mut self, desk: &mut Desk, place: usize, page: &reply::ChannelsReply) {
        let operation = &self.operations[place];
        let Work::Settle(settle) = &operation.work else { return };
        let listed = page.channels.iter().any(|mine| mine.channel == settle.change.channel);
        if listed == (settle.membership == Membership::Member) {
            self.settled(desk, operation.serial, None);
        } else {
            self.ask_later(desk, place);
        }
    }
}

fn with_token(mut request: Request, new: u64) -> Request {
    match &mut request {
        Request::Command(command) => command.token = new,
        Request::Attach(attach) => attach.token = new,
        Request::Read(read) => read.token = new,
        Request::Signal(signal) => signal.token = new,
        Request::Detach(_) => {}
    }
    request
}

/// Channels of the caller's that are listed at once.
const LISTED: u32 = 200;

//! Commands that change a channel: sent in order, sent again in order.
//!
//! A session's unanswered commands for a channel are its line. When a leader asks for one of them
//! again, the whole line waits a moment and is then sent again from its first, with a higher
//! attempt; what comes meanwhile joins its end. So a retry is never overtaken.

use chappe_protocol::{ChannelId, ErrorCode, Nonce, Rev, limits, reply};
use chappe_uplink::{Action, Caller, Command, Generation, Refusal, Request, Standing};

use super::{
    Session,
    command::{Sending, coded, settles},
    operation::{Change, Membership, Operation, Settle, Work},
    wire,
};
use crate::{
    desk::Desk,
    uplink::{Owner, back_off_ms},
};

impl Session {
    /// Begins a change.
    pub(super) fn change(
        &mut self,
        desk: &mut Desk,
        sending: Sending,
        channel: ChannelId,
        action: Action,
    ) {
        if sending.age_ms > limits::NONCE_AGE_MS_MAX {
            return self.refuse_with(desk, sending.frame, ErrorCode::NonceExpired);
        }
        let line = self.line(channel).next_back();
        let (attempt, retry_at_ms) = match line.map(|last| (last.retry_at_ms, &last.work)) {
            Some((retry_at_ms, Work::Change(last))) => (last.attempt, retry_at_ms),
            _ => (self.attempts, 0),
        };
        let settles = settles(&action).filter(|_| !self.is_service());
        let change = Change {
            channel,
            client_nonce: sending.nonce.is_some(),
            nonce: self.nonce_of(desk, &sending),
            age_ms: sending.age_ms,
            action,
            attempt,
            was_sent: false,
            settles,
            shown: Rev::ZERO,
        };
        let serial = self.begin(desk, sending.frame, Work::Change(Box::new(change)));
        if retry_at_ms == 0 {
            self.send(desk, serial);
        } else if let Some(last) = self.operations.back_mut() {
            last.retry_at_ms = retry_at_ms; // goes with its line
        }
    }

    /// The client's nonce, or one that is good for this gateway's own resending.
    pub(super) fn nonce_of(&self, desk: &mut Desk, sending: &Sending) -> Nonce {
        if let Some(nonce) = &sending.nonce {
            return nonce.clone();
        }
        let made = format!("~{:x}.{:x}", self.id.get(), desk.hub.uplink.serial());
        #[expect(clippy::expect_used, reason = "hexadecimal digits are a valid nonce")]
        Nonce::parse(made).expect("a made nonce is valid")
    }

    /// The request of a change, to be sent now.
    pub(super) fn command_request(
        &self,
        desk: &Desk,
        operation: &Operation,
        change: &Change,
        caller: Caller,
        token: u64,
    ) -> Request {
        let held_ms = desk.now.boot_ms.saturating_sub(operation.started_ms);
        Request::Command(Box::new(Command {
            token,
            caller,
            session: self.id,
            attempt: change.attempt,
            position: operation.serial,
            channel: change.channel,
            nonce: change.nonce.clone(),
            client_nonce: change.client_nonce,
            age_ms: change.age_ms + held_ms,
            action: change.action.clone(),
        }))
    }

    /// The leader carried a change out.
    pub(super) fn changed(&mut self, desk: &mut Desk, place: usize, change: reply::Change) {
        let operation = &mut self.operations[place];
        let (serial, now_ms) = (operation.serial, desk.now.boot_ms);
        let Work::Change(work) = &operation.work else { return };
        let shown = work.shown >= change.rev;
        let settles = work.settles.filter(|_| !shown);
        let channel = change.channel;
        self.saw(channel, change.rev);
        let Some(membership) = settles else {
            return self.finish(desk, serial, Ok(reply::Reply::Change(change)));
        };
        let until_ms = now_ms + desk.config.timing.inbox_ms;
        let operation = &mut self.operations[place];
        operation.work = Work::Settle(Box::new(Settle { change, membership, until_ms }));
        operation.token = 0;
        operation.tries = 0;
        desk.hub.uplink.retry_at(until_ms, Owner::Operation { peer: self.peer, serial });
        self.send(desk, serial);
    }

    /// The leader refused a change, or wants it again.
    pub(super) fn change_refused(
        &mut self,
        desk: &mut Desk,
        place: usize,
        generation: Generation,
        refusal: Refusal,
    ) {
        let operation = &self.operations[place];
        let Work::Change(change) = &operation.work else { return };
        let (serial, channel) = (operation.serial, change.channel);
        if refusal.resend || desk.hub.refuses(channel, generation) {
            self.hold_line(desk, channel);
        } else {
            self.finish(desk, serial, Err(wire(refusal)));
        }
    }

    /// The caller's inbox showed a channel's change.
    pub(super) fn inbox_showed(
        &mut self,
        desk: &mut Desk,
        channel: ChannelId,
        rev: Rev,
        membership: Membership,
    ) {
        let mut settled = Vec::new();
        for operation in &mut self.operations {
            match &mut operation.work {
                Work::Change(change)
                    if change.channel == channel && change.settles == Some(membership) =>
                {
                    change.shown = change.shown.max(rev);
                }
                Work::Settle(settle)
                    if settle.change.channel == channel
                        && settle.membership == membership
                        && rev >= settle.change.rev =>
                {
                    settled.push(operation.serial);
                }
                _ => {}
            }
        }
        for serial in settled {
            self.settled(desk, serial, None);
        }
    }

    /// Answers a change whose inbox need not be waited for any more.
    pub(super) fn settled(
        &mut self,
        desk: &mut Desk,
        serial: u64,
        inbox: Option<reply::InboxState>,
    ) {
        let Some(place) = self.find(serial) else { return };
        let Work::Settle(settle) = &self.operations[place].work else { return };
        let change = reply::Change { inbox, ..settle.change.clone() };
        self.finish(desk, serial, Ok(reply::Reply::Change(change)));
    }

    /// The time of a line's first is over: it may have happened if it ever left. So is that of
    /// those behind it, which its retry would come after.
    pub(super) fn line_overdue(&mut self, desk: &mut Desk, channel: ChannelId) {
        let line = self.line(channel).map(|operation| {
            let was_sent = matches!(&operation.work, Work::Change(change) if change.was_sent);
            (operation.serial, if was_sent { ErrorCode::Unknown } else { ErrorCode::Unavailable })
        });
        for (serial, code) in line.collect::<Vec<_>>() {
            self.finish(desk, serial, Err(coded(code)));
        }
    }

    /// Sends the lines again whose moment has come, each from its first.
    pub(super) fn resend_lines(&mut self, desk: &mut Desk) {
        let now_ms = desk.now.boot_ms;
        let mut due = Vec::new();
        for operation in &self.operations {
            if let Work::Change(change) = &operation.work
                && (1..=now_ms).contains(&operation.retry_at_ms)
                && !due.contains(&change.channel)
            {
                due.push(change.channel);
            }
        }
        for channel in due {
            self.resend_line(desk, channel);
        }
    }

    /// Sends a line again from its first.
    pub(super) fn resend_line(&mut self, desk: &mut Desk, channel: ChannelId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let mut line = Vec::new();
        for operation in &mut self.operations {
            if let Work::Change(change) = &mut operation.work
                && change.channel == channel
            {
                change.attempt = attempt;
                operation.retry_at_ms = 0;
                operation.token = 0;
                line.push(operation.serial);
            }
        }
        for serial in line {
            self.send(desk, serial);
        }
    }

    /// Lets a line wait a moment before it is sent again.
    fn hold_line(&mut self, desk: &mut Desk, channel: ChannelId) {
        if self.line(channel).any(|operation| operation.retry_at_ms != 0) {
            return; // those behind the first are refused too
        }
        let now_ms = desk.now.boot_ms;
        let mut first = None;
        for operation in &mut self.operations {
            let Work::Change(change) = &operation.work else { continue };
            if change.channel != channel {
                continue;
            }
            let (at_ms, _) = *first.get_or_insert_with(|| {
                operation.tries = operation.tries.saturating_add(1);
                (now_ms + back_off_ms(operation.tries), operation.serial)
            });
            operation.retry_at_ms = at_ms;
        }
        if let Some((at_ms, serial)) = first {
            desk.hub.uplink.retry_at(at_ms, self.owner(serial));
        }
    }

    /// The unanswered changes of a channel, in the order in which they came.
    fn line(&self, channel: ChannelId) -> impl DoubleEndedIterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| match &operation.work {
            Work::Change(change) => change.channel == channel,
            _ => false,
        })
    }

    fn is_service(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.standing == Standing::Service)
    }
}

//! What a frame of the server's means.

use chappe_protocol::{
    ChannelId, CloseCode, Command, ErrorCode, EventBody, Rev, WireError,
    command::{Channels, Subscribe, Unsubscribe},
    frame::{Incoming, ServerPing},
    reply::{SubscribeReply, Subscribed},
};

use super::{Answer, Core, Output, Phase};
use crate::{
    connection::Frame,
    error::{Error, is_retried},
    session::{
        commands::Origin,
        subscriptions::Verdict,
        update::{Anomaly, Update},
    },
};

impl Core {
    /// A frame came.
    pub(crate) fn handle_frame(&mut self, now_ms: u64, frame: Frame) {
        if let Phase::Up { heard_at_ms, probed, .. } = &mut self.phase {
            (*heard_at_ms, *probed) = (now_ms, false);
        }
        if let Incoming::Ok { id } = frame.incoming() {
            return self.handle_ok(now_ms, *id, frame);
        }
        match frame.into_incoming() {
            Incoming::UnknownEvent(event) => {
                let (channel, rev) = (event.channel, event.rev);
                self.handle_place(now_ms, channel, rev, Update::Unknown(event));
            }
            Incoming::Event(event) => {
                let (channel, rev) = (event.channel, event.rev);
                let last = self.is_last(&event.body);
                if let EventBody::ChannelAdded(added) = &event.body {
                    let (incarnation, rev) = (added.incarnation, added.rev);
                    self.subscriptions.handle_added(added.channel, incarnation, rev);
                }
                let delivered = self.handle_place(now_ms, channel, rev, Update::Event(event));
                if delivered && last {
                    self.subscriptions.remove(channel);
                }
            }
            Incoming::Error { id, error } => self.handle_refusal(now_ms, id, error),
            Incoming::Live(live) => {
                if let Some(held) = self.subscriptions.handle_live(live.channel, live.rev) {
                    let (channel, head) = (live.channel, live.rev);
                    self.mend(now_ms, channel, Anomaly::Behind { channel, held, head });
                }
                self.emit(Update::Live(live));
            }
            Incoming::Reset(reset) => {
                if self.subscriptions.handle_reset(&reset) {
                    self.emit(Update::Reset(reset));
                }
            }
            Incoming::Signal(signal) => self.emit(Update::Signal(signal)),
            Incoming::Ping(ServerPing { heads, .. }) => {
                self.pongs += 1;
                self.subscriptions.handle_heads(now_ms, &heads);
            }
            // The connection tells it when it ends.
            Incoming::Closing(_) | Incoming::Unknown | Incoming::Ok { .. } => {}
        }
    }

    /// Passes an event on if it is the channel's next.
    fn handle_place(&mut self, now: u64, channel: ChannelId, rev: Rev, update: Update) -> bool {
        match self.subscriptions.handle_event(channel, rev) {
            Verdict::Deliver => {
                self.emit(update);
                return true;
            }
            Verdict::Drop => {}
            Verdict::Repeated { held } => {
                self.emit(Update::Anomaly(Anomaly::Repeated { channel, held, found: rev }));
            }
            Verdict::Gap { held } => {
                self.mend(now, channel, Anomaly::Gap { channel, held, found: rev });
            }
        }
        false
    }

    /// Whether nothing of this channel comes after it.
    fn is_last(&self, body: &EventBody) -> bool {
        match body {
            EventBody::MemberRemoved(removed) => Some(removed.user) == self.subscriptions.me(),
            EventBody::ChannelDeleted(_) => true,
            _ => false,
        }
    }

    pub(super) fn mend(&mut self, now_ms: u64, channel: ChannelId, anomaly: Anomaly) {
        self.emit(Update::Anomaly(anomaly));
        match self.subscriptions.mend(channel) {
            Some(subscribe) => drop(self.commands.push_own(subscribe.into(), now_ms)),
            None => self.hangs_up = true,
        }
    }

    fn handle_ok(&mut self, now_ms: u64, id: u32, frame: Frame) {
        let Some((ticket, pending)) = self.commands.take(id) else { return };
        let mut outcome = Ok(());
        match &pending.command {
            Command::Subscribe(subscribe) => match frame.body::<SubscribeReply>() {
                Ok(reply) => {
                    if subscribe.channels == Channels::Mine {
                        self.subscriptions.handle_mine();
                    }
                    self.handle_outcomes(now_ms, &reply.channels);
                }
                Err(error) => outcome = Err(error),
            },
            Command::Unsubscribe(Unsubscribe { channels }) => {
                for channel in channels {
                    self.subscriptions.remove(*channel);
                }
            }
            _ => {}
        }
        if pending.origin == Origin::Owner {
            let answer = Answer {
                ticket,
                outcome: outcome.map(|()| frame),
                attempts: pending.attempts,
                in_doubt: false,
                overtaken: pending.last_refusal.is_some(),
            };
            self.output.push_back(Output::Answer(answer));
        }
    }

    pub(super) fn handle_outcomes(&mut self, now_ms: u64, outcomes: &[Subscribed]) {
        for outcome in outcomes {
            let Some(error) = &outcome.error else {
                self.subscriptions.handle_subscribed(outcome);
                self.emit(Update::Subscribed(outcome.clone()));
                continue;
            };
            if is_retried(error) {
                if let Some(again) = self.subscriptions.ask_again(outcome.channel) {
                    let at_ms = now_ms + self.retry_wait_ms(0, error.retry_after_ms);
                    self.commands.push_own(again.into(), at_ms);
                }
            } else if self.subscriptions.remove(outcome.channel) {
                let (channel, error) = (outcome.channel, error.clone());
                self.emit(Update::Ended { channel, error });
            }
        }
    }

    fn handle_refusal(&mut self, now_ms: u64, id: Option<u32>, error: WireError) {
        // Without an id it is about the connection, whose end follows and says what to do.
        let Some(id) = id else { return };
        let Some(pending) = self.commands.in_flight(id) else { return };
        let code = ErrorCode::from_number(error.code);
        if code.and_then(ErrorCode::closes).is_some_and(CloseCode::reconnects) {
            return; // stays unanswered and is sent again on the next connection
        }
        let given_up = if is_retried(&error) {
            let at_ms = now_ms + self.retry_wait_ms(pending.attempts, error.retry_after_ms);
            let in_doubt = code == Some(ErrorCode::Unknown);
            self.commands.retry(id, at_ms, &error, in_doubt)
        } else {
            // Decided anew and refused: an earlier attempt did not take effect either, or the
            // nonce would have given its result. Unless the nonce is too old to tell.
            self.commands.take(id).map(|(ticket, mut pending)| {
                pending.in_doubt &= code == Some(ErrorCode::NonceExpired);
                (ticket, pending)
            })
        };
        if let Some((ticket, pending)) = given_up {
            if let Command::Subscribe(subscribe) = &pending.command {
                self.forget_refused(subscribe);
            }
            self.fail(ticket, &pending, Error::Refused(error));
        }
    }

    fn forget_refused(&mut self, subscribe: &Subscribe) {
        let Channels::These(channels) = &subscribe.channels else { return };
        for asked in channels {
            self.subscriptions.remove(asked.id);
        }
    }

    fn retry_wait_ms(&mut self, attempts: u32, asked_ms: Option<u64>) -> u64 {
        let doublings = attempts.saturating_sub(1);
        self.settings.backoff.wait_ms(doublings, asked_ms, &mut self.random).max(1)
    }
}

//! What a shard is fed by its pipe and by time.

use chappe_uplink::{Answer, Generation, Leading, Refusal, Response};

use super::Shard;
use crate::{
    hub::{Notice, Purpose, Sockets},
    uplink::Owner,
};

impl Shard {
    /// Takes what came over the pipe, in its order.
    pub(crate) fn handle_responses(
        &mut self,
        responses: &mut Vec<Response>,
        sockets: &mut impl Sockets,
    ) {
        for response in responses.drain(..) {
            match response {
                Response::Event { generation, event } => {
                    if self.desk.hub.handle_event(generation, &event) {
                        self.desk.hub.flush(sockets);
                    }
                }
                Response::Answer { token, generation, result } => {
                    self.handle_answer(token, generation, result.map(|answer| *answer));
                }
                Response::Signal(signal) => self.desk.hub.handle_signal(signal, sockets),
                Response::Heads(heads) => self.desk.hub.handle_heads(&heads),
                Response::Leading(leading) => self.handle_leading(leading),
            }
            self.settle();
        }
    }

    /// A pipe is open.
    pub(crate) fn handle_open(&mut self) {
        self.desk.hub.handle_open();
        for (_, session) in &mut self.sessions {
            session.handle_open(&mut self.desk);
        }
        if std::mem::replace(&mut self.pipe_opened, true) {
            metrics::counter!("chappe_gateway_pipes_reopened_total").increment(1);
        }
        self.settle();
    }

    /// The pipe ended.
    pub(crate) fn handle_end(&mut self) {
        self.desk.hub.handle_end();
        for (_, session) in &mut self.sessions {
            session.handle_end(&mut self.desk);
        }
        self.settle();
    }

    /// Time passed.
    pub(crate) fn handle_tick(&mut self) {
        let now_ms = self.desk.now.boot_ms;
        while let Some(owner) = self.desk.hub.uplink.poll_retry(now_ms) {
            self.retry(owner);
        }
        self.close_drained();
        while let Some(peer) = self.wheel.poll_due(now_ms) {
            if let Some(session) = self.sessions.get_mut(peer as usize) {
                session.handle_due(&mut self.desk);
                self.arm(peer);
            }
        }
        self.desk.hub.handle_tick();
        self.settle();
    }

    fn handle_answer(
        &mut self,
        token: u64,
        generation: Generation,
        result: Result<Answer, Refusal>,
    ) {
        let hub = &mut self.desk.hub;
        match hub.uplink.answered(token) {
            Some(Owner::Operation { peer, serial }) => {
                if let Some(session) = self.sessions.get_mut(peer as usize) {
                    session.handle_answer(&mut self.desk, serial, token, generation, result);
                }
            }
            Some(Owner::Join(serial)) => {
                hub.handle_joined(serial, generation, as_attached(result));
            }
            Some(Owner::Reattach(channel)) => {
                hub.handle_reattached(channel, token, generation, as_attached(result));
            }
            Some(Owner::Page(channel)) => {
                let page = result.and_then(|answer| match answer {
                    Answer::Events(page) => Ok(page),
                    _ => Err(Refusal::resend()),
                });
                hub.handle_page(channel, token, generation, page);
            }
            None => {} // given up meanwhile
        }
    }

    fn handle_leading(&mut self, leading: Leading) {
        let knew = self.desk.hub.incarnation().is_some();
        let partitions = leading.partitions;
        let new = self.desk.hub.handle_leading(leading);
        if !new.is_empty() {
            for (_, session) in &mut self.sessions {
                session.handle_led(&mut self.desk, |id| new.contains(&id.partition(partitions)));
            }
        }
        if !knew {
            for (_, session) in &mut self.sessions {
                session.handle_incarnation(&mut self.desk);
            }
        }
    }

    fn retry(&mut self, owner: Owner) {
        match owner {
            Owner::Operation { peer, serial } => {
                if let Some(session) = self.sessions.get_mut(peer as usize) {
                    session.handle_retry(&mut self.desk, serial);
                }
            }
            Owner::Join(serial) => self.desk.hub.ask_join(serial),
            Owner::Reattach(channel) => self.desk.hub.retry_reattach(channel),
            Owner::Page(channel) => self.desk.hub.retry_page(channel),
        }
    }

    /// Tells sessions the hub's news, and sends the reads that may be sent.
    pub(super) fn settle(&mut self) {
        while let Some(notice) = self.desk.hub.poll_notice() {
            match notice {
                Notice::Joined { peer, purpose, channel, outcome } => {
                    let Some(session) = self.sessions.get_mut(peer as usize) else { continue };
                    match purpose {
                        Purpose::Asked(serial) => {
                            session.handle_joined(&mut self.desk, serial, channel, outcome);
                        }
                        Purpose::Inbox(serial) => {
                            session.handle_inbox_joined(&mut self.desk, serial, outcome);
                        }
                        Purpose::Followed => session.handle_followed(&mut self.desk, outcome),
                    }
                }
                Notice::Inbox { peer, event } => {
                    if let Some(session) = self.sessions.get_mut(peer as usize) {
                        session.handle_inbox(&mut self.desk, &event);
                    }
                }
                Notice::InboxLost { peer } => {
                    if let Some(session) = self.sessions.get_mut(peer as usize) {
                        session.inbox_lost(&mut self.desk);
                    }
                }
                Notice::Ended { peer, refusal } => {
                    if let Some(session) = self.sessions.get_mut(peer as usize) {
                        session.reading_ended(&mut self.desk, refusal);
                    }
                }
            }
        }
        self.desk.hub.pump_pages();
    }
}

/// The answer to an attach; any other answer counts as none.
fn as_attached(result: Result<Answer, Refusal>) -> Result<chappe_uplink::Attached, Refusal> {
    result.and_then(|answer| match answer {
        Answer::Attached(attached) => Ok(attached),
        _ => Err(Refusal::resend()),
    })
}

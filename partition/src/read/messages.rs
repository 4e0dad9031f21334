//! Pages of messages. Numbers are dense, so a page is a range of them.

use std::collections::BTreeMap;

use chappe_protocol::{
    ChannelId, ErrorCode, Message, Rev, Seq, command::History, reply::HistoryReply,
};
use chappe_storage::store::{Key, Row, Scan, Stamp};
use chappe_uplink::{Answer, Read, Refusal};

use super::{Step, Stepped, What, page_limit};
use crate::{
    action::StoreRead,
    attach::readable_since,
    channel::ChannelState,
    partition::Partition,
    project::{change_message, created_message, stamp},
    record::FactBody,
    row::{RowValue, StampedRow},
    slot::Slot,
};

/// The range of a page, and one message below it, which tells whether there is more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    first: u64,
    last: u64,
}

impl Partition {
    pub(super) fn begin_messages(
        &self,
        slot: &Slot,
        state: &ChannelState,
        read: &Read,
        history: &History,
    ) -> Stepped {
        let since = since(state, read)?;
        let window = window(state.head.seq, history)?;
        if window.first > window.last {
            return Ok(Step::Done(page(state, since, window, Vec::new())));
        }
        let below = window.first.saturating_sub(1).max(1);
        if let Some(messages) = newest(slot, below, window.last) {
            return Ok(Step::Done(page(state, since, window, messages)));
        }
        let after = Seq::new(below - 1);
        let limit = (window.last - below + 1) as usize;
        let ask = StoreRead::Scan(Scan::MessagesAfter(read.channel, after), limit);
        Ok(Step::Ask(What::Messages(window), ask))
    }

    pub(super) fn messages_found(
        &mut self,
        read: &Read,
        window: Window,
        rows: Vec<(Key, Row)>,
    ) -> Stepped {
        let slot = self.slots.get(&read.channel).ok_or_else(Refusal::resend)?;
        let state = slot.known().ok_or_else(Refusal::resend)?;
        let since = since(state, read)?;
        let mut found = Messages::new(read.channel);
        for (key, row) in rows {
            found.add(key, &row)?;
        }
        found.lay_tail_over(slot, window.first.saturating_sub(1), window.last);
        let (messages, head) = (found.into_vec(), state.head.seq);
        let answer = page(state, since, window, messages.clone());
        if window.last == head.get() {
            self.keep_newest(read.channel, messages);
        }
        Ok(Step::Done(answer))
    }
}

impl Partition {
    /// Keeps the newest messages of a channel in memory, as the next reader wants them too.
    fn keep_newest(&mut self, channel: ChannelId, messages: Vec<Message>) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        let dense = messages.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq);
        if dense && messages.len() > slot.newest.len() {
            self.hot.keep_newest(channel, slot, messages);
            while let Some(other) = self.hot.makes_room() {
                if let Some(slot) = self.slots.get_mut(&other) {
                    slot.newest.pop_front();
                }
            }
        }
    }
}

fn since(state: &ChannelState, read: &Read) -> Result<Rev, Refusal> {
    if state.meta.as_ref().is_none_or(|meta| meta.deleted) {
        return Err(Refusal::new(ErrorCode::NotFound));
    }
    read.caller.as_ref().map_or(Ok(Rev::ZERO), |caller| readable_since(state, read.channel, caller))
}

fn window(head: Seq, history: &History) -> Result<Window, Refusal> {
    let limit = page_limit(history.limit)? as u64;
    let head = head.get();
    let (first, last) = match (history.before, history.after, history.around) {
        (None, None, None) => (head.saturating_sub(limit - 1), head),
        (Some(before), None, None) => {
            let last = head.min(before.get().saturating_sub(1));
            ((last + 1).saturating_sub(limit), last)
        }
        (None, Some(after), None) => (after.get() + 1, head.min(after.get() + limit)),
        (None, None, Some(around)) => {
            let below = limit.div_ceil(2);
            let first = (around.get() + 1).saturating_sub(below);
            (first, head.min(around.get() + (limit - below)))
        }
        _ => {
            let why = "at most one of before, after and around";
            return Err(Refusal::new(ErrorCode::Invalid).because(why));
        }
    };
    Ok(Window { first: first.max(1), last })
}

/// The messages of a range, if memory has them all.
fn newest(slot: &Slot, first: u64, last: u64) -> Option<Vec<Message>> {
    slot.newest(Seq::new(last))?;
    let messages = (first..=last).map(|seq| slot.newest(Seq::new(seq)).cloned());
    messages.collect()
}

fn page(state: &ChannelState, since: Rev, window: Window, mut messages: Vec<Message>) -> Answer {
    messages.retain(|message| message.rev >= since);
    let more_before = messages.first().is_some_and(|message| message.seq.get() < window.first);
    messages.retain(|message| message.seq.get() >= window.first);
    let more_after = window.last < state.head.seq.get();
    Answer::Messages(HistoryReply { messages, rev: state.head.rev, more_before, more_after })
}

/// Messages as the store has them, with the facts that it lacks laid over them.
pub(super) struct Messages {
    channel: ChannelId,
    messages: BTreeMap<u64, (Stamp, Message)>,
}

impl Messages {
    pub(super) const fn new(channel: ChannelId) -> Self {
        Self { channel, messages: BTreeMap::new() }
    }

    /// Adds a row of the store.
    pub(super) fn add(&mut self, key: Key, row: &Row) -> Result<(), Refusal> {
        match (key, StampedRow::decode(&key, row)) {
            (Key::Message(_, seq), Ok(StampedRow { stamp, value: RowValue::Message(message) })) => {
                self.messages.insert(seq.get(), (stamp, message));
                Ok(())
            }
            _ => Err(Refusal::new(ErrorCode::StoreUnavailable).because("a row is damaged")),
        }
    }

    /// Lays the tail over the messages from `first` to `last`, and adds those that it made.
    pub(super) fn lay_tail_over(&mut self, slot: &Slot, first: u64, last: u64) {
        for fact in &slot.tail {
            debug_assert!(fact.channel == self.channel);
            let Some(seq) = fact.message().map(Seq::get).filter(|seq| (first..=last).contains(seq))
            else {
                continue;
            };
            let stamp = stamp(fact);
            match (&fact.body, self.messages.get_mut(&seq)) {
                (_, Some((has, _))) if *has >= stamp => {}
                (FactBody::Message(body), _) => {
                    self.messages.insert(seq, (stamp, created_message(fact, body)));
                }
                (_, Some((has, message))) => {
                    change_message(message, fact);
                    *has = stamp;
                }
                (_, None) => {} // the store has not that message any more
            }
        }
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Message> {
        self.messages.get(&seq.get()).map(|(_, message)| message)
    }

    fn into_vec(self) -> Vec<Message> {
        self.messages.into_values().map(|(_, message)| message).collect()
    }
}

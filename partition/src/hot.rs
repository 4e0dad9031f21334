//! What is kept in memory of rows: the newest messages of each channel, and single rows that a
//! command needed. Both include the facts in flight, both are bounded, and both change with every
//! fact that touches them: a deleted text leaves them at once.

use std::collections::VecDeque;

use chappe_protocol::{ChannelId, Message, PartitionId, Seq};
use chappe_storage::{log::Offset, store::Key};

use crate::{
    id_map::{IdMap, id_map},
    project::{Touch, change_message, created_message, project, touches},
    record::{Fact, FactBody},
    row::RowValue,
    slot::Slot,
};

pub(crate) struct Hot {
    partition: PartitionId,
    /// Rows that were asked for, also those that do not exist.
    rows: IdMap<Key, Option<RowValue>>,
    rows_order: VecDeque<Key>,
    rows_max: usize,
    /// One entry for each message in a slot, in the order in which they came.
    messages: VecDeque<ChannelId>,
    messages_max: usize,
}

/// What is known of a row.
pub(crate) enum Known<'a, T> {
    /// It is this.
    Row(&'a T),
    /// It does not exist.
    Missing,
    /// The store has to be asked.
    Unknown,
}

impl Hot {
    pub(crate) fn new(
        partition: PartitionId,
        seed: u64,
        rows_max: usize,
        messages_max: usize,
    ) -> Self {
        Self {
            partition,
            rows: id_map(seed),
            rows_order: VecDeque::new(),
            rows_max,
            messages: VecDeque::new(),
            messages_max,
        }
    }

    /// The row under `key`, with all facts.
    pub(crate) fn row(&self, key: &Key) -> Known<'_, RowValue> {
        match self.rows.get(key) {
            Some(Some(row)) => Known::Row(row),
            Some(None) => Known::Missing,
            None => Known::Unknown,
        }
    }

    /// A message of a channel that holds at least `seq` messages.
    pub(crate) fn message<'a>(
        &'a self,
        slot: &'a Slot,
        channel: ChannelId,
        seq: Seq,
    ) -> Known<'a, Message> {
        if let Some(message) = slot.newest(seq) {
            return Known::Row(message);
        }
        match self.rows.get(&Key::Message(channel, seq)) {
            Some(Some(RowValue::Message(message))) => Known::Row(message),
            Some(_) => Known::Missing,
            None => Known::Unknown,
        }
    }

    /// Keeps a row that was read, with all facts laid over it.
    pub(crate) fn keep(&mut self, key: Key, row: Option<RowValue>) {
        if self.rows.insert(key, row).is_none() {
            self.rows_order.push_back(key);
        }
        while self.rows.len() > self.rows_max {
            let Some(oldest) = self.rows_order.pop_front() else { return };
            self.rows.remove(&oldest);
        }
    }

    /// Takes in a fact that was just decided. Returns the channel whose oldest message in memory
    /// has to make room, if one has.
    pub(crate) fn apply(&mut self, slot: &mut Slot, fact: &Fact) -> Option<ChannelId> {
        match &fact.body {
            FactBody::Message(body) => {
                if slot.newest.back().is_some_and(|last| last.seq.next() != body.seq) {
                    self.forget(fact.channel, slot);
                }
                slot.newest.push_back(created_message(fact, body));
                self.messages.push_back(fact.channel);
                return self.makes_room();
            }
            FactBody::Edited(_)
            | FactBody::Erased(_)
            | FactBody::Reacted(_)
            | FactBody::Unreacted(_) => self.change_message(slot, fact),
            _ if fact.channel.inbox_owner().is_some() => self.change_rows(fact),
            _ => {}
        }
        None
    }

    /// Keeps messages that were read: the channel's newest, with all facts.
    pub(crate) fn keep_newest(
        &mut self,
        channel: ChannelId,
        slot: &mut Slot,
        messages: Vec<Message>,
    ) {
        self.forget(channel, slot);
        self.messages.extend(messages.iter().map(|_| channel));
        slot.newest = messages.into();
    }

    /// The channel whose oldest message in memory has to make room, if there are too many.
    pub(crate) fn makes_room(&mut self) -> Option<ChannelId> {
        if self.messages.len() > self.messages_max { self.messages.pop_front() } else { None }
    }

    /// Forgets a channel's newest messages.
    pub(crate) fn forget(&mut self, channel: ChannelId, slot: &mut Slot) {
        if !slot.newest.is_empty() {
            slot.newest.clear();
            self.messages.retain(|other| *other != channel);
        }
    }

    /// Forgets everything: the facts in flight are no facts.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.rows_order.clear();
        self.messages.clear();
    }

    fn change_message(&mut self, slot: &mut Slot, fact: &Fact) {
        let Some(seq) = fact.message() else { return };
        if let Some(message) = slot.newest_mut(seq) {
            change_message(message, fact);
        }
        if let Some(Some(RowValue::Message(message))) =
            self.rows.get_mut(&Key::Message(fact.channel, seq))
        {
            change_message(message, fact);
        }
    }

    fn change_rows(&mut self, fact: &Fact) {
        touches(fact, self.partition, &mut |Touch { key, .. }| {
            if let Some(row) = self.rows.get_mut(&key) {
                let offset = Offset(0); // no row of an inbox says it
                *row = project(fact, offset, &key, row.take()).ok();
            }
        });
    }
}

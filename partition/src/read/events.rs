//! Pages of events for catching up: the references in order, each joined with its message and
//! channel as they are now. What is missing in the middle is a reset, never a skip.

use std::sync::Arc;

use chappe_protocol::{ErrorCode, Event, Rev, Seq};
use chappe_storage::store::{Key, Scan};
use chappe_uplink::{Answer, EventsPage, Read, Refusal};

use super::{Step, Stepped, What, messages::Messages};
use crate::{
    action::{StoreFound, StoreRead},
    attach::readable_since,
    channel::ChannelState,
    partition::Partition,
    project::{event_body, event_row},
    row::{EventRow, RowValue, StampedRow},
    rows_wanted::lay_over,
    slot::Slot,
};

/// A page under way.
pub(super) struct Page {
    after: Rev,
    limit: usize,
    ask: Ask,
}

enum Ask {
    /// What the reader was, if he is no member now.
    Member,
    /// The references.
    References { until: Rev },
    /// The messages that they are about.
    Messages { until: Rev, events: Vec<(Rev, EventRow)>, keys: Vec<Key> },
}

/// Where a reader's events end, and where they may begin.
struct Reach {
    since: Rev,
    head: Rev,
}

impl Partition {
    pub(super) fn begin_events(
        &self,
        slot: &Slot,
        state: &ChannelState,
        read: &Read,
        after: Rev,
        limit: u32,
    ) -> Stepped {
        let limit = (limit as usize).clamp(1, EVENTS_MAX);
        match reach(state, read) {
            Ok(reach) => self.references(slot, state, read, Page::new(after, limit), &reach),
            // He may have been a member: then he reads up to the revision that removed him.
            Err(refusal) => match &read.caller {
                Some(caller)
                    if read.channel.inbox_owner().is_none()
                        && state.meta.as_ref().is_some_and(|meta| !meta.deleted) =>
                {
                    let ask = StoreRead::Rows(vec![Key::Member(read.channel, caller.user)]);
                    let page = Page::new(after, limit);
                    Ok(Step::Ask(What::Events(Box::new(page)), ask))
                }
                _ => Err(refusal),
            },
        }
    }

    pub(super) fn events_found(&self, read: &Read, page: Page, found: StoreFound) -> Stepped {
        let slot = self.slots.get(&read.channel).ok_or_else(Refusal::resend)?;
        let state = slot.known().ok_or_else(Refusal::resend)?;
        match (page.ask, found) {
            (Ask::Member, StoreFound::Rows(rows)) => {
                let caller = read.caller.as_ref().ok_or_else(Refusal::resend)?;
                let key = Key::Member(read.channel, caller.user);
                let row = rows.into_iter().flatten().next();
                let row = row.and_then(|row| StampedRow::decode(&key, &row).ok());
                let reach = match lay_over(slot, &key, row) {
                    Some(RowValue::Member(member)) => Reach {
                        since: member.since,
                        head: member.removed.unwrap_or(state.head.rev),
                    },
                    _ => return Err(Refusal::new(ErrorCode::NotFound)),
                };
                let page = Page::new(page.after, page.limit);
                self.references(slot, state, read, page, &reach)
            }
            (Ask::References { until }, StoreFound::Scanned(rows)) => {
                let mut events = Vec::with_capacity(rows.len());
                for (key, row) in rows {
                    match (key, StampedRow::decode(&key, &row).map(|row| row.value)) {
                        (Key::Event(_, rev), Ok(RowValue::Event(row))) => events.push((rev, row)),
                        _ => return Err(damaged()),
                    }
                }
                let page = Page { ask: Ask::Member, ..page };
                self.join(slot, state, read, page, until, events)
            }
            (Ask::Messages { until, events, keys }, StoreFound::Rows(rows)) => {
                let mut messages = Messages::new(read.channel);
                for (key, row) in keys.into_iter().zip(rows) {
                    if let Some(row) = row {
                        messages.add(key, &row)?;
                    }
                }
                messages.lay_tail_over(slot, 0, state.head.seq.get());
                let (after, budget) = (page.after, self.config.bounds.page_bytes_max);
                let message = |seq| slot.newest(seq).or_else(|| messages.get(seq)).cloned();
                Ok(compose(state, read, after, until, events, budget, message))
            }
            _ => Err(Refusal::resend()),
        }
    }

    /// Asks for the references, or takes them from the tail if it has them all.
    fn references(
        &self,
        slot: &Slot,
        state: &ChannelState,
        read: &Read,
        page: Page,
        reach: &Reach,
    ) -> Stepped {
        let Page { after, limit, .. } = page;
        if after < reach.since || after > state.head.rev || read.at_least > state.head.rev {
            let base = if after < reach.since { reach.since } else { state.head.rev };
            return Ok(reset(base, reach.head));
        }
        if after >= reach.head {
            return Ok(done(Vec::new(), reach.head));
        }
        let first_in_tail = slot.tail.front().map(|fact| fact.rev);
        if first_in_tail.is_some_and(|first| first <= after.next()) {
            return self.join(slot, state, read, page, reach.head, Vec::new());
        }
        let ask = StoreRead::Scan(Scan::EventsAfter(read.channel, after), limit);
        let ask_for = Ask::References { until: reach.head };
        Ok(Step::Ask(What::Events(Box::new(Page { ask: ask_for, ..page })), ask))
    }

    /// Completes the references from the tail, and asks for the messages that are not in memory.
    fn join(
        &self,
        slot: &Slot,
        state: &ChannelState,
        read: &Read,
        page: Page,
        until: Rev,
        mut events: Vec<(Rev, EventRow)>,
    ) -> Stepped {
        let Page { after, limit, .. } = page;
        // The scan may have seen a batch of the projection half written. What any read under way
        // could have missed is in the tail still.
        if let Some(first) = slot.tail.front() {
            events.retain(|(rev, _)| *rev < first.rev);
        }
        let next = events.last().map_or(after, |(rev, _)| *rev).next();
        let room = limit.saturating_sub(events.len());
        let rest = slot.tail.iter().filter(|fact| fact.rev >= next).take(room);
        events.extend(rest.map(|fact| (fact.rev, event_row(fact))));
        events.retain(|(rev, _)| *rev <= until);
        let expected = after.next();
        let dense = events.iter().zip(expected.get()..).all(|((rev, _), n)| rev.get() == n);
        if !dense || events.is_empty() {
            return Ok(reset(state.head.rev, until)); // some are no longer kept
        }
        let mut keys = Vec::new();
        for seq in events.iter().filter_map(|(_, row)| row.message()) {
            let key = Key::Message(read.channel, seq);
            if slot.newest(seq).is_none() && !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            let budget = self.config.bounds.page_bytes_max;
            let message = |seq| slot.newest(seq).cloned();
            return Ok(compose(state, read, after, until, events, budget, message));
        }
        let ask = StoreRead::Rows(keys.clone());
        let ask_for = Ask::Messages { until, events, keys };
        Ok(Step::Ask(What::Events(Box::new(Page { ask: ask_for, ..page })), ask))
    }
}

impl Page {
    const fn new(after: Rev, limit: usize) -> Self {
        Self { after, limit, ask: Ask::Member }
    }
}

/// How far the reader's events reach, or why there are none for him.
fn reach(state: &ChannelState, read: &Read) -> Result<Reach, Refusal> {
    let since = match &read.caller {
        Some(caller) => readable_since(state, read.channel, caller)?,
        None => Rev::ZERO,
    };
    Ok(Reach { since, head: state.head.rev })
}

/// Puts the page together, up to its size in bytes.
fn compose(
    state: &ChannelState,
    read: &Read,
    after: Rev,
    until: Rev,
    events: Vec<(Rev, EventRow)>,
    budget: usize,
    message: impl Fn(Seq) -> Option<chappe_protocol::Message>,
) -> Step {
    let id = read.channel;
    let mut page: Vec<Arc<Event>> = Vec::with_capacity(events.len());
    let mut bytes = 0;
    for (rev, row) in events {
        let channel = || state.meta.as_ref().map(|meta| meta.channel(id));
        let Some(body) = event_body(&row, channel, || message(row.message()?)) else {
            // Its message is gone with its bucket: the reader starts over from the present.
            if page.is_empty() {
                return reset(state.head.rev, until);
            }
            break;
        };
        let event = row.event(id, rev, body);
        bytes += event.message().map_or(SMALL_BYTES, message_bytes);
        page.push(Arc::new(event));
        if bytes >= budget {
            break;
        }
    }
    debug_assert!(page.first().is_none_or(|event| event.rev == after.next()));
    done(page, until)
}

fn message_bytes(message: &chappe_protocol::Message) -> usize {
    let text = message.text.as_ref().map_or(0, |text| text.len());
    let data = if message.data.is_some() { DATA_BYTES } else { 0 };
    SMALL_BYTES + text + data + 8 * message.mentions.len() + 16 * message.reactions.len()
}

const fn done(events: Vec<Arc<Event>>, head: Rev) -> Step {
    Step::Done(Answer::Events(EventsPage { events, head, reset: None }))
}

const fn reset(base: Rev, head: Rev) -> Step {
    Step::Done(Answer::Events(EventsPage { events: Vec::new(), head, reset: Some(base) }))
}

fn damaged() -> Refusal {
    Refusal::new(ErrorCode::StoreUnavailable).because("a row is damaged")
}

impl EventRow {
    /// The message that the event shows.
    fn message(&self) -> Option<Seq> {
        (9..=13).contains(&self.kind).then_some(self.seq).flatten()
    }
}

/// Most events of a page.
const EVENTS_MAX: usize = 1_000;
/// What an event without a text weighs, about.
const SMALL_BYTES: usize = 200;
/// What a message's data weighs, about: it is not measured again.
const DATA_BYTES: usize = 2_048;

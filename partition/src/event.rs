//! Live events: what those who hear a channel are told of a fact.

use std::sync::Arc;

use chappe_protocol::{Event, EventBody, Message};

use crate::{
    hot::{Hot, Known},
    project::{event_body, event_row},
    record::{Fact, FactBody},
    slot::Slot,
};

/// The event of a fact that was just taken in: with its message and channel as they are by it.
///
/// None if a message is not at hand, which a decided fact's always is.
pub(crate) fn live(slot: &Slot, hot: &Hot, fact: &Fact) -> Option<Arc<Event>> {
    let message = || -> Option<Message> {
        match hot.message(slot, fact.channel, fact.message()?) {
            Known::Row(message) => Some(message.clone()),
            Known::Missing | Known::Unknown => None,
        }
    };
    let channel = || Some(slot.known()?.meta.as_ref()?.channel(fact.channel));
    if let FactBody::Message(_) = &fact.body {
        let body =
            EventBody::MessageCreated(chappe_protocol::event::MessageBody { message: message()? });
        let nonce = fact.nonce.clone().filter(|_| fact.client_nonce);
        let (channel, rev, by, at) = (fact.channel, fact.rev, fact.by, fact.mark.ts);
        return Some(Arc::new(Event { channel, rev, by, at, nonce, body }));
    }
    let row = event_row(fact);
    let body = event_body(&row, channel, message)?;
    Some(Arc::new(row.event(fact.channel, fact.rev, body)))
}

//! How much of a pipe's budget a response takes: its bytes in memory, about.

use chappe_protocol::{Data, Event, Message};
use chappe_uplink::{Answer, Response};
use serde_json::Value;

/// What everything weighs, whatever is in it.
const BASE: usize = 128;

/// The weight of a response.
pub(crate) fn of(response: &Response) -> usize {
    BASE + match response {
        Response::Event { event, .. } => event_bytes(event),
        Response::Answer { result: Ok(answer), .. } => answer_bytes(answer),
        Response::Answer { result: Err(_), .. } => 0,
        Response::Signal(signal) => data_bytes(signal.data.as_ref()),
        Response::Heads(heads) => heads.heads.len() * 16,
        Response::Leading(leading) => leading.leads.len() * 24,
    }
}

fn answer_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Messages(page) => page.messages.iter().map(message_bytes).sum(),
        Answer::Events(page) => page.events.iter().map(|event| event_bytes(event)).sum(),
        Answer::Members(page) => page.members.len() * BASE,
        Answer::MyChannels(page) => page.channels.len() * 32,
        _ => 0,
    }
}

fn event_bytes(event: &Event) -> usize {
    BASE + event.message().map_or(0, message_bytes)
}

fn message_bytes(message: &Message) -> usize {
    let text = message.text.as_ref().map_or(0, |text| text.len());
    let reactions: usize = message.reactions.iter().map(|kind| 32 + kind.users.len() * 8).sum();
    BASE + text + data_bytes(message.data.as_ref()) + message.mentions.len() * 8 + reactions
}

fn data_bytes(data: Option<&Data>) -> usize {
    data.map_or(0, |data| value_bytes(data.get()))
}

/// Bounded by what a frame may nest and hold.
fn value_bytes(value: &Value) -> usize {
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + value_bytes(value)).sum(),
        _ => 0,
    }
}

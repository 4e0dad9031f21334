//! What things weigh, in bytes, about: for bounds, not for accounts.

use chappe_protocol::{Data, Message};
use chappe_uplink::{Action, Request};
use serde_json::Value;

/// What a request occupies while it waits in the pipe.
pub(crate) fn of_request(request: &Request) -> usize {
    let more = match request {
        Request::Command(command) => match &command.action {
            Action::Publish(publish) => {
                publish.text.as_ref().map_or(0, |text| text.len())
                    + publish.data.as_ref().map_or(0, of_data)
                    + 8 * publish.mentions.len()
            }
            Action::Edit(edit) => {
                edit.text.as_ref().map_or(0, |text| text.len())
                    + edit.data.as_ref().map_or(0, of_data)
            }
            _ => 0,
        },
        Request::Signal(signal) => signal.data.as_ref().map_or(0, of_data),
        Request::Attach(_) | Request::Detach(_) | Request::Read(_) => 0,
    };
    REQUEST_BYTES + more
}

/// What a message occupies in a reply.
pub(crate) fn of_message(message: &Message) -> usize {
    let users: usize = message.reactions.iter().map(|reaction| reaction.users.len()).sum();
    MESSAGE_BYTES
        + message.text.as_ref().map_or(0, |text| text.len())
        + message.data.as_ref().map_or(0, of_data)
        + ID_BYTES * (users + message.mentions.len())
        + REACTION_BYTES * message.reactions.len()
}

fn of_data(data: &Data) -> usize {
    of_value(data.get())
}

fn of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 20,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 3 + items.iter().map(|item| of_value(item) + 1).sum::<usize>(),
        Value::Object(fields) => {
            let of_field = |(key, value): (&String, &Value)| key.len() + 4 + of_value(value);
            3 + fields.iter().map(of_field).sum::<usize>()
        }
    }
}

const REQUEST_BYTES: usize = 256;
const MESSAGE_BYTES: usize = 200;
/// An id in JSON, with quotes and comma.
const ID_BYTES: usize = 23;
const REACTION_BYTES: usize = 90;

//! What was heard on the pipes, as lines that a test can state.

use std::collections::BTreeMap;

use chappe_protocol::{Event, EventBody, Message};
use chappe_uplink::{Answer, Response, Start};

use crate::action::PipeId;

/// What was heard.
#[derive(Debug, Default)]
pub struct Trace {
    /// By token, what the script calls its requests.
    pub(super) labels: BTreeMap<u64, String>,
    /// The lines, in the order in which they were heard.
    pub lines: Vec<String>,
    /// The responses themselves.
    pub responses: Vec<(PipeId, Response)>,
}

impl Trace {
    pub(super) fn heard(&mut self, pipe: PipeId, response: Response) {
        if let Some(line) = self.line(pipe, &response) {
            self.lines.push(line);
        }
        self.responses.push((pipe, response));
    }

    /// The answer to the request with this label.
    pub fn answer(&self, label: &str) -> Option<&Result<Box<Answer>, chappe_uplink::Refusal>> {
        self.responses.iter().rev().find_map(|(_, response)| match response {
            Response::Answer { token, result, .. }
                if self.labels.get(token).is_some_and(|l| l == label) =>
            {
                Some(result)
            }
            _ => None,
        })
    }

    /// Forgets what was heard so far.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.responses.clear();
    }

    fn line(&self, pipe: PipeId, response: &Response) -> Option<String> {
        match response {
            Response::Answer { token, result, .. } => {
                let label = self.labels.get(token).map_or("?", String::as_str);
                Some(match result {
                    Ok(answer) => format!("{label}: {}", answered(answer)),
                    Err(refusal) if refusal.resend => match refusal.code {
                        chappe_protocol::ErrorCode::Unknown => format!("{label}: unknown"),
                        _ => format!("{label}: retry"),
                    },
                    Err(refusal) => {
                        let wait = refusal.retry_after_ms;
                        let wait = wait.map_or(String::new(), |ms| format!(" after {ms}"));
                        format!("{label}: {}{wait}", refusal.code.name())
                    }
                })
            }
            Response::Event { event, .. } => Some(format!("pipe {}: {}", pipe.0, told(event))),
            Response::Signal(signal) => Some(format!("pipe {}: signal by {}", pipe.0, signal.by)),
            Response::Heads(_) | Response::Leading(_) => None,
        }
    }
}

fn answered(answer: &Answer) -> String {
    match answer {
        Answer::Change(change) => match change.seq {
            Some(seq) => format!("ok rev {} seq {seq}", change.rev),
            None => format!("ok rev {}", change.rev),
        },
        Answer::Done => "done".to_owned(),
        Answer::Attached(attached) => match attached.start {
            Start::After(rev) => format!("attached at {}, from {rev}", attached.head),
            Start::Reset(rev) => format!("attached at {}, reset to {rev}", attached.head),
        },
        Answer::Resolved(_) => "resolved".to_owned(),
        Answer::Channel(reply) => {
            let role = reply.member.as_ref().map(|member| format!(" as {:?}", member.role));
            format!("channel at {}{}", reply.rev, role.unwrap_or_default())
        }
        Answer::Members(reply) => {
            let users: Vec<_> = reply.members.iter().map(|m| m.user.to_string()).collect();
            format!("members {}", users.join(" "))
        }
        Answer::Messages(reply) => {
            let messages: Vec<_> = reply.messages.iter().map(message).collect();
            let before = if reply.more_before { "… " } else { "" };
            let after = if reply.more_after { " …" } else { "" };
            format!("messages {before}[{}]{after} at {}", messages.join(", "), reply.rev)
        }
        Answer::Events(page) => match page.reset {
            Some(base) => format!("events reset to {base}"),
            None => {
                let events: Vec<_> = page.events.iter().map(|event| told(event)).collect();
                format!("events [{}] of {}", events.join(", "), page.head)
            }
        },
        Answer::MyChannels(reply) => format!("{} channels", reply.channels.len()),
    }
}

fn told(event: &Event) -> String {
    let rev = event.rev;
    let kind = event.body.kind();
    match (&event.body, event.message()) {
        (_, Some(about)) => format!("{rev} {kind} {}", message(about)),
        (EventBody::MemberAdded(body), _) => format!("{rev} {kind} {}", body.member.user),
        (EventBody::MemberRemoved(body), _) => format!("{rev} {kind} {}", body.user),
        _ => format!("{rev} {kind}"),
    }
}

fn message(message: &Message) -> String {
    let text = match (&message.text, message.deleted) {
        (_, true) => "deleted".to_owned(),
        (Some(text), _) => format!("'{text}'"),
        (None, _) => "data".to_owned(),
    };
    let reactions: String = message
        .reactions
        .iter()
        .map(|reaction| format!(" {}×{}", reaction.emoji.as_str(), reaction.users.len()))
        .collect();
    format!("{}={text}{reactions}", message.seq)
}

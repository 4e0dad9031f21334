//! What the tools print: text for people, or one JSON object a line for programs.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chappe_protocol::{Event, EventBody, Message, UserId, message::Member};
use serde::Serialize;

/// Prints in the form that was asked for.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    colour: bool,
    names: HashMap<UserId, String>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, colour: io::stdout().is_terminal(), names: HashMap::new() }
    }

    /// Whether programs read the output.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Learns what people are called.
    pub(super) fn learn(&mut self, members: &[Member]) {
        for member in members {
            if let Some(name) = &member.name {
                self.names.insert(member.user, plain(name));
            }
        }
    }

    /// Prints `value` as a line of JSON, or `text` for people.
    pub(super) fn item(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let line = if self.json { serde_json::to_string(value)? } else { text() };
        // A closed pipe (`chappe tail | head`) must end the program, so no `println!`.
        writeln!(io::stdout().lock(), "{line}")
    }

    /// Prints one event.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        if let EventBody::MemberAdded(body) | EventBody::MemberUpdated(body) = &event.body {
            self.learn(std::slice::from_ref(&body.member));
        }
        self.item(event, || self.event_text(event))
    }

    /// Prints one message.
    pub(super) fn message(&self, message: &Message) -> io::Result<()> {
        self.item(message, || self.message_text(message))
    }

    fn event_text(&self, event: &Event) -> String {
        let rev = self.dim(&format!("{:>6}", event.rev));
        let by = self.name(event.by);
        let at = self.dim(&clock(event.at));
        let what = match &event.body {
            EventBody::MessageCreated(body) => {
                return format!("{rev} {}", self.message_text(&body.message));
            }
            EventBody::MessageEdited(body) => {
                format!("edited #{}: {}", body.message.seq, content(&body.message))
            }
            EventBody::MessageDeleted(body) => format!("deleted #{}", body.message.seq),
            EventBody::ReactionAdded(body) => {
                format!("reacted {} to #{}", body.emoji, body.message.seq)
            }
            EventBody::ReactionRemoved(body) => {
                format!("took {} back from #{}", body.emoji, body.message.seq)
            }
            EventBody::MemberAdded(body) if body.member.user == event.by => "joined".to_owned(),
            EventBody::MemberAdded(body) => format!("added {}", self.name(body.member.user)),
            EventBody::MemberRemoved(body) if body.user == event.by => "left".to_owned(),
            EventBody::MemberRemoved(body) => format!("removed {}", self.name(body.user)),
            EventBody::MemberUpdated(body) => {
                format!("made {} {:?}", self.name(body.member.user), body.member.role)
                    .to_lowercase()
            }
            other => other.kind().to_owned(),
        };
        format!("{rev} {at} {} {}", self.bold(&by), self.dim(&what))
    }

    fn message_text(&self, message: &Message) -> String {
        let edited =
            if message.edited_at.is_some() { self.dim(" (edited)") } else { String::new() };
        let reactions = message
            .reactions
            .iter()
            .map(|reaction| format!(" [{} {}]", reaction.emoji, reaction.users.len()))
            .collect::<String>();
        format!(
            "{} {} {} {}{edited}{reactions}",
            self.dim(&clock(message.at)),
            self.dim(&format!("#{}", message.seq)),
            self.bold(&format!("{}:", self.name(message.by))),
            content(message),
        )
    }

    fn name(&self, user: UserId) -> String {
        self.names.get(&user).cloned().unwrap_or_else(|| user.to_string())
    }

    fn dim(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn content(message: &Message) -> String {
    if message.deleted {
        return "(deleted)".to_owned();
    }
    let text = message.text.as_ref().map(|text| plain(text));
    let data = message.data.as_ref().map(|data| data.get().to_string());
    match (text, data) {
        (Some(text), Some(data)) => format!("{text} {data}"),
        (Some(text), None) => text,
        (None, Some(data)) => data,
        (None, None) => String::new(),
    }
}

/// Text of another person on this terminal: a control character could move its cursor, and a
/// direction override could make it read as something else.
fn plain(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The time of day in UTC.
fn clock(at_ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms)).unwrap_or(SystemTime::UNIX_EPOCH);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_text_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}c");
    }

    #[test]
    fn the_clock_shows_hours_in_utc() {
        assert_eq!(clock(12 * 3_600_000 + 34 * 60_000 + 56_000), "12:34:56");
    }
}

//! The audit: compares what was acknowledged with what every subscriber was given.
//!
//! It believes neither the server nor the client: it checks by itself that each subscriber gets
//! each revision once and in order, that all subscribers get the same, that everything that was
//! acknowledged is there at the revision that was told, once, and nothing that was refused.

use std::collections::HashMap;

use chappe_client::Anomaly;
use serde::Serialize;

use crate::payload::MessageId;

/// How many findings are kept word for word; all are counted.
const FINDINGS_MAX: usize = 10;

/// The kinds of broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Breach {
    /// Acknowledged and not delivered to someone.
    Lost,
    /// A revision came before its predecessors, which were dropped or overtaken on the way.
    Gap,
    /// A revision came to someone twice.
    Repeated,
    /// One message at two revisions.
    Doubled,
    /// Acknowledged at one revision, delivered at another.
    Misplaced,
    /// Two subscribers were given different things at one revision.
    Diverging,
    /// Refused, and there all the same.
    RefusedButThere,
    /// A publisher's messages in another order than it sent them.
    Disordered,
    /// A subscriber was told to start anew.
    Reset,
    /// A subscriber lost its subscription or its session.
    Ended,
    /// The history does not show what was acknowledged.
    NotInHistory,
}

/// What became of a message, as its publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer yet.
    Open,
    Acked,
    Refused,
    /// It may or may not be there.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    channel: u32,
    outcome: Outcome,
    /// As acknowledged, 0 before.
    acked_rev: u64,
    /// Where it was first delivered, 0 before.
    seen_rev: u64,
    /// It was never refused on the way, so nothing sent later may come before it.
    in_order: bool,
}

/// One revision of a channel as it was first delivered or acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    content: Content,
    acked: Option<MessageId>,
    deliveries: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Content {
    /// Nobody was given it yet.
    #[default]
    Unseen,
    Message(MessageId),
    /// Something that is not of this run.
    Other,
}

#[derive(Debug, Default)]
struct Channel {
    followers: u32,
    /// The revision before `places[0]`.
    base: Option<u64>,
    places: Vec<Place>,
}

/// The books of a run. Users and channels are the plan's numbers.
#[derive(Debug)]
pub(crate) struct Audit {
    channels: Vec<Channel>,
    /// By publisher and number.
    messages: Vec<Vec<Message>>,
    /// The last revision that each follower of a channel was given.
    held: HashMap<(u32, u32), u64>,
    deliveries_due: u64,
    deliveries_done: u64,
    breaches: HashMap<Breach, u64>,
    findings: Vec<String>,
}

/// How a delivery stands among the others of its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Others are still to come.
    Some,
    /// It was the last follower's.
    All,
}

impl Audit {
    pub(crate) fn new(users: usize, channels: usize) -> Self {
        Self {
            channels: (0..channels).map(|_| Channel::default()).collect(),
            messages: vec![Vec::new(); users],
            held: HashMap::new(),
            deliveries_due: 0,
            deliveries_done: 0,
            breaches: HashMap::new(),
            findings: Vec::new(),
        }
    }

    /// A user follows a channel from after `rev`. Said again after a reconnect, it changes
    /// nothing.
    pub(crate) fn handle_follows(&mut self, user: u32, channel: u32, rev: u64) {
        if self.held.contains_key(&(user, channel)) {
            return;
        }
        self.held.insert((user, channel), rev);
        let of_channel = &mut self.channels[channel as usize];
        of_channel.followers += 1;
        let base = *of_channel.base.get_or_insert(rev);
        assert!(base <= rev, "the first to follow is the first in the books");
    }

    /// A message is about to be sent. Its number is the next of its publisher.
    pub(crate) fn handle_sent(&mut self, id: MessageId, channel: u32) {
        let of_publisher = &mut self.messages[id.publisher as usize];
        assert_eq!(of_publisher.len(), id.number as usize, "numbers leave no gap");
        of_publisher.push(Message {
            channel,
            outcome: Outcome::Open,
            acked_rev: 0,
            seen_rev: 0,
            in_order: true,
        });
    }

    /// A message was acknowledged at `rev`.
    pub(crate) fn handle_acked(&mut self, id: MessageId, rev: u64, in_order: bool) {
        let message = &mut self.messages[id.publisher as usize][id.number as usize];
        message.outcome = Outcome::Acked;
        message.acked_rev = rev;
        message.in_order = in_order;
        let (channel, seen_rev) = (message.channel, message.seen_rev);
        if seen_rev != 0 && seen_rev != rev {
            self.find(Breach::Misplaced, || {
                format!("{id}: acknowledged at rev {rev}, delivered at {seen_rev}")
            });
        }
        let followers = u64::from(self.channels[channel as usize].followers);
        self.deliveries_due += followers;
        let Some(place) = self.place(channel, rev) else { return };
        let (deliveries, content) = (place.deliveries, place.content);
        let other = place.acked.replace(id);
        if let Some(other) = other {
            self.find(Breach::Misplaced, || {
                format!("{id}: acknowledged at channel {channel} rev {rev}, as {other} was")
            });
        } else if content == Content::Message(id) {
            self.deliveries_done += u64::from(deliveries);
        } else if content != Content::Unseen {
            self.find(Breach::Misplaced, || {
                format!("{id}: acknowledged at channel {channel} rev {rev}, where {content} is")
            });
        }
    }

    /// A message was refused, or nobody knows what became of it.
    pub(crate) fn handle_failed(&mut self, id: MessageId, outcome: Outcome) {
        let message = &mut self.messages[id.publisher as usize][id.number as usize];
        message.outcome = outcome;
        let seen_rev = message.seen_rev;
        if outcome == Outcome::Refused && seen_rev != 0 {
            self.find(Breach::RefusedButThere, || format!("{id}: delivered at rev {seen_rev}"));
        }
    }

    /// A follower was given a revision: a message of the run, or something else.
    pub(crate) fn handle_delivery(
        &mut self,
        user: u32,
        channel: u32,
        rev: u64,
        id: Option<MessageId>,
    ) -> Delivered {
        if !self.is_new(user, channel, rev) {
            return Delivered::Some;
        }
        let id = id.filter(|id| self.knows(*id));
        let content = id.map_or(Content::Other, Content::Message);
        let followers = self.channels[channel as usize].followers;
        let Some(place) = self.place(channel, rev) else { return Delivered::Some };
        place.deliveries += 1;
        let (acked, deliveries) = (place.acked, place.deliveries);
        let before = place.content;
        if before == Content::Unseen {
            place.content = content;
        }
        if before == Content::Unseen {
            self.handle_seen(id, acked, channel, rev);
        } else if before != content {
            self.find(Breach::Diverging, || {
                format!("channel {channel} rev {rev}: {before} for one, {content} for user {user}")
            });
        }
        if id.is_some() && acked == id {
            self.deliveries_done += 1;
        }
        if deliveries == followers { Delivered::All } else { Delivered::Some }
    }

    /// Whether the follower was not given it before; a gap before it is noted.
    fn is_new(&mut self, user: u32, channel: u32, rev: u64) -> bool {
        let held = self.held.entry((user, channel)).or_insert(rev.saturating_sub(1));
        let before = *held;
        *held = before.max(rev);
        let breach = match rev {
            _ if rev == before + 1 => return true,
            _ if rev <= before => Breach::Repeated,
            _ => Breach::Gap,
        };
        self.find(breach, || format!("user {user} channel {channel}: rev {rev} after {before}"));
        breach == Breach::Gap
    }

    /// A revision was delivered for the first time; `acked` was acknowledged there.
    fn handle_seen(
        &mut self,
        id: Option<MessageId>,
        acked: Option<MessageId>,
        channel: u32,
        rev: u64,
    ) {
        if let Some(other) = acked.filter(|acked| Some(*acked) != id) {
            self.find(Breach::Misplaced, || {
                format!("{other}: acknowledged at channel {channel} rev {rev}, is not there")
            });
        }
        let Some(id) = id else { return };
        let message = &mut self.messages[id.publisher as usize][id.number as usize];
        let Message { seen_rev, acked_rev, outcome, .. } = *message;
        if seen_rev == 0 {
            message.seen_rev = rev;
        } else {
            self.find(Breach::Doubled, || {
                format!("{id}: channel {channel} rev {seen_rev} and again at {rev}")
            });
        }
        if outcome == Outcome::Refused {
            self.find(Breach::RefusedButThere, || format!("{id}: channel {channel} rev {rev}"));
        }
        if acked_rev != 0 && acked_rev != rev {
            self.find(Breach::Misplaced, || {
                format!("{id}: acknowledged at rev {acked_rev}, delivered at {rev}")
            });
        }
    }

    /// The client noticed a break in a channel's stream, and had it mended.
    pub(crate) fn handle_anomaly(&mut self, user: u32, channel: u32, anomaly: Anomaly) {
        match anomaly {
            Anomaly::Gap { held, found, .. } => self.find(Breach::Gap, || {
                format!("user {user} channel {channel}: rev {found} came after {held}")
            }),
            Anomaly::Repeated { held, found, .. } => self.find(Breach::Repeated, || {
                format!("user {user} channel {channel}: rev {found} came again after {held}")
            }),
            Anomaly::Behind { held, head, .. } => self.find(Breach::Gap, || {
                format!("user {user} channel {channel}: nothing came after {held}, head {head}")
            }),
        }
    }

    /// A follower was told to start anew from `base`.
    pub(crate) fn handle_reset(&mut self, user: u32, channel: u32, base: u64) {
        self.held.insert((user, channel), base);
        self.find(Breach::Reset, || format!("user {user} channel {channel}: reset to rev {base}"));
    }

    /// A follower is none any more.
    pub(crate) fn handle_ended(&mut self, user: u32, why: &str) {
        self.find(Breach::Ended, || format!("user {user}: {why}"));
    }

    /// A page of history shows a revision; `None` where it shows something else or nothing.
    pub(crate) fn handle_history(&mut self, channel: u32, found: &HashMap<u64, MessageId>) {
        let base = self.channels[channel as usize].base.unwrap_or(0);
        let places = std::mem::take(&mut self.channels[channel as usize].places);
        for (index, place) in places.iter().enumerate() {
            let rev = base + 1 + index as u64;
            if let Some(id) = place.acked.filter(|id| found.get(&rev) != Some(id)) {
                self.find(Breach::NotInHistory, || {
                    format!("{id}: acknowledged at channel {channel} rev {rev}")
                });
            }
        }
        self.channels[channel as usize].places = places;
    }

    /// Acknowledged messages times their followers, less what was delivered.
    pub(crate) fn outstanding(&self) -> u64 {
        self.deliveries_due.saturating_sub(self.deliveries_done)
    }

    /// Closes the books: what is outstanding now is lost.
    pub(crate) fn close(mut self) -> Findings {
        let lost = self.outstanding();
        if lost > 0 {
            self.breaches.insert(Breach::Lost, lost);
            self.name_lost();
        }
        self.check_sender_order();
        let count = |outcome: Outcome| {
            self.messages.iter().flatten().filter(|message| message.outcome == outcome).count()
        };
        let unknown = count(Outcome::Unknown) + count(Outcome::Open);
        let undecided = self.messages.iter().flatten().filter(|message| {
            matches!(message.outcome, Outcome::Unknown | Outcome::Open) && message.seen_rev != 0
        });
        let mut breaches: Vec<(Breach, u64)> =
            self.breaches.iter().map(|(b, n)| (*b, *n)).collect();
        breaches.sort_unstable();
        Findings {
            acked: count(Outcome::Acked) as u64,
            refused: count(Outcome::Refused) as u64,
            unknown: unknown as u64,
            unknown_but_there: undecided.count() as u64,
            deliveries_due: self.deliveries_due,
            deliveries_done: self.deliveries_done,
            breaches,
            findings: self.findings,
        }
    }

    fn name_lost(&mut self) {
        let mut lost = Vec::new();
        for (&(user, channel), &held) in &self.held {
            let of_channel = &self.channels[channel as usize];
            let Some(base) = of_channel.base else { continue };
            let after = usize::try_from(held.saturating_sub(base)).unwrap_or(usize::MAX);
            let missing =
                of_channel.places.iter().skip(after).filter(|place| place.acked.is_some()).count();
            if missing > 0 {
                lost.push((user, channel, held, missing));
            }
        }
        lost.sort_unstable();
        for (user, channel, held, missing) in lost {
            self.note(Breach::Lost, || {
                format!("user {user} channel {channel}: {missing} acknowledged after rev {held}")
            });
        }
    }

    fn check_sender_order(&mut self) {
        let mut disordered = Vec::new();
        for (publisher, messages) in self.messages.iter().enumerate() {
            let mut last: HashMap<u32, u64> = HashMap::new();
            for (number, message) in messages.iter().enumerate() {
                if message.outcome != Outcome::Acked || !message.in_order {
                    continue;
                }
                let before = last.entry(message.channel).or_insert(0);
                if message.acked_rev < *before {
                    disordered.push((publisher, number, message.acked_rev, *before));
                }
                *before = message.acked_rev.max(*before);
            }
        }
        for (publisher, number, rev, before) in disordered {
            self.find(Breach::Disordered, || {
                format!("{publisher}#{number}: rev {rev}, an earlier one has {before}")
            });
        }
    }

    fn knows(&self, id: MessageId) -> bool {
        let of_publisher = self.messages.get(id.publisher as usize);
        of_publisher.is_some_and(|messages| messages.len() > id.number as usize)
    }

    /// The books' entry of a revision, or none if it is from before the run.
    fn place(&mut self, channel: u32, rev: u64) -> Option<&mut Place> {
        let of_channel = &mut self.channels[channel as usize];
        let index = usize::try_from(rev.checked_sub(of_channel.base? + 1)?).ok()?;
        if index >= of_channel.places.len() {
            of_channel.places.resize(index + 1, Place::default());
        }
        Some(&mut of_channel.places[index])
    }

    /// Counts a breach and keeps its words if there is room.
    pub(crate) fn find(&mut self, breach: Breach, words: impl FnOnce() -> String) {
        *self.breaches.entry(breach).or_default() += 1;
        self.note(breach, words);
    }

    fn note(&mut self, breach: Breach, words: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("{}: {}", breach.name(), words()));
        }
    }
}

/// What the audit found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Findings {
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    /// No answer, or none that settles it.
    pub(crate) unknown: u64,
    /// Of these, delivered.
    pub(crate) unknown_but_there: u64,
    /// Acknowledged messages times their followers.
    pub(crate) deliveries_due: u64,
    pub(crate) deliveries_done: u64,
    pub(crate) breaches: Vec<(Breach, u64)>,
    /// The first few breaches in words.
    pub(crate) findings: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }
}

impl Breach {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Gap => "gap",
            Self::Repeated => "repeated",
            Self::Doubled => "doubled",
            Self::Misplaced => "misplaced",
            Self::Diverging => "diverging",
            Self::RefusedButThere => "refused but there",
            Self::Disordered => "disordered",
            Self::Reset => "reset",
            Self::Ended => "ended",
            Self::NotInHistory => "not in history",
        }
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {}#{}", self.publisher, self.number)
    }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unseen => f.write_str("nothing"),
            Self::Message(id) => id.fmt(f),
            Self::Other => f.write_str("something else"),
        }
    }
}

#[cfg(test)]
mod tests;

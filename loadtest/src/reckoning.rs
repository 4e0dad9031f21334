//! `chappe-load audit`: holds a server to the ledger of runs that may have been cut short, with
//! the server killed in the middle or the generator itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use chappe_protocol::{ChannelId, Message};
use serde::Serialize;

use crate::{
    args::AuditArgs,
    ledger::{self, Line},
    payload::{MessageId, Payload},
    plan::user_name,
    readback::{self, ReadbackError},
};

const FINDINGS_MAX: usize = 10;

/// What a ledger says of one message.
#[derive(Debug, Clone, Copy)]
struct Entry {
    run: u64,
    id: MessageId,
    channel: ChannelId,
    outcome: Outcome,
    attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The run ended before the answer came.
    Unfinished,
    Acked {
        rev: u64,
        seq: u64,
        overtaken: bool,
    },
    Refused,
    Unknown,
}

/// A ledger, read.
#[derive(Debug, Default)]
struct Account {
    /// By run and nonce, in the order of the ledger.
    entries: Vec<Entry>,
    /// Each channel with the name of a member.
    channels: BTreeMap<ChannelId, String>,
    runs: u64,
}

/// What the audit of a ledger comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    runs: u64,
    channels: u64,
    sent: u64,
    acked: u64,
    refused: u64,
    /// No answer that settles it, unfinished ones included.
    unknown: u64,
    /// Of these, there.
    unknown_but_there: u64,
    /// Sent more than once.
    retried: u64,
    /// Acknowledged and not there.
    lost: u64,
    /// There more than once.
    duplicated: u64,
    /// Acknowledged at another place than where it is.
    misplaced: u64,
    /// In another order than its publisher sent it.
    reordered: u64,
    /// Refused and there all the same.
    refused_but_there: u64,
    /// Of a run of this ledger, and the ledger does not know it.
    unheard_of: u64,
    /// Channels whose history is not what a history promises to be.
    broken: u64,
    findings: Vec<String>,
}

/// Where messages of a channel were found: by run and message, each place as (seq, rev).
type Found = HashMap<(u64, MessageId), Vec<(u64, u64)>>;

/// Audits a ledger, prints the totals and gives the exit code.
pub(crate) async fn audit(args: AuditArgs) -> Result<u8> {
    let account = Account::read(ledger::read(&args.ledger)?)?;
    let tokens = args.reach.tokens()?;
    let mut found: HashMap<ChannelId, Found> = HashMap::new();
    let mut broken = Vec::new();
    for (channel, member) in &account.channels {
        let client = readback::sign_in(&args.reach, &tokens, member, args.deadline).await?;
        let read = readback::messages(&client, *channel).await;
        client.close().await;
        match read {
            Ok(messages) => drop(found.insert(*channel, places(&messages))),
            Err(ReadbackError::Broken(words)) => broken.push(words),
            Err(ReadbackError::Refused(error)) => return Err(error.into()),
        }
    }
    let mut totals = account.reckon(&found);
    totals.broken = broken.len() as u64;
    totals.findings.extend(broken);
    totals.findings.truncate(FINDINGS_MAX);
    print!("{}", totals.text());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&totals)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if totals.is_clean() { 0 } else { 97 })
}

fn places(messages: &[Message]) -> Found {
    let mut found = Found::new();
    for message in messages {
        if let Some(payload) = Payload::read(message.data.as_ref()) {
            let place = (message.seq.get(), message.rev.get());
            found.entry((payload.run, payload.id)).or_default().push(place);
        }
    }
    found
}

impl Account {
    fn read(lines: Vec<Line>) -> Result<Self> {
        let mut account = Self::default();
        let mut by_nonce: HashMap<String, usize> = HashMap::new();
        let mut present: Option<(u64, u64)> = None;
        for line in lines {
            let (run, seed) = match (&line, present) {
                (Line::Run { run, seed, .. }, _) => {
                    account.runs += 1;
                    present = Some((*run, *seed));
                    continue;
                }
                (_, Some(present)) => present,
                (_, None) => anyhow::bail!("the ledger does not begin with a run"),
            };
            match line {
                Line::Run { .. } => {}
                Line::Channel { channel, member } => {
                    account.channels.insert(channel, user_name(seed, member));
                }
                Line::Sent { nonce, channel, publisher, number } => {
                    by_nonce.insert(nonce, account.entries.len());
                    let id = MessageId { publisher, number };
                    let (outcome, attempts) = (Outcome::Unfinished, 0);
                    account.entries.push(Entry { run, id, channel, outcome, attempts });
                }
                Line::Acked { nonce, rev, seq, attempts, overtaken } => {
                    let (rev, seq) = (rev.get(), seq.map_or(0, |seq| seq.get()));
                    let outcome = Outcome::Acked { rev, seq, overtaken };
                    account.settle(&by_nonce, &nonce, outcome, attempts)?;
                }
                Line::Refused { nonce, attempts, .. } => {
                    account.settle(&by_nonce, &nonce, Outcome::Refused, attempts)?;
                }
                Line::Unknown { nonce, attempts } => {
                    account.settle(&by_nonce, &nonce, Outcome::Unknown, attempts)?;
                }
            }
        }
        Ok(account)
    }

    fn settle(
        &mut self,
        by_nonce: &HashMap<String, usize>,
        nonce: &str,
        outcome: Outcome,
        attempts: u32,
    ) -> Result<()> {
        let index = by_nonce.get(nonce).context("the ledger settles what it did not send")?;
        (self.entries[*index].outcome, self.entries[*index].attempts) = (outcome, attempts);
        Ok(())
    }

    /// Compares the ledger with what was found.
    fn reckon(&self, found: &HashMap<ChannelId, Found>) -> Totals {
        let mut totals = Totals {
            runs: self.runs,
            channels: self.channels.len() as u64,
            sent: self.entries.len() as u64,
            ..Totals::default()
        };
        let mut last: HashMap<(u64, ChannelId, u32), u64> = HashMap::new();
        for entry in &self.entries {
            // A channel that could not be read is counted as broken; nothing can be said of it.
            let Some(of_channel) = found.get(&entry.channel) else { continue };
            let places = of_channel.get(&(entry.run, entry.id)).map_or(&[][..], Vec::as_slice);
            totals.retried += u64::from(entry.attempts > 1);
            if places.len() > 1 {
                totals.duplicated += 1;
                totals.note(|| format!("{} is there {} times", entry.id, places.len()));
            }
            totals.take(entry, places);
            if let Outcome::Acked { rev, overtaken: false, .. } = entry.outcome {
                let before =
                    last.entry((entry.run, entry.channel, entry.id.publisher)).or_default();
                if rev < *before {
                    totals.reordered += 1;
                    totals.note(|| format!("{}: rev {rev}, an earlier one {before}", entry.id));
                }
                *before = rev.max(*before);
            }
        }
        self.count_unheard_of(found, &mut totals);
        totals
    }

    fn count_unheard_of(&self, found: &HashMap<ChannelId, Found>, totals: &mut Totals) {
        let runs: HashSet<u64> = self.entries.iter().map(|entry| entry.run).collect();
        let known: HashSet<(u64, MessageId)> =
            self.entries.iter().map(|entry| (entry.run, entry.id)).collect();
        for key in found.values().flat_map(HashMap::keys) {
            if runs.contains(&key.0) && !known.contains(key) {
                totals.unheard_of += 1;
            }
        }
    }
}

impl Totals {
    fn take(&mut self, entry: &Entry, places: &[(u64, u64)]) {
        let id = entry.id;
        match entry.outcome {
            Outcome::Acked { rev, seq, .. } => {
                self.acked += 1;
                if places.is_empty() {
                    self.lost += 1;
                    self.note(|| format!("{id}: acknowledged at rev {rev}, not there"));
                } else if !places.contains(&(seq, rev)) {
                    self.misplaced += 1;
                    self.note(|| format!("{id}: acknowledged at ({seq}, {rev}), is at {places:?}"));
                }
            }
            Outcome::Refused => {
                self.refused += 1;
                if !places.is_empty() {
                    self.refused_but_there += 1;
                    self.note(|| format!("{id}: refused, is at {places:?}"));
                }
            }
            Outcome::Unknown | Outcome::Unfinished => {
                self.unknown += 1;
                self.unknown_but_there += u64::from(!places.is_empty());
            }
        }
    }

    /// A ledger is flushed after its lines are written, so the last that a killed generator sent
    /// may be missing in it: what it has not heard of is told, and is no breach.
    fn is_clean(&self) -> bool {
        let breaches = [
            self.lost,
            self.duplicated,
            self.misplaced,
            self.reordered,
            self.refused_but_there,
            self.broken,
        ];
        breaches.iter().all(|count| *count == 0)
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(words());
        }
    }

    fn text(&self) -> String {
        let mut out = format!(
            "audit of {} runs over {} channels: sent {}, acked {}, refused {}, unknown {} ({} of \
             them there), retried {}\n  lost {}, duplicated {}, misplaced {}, reordered {}, refused \
             but there {}, unheard of {}, broken channels {}\n",
            self.runs,
            self.channels,
            self.sent,
            self.acked,
            self.refused,
            self.unknown,
            self.unknown_but_there,
            self.retried,
            self.lost,
            self.duplicated,
            self.misplaced,
            self.reordered,
            self.refused_but_there,
            self.unheard_of,
            self.broken
        );
        for finding in &self.findings {
            out += &format!("  {finding}\n");
        }
        out + if self.is_clean() { "clean\n" } else { "FAILED: a promise was broken\n" }
    }
}

#[cfg(test)]
mod tests {
    use chappe_protocol::{Rev, Seq};

    use super::*;

    const RUN: u64 = 9;
    const CHANNEL: ChannelId = ChannelId::new(1);

    const fn id(number: u32) -> MessageId {
        MessageId { publisher: 0, number }
    }

    fn sent(number: u32) -> Line {
        Line::Sent { nonce: number.to_string(), channel: CHANNEL, publisher: 0, number }
    }

    fn acked(number: u32, place: u64, overtaken: bool) -> Line {
        let (rev, seq, attempts) = (Rev::new(place), Some(Seq::new(place)), 1);
        Line::Acked { nonce: number.to_string(), rev, seq, attempts, overtaken }
    }

    fn refused(number: u32) -> Line {
        Line::Refused { nonce: number.to_string(), code: 2025, attempts: 1 }
    }

    /// Reckons these lines with messages found at these places.
    fn reckon(lines: &[Line], there: &[(u32, u64)]) -> Totals {
        let mut all = vec![
            Line::Run { run: RUN, scenario: "chat".to_owned(), seed: 1 },
            Line::Channel { channel: CHANNEL, member: 0 },
        ];
        all.extend_from_slice(lines);
        let mut found = Found::new();
        for (number, place) in there {
            found.entry((RUN, id(*number))).or_default().push((*place, *place));
        }
        Account::read(all).unwrap().reckon(&HashMap::from([(CHANNEL, found)]))
    }

    #[test]
    fn what_is_as_the_ledger_says_is_clean() {
        let unknown = Line::Unknown { nonce: "3".to_owned(), attempts: 2 };
        let lines = [sent(0), acked(0, 1, false), sent(1), refused(1), sent(2), sent(3), unknown];
        let totals = reckon(&lines, &[(0, 1), (3, 2)]);
        assert!(totals.is_clean(), "{}", totals.text());
        assert_eq!((totals.sent, totals.acked, totals.refused), (4, 1, 1));
        assert_eq!((totals.unknown, totals.unknown_but_there, totals.retried), (2, 1, 1));
    }

    #[test]
    fn every_breach_is_counted() {
        let one = [sent(0), acked(0, 1, false)];
        assert_eq!(reckon(&one, &[]).lost, 1);
        assert_eq!(reckon(&one, &[(0, 1), (0, 2)]).duplicated, 1);
        assert_eq!(reckon(&one, &[(0, 2)]).misplaced, 1);
        assert_eq!(reckon(&[sent(0), refused(0)], &[(0, 1)]).refused_but_there, 1);
        for totals in [
            reckon(&one, &[]),
            reckon(&one, &[(0, 1), (0, 2)]),
            reckon(&one, &[(0, 2)]),
            reckon(&[sent(0), refused(0)], &[(0, 1)]),
        ] {
            assert!(!totals.is_clean());
        }
    }

    #[test]
    fn an_order_that_is_not_the_publishers_is_a_breach_unless_one_was_refused_on_the_way() {
        for (overtaken, reordered) in [(false, 1), (true, 0)] {
            let lines = [sent(0), sent(1), acked(1, 1, false), acked(0, 2, overtaken)];
            assert_eq!(reckon(&lines, &[(0, 2), (1, 1)]).reordered, reordered);
        }
    }

    #[test]
    fn what_a_killed_generator_could_not_write_down_is_told() {
        let totals = reckon(&[sent(0), acked(0, 1, false)], &[(0, 1), (1, 2)]);
        assert_eq!(totals.unheard_of, 1);
        assert!(totals.is_clean());
    }

    #[test]
    fn a_ledger_that_contradicts_itself_is_refused() {
        assert!(Account::read(vec![sent(0)]).is_err());
        let run = Line::Run { run: RUN, scenario: "chat".to_owned(), seed: 1 };
        assert!(Account::read(vec![run, refused(7)]).is_err());
    }
}

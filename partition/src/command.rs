//! A command's way to its fact: may it be decided now, was it decided before, what is decided.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ErrorCode, Nonce, Rev, SessionId, UserId, limits::NONCE_AGE_MS_MAX, reply::Change,
};
use chappe_storage::store::Key;
use chappe_uplink::{Action, Command, Refusal, Request};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    answers::Out,
    append::{LOG_UNAVAILABLE_MS, change},
    config::Now,
    decide::{self, Asked, Need, Verdict},
    hot::Known,
    names::Named,
    partition::{Partition, Phase},
    record::{Digest, Fact, Record},
    row::{EventRow, RowValue},
    slot::Waiting,
};

/// What is known of a nonce.
enum Earlier {
    /// It was never used, or is forgotten.
    Never,
    /// Its command was answered this.
    Answered(Change),
    /// It was another command's.
    Other,
    /// The event of this revision has to be read.
    Look(Rev),
}

impl Partition {
    /// Takes up a command: answers it, offers its fact, or lets it wait for what it needs.
    pub(crate) fn take_command(&mut self, now: Now, waiting: Waiting) {
        let Request::Command(command) = &waiting.request else { return };
        let Some(to) = waiting.to() else { return };
        let (channel, session) = (command.channel, command.session);
        let named = self.take_named(channel, session);
        if let Err(refusal) = self.admit(now, command) {
            return self.answer(now, to, Err(refusal));
        }
        if let Some(slot) = self.slots.get_mut(&channel)
            && let Some(parked) = slot.parked.iter_mut().find(|parked| parked.session == session)
        {
            parked.commands.push_back(waiting);
            self.parked += 1;
            return;
        }
        let Some(waiting) = self.when_known(now, channel, waiting) else { return };
        let Request::Command(command) = &waiting.request else { return };
        match self.decide(now, command, named) {
            Ok(Decision::Append(fact)) => self.offer(now, Record::Fact(fact), Some(to)),
            Ok(Decision::Again(change)) => {
                self.tally.repeated += 1;
                self.push(Out::Again(to, change));
            }
            Ok(Decision::Row(key)) => {
                if self.jobs.len() >= self.config.bounds.reads_max {
                    let refusal = Refusal::new(ErrorCode::Overloaded).retry_after(BUSY_MS);
                    return self.answer(now, to, Err(refusal));
                }
                self.want_row(key, channel, session);
                self.park(channel, session, waiting);
            }
            Ok(Decision::Name(name)) => match self.want_name(now, channel, session, &name) {
                Ok(()) => self.park(channel, session, waiting),
                Err(refusal) => self.answer(now, to, Err(refusal)),
            },
            Err(refusal) => self.answer(now, to, Err(refusal)),
        }
    }

    /// Whether a command may be decided at all just now.
    fn admit(&mut self, now: Now, command: &Command) -> Result<(), Refusal> {
        let relayed = matches!(command.action, Action::Relay(_));
        match self.phase {
            Phase::Leading => {}
            Phase::HandingOver { .. } => return Err(Refusal::resend()),
            // Under the lock nobody else could do better.
            _ => {
                let refusal = Refusal::new(ErrorCode::LogUnavailable);
                return Err(refusal.retry_after(LOG_UNAVAILABLE_MS));
            }
        }
        let (session, channel) = (command.session, command.channel);
        if !relayed && !self.order.admits(session, channel, command.attempt, now.boot_ms) {
            return Err(Refusal::resend());
        }
        if self.lead.seal == 2 || (self.lead.seal == 1 && !relayed) {
            let refusal = Refusal::new(ErrorCode::Unavailable).because(SEALED);
            return Err(refusal.retry_after(SEALED_MS));
        }
        if let Some(wait_ms) = self.behind_ms
            && !relayed
        {
            return Err(Refusal::new(ErrorCode::ProjectionBehind).retry_after(wait_ms));
        }
        if self.nonces >= self.config.bounds.nonces_max && !relayed {
            return Err(Refusal::new(ErrorCode::Overloaded).retry_after(SEALED_MS));
        }
        if command.age_ms > NONCE_AGE_MS_MAX {
            return Err(Refusal::new(ErrorCode::NonceExpired));
        }
        Ok(())
    }

    fn decide(
        &mut self,
        now: Now,
        command: &Command,
        named: Option<Named>,
    ) -> Result<Decision, Refusal> {
        let channel = command.channel;
        let relayed = matches!(command.action, Action::Relay(_));
        let digest = if relayed { Digest([0; 16]) } else { self.digest(command) };
        if !relayed {
            match self.earlier(command, digest) {
                Earlier::Never => {}
                Earlier::Answered(change) => return Ok(Decision::Again(change)),
                Earlier::Other => return Err(Refusal::new(ErrorCode::NonceReused)),
                Earlier::Look(rev) => return Ok(Decision::Row(Key::Event(channel, rev))),
            }
        }
        let Some(slot) = self.slots.get(&channel) else { return Err(Refusal::resend()) };
        let Some(state) = slot.known() else { return Err(Refusal::resend()) };
        let asked = Asked {
            command,
            digest,
            tick: self.lead.tick(now),
            named,
            members_max: self.config.bounds.members_max,
            partition: self.config.id,
            partitions: self.config.partitions,
        };
        let body = match decide::decide(state, slot, &self.hot, &asked)? {
            Verdict::Fact(body) => body,
            Verdict::Again(change) => return Ok(Decision::Again(change)),
            Verdict::Need(Need::Row(key)) => return Ok(Decision::Row(key)),
            Verdict::Need(Need::Name(name)) => return Ok(Decision::Name(name)),
        };
        Ok(Decision::Append(Arc::new(Fact {
            mark: self.lead.mark(now),
            channel,
            rev: state.head.rev.next(),
            by: command.caller.user,
            nonce: (!relayed).then(|| command.nonce.clone()),
            client_nonce: command.client_nonce && !relayed,
            digest,
            body,
        })))
    }

    /// Whether this nonce was used before, and what for.
    fn earlier(&self, command: &Command, digest: Digest) -> Earlier {
        let channel = command.channel;
        let Some(slot) = self.slots.get(&channel) else { return Earlier::Never };
        let Some(state) = slot.known() else { return Earlier::Never };
        let (user, nonce) = (command.caller.user, &command.nonce);
        for rev in state.nonces.find(user, nonce) {
            if let Some(fact) = slot.fact(rev) {
                let used = (fact.by, fact.nonce.as_ref(), fact.digest);
                match same(used, user, nonce, digest) {
                    Some(true) => return Earlier::Answered(change(fact)),
                    Some(false) => return Earlier::Other,
                    None => continue,
                }
            }
            match self.hot.row(&Key::Event(channel, rev)) {
                Known::Row(RowValue::Event(row)) => {
                    match same((row.by, row.nonce.as_ref(), row.digest), user, nonce, digest) {
                        Some(true) => return Earlier::Answered(answered(channel, rev, row)),
                        Some(false) => return Earlier::Other,
                        None => {}
                    }
                }
                Known::Row(_) | Known::Missing => {}
                Known::Unknown => return Earlier::Look(rev),
            }
        }
        Earlier::Never
    }

    /// SHA-256 of what is asked, as MessagePack with named fields: fields that a later version
    /// adds and a command does not use leave it as it was.
    fn digest(&mut self, command: &Command) -> Digest {
        self.scratch.clear();
        let mut serializer = rmp_serde::Serializer::new(&mut self.scratch).with_struct_map();
        let written = (command.channel, &command.action).serialize(&mut serializer);
        assert!(written.is_ok(), "every command can be encoded");
        let hash = Sha256::digest(&self.scratch);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Digest(digest)
    }

    fn take_named(&mut self, channel: ChannelId, session: SessionId) -> Option<Named> {
        if self.freeing.named.is_empty() {
            return None;
        }
        let named = &mut self.freeing.named;
        let at = named.iter().position(|(c, s, _)| *c == channel && *s == session)?;
        Some(named.swap_remove(at).2)
    }
}

enum Decision {
    Append(Arc<Fact>),
    Again(Change),
    Row(Key),
    Name(chappe_protocol::ChannelName),
}

/// Whether what a nonce was used for is this command; none if it is another nonce.
fn same(
    (by, used, recorded): (UserId, Option<&Nonce>, Digest),
    user: UserId,
    nonce: &Nonce,
    digest: Digest,
) -> Option<bool> {
    (by == user && used == Some(nonce)).then_some(recorded == digest)
}

fn answered(channel: ChannelId, rev: Rev, row: &EventRow) -> Change {
    Change { channel, rev, seq: row.seq, at: row.at, inbox: None }
}

/// A client cannot open it again, and neither can waiting: only whoever sealed it.
const SEALED: &str = "its partition is sealed while everything is exported: reads are answered, \
                      changes are not taken";
/// What a sealed partition, or one with too many nonces, tells to wait.
const SEALED_MS: u64 = 2_000;
const BUSY_MS: u64 = 100;

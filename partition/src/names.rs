//! Channel names: claimed in the store before the fact that uses them is decided, freed once the
//! fact that gives them up is projected.
//!
//! A name that a channel claimed and never came to use (its leader died in between) is freed by
//! whoever wants it next, once the channel's creation can no longer be retried.

use bytes::Bytes;
use chappe_protocol::{ChannelId, ChannelName, ErrorCode, SessionId, limits::NONCE_WINDOW_MS};
use chappe_storage::store::{Claimed, Key, StoreError};
use chappe_uplink::{Generation, Refusal};
use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::Now,
    jobs::Job,
    partition::Partition,
    projection::Freed,
    record::{Fact, FactBody},
    row::{RowValue, StampedRow},
    rows_wanted::STORE_UNAVAILABLE_MS,
};

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) channel: ChannelId,
    /// The generation that claimed it, and when.
    generation: Generation,
    at: u64,
}

impl Holder {
    fn encode(&self) -> Bytes {
        Bytes::from(rmp_serde::to_vec(self).unwrap_or_default())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }
}

/// What is done with a name.
#[derive(Debug, Clone)]
pub(crate) enum NameJob {
    /// A command needs it.
    Claim(Want),
    /// Another channel holds it: does it use it?
    Holder(Want, Bytes),
    /// It does not, or the hold is an earlier one of the same channel: it is ended, and the name
    /// claimed again.
    Sweep(Want),
    /// It is given up: does the channel hold it at all?
    Held(GivenUp),
    /// It does: it is freed.
    Free(GivenUp),
}

/// A name that a channel gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    channel: ChannelId,
    name: String,
    /// Whose fact gave it up, or did not come to be. What a later leader claimed for the same
    /// channel is in use.
    generation: Generation,
    /// Whether a projected fact gave it up, and the projection waits. Otherwise the command that
    /// wanted it was refused after all, and nobody does.
    projected: bool,
}

/// A command that needs a name.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    channel: ChannelId,
    session: SessionId,
    name: String,
    value: Bytes,
    swept: bool,
}

/// A name that was claimed for a command, or turned out to be another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) ours: bool,
}

/// The names that are being freed or claimed, so that the two do not cross.
#[derive(Default)]
pub(crate) struct Freeing {
    given_up: Vec<GivenUp>,
    wanted: Vec<(ChannelId, String)>,
    /// Outcomes for commands that are about to be decided again.
    pub(crate) named: Vec<(ChannelId, SessionId, Named)>,
}

impl Partition {
    /// Says whether a name could be claimed.
    pub fn handle_name_claimed(
        &mut self,
        now: Now,
        token: u64,
        result: Result<Claimed, StoreError>,
    ) {
        let Some(Job::Name(NameJob::Claim(want))) = self.jobs.end(token) else { return };
        match result {
            Ok(Claimed::Yes) => self.named(now, want, true),
            Ok(Claimed::Taken(value)) => match Holder::decode(&value) {
                // Whoever took an earlier hold for needless may still end it: a call that was
                // given up can arrive late. A hold of one's own is safe from that.
                Some(holder) if holder.channel == want.channel && !want.swept => {
                    if self.may_renew(&holder) {
                        self.end_hold(want, value);
                    } else {
                        self.name_too_early(now, want);
                    }
                }
                Some(holder) if holder.channel == want.channel => self.name_failed(now, want),
                Some(holder) if !want.swept && holder.at + 2 * NONCE_WINDOW_MS < now.wall_ms => {
                    let keys = vec![Key::Channel(holder.channel)];
                    self.name_job(NameJob::Holder(want, value), StoreRead::Rows(keys));
                }
                _ => self.named(now, want, false),
            },
            Err(_) => self.name_failed(now, want),
        }
        self.forget_projected();
        self.proceed(now);
    }

    /// Claims a name for a session's command, which waits. Refused while the same channel's hold
    /// on the same name is being ended.
    pub(crate) fn want_name(
        &mut self,
        now: Now,
        channel: ChannelId,
        session: SessionId,
        name: &ChannelName,
    ) -> Result<(), Refusal> {
        let name = name.folded();
        let given_up = &self.freeing.given_up;
        if given_up.iter().any(|given| given.channel == channel && given.name == name) {
            return Err(Refusal::new(ErrorCode::Unavailable).retry_after(STORE_UNAVAILABLE_MS));
        }
        let holder = Holder { channel, generation: self.lead.generation, at: now.wall_ms };
        self.freeing.wanted.push((channel, name.clone()));
        let value = holder.encode();
        self.claim_name(Want { channel, session, name, value, swept: false });
        Ok(())
    }

    fn claim_name(&mut self, want: Want) {
        let (name, value) = (want.name.clone(), want.value.clone());
        let token = self.jobs.begin(Job::Name(NameJob::Claim(want)));
        self.actions.push_back(Action::ClaimName { token, name, value });
    }

    fn end_hold(&mut self, want: Want, value: Bytes) {
        let name = want.name.clone();
        let token = self.jobs.begin(Job::Name(NameJob::Sweep(want)));
        self.actions.push_back(Action::ReleaseName { token, name, value });
    }

    /// Rows or a name that one of the above read.
    pub(crate) fn name_found(&mut self, now: Now, job: NameJob, found: Option<StoreFound>) {
        match (job, found) {
            (NameJob::Holder(want, value), Some(StoreFound::Rows(rows))) => {
                if self.uses_name(&value, &want.name, rows.into_iter().flatten().next()) {
                    return self.named(now, want, false);
                }
                self.end_hold(want, value);
            }
            (NameJob::Holder(want, _), _) => self.name_failed(now, want),
            (NameJob::Held(given), Some(StoreFound::Name(value))) => {
                let holder = value.as_deref().and_then(Holder::decode);
                let is_given_up = holder.is_some_and(|holder| {
                    holder.channel == given.channel && holder.generation <= given.generation
                });
                match value {
                    Some(value) if is_given_up => {
                        let name = given.name.clone();
                        let token = self.jobs.begin(Job::Name(NameJob::Free(given)));
                        self.actions.push_back(Action::ReleaseName { token, name, value });
                    }
                    _ => self.free_done(now, &given, true),
                }
            }
            (NameJob::Held(given), _) => self.free_done(now, &given, false),
            _ => {}
        }
    }

    /// A name was freed, or not.
    pub(crate) fn name_released(&mut self, now: Now, job: NameJob, result: Result<(), StoreError>) {
        match (job, result) {
            (NameJob::Sweep(want), Ok(())) => self.claim_name(Want { swept: true, ..want }),
            (NameJob::Sweep(want), Err(_)) => self.name_failed(now, want),
            (NameJob::Free(given), result) => self.free_done(now, &given, result.is_ok()),
            _ => {}
        }
    }

    /// Frees the next name that the batch under way gives up.
    pub(crate) fn free_next(&mut self, now: Now) {
        while let Some(Freed { channel, name, by }) = self.next_freed() {
            let name = name.folded();
            if !self.still_uses(channel, &name) {
                return self.give_up(GivenUp { channel, name, generation: by, projected: true });
            }
            self.freed(); // it has taken it again
        }
        self.names_freed(now);
    }

    /// The log did not take a fact for which a name was claimed. If the store fails to free it,
    /// the next one who wants it does.
    pub(crate) fn name_not_needed(&mut self, fact: &Fact) {
        let name = match &fact.body {
            FactBody::Created(body) => &body.name,
            FactBody::Updated(body) => &body.name,
            _ => return,
        };
        let Some(name) = name.as_ref().map(ChannelName::folded) else { return };
        let (channel, generation) = (fact.channel, fact.mark.generation);
        let meta = self.slots.get(&channel).and_then(|slot| slot.known()?.meta.as_ref());
        let used = meta.and_then(|meta| meta.name.as_ref()).is_some_and(|n| n.folded() == name);
        if !used {
            self.give_up(GivenUp { channel, name, generation, projected: false });
        }
    }

    fn give_up(&mut self, given: GivenUp) {
        let read = StoreRead::Name(given.name.clone());
        self.freeing.given_up.push(given.clone());
        self.name_job(NameJob::Held(given), read);
    }

    fn free_done(&mut self, now: Now, given: &GivenUp, free: bool) {
        self.freeing.given_up.retain(|other| other != given);
        match (given.projected, free) {
            (true, true) => {
                self.freed();
                self.free_next(now);
            }
            (true, false) => self.projection_failed(now),
            (false, _) => {}
        }
    }

    fn name_job(&mut self, job: NameJob, read: StoreRead) {
        let token = self.jobs.begin(Job::Name(job));
        self.actions.push_back(Action::ReadStore { token, read });
    }

    fn named(&mut self, now: Now, want: Want, ours: bool) {
        self.no_longer_wanted(&want);
        let Want { channel, session, name, .. } = want;
        let waits = |slot: &crate::slot::Slot| {
            let mut parked = slot.parked.iter();
            parked.any(|parked| parked.session == session && !parked.commands.is_empty())
        };
        if self.slots.get(&channel).is_some_and(waits) {
            self.freeing.named.push((channel, session, Named { name, ours }));
        }
        self.unpark(now, channel, session);
    }

    fn name_failed(&mut self, now: Now, want: Want) {
        self.no_longer_wanted(&want);
        let refusal = Refusal::new(ErrorCode::StoreUnavailable).retry_after(STORE_UNAVAILABLE_MS);
        self.refuse_parked(now, want.channel, want.session, &refusal);
    }

    /// Whether a channel's earlier hold on a name that it wants can be ended: it does not go by that
    /// name for certain. A fact that gives the name up may not come to be, and a later leader's
    /// hold says that there are facts which are not known here.
    fn may_renew(&self, holder: &Holder) -> bool {
        holder.generation <= self.lead.generation && !self.is_in_doubt(holder.channel)
    }

    fn name_too_early(&mut self, now: Now, want: Want) {
        self.no_longer_wanted(&want);
        let refusal = Refusal::new(ErrorCode::Unavailable).retry_after(STORE_UNAVAILABLE_MS);
        self.refuse_parked(now, want.channel, want.session, &refusal);
    }

    fn no_longer_wanted(&mut self, want: &Want) {
        let wanted = &mut self.freeing.wanted;
        if let Some(at) = wanted.iter().position(|(c, n)| *c == want.channel && *n == want.name) {
            wanted.swap_remove(at);
        }
    }

    /// Whether the channel that holds a name uses it, or may still be created with it.
    fn uses_name(&self, value: &[u8], name: &str, row: Option<chappe_storage::store::Row>) -> bool {
        let Some(holder) = Holder::decode(value) else { return true };
        let Some(row) = row else { return false };
        match StampedRow::decode(&Key::Channel(holder.channel), &row).map(|row| row.value) {
            Ok(RowValue::Channel(row)) => row.name.is_some_and(|used| used.folded() == name),
            _ => true,
        }
    }

    /// Whether the channel goes by this name after all facts that are decided or being decided.
    fn still_uses(&self, channel: ChannelId, name: &str) -> bool {
        let same = |other: &ChannelName| other.folded() == name;
        if self.freeing.wanted.iter().any(|(c, n)| *c == channel && n == name)
            || self.freeing.named.iter().any(|(c, _, n)| *c == channel && n.name == name)
        {
            return true;
        }
        let last = self.slots.get(&channel).and_then(|slot| {
            slot.tail.iter().rev().find_map(|fact| match &fact.body {
                FactBody::Updated(body) => body.name.as_ref().map(same),
                FactBody::Deleted(_) => Some(false),
                _ => None,
            })
        });
        last.unwrap_or_else(|| match self.batch_row(&Key::Channel(channel)) {
            Some(RowValue::Channel(row)) => row.name.as_ref().is_some_and(same),
            _ => false,
        })
    }
}

//! Old events: their references are kept for a while (30 days by default), then whole buckets of
//! them go, and a reader whose cursor lies there is reset. Messages stay.
//!
//! A channel is looked at when it completes a bucket, so that one that says nothing costs nothing.

use std::collections::VecDeque;

use chappe_protocol::{ChannelId, Rev};
use chappe_storage::store::{Key, Scan, StoreError};

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::Now,
    jobs::Job,
    partition::Partition,
    record::Fact,
    row::{RowValue, StampedRow},
};

/// Channels that completed a bucket.
#[derive(Default)]
pub(crate) struct Expiry {
    channels: VecDeque<ChannelId>,
    busy: bool,
}

/// What the store was asked about a channel's oldest events.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ExpiryJob {
    /// Which is the oldest?
    Oldest(ChannelId),
    /// How old is the last of its bucket?
    Last(ChannelId, Rev),
    /// The bucket goes.
    Expire(ChannelId),
}

/// References in a bucket, as the store keeps them.
const BUCKET: u64 = 4_096;
/// Channels that wait to be looked at; any other is when it completes its next bucket.
const CHANNELS_MAX: usize = 1_024;

impl Expiry {
    /// A fact is projected.
    pub(crate) fn projected(&mut self, fact: &Fact) {
        if fact.rev.get().is_multiple_of(BUCKET) && self.channels.len() < CHANNELS_MAX {
            self.channels.push_back(fact.channel);
        }
    }

    /// Answers that were asked for will not come.
    pub(crate) fn interrupt(&mut self) {
        self.busy = false;
    }
}

impl Partition {
    /// Looks at the next channel, if none is being looked at.
    pub(crate) fn expire_events(&mut self) {
        if !self.expiry.busy
            && let Some(channel) = self.expiry.channels.pop_front()
        {
            self.expiry.busy = true;
            self.ask_oldest(channel);
        }
    }

    fn ask_oldest(&mut self, channel: ChannelId) {
        let token = self.jobs.begin(Job::Expiry(ExpiryJob::Oldest(channel)));
        let read = StoreRead::Scan(Scan::EventsAfter(channel, Rev::ZERO), 1);
        self.actions.push_back(Action::ReadStore { token, read });
    }

    pub(crate) fn expiry_found(&mut self, now: Now, job: ExpiryJob, found: Option<StoreFound>) {
        let row = match found {
            Some(StoreFound::Scanned(rows)) => rows.into_iter().next(),
            Some(StoreFound::Rows(rows)) => match job {
                ExpiryJob::Last(channel, last) => {
                    let row = rows.into_iter().flatten().next();
                    row.map(|row| (Key::Event(channel, last), row))
                }
                _ => None,
            },
            _ => None,
        };
        let keep_ms = self.config.bounds.events_keep_ms;
        let old = row.and_then(|(key, row)| {
            let Key::Event(_, rev) = key else { return None };
            match StampedRow::decode(&key, &row).map(|row| row.value) {
                Ok(RowValue::Event(event)) if event.at + keep_ms < now.wall_ms => Some(rev),
                _ => None,
            }
        });
        match (job, old) {
            (ExpiryJob::Oldest(channel), Some(oldest)) => {
                let last = Rev::new(oldest.get() / BUCKET * BUCKET + BUCKET - 1);
                let token = self.jobs.begin(Job::Expiry(ExpiryJob::Last(channel, last)));
                let read = StoreRead::Rows(vec![Key::Event(channel, last)]);
                self.actions.push_back(Action::ReadStore { token, read });
            }
            (ExpiryJob::Last(channel, _), Some(up_to)) => {
                let token = self.jobs.begin(Job::Expiry(ExpiryJob::Expire(channel)));
                self.actions.push_back(Action::ExpireEvents { token, channel, up_to });
            }
            _ => self.expiry.busy = false,
        }
    }

    pub(crate) fn events_expired(&mut self, job: ExpiryJob, result: Result<(), StoreError>) {
        match (job, result) {
            (ExpiryJob::Expire(channel), Ok(())) => self.ask_oldest(channel),
            _ => self.expiry.busy = false,
        }
    }
}

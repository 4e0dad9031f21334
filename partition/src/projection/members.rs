//! A deleted channel's members: each one's inbox hears of it. They are found in the store, page by
//! page, once all earlier facts are there; nothing changes them any more.

use std::sync::Arc;

use chappe_protocol::{ChannelId, UserId};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Row, Scan},
};

use super::{Sendable, Stage, batch::Batch};
use crate::{
    action::StoreRead,
    config::Now,
    halt::Halt,
    partition::Partition,
    project::{project, stamp},
    record::Fact,
    row::{RowValue, StampedRow},
};

pub(super) struct Members {
    fact: Arc<Fact>,
    offset: Offset,
    /// The members up to this one have been told.
    after: Option<UserId>,
    /// The page that is being written: its last member, its rows, whether there are more pages.
    upto: Option<UserId>,
    page: Vec<Sendable>,
    last: bool,
}

impl Members {
    pub(super) fn read(&self) -> StoreRead {
        StoreRead::Scan(Scan::Members(self.fact.channel, self.after), PAGE_MEMBERS)
    }
}

impl Partition {
    /// Begins with the next channel that the batch deleted, or ends the batch.
    pub(super) fn next_deleted(&mut self, now: Now, mut batch: Box<Batch>) {
        let Some((fact, offset)) = batch.deleted.pop_front() else {
            return self.batch_done(now, &batch);
        };
        let members =
            Members { fact, offset, after: None, upto: None, page: Vec::new(), last: false };
        let read = members.read();
        self.projection.stage = Stage::Telling(batch, members);
        self.ask_store(read);
    }

    /// Writes an outbox row for each member of a page.
    pub(super) fn tell_members(
        &mut self,
        now: Now,
        batch: Box<Batch>,
        mut members: Members,
        page: Vec<(Key, Row)>,
    ) {
        members.last = page.len() < PAGE_MEMBERS;
        members.page.clear();
        let mut rows = Vec::with_capacity(page.len());
        for (key, row) in page {
            let Key::Member(channel, user) = key else { continue };
            members.upto = Some(user);
            let decoded = StampedRow::decode(&key, &row).map(|row| row.value);
            let Ok(RowValue::Member(member)) = decoded else {
                return self.halt_by(now, Halt::Store("a member".to_owned()));
            };
            if member.removed.is_some() {
                continue;
            }
            let (fact, offset) = (&members.fact, members.offset);
            let key = Key::Outbox {
                partition: self.config.id,
                source: channel,
                target: ChannelId::inbox(user),
                rev: fact.rev,
            };
            let stamp = stamp(fact);
            if let Ok(RowValue::Outbox(row)) = project(fact, offset, &key, None) {
                members.page.push(Sendable { key, stamp, row });
                let value = Some(RowValue::Outbox(row).encode());
                rows.push(Mutation { key, stamp, value });
            }
        }
        if rows.is_empty() {
            return self.go_on_telling(now, batch, members);
        }
        self.projection.stage = Stage::Telling(batch, members);
        self.write_store(rows);
    }

    /// The page is written.
    pub(super) fn go_on_telling(&mut self, now: Now, mut batch: Box<Batch>, mut members: Members) {
        batch.outbox.append(&mut members.page);
        members.after = members.upto;
        if members.last {
            return self.next_deleted(now, batch);
        }
        let read = members.read();
        self.projection.stage = Stage::Telling(batch, members);
        self.ask_store(read);
    }
}

const PAGE_MEMBERS: usize = 500;

//! A user's channels, from his inbox.

use std::collections::BTreeMap;

use chappe_protocol::{
    ChannelId, ErrorCode, Seq, UserId,
    reply::{ChannelsReply, MyChannel},
};
use chappe_storage::store::{Key, Scan};
use chappe_uplink::{Answer, Read, Refusal};

use super::{Step, Stepped, What};
use crate::{
    action::{StoreFound, StoreRead},
    attach::readable_since,
    channel::ChannelState,
    partition::Partition,
    record::FactBody,
    row::{ListedRow, RowValue, StampedRow},
    rows_wanted::lay_over,
};

/// A page under way.
pub(super) struct Page {
    user: UserId,
    limit: usize,
    after: Option<ChannelId>,
    listed: Vec<(ChannelId, ListedRow)>,
    ask: Ask,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    List,
    Markers { more: bool },
}

pub(super) fn begin(
    state: &ChannelState,
    read: &Read,
    after: Option<ChannelId>,
    limit: usize,
) -> Stepped {
    let user = read.channel.inbox_owner().ok_or(Refusal::new(ErrorCode::NotFound))?;
    if let Some(caller) = &read.caller {
        readable_since(state, read.channel, caller)?;
    }
    Ok(Page { user, limit, after, listed: Vec::new(), ask: Ask::List }.ask_list())
}

impl Page {
    fn ask_list(self) -> Step {
        let ask = StoreRead::Scan(Scan::ChannelsByUser(self.user, self.after), SCAN_ROWS);
        Step::Ask(What::Mine(Box::new(self)), ask)
    }
}

impl Partition {
    pub(super) fn mine_found(&self, read: &Read, mut page: Page, found: StoreFound) -> Stepped {
        match (page.ask, found) {
            (Ask::List, StoreFound::Scanned(rows)) => {
                let last = rows.len() < SCAN_ROWS;
                let mut listed = BTreeMap::new();
                for (key, row) in rows {
                    match (key, StampedRow::decode(&key, &row)) {
                        (Key::ChannelOfUser(_, channel), Ok(row)) => {
                            listed.insert(channel, Some(row));
                        }
                        _ => return Err(damaged()),
                    }
                }
                let upto = if last { None } else { listed.keys().next_back().copied() };
                self.add_new(read, &page, upto, &mut listed);
                let slot = self.slots.get(&read.channel).ok_or_else(Refusal::resend)?;
                for (channel, row) in listed {
                    page.after = Some(channel);
                    let key = Key::ChannelOfUser(page.user, channel);
                    match lay_over(slot, &key, row) {
                        Some(RowValue::Listed(row)) if !row.removed => {
                            page.listed.push((channel, row));
                        }
                        _ => {}
                    }
                }
                let more = page.listed.len() > page.limit || !last;
                if page.listed.len() <= page.limit && !last {
                    return Ok(page.ask_list());
                }
                page.listed.truncate(page.limit);
                Ok(page.ask_markers(more))
            }
            (Ask::Markers { more }, StoreFound::Rows(rows)) => {
                self.with_markers(read, &page, more, rows)
            }
            _ => Err(Refusal::resend()),
        }
    }

    /// Channels that only the tail knows of, within the range that was read.
    fn add_new(
        &self,
        read: &Read,
        page: &Page,
        upto: Option<ChannelId>,
        listed: &mut BTreeMap<ChannelId, Option<StampedRow>>,
    ) {
        let Some(slot) = self.slots.get(&read.channel) else { return };
        for fact in &slot.tail {
            if let FactBody::ChannelAdded(body) = &fact.body
                && page.after.is_none_or(|after| body.channel > after)
                && upto.is_none_or(|upto| body.channel <= upto)
            {
                listed.entry(body.channel).or_insert(None);
            }
        }
    }

    fn with_markers(
        &self,
        read: &Read,
        page: &Page,
        more: bool,
        rows: Vec<Option<chappe_storage::store::Row>>,
    ) -> Stepped {
        let slot = self.slots.get(&read.channel).ok_or_else(Refusal::resend)?;
        let mut channels = Vec::with_capacity(page.listed.len());
        for ((channel, listed), row) in page.listed.iter().zip(rows) {
            let key = Key::ReadMarker(page.user, *channel);
            let row = row.map(|row| StampedRow::decode(&key, &row)).transpose();
            let read = match lay_over(slot, &key, row.map_err(|_| damaged())?) {
                Some(RowValue::ReadMarker(marker)) => marker.seq,
                _ => Seq::ZERO,
            };
            let (role, since) = (listed.role, listed.rev);
            channels.push(MyChannel { channel: *channel, role, since, read });
        }
        let next = channels.last().filter(|_| more).map(|last| last.channel);
        Ok(Step::Done(Answer::MyChannels(ChannelsReply { channels, next })))
    }
}

impl Page {
    fn ask_markers(mut self, more: bool) -> Step {
        self.ask = Ask::Markers { more };
        let keys = self.listed.iter();
        let keys = keys.map(|(channel, _)| Key::ReadMarker(self.user, *channel)).collect();
        Step::Ask(What::Mine(Box::new(self)), StoreRead::Rows(keys))
    }
}

fn damaged() -> Refusal {
    Refusal::new(ErrorCode::StoreUnavailable).because("a row is damaged")
}

/// Rows of the list that are read at once.
const SCAN_ROWS: usize = 256;

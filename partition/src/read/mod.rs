//! Reads: pages from memory where they are there, else from the store with the tail laid over.
//!
//! Whoever reads is checked twice: when the read begins, and when its page is put together, as his
//! rights may have changed with the facts that the page shows.

mod channel;
mod events;
mod messages;
mod mine;

use chappe_protocol::{
    ChannelId, ErrorCode,
    limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX},
};
use chappe_uplink::{Answer, Read, ReadQuery, Refusal, Request, Resolved};

use crate::{
    action::{Action, StoreFound, StoreRead},
    config::Now,
    jobs::Job,
    names::Holder,
    partition::Partition,
    rows_wanted::STORE_UNAVAILABLE_MS,
    slot::{To, Waiting},
};

/// A page that waits for the store.
pub(crate) struct Page {
    to: To,
    read: Read,
    what: What,
}

impl Page {
    /// Who waits for it.
    pub(crate) const fn to(&self) -> To {
        self.to
    }
}

/// What the store was asked for it.
enum What {
    Messages(messages::Window),
    Events(Box<events::Page>),
    Mine(Box<mine::Page>),
    Name,
}

/// The next step of a page.
enum Step {
    /// It is complete.
    Done(Answer),
    /// The store has to be asked.
    Ask(What, StoreRead),
}

type Stepped = Result<Step, Refusal>;

impl Partition {
    /// Takes up a read.
    pub(crate) fn take_read(&mut self, now: Now, waiting: Waiting) {
        let (Request::Read(read), Some(to)) = (&waiting.request, waiting.to()) else { return };
        if let ReadQuery::Resolve(name) = &read.query {
            let ask = StoreRead::Name(name.folded());
            let page = Page { to, read: read.clone(), what: What::Name };
            return self.ask_page(now, None, page, ask);
        }
        let channel = read.channel;
        let Some(waiting) = self.when_known(now, channel, waiting) else { return };
        let Request::Read(read) = waiting.request else { return };
        let stepped = self.begin_read(&read);
        self.step_read(now, None, to, read, stepped);
    }

    /// What the store found for a page.
    pub(crate) fn page_found(
        &mut self,
        now: Now,
        token: u64,
        page: Page,
        found: Option<StoreFound>,
    ) {
        let Page { to, read, what } = page;
        let channel = read.channel;
        if !matches!(what, What::Name)
            && let Some(slot) = self.slots.get_mut(&channel)
        {
            slot.reading = slot.reading.saturating_sub(1);
        }
        let Some(found) = found else {
            let refusal = Refusal::new(ErrorCode::StoreUnavailable);
            return self.answer(now, to, Err(refusal.retry_after(STORE_UNAVAILABLE_MS)));
        };
        let stepped = match (what, found) {
            (What::Name, StoreFound::Name(value)) => resolved(value.as_deref()),
            (What::Messages(window), StoreFound::Scanned(rows)) => {
                self.messages_found(&read, window, rows)
            }
            (What::Events(page), found) => self.events_found(&read, *page, found),
            (What::Mine(page), found) => self.mine_found(&read, *page, found),
            _ => Err(Refusal::resend()),
        };
        self.step_read(now, Some(token), to, read, stepped);
    }

    fn begin_read(&self, read: &Read) -> Stepped {
        let slot = self.slots.get(&read.channel).ok_or_else(Refusal::resend)?;
        let state = slot.known().ok_or_else(Refusal::resend)?;
        let head = state.head.rev;
        if read.at_least > head && !matches!(read.query, ReadQuery::Events { .. }) {
            let why = "the channel has no such revision";
            return Err(Refusal::new(ErrorCode::Invalid).because(why));
        }
        match &read.query {
            ReadQuery::Channel => channel::channel(state, read).map(Step::Done),
            ReadQuery::Members { after, limit } => {
                channel::members(state, read, *after, page_limit(Some(*limit))?).map(Step::Done)
            }
            ReadQuery::Messages(history) => self.begin_messages(slot, state, read, history),
            ReadQuery::Events { after, limit } => {
                self.begin_events(slot, state, read, *after, *limit)
            }
            ReadQuery::MyChannels { after, limit } => {
                mine::begin(state, read, *after, page_limit(Some(*limit))?)
            }
            ReadQuery::Resolve(_) => Err(Refusal::resend()),
        }
    }

    /// Answers, or asks the store for more, going on under the number of the page's first read.
    fn step_read(&mut self, now: Now, begun: Option<u64>, to: To, read: Read, stepped: Stepped) {
        match stepped {
            Ok(Step::Done(answer)) => self.answer(now, to, Ok(answer)),
            Ok(Step::Ask(what, ask)) => {
                let channel = read.channel;
                let full = self.jobs.len() >= self.config.bounds.reads_max;
                if !full && let Some(slot) = self.slots.get_mut(&channel) {
                    slot.reading += 1; // it is not forgotten in the middle of a page
                }
                self.ask_page(now, begun, Page { to, read, what }, ask);
            }
            Err(refusal) => self.answer(now, to, Err(refusal)),
        }
    }

    fn ask_page(&mut self, now: Now, begun: Option<u64>, page: Page, read: StoreRead) {
        if self.jobs.len() >= self.config.bounds.reads_max {
            let refusal = Refusal::new(ErrorCode::Overloaded).retry_after(BUSY_MS);
            return self.answer(now, page.to, Err(refusal));
        }
        let job = Job::Page(Box::new(page));
        let token = match begun {
            Some(token) => self.jobs.go_on(token, job),
            None => self.jobs.begin(job),
        };
        self.actions.push_back(Action::ReadStore { token, read });
    }
}

fn resolved(value: Option<&[u8]>) -> Stepped {
    let holder = value.and_then(Holder::decode);
    let channel: ChannelId = holder.ok_or(Refusal::new(ErrorCode::NotFound))?.channel;
    Ok(Step::Done(Answer::Resolved(Resolved { channel })))
}

/// How many items a page has at most.
fn page_limit(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit.unwrap_or(PAGE_ITEMS_DEFAULT) {
        limit @ 1..=PAGE_ITEMS_MAX => Ok(limit as usize),
        _ => Err(Refusal::new(ErrorCode::Invalid).because("a page has 1 to 200 items")),
    }
}

/// What a partition with too many reads under way tells to wait.
const BUSY_MS: u64 = 100;

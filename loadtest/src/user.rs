//! One user: a session and its books, in a task of its own on the run's thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Instant,
};

use chappe_client::{Answer, Error, Frame, Next, Session, Ticket, Update};
use chappe_protocol::{ChannelId, Command, ErrorCode, Nonce, command::Publish, reply::Change};
use tokio::sync::{mpsc, oneshot};

use crate::{
    audit::{Audit, Delivered, Outcome},
    ledger::{Ledger, Line},
    measure::Measured,
    payload::{MessageId, Payload, Writer},
};

/// What a run's tasks share. One thread: no lock.
pub(crate) struct Books {
    pub(crate) run: u64,
    pub(crate) writer: Writer,
    /// The moment that all times count from.
    pub(crate) start: Cell<Instant>,
    /// Times before this one are not measured, in nanoseconds since the start.
    pub(crate) measure_from_ns: u64,
    pub(crate) audit: RefCell<Audit>,
    pub(crate) measured: RefCell<Measured>,
    pub(crate) ledger: RefCell<Option<Ledger>>,
    /// Set when the ledger cannot be written any more.
    pub(crate) ledger_failure: RefCell<Option<String>>,
    /// Publishes without an answer.
    pub(crate) unanswered: Cell<u64>,
}

impl Books {
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.get().elapsed().as_nanos() as u64
    }

    /// Writes a line into the ledger, if there is one.
    pub(crate) fn note(&self, line: &Line) {
        self.with_ledger(|ledger| ledger.write(line));
    }

    /// Hands the ledger's lines to the system.
    pub(crate) fn flush_ledger(&self) {
        self.with_ledger(Ledger::flush);
    }

    fn with_ledger(&self, write: impl FnOnce(&mut Ledger) -> std::io::Result<()>) {
        if let Some(ledger) = &mut *self.ledger.borrow_mut()
            && let Err(error) = write(ledger)
        {
            *self.ledger_failure.borrow_mut() = Some(error.to_string());
        }
    }
}

/// What a user is told to do.
pub(crate) enum Order {
    /// Publish a message that was due at this time.
    Publish { channel: u32, id: ChannelId, at_ns: u64 },
    /// Ask something and hand the answer back. Boxed, as the next: every user's queue has room
    /// for many orders, and nearly all are the first kind.
    Ask(Box<Ask>),
    /// From now on these channels are the run's.
    #[expect(clippy::box_collection, reason = "a queue's slot is as large as the largest order")]
    Follow(Box<HashMap<ChannelId, u32>>),
    /// Close the session.
    Leave,
}

/// A command and where its answer goes.
pub(crate) struct Ask {
    pub(crate) command: Command,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) answer: oneshot::Sender<Result<Frame, Error>>,
}

pub(crate) struct User {
    number: u32,
    session: Session,
    orders: mpsc::Receiver<Order>,
    books: Rc<Books>,
    follows: HashMap<ChannelId, u32>,
    published: HashMap<Ticket, Published>,
    asked: HashMap<Ticket, oneshot::Sender<Result<Frame, Error>>>,
    sent: u32,
    left: bool,
}

struct Published {
    id: MessageId,
    at_ns: u64,
    /// As the ledger names it; empty without a ledger.
    nonce: String,
}

impl User {
    /// Takes a session that has signed in.
    pub(crate) fn new(
        number: u32,
        session: Session,
        orders: mpsc::Receiver<Order>,
        books: Rc<Books>,
    ) -> Self {
        Self {
            number,
            session,
            orders,
            books,
            follows: HashMap::new(),
            published: HashMap::new(),
            asked: HashMap::new(),
            sent: 0,
            left: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased; // what is due is sent before what has come is read
                order = self.orders.recv(), if !self.left => match order {
                    Some(order) => {
                        self.handle_order(order);
                        while let Ok(order) = self.orders.try_recv() {
                            self.handle_order(order);
                        }
                    }
                    None => self.leave(),
                },
                next = self.session.next() => match next {
                    Next::Update(update) => self.handle_update(update),
                    Next::Answer(answer) => self.handle_answer(answer),
                    Next::Finished(error) => return self.handle_finished(&error),
                },
            }
        }
    }

    fn leave(&mut self) {
        self.left = true;
        self.session.close();
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Publish { channel, id, at_ns } => self.publish(channel, id, at_ns),
            Order::Ask(ask) => {
                let Ask { command, nonce, answer } = *ask;
                match self.session.submit(command, nonce) {
                    Ok(ticket) => drop(self.asked.insert(ticket, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Order::Follow(channels) => self.follows = *channels,
            Order::Leave => self.leave(),
        }
    }

    fn publish(&mut self, channel: u32, channel_id: ChannelId, at_ns: u64) {
        let id = MessageId { publisher: self.number, number: self.sent };
        let nonce_text = format!("{:x}-{}-{}", self.books.run, id.publisher, id.number);
        let Ok(nonce) = Nonce::parse(nonce_text.as_str()) else { return };
        let data = self.books.writer.write(id, at_ns);
        let command =
            Publish { channel: channel_id, text: None, data, reply_to: None, mentions: Vec::new() };
        let Ok(ticket) = self.session.submit(command, Some(nonce)) else {
            self.books.measured.borrow_mut().withheld += 1;
            return;
        };
        let lag_ns = self.books.now_ns().saturating_sub(at_ns);
        {
            let mut measured = self.books.measured.borrow_mut();
            measured.sent += 1;
            measured.lag.record(lag_ns);
        }
        self.sent += 1;
        self.books.audit.borrow_mut().handle_sent(id, channel);
        self.books.unanswered.set(self.books.unanswered.get() + 1);
        let line = Line::Sent {
            nonce: nonce_text.clone(),
            channel: channel_id,
            publisher: id.publisher,
            number: id.number,
        };
        self.books.note(&line);
        self.published.insert(ticket, Published { id, at_ns, nonce: nonce_text });
    }

    fn handle_update(&mut self, update: Update) {
        match update {
            Update::Event(event) => {
                let Some(&channel) = self.follows.get(&event.channel) else { return };
                let data = event.message().and_then(|message| message.data.as_ref());
                let payload = Payload::read(data).filter(|payload| payload.run == self.books.run);
                self.handle_delivery(channel, event.rev.get(), payload);
            }
            Update::Unknown(place) => {
                if let Some(&channel) = self.follows.get(&place.channel) {
                    self.handle_delivery(channel, place.rev.get(), None);
                }
            }
            Update::Subscribed(subscribed) => {
                if let (Some(&channel), Some(rev)) =
                    (self.follows.get(&subscribed.channel), subscribed.rev)
                {
                    let mut audit = self.books.audit.borrow_mut();
                    audit.handle_follows(self.number, channel, rev.get());
                }
            }
            Update::Reset(reset) => {
                if let Some(&channel) = self.follows.get(&reset.channel) {
                    let mut audit = self.books.audit.borrow_mut();
                    audit.handle_reset(self.number, channel, reset.base.get());
                }
            }
            Update::Ended { channel, error } => {
                if self.follows.contains_key(&channel) {
                    self.books.audit.borrow_mut().handle_ended(self.number, &error.name);
                }
            }
            Update::Anomaly(anomaly) => {
                if let Some(&channel) = self.follows.get(&anomaly.channel()) {
                    let mut audit = self.books.audit.borrow_mut();
                    audit.handle_anomaly(self.number, channel, anomaly);
                }
            }
            Update::Disconnected(_) => self.books.measured.borrow_mut().reconnects += 1,
            Update::Connected(_) | Update::Closed(_) | Update::Live(_) | Update::Signal(_) => {}
        }
    }

    fn handle_delivery(&mut self, channel: u32, rev: u64, payload: Option<Payload>) {
        let id = payload.map(|payload| payload.id);
        let delivered =
            self.books.audit.borrow_mut().handle_delivery(self.number, channel, rev, id);
        let Some(payload) = payload else { return };
        let took_ns = self.books.now_ns().saturating_sub(payload.at_ns);
        let mut measured = self.books.measured.borrow_mut();
        measured.deliveries += 1;
        if payload.at_ns >= self.books.measure_from_ns {
            measured.delivery.record(took_ns);
            if delivered == Delivered::All {
                measured.last.record(took_ns);
            }
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        if let Some(asker) = self.asked.remove(&answer.ticket) {
            // The asker may have stopped waiting.
            return drop(asker.send(answer.outcome));
        }
        let Some(published) = self.published.remove(&answer.ticket) else { return };
        self.books.unanswered.set(self.books.unanswered.get() - 1);
        if answer.attempts > 1 {
            self.books.measured.borrow_mut().retried += 1;
        }
        let Published { id, at_ns, nonce } = published;
        let attempts = answer.attempts;
        let change = answer.outcome.and_then(|frame| frame.body::<Change>());
        match change {
            Ok(Change { rev, seq, .. }) => {
                let overtaken = answer.overtaken;
                self.books.audit.borrow_mut().handle_acked(id, rev.get(), !overtaken);
                self.measure_ack(at_ns);
                self.books.note(&Line::Acked { nonce, rev, seq, attempts, overtaken });
            }
            Err(error) => {
                let (outcome, line) = match settled_refusal(&error, answer.in_doubt) {
                    Some(code) => (Outcome::Refused, Line::Refused { nonce, code, attempts }),
                    None => (Outcome::Unknown, Line::Unknown { nonce, attempts }),
                };
                self.books.audit.borrow_mut().handle_failed(id, outcome);
                self.books.note(&line);
            }
        }
    }

    fn measure_ack(&self, at_ns: u64) {
        let mut measured = self.books.measured.borrow_mut();
        measured.acked += 1;
        if at_ns >= self.books.measure_from_ns {
            measured.ack.record(self.books.now_ns().saturating_sub(at_ns));
        }
    }

    fn handle_finished(mut self, error: &Error) {
        if !self.left && !self.follows.is_empty() {
            self.books.audit.borrow_mut().handle_ended(self.number, &error.to_string());
        }
        for (_, asker) in self.asked.drain() {
            drop(asker.send(Err(error.clone())));
        }
    }
}

/// The code of a refusal after which nothing can have happened.
fn settled_refusal(error: &Error, in_doubt: bool) -> Option<u16> {
    match error {
        Error::Refused(refusal) if !in_doubt && refusal.code != ErrorCode::Unknown.number() => {
            Some(refusal.code)
        }
        _ => None,
    }
}

//! Fan-out: deliveries to 1,000 WebSocket connections for each second of the server's processor.
//!
//! Ours goes the whole way: a real publisher's command, the log with its sync, the reply, the
//! event. The floor's publisher sends the finished event, and the floor passes it on. Each message,
//! or burst, is sent when the one before has arrived everywhere, so that nothing coalesces that was
//! not sent together.

use anyhow::{Result, ensure};

use super::{Setting, progress};
use crate::{
    load::{audit::Audit, generator::Generator, link::Heard, session, stream::Target},
    process::{Floor, Measured, Server},
    report::{Goal, Round, Row},
    sample, wire,
};

const SUBSCRIBERS: usize = 1_000;
const BURST: usize = 16;
/// Messages of a round, full effort.
const SINGLES: usize = 500;
const BURSTS: usize = 125;
const GOAL: Goal = Goal::RatioAtLeast(0.85);
/// The connection that publishes; those after it subscribe.
const PUBLISHER: usize = 0;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut floor = Side::floor(setting)?;
    let mut ours = Side::ours(setting)?;
    // What happens once (lazily loaded state, grown buffers, cold code) is not what is asked.
    for side in [&mut floor, &mut ours] {
        side.publish(setting.amount(50), 1)?;
        side.publish(setting.amount(25) * BURST, BURST)?;
    }
    let (mut singles, mut bursts) = (Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        for (messages, burst, rounds) in [
            (setting.amount(SINGLES), 1, &mut singles),
            (setting.amount(BURSTS) * BURST, BURST, &mut bursts),
        ] {
            let floor = floor.publish(messages, burst)?;
            let ours = ours.publish(messages, burst)?;
            progress(&format!(
                "fan-out, round {round}, {burst} at a time: {:.2} of the floor ({:.2} and {:.2} µs)",
                ours / floor,
                1e6 / floor,
                1e6 / ours,
            ));
            rounds.push(Round { floor: Some(floor), ours });
        }
    }
    let note = format!(
        "{SUBSCRIBERS} subscribers, texts of {} B; {:.0} B a delivery, the floor's {:.0} B; \
         {} deliveries audited",
        sample::FANOUT_TEXT_BYTES,
        ours.audit.bytes_per_delivery(),
        floor.audit.bytes_per_delivery(),
        ours.audit.deliveries() + floor.audit.deliveries(),
    );
    Ok(vec![
        Row::rate("fan-out, one at a time", "deliveries/CPU s", GOAL, singles).note(note),
        Row::rate("fan-out, bursts of 16", "deliveries/CPU s", GOAL, bursts),
    ])
}

/// One of the two that are compared, with its load.
struct Side {
    generator: Generator,
    audit: Audit,
    published: usize,
    /// How the publisher says it.
    message: Message,
    measured: Running,
}

enum Running {
    Floor(Floor),
    Ours(Box<Server>),
}

enum Message {
    /// The finished event; it has no reply.
    Finished,
    /// A command, with a reply.
    Command(chappe_protocol::ChannelId),
}

impl Message {
    fn frame(&self, number: usize) -> Vec<u8> {
        match self {
            Self::Finished => {
                let mut frame = Vec::new();
                wire::write_masked(wire::BINARY, &sample::event(number), &mut frame);
                frame
            }
            Self::Command(channel) => {
                let text = sample::text(number, sample::FANOUT_TEXT_BYTES);
                let nonce = Some(sample::nonce(number));
                session::frame(number as u32, nonce, sample::publish(*channel, text))
            }
        }
    }
}

impl Side {
    fn floor(setting: &Setting) -> Result<Self> {
        let floor = Floor::listening(&["websocket"], setting.cores)?;
        let mut generator = Generator::new(Target { addr: floor.addr, tls: None })?;
        generator.open(SUBSCRIBERS + 1, session::WINDOW, &mut |_| None, &mut |_, _| Ok(()))?;
        Ok(Self::new(generator, Message::Finished, Running::Floor(floor)))
    }

    fn ours(setting: &Setting) -> Result<Self> {
        let server = Server::start(&setting.chappe, &setting.dir, None, setting.cores)?;
        let mut generator = Generator::new(Target { addr: server.tcp, tls: None })?;
        session::sign_in(&mut generator, &server.signer, SUBSCRIBERS + 1)?;
        let channel = session::create_channel(&mut generator, PUBLISHER, "fanout")?;
        let subscribers = PUBLISHER + 1..generator.len();
        session::join(&mut generator, subscribers.clone(), channel)?;
        session::subscribe(&mut generator, subscribers, channel)?;
        Ok(Self::new(generator, Message::Command(channel), Running::Ours(Box::new(server))))
    }

    fn new(generator: Generator, message: Message, measured: Running) -> Self {
        Self { generator, audit: Audit::new(SUBSCRIBERS), published: 0, message, measured }
    }

    /// Publishes and gives the deliveries for each second of the server's processor.
    fn publish(&mut self, messages: usize, burst: usize) -> Result<f64> {
        let numbers = self.published..self.published + messages;
        let frames: Vec<_> = numbers.map(|number| self.message.frame(number)).collect();
        self.process().settle()?;
        let before = (self.process().cpu()?, self.audit.deliveries());
        for burst in frames.chunks(burst) {
            self.generator.send(PUBLISHER, &burst.concat())?;
            self.receive(burst.len())?;
        }
        self.process().settle()?;
        let deliveries = self.audit.deliveries() - before.1;
        let expected = (messages * SUBSCRIBERS) as u64;
        ensure!(deliveries == expected, "{deliveries} deliveries instead of {expected}");
        Ok(deliveries as f64 / self.process().cpu()?.since(&before.0))
    }

    /// Takes all deliveries and replies of the messages that were just sent.
    fn receive(&mut self, messages: usize) -> Result<()> {
        let delivered = self.audit.deliveries() + (messages * SUBSCRIBERS) as u64;
        let mut replies = match self.message {
            Message::Finished => 0,
            Message::Command(_) => messages,
        };
        while self.audit.deliveries() < delivered || replies > 0 {
            let Self { generator, audit, published, .. } = self;
            generator.turn(&mut |link, heard| match heard {
                Heard::Message(payload) if link == PUBLISHER => {
                    ensure!(session::is_ok(payload, *published as u32)?, "replies out of order");
                    *published += 1;
                    replies -= 1;
                    Ok(())
                }
                Heard::Message(payload) => audit.take(link - 1, payload),
                Heard::Upgraded => Ok(()),
            })?;
        }
        if matches!(self.message, Message::Finished) {
            self.published += messages;
        }
        Ok(())
    }

    const fn process(&self) -> &Measured {
        match &self.measured {
            Running::Floor(floor) => &floor.process,
            Running::Ours(server) => &server.process,
        }
    }
}

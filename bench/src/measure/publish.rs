//! Acknowledged durable publishes over 4 WebSocket connections with 64 in flight each, against bare
//! append and `fdatasync` of records of the size of their texts, in batches of the server's size.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chappe_protocol::{ChannelId, Rev, frame::OkFrame, reply::Change};

use super::{Setting, progress};
use crate::{
    floor::append::Appended,
    load::{generator::Generator, link::Heard, session, stream::Target},
    metrics,
    process::{self, Server},
    report::{Goal, Round, Row},
    sample,
};

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 64;
/// Seconds of a round, in tenths, full effort.
const ROUND_DECISECONDS: usize = 30;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.chappe, &setting.dir, None, setting.cores)?;
    let mut publishers = Publishers::connect(&server)?;
    let time = Duration::from_millis(100 * setting.amount(ROUND_DECISECONDS) as u64);
    publishers.publish(time / 5)?;
    let (mut rates, mut costs, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        server.process.settle()?;
        let before = (server.process.cpu()?, Commits::of(server.admin)?);
        let (acked, seconds) = publishers.publish(time)?;
        let used = server.process.cpu()?.since(&before.0);
        let batch = Commits::of(server.admin)?.batch_since(before.1);
        let floor = bare(setting, batch, time)?;
        let (floor, ours) = (floor.per_second(), acked as f64 / seconds);
        let cost = used * 1e6 / acked as f64;
        progress(&format!(
            "durable publish, round {round}: {:.2} of the floor ({floor:.0} and {ours:.0} a second, \
             {batch} a batch), {cost:.1} µs of CPU each",
            ours / floor,
        ));
        rates.push(Round { floor: Some(floor), ours });
        costs.push(Round { floor: None, ours: cost });
        batches.push(batch.to_string());
    }
    let rate = Row::rate("durable publish", "acked/s", Goal::RatioAtLeast(0.15), rates);
    let note = format!(
        "{CONNECTIONS} connections, {IN_FLIGHT} in flight each, texts of {} B, every \
         acknowledgement in order and without a gap; records in a batch by round: {}",
        sample::DURABLE_TEXT_BYTES,
        batches.join(", "),
    );
    Ok(vec![rate.note(note), Row::time("durable publish, CPU", "µs", Goal::None, costs)])
}

fn bare(setting: &Setting, batch: usize, time: Duration) -> Result<Appended> {
    let dir = setting.dir.to_string_lossy();
    let (bytes, batch) = (sample::DURABLE_TEXT_BYTES.to_string(), batch.to_string());
    let time = time.as_millis().to_string();
    let args =
        ["append", "--dir", &dir, "--record-bytes", &bytes, "--batch", &batch, "--ms", &time];
    Ok(process::floor(&args, setting.cores)?.1)
}

/// What the log has written, by the server's own count.
#[derive(Debug, Clone, Copy)]
struct Commits {
    records: f64,
    commits: f64,
}

impl Commits {
    fn of(admin: SocketAddr) -> Result<Self> {
        let text = metrics::fetch(admin)?;
        Ok(Self {
            records: metrics::sum(&text, "chappe_storage_log_records_total")?,
            commits: metrics::sum(&text, "chappe_storage_log_commits_total")?,
        })
    }

    fn batch_since(self, earlier: Self) -> usize {
        let commits = (self.commits - earlier.commits).max(1.0);
        ((self.records - earlier.records) / commits).round().max(1.0) as usize
    }
}

/// The connections, each with a channel of its own.
struct Publishers {
    generator: Generator,
    each: Vec<Publisher>,
}

struct Publisher {
    channel: ChannelId,
    sent: usize,
    acked: usize,
    last_rev: Rev,
    /// Publishes to send next, framed.
    frames: Vec<u8>,
}

impl Publishers {
    fn connect(server: &Server) -> Result<Self> {
        let mut generator = Generator::new(Target { addr: server.tcp, tls: None })?;
        session::sign_in(&mut generator, &server.signer, CONNECTIONS)?;
        let mut each = Vec::new();
        for link in 0..CONNECTIONS {
            let channel =
                session::create_channel(&mut generator, link, &format!("publish-{link}"))?;
            each.push(Publisher {
                channel,
                sent: 0,
                acked: 0,
                last_rev: Rev::ZERO,
                frames: Vec::new(),
            });
        }
        Ok(Self { generator, each })
    }

    /// Keeps all in flight for `time`, then takes what is still to come. Gives the acknowledgements
    /// within the time, and the time.
    fn publish(&mut self, time: Duration) -> Result<(usize, f64)> {
        let acked = |each: &[Publisher]| each.iter().map(|one| one.acked).sum::<usize>();
        let before = acked(&self.each);
        let start = Instant::now();
        for one in &mut self.each {
            (0..IN_FLIGHT).for_each(|_| one.say_next());
        }
        self.send()?;
        while start.elapsed() < time {
            self.turn(Publisher::say_next)?;
            self.send()?;
        }
        let (done, seconds) = (acked(&self.each) - before, start.elapsed().as_secs_f64());
        while self.each.iter().any(|one| one.acked < one.sent) {
            self.turn(|_| ())?;
        }
        Ok((done, seconds))
    }

    fn turn(&mut self, after_each: fn(&mut Publisher)) -> Result<()> {
        let Self { generator, each } = self;
        generator.turn(&mut |link, heard| {
            let Heard::Message(payload) = heard else { return Ok(()) };
            each[link].take(payload)?;
            after_each(&mut each[link]);
            Ok(())
        })
    }

    fn send(&mut self) -> Result<()> {
        for (link, one) in self.each.iter_mut().enumerate() {
            if !one.frames.is_empty() {
                self.generator.send(link, &one.frames)?;
                one.frames.clear();
            }
        }
        Ok(())
    }
}

impl Publisher {
    fn say_next(&mut self) {
        let text = sample::text(self.sent, sample::DURABLE_TEXT_BYTES);
        let nonce = Some(sample::nonce(self.sent));
        let publish = sample::publish(self.channel, text);
        self.frames.extend_from_slice(&session::frame(self.sent as u32, nonce, publish));
        self.sent += 1;
    }

    fn take(&mut self, payload: &[u8]) -> Result<()> {
        let Ok(OkFrame { id, ok }) = rmp_serde::from_slice::<OkFrame<Change>>(payload) else {
            ensure!(!session::is_ok(payload, self.acked as u32)?, "a reply of another kind");
            return Ok(());
        };
        ensure!(id == self.acked as u32, "reply {id} came instead of {}", self.acked);
        ensure!(
            self.acked == 0 || ok.rev == self.last_rev.next(),
            "revision {} does not follow {}",
            ok.rev,
            self.last_rev
        );
        self.last_rev = ok.rev;
        self.acked += 1;
        Ok(())
    }
}

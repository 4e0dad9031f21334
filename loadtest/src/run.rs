//! A run from its beginning to its verdict.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    args::RunArgs,
    audit::{Audit, Breach},
    environment::{Environment, MachineTime, thread_cpu},
    generator,
    ledger::{FLUSH_EVERY, Ledger, Line},
    measure::Measured,
    payload::{MessageId, Payload, Writer},
    plan::{Plan, Scenario},
    progress::Progress,
    readback::{self, ReadbackError},
    report::{Counts, Latencies, Report},
    setup::Crowd,
    user::Books,
    verdict::{self, Verdict},
};

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// How long is still listened when everything has come: what comes then came twice.
const LINGER: Duration = Duration::from_millis(500);

/// A run cannot be laid out as asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

struct Run {
    args: RunArgs,
    plan: Plan,
    books: Rc<Books>,
    progress: Rc<Progress>,
    interrupted: Rc<Cell<bool>>,
}

/// What publishing took.
struct Published {
    seconds: f64,
    /// Part of one processor.
    cpu: f64,
    /// Part of the machine that its host withheld.
    stolen: Option<f64>,
}

/// Runs a scenario, prints its report and gives its exit code.
pub(crate) async fn run(scenario: Scenario, args: RunArgs) -> Result<u8> {
    let plan = Plan::new(scenario, &args).map_err(Usage)?;
    let interrupted = Rc::new(Cell::new(false));
    let watch = tokio::task::spawn_local(watch_interrupts(Rc::clone(&interrupted)));
    let books = Rc::new(new_books(&args, &plan)?);
    let run = Run { args, plan, books, progress: Rc::new(Progress::new()), interrupted };
    let report = run.go().await?;
    watch.abort();
    print!("{}", report.text());
    if let Some(path) = &run.args.json {
        report.write_json(path)?;
    }
    Ok(report.exit_code)
}

/// The first interrupt ends the publishing, the second the process.
async fn watch_interrupts(interrupted: Rc<Cell<bool>>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if interrupted.replace(true) {
            std::process::exit(130);
        }
    }
}

fn new_books(args: &RunArgs, plan: &Plan) -> Result<Books> {
    let run = getrandom::u64().map_err(|error| anyhow!("no randomness: {error}"))?;
    let ledger = match &args.ledger {
        Some(path) => Some(
            Ledger::append(path)
                .with_context(|| format!("cannot write the ledger {}", path.display()))?,
        ),
        None => None,
    };
    Ok(Books {
        run,
        writer: Writer::new(run, args.payload),
        start: Cell::new(Instant::now()),
        measure_from_ns: args.warm_up.as_nanos() as u64,
        audit: RefCell::new(Audit::new(plan.follows.len(), plan.members.len())),
        measured: RefCell::new(Measured::new()),
        ledger: RefCell::new(ledger),
        ledger_failure: RefCell::new(None),
        unanswered: Cell::new(0),
    })
}

impl Run {
    async fn go(&self) -> Result<Report> {
        let mut crowd = Crowd::sign_in(&self.args, &self.plan, &self.books, &self.progress).await?;
        crowd.make_channels(&self.plan, &self.progress).await?;
        crowd.subscribe(&self.plan, &self.progress).await?;
        self.begin_ledger(&crowd);
        let published = self.publish(&crowd).await?;
        self.settle().await;
        let channels = crowd.channels.clone();
        crowd.leave().await;
        self.books.flush_ledger();
        if self.args.verify {
            self.verify(&channels).await?;
        }
        self.progress.end();
        if let Some(error) = self.books.ledger_failure.borrow_mut().take() {
            bail!("the ledger could not be written: {error}");
        }
        Ok(self.report(&published))
    }

    fn begin_ledger(&self, crowd: &Crowd) {
        let scenario = self.plan.scenario.name().to_owned();
        self.books.note(&Line::Run { run: self.books.run, scenario, seed: self.plan.seed });
        for channel in self.plan.channels() {
            if let Some(id) = crowd.channels[channel as usize] {
                let member = self.plan.members[channel as usize][0];
                self.books.note(&Line::Channel { channel: id, member });
            }
        }
    }

    async fn publish(&self, crowd: &Crowd) -> Result<Published> {
        let (cpu_before, begun) = (thread_cpu(), Instant::now());
        let machine = MachineTime::now();
        self.books.start.set(begun);
        let duration = self.args.duration;
        let generate =
            generator::publish(&self.plan, crowd, &self.books, &self.interrupted, duration);
        self.while_showing(generate).await?;
        let took = begun.elapsed();
        let cpu = (thread_cpu() - cpu_before).as_secs_f64() / took.as_secs_f64();
        let stolen =
            machine.zip(MachineTime::now()).map(|(before, after)| after.stolen_since(before));
        Ok(Published { seconds: took.as_secs_f64(), cpu, stolen })
    }

    /// Waits for what is under way, also after an interrupt: what was cut short would look lost. A
    /// second interrupt ends the process. And a little longer for what ought not to come.
    async fn settle(&self) {
        let most = self.args.settle;
        let settled = async {
            while self.books.unanswered.get() > 0 || self.books.audit.borrow().outstanding() > 0 {
                sleep(FLUSH_EVERY).await;
            }
            sleep(LINGER).await;
        };
        // What did not come in time is the audit's to name.
        let _ = self.while_showing(tokio::time::timeout(most, settled)).await;
    }

    async fn while_showing<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let (mut show, mut flush) = (interval(SHOW_EVERY), interval(FLUSH_EVERY));
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = show.tick() => self.progress.show(|| self.line()),
                _ = flush.tick() => self.books.flush_ledger(),
            }
        }
    }

    fn line(&self) -> String {
        let measured = self.books.measured.borrow();
        let milliseconds =
            |percent: f64| measured.delivery.percentile(percent).as_secs_f64() * 1_000.0;
        format!(
            "{:5.1} s  sent {}  acked {}  delivered {}  outstanding {}  p50 {:.2} ms  p99 {:.2} ms  \
             reconnects {}",
            self.books.start.get().elapsed().as_secs_f64(),
            measured.sent,
            measured.acked,
            measured.deliveries,
            self.books.audit.borrow().outstanding(),
            milliseconds(50.0),
            milliseconds(99.0),
            measured.reconnects,
        )
    }

    /// Compares the history of every channel with what was acknowledged.
    async fn verify(&self, channels: &[Option<chappe_protocol::ChannelId>]) -> Result<()> {
        let tokens = self.args.reach.tokens()?;
        self.progress.begin("reading back", self.plan.channels().count() as u64);
        for channel in self.plan.channels() {
            let Some(id) = channels[channel as usize] else { continue };
            let member = self.plan.user_name(self.plan.members[channel as usize][0]);
            let client =
                readback::sign_in(&self.args.reach, &tokens, &member, self.args.deadline).await?;
            let read = readback::messages(&client, id).await;
            client.close().await;
            let mut audit = self.books.audit.borrow_mut();
            match read {
                Ok(messages) => {
                    let found: HashMap<u64, MessageId> = messages
                        .iter()
                        .filter_map(|message| {
                            let payload = Payload::read(message.data.as_ref())?;
                            let own = payload.run == self.books.run;
                            own.then_some((message.rev.get(), payload.id))
                        })
                        .collect();
                    audit.handle_history(channel, &found);
                }
                Err(ReadbackError::Broken(words)) => {
                    audit.find(Breach::NotInHistory, || words);
                }
                Err(ReadbackError::Refused(error)) => return Err(error.into()),
            }
            self.progress.step();
        }
        Ok(())
    }

    fn report(&self, published: &Published) -> Report {
        let args = &self.args;
        let measured = self.books.measured.borrow();
        let findings = self.books.audit.replace(Audit::new(0, 0)).close();
        let interrupted = self.interrupted.get();
        let planned = if interrupted {
            measured.sent + measured.withheld
        } else {
            self.plan.schedule().count() as u64
        };
        let limits = verdict::limits(&measured, planned, published.cpu, args.lag_max);
        let check =
            |threshold: &crate::threshold::Threshold| threshold.check(&measured, published.seconds);
        let thresholds: Vec<_> = args.thresholds.iter().map(check).collect();
        let verdict = Verdict::of(&findings, &limits, &thresholds);
        Report {
            scenario: self.plan.scenario.name(),
            urls: args.reach.urls.clone(),
            seed: args.seed,
            run: self.books.run,
            users: args.users,
            channels: args.channels,
            rate_per_s: args.rate.0,
            payload_bytes: args.payload,
            seconds: published.seconds,
            interrupted,
            environment: Environment::here(),
            counts: Counts::of(&measured, planned),
            latency: Latencies::of(&measured),
            audit: findings,
            generator_cpu: published.cpu,
            stolen_cpu: published.stolen,
            limits,
            thresholds,
            verdict,
            exit_code: verdict.exit_code(),
        }
    }
}

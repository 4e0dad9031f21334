//! `chappe log adopt`: says what has become of a log, asks, and takes it over as it is.

use std::io::{BufRead, IsTerminal, Write, stdin};

use anyhow::anyhow;
use chappe_broker::adoption::{self, Plan};
use tokio::runtime;

use super::{Failure, export::lock};
use crate::{
    args::migration::Adopt,
    config::{Config, cluster::LogKind},
    serve::{backends, broker},
    telemetry,
};

pub(super) fn run(args: &Adopt) -> Result<(), Failure> {
    let config = Config::for_migration(&args.place).map_err(|e| Failure::Usage(e.into()))?;
    telemetry::start(&config.telemetry)?;
    let is_there = config.data.join("store").exists();
    if config.log.kind == LogKind::Segment && !is_there {
        return Err(anyhow!("{}: there is no store to adopt for", config.data.display()).into());
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work(args, &config))
}

async fn work(args: &Adopt, config: &Config) -> Result<(), Failure> {
    let data = lock(&config.data)?;
    backends::alone(config).await?;
    let (log, store) = backends::unjudged(config, &data).await?;
    let plan = adoption::inspect(&log, &store).await.map_err(anyhow::Error::from)?;
    if plan.is_sound() {
        println!("the log is the store's: there is nothing to adopt");
        return Ok(());
    }
    describe(&plan);
    if !args.yes {
        agree()?;
    }
    let work = async {
        adoption::begin(&store, &plan).await?;
        eprintln!("begun: a server refuses to start until this is done");
        let recorded = adoption::record(&log, &plan).await?;
        adoption::place(&store, &plan, &recorded).await?;
        eprintln!("recorded: the log is of the new incarnation");
        let running = broker::start_adopting(config, log, &store, &plan.adoption).await?;
        let (broker, running) = running;
        let patience = config.broker.wait;
        let waited = adoption::wait((&broker, &running), &store, &plan.adoption, patience).await;
        // Whoever leads next need not wait for this process, whatever came of it.
        running.leave().await;
        tokio::task::spawn_blocking(move || running.stop()).await?;
        waited?;
        eprintln!("stored: nothing in the log waits to be projected");
        adoption::settle(&store, &plan).await?;
        anyhow::Ok(())
    };
    work.await?;
    let incarnation = plan.adoption.assignment().incarnation;
    println!("adopted as incarnation {incarnation}; start the server on it");
    Ok(())
}

/// Says what was found, and what is going to happen.
fn describe(plan: &Plan) {
    if plan.goes_on() {
        println!("an adoption was begun and cut off: it is made anew");
    }
    let sound = plan.found.iter().filter(|found| found.is_sound()).count();
    for found in plan.found.iter().filter(|found| !found.is_sound()) {
        println!("{found}");
    }
    if sound > 0 {
        println!("{sound} partitions are as the store knows them");
    }
    let next = plan.adoption.assignment();
    println!(
        "The log of incarnation {} becomes lineage {}, incarnation {}. Nothing in the store is \
         undone. Clients get `reset` and read anew; what was acknowledged and is neither in the \
         store nor in the log is lost.",
        plan.now, next.lineage, next.incarnation
    );
    if plan.ends_export() {
        println!("The export that is under way is given up.");
    }
}

/// Asks on a terminal.
fn agree() -> Result<(), Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::Usage(anyhow!("nobody to ask: --yes does it without")));
    }
    print!("Take it over? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was changed").into()),
    }
}

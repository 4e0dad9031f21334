//! `chappe import`: reads an exported folder into a new log and store, or compares the two.

use anyhow::anyhow;
use chappe_migration::{Begun, Importer, Verdict, verify};
use tokio::runtime;

use super::{
    Failure,
    export::{lock, tell},
};
use crate::{args::migration::Import, config::Config, serve::backends, telemetry};

pub(super) fn run(args: &Import) -> Result<(), Failure> {
    let config = Config::for_migration(&args.place).map_err(|e| Failure::Usage(e.into()))?;
    telemetry::start(&config.telemetry)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(work(args, &config))?)
}

async fn work(args: &Import, config: &Config) -> anyhow::Result<()> {
    let data = lock(&config.data)?;
    let scratch = data.join("migration");
    let store = backends::store(config, &data).await?;
    if args.verify {
        std::fs::create_dir_all(&scratch)?;
        let verdict = verify(&store, &args.from, &scratch, &mut tell).await?;
        drop(std::fs::remove_dir(scratch));
        return judge(&verdict);
    }
    let partitions = config.log.partitions;
    let begun = Importer::begin(store, &args.from, &scratch, partitions, &mut tell).await?;
    let Begun::Now(importer) = begun else {
        println!("this export was imported before, to the end");
        return Ok(());
    };
    let layout = (args.replicas, args.min_insync);
    let log = backends::new_log(config, &data, importer.import(), layout).await?;
    let incarnation = importer.import().incarnation().0;
    let verdict = importer.run(&log, &mut tell).await?;
    drop(std::fs::remove_dir(scratch));
    judge(&verdict)?;
    println!("imported as incarnation {incarnation}; start the server on it");
    Ok(())
}

/// Says what differs, line by line.
fn judge(verdict: &Verdict) -> anyhow::Result<()> {
    let Verdict { rows, channels, differences, more } = verdict;
    for difference in differences {
        println!("{difference}");
    }
    if *more > 0 {
        println!("and {more} channels more");
    }
    if !verdict.is_same() {
        return Err(anyhow!("it is not what was exported"));
    }
    println!("{rows} rows of {channels} channels and inboxes are as they were exported");
    Ok(())
}

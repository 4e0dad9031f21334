//! `chappe export`: brings a log to a standstill and writes everything into a folder.

use std::{path::Path, sync::Arc};

use anyhow::anyhow;
use chappe_broker::Running;
use chappe_migration::{Exporter, Progress, open, seal};
use chappe_storage::store::Store;
use tokio::runtime;

use super::Failure;
use crate::{
    args::migration::Export,
    config::{Config, cluster::LogKind},
    data_dir::{DataDir, DataDirError},
    serve::{backends, broker},
    telemetry,
};

pub(super) fn run(args: &Export) -> Result<(), Failure> {
    let config = Config::for_migration(&args.place).map_err(|e| Failure::Usage(e.into()))?;
    telemetry::start(&config.telemetry)?;
    let is_there = config.data.join("store").exists();
    if config.log.kind == LogKind::Segment && !is_there {
        return Err(anyhow!("{}: there is no data to export", config.data.display()).into());
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(work(args, &config))?)
}

async fn work(args: &Export, config: &Config) -> anyhow::Result<()> {
    let data = lock(&config.data)?;
    // It leads everything itself; beside brokers it would take their partitions and get no further.
    backends::alone(config).await?;
    let (running, store) = broker::start_alone(config, &data).await?;
    let sealed = bring(args, config, &running, &store).await;
    // Whoever leads next need not wait for this process, whatever came of it.
    running.leave().await;
    tokio::task::spawn_blocking(move || running.stop()).await?;
    sealed?;
    let Some(folder) = &args.to else { return Ok(()) };
    let exporter = Exporter::new(store, folder, args.file_size.as_u64());
    let manifest = exporter.run(&mut tell).await?;
    println!(
        "exported {} rows of {} channels and inboxes to {folder}\n\
         next: `chappe import --from {folder}` into a new log and store; \
         `chappe export --abort` opens this one again",
        manifest.rows,
        manifest.channels,
        folder = folder.display(),
    );
    Ok(())
}

/// Seals everything, or opens it.
async fn bring(
    args: &Export,
    config: &Config,
    running: &Running,
    store: &Arc<dyn Store>,
) -> anyhow::Result<()> {
    let patience = config.broker.wait;
    if args.abort {
        open(running, store, patience, &mut tell).await?;
        println!("the export is given up: changes are taken again");
        return Ok(());
    }
    seal(running, store, patience, &mut tell).await?;
    Ok(())
}

/// The data directory, which no server may be using.
pub(super) fn lock(path: &Path) -> anyhow::Result<DataDir> {
    DataDir::open(path).map_err(|error| match error {
        DataDirError::Locked { .. } => anyhow!("{error}: stop the server first"),
        error => error.into(),
    })
}

/// Says on standard error how far it is.
pub(super) fn tell(progress: Progress) {
    eprintln!("{progress}");
}

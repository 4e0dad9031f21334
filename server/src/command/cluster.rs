//! `chappe log`, `chappe schema` and `chappe blobs`: make and check what a cluster stands on.

use anyhow::{Context, anyhow};
use chappe_storage::{
    log::kafka::{self, Genesis, Layout, Severity},
    store::scylla::{self, Replication},
};

use super::Failure;
use crate::{
    args::{BlobsAction, LogAction, SchemaAction},
    config::Config,
    dependencies::servers,
    serve::backends::clustered,
};

/// Makes or checks the log's topic.
pub(super) async fn log(action: LogAction) -> Result<(), Failure> {
    match action {
        LogAction::Adopt(_) => unreachable!("it is not of clusters alone"),
        LogAction::Create { config, replicas, min_insync } => {
            let config = load(config.as_deref())?;
            Ok(create(&config, Layout { replicas, min_insync }).await?)
        }
        LogAction::Check { config } => {
            let config = load(config.as_deref())?;
            Ok(check(&config).await?)
        }
    }
}

/// Makes the bucket of files.
pub(super) async fn blobs(action: BlobsAction) -> Result<(), Failure> {
    let BlobsAction::Create { config } = action;
    let config = load(config.as_deref())?;
    let made = servers::s3(&config)?.make_bucket().await;
    made.map_err(anyhow::Error::from)?;
    println!("bucket {} is there", config.blobs.bucket.unwrap_or_default());
    Ok(())
}

/// Makes or checks the store's tables.
pub(super) async fn schema(action: SchemaAction) -> Result<(), Failure> {
    match action {
        SchemaAction::Apply { config, replicas } => {
            let options = clustered::scylla(&load(config.as_deref())?);
            let replication = replicas.map(Replication::Everywhere);
            let made = scylla::apply(&options, replication.as_ref()).await;
            let made = made.map_err(anyhow::Error::from)?;
            for change in &made {
                println!("{change}");
            }
            let keyspace = &options.keyspace;
            println!("keyspace {keyspace} is as it must be ({} changes)", made.len());
            Ok(())
        }
        SchemaAction::Check { config } => {
            let options = clustered::scylla(&load(config.as_deref())?);
            let differences = scylla::check(&options).await.map_err(anyhow::Error::from)?;
            for difference in &differences {
                println!("{difference}");
            }
            let keyspace = &options.keyspace;
            if differences.iter().any(scylla::Difference::is_required) {
                return Err(anyhow!("keyspace {keyspace}: run `chappe schema apply`").into());
            }
            println!("keyspace {keyspace} can be used");
            Ok(())
        }
    }
}

/// Makes the topic and the row in the store that ties them together.
async fn create(config: &Config, layout: Layout) -> anyhow::Result<()> {
    let kafka = clustered::kafka(config)?;
    let partitions = kafka.partitions;
    let is_genesis = move |record: &[u8]| chappe_broker::is_genesis(record, partitions);
    let genesis = Genesis { record: chappe_broker::genesis(partitions), is_genesis: &is_genesis };
    let created = kafka::create(&kafka, layout, &genesis).await?;
    let log = clustered::log(&kafka).await?;
    let store = clustered::store(clustered::scylla(config))?;
    let incarnation = chappe_broker::create(log, store)
        .await
        .context("the topic is made, but not tied to the store")?;
    println!(
        "topic {} has {partitions} partitions ({} begun now), incarnation {}",
        kafka.topic, created.begun, incarnation.0
    );
    Ok(())
}

async fn check(config: &Config) -> anyhow::Result<()> {
    let kafka = clustered::kafka(config)?;
    let findings = kafka::check(&kafka).await?;
    for finding in &findings {
        let mark = if finding.severity == Severity::Refuse { "BAD " } else { "warn" };
        println!("{mark} {finding}");
    }
    if findings.iter().any(|finding| finding.severity == Severity::Refuse) {
        return Err(anyhow!("topic {} cannot be used", kafka.topic));
    }
    println!("topic {} can be used", kafka.topic);
    Ok(())
}

fn load(file: Option<&std::path::Path>) -> Result<Config, Failure> {
    Config::load_for_tools(file).map_err(|error| Failure::Usage(error.into()))
}

//! The servers that the configuration names, and whether they can be used now: asked by
//! `chappe doctor` and by the admin listener. Nothing else depends on the answer, and readiness
//! least of all.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use chappe_storage::blobs::{BlobId, Blobs, Expected, files::FileBlobs};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::{
    Config,
    cluster::{BlobsKind, LogKind, PresenceKind, StoreKind},
};

/// What became of trying one.
#[derive(Debug, Serialize)]
pub(crate) struct Tried {
    /// `log`, `store`, `presence` or `blobs`: the section of the configuration that names it.
    pub(crate) section: &'static str,
    /// Which server, or what else stands there.
    pub(crate) place: String,
    /// How long it took.
    pub(crate) ms: u64,
    /// Why it cannot be used; absent when it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Tries all at once, each for a bounded time and boxed, as they are large. Blobs are tried where they are open, or on a bucket.
pub(crate) async fn try_all(config: &Config, blobs: Option<Arc<dyn Blobs>>) -> Vec<Tried> {
    let log = config.log.brokers.join(",");
    let log = (config.log.kind == LogKind::Kafka && !log.is_empty()).then_some(log);
    let store = config.store.nodes.join(",");
    let store = (config.store.kind == StoreKind::Scylla && !store.is_empty()).then_some(store);
    let presence = config.presence.url.as_ref().filter(|_| {
        config.presence.kind == PresenceKind::Redis // what it says else is not used
    });
    let presence = presence.map(|url| without_password(url.reveal()));
    let bucket = config.blobs.kind == BlobsKind::S3;
    let place = if bucket { bucket_name(config) } else { "files".to_owned() };
    let place = (bucket || blobs.is_some()).then_some(place);
    let (log, store, presence, blobs) = tokio::join!(
        attempt("log", log, Box::pin(servers::try_log(config))),
        attempt("store", store, Box::pin(servers::try_store(config))),
        attempt("presence", presence, Box::pin(servers::try_presence(config))),
        attempt(
            "blobs",
            place,
            Box::pin(async {
                let blobs = match blobs {
                    Some(blobs) => blobs,
                    None => open_blobs(config, Path::new("")).await?,
                };
                // By itself: given up in the middle, it would leave the object behind.
                tokio::spawn(async move { try_blobs(&*blobs).await }).await?
            })
        ),
    );
    [log, store, presence, blobs].into_iter().flatten().collect()
}

/// Opens the store of files that the configuration names. A server that is gone keeps nobody from
/// it: it is not asked.
pub(crate) async fn open_blobs(config: &Config, data: &Path) -> anyhow::Result<Arc<dyn Blobs>> {
    if config.blobs.kind == BlobsKind::S3 {
        return servers::bucket(config);
    }
    let folder = data.join("blobs");
    let opened = tokio::task::spawn_blocking(move || {
        let blobs = FileBlobs::open(&folder);
        blobs.with_context(|| format!("cannot open the blobs in {}", folder.display()))
    });
    Ok(Arc::new(opened.await??))
}

async fn attempt(
    section: &'static str,
    place: Option<String>,
    trying: impl Future<Output = anyhow::Result<()>>,
) -> Option<Tried> {
    let place = place?;
    let started = Instant::now();
    let tried = tokio::time::timeout(TIMEOUT, trying).await;
    let tried = tried.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {TIMEOUT:?}")));
    let error = tried.err().map(|error| format!("{error:#}"));
    Some(Tried { section, place, ms: started.elapsed().as_millis() as u64, error })
}

/// Puts a small object, reads a range of it, and deletes it.
async fn try_blobs(blobs: &dyn Blobs) -> anyhow::Result<()> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("{error}"))?;
    let id = BlobId::from_random(u128::from_le_bytes(random));
    let content: Vec<u8> = (0..PROBE_BYTES).map(|at| random[at % 16] ^ at as u8).collect();
    let content = Bytes::from(content);
    let sha256 = Sha256::digest(&content).into();
    let mut upload =
        blobs.upload(id.clone(), Expected { bytes: PROBE_BYTES as u64, sha256 }).await?;
    upload.write(content.clone()).await?;
    upload.finish().await?;
    let read = blobs.read(&id, 100..200).await;
    // Also when it could not be read: nothing is to be left behind.
    blobs.delete(&id).await?;
    anyhow::ensure!(read? == content[100..200], "what was read is not what was stored");
    Ok(())
}

fn bucket_name(config: &Config) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&config.blobs.url).trim_end_matches('/'), part(&config.blobs.bucket))
}

/// An address without who asks there.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// Longer than any of the servers' own limits for a call that moves little.
const TIMEOUT: Duration = Duration::from_secs(15);
const PROBE_BYTES: usize = 1_024;

#[cfg(feature = "clustered")]
pub(crate) mod servers {
    use anyhow::anyhow;
    use chappe_storage::{
        blobs::s3::{S3Blobs, S3Limits, S3Options},
        log::kafka::{self, Severity},
        presence::redis::{RedisOptions, RedisPresence},
        store::scylla::{self, Difference},
    };

    use super::*;
    use crate::serve::backends::clustered;

    /// The topic is there, and as it must be.
    pub(super) async fn try_log(config: &Config) -> anyhow::Result<()> {
        let findings = kafka::check(&clustered::kafka(config)?).await?;
        let refused = findings.iter().filter(|finding| finding.severity == Severity::Refuse);
        none(refused.map(ToString::to_string).collect())
    }

    /// The tables are there, and as they must be.
    pub(super) async fn try_store(config: &Config) -> anyhow::Result<()> {
        let differences = scylla::check(&clustered::scylla(config)).await?;
        let required = differences.iter().filter(|one| Difference::is_required(one));
        none(required.map(ToString::to_string).collect())
    }

    pub(super) async fn try_presence(config: &Config) -> anyhow::Result<()> {
        let url = config.presence.url.as_ref().context("presence.url")?;
        let redis = RedisPresence::new(RedisOptions::at(url.reveal())).context("presence.url")?;
        Ok(redis.check().await?)
    }

    pub(super) fn bucket(config: &Config) -> anyhow::Result<Arc<dyn Blobs>> {
        Ok(Arc::new(s3(config)?))
    }

    /// The bucket, which is not looked at.
    pub(crate) fn s3(config: &Config) -> anyhow::Result<S3Blobs> {
        let blobs = &config.blobs;
        let given = |name: &str, value: Option<&str>| {
            value.map(str::to_owned).ok_or_else(|| anyhow!("blobs.{name} is not set"))
        };
        let options = S3Options {
            url: given("url", blobs.url.as_deref())?,
            region: blobs.region.clone(),
            bucket: given("bucket", blobs.bucket.as_deref())?,
            prefix: String::new(),
            access_key: given("access_key", blobs.access_key.as_ref().map(|key| key.reveal()))?,
            secret_key: given("secret_key", blobs.secret_key.as_ref().map(|key| key.reveal()))?,
            limits: S3Limits::default(),
        };
        S3Blobs::new(options).context("blobs")
    }

    fn none(refused: Vec<String>) -> anyhow::Result<()> {
        anyhow::ensure!(refused.is_empty(), "{}", refused.join("; "));
        Ok(())
    }
}

#[cfg(not(feature = "clustered"))]
mod servers {
    use super::*;

    pub(super) async fn try_log(_: &Config) -> anyhow::Result<()> {
        absent()
    }

    pub(super) async fn try_store(_: &Config) -> anyhow::Result<()> {
        absent()
    }

    pub(super) async fn try_presence(_: &Config) -> anyhow::Result<()> {
        absent()
    }

    pub(super) fn bucket(_: &Config) -> anyhow::Result<Arc<dyn Blobs>> {
        absent()
    }

    fn absent<T>() -> anyhow::Result<T> {
        anyhow::bail!(
            "this build has no backends on other servers: it was made without `clustered`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_does_not_show_a_password() {
        assert_eq!(without_password("redis://chappe:ses@me@r:6379/1"), "redis://r:6379/1");
        assert_eq!(without_password("redis://r:6379"), "redis://r:6379");
    }

    #[tokio::test]
    async fn files_are_put_read_and_deleted_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default();
        let blobs = open_blobs(&config, folder.path()).await.unwrap();
        let tried = try_all(&config, Some(Arc::clone(&blobs))).await;
        assert_eq!(tried.len(), 1, "{tried:?}");
        assert_eq!((tried[0].section, &tried[0].error), ("blobs", &None));
        let left: Vec<_> = std::fs::read_dir(folder.path().join("blobs")).unwrap().collect();
        let names = left.iter().map(|entry| entry.as_ref().unwrap().file_name());
        let blobs: Vec<_> = names.filter(|name| name.len() == 2).collect();
        for name in blobs {
            let inner = std::fs::read_dir(folder.path().join("blobs").join(name)).unwrap();
            for entry in inner {
                let files = std::fs::read_dir(entry.unwrap().path()).unwrap().count();
                assert_eq!(files, 0);
            }
        }
        // Another process may not have them too.
        assert!(open_blobs(&config, folder.path()).await.is_err());
    }
}

//! Tests against real Kafka nodes, three of them: `CHAPPE_TEST_KAFKA` says where.

mod conformance;
mod faults;
mod log;
mod preflight;
pub(crate) mod relay;
mod security;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::connection::{Connection, Voice};
use super::{KafkaConfig, KafkaLog};

/// What the environment says.
pub(crate) fn var(name: &str) -> String {
    let value = std::env::var(name);
    value
        .unwrap_or_else(|_| panic!("{name} is not set: `make services` starts what the tests need"))
}

/// The nodes under test, plain.
pub(crate) fn cluster() -> Connection {
    Connection::to(&var("CHAPPE_TEST_KAFKA"))
}

/// A name that nobody else uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{prefix}-{now:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Held by a test that needs all nodes to be well. Once a test: whoever asks twice may wait for a
/// test that waits for him.
pub(crate) async fn calm() -> RwLockReadGuard<'static, ()> {
    NODES.read().await
}

/// Held by a test that kills nodes.
pub(crate) async fn storm() -> RwLockWriteGuard<'static, ()> {
    NODES.write().await
}

static NODES: RwLock<()> = RwLock::const_new(());

/// A topic of a test, gone at its end.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    _calm: Option<RwLockReadGuard<'static, ()>>,
}

impl Topic {
    /// For a test that has one, and needs all nodes to be well.
    pub(crate) async fn new(partitions: u32) -> Self {
        let calm = calm().await;
        let mut topic =
            Self::with(partitions, 3, &[("message.timestamp.type", "LogAppendTime")]).await;
        topic._calm = Some(calm);
        topic
    }

    pub(crate) async fn with(partitions: u32, replicas: i32, settings: &[(&str, &str)]) -> Self {
        let this = Self::named(partitions);
        let replication = TopicReplication::Fixed(replicas);
        let mut topic = NewTopic::new(&this.name, partitions as i32, replication);
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = admin().create_topics([&topic], &options()).await.unwrap();
        made.into_iter().for_each(|made| assert!(made.is_ok(), "{made:?}"));
        // Every node must have heard of it before any is asked.
        for _ in 0..200 {
            match KafkaLog::open(this.config()).await {
                Ok(_) => return this,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("the topic does not appear");
    }

    /// A topic that somebody else makes.
    pub(crate) fn named(partitions: u32) -> Self {
        Self { name: unique("chappe-test"), partitions, _calm: None }
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig::new(cluster(), &self.name, self.partitions)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let name = self.name.clone();
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            // Deleting what is not there is no failure, and a failed test should say its own.
            runtime.block_on(admin().delete_topics(&[&name], &options())).ok();
        };
        std::thread::spawn(delete).join().ok();
    }
}

pub(crate) fn admin() -> AdminClient<Voice> {
    cluster().client().create_with_context(Voice::default()).unwrap()
}

pub(crate) fn options() -> AdminOptions {
    let patience = Some(Duration::from_secs(30));
    AdminOptions::new().request_timeout(patience).operation_timeout(patience)
}

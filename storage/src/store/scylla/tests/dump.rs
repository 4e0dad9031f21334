//! Whole tables, each test in a keyspace of its own, as it sees every row that is there.

use super::*;
use crate::servers::unique;

/// A keyspace that goes when the test has ended.
struct OwnKeyspace(String);

impl OwnKeyspace {
    fn options(&self) -> ScyllaOptions {
        ScyllaOptions { keyspace: self.0.clone(), ..options() }
    }
}

impl Subject for OwnKeyspace {
    type Store = ScyllaStore;

    async fn new() -> Self {
        let own = Self(format!("chappe_dump_{}", unique()));
        apply(&own.options(), Some(&Replication::Everywhere(1))).await.unwrap();
        own
    }

    async fn open(&self) -> ScyllaStore {
        ScyllaStore::new(self.options()).unwrap()
    }
}

impl Drop for OwnKeyspace {
    fn drop(&mut self) {
        let text = format!("DROP KEYSPACE {}", self.0);
        let drop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { cql(&session().await, &text).await });
        });
        drop.join().ok(); // what stays is in nobody's way
    }
}

crate::store_dump_conformance!(OwnKeyspace);

//! What the CQL backend adds to the port's promises: its tables and their versions, stamps as the
//! servers decide by them, answers that are lost, a cluster that goes and comes back, TLS.

mod apart;
mod dump;
mod faults;
mod rows;
mod schema;
mod tls;

use std::time::Duration;

use proptest::prelude::*;
use scylla::client::session::Session;
use tokio::sync::OnceCell;

use super::*;
use crate::servers::given;
use crate::store::conformance::{self, Subject};
use apart::Apart;

/// A place of its own in the one keyspace that all tests share: creating one takes a second.
struct ScyllaSubject {
    mask: u64,
}

impl Subject for ScyllaSubject {
    type Store = Apart;

    async fn new() -> Self {
        shared_keyspace().await;
        Self { mask: getrandom::u64().unwrap() }
    }

    async fn open(&self) -> Apart {
        Apart::new(ScyllaStore::new(options()).unwrap(), self.mask)
    }
}

crate::store_conformance!(ScyllaSubject);

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn a_store_answers_as_its_model(operations in conformance::random::operations(40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let subject = ScyllaSubject::new().await;
            conformance::a_store_answers_as_its_model(subject, operations).await;
        });
    }
}

/// The given cluster, with times that are long enough for a machine that is busy.
fn options() -> ScyllaOptions {
    let nodes = given("CQL");
    ScyllaOptions {
        keyspace: keyspace(),
        login: login(),
        request: Duration::from_secs(20),
        call: Duration::from_secs(60),
        ..ScyllaOptions::at(nodes.split(','))
    }
}

/// Whoever tests against a cluster without users sets none.
fn login() -> Option<ScyllaLogin> {
    let user = std::env::var("CHAPPE_TEST_CQL_USER").ok()?;
    Some(ScyllaLogin { user, password: given("CQL_PASSWORD") })
}

/// Named after what its tables are: another schema gets another one.
fn keyspace() -> String {
    let text = super::schema::steps("").into_iter().map(|step| step.statement).collect::<String>();
    format!("chappe_test_{:08x}", crc32c::crc32c(text.as_bytes()))
}

/// Makes the shared keyspace, as any number of test processes may at once.
async fn shared_keyspace() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = || async {
        apply(&options(), Some(&Replication::Everywhere(1))).await.unwrap();
    };
    MADE.get_or_init(make).await;
}

/// A session of the tests' own.
async fn session() -> Session {
    link::connect(&options().session().unwrap()).await.unwrap()
}

async fn cql(session: &Session, text: &str) -> scylla::response::query_result::QueryResult {
    let mut statement = scylla::statement::unprepared::Statement::new(text);
    statement.set_request_timeout(Some(Duration::from_secs(30)));
    session.query_unpaged(statement, ()).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

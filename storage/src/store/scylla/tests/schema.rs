//! The schema: created by several at once, checked, mended.

use super::super::check::Difference as Is;
use super::super::schema::tables;
use super::*;
use crate::servers::unique;

/// A keyspace of a test's own, which is not there yet.
fn own() -> ScyllaOptions {
    ScyllaOptions { keyspace: format!("chappe_test_{}", unique()), ..options() }
}

async fn differences(options: &ScyllaOptions) -> Vec<Is> {
    check(options).await.unwrap()
}

#[tokio::test]
async fn several_processes_create_the_schema_at_once_and_it_is_made_once() {
    let options = own();
    assert_eq!(differences(&options).await, [Is::Keyspace]);
    let refused = apply(&options, None).await;
    assert_eq!(refused, Err(SchemaError::NoKeyspace(options.keyspace.clone())));
    // Until then the store says what to do.
    let early = ScyllaStore::new(options.clone()).unwrap().check().await.unwrap_err().to_string();
    assert!(early.contains("chappe schema apply"), "{early}");

    let replication = Replication::Everywhere(1);
    let applied = tokio::join!(
        apply(&options, Some(&replication)),
        apply(&options, Some(&replication)),
        apply(&options, Some(&replication)),
    );
    for made in [applied.0, applied.1, applied.2] {
        made.unwrap();
    }
    assert_eq!(differences(&options).await, []);
    assert_eq!(apply(&options, None).await.unwrap(), Vec::<String>::new());

    // The one row of the whole instance, which the suite cannot have among others.
    let store = ScyllaStore::new(options.clone()).unwrap();
    let holder = |n: u8| Bytes::copy_from_slice(&[n]);
    assert_eq!(store.claimed(UniqueKey::Lineage).await.unwrap(), None);
    for (n, expected) in [(1, Claimed::Yes), (1, Claimed::Yes), (2, Claimed::Taken(holder(1)))] {
        assert_eq!(store.claim(UniqueKey::Lineage, holder(n)).await.unwrap(), expected);
    }
    assert_eq!(store.claimed(UniqueKey::ChannelName(String::new())).await.unwrap(), None);
    cql(&session().await, &format!("DROP KEYSPACE {}", options.keyspace)).await;
}

#[tokio::test]
async fn what_differs_is_named_and_what_must_not_be_is_mended() {
    let (options, session) = (own(), session().await);
    apply(&options, Some(&Replication::Everywhere(1))).await.unwrap();
    let keyspace = &options.keyspace;
    for spoil in [
        format!("DROP TABLE {keyspace}.mentions"),
        format!("DROP TABLE {keyspace}.heads"),
        format!(
            "CREATE TABLE {keyspace}.heads (channel bigint PRIMARY KEY, value blob) \
             WITH compaction = {{'class': 'LeveledCompactionStrategy'}}"
        ),
        format!("ALTER TABLE {keyspace}.channels WITH default_time_to_live = 60"),
        format!("ALTER TABLE {keyspace}.outbox WITH gc_grace_seconds = 864000"),
        format!(
            "ALTER TABLE {keyspace}.events WITH compaction = \
             {{'class': 'TimeWindowCompactionStrategy'}}"
        ),
        format!("ALTER KEYSPACE {keyspace} WITH durable_writes = false"),
        format!("TRUNCATE {keyspace}.schema_versions"),
    ] {
        cql(&session, &spoil).await;
    }
    let kept = |table, option, found: &str, expected: &str| Is::Kept {
        table,
        option,
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    let required = [
        Is::NotDurable,
        Is::Table("mentions"),
        kept("channels", "default_time_to_live", "60", "0"),
        Is::Version(None),
    ];
    let by_choice = [
        kept("outbox", "gc_grace_seconds", "864000", "600"),
        kept(
            "events",
            "compaction",
            "TimeWindowCompactionStrategy",
            "SizeTieredCompactionStrategy",
        ),
    ];
    let columns = Is::Columns {
        table: "heads",
        found: "channel bigint (partition_key), value blob (regular)".to_owned(),
        expected: "channel varint (partition_key), value blob (regular)".to_owned(),
    };
    let found = differences(&options).await;
    for expected in required.iter().chain([&columns]) {
        assert!(found.contains(expected) && expected.is_required(), "{expected}: {found:?}");
    }
    for expected in &by_choice {
        assert!(found.contains(expected) && !expected.is_required(), "{expected}: {found:?}");
    }
    assert_eq!(found.len(), 7, "{found:?}");

    apply(&options, None).await.unwrap();
    let left = differences(&options).await;
    assert!(!left.iter().any(|difference| required.contains(difference)), "{left:?}");
    assert_eq!(left.len(), 3, "what nobody may mend by himself, and an operator's choices");
    cql(&session, &format!("DROP KEYSPACE {keyspace}")).await;
}

/// Cassandra's own option; ScyllaDB mends in that way always.
#[tokio::test]
async fn reads_that_do_not_mend_are_named_and_mended() {
    let (options, session) = (own(), session().await);
    apply(&options, Some(&Replication::Everywhere(1))).await.unwrap();
    let keyspace = &options.keyspace;
    let has_option = cql(&session, "SELECT * FROM system_schema.tables LIMIT 1").await;
    let has_option = has_option.into_rows_result().unwrap();
    if has_option.column_specs().get_by_name("read_repair").is_some() {
        cql(&session, &format!("ALTER TABLE {keyspace}.heads WITH read_repair = 'NONE'")).await;
        let (found, expected) = ("NONE".to_owned(), "BLOCKING".to_owned());
        let kept = Is::Kept { table: "heads", option: "read_repair", found, expected };
        assert_eq!(differences(&options).await, std::slice::from_ref(&kept));
        assert!(kept.is_required());
        apply(&options, None).await.unwrap();
    }
    assert_eq!(differences(&options).await, []);
    cql(&session, &format!("DROP KEYSPACE {keyspace}")).await;
}

#[test]
fn every_step_creates_a_table_and_may_be_run_twice() {
    let steps = super::super::schema::steps("k");
    assert_eq!(steps.len(), tables().count());
    for step in steps {
        assert!(step.statement.starts_with("CREATE TABLE IF NOT EXISTS k."), "{}", step.statement);
        assert!(step.version <= SCHEMA_VERSION);
    }
    let messages = stamped_statement("messages");
    assert!(messages.contains("PRIMARY KEY ((channel, bucket), seq)"), "{messages}");
    assert!(messages.contains("CLUSTERING ORDER BY (seq DESC)"), "{messages}");
}

fn stamped_statement(table: &str) -> String {
    let steps = super::super::schema::steps("k");
    steps.into_iter().find(|step| step.table == table).unwrap().statement
}

#[test]
fn a_replication_is_written_as_cql_has_it() {
    assert_eq!(
        Replication::Everywhere(3).to_string(),
        "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}"
    );
    let names = [("it's".to_owned(), 1), ("east".to_owned(), 3)];
    assert_eq!(
        Replication::Datacenters(names.into()).to_string(),
        "{'class': 'NetworkTopologyStrategy', 'east': 3, 'it''s': 1}"
    );
}

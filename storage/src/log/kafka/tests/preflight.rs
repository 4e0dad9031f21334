//! A topic that is wrong in one thing is found out, with the command that mends it; and making one.

use std::process::Command;

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::admin::{AlterConfig, ResourceSpecifier};

use super::{Topic, admin, calm, options, var};
use crate::log::kafka::{
    Check, CreateError, Created, Finding, Genesis, KafkaConfig, KafkaLog, Layout, Severity, check,
    create,
};
use crate::log::{Log, Offset};

const RIGHT: &[(&str, &str)] = &[
    ("min.insync.replicas", "2"),
    ("unclean.leader.election.enable", "false"),
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", "1049088"),
    ("message.timestamp.type", "LogAppendTime"),
];

fn genesis(lineage: &str) -> Genesis<'static> {
    let record = Bytes::from(format!("genesis {lineage}"));
    Genesis { record, is_genesis: &|record| record.starts_with(b"genesis") }
}

async fn append(config: &KafkaConfig, partition: u32, record: &str) {
    let log = KafkaLog::open(config.clone()).await.unwrap();
    let (mut appender, mut acks) = log.appender();
    appender.append(PartitionId(partition), 0, Bytes::from(record.to_owned())).unwrap();
    acks.recv().await.unwrap().remove(0).result.unwrap();
}

/// The findings, but for the beginning.
async fn findings(config: &KafkaConfig) -> Vec<Finding> {
    let mut findings = check(config).await.unwrap();
    findings.retain(|finding| finding.check != Check::Beginning);
    findings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_setting_is_found_with_the_command_that_mends_it() {
    let _calm = calm().await;
    let cases: &[(&str, &str, Check, Severity, &str)] = &[
        ("min.insync.replicas", "1", Check::MinInsync, Severity::Refuse, "min.insync.replicas=2"),
        ("min.insync.replicas", "3", Check::Replication, Severity::Warn, "replicas=2"),
        (
            "unclean.leader.election.enable",
            "true",
            Check::UncleanElection,
            Severity::Refuse,
            "unclean.leader.election.enable=false",
        ),
        ("cleanup.policy", "compact", Check::CleanupPolicy, Severity::Refuse, "=delete"),
        ("cleanup.policy", "compact,delete", Check::CleanupPolicy, Severity::Refuse, "=delete"),
        ("retention.ms", "604800000", Check::Retention, Severity::Refuse, "retention.ms=-1"),
        ("retention.bytes", "1000000", Check::Retention, Severity::Refuse, "retention.bytes=-1"),
        ("max.message.bytes", "1048588", Check::MessageBytes, Severity::Refuse, "=1049088"),
        (
            "message.timestamp.type",
            "CreateTime",
            Check::TimestampType,
            Severity::Warn,
            "message.timestamp.type=LogAppendTime",
        ),
        ("compression.type", "zstd", Check::Compression, Severity::Refuse, "=producer"),
    ];
    let topic = Topic::with(1, 3, RIGHT).await;
    assert_eq!(findings(&topic.config()).await, []);
    for (name, value, check, severity, mend) in cases {
        let mut settings = AlterConfig::new(ResourceSpecifier::Topic(&topic.name));
        for (right, value) in RIGHT.iter().filter(|(right, _)| right != name) {
            settings = settings.set(right, value);
        }
        let altered = [settings.set(name, value)];
        admin().alter_configs(&altered, &options()).await.unwrap()[0].as_ref().unwrap();
        let found = eventually_one(&topic.config(), *check).await;
        assert_eq!(found.severity, *severity, "{found}");
        assert!(found.mend.contains(mend), "{found}");
        assert!(found.is.contains(value) || *check == Check::Replication, "{found}");
    }
}

/// The nodes hear of a change one after another.
async fn eventually_one(config: &KafkaConfig, check: Check) -> Finding {
    for _ in 0..200 {
        let found = findings(config).await;
        if let [finding] = &found[..]
            && finding.check == check
        {
            return finding.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("not only {check:?}: {:?}", findings(config).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_of_a_finding_mends_it() {
    let _calm = calm().await;
    let wrong: Vec<_> = RIGHT
        .iter()
        .map(|(name, value)| match *name {
            "retention.ms" => ("retention.ms", "1000000"),
            "cleanup.policy" => ("cleanup.policy", "compact,delete"),
            _ => (*name, *value),
        })
        .collect();
    let topic = Topic::with(1, 3, &wrong).await;
    let found = findings(&topic.config()).await;
    assert_eq!(found.len(), 2, "{found:?}");
    for finding in found {
        let command = finding.mend.split('`').nth(1).unwrap();
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("kafka-configs.sh"));
        assert_eq!(words.by_ref().take(2).collect::<Vec<_>>().join(" "), server());
        // The services' own script fills the nodes in.
        let mut tool = Command::new(format!("{}/kafka", var("CHAPPE_TEST_SERVICES")));
        let words: Vec<_> = words.map(str::to_owned).collect();
        let ran = tokio::task::spawn_blocking(move || tool.arg("configs").args(words).output());
        let ran = ran.await.unwrap().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }
    assert_eq!(findings(&topic.config()).await, []);
}

fn server() -> String {
    format!("--bootstrap-server {}", var("CHAPPE_TEST_KAFKA"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_and_other_numbers_of_partitions_are_found() {
    let _calm = calm().await;
    let topic = Topic::with(2, 1, RIGHT).await;
    let found = findings(&topic.config()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].check, found[0].severity), (Check::Replication, Severity::Refuse));
    assert!(found[0].mend.contains("kafka-reassign-partitions.sh"), "{}", found[0]);
    let json = found[0].mend.split('\'').nth(1).unwrap();
    let first = format!(r#"{{"version":1,"partitions":[{{"topic":"{}","partition":0,"#, topic.name);
    assert!(json.starts_with(&first), "{json}");
    assert_eq!(json.matches("replicas").count(), 2);
    for replicas in json.split("\"replicas\":[").skip(1) {
        let mut nodes: Vec<_> = replicas.split(']').next().unwrap().split(',').collect();
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), 3, "{json}");
    }
    let topic = Topic::with(2, 3, RIGHT).await;
    let found = findings(&KafkaConfig { partitions: 3, ..topic.config() }).await;
    assert_eq!((found.len(), found[0].check), (1, Check::Partitions));
    assert!(found[0].is.contains('2') && found[0].must_be.contains('3'), "{}", found[0]);
    let found = findings(&Topic::named(3).config()).await;
    assert_eq!((found.len(), found[0].check), (1, Check::Topic));
    assert!(found[0].mend.contains("chappe log create"), "{}", found[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_once_and_passes_the_preflight() {
    let _calm = calm().await;
    let topic = Topic::named(6);
    let config = topic.config();
    let created = create(&config, Layout::default(), &genesis("one")).await.unwrap();
    let record = Some(Bytes::from_static(b"genesis one"));
    assert_eq!(created, Created { genesis: record.clone(), begun: 6 });
    assert_eq!(check(&config).await.unwrap(), []);
    // Made again, it is what it was.
    append(&config, 3, "more").await;
    let created = create(&config, Layout::default(), &genesis("two")).await.unwrap();
    assert_eq!(created, Created { genesis: record, begun: 0 });
    let log = KafkaLog::open(config).await.unwrap();
    for partition in (0..6).map(PartitionId) {
        let entries = log.read(partition, Offset(0), 1000).await.unwrap();
        assert_eq!(entries[0].record, "genesis one");
        assert_eq!(entries.len(), if partition.0 == 3 { 2 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_was_cut_short_goes_on_with_its_own_record() {
    let _calm = calm().await;
    let topic = Topic::with(4, 3, RIGHT).await;
    let config = topic.config();
    let found = check(&config).await.unwrap();
    assert_eq!((found.len(), found[0].check), (1, Check::Beginning));
    append(&config, 2, "genesis one").await;
    let found = check(&config).await.unwrap();
    assert!(found[0].is.contains("not finished"), "{}", found[0]);
    let created = create(&config, Layout::default(), &genesis("two")).await.unwrap();
    assert_eq!(created.genesis, Some(Bytes::from_static(b"genesis one")));
    assert_eq!(created.begun, 3);
    assert_eq!(check(&config).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_lost_a_partition_or_holds_something_else_is_not_begun_again() {
    let _calm = calm().await;
    let topic = Topic::with(3, 3, RIGHT).await;
    let config = topic.config();
    for (partition, record) in [(0, "genesis one"), (0, "more"), (2, "genesis one")] {
        append(&config, partition, record).await;
    }
    let found = check(&config).await.unwrap();
    assert!(found[0].is.contains("partitions 1 are empty"), "{}", found[0]);
    assert!(found[0].mend.contains("chappe log adopt"), "{}", found[0]);
    let refused = create(&config, Layout::default(), &genesis("two")).await;
    assert!(matches!(refused, Err(CreateError::Lost(PartitionId(1)))), "{refused:?}");
    append(&config, 1, "genesis two").await;
    let found = check(&config).await.unwrap();
    assert!(found[0].is.contains("partition 1"), "{}", found[0]);
    let refused = create(&config, Layout::default(), &genesis("two")).await;
    assert!(matches!(refused, Err(CreateError::Foreign(PartitionId(1)))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_a_topic_that_does_not_pass() {
    let _calm = calm().await;
    let topic = Topic::with(2, 3, &[("cleanup.policy", "compact")]).await;
    let refused = create(&topic.config(), Layout::default(), &genesis("one")).await;
    let Err(CreateError::Unfit { findings, .. }) = refused else { panic!("{refused:?}") };
    assert!(findings.iter().any(|finding| finding.check == Check::CleanupPolicy));
    assert!(findings.iter().all(|finding| finding.severity == Severity::Refuse));
    let log = KafkaLog::open(topic.config()).await.unwrap();
    assert_eq!(log.bounds(PartitionId(0)).await.unwrap().end, Offset(0));
    // More copies than there are nodes.
    let layout = Layout { replicas: 7, min_insync: 2 };
    let refused = create(&Topic::named(1).config(), layout, &genesis("one")).await;
    assert!(matches!(refused, Err(CreateError::Refused { .. })), "{refused:?}");
}

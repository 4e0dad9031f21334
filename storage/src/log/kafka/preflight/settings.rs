//! Judges a topic by what Kafka says of it. Does no I/O.

use std::collections::BTreeMap;

use super::finding::{Check, Finding, Severity};
use crate::log::kafka::KafkaConfig;

/// A topic as Kafka describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// The nodes that have each partition.
    pub(super) replicas: BTreeMap<u32, Vec<i32>>,
    /// All nodes.
    pub(super) nodes: Vec<i32>,
    /// The topic's settings.
    pub(super) settings: BTreeMap<String, String>,
    /// The settings of a node; none if they may not be seen.
    pub(super) node: Option<BTreeMap<String, String>>,
}

/// The settings that a topic is made with.
pub(super) fn wanted(config: &KafkaConfig, min_insync: u32) -> Vec<(&'static str, String)> {
    vec![
        ("min.insync.replicas", min_insync.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", config.message_bytes().to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("compression.type", "producer".to_owned()),
    ]
}

/// What is wrong with a topic.
pub(super) fn judge(config: &KafkaConfig, described: &Described) -> Vec<Finding> {
    let judge = Judge { config, described };
    let mut findings = Vec::new();
    findings.extend(judge.partitions());
    findings.extend(judge.replication());
    findings.extend(judge.min_insync());
    findings.extend(judge.exactly(
        Check::UncleanElection,
        "unclean.leader.election.enable",
        "false",
        "a node that lacks acknowledged records may never lead",
    ));
    findings.extend(judge.exactly(
        Check::CleanupPolicy,
        "cleanup.policy",
        "delete",
        "compaction would leave gaps between offsets",
    ));
    for retention in ["retention.ms", "retention.bytes"] {
        let why = "Kafka would delete records that are not projected yet: Chappe trims by itself";
        findings.extend(judge.exactly(Check::Retention, retention, "-1", why));
    }
    findings.extend(judge.message_bytes());
    let why = "the age of a record is told by Kafka's clock, and not by that of a broker";
    let clock = judge.exactly(Check::TimestampType, "message.timestamp.type", "LogAppendTime", why);
    findings.extend(clock.map(|finding| Finding { severity: Severity::Warn, ..finding }));
    if judge.setting("compression.type") == "zstd" {
        let why = "this client does not read zstd";
        findings.extend(judge.exactly(Check::Compression, "compression.type", "producer", why));
    }
    findings.extend(judge.auto_create());
    findings
}

/// There is no such topic.
pub(super) fn missing(config: &KafkaConfig) -> Finding {
    Finding {
        check: Check::Topic,
        severity: Severity::Refuse,
        is: format!("there is no topic {}", config.topic),
        must_be: "it must be made with its settings and its first records".to_owned(),
        mend: "Run `chappe log create`.".to_owned(),
    }
}

struct Judge<'a> {
    config: &'a KafkaConfig,
    described: &'a Described,
}

impl Judge<'_> {
    fn partitions(&self) -> Option<Finding> {
        let (found, asked) = (self.described.replicas.len(), self.config.partitions);
        (found != asked as usize).then(|| {
            let delete = self.tool("kafka-topics.sh", "--delete --topic");
            self.refuse(
                Check::Partitions,
                format!("topic {} has {found} partitions", self.config.topic),
                format!(
                    "it must have {asked}, since a channel's partition follows from their number"
                ),
                format!(
                    "Set `log.partitions = {found}` if this log was made so. If it is empty, run \
                     `{delete}` and then `chappe log create`. A log that is in use takes another \
                     number by `chappe export` and `chappe import` only."
                ),
            )
        })
    }

    fn replication(&self) -> Option<Finding> {
        let (least, nodes) = (self.least_replicas(), self.described.nodes.len() as u32);
        let min_insync = self.min_insync_set();
        let is = format!(
            "topic {} has {least} replicas, and min.insync.replicas is {min_insync}",
            self.config.topic
        );
        if least < min_insync {
            let must_be = "with fewer replicas than that no append is ever acknowledged";
            let mend = self.reassign(min_insync.max(3).min(nodes).max(min_insync));
            return Some(self.refuse(Check::Replication, is, must_be.to_owned(), mend));
        }
        if least < 3 || least == min_insync {
            let must_be =
                "with 3, one more than must be in sync, a node can fail and appends go on";
            let mend = match least < 3 {
                true => self.reassign(3.max(min_insync + 1)),
                false => self.alter("min.insync.replicas", &(least - 1).to_string()),
            };
            let finding = self.refuse(Check::Replication, is, must_be.to_owned(), mend);
            return Some(Finding { severity: Severity::Warn, ..finding });
        }
        None
    }

    fn min_insync(&self) -> Option<Finding> {
        let (replicas, min_insync) = (self.least_replicas(), self.min_insync_set());
        (replicas >= 3 && min_insync < 2).then(|| {
            self.refuse(
                Check::MinInsync,
                format!("min.insync.replicas of topic {} is {min_insync}", self.config.topic),
                "it must be 2 or more, or what was acknowledged is lost with one node".to_owned(),
                self.alter("min.insync.replicas", "2"),
            )
        })
    }

    fn message_bytes(&self) -> Option<Finding> {
        let found: u64 = self.setting("max.message.bytes").parse().unwrap_or(0);
        let asked = self.config.message_bytes();
        (found < u64::from(asked)).then(|| {
            self.refuse(
                Check::MessageBytes,
                format!("max.message.bytes of topic {} is {found}", self.config.topic),
                format!(
                    "a record has up to {} bytes, so it must be {asked} or more",
                    self.config.record_bytes_max
                ),
                self.alter("max.message.bytes", &asked.to_string()),
            )
        })
    }

    fn auto_create(&self) -> Option<Finding> {
        let Some(node) = &self.described.node else {
            return Some(Finding {
                check: Check::AutoCreate,
                severity: Severity::Warn,
                is: "the settings of Kafka's nodes may not be seen".to_owned(),
                must_be: "auto.create.topics.enable must be false, or a deleted log comes back \
                          empty by itself"
                    .to_owned(),
                mend: "Look yourself, or allow DescribeConfigs on the cluster.".to_owned(),
            });
        };
        let found = node.get("auto.create.topics.enable").map_or("true", String::as_str);
        (found != "false").then(|| Finding {
            check: Check::AutoCreate,
            severity: Severity::Warn,
            is: format!("auto.create.topics.enable of Kafka's nodes is {found}"),
            must_be: "it must be false, or a deleted log comes back empty by itself".to_owned(),
            mend: "Set `auto.create.topics.enable=false` in server.properties of every node and \
                   restart them one by one."
                .to_owned(),
        })
    }

    fn exactly(&self, check: Check, name: &str, asked: &str, why: &str) -> Option<Finding> {
        let found = self.setting(name);
        (found != asked).then(|| {
            self.refuse(
                check,
                format!("{name} of topic {} is {found}", self.config.topic),
                format!("it must be {asked}: {why}"),
                self.alter(name, asked),
            )
        })
    }

    fn refuse(&self, check: Check, is: String, must_be: String, mend: String) -> Finding {
        Finding { check, severity: Severity::Refuse, is, must_be, mend }
    }

    fn setting(&self, name: &str) -> &str {
        self.described.settings.get(name).map_or("unknown", String::as_str)
    }

    fn min_insync_set(&self) -> u32 {
        self.setting("min.insync.replicas").parse().unwrap_or(1)
    }

    fn least_replicas(&self) -> u32 {
        self.described.replicas.values().map(Vec::len).min().unwrap_or(0) as u32
    }

    fn alter(&self, name: &str, value: &str) -> String {
        let alter = self.tool("kafka-configs.sh", "--alter --entity-type topics --entity-name");
        format!("Run `{alter} --add-config {name}={value}`.")
    }

    /// Gives every partition so many replicas: those that it has, and others in turn.
    fn reassign(&self, replicas: u32) -> String {
        let nodes = &self.described.nodes;
        if nodes.len() < replicas as usize {
            let has = nodes.len();
            return format!("Kafka needs {replicas} nodes for that and has {has}: add some.");
        }
        let entries = self.described.replicas.iter().map(|(partition, now)| {
            let mut chosen = now.clone();
            let others = nodes.iter().cycle().skip(*partition as usize % nodes.len());
            for node in others.take(nodes.len()) {
                if chosen.len() < replicas as usize && !chosen.contains(node) {
                    chosen.push(*node);
                }
            }
            let (topic, chosen) = (&self.config.topic, chosen.iter().map(i32::to_string));
            let chosen = chosen.collect::<Vec<_>>().join(",");
            format!(r#"{{"topic":"{topic}","partition":{partition},"replicas":[{chosen}]}}"#)
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        let server = self.server();
        format!(
            "Run `echo '{{\"version\":1,\"partitions\":[{entries}]}}' > more-replicas.json && \
             kafka-reassign-partitions.sh {server} --reassignment-json-file more-replicas.json \
             --execute`."
        )
    }

    fn tool(&self, tool: &str, rest: &str) -> String {
        format!("{tool} {} {rest} {}", self.server(), self.config.topic)
    }

    fn server(&self) -> String {
        let connection = &self.config.connection;
        let is_plain = connection.tls.is_none() && connection.login.is_none();
        let how = if is_plain { "" } else { " --command-config client.properties" };
        format!("--bootstrap-server {}{how}", connection.brokers)
    }
}

//! What a cluster looks like from outside: one picture out of what each broker said of itself.

use std::collections::BTreeMap;

use chappe_protocol::PartitionId;
use chappe_uplink::{
    Generation,
    remote::Asked,
    status::{BrokerStatus, PartitionState, PartitionStatus},
};
use serde::{Deserialize, Serialize};

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Every partition is led by one broker.
    pub(crate) sound: bool,
    /// All that were asked.
    pub(crate) brokers: Vec<BrokerRow>,
    /// All that the log has.
    pub(crate) partitions: Vec<PartitionRow>,
    /// The processes that hold clients' connections.
    pub(crate) gateways: Vec<GatewayRow>,
    /// Of clients, to all gateways.
    pub(crate) connections: u64,
    /// What is not as it should be, in sentences.
    pub(crate) problems: Vec<String>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BrokerRow {
    /// Where it was asked.
    pub(crate) address: String,
    /// Why it did not answer.
    pub(crate) error: Option<String>,
    /// What it calls itself.
    pub(crate) name: String,
    pub(crate) up_ms: u64,
    /// Partitions that it leads.
    pub(crate) leads: usize,
    pub(crate) unprojected_records: u64,
    pub(crate) unprojected_bytes: u64,
    pub(crate) oldest_ms: Option<u64>,
    /// Of the budget of unprojected records, by bytes or by age, whichever is more. At 50 it
    /// refuses commands.
    pub(crate) budget_percent: u64,
    pub(crate) pipes: u64,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartitionRow {
    pub(crate) partition: PartitionId,
    /// The broker that leads it, by its newest generation; nobody, of those who answered.
    pub(crate) leader: Option<String>,
    /// `incarnation.epoch` of that leadership.
    pub(crate) generation: Option<String>,
    /// The offset after the log's last record.
    pub(crate) end: Option<u64>,
    pub(crate) checkpoint: Option<u64>,
    /// Records above the checkpoint.
    pub(crate) lag: Option<u64>,
}

/// A process that holds clients' connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GatewayRow {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) address: String,
    pub(crate) connections: u64,
    /// Its pipes to all brokers that answered.
    pub(crate) pipes: u64,
}

impl Report {
    /// Makes one picture out of what was said.
    pub(crate) fn new(asked: Vec<Asked>) -> Self {
        let mut problems = Vec::new();
        let brokers: Vec<_> = asked.iter().map(broker).collect();
        for silent in &brokers {
            if let Some(why) = &silent.error {
                problems.push(format!("broker {} does not answer: {why}", silent.address));
            }
        }
        let silent = problems.len();
        let partitions = partitions(&asked, &mut problems);
        let gateways = gateways(&asked);
        Self {
            sound: problems.len() == silent && brokers.iter().any(|one| one.error.is_none()),
            connections: gateways.iter().map(|gateway| gateway.connections).sum(),
            brokers,
            partitions,
            gateways,
            problems,
        }
    }

    /// Whether any broker answered.
    pub(crate) fn is_reached(&self) -> bool {
        self.brokers.iter().any(|broker| broker.error.is_none())
    }
}

fn broker(asked: &Asked) -> BrokerRow {
    let mut row = BrokerRow {
        address: asked.address.clone(),
        error: asked.answer.as_ref().err().cloned(),
        name: String::new(),
        up_ms: 0,
        leads: 0,
        unprojected_records: 0,
        unprojected_bytes: 0,
        oldest_ms: None,
        budget_percent: 0,
        pipes: 0,
    };
    let Ok(status) = &asked.answer else { return row };
    let held = || status.holds.iter();
    row.name.clone_from(&status.name);
    row.up_ms = status.up_ms;
    row.leads = held().filter(|held| held.state == PartitionState::Leading).count();
    row.unprojected_records = held().map(|held| held.unprojected_records).sum();
    row.unprojected_bytes = held().map(|held| held.unprojected_bytes).sum();
    row.oldest_ms = held().filter_map(|held| held.oldest_ms).max();
    let percent = |part: u64, of: u64| part.saturating_mul(100).checked_div(of).unwrap_or(0);
    row.budget_percent = percent(row.unprojected_bytes, status.unprojected_bytes_max)
        .max(percent(row.oldest_ms.unwrap_or(0), status.unprojected_age_ms_max));
    row.pipes = status.pipes;
    row
}

/// A row for each partition, and a sentence for each that is not led by one broker.
fn partitions(asked: &[Asked], problems: &mut Vec<String>) -> Vec<PartitionRow> {
    let answers = || asked.iter().filter_map(|of| Some((&of.address, of.answer.as_ref().ok()?)));
    let count = answers().map(|(_, status)| status.partitions).max().unwrap_or(0);
    let mut held: BTreeMap<PartitionId, Vec<(&str, &PartitionStatus)>> = BTreeMap::new();
    for (address, BrokerStatus { holds, .. }) in answers() {
        for one in holds {
            held.entry(one.partition).or_default().push((address, one));
        }
    }
    let none = Vec::new();
    (0..count)
        .map(PartitionId)
        .map(|id| partition(id, held.get(&id).unwrap_or(&none), problems))
        .collect()
}

fn partition(
    id: PartitionId,
    held: &[(&str, &PartitionStatus)],
    problems: &mut Vec<String>,
) -> PartitionRow {
    let mut leaders: Vec<_> =
        held.iter().filter(|(_, one)| one.state == PartitionState::Leading).collect();
    leaders.sort_by_key(|(_, one)| std::cmp::Reverse(one.generation));
    for (address, one) in held {
        if let Some(halt) = &one.halt {
            problems.push(format!("partition {id} stopped for good at {address}: {halt}"));
        }
    }
    let Some((address, leader)) = leaders.first() else {
        let next = held.iter().find(|(_, one)| one.state == PartitionState::TakingOver);
        let taken = next.map(|(address, _)| format!("; {address} is taking it over"));
        problems.push(format!("partition {id} is led by nobody{}", taken.unwrap_or_default()));
        let (leader, generation, end, checkpoint, lag) = Default::default();
        return PartitionRow { partition: id, leader, generation, end, checkpoint, lag };
    };
    if leaders.len() > 1 {
        let claim = |(address, one): &&(&str, &PartitionStatus)| {
            format!("{address} ({})", text(one.generation))
        };
        let claims: Vec<_> = leaders.iter().map(claim).collect();
        problems.push(format!("partition {id} is claimed by {}", claims.join(" and ")));
    }
    PartitionRow {
        partition: id,
        leader: Some((*address).to_owned()),
        generation: Some(text(leader.generation)),
        end: Some(leader.end),
        checkpoint: leader.checkpoint,
        lag: leader.checkpoint.map(|checkpoint| leader.end.saturating_sub(checkpoint)),
    }
}

fn text(Generation { incarnation, epoch }: Generation) -> String {
    format!("{incarnation}.{epoch}")
}

/// The processes that hold connections, as all brokers know them. Brokers connect to each other
/// too, and are left out.
fn gateways(asked: &[Asked]) -> Vec<GatewayRow> {
    let mut by_process: BTreeMap<u64, GatewayRow> = BTreeMap::new();
    for gateway in asked.iter().filter_map(|of| of.answer.as_ref().ok()).flat_map(|of| &of.gateways)
    {
        let about = &gateway.about;
        if about.roles.iter().all(|role| role == "broker") {
            continue;
        }
        let row = by_process.entry(about.process).or_insert_with(|| GatewayRow {
            name: about.name.clone(),
            roles: about.roles.clone(),
            address: gateway.address.clone(),
            connections: about.connections,
            pipes: 0,
        });
        row.pipes += gateway.pipes;
    }
    let mut rows: Vec<_> = by_process.into_values().collect();
    rows.sort_by(|a, b| (&a.roles, &a.name).cmp(&(&b.roles, &b.name)));
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use chappe_protocol::Incarnation;
    use chappe_uplink::{About, GatewayStatus};

    use super::*;

    pub(in crate::cluster) fn held(id: u32, state: PartitionState, epoch: u64) -> PartitionStatus {
        PartitionStatus {
            partition: PartitionId(id),
            state,
            generation: Generation { incarnation: Incarnation(1), epoch },
            end: 100,
            checkpoint: Some(90),
            unprojected_records: 4,
            unprojected_bytes: 1_000,
            oldest_ms: Some(150),
            halt: (state == Halted).then(|| "a gap".to_owned()),
        }
    }

    pub(in crate::cluster) fn broker(
        address: &str,
        holds: Vec<PartitionStatus>,
        gateways: &[(u64, &str, &str)],
    ) -> Asked {
        let gateways = gateways.iter().map(|(process, name, role)| {
            let roles = vec![(*role).to_owned()];
            let about =
                About { process: *process, name: (*name).to_owned(), roles, connections: 25 };
            GatewayStatus { about, address: "10.0.0.9".to_owned(), pipes: 2 }
        });
        let status = BrokerStatus {
            name: "host:7402".to_owned(),
            up_ms: 192_000,
            partitions: 3,
            holds,
            unprojected_bytes_max: 100_000,
            unprojected_age_ms_max: 1_000,
            pipes: 5,
            gateways: gateways.collect(),
        };
        Asked { address: address.to_owned(), answer: Ok(status) }
    }

    pub(in crate::cluster) fn silent(address: &str) -> Asked {
        Asked { address: address.to_owned(), answer: Err("Connection refused".to_owned()) }
    }

    use PartitionState::{Deposed, Halted, Leading, TakingOver};

    #[test]
    fn a_silent_broker_whose_partitions_others_lead_is_told_and_the_cluster_is_sound() {
        let gateways = [(1, "b:7402", "broker"), (2, "g:7400", "gateway-ws")];
        let asked = vec![
            broker("a:1", vec![held(0, Leading, 5), held(1, Leading, 6)], &gateways),
            broker("b:1", vec![held(2, Leading, 7), held(0, Deposed, 3)], &gateways),
            silent("c:1"),
        ];
        let report = Report::new(asked);
        assert!(report.sound && report.is_reached());
        assert_eq!(report.problems, ["broker c:1 does not answer: Connection refused"]);
        let leaders: Vec<_> = report.partitions.iter().map(|of| of.leader.as_deref()).collect();
        assert_eq!(leaders, [Some("a:1"), Some("a:1"), Some("b:1")]);
        assert_eq!(report.partitions[2].generation.as_deref(), Some("1.7"));
        assert_eq!(report.partitions[2].lag, Some(10));
        assert_eq!((report.brokers[0].leads, report.brokers[0].unprojected_records), (2, 8));
        // 2 % by bytes, 15 % by age.
        assert_eq!(report.brokers[0].budget_percent, 15);
        assert_eq!(report.gateways.len(), 1, "brokers are no gateways");
        assert_eq!((report.connections, report.gateways[0].pipes), (25, 4));
    }

    #[test]
    fn what_nobody_leads_what_two_claim_and_what_stopped_is_told() {
        let asked = vec![
            broker("a:1", vec![held(0, Leading, 5), held(1, TakingOver, 0)], &[]),
            broker("b:1", vec![held(0, Leading, 8), held(2, Halted, 7)], &[]),
        ];
        let report = Report::new(asked);
        assert!(!report.sound && report.is_reached());
        assert_eq!(
            report.problems,
            [
                "partition 0 is claimed by b:1 (1.8) and a:1 (1.5)",
                "partition 1 is led by nobody; a:1 is taking it over",
                "partition 2 stopped for good at b:1: a gap",
                "partition 2 is led by nobody",
            ]
        );
        assert_eq!(report.partitions[0].leader.as_deref(), Some("b:1"), "the newest one leads");
    }

    #[test]
    fn when_nobody_answers_nothing_is_sound() {
        let report = Report::new(vec![silent("a:1"), silent("b:1")]);
        assert!(!report.sound && !report.is_reached());
        assert_eq!(report.problems.len(), 2);
    }
}

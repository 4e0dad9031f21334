//! A report as text for people.

use std::{fmt, time::Duration};

use bytesize::ByteSize;

use super::report::{BrokerRow, GatewayRow, PartitionRow, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.brokers.iter().map(broker).collect();
        let head = ["broker", "up", "leads", "unprojected", "bytes", "oldest", "budget", "pipes"];
        write_table(f, "<>>>>>>>", &head, rows)?;
        let rows = self.partitions.iter().map(partition).collect();
        let head = ["partition", "leader", "generation", "log end", "checkpoint", "lag"];
        write_table(f, "><>>>>", &head, rows)?;
        let mut rows: Vec<_> = self.gateways.iter().map(gateway).collect();
        let pipes: u64 = self.gateways.iter().map(|gateway| gateway.pipes).sum();
        rows.push(row([
            "total".to_owned(),
            String::new(),
            String::new(),
            self.connections.to_string(),
            pipes.to_string(),
        ]));
        write_table(f, "<<<>>", &["gateway", "role", "address", "connections", "pipes"], rows)?;
        for problem in &self.problems {
            writeln!(f, "! {problem}")?;
        }
        let word = if self.sound { "every partition is led" } else { "not every partition is led" };
        write!(f, "{word}")
    }
}

fn broker(broker: &BrokerRow) -> Vec<String> {
    if broker.error.is_some() {
        let mut cells = vec![String::from("-"); 8];
        cells[0].clone_from(&broker.address);
        cells[1] = "no answer".to_owned();
        return cells;
    }
    row([
        broker.address.clone(),
        humantime::format_duration(Duration::from_secs(broker.up_ms / 1_000)).to_string(),
        broker.leads.to_string(),
        broker.unprojected_records.to_string(),
        ByteSize(broker.unprojected_bytes).to_string(),
        broker.oldest_ms.map_or("-".to_owned(), |age_ms| format!("{age_ms} ms")),
        format!("{} %", broker.budget_percent),
        broker.pipes.to_string(),
    ])
}

fn partition(partition: &PartitionRow) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    row([
        partition.partition.to_string(),
        partition.leader.clone().unwrap_or_else(|| "nobody".to_owned()),
        partition.generation.clone().unwrap_or_else(|| "-".to_owned()),
        number(partition.end),
        number(partition.checkpoint),
        number(partition.lag),
    ])
}

fn gateway(gateway: &GatewayRow) -> Vec<String> {
    row([
        gateway.name.clone(),
        gateway.roles.join(" "),
        gateway.address.clone(),
        gateway.connections.to_string(),
        gateway.pipes.to_string(),
    ])
}

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.into()
}

/// Writes columns as wide as their widest cell. `sides` says for each whether it stands left (`<`)
/// or right (`>`).
fn write_table(
    f: &mut fmt::Formatter<'_>,
    sides: &str,
    head: &[&str],
    rows: Vec<Vec<String>>,
) -> fmt::Result {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, side)) in line.iter().zip(sides.chars()).enumerate() {
            let width = width(column).unwrap_or(0);
            let gap = if column == 0 { "" } else { "  " };
            text += &match side {
                '>' => format!("{gap}{cell:>width$}"),
                _ => format!("{gap}{cell:<width$}"),
            };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use chappe_uplink::status::PartitionState::Leading;

    use super::{
        super::report::tests::{broker, held, silent},
        *,
    };

    #[test]
    fn people_see_who_leads_what_and_who_is_silent() {
        let gateways = [(2, "gate:7400", "gateway-ws")];
        let holds = vec![held(0, Leading, 5), held(1, Leading, 6)];
        let report = Report::new(vec![broker("10.0.0.1:7402", holds, &gateways), silent("b:1")]);
        let wanted = "\
broker                up  leads  unprojected    bytes  oldest  budget  pipes
10.0.0.1:7402     3m 12s      2            8  2.0 KiB  150 ms    15 %      5
b:1            no answer      -            -        -       -       -      -

partition  leader         generation  log end  checkpoint  lag
        0  10.0.0.1:7402         1.5      100          90   10
        1  10.0.0.1:7402         1.6      100          90   10
        2  nobody                  -        -           -    -

gateway    role        address   connections  pipes
gate:7400  gateway-ws  10.0.0.9           25      2
total                                     25      2

! broker b:1 does not answer: Connection refused
! partition 2 is led by nobody
not every partition is led";
        assert_eq!(report.to_string(), wanted);
    }
}

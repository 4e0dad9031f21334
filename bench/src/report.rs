//! One table, and the same as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::host::Host;

/// Below this share of a goal the run fails.
const FAILED: f64 = 0.8;

/// What was asked of a measurement.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The ratio to the floor is at least this.
    RatioAtLeast(f64),
    /// The ratio to the floor is at most this.
    RatioAtMost(f64),
    /// The figure itself is at most this.
    AtMost(f64),
    /// The figure is to be known.
    None,
}

/// How a measurement stands to its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    /// Not met, but by less than a fifth.
    Near,
    Missed,
    /// Nothing was asked.
    Known,
}

/// One interleaved round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) floor: Option<f64>,
    pub(crate) ours: f64,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) floor: Option<f64>,
    pub(crate) ours: f64,
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: Goal,
    pub(crate) verdict: Verdict,
    pub(crate) rounds: Vec<Round>,
    /// What else a reader should know.
    pub(crate) note: String,
}

impl Row {
    /// So much in a time: the best round of each side, and our share of the floor's speed.
    pub(crate) fn rate(name: &str, unit: &'static str, goal: Goal, rounds: Vec<Round>) -> Self {
        Self::new(name, unit, goal, rounds, f64::max, |floor, ours| ours / floor)
    }

    /// A time: the best round of each side, and our share of the floor's speed.
    pub(crate) fn time(name: &str, unit: &'static str, goal: Goal, rounds: Vec<Round>) -> Self {
        Self::new(name, unit, goal, rounds, f64::min, |floor, ours| floor / ours)
    }

    /// A size: the smallest of each side, and how many times the floor's.
    pub(crate) fn size(name: &str, unit: &'static str, goal: Goal, rounds: Vec<Round>) -> Self {
        Self::new(name, unit, goal, rounds, f64::min, |floor, ours| ours / floor)
    }

    /// The same with a note.
    pub(crate) fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }

    fn new(
        name: &str,
        unit: &'static str,
        goal: Goal,
        rounds: Vec<Round>,
        better: fn(f64, f64) -> f64,
        ratio: fn(f64, f64) -> f64,
    ) -> Self {
        let ours = rounds.iter().map(|round| round.ours).reduce(better).unwrap_or(f64::NAN);
        let floor = rounds.iter().filter_map(|round| round.floor).reduce(better);
        let ratio = floor.map(|floor| ratio(floor, ours));
        let verdict = goal.verdict(ours, ratio);
        Self {
            name: name.to_owned(),
            unit,
            floor,
            ours,
            ratio,
            goal,
            verdict,
            rounds,
            note: String::new(),
        }
    }
}

impl Goal {
    fn verdict(self, ours: f64, ratio: Option<f64>) -> Verdict {
        let ratio = ratio.unwrap_or(f64::NAN);
        let share = match self {
            Self::RatioAtLeast(goal) => ratio / goal,
            Self::RatioAtMost(goal) => goal / ratio,
            Self::AtMost(goal) => goal / ours,
            Self::None => return Verdict::Known,
        };
        // Not a number is a miss: nothing was measured.
        if share >= 1.0 {
            Verdict::Met
        } else if share >= FAILED {
            Verdict::Near
        } else {
            Verdict::Missed
        }
    }
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Whether no measurement is below 0.8 of its goal.
    pub(crate) fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.verdict != Verdict::Missed)
    }

    /// The table, as Markdown, which people read as well.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![["", "unit", "floor", "ours", "ratio", "goal", ""].map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let widths: [usize; 7] = std::array::from_fn(|column| {
            lines.iter().map(|line| width(&line[column])).max().unwrap_or(0)
        });
        let rule = widths.map(|width| "-".repeat(width));
        lines.insert(1, rule);
        let mut text = self.heading();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let pad = " ".repeat(widths[column] - width(cell));
                // Names and units from the left, figures from the right.
                let _ = match column {
                    0 | 1 | 6 => write!(text, "| {cell}{pad} "),
                    _ => write!(text, "| {pad}{cell} "),
                };
            }
            text.push_str("|\n");
        }
        for row in self.rows.iter().filter(|row| !row.note.is_empty()) {
            let _ = writeln!(text, "\n{}: {}", row.name, row.note);
        }
        text
    }

    fn heading(&self) -> String {
        let Host { cpu, cores, kernel, memory_mib, disk, sync_ms } = &self.host;
        format!(
            "{cpu}, {cores} cores, {memory_mib} MiB; Linux {kernel}; {disk}, \
             {sync_ms:.2} ms for a sync of 4 KiB\n\n"
        )
    }
}

fn cells(row: &Row) -> [String; 7] {
    let goal = match row.goal {
        Goal::RatioAtLeast(goal) => format!("≥ {goal}"),
        Goal::RatioAtMost(goal) => format!("≤ {goal} ×"),
        Goal::AtMost(goal) => format!("≤ {goal}"),
        Goal::None => String::new(),
    };
    let verdict = match row.verdict {
        Verdict::Met => "met",
        Verdict::Near => "near",
        Verdict::Missed => "MISSED",
        Verdict::Known => "",
    };
    [
        row.name.clone(),
        row.unit.to_owned(),
        row.floor.map(figure).unwrap_or_default(),
        figure(row.ours),
        row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        goal,
        verdict.to_owned(),
    ]
}

/// Three or four digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(pairs: &[(f64, f64)]) -> Vec<Round> {
        pairs.iter().map(|(floor, ours)| Round { floor: Some(*floor), ours: *ours }).collect()
    }

    #[test]
    fn the_best_round_of_each_side_counts() {
        let row =
            Row::rate("a", "1/s", Goal::RatioAtLeast(0.85), rounds(&[(90.0, 70.0), (100.0, 60.0)]));
        assert_eq!((row.floor, row.ours), (Some(100.0), 70.0));
        let pairs = [(2.0, 4.0), (1.0, 5.0)];
        let row = Row::time("a", "s", Goal::None, rounds(&pairs));
        assert_eq!((row.ratio, row.verdict), (Some(0.25), Verdict::Known));
        assert_eq!(Row::size("a", "B", Goal::None, rounds(&pairs)).ratio, Some(4.0));
    }

    #[test]
    fn four_fifths_of_a_goal_is_near_and_less_is_a_miss() {
        let verdict = |goal: Goal, ours, floor| goal.verdict(ours, Some(ours / floor));
        assert_eq!(verdict(Goal::RatioAtLeast(0.5), 50.0, 100.0), Verdict::Met);
        assert_eq!(verdict(Goal::RatioAtLeast(0.5), 41.0, 100.0), Verdict::Near);
        assert_eq!(verdict(Goal::RatioAtLeast(0.5), 39.0, 100.0), Verdict::Missed);
        assert_eq!(verdict(Goal::AtMost(4.0), 4.9, 1.0), Verdict::Near);
        assert_eq!(verdict(Goal::AtMost(4.0), 5.1, 1.0), Verdict::Missed);
        assert_eq!(verdict(Goal::RatioAtMost(1.25), 30.0, 20.0), Verdict::Near);
        assert_eq!(Goal::RatioAtLeast(0.5).verdict(1.0, None), Verdict::Missed);
    }

    #[test]
    fn no_round_at_all_is_a_miss() {
        assert_eq!(Row::rate("a", "", Goal::AtMost(1.0), Vec::new()).verdict, Verdict::Missed);
    }
}

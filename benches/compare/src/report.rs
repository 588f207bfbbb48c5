//! What came out, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use localvpc_compare::statistics::{Summary, summary};
use serde::Serialize;

use crate::rows::What;
use crate::turns::{Measured, Outcome, Plan, Sample};

/// Everything, in the form of the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// Alternations.
    rounds: u16,
    /// Of each measurement.
    seconds: f64,
    /// `--poll` and `--merge` of both dataplanes.
    poll: String,
    merge: String,
    rows: Vec<Line>,
    /// Rows that failed in some round, and why.
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processors: usize,
    model: String,
    kernel: String,
}

/// One figure of a row.
#[derive(Debug, Serialize)]
struct Line {
    row: String,
    about: String,
    figure: &'static str,
    unit: &'static str,
    /// `higher` or `lower`.
    better: &'static str,
    ours: Values,
    null: Values,
    linux: Values,
    /// Of the ratios within a round.
    ours_to_null: Summary,
    ours_to_linux: Summary,
    null_to_linux: Summary,
    /// Medians of ours, where bulk data goes one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_read: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_write: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Values {
    median: f64,
    min: f64,
    max: f64,
    samples: Vec<f64>,
}

impl Report {
    /// Of what was measured; rows without a complete round are left out.
    pub fn of(outcome: &Outcome, plan: &Plan) -> Self {
        Self {
            machine: Machine::this(),
            rounds: plan.rounds,
            seconds: plan.time.as_secs_f64(),
            poll: plan.settings.poll.clone().unwrap_or_else(|| "default".into()),
            merge: plan.settings.merge.clone().unwrap_or_else(|| "default".into()),
            rows: outcome.rows.iter().flat_map(lines).collect(),
            failures: outcome.failures.clone(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let Self { machine: Machine { processors, model, kernel }, rounds, seconds, poll, merge, .. } = self;
        let mut text = format!(
            "{rounds} rounds of {seconds} s each, poll {poll}, merge {merge}; {processors} processors ({model}), Linux {kernel}\n\
             medians; ratios within a round: median [95 % interval, or least and greatest of fewer than six]; ↓ less is better\n\n"
        );
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "ROW",
            "",
            "OURS",
            "NULL",
            "LINUX",
            "",
            "OURS/NULL",
            "OURS/LINUX",
            "NULL/LINUX",
            "BYTES/READ",
            "BYTES/WRITE",
        ]);
        let mut last = "";
        for line in &self.rows {
            let unit =
                if line.better == "lower" { format!("{} ↓", line.unit) } else { line.unit.to_owned() };
            let row = if line.row == last { "" } else { &line.row };
            last = &line.row;
            table.add_row([
                row.to_owned(),
                line.figure.to_owned(),
                number(line.ours.median),
                number(line.null.median),
                number(line.linux.median),
                unit,
                ratio(&line.ours_to_null),
                ratio(&line.ours_to_linux),
                ratio(&line.null_to_linux),
                line.bytes_per_read.map(|it| format!("{it:.0}")).unwrap_or_default(),
                line.bytes_per_write.map(|it| format!("{it:.0}")).unwrap_or_default(),
            ]);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if matches!(index, 2..=4 | 9..=10) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            text += line.trim_end();
            text.push('\n');
        }
        for failure in &self.failures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "failed: {failure}");
        }
        text
    }
}

impl Machine {
    fn this() -> Self {
        let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.unwrap_or_else(|| "unknown".into()),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }
}

fn lines(row: &Measured) -> impl Iterator<Item = Line> {
    let median = |of: fn(&crate::turns::Unsplit) -> f64| {
        summary(&row.unsplit.iter().map(of).collect::<Vec<_>>()).map(|it| it.median)
    };
    let (bytes_per_read, bytes_per_write) = (median(|it| it.bytes_per_read), median(|it| it.bytes_per_write));
    row.samples.iter().filter_map(move |(what, samples)| {
        let first = *what == What::Throughput;
        let ratios = |of: fn(&Sample) -> f64| summary(&samples.iter().map(of).collect::<Vec<_>>());
        Some(Line {
            row: row.name.clone(),
            about: row.about.clone(),
            figure: what.name(),
            unit: what.unit(),
            better: if what.is_cost() { "lower" } else { "higher" },
            ours: values(samples, |it| it.ours)?,
            null: values(samples, |it| it.null)?,
            linux: values(samples, |it| it.linux)?,
            ours_to_null: ratios(|it| it.ours / it.null)?,
            ours_to_linux: ratios(|it| it.ours / it.linux)?,
            null_to_linux: ratios(|it| it.null / it.linux)?,
            bytes_per_read: bytes_per_read.filter(|_| first),
            bytes_per_write: bytes_per_write.filter(|_| first),
        })
    })
}

fn values(samples: &[Sample], of: fn(&Sample) -> f64) -> Option<Values> {
    let samples: Vec<f64> = samples.iter().map(of).collect();
    let Summary { median, min, max, .. } = summary(&samples)?;
    Some(Values { median, min, max, samples })
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn ratio(it: &Summary) -> String {
    let [low, high] = it.interval.unwrap_or([it.min, it.max]);
    format!("{:.2} [{low:.2}, {high:.2}]", it.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |ours, null, linux| Sample { ours, null, linux };
        let samples = vec![sample(1.0, 2.0, 4.0), sample(10.0, 10.0, 5.0), sample(3.0, 4.0, 3.0)];
        let rows = vec![Measured {
            name: "tcp/sg/1/out".into(),
            about: String::new(),
            samples: BTreeMap::from([(What::Throughput, samples)]),
            unsplit: vec![crate::turns::Unsplit { bytes_per_read: 60_000.0, bytes_per_write: 50_000.0 }],
        }];
        let outcome = Outcome { rows, ..Outcome::default() };
        let time = std::time::Duration::from_secs(1);
        let report = Report::of(&outcome, &Plan { rounds: 3, time, settings: Default::default() });
        let line = &report.rows[0];
        assert_eq!((line.ours.median, line.null.median, line.linux.median), (3.0, 4.0, 4.0));
        assert_eq!((line.ours_to_null.median, line.ours_to_linux.median), (0.75, 1.0));
        assert_eq!(line.null_to_linux.max, 2.0);
        let table = report.table();
        let row = table.lines().find(|line| line.starts_with("tcp/sg/1/out")).unwrap();
        assert!(row.contains("0.75 [0.50, 1.00]") && row.ends_with("60000        50000"), "{table}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.1234, 1.234, 12.34, 1234.0].map(number), ["0.123", "1.23", "12.3", "1234"]);
    }
}

//! `localvpc check`: does the design do what its file expects.
//!
//! Exit codes: 0 all expectations hold, 1 some fail, 2 error, 3 warnings only.

mod report;
mod running;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use localvpc_api::Generation;

use super::{Failure, Format, Global, file, output};
use crate::check::{Checked, judge_all, parts, word};
use crate::explain;
use crate::lower::{IdRegistry, Lowered, lower};
use crate::model::{Expectation, Model};
use crate::view::{ExplainRequest, Explanation};
use report::{Mode, Report, write_junit};
use running::running;

/// Check what a file expects: `expect:` lines are a design's tests
///
/// Each line is analysed; where the lab of the file runs, each is also proved by a real packet, sent from the sender's
/// namespace and looked for in the receiver's. `because` is an explanation code, as `localvpc explain` shows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 all expectations hold, 1 some fail, 2 error, 3 warnings only.

Examples:
  localvpc check two-tier.yaml                  analysis, and packets where the lab runs
  localvpc check two-tier.yaml --offline        analysis only: no lab, no root
  localvpc check two-tier.yaml --junit check.xml
  localvpc check -o json | jq '.results[] | select(.verdict != \"holds\")'")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab, else the running lab's]
    file: Option<PathBuf>,
    /// Send nothing, even where the lab runs
    #[arg(long)]
    offline: bool,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let document = match args.offline {
        true => file::read(args.file.as_deref())?,
        false => file::read_or_running(args.file.as_deref(), global)?,
    };
    let (model, _) = document.validate()?;
    let mut warnings = Vec::new();
    let running = if args.offline { None } else { running(&document, &model, &mut warnings)? };
    if model.expectations.is_empty() {
        warnings.push("the file expects nothing: add `expect:` lines".into());
    }
    let parts: Vec<Vec<Expectation>> = model.expectations.iter().map(|it| parts(it, &model)).collect();
    let all = parts.concat();
    let explanations = match &running {
        Some(running) => running.explain(&all)?,
        None => offline(&model, &all)?,
    };
    let mut explained = all.into_iter().zip(explanations);
    let results: Vec<Checked> = model
        .expectations
        .iter()
        .zip(&parts)
        .map(|(expected, parts)| {
            judge_all(expected, &explained.by_ref().take(parts.len()).collect::<Vec<_>>())
        })
        .collect();
    let report = Report {
        file: document.path.display().to_string(),
        lab: model.lab.clone(),
        mode: if running.is_some() { Mode::Probe } else { Mode::Analysis },
        took_ms: began.elapsed().as_millis() as u64,
        results,
        warnings,
    };
    if let Some(path) = &args.junit {
        write_junit(path, &report)?;
    }
    match global.output {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&report.render())?,
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// Explains every expectation from the file alone.
fn offline(model: &Model, expectations: &[Expectation]) -> Result<Vec<Explanation>, Failure> {
    let Lowered { tables, index, .. } = lower(model, &mut IdRegistry::default(), Generation(0));
    let explain = |expected: &Expectation| {
        let asked = explain::resolve(&index, &request(expected)).map_err(|mut error| {
            error.message = format!("{}: {}", model.source(Some(expected.place)), error.message);
            Failure::Daemon(error)
        })?;
        Ok(explain::answer(&index, &tables, &asked))
    };
    expectations.iter().map(explain).collect()
}

fn request(expected: &Expectation) -> ExplainRequest {
    ExplainRequest {
        from: expected.from.clone(),
        to: expected.to.clone(),
        protocol: word(expected.protocol),
        port: expected.port,
        source_port: expected.source_ports.map(|ports| ports.from),
        source_port_to: expected.source_ports.map(|ports| ports.to),
        source_address: None,
    }
}

//! `localvpc down`: take a lab down, all of it.

use std::process::ExitCode;

use super::client::{Client, has_ended};
use super::{Failure, Format, Global, is_root, lab, output};
use crate::host::{self, RunDir, teardown::Teardown};

/// Take a lab down: its processes, devices and namespaces
///
/// It also cleans up after a daemon or dataplane that was killed. Only what the lab made is touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo localvpc down
  sudo localvpc down --lab two-tier")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    match lab::pick(global) {
        Ok(run_dir) => {
            let client = Client::new(run_dir)?;
            let daemon = client.process();
            match client.order("/v1/down") {
                Ok(()) => {
                    let _ = has_ended(daemon);
                    report(global, client.lab(), &Teardown::default())
                }
                // It was being killed while we talked to it.
                Err(Failure::Conversation { lab, .. }) if has_ended(daemon) => {
                    clean_up(global, &RunDir::of(&lab)?)
                }
                Err(failure) => Err(failure),
            }
        }
        Err(Failure::OnlyLeftovers { labs }) if labs.len() == 1 => clean_up(global, &RunDir::of(&labs[0])?),
        // Even its directory is gone, but not necessarily everything else.
        Err(Failure::NotRunning { lab, running }) if is_root() => {
            let run_dir = RunDir::of(&lab)?;
            match host::teardown::teardown(&run_dir)? {
                nothing if nothing == Teardown::default() => Err(Failure::NotRunning { lab, running }),
                done => report(global, &lab, &done),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// Removes what a lab without a daemon has left.
fn clean_up(global: &Global, run_dir: &RunDir) -> Result<ExitCode, Failure> {
    if !is_root() {
        return Err(Failure::NeedsRoot { verb: "down" });
    }
    let done = host::teardown::teardown(run_dir)?;
    report(global, run_dir.lab(), &done)
}

fn report(global: &Global, lab: &str, done: &Teardown) -> Result<ExitCode, Failure> {
    let is_down = done.problems.is_empty();
    match global.output {
        Format::Json => output::print_json(&serde_json::json!({
            "lab": lab,
            "down": is_down,
            "namespaces": done.namespaces,
            "problems": done.problems,
        }))?,
        Format::Table => {
            for problem in &done.problems {
                output::say(&format!("error: {problem}"));
            }
            if is_down {
                output::print(&format!("lab {lab} is down\n"))?;
            }
        }
    }
    Ok(if is_down { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

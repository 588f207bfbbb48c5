//! `localvpc doctor`: can this machine do it, and what to do where it cannot.

use std::process::ExitCode;

use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use super::{Failure, Format, Global, output};

mod checks;
mod probe;

/// Check what this machine has of what labs need
///
/// Nothing is changed. As root a TUN device is made in a namespace of its own for a moment, to ask the
/// kernel for its offloads. The exit code is 1 where something is missing that `up` cannot do without.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc doctor
  sudo localvpc doctor
  sudo localvpc doctor -o json | jq '.[] | select(.state != \"ok\")'")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let findings = checks::all();
    match global.output {
        Format::Json => output::print_json(&findings)?,
        Format::Table => output::print(&render(&findings))?,
    }
    let is_fit = findings.iter().all(|finding| finding.state != State::Missing);
    Ok(if is_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found about one thing.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    what: String,
    /// How it stands.
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// Missing, and labs work without it.
    Optional,
    /// Could not be found out.
    Unknown,
    /// Missing, and no lab comes up without it.
    Missing,
}

impl Finding {
    fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Ok, found: found.into(), advice: None }
    }

    fn lacking(state: State, what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), state, found: found.into(), advice: Some(advice.into()) }
    }
}

fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let (word, style) = match finding.state {
            State::Ok => ("ok", Style::new().green()),
            State::Optional => ("optional", Style::new().yellow()),
            State::Unknown => ("unknown", Style::new().yellow()),
            State::Missing => ("missing", Style::new().red()),
        };
        let word = format!("{word:<8}");
        text += &format!("{}  {:<width$}  {}\n", word.style(style), finding.what, finding.found);
        if let Some(advice) = &finding.advice {
            text += &format!("{:8}  {:<width$}  → {advice}\n", "", "");
        }
    }
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    text += &match missing {
        0 => "\nThis machine can run labs: sudo localvpc up FILE\n".to_owned(),
        1 => "\nOne thing is missing that `up` cannot do without.\n".to_owned(),
        number => format!("\n{number} things are missing that `up` cannot do without.\n"),
    };
    text
}

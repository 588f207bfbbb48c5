//! `localvpc status`: the lab on one screen.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::client::Client;
use super::{Failure, Format, Global, ls, output};
use crate::view::StatusView;

/// Show the lab on one screen
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc status
  localvpc status --lab two-tier -o json | jq .dataplane.generation")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let status: StatusView = Client::of(global)?.ask("/v1/status")?;
    match global.output {
        Format::Json => output::print_json(&status)?,
        Format::Table => {
            output::print(&output::cut(&screen(&status)))?;
            for problem in &status.problems {
                // Whole, however narrow the terminal: the command stands at its end.
                output::print(&format!("\nPROBLEM: {problem}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Instances that fit on a screen of 24 lines beside the rest.
const SHOWN: usize = 14;

fn screen(status: &StatusView) -> String {
    let mut text = String::new();
    let up = output::duration(Duration::from_secs(status.uptime_s));
    let resources: Vec<_> = status
        .resources
        .iter()
        .map(|(kind, number)| output::count(*number, &kind.replace('_', " ")))
        .collect();
    let dataplane = match &status.dataplane {
        Some(it) => format!(
            "process {}, tables of generation {}, {}, {}, {}, polling {}, merging {}",
            it.pid,
            it.generation,
            output::count(it.links.len() as u64, "link"),
            output::count(it.workers.len() as u64, "worker"),
            output::count(status.dataplane_restarts, "restart"),
            it.settings.poll,
            it.settings.merge,
        ),
        None => "is being restarted".into(),
    };
    let state = status.dataplane.as_ref().map_or_else(
        || "unknown".into(),
        |it| {
            format!(
                "{}, {}",
                output::count(it.connections, "connection"),
                output::count(it.leases, "NAT lease")
            )
        },
    );
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<11}{value}");
    };
    line("lab", &status.lab);
    line("file", &status.file);
    line("control", &format!("process {}, up for {up}", status.control_pid));
    line("dataplane", &dataplane);
    line("state", &state);
    line("resources", &resources.join(", "));
    text.push('\n');
    text += &ls::table(&status.instances[..status.instances.len().min(SHOWN)], "");
    if status.instances.len() > SHOWN {
        let _ = writeln!(text, "... and {} more: localvpc ls", status.instances.len() - SHOWN);
    }
    text
}

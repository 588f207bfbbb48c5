//! `localvpc down`: take a lab down, all of it.

use std::process::ExitCode;

use super::client::Client;
use super::{Failure, Format, Global, output};

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
    let client = Client::of(global)?;
    client.order("/v1/down")?;
    match global.output {
        Format::Table => output::print(&format!("lab {} is down\n", client.lab()))?,
        Format::Json => output::print_json(&serde_json::json!({ "lab": client.lab(), "down": true }))?,
    }
    Ok(ExitCode::SUCCESS)
}

//! `localvpc version`.

use std::process::ExitCode;

use super::{Failure, Format, Global, output};

/// Print the version
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  localvpc version\n  localvpc version -o json")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match global.output {
        Format::Table => output::print(&format!("localvpc {version}\n"))?,
        Format::Json => output::print_json(&serde_json::json!({
            "version": version,
            "dataplane_protocol": localvpc_api::message::PROTOCOL,
        }))?,
    }
    Ok(ExitCode::SUCCESS)
}

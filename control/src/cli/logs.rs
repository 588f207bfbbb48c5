//! `localvpc logs`: what an instance's commands have said.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::client::Client;
use super::{Failure, Format, Global, lab, output};
use crate::view::StatusView;

/// Print what an instance's `run:` commands have said
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc logs web
  localvpc logs web -f
  localvpc logs web -o json | jq -r '.[].log'
  localvpc logs control           the lab's daemon
  localvpc logs dataplane")]
pub struct Args {
    /// An instance or internet host; or `control`, `dataplane`
    name: String,
    /// Go on as more is written; as text, also with `-o json`
    #[arg(short, long)]
    follow: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let files = files(&args.name, global)?;
    if global.output == Format::Json && !args.follow {
        let read = |path: &PathBuf| {
            let text = std::fs::read(path).map_err(|source| Failure::Read { path: path.clone(), source })?;
            Ok(serde_json::json!({ "instance": args.name, "log": String::from_utf8_lossy(&text) }))
        };
        let logs = files.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        output::print_json(&logs)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.follow {
        let mut arguments: Vec<OsString> = ["-q", "-n", "+1", "-F"].map(OsString::from).to_vec();
        arguments.extend(files.into_iter().map(OsString::from));
        let source = Command::new("tail").args(arguments).exec();
        return Err(Failure::Command { command: "tail".into(), source });
    }
    for path in files {
        let text = std::fs::read(&path).map_err(|source| Failure::Read { path, source })?;
        output::print(&String::from_utf8_lossy(&text))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn files(name: &str, global: &Global) -> Result<Vec<PathBuf>, Failure> {
    // These are worth reading above all when the daemon is gone.
    if ["control", "dataplane"].contains(&name) {
        let run_dir = match lab::pick(global) {
            Err(Failure::OnlyLeftovers { labs }) if labs.len() == 1 => crate::host::RunDir::of(&labs[0])?,
            picked => picked?,
        };
        return Ok(vec![run_dir.log(name)]);
    }
    let client = Client::of(global)?;
    let status: StatusView = client.ask("/v1/status")?;
    let instance = super::exec::find(&status, name)?;
    let mut files: Vec<_> = instance.processes.iter().map(|process| PathBuf::from(&process.log)).collect();
    files.dedup();
    if files.is_empty() {
        output::say(&format!("{name} has no `run:` command, so there is no log"));
    }
    Ok(files)
}

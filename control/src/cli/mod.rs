//! The command line: one file per verb.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 fine, 1
//! failure, 2 usage; `explain` and `lint` have their own (see there), and `exec` has its command's.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod client;
mod completion;
mod connections;
mod counters;
mod daemon;
mod doctor;
mod down;
mod exec;
mod explain;
mod failure;
mod file;
mod graph;
mod hints;
mod inspect;
mod lab;
mod lint;
mod logs;
mod ls;
mod nat;
mod output;
mod plan;
mod probing;
mod schema;
mod serve;
mod shell;
mod status;
mod up;
mod validate;
mod version;

pub use failure::Failure;
use output::Format;

/// Parses the command line, runs the verb, returns its exit code.
pub fn main() -> ExitCode {
    let Cli { mut global, verb } = Cli::parse();
    // An empty variable is none, as everywhere.
    global.lab = global.lab.or_else(|| std::env::var("LOCALVPC_LAB").ok().filter(|lab| !lab.is_empty()));
    // 2 is the code for "could not find out" of verbs whose 1 is an answer: blocked, errors found.
    let failed = if matches!(verb, Verb::Explain(_) | Verb::Check(_) | Verb::Lint(_)) { 2 } else { 1 };
    match verb.run(&global) {
        Ok(code) => code,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            match global.output {
                Format::Table => output::say(&failure.message()),
                Format::Json => output::say(&serde_json::json!(failure.view()).to_string()),
            }
            ExitCode::from(failed)
        }
    }
}

/// An AWS-style VPC on one Linux machine, with real packets.
#[derive(Debug, Parser)]
#[command(
    name = "localvpc",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  localvpc doctor                                can this machine do it?
  sudo localvpc up two-tier.yaml                 bring a lab up, or apply what changed
  sudo localvpc exec app -- curl -s http://example/
  sudo localvpc explain internet app tcp/22      why does it not get through?
  sudo localvpc down

Exit codes: 0 fine, 1 failure, 2 usage. explain: 0 reachable, 1 blocked, 2 error, 3 undecidable.
lint: 0 nothing found, 1 errors, 2 not a valid file, 3 warnings only."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
struct Global {
    /// The lab [default: the only one that runs] [env: LOCALVPC_LAB]
    #[arg(long, global = true, value_name = "NAME")]
    lab: Option<String>,
    /// Form of the result
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Up(up::Args),
    Down(down::Args),
    Status(status::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Exec(exec::Args),
    Shell(shell::Args),
    Explain(explain::Args),
    Bench(bench::Args),
    Check(check::Args),
    Connections(connections::Args),
    Nat(nat::Args),
    Counters(counters::Args),
    Logs(logs::Args),
    Validate(validate::Args),
    Lint(lint::Args),
    Graph(graph::Args),
    Schema(schema::Args),
    Doctor(doctor::Args),
    Serve(serve::Args),
    Completion(completion::Args),
    Version(version::Args),
    #[command(hide = true)]
    Daemon(daemon::Args),
}

impl Verb {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::Up(args) => up::run(args, global),
            Self::Down(args) => down::run(args, global),
            Self::Status(args) => status::run(args, global),
            Self::Ls(args) => ls::run(args, global),
            Self::Inspect(args) => inspect::run(args, global),
            Self::Exec(args) => exec::run(args, global),
            Self::Shell(args) => shell::run(args, global),
            Self::Explain(args) => explain::run(args, global),
            Self::Bench(args) => bench::run(args, global),
            Self::Check(args) => check::run(args, global),
            Self::Connections(args) => connections::run(args, global),
            Self::Nat(args) => nat::run(args, global),
            Self::Counters(args) => counters::run(args, global),
            Self::Logs(args) => logs::run(args, global),
            Self::Validate(args) => validate::run(args, global),
            Self::Lint(args) => lint::run(args, global),
            Self::Graph(args) => graph::run(args, global),
            Self::Schema(args) => schema::run(args),
            Self::Doctor(args) => doctor::run(args, global),
            Self::Serve(args) => serve::run(args),
            Self::Completion(args) => completion::run(args),
            Self::Version(args) => version::run(args, global),
            Self::Daemon(args) => daemon::run(args),
        }
    }
}

/// Whether the process has root's user id. What exactly is missing, `doctor` says.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! `localvpc-compare`: the same namespaces and rules three ways, measured in turn; `scripts/compare` builds and runs it.
//!
//! | way | what carries packets |
//! |---|---|
//! | ours | a lab that `localvpc up` brings up |
//! | null | the same lab over `localvpc-null-dataplane`, which decides nothing: the limit that TUN sets |
//! | Linux | a Linux router with nftables between veth devices |
//!
//! They take turns, in all six orders, so that whatever the machine does besides hits all of them; ratios are taken within a
//! round. The order of modules is the order in which they are needed:
//!
//! - [`rows`]: what is measured
//! - [`scene`]: the instances and rules that it is measured in, three ways; a [`lab`] is two of them
//! - [`turns`]: one after the other
//! - [`localvpc_compare::statistics`], [`report`]: what came out
//! - [`interrupt`][]: Ctrl-C

mod interrupt;
mod lab;
mod report;
mod rows;
mod scene;
mod turns;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use localvpc_compare::say;

use rows::Row;
use scene::Settings;
use turns::Plan;

/// Measure localvpc beside a Linux router and beside a forwarder that decides nothing
///
/// All three carry the same traffic between the same namespaces, in turn. For every row the table shows medians, and
/// the median of the ratios within a round with its 95 % interval. Traffic stays in namespaces that are made for it.
#[derive(Debug, Parser)]
#[command(
    name = "scripts/compare",
    bin_name = "scripts/compare",
    after_help = "\
Exit codes: 0 every row was measured, 1 failure or a row is missing, 2 usage, 130 interrupted.

Examples:
  sudo scripts/compare                                everything, about 20 minutes
  sudo scripts/compare --rounds 3 --rows tcp/sg,udp   some of it, roughly
  sudo scripts/compare --list
  sudo scripts/compare -o json > compare.json"
)]
struct Arguments {
    /// How often the three take turns; 11 for figures that are quoted
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Only rows whose name contains one of these words
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    rows: Vec<String>,
    /// Seconds that each measurement takes, after a warm-up of a sixth of that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    time: f64,
    /// How both dataplanes wait for packets, as for `localvpc up`: adaptive, busy or block
    #[arg(long, value_name = "HOW", value_parser = ["adaptive", "busy", "block"])]
    poll: Option<String>,
    /// Whether both dataplanes join small packets, as for `localvpc up`: on or off
    #[arg(long, value_name = "WHETHER", value_parser = ["on", "off"])]
    merge: Option<String>,
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Form,
    /// Show the names of the rows
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.05 to 60 seconds".into()),
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let chosen: Vec<Row> =
        rows::all().into_iter().filter(|row| is_chosen(&row.name, &arguments.rows)).collect();
    if chosen.is_empty() {
        return Err(format!(
            "no row has {} in its name: `scripts/compare --list` shows them",
            arguments.rows.join(" or ")
        )
        .into());
    }
    if arguments.list {
        for row in &chosen {
            print(&format!("{:<28} {}\n", row.name, row.about))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(
            "it makes network namespaces and TUN devices, for which it must be root: sudo scripts/compare"
                .into(),
        );
    }
    interrupt::watch()?;
    let plan = Plan {
        rounds: arguments.rounds,
        time: Duration::from_secs_f64(arguments.time),
        settings: Settings { poll: arguments.poll.clone(), merge: arguments.merge.clone() },
    };
    let outcome = turns::take(&chosen, &plan, &mut say);
    let report = report::Report::of(&outcome, &plan);
    match arguments.output {
        // Nobody waits for it any more.
        _ if outcome.interrupted => {}
        Form::Table => print(&report.table())?,
        Form::Json => print(&(serde_json::to_string_pretty(&report)? + "\n"))?,
    }
    if outcome.interrupted {
        return Ok(ExitCode::from(130));
    }
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_chosen(name: &str, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word.trim()))
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn rows_are_chosen_by_any_word_in_their_names() {
        let words = ["tcp/sg".to_owned(), "udp".to_owned()];
        assert!(is_chosen("tcp/sg/1/out", &words) && is_chosen("udp/64/1", &words));
        assert!(!is_chosen("tcp/nat/1/out", &words));
        assert!(is_chosen("anything", &[]));
    }
}

//! `localvpc-levers`: what each way to forward faster is worth by itself, beside how it is.
//!
//! Two instances with TUN devices in namespaces without names, and between them the dataplane's own workers around an
//! engine that decides nothing. Each lever changes one thing about that, and takes turns with the usual, row by row; what is compared
//! are ratios within a round.
//!
//! - [`settings`]: the levers
//! - [`stage`]: the instances, and what forwards
//! - [`ring`]: another forwarder, with io_uring

mod ring;
mod settings;
mod stage;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};
use localvpc_compare::say;
use localvpc_compare::statistics::summary;
use localvpc_traffic::tcp::{Direction, Stream};
use localvpc_traffic::udp::{Flood, Framing, Handing};
use localvpc_traffic::{Span, connections, round_trips, tcp, udp};

use settings::{Lever, Settings};
use stage::Stage;

/// Whatever went wrong: it ends the program, or costs a lever its column.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measure what each lever is worth beside the usual way
///
/// Each takes turns with the usual way; the table has the median of the ratios within a round and its 95 % interval.
#[derive(Debug, Parser)]
#[command(name = "localvpc-levers")]
struct Arguments {
    /// How often they take turns
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Only levers whose name contains one of these words
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    levers: Vec<String>,
    /// Only rows whose name contains one of these words
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    rows: Vec<String>,
    /// Seconds that each measurement takes, after a warm-up of a sixth of that
    #[arg(long, value_name = "SECONDS", default_value_t = 0.4)]
    time: f64,
    /// Show the names of levers and rows
    #[arg(long)]
    list: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// TCP streams in one direction; Gbit/s.
    Tcp { streams: usize },
    /// Datagrams of a sender; thousands a second that the socket received.
    Udp { payload: u16, handing: Handing },
    /// Thousands a second.
    Connections,
    /// TCP, median in µs: less is better.
    RoundTrip,
}

const ROWS: [(&str, Row); 7] = [
    ("tcp/1", Row::Tcp { streams: 1 }),
    ("tcp/4", Row::Tcp { streams: 4 }),
    ("udp/64", Row::Udp { payload: 64, handing: Handing::Single }),
    ("udp/1400", Row::Udp { payload: 1400, handing: Handing::Single }),
    ("udp/gso", Row::Udp { payload: 1400, handing: Handing::Segmented }),
    ("connections", Row::Connections),
    ("round-trip", Row::RoundTrip),
];

const PORT: u16 = 5201;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let chosen =
        |name: &str, words: &[String]| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    let rows: Vec<_> = ROWS.into_iter().filter(|(name, _)| chosen(name, &arguments.rows)).collect();
    let all = settings::levers();
    let mut levers: Vec<&Lever> = all.iter().filter(|lever| chosen(lever.name, &arguments.levers)).collect();
    for needed in levers.iter().filter_map(|lever| lever.beside).collect::<Vec<_>>() {
        if !levers.iter().any(|lever| lever.name == needed) {
            levers.extend(all.iter().find(|lever| lever.name == needed));
        }
    }
    if arguments.list {
        let names = |names: Vec<&str>| names.join(" ");
        let levers = names(levers.iter().map(|lever| lever.name).collect());
        let rows = names(rows.iter().map(|row| row.0).collect());
        return Ok(writeln!(std::io::stdout(), "levers: {levers}\nrows: {rows}")?);
    }
    if !rustix::process::geteuid().is_root() {
        return Err("it makes network namespaces and TUN devices, for which it must be root".into());
    }
    let span = Span::of(Duration::try_from_secs_f64(arguments.time)?);
    // By row, then by lever, the usual first: a value per round; none of what failed.
    let mut samples = vec![vec![Vec::new(); levers.len() + 1]; rows.len()];
    let usual = Settings::usual();
    for round in 1..=arguments.rounds {
        for ((name, row), samples) in rows.iter().zip(&mut samples) {
            let ways =
                std::iter::once(("usual", &usual)).chain(levers.iter().map(|it| (it.name, &it.settings)));
            let mut said = String::new();
            for ((lever, settings), samples) in ways.zip(samples) {
                let value = Stage::set(settings).and_then(|stage| row.measure(&stage, span));
                said += &match &value {
                    Ok(value) => format!("  {lever} {value:.4}"),
                    Err(error) => format!("  {lever} FAILED: {error}"),
                };
                samples.push(value.ok());
            }
            say(&format!("round {round}/{}  {name:<12}{said}", arguments.rounds));
        }
    }
    Ok(write!(std::io::stdout(), "{}", table(&rows, &levers, &samples))?)
}

/// A line per lever, a column per row.
fn table(rows: &[(&str, Row)], levers: &[&Lever], samples: &[Vec<Vec<Option<f64>>>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["LEVER", "BESIDE"].into_iter().chain(rows.iter().map(|row| row.0)));
    let medians = samples.iter().map(|row| {
        let values: Vec<f64> = row[0].iter().copied().flatten().collect();
        summary(&values).map_or_else(|| "-".into(), |it| format!("{:.1}", it.median))
    });
    table.add_row(["usual".to_owned(), String::new()].into_iter().chain(medians));
    for (at, lever) in levers.iter().enumerate() {
        let beside = levers.iter().position(|it| Some(it.name) == lever.beside).map_or(0, |at| at + 1);
        let cells = samples.iter().map(|row| {
            let pairs = row[at + 1].iter().zip(&row[beside]);
            let ratios: Vec<f64> = pairs.filter_map(|(with, without)| Some((*with)? / (*without)?)).collect();
            summary(&ratios).map_or_else(
                || "-".into(),
                |it| {
                    let [low, high] = it.interval.unwrap_or([it.min, it.max]);
                    format!("{:.2} ({low:.2}–{high:.2})", it.median)
                },
            )
        });
        let names = [lever.name.to_owned(), lever.beside.unwrap_or("usual").to_owned()];
        table.add_row(names.into_iter().chain(cells));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

impl Row {
    fn measure(self, stage: &Stage, span: Span) -> Result<f64, Failure> {
        let Stage { client, server, .. } = stage;
        Ok(match self {
            Self::Tcp { streams } => {
                let streams = vec![Stream { client, server, direction: Direction::There }; streams];
                tcp::throughput(&streams, PORT, span)?.bits_per_second / 1e9
            }
            Self::Udp { payload, handing } => {
                let flood = Flood { payload, senders: 1, handing };
                udp::flood(client, server, PORT, flood, Framing::Ip, span)?.by_socket / 1e3
            }
            Self::Connections => connections::per_second(client, server, PORT, span)? / 1e3,
            Self::RoundTrip => round_trips::tcp(client, server, PORT, span)?.p50_us,
        })
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
    fn every_lever_stands_beside_another_or_the_usual() {
        let levers = settings::levers();
        for lever in &levers {
            let named = |name| levers.iter().filter(|lever| lever.name == name).count();
            assert_eq!(named(lever.name), 1, "{}", lever.name);
            assert!(lever.beside.is_none_or(|beside| named(beside) == 1), "{}", lever.name);
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_beside_what_the_lever_names() {
        let all = settings::levers();
        let levers: Vec<_> = all.iter().filter(|it| ["merge/off", "io_uring"].contains(&it.name)).collect();
        let values = |values: [f64; 2]| values.map(Some).to_vec();
        let samples = [vec![values([2.0, 4.0]), values([1.0, 1.0]), vec![Some(3.0), None]]];
        let table = table(&ROWS[..1], &levers, &samples);
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = table.lines().map(cells).collect();
        assert_eq!(lines[1], ["usual", "3.0"]);
        assert_eq!(lines[2], ["merge/off", "usual", "0.38", "(0.25–0.50)"]);
        assert_eq!(lines[3], ["io_uring", "merge/off", "3.00", "(3.00–3.00)"]);
    }
}

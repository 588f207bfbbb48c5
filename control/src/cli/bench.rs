//! `localvpc bench`: how fast it is between two instances, beside a Linux router on the same machine.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use localvpc_api::settings::Poll;
use localvpc_traffic::Endpoint;
use serde::Serialize;

use super::client::Client;
use super::{Failure, Format, Global, exec, explain, is_root, output};
use crate::bench::linux_router::{self, LinuxRouter, Side, Station};
use crate::bench::suite::{Better, Ends, Protocol, Test, Value};
use crate::host::NamespaceRef;
use crate::view::{ExplainOutcome, ExplainRequest, Explanation, InstanceView, StatusView};

/// Measure how fast it is from one instance to another, beside a Linux router on the same machine
///
/// Sends real traffic between the two namespaces for a while: TCP throughput, small UDP packets, TCP connections and
/// round trips. Beside each figure stands that of a Linux router (veth, nftables with 100 rules, conntrack, masquerade)
/// between two namespaces of its own, measured in the same minute; they are gone afterwards. On machines that do
/// something else as well, ratios say more than figures.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rules must let FROM reach TO on the port, over TCP and UDP; what is blocked is explained instead. Nothing else may listen there.

Exit codes: 0 measured, 1 failure or no way through, 2 usage.

Examples:
  sudo localvpc bench app db --port 5432
  sudo localvpc bench app example                     through the NAT gateway
  sudo localvpc bench app db --time 0.5 --no-linux
  sudo localvpc bench app db -o json | jq '.rows[] | {name, lab, ratio}'")]
pub struct Args {
    /// The instance or internet host that sends
    from: String,
    /// The instance or internet host that receives
    to: String,
    /// Port that is measured on, for TCP and UDP
    #[arg(long, value_name = "PORT", default_value_t = 5201, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Seconds for each of the five measurements
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    time: f64,
    /// Measure the lab alone
    #[arg(long)]
    no_linux: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    /// Where the traffic went, as the sender sees it.
    address: IpAddr,
    port: u16,
    /// For each measurement.
    seconds: f64,
    rows: Vec<Row>,
    /// What could not be measured, and why.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    better: Better,
    lab: f64,
    /// Absent where there is no Linux router.
    linux: Option<f64>,
    /// `lab` by `linux`.
    ratio: Option<f64>,
}

/// Said where the Linux router was not alone.
const NEVER_SLEEPS: &str = "this lab's workers never sleep (polling busy), also not while the Linux router was measured: they took processors \
    from it, and kept them awake for its round trips. `localvpc up --poll adaptive` makes them sleep between packets";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.05 to 60 seconds".into()),
    }
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let client = Client::of(global)?;
    if !is_root() {
        return Err(Failure::NeedsRoot { verb: "bench" });
    }
    let status: StatusView = client.ask("/v1/status")?;
    let (from, to) = (exec::find(&status, &args.from)?, exec::find(&status, &args.to)?);
    if from.namespace == to.namespace {
        return Err(Failure::NothingToMeasure(format!(
            "{} and {} are in one namespace ({}): what they say to each other stays in the kernel",
            from.name, to.name, from.namespace
        )));
    }
    let (tests, address, mut notes) = passable(&client, from, to, args.port)?;
    let lab = Ends {
        from: endpoint(&client, from)?,
        to: endpoint(&client, to)?.reached_at(address),
        port: args.port,
    };
    let linux = if args.no_linux { None } else { linux_router(from, to, args.port, &mut notes)? };
    let poll = status.dataplane.as_ref().map(|dataplane| dataplane.settings.poll);
    if linux.is_some() && poll == Some(Poll::Busy) {
        notes.push(NEVER_SLEEPS.to_owned());
    }
    let rows = measure(&tests, &lab, linux.as_ref().map(|(_, ends)| ends), args.time)?;
    let report = Report {
        from: from.name.clone(),
        to: to.name.clone(),
        address: address.into(),
        port: args.port,
        seconds: args.time,
        rows,
        notes,
    };
    match global.output {
        Format::Json => output::print_json(&report)?,
        Format::Table => {
            output::print(&table(&report, to))?;
            report.notes.iter().for_each(|note| output::say(&format!("note: {note}")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The tests that rules let through, the address that the sender has to use, and what is left out.
fn passable(
    client: &Client,
    from: &InstanceView,
    to: &InstanceView,
    port: u16,
) -> Result<(Vec<Test>, Ipv4Addr, Vec<String>), Failure> {
    let ask = |protocol: &str| {
        let request = ExplainRequest::new(&from.name, &to.name, protocol, Some(port));
        client.tell::<Explanation>("/v1/explain", &request)
    };
    let (tcp, udp) = (ask("tcp")?, ask("udp")?);
    let passes = |explanation: &Explanation| explanation.outcome != ExplainOutcome::Blocked;
    if !passes(&tcp) && !passes(&udp) {
        // Without colours: it becomes part of a message, perhaps in JSON.
        let why = anstream::adapter::strip_str(&explain::render(&tcp, false)).to_string();
        return Err(Failure::Blocked(format!(
            "neither tcp/{port} nor udp/{port} gets through from {} to {}, so there is nothing to measure. `--port` chooses \
             another port.\n\n{}",
            from.name,
            to.name,
            why.trim_end()
        )));
    }
    let tests = Test::ALL.into_iter().filter(|test| match test.protocol() {
        Protocol::Tcp => passes(&tcp),
        Protocol::Udp => passes(&udp),
    });
    let blocked = [("tcp", &tcp), ("udp", &udp)].into_iter().filter(|(_, explanation)| !passes(explanation));
    let notes = blocked
        .map(|(protocol, explanation)| {
            let code = explanation.code.as_deref().unwrap_or("it does not get through");
            let (from, to) = (&from.name, &to.name);
            format!("{protocol}/{port} is blocked and was not measured ({code}): `localvpc explain {from} {to} {protocol}/{port}`")
        })
        .collect();
    // Within a VPC it is the private one, from elsewhere the public one.
    let send = [&tcp, &udp].into_iter().find_map(|explanation| explanation.send.as_ref());
    match send.map_or(to.ip, |send| send.packet.destination) {
        IpAddr::V4(address) => Ok((tests.collect(), address, notes)),
        IpAddr::V6(address) => Err(Failure::NothingToMeasure(format!(
            "{address} is an IPv6 address, which is not supported yet"
        ))),
    }
}

fn endpoint(client: &Client, instance: &InstanceView) -> Result<Endpoint, Failure> {
    let namespace = NamespaceRef::of(&client.run_dir, &instance.namespace);
    match instance.ip {
        IpAddr::V4(address) => Ok(Endpoint::open(&namespace.path, address)?),
        IpAddr::V6(address) => Err(Failure::NothingToMeasure(format!(
            "{address} is an IPv6 address, which is not supported yet"
        ))),
    }
}

/// The router with its ends; none, with a note, where nftables are not installed.
fn linux_router(
    from: &InstanceView,
    to: &InstanceView,
    port: u16,
    notes: &mut Vec<String>,
) -> Result<Option<(LinuxRouter, Ends)>, Failure> {
    let station = |name: &str, instance: &InstanceView, last| match instance.vpc.is_empty() {
        true => {
            Station { name: name.into(), address: Ipv4Addr::new(198, 51, 100, last), side: Side::Internet }
        }
        false => Station { name: name.into(), address: Ipv4Addr::new(10, 0, last, 10), side: Side::Inside },
    };
    match LinuxRouter::build(&[station("from", from, 1), station("to", to, 2)]) {
        Ok(router) => {
            let ends = Ends { from: router.endpoint("from")?, to: router.endpoint("to")?, port };
            Ok(Some((router, ends)))
        }
        Err(error @ linux_router::Error::NoNft) => {
            notes.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Each test here and there, one right after the other.
fn measure(tests: &[Test], lab: &Ends, linux: Option<&Ends>, seconds: f64) -> Result<Vec<Row>, Failure> {
    let time = Duration::from_secs_f64(seconds);
    let sides = if linux.is_some() { 2 } else { 1 };
    // Drawn on terminals only.
    let bar = ProgressBar::new((tests.len() * sides) as u64).with_style(style());
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut rows = Vec::new();
    for test in tests {
        bar.set_message(format!("{}: this lab", test.name()));
        let here = test.run(lab, time)?;
        bar.inc(1);
        let there = match linux {
            None => None,
            Some(linux) => {
                bar.set_message(format!("{}: Linux router", test.name()));
                let there = test.run(linux, time)?;
                bar.inc(1);
                Some(there)
            }
        };
        rows.extend(here.into_iter().enumerate().map(|(index, Value { name, unit, better, value: lab })| {
            // Both sides of a test yield the same values in the same order.
            let linux = there.as_ref().and_then(|there| there.get(index)).map(|it| it.value);
            Row { name, unit, better, lab, linux, ratio: linux.map(|linux| lab / linux) }
        }));
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {bar:24} {pos}/{len} {wide_msg}")
        // A constant, and valid.
        .unwrap()
}

fn table(report: &Report, to: &InstanceView) -> String {
    let Report { from, address, port, seconds, .. } = report;
    let mut table = output::table(&["", "THIS LAB", "LINUX ROUTER", "RATIO", "UNIT"]);
    for row in &report.rows {
        let unit = match row.better {
            Better::Higher => row.unit.to_owned(),
            Better::Lower => format!("{}, less is better", row.unit),
        };
        table.add_row([
            row.name.clone(),
            number(row.lab),
            row.linux.map_or("-".into(), number),
            row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
            unit,
        ]);
    }
    let head = format!("{from} → {} {address}:{port}, {seconds} s each\n\n", to.name);
    head + &output::lines(&table, "")
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value {
        10_000.0.. => format!("{:.0}", (value / 100.0).round() * 100.0),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1.234, 12.34, 123.4, 1234.0, 123_456.0].map(number),
            ["1.23", "12.3", "123", "1234", "123500"]
        );
    }
}

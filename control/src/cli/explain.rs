//! `localvpc explain`: would it get through, and which rule says so.
//!
//! Exit codes: 0 reachable, 1 blocked, 2 error, 3 undecidable.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use localvpc_api::trace::Protocol;
use owo_colors::{OwoColorize, Style};

use super::client::Client;
use super::connections::end;
use super::file::{self, FileLab};
use super::{Failure, Format, Global, is_root, output, probing};
use crate::analysis::{Ranges, matrix};
use crate::explain;
use crate::view::{
    ApplyRequest, CountersView, ExplainOutcome, ExplainRequest, ExplainStep, Explanation, StatusView,
};

/// Tell whether a connection would get through, and what is in its way
///
/// The file's rules are analysed for all source ports at once, there and back, past every refusal: each thing in the way is
/// told with its line and what would help. Where the lab runs, the dataplane is asked too. Nothing is sent, and
/// nothing changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
FROM and TO: an instance, an internet host, an address, `internet` (any address there), an internet gateway or a NAT gateway,
by name, as VPC/NAME, or by id.

Exit codes: 0 reachable, 1 blocked, 2 error, 3 undecidable, or it depends on what the question leaves open.

Examples:
  localvpc explain app example tcp/443
  localvpc explain internet app tcp/22
  localvpc explain app example tcp/443 --offline two-tier.yaml      no lab, no root
  sudo localvpc explain web db tcp/5432 --probe                      send the packet, too
  localvpc explain web 10.0.2.20 icmp --packets
  localvpc explain --all                                             who reaches whom
  localvpc explain --all tcp/443 --svg > matrix.svg
  localvpc explain app 198.51.100.10 udp/53 -o json | jq -r .code")]
pub struct Args {
    /// Who sends; with --all, PROTOCOL[/PORT]
    #[arg(required_unless_present = "all")]
    from: Option<String>,
    /// Who should receive
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    to: Option<String>,
    /// tcp/PORT, udp/PORT, icmp, or a protocol number
    #[arg(value_name = "PROTOCOL[/PORT]", required_unless_present = "all", conflicts_with = "all")]
    traffic: Option<Traffic>,
    /// Who reaches whom, as a table: what gets through between all instances and the internet
    #[arg(long, conflicts_with_all = ["probe", "packets", "source_port", "source_address"])]
    all: bool,
    /// With --all: as CSV
    #[arg(long, requires = "all")]
    csv: bool,
    /// With --all: as a picture
    #[arg(long, requires = "all", conflicts_with = "csv")]
    svg: bool,
    /// Source port, or a range of them [default: Linux's ephemeral range, 32768-60999]
    #[arg(long, value_name = "PORT[-PORT]")]
    source_port: Option<Ports>,
    /// Send from this address instead of the sender's own
    #[arg(long, value_name = "ADDRESS")]
    source_address: Option<Ipv4Addr>,
    /// Analyse a file, without a lab and without root
    #[arg(long, value_name = "FILE")]
    offline: Option<PathBuf>,
    /// Send the packet, too, from the sender's namespace, and look whether it arrives and is answered
    #[arg(long, conflicts_with = "offline")]
    probe: bool,
    /// Show the packet as it comes to each stage
    #[arg(long)]
    packets: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.all {
        return all(&args, global);
    }
    // `clap` has seen to it that they are there.
    let (Some(from), Some(to), Some(traffic)) = (args.from, args.to, args.traffic) else {
        return Err(Failure::Usage("FROM, TO and PROTOCOL[/PORT] say what is asked".into()));
    };
    let request = ExplainRequest {
        from,
        to,
        protocol: traffic.protocol,
        port: traffic.port,
        source_port: args.source_port.map(|ports| ports.from),
        source_port_to: args.source_port.map(|ports| ports.to),
        source_address: args.source_address,
    };
    let explanation: Explanation = match &args.offline {
        Some(path) => offline(path, &request)?,
        None if args.probe => probed(&Client::of(global)?, &request)?,
        None => Client::of(global)?.tell("/v1/explain", &request)?,
    };
    match global.output {
        Format::Json => output::print_json(&explanation)?,
        Format::Table => output::print(&render(&explanation, args.packets))?,
    }
    Ok(ExitCode::from(exit_code(probing::outcome(&explanation))))
}

/// Who reaches whom.
fn all(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    let traffic = match &args.from {
        None => matrix::Traffic::everything(),
        Some(text) => {
            let Traffic { protocol, port } = text.parse().map_err(Failure::Usage)?;
            let protocol = match protocol.as_str() {
                "tcp" => Protocol::TCP,
                "udp" => Protocol::UDP,
                "icmp" => Protocol::ICMP,
                // It was parsed as a number.
                number => Protocol(number.parse().unwrap_or_default()),
            };
            vec![matrix::Traffic { protocol, ports: Ranges::one(port.unwrap_or(0).into()) }]
        }
    };
    let lab = match &args.offline {
        Some(path) => FileLab::read(Some(path))?,
        None => {
            let ApplyRequest { file, text, .. } = Client::of(global)?.ask("/v1/document")?;
            FileLab::of(&file::Document { path: file.into(), text })?
        }
    };
    let matrix = matrix::matrix(&lab.lowered.index, &lab.lowered.tables, &traffic);
    match (global.output, args.csv, args.svg) {
        (_, true, _) => output::print(&matrix.csv())?,
        (_, _, true) => output::print(&matrix.svg())?,
        (Format::Json, ..) => output::print_json(&matrix)?,
        (Format::Table, ..) => output::print(&table(&matrix))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(matrix: &matrix::Matrix) -> String {
    let corner = "FROM \\ TO".to_owned();
    let header: Vec<&str> =
        std::iter::once(corner.as_str()).chain(matrix.ends.iter().map(String::as_str)).collect();
    let mut table = output::table(&header);
    for (name, row) in matrix.ends.iter().zip(&matrix.rows) {
        table.add_row(std::iter::once(name.as_str()).chain(row.iter().map(matrix::Cell::text)));
    }
    let mut text = output::lines(&table, "");
    if text.contains('*') {
        text += "* from some addresses or source ports only\n";
    }
    text
}

/// What the lab says, and a packet that was sent in it.
fn probed(client: &Client, request: &ExplainRequest) -> Result<Explanation, Failure> {
    if !is_root() {
        return Err(Failure::NeedsRoot { verb: "explain --probe" });
    }
    let mut explanation: Explanation = client.tell("/v1/explain", request)?;
    let status: StatusView = client.ask("/v1/status")?;
    let before: CountersView = client.ask("/v1/counters")?;
    explanation.probe = probing::probe(&client.run_dir, &status, &explanation)?;
    match &mut explanation.probe {
        Some(probe) => {
            if probe.answer.is_none() {
                probe.discarded = probing::discarded(client, &before)?;
            }
            if !probe.agrees {
                let note = "The packet does not do what the analysis says: a program, a firewall or a route inside one of the \
                            namespaces may be the reason.";
                explanation.notes.push(note.into());
            }
        }
        None => {
            let why = explanation.unsendable.as_deref().unwrap_or("nobody can send it");
            explanation.notes.push(format!("No packet was sent: {why}."));
        }
    }
    Ok(explanation)
}

/// What a file alone says.
fn offline(path: &Path, request: &ExplainRequest) -> Result<Explanation, Failure> {
    let lab = FileLab::read(Some(path))?;
    let asked = explain::resolve(&lab.lowered.index, request).map_err(Failure::Daemon)?;
    Ok(explain::answer(&lab.lowered.index, &lab.lowered.tables, &asked))
}

fn exit_code(outcome: ExplainOutcome) -> u8 {
    match outcome {
        ExplainOutcome::Reachable => 0,
        ExplainOutcome::Blocked => 1,
        ExplainOutcome::Partial | ExplainOutcome::Undecidable => 3,
    }
}

/// Source ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    from: u16,
    to: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if from <= to => Ok(Self { from, to }),
            _ => Err(format!("`{text}` is neither a port nor a range of ports such as 32768-60999")),
        }
    }
}

/// What kind of packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// `tcp`, `udp`, `icmp` or a number.
    pub protocol: String,
    /// The destination port, of TCP and UDP.
    pub port: Option<u16>,
}

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, port) = match text.split_once(['/', ':']) {
            Some((protocol, port)) => (protocol, Some(port)),
            None => (text, None),
        };
        let protocol = protocol.to_lowercase();
        match (protocol.as_str(), port) {
            ("tcp" | "udp", Some(port)) => match port.parse() {
                Ok(port) if port > 0 => Ok(Self { protocol, port: Some(port) }),
                _ => Err(format!("`{port}` is no port: 1 to 65535")),
            },
            ("tcp" | "udp", None) => Err(format!("{protocol} needs a port: {protocol}/443")),
            (_, Some(_)) => Err("only tcp and udp have ports".into()),
            ("icmp", None) => Ok(Self { protocol, port: None }),
            (number, None) if number.parse::<u8>().is_ok() => Ok(Self { protocol, port: None }),
            _ => Err("expected tcp/PORT, udp/PORT, icmp, or a protocol number from 0 to 255".into()),
        }
    }
}

/// Columns of a step: place, component, decision, source, and what only some steps have.
type Columns = [String; 5];

/// The explanation as a person reads it.
pub fn render(explanation: &Explanation, with_packets: bool) -> String {
    let ways = [("out", &explanation.forward), ("back", &explanation.back)];
    let rows: Vec<(&str, &ExplainStep, Columns)> = ways
        .iter()
        .flat_map(|(way, steps)| {
            // Behind a refusal only what refuses as well is worth a line.
            let shown = steps.iter().filter(|step| !step.beyond || !step.pass);
            shown.enumerate().map(move |(index, step)| {
                (if index == 0 { *way } else { "" }, step, columns(explanation, step, with_packets))
            })
        })
        .collect();
    let mut widths = [0; 5];
    for (_, _, columns) in &rows {
        for (width, column) in widths.iter_mut().zip(columns) {
            *width = (*width).max(column.chars().count());
        }
    }

    let (outcome, style) = match explanation.outcome {
        ExplainOutcome::Reachable => ("reachable", Style::new().green().bold()),
        ExplainOutcome::Blocked => ("blocked", Style::new().red().bold()),
        ExplainOutcome::Partial => ("depends", Style::new().yellow().bold()),
        ExplainOutcome::Undecidable => ("undecidable", Style::new().yellow().bold()),
    };
    let question = format!("{} → {} {}", explanation.from, explanation.to, explanation.protocol);
    // The outcome stands above the column of sources.
    let width = INDENT + widths[..3].iter().map(|width| width + GAP).sum::<usize>() - GAP;
    let mut text = format!("{question:<width$}  {}\n", outcome.style(style));
    for (way, step, columns) in rows {
        let cells: Vec<_> =
            columns.iter().zip(widths).map(|(column, width)| format!("{column:<width$}")).collect();
        let line = cells.join(&" ".repeat(GAP));
        let style = if step.pass { Style::new() } else { Style::new().red() };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {way:<6}{}", line.trim_end().style(style));
    }
    if let (Some(code), true) =
        (&explanation.code, explanation.forward.iter().chain(&explanation.back).all(|step| step.pass))
    {
        let _ = writeln!(text, "{:INDENT$}{}", "", code.red());
    }
    let advice: Vec<&str> = explanation.advice.iter().flat_map(|advice| advice.lines()).collect();
    for (at, line) in advice.iter().enumerate() {
        let number = if advice.len() > 1 { format!("{}. ", at + 1) } else { String::new() };
        let _ = writeln!(text, "{:INDENT$}{number}{line}", "");
    }
    if let Some(probe) = &explanation.probe {
        let style = if probe.agrees { Style::new() } else { Style::new().red() };
        let _ = writeln!(text, "  probe {}", probing::line(probe).style(style));
    }
    for note in &explanation.notes {
        let _ = writeln!(text, "{:INDENT$}{}", "", note.yellow());
    }
    text
}

/// Where the first column begins.
const INDENT: usize = 8;
/// Blanks between columns.
const GAP: usize = 2;

fn columns(explanation: &Explanation, step: &ExplainStep, with_packets: bool) -> Columns {
    let code = step.code.as_deref().or(explanation.code.as_deref()).filter(|_| !step.pass);
    let code = code.unwrap_or_default();
    let (source, mut rest) = match step.source.as_str() {
        "" => (code, String::new()),
        source => (source, code.to_owned()),
    };
    if with_packets {
        let it = step.packet;
        let packet = format!(
            "{} → {}",
            end(it.source, it.source_port, it.protocol),
            end(it.destination, it.destination_port, it.protocol)
        );
        rest = if rest.is_empty() { packet } else { format!("{packet}  {rest}") };
    }
    [step.place.clone(), step.component.clone(), step.decision.clone(), source.to_owned(), rest]
}

#[cfg(test)]
mod tests {
    use super::*;
    use localvpc_api::trace::{Protocol, Tuple};

    fn step(place: &str, component: &str, decision: &str, source: &str, pass: bool) -> ExplainStep {
        let packet = Tuple {
            source: "10.0.2.20".parse().unwrap(),
            destination: "198.51.100.10".parse().unwrap(),
            source_port: 40_000,
            destination_port: 443,
            protocol: Protocol::TCP,
        };
        ExplainStep {
            place: place.into(),
            component: component.into(),
            decision: decision.into(),
            source: source.into(),
            pass,
            packet,
            code: (!pass).then(|| "SUBNET_ACL_RESTRICTION".into()),
            component_id: None,
            beyond: false,
            place_id: None,
        }
    }

    fn plain(explanation: &Explanation, with_packets: bool) -> String {
        anstream::adapter::strip_str(&render(explanation, with_packets)).to_string()
    }

    #[test]
    fn columns_line_up() {
        let mut explanation = Explanation {
            from: "app 10.0.2.20".into(),
            to: "example 198.51.100.10:443".into(),
            protocol: "tcp".into(),
            outcome: ExplainOutcome::Reachable,
            code: None,
            forward: vec![
                step("eni app", "security group default out", "all traffic", "default", true),
                step(
                    "subnet private-a",
                    "route table private",
                    "0.0.0.0/0 → nat-a",
                    "two-tier.yaml:14",
                    true,
                ),
            ],
            back: vec![step("igw", "destination", "203.0.113.20 → 10.0.1.100", "", true)],
            advice: None,
            notes: Vec::new(),
            dataplane: None,
            send: None,
            unsendable: None,
            probe: None,
            analysis: None,
        };
        let expected = "\
app 10.0.2.20 → example 198.51.100.10:443 tcp                                    reachable
  out   eni app           security group default out  all traffic                default
        subnet private-a  route table private         0.0.0.0/0 → nat-a          two-tier.yaml:14
  back  igw               destination                 203.0.113.20 → 10.0.1.100
";
        assert_eq!(plain(&explanation, false), expected);
        assert!(
            plain(&explanation, true).contains("two-tier.yaml:14  10.0.2.20:40000 → 198.51.100.10:443\n")
        );

        explanation.outcome = ExplainOutcome::Blocked;
        explanation.code = Some("SUBNET_ACL_RESTRICTION".into());
        explanation.advice = Some("Allow it.".into());
        explanation.forward[1].pass = false;
        explanation.forward[1].code = Some("SUBNET_ACL_RESTRICTION".into());
        explanation.back.clear();
        let text = plain(&explanation, false);
        assert!(text.ends_with("two-tier.yaml:14  SUBNET_ACL_RESTRICTION\n        Allow it.\n"), "{text}");
    }

    #[test]
    fn traffic_is_a_protocol_with_its_port() {
        let parsed = |text: &str| Traffic::from_str(text).map(|it| (it.protocol, it.port));
        assert_eq!(parsed("TCP/443"), Ok(("tcp".into(), Some(443))));
        assert_eq!(parsed("icmp"), Ok(("icmp".into(), None)));
        assert_eq!(parsed("47"), Ok(("47".into(), None)));
        for wrong in ["tcp", "tcp/0", "tcp/65536", "icmp/8", "256", "http", ""] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}

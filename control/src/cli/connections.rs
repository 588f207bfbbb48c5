//! `localvpc connections`: what security groups track.

use std::process::ExitCode;
use std::time::Duration;

use localvpc_api::report::{Connection, ConnectionState, Initiator};
use localvpc_api::trace::Protocol;

use super::client::Client;
use super::{Failure, Format, Global, output};
use crate::view::Named;

/// List tracked connections, one line per network interface that tracks them
///
/// AWS tracks a connection at every network interface it crosses, so a connection between two instances
/// appears twice. Flows that a security group admits without tracking (all traffic, both ways) do not
/// appear.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc connections
  localvpc connections db
  localvpc connections -o json | jq '.[] | select(.state == \"established\")'")]
pub struct Args {
    /// Only those of this network interface (the instance's name)
    eni: Option<String>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let client = Client::of(global)?;
    let mut connections: Vec<Named<Connection>> = client.ask("/v1/connections")?;
    if let Some(eni) = &args.eni {
        // `vpc/name` too: instances have one name in the whole lab.
        let name = eni.rsplit('/').next().unwrap_or(eni);
        connections.retain(|connection| connection.name == name);
        if connections.is_empty() {
            client.require("instance", eni)?;
        }
    }
    match global.output {
        Format::Json => output::print_json(&connections)?,
        Format::Table if connections.is_empty() => output::say("no connection is tracked now"),
        Format::Table => output::print(&table(&connections))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(connections: &[Named<Connection>]) -> String {
    let mut table = output::table(&[
        "ENI", "PROTOCOL", "LOCAL", "", "REMOTE", "STATE", "IDLE", "TIMEOUT", "SENT", "RECEIVED",
    ]);
    for Named { name, row } in connections {
        let tuple = row.outbound;
        table.add_row([
            name.clone(),
            tuple.protocol.to_string(),
            end(tuple.source, tuple.source_port, tuple.protocol),
            // The arrow points to where the first packet went.
            if row.initiator == Initiator::Local { "→" } else { "←" }.to_owned(),
            end(tuple.destination, tuple.destination_port, tuple.protocol),
            state(row.state).to_owned(),
            output::duration(Duration::from_millis(row.idle_ms)),
            output::duration(Duration::from_millis(row.timeout_ms)),
            output::traffic(row.sent),
            output::traffic(row.received),
        ]);
    }
    output::lines(&table, "")
}

/// `10.0.1.10:443`; without the port for a protocol that has none.
pub fn end(address: std::net::IpAddr, port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP | Protocol::UDP => format!("{address}:{port}"),
        // The far end of a NAT gateway's echo has no identifier.
        Protocol::ICMP | Protocol::ICMPV6 if port != 0 => format!("{address} id {port}"),
        _ => address.to_string(),
    }
}

/// The state as one word.
pub fn state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::New => "new",
        ConnectionState::Established => "established",
        ConnectionState::Closing => "closing",
        ConnectionState::Closed => "closed",
    }
}

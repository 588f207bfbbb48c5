//! `localvpc nat`: the leases of NAT gateways.

use std::process::ExitCode;
use std::time::Duration;

use localvpc_api::report::Lease;

use super::client::Client;
use super::connections::{end, state};
use super::{Failure, Format, Global, output};
use crate::view::Named;

/// List the leases of NAT gateways: which source port stands for which connection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc nat
  localvpc nat nat-a
  localvpc nat -o json | jq -r '.[].port' | sort -n | uniq -d     # a port may serve several destinations")]
pub struct Args {
    /// Only those of this NAT gateway
    nat_gateway: Option<String>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let client = Client::of(global)?;
    let mut leases: Vec<Named<Lease>> = client.ask("/v1/nat")?;
    if let Some(gateway) = &args.nat_gateway {
        // A lease names the VPC of its gateway where two VPCs have one of that name; the argument may do so, or not.
        let is_meant = |name: &str| {
            let ends =
                |long: &str, short: &str| long.strip_suffix(short).is_some_and(|vpc| vpc.ends_with('/'));
            name == gateway || ends(name, gateway) || ends(gateway, name)
        };
        leases.retain(|lease| is_meant(&lease.name));
        if leases.is_empty() {
            client.require("NAT gateway", gateway)?;
        }
    }
    match global.output {
        Format::Json => output::print_json(&leases)?,
        Format::Table if leases.is_empty() => output::say("no NAT gateway has a lease now"),
        Format::Table => output::print(&table(&leases))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(leases: &[Named<Lease>]) -> String {
    let mut table = output::table(&[
        "NAT GATEWAY",
        "PROTOCOL",
        "FROM",
        "AS",
        "TO",
        "STATE",
        "IDLE",
        "TIMEOUT",
        "OUT",
        "BACK",
    ]);
    for Named { name, row } in leases {
        table.add_row([
            name.clone(),
            row.protocol.to_string(),
            end(row.inside.source, row.inside.source_port, row.protocol),
            end(row.address, row.port, row.protocol),
            end(row.inside.destination, row.inside.destination_port, row.protocol),
            state(row.state).to_owned(),
            output::duration(Duration::from_millis(row.idle_ms)),
            output::duration(Duration::from_millis(row.timeout_ms)),
            output::traffic(row.out),
            output::traffic(row.back),
        ]);
    }
    output::lines(&table, "")
}

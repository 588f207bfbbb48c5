//! `localvpc nat`: the leases of NAT gateways, and their metrics.

use std::process::ExitCode;
use std::time::Duration;

use localvpc_api::report::Lease;

use super::client::Client;
use super::connections::{end, state};
use super::{Failure, Format, Global, output};
use crate::view::{CountersView, Named, NatGatewayMetrics};

/// List the leases of NAT gateways: which source port stands for which connection
///
/// With --metrics, show what CloudWatch shows of a NAT gateway, under the same names. All numbers are since the
/// dataplane started; ActiveConnectionCount is of now, and the Peak metrics are the highest average over 10 seconds
/// within the last minute. What arrives and what leaves differ by what the gateway itself dropped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc nat
  localvpc nat nat-a
  localvpc nat --metrics
  localvpc nat --metrics -o json | jq '.[] | {Name, ErrorPortAllocation}'
  localvpc nat -o json | jq -r '.[].port' | sort -n | uniq -d     # a port may serve several destinations")]
pub struct Args {
    /// Only those of this NAT gateway
    nat_gateway: Option<String>,
    /// Show metrics as in CloudWatch instead
    #[arg(long)]
    metrics: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.metrics {
        return metrics(&args, global);
    }
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

fn metrics(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    let counters: CountersView = Client::of(global)?.ask("/v1/counters")?;
    let asked = |row: &NatGatewayMetrics| args.nat_gateway.as_ref().is_none_or(|name| row.name == *name);
    let all: Vec<_> = counters.nat_gateways.iter().map(NatGatewayMetrics::from).filter(asked).collect();
    match global.output {
        Format::Json => output::print_json(&all)?,
        Format::Table if all.is_empty() => output::say("the lab has no such NAT gateway"),
        Format::Table => output::print(&metrics_table(&all))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per metric, one column per gateway.
fn metrics_table(all: &[NatGatewayMetrics]) -> String {
    let header: Vec<&str> = ["METRIC"].into_iter().chain(all.iter().map(|row| row.name.as_str())).collect();
    let mut table = output::table(&header);
    // The names are those of the JSON, so that they exist once.
    let values: Vec<serde_json::Value> = all.iter().map(|row| serde_json::json!(row)).collect();
    let names = values.first().and_then(serde_json::Value::as_object);
    for name in names.into_iter().flatten().map(|(name, _)| name).filter(|name| *name != "Name") {
        let numbers = values.iter().map(|row| row[name].to_string());
        table.add_row([name.clone()].into_iter().chain(numbers));
    }
    output::lines(&table, "")
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

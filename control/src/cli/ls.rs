//! `localvpc ls`: instances and internet hosts, and where they are.

use std::net::IpAddr;
use std::process::ExitCode;

use super::client::Client;
use super::{Failure, Format, Global, output};
use crate::view::{InstanceView, ProcessView, SecondaryIpView, StatusView};

/// List instances and internet hosts, and where they are
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc ls
  localvpc ls -o json | jq -r '.[] | select(.public_ip) | .name'
  ip netns exec $(localvpc ls -o json | jq -r '.[0].namespace') ip address")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let status: StatusView = Client::of(global)?.ask("/v1/status")?;
    match global.output {
        Format::Json => output::print_json(&status.instances)?,
        Format::Table => output::print(&output::cut(&table(&status.instances, "")))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per instance.
pub fn table(instances: &[InstanceView], indent: &str) -> String {
    let mut table =
        output::table(&["NAME", "SUBNET", "ADDRESS", "PUBLIC", "SECURITY GROUPS", "NAMESPACE", "RUNS"]);
    for instance in instances {
        table.add_row([
            instance.name.clone(),
            place(instance),
            addresses(instance, |primary, second| Some(second.map_or(primary.ip, |second| second.ip))),
            addresses(instance, |primary, second| {
                second.map_or(primary.public_ip, |second| second.public_ip)
            }),
            instance.security_groups.join(", "),
            format!("{}{}", instance.namespace, if instance.shared { " (shared)" } else { "" }),
            instance.processes.iter().map(process).collect::<Vec<_>>().join("; "),
        ]);
    }
    output::lines(&table, indent)
}

/// One address of each pair of a private and a public one, the primary pair first.
fn addresses(
    instance: &InstanceView,
    one: impl Fn(&InstanceView, Option<&SecondaryIpView>) -> Option<IpAddr>,
) -> String {
    let pairs = std::iter::once(None).chain(instance.secondary_ips.iter().map(Some));
    let all = pairs.filter_map(|second| one(instance, second)).map(|address| address.to_string());
    all.collect::<Vec<_>>().join(", ")
}

fn place(instance: &InstanceView) -> String {
    match (instance.vpc.as_str(), instance.subnet.as_str()) {
        ("", _) => "internet".into(),
        (vpc, subnet) => format!("{vpc}/{subnet}"),
    }
}

/// `localvpc serve 80`, or how it ended.
fn process(process: &ProcessView) -> String {
    match &process.ended {
        Some(ended) => format!("{} ({ended})", process.command),
        None => process.command.clone(),
    }
}

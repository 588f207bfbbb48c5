//! What to try next, with names of the lab at hand.

use std::iter;

use super::client::Client;
use super::{Failure, lab};
use crate::view::{ExplainOutcome, ExplainRequest, Explanation, InstanceView, StatusView};

/// Most questions put to the daemon in order to find a hint that works.
const QUESTIONS: usize = 12;

/// A few commands that work in this lab.
///
/// # Errors
/// Where the daemon does not say what there is.
pub fn what_next(client: &Client) -> Result<String, Failure> {
    let status: StatusView = client.ask("/v1/status")?;
    let mut lines = Vec::new();
    let tries = tries(&status);
    if let Some(it) = tries.iter().take(QUESTIONS).find(|it| it.is_reachable(client)) {
        lines.extend(it.lines());
    }
    lines.extend(["status".to_owned(), "down".to_owned()]);
    let others = lab::running().iter().any(|lab| lab != client.lab());
    let which = if others { format!(" --lab {}", client.lab()) } else { String::new() };
    let lines: Vec<_> = lines.iter().map(|line| format!("  localvpc{which} {line}\n")).collect();
    Ok(format!("Try:\n{}", lines.concat()))
}

/// Something to send.
struct Try<'a> {
    from: &'a InstanceView,
    to: &'a InstanceView,
    /// A port that is served, or else a ping.
    port: Option<u16>,
}

/// What could be sent, the most telling first: out of an instance without a public address, to an internet
/// host, which then sees the NAT gateway's address.
fn tries(status: &StatusView) -> Vec<Try<'_>> {
    // What shares a namespace or is attached may send from another address than its own.
    let speaks_for_itself = |it: &&&InstanceView| !it.shared && !it.namespace.starts_with('/');
    let (mut instances, hosts): (Vec<_>, Vec<_>) = status.instances.iter().partition(|it| !it.vpc.is_empty());
    instances.sort_by_key(|it| it.public_ip.is_some());
    let mut tries = Vec::new();
    for &from in instances.iter().filter(speaks_for_itself) {
        for &to in hosts.iter().chain(&instances).filter(|to| to.namespace != from.namespace) {
            let ports = served_ports(to).into_iter().map(Some).chain(iter::once(None));
            tries.extend(ports.map(|port| Try { from, to, port }));
        }
    }
    // Stable: a page says more than a ping.
    tries.sort_by_key(|it| it.port.is_none());
    tries
}

impl Try<'_> {
    fn is_reachable(&self, client: &Client) -> bool {
        let protocol = if self.port.is_some() { "tcp" } else { "icmp" };
        let request = ExplainRequest::new(&self.from.name, &self.to.name, protocol, self.port);
        // A hint is not worth an error.
        client
            .tell::<Explanation>("/v1/explain", &request)
            .is_ok_and(|explanation| explanation.outcome == ExplainOutcome::Reachable)
    }

    fn lines(&self) -> [String; 2] {
        let Self { from: InstanceView { name: from, .. }, to, port } = self;
        let InstanceView { name, .. } = to;
        match port {
            Some(port) => {
                let colon_port = if *port == 80 { String::new() } else { format!(":{port}") };
                [
                    format!("exec {from} -- curl -s http://{name}{colon_port}/"),
                    format!("explain {from} {name} tcp/{port}"),
                ]
            }
            None => [format!("exec {from} -- ping -c1 {name}"), format!("explain {from} {name} icmp")],
        }
    }
}

/// The ports of its `localvpc serve`.
fn served_ports(instance: &InstanceView) -> Vec<u16> {
    let arguments = instance.processes.iter().filter_map(|process| process.command.split_once("serve "));
    arguments
        .flat_map(|(_, arguments)| arguments.split_whitespace().map_while(|word| word.parse().ok()))
        .collect()
}

//! What to try next, with names and addresses of the lab at hand.

use std::iter;

use super::Failure;
use super::client::Client;
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
    let works = |it: &&Try| it.is_reachable(client);
    if let Some(it) = tries.iter().take(QUESTIONS).find(works).or(tries.first()) {
        lines.extend(it.lines());
    }
    lines.extend(["localvpc status".to_owned(), "localvpc down".to_owned()]);
    let lines: Vec<_> = lines.iter().map(|line| format!("  {line}\n")).collect();
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
    let (mut instances, hosts): (Vec<_>, Vec<_>) = status.instances.iter().partition(|it| !it.vpc.is_empty());
    instances.sort_by_key(|it| it.public_ip.is_some());
    let mut tries = Vec::new();
    for &from in &instances {
        for &to in hosts.iter().chain(&instances).filter(|to| to.name != from.name) {
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
        let request = ExplainRequest {
            from: self.from.name.clone(),
            to: self.to.name.clone(),
            protocol: if self.port.is_some() { "tcp" } else { "icmp" }.into(),
            port: self.port,
            source_port: None,
        };
        // A hint is not worth an error.
        client
            .tell::<Explanation>("/v1/explain", &request)
            .is_ok_and(|explanation| explanation.outcome == ExplainOutcome::Reachable)
    }

    fn lines(&self) -> [String; 2] {
        let Self { from: InstanceView { name: from, .. }, to, port } = self;
        let InstanceView { name, ip, .. } = to;
        match port {
            Some(port) => {
                let colon_port = if *port == 80 { String::new() } else { format!(":{port}") };
                [
                    format!("localvpc exec {from} -- curl -s http://{ip}{colon_port}/"),
                    format!("localvpc explain {from} {name} tcp/{port}"),
                ]
            }
            None => [
                format!("localvpc exec {from} -- ping -c1 {ip}"),
                format!("localvpc explain {from} {name} icmp"),
            ],
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

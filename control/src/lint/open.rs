//! What is open to everyone: `0.0.0.0/0` to databases and to ways to administer.

use localvpc_api::tables::{PortRange, Traffic};
use localvpc_api::trace::Direction;

use crate::config::document::SgRuleSection;
use crate::config::values::PeerWord;

use super::catalog::*;
use super::security_groups::{peers, traffic_span};
use super::subject::{Findings, Pair, Subject, rules};

/// Looks at the inbound rules of all groups that an instance carries.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for group in pair.security_groups().filter(|group| pair.members(&group.name).next().is_some()) {
            for rule in rules(&group.value, Direction::Inbound) {
                let everyone = peers(rule)
                    .find(|(peer, _)| matches!(peer, PeerWord::Cidr(net) if net.prefix_len() == 0));
                if let Some((_, span)) = everyone {
                    opened(pair, &group.name, rule, span, findings);
                }
            }
        }
    }
}

/// What listens there.
type Service = (u16, &'static str);

const ADMIN: &[Service] = &[
    (22, "SSH"),
    (23, "Telnet"),
    (2375, "Docker"),
    (2376, "Docker"),
    (3389, "RDP"),
    (5900, "VNC"),
    (5985, "WinRM"),
    (5986, "WinRM"),
    (6443, "Kubernetes"),
    (10250, "kubelet"),
];

const DATABASES: &[Service] = &[
    (445, "SMB"),
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (2049, "NFS"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (5432, "PostgreSQL"),
    (5439, "Redshift"),
    (5984, "CouchDB"),
    (6379, "Redis"),
    (9042, "Cassandra"),
    (9200, "Elasticsearch"),
    (9300, "Elasticsearch"),
    (11211, "memcached"),
    (27017, "MongoDB"),
];

fn opened(
    pair: Pair<'_>,
    group: &str,
    rule: &SgRuleSection,
    span: crate::config::Span,
    findings: &mut Findings,
) {
    let who = exposed(pair, group);
    if rule.all.is_some_and(|all| all.value) || rule.tcp.iter().any(|ports| ports.value == PortRange::ALL) {
        let what = if rule.all.is_some() { "everything" } else { "every TCP port" };
        let message = format!("security group `{group}` lets everyone reach {what}{who}");
        findings
            .add(&EVERYTHING_OPEN_TO_THE_WORLD, span, message)
            .related(traffic_span(rule), "all of it")
            .help("admit the ports that are served, from those who need them.");
        return;
    }
    for (lint, services, help) in [
        (
            &ADMIN_PORT_OPEN_TO_THE_WORLD,
            ADMIN,
            "name the range that administrators come from, or a bastion's security group.",
        ),
        (
            &DATABASE_PORT_OPEN_TO_THE_WORLD,
            DATABASES,
            "name the security group of its clients: `from: app`, for example.",
        ),
    ] {
        let tcp = rule.tcp.iter().map(|ports| Traffic::Tcp(ports.value));
        let udp = rule.udp.iter().map(|ports| Traffic::Udp(ports.value));
        let names: Vec<String> = tcp.chain(udp).flat_map(|traffic| served(traffic, services)).collect();
        if !names.is_empty() {
            let message = format!("security group `{group}` lets everyone reach {}{who}", names.join(", "));
            findings.add(lint, span, message).help(help);
        }
    }
}

/// `SSH (tcp 22)`. UDP has few of them.
fn served(traffic: Traffic, services: &[Service]) -> Vec<String> {
    let (word, ports) = match traffic {
        Traffic::Tcp(ports) => ("tcp", ports),
        Traffic::Udp(ports) => ("udp", ports),
        _ => return Vec::new(),
    };
    let is_here = |(port, _): &&Service| ports.contains(*port) && (word == "tcp" || UDP.contains(port));
    services.iter().filter(is_here).map(|(port, name)| format!("{name} ({word} {port})")).collect()
}

/// Services that also answer UDP.
const UDP: &[u16] = &[2049, 3389, 11211];

/// Who of the members the internet can name.
fn exposed(pair: Pair<'_>, group: &str) -> String {
    let public = pair.members(group).find_map(|it| Some((&it.name, it.public?.ip)));
    match public {
        Some((name, ip)) => format!(" on `{name}`, which the internet knows as {ip}"),
        None => "; no member has a public address, so that is everyone who has a way into the VPC".into(),
    }
}

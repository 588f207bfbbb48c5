//! A random lab as a file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::world::{Acl, Group, Net, Peer, Target, Traffic, Vpc, World};

/// The file of a lab, up to its `expect:`.
pub fn of(world: &World) -> String {
    let mut text = String::from("lab: random\nvpcs:\n");
    for (at, vpc) in world.vpcs.iter().enumerate() {
        write_vpc(&mut text, at, vpc);
    }
    text += "internet:\n  hosts:\n";
    for (at, host) in world.hosts.iter().enumerate() {
        let _ = writeln!(text, "    {}: {{ ip: {} }}", host_name(at), ip(*host));
    }
    text
}

/// The name of an instance.
pub fn instance_name(vpc: usize, instance: usize) -> String {
    format!("{}{instance}", ["a", "b"][vpc])
}

/// The name of a VPC.
pub fn vpc_name(vpc: usize) -> &'static str {
    ["one", "two"][vpc]
}

/// The name of a host.
pub fn host_name(host: usize) -> String {
    format!("host{host}")
}

/// An address as people write it.
pub fn ip(address: u32) -> Ipv4Addr {
    Ipv4Addr::from(address)
}

// Writing to a String cannot fail.
fn write_vpc(text: &mut String, at: usize, vpc: &Vpc) {
    let name = vpc_name(at);
    let _ = writeln!(text, "  {name}:\n    cidr: {}\n    main_route_table: t0", net(vpc.cidr));
    if vpc.gateway {
        let _ = writeln!(text, "    internet_gateway: igw-{name}");
    }
    *text += "    subnets:\n";
    for (number, subnet) in vpc.subnets.iter().enumerate() {
        // The main route table is that of every subnet which names none (RT-3).
        let table =
            if subnet.table == 0 { String::new() } else { format!(", route_table: t{}", subnet.table) };
        let shared = if subnet.shared { ", namespace: shared" } else { "" };
        let _ = writeln!(
            text,
            "      {name}-s{number}: {{ cidr: {}, network_acl: l{}{table}{shared} }}",
            net(subnet.cidr),
            subnet.acl
        );
    }
    *text += "    route_tables:\n";
    for (number, routes) in vpc.tables.iter().enumerate() {
        let routes = routes.iter().map(|(to, target)| {
            let via = match target {
                Target::Gateway => format!("igw-{name}"),
                Target::Nat(nat) => format!("nat-{name}-{nat}"),
                Target::Instance(instance) => instance_name(at, *instance),
                Target::Blackhole => "blackhole".into(),
            };
            format!("{{ to: {}, via: {via} }}", net(*to))
        });
        let _ = writeln!(text, "      t{number}: {}", list(routes));
    }
    if !vpc.nats.is_empty() {
        *text += "    nat_gateways:\n";
    }
    for (number, nat) in vpc.nats.iter().enumerate() {
        let public =
            nat.public.map_or("connectivity: private".into(), |public| format!("eip: {}", ip(public)));
        let _ = writeln!(
            text,
            "      nat-{name}-{number}: {{ subnet: {name}-s{}, ip: {}, {public} }}",
            nat.subnet,
            ip(nat.address)
        );
    }
    *text += "    network_acls:\n";
    for (number, Acl { inbound, outbound }) in vpc.acls.iter().enumerate() {
        let _ = writeln!(
            text,
            "      l{number}:\n        inbound: {}\n        outbound: {}",
            entries(inbound, "from"),
            entries(outbound, "to")
        );
    }
    *text += "    security_groups:\n";
    for (number, Group { inbound, outbound }) in vpc.groups.iter().enumerate() {
        let _ = writeln!(
            text,
            "      g{number}:\n        inbound: {}\n        outbound: {}",
            rules(inbound, "from"),
            rules(outbound, "to")
        );
    }
    *text += "    instances:\n";
    for (number, instance) in vpc.instances.iter().enumerate() {
        let address = |(private, public): &(u32, Option<u32>)| {
            let public = public.map(|public| format!(", eip: {}", ip(public))).unwrap_or_default();
            format!("ip: {}{public}", ip(*private))
        };
        let others = instance.addresses[1..].iter().map(|it| format!("{{ {} }}", address(it)));
        let groups = instance.groups.iter().map(|group| format!("g{group}"));
        let _ = writeln!(
            text,
            "      {}: {{ subnet: {name}-s{}, {}, secondary_ips: {}, security_groups: {}, source_dest_check: {} }}",
            instance_name(at, number),
            instance.subnet,
            address(&instance.addresses[0]),
            list(others),
            list(groups),
            instance.checks
        );
    }
}

fn entries(all: &[(bool, Traffic, Net)], side: &str) -> String {
    list(all.iter().zip((10..).step_by(10)).map(|((allows, traffic, far), number)| {
        let (protocol, more) = match traffic {
            Traffic::All => ("all".into(), String::new()),
            Traffic::Tcp(from, to) => ("tcp".into(), format!(", ports: {from}-{to}")),
            Traffic::Udp(from, to) => ("udp".into(), format!(", ports: {from}-{to}")),
            Traffic::Icmp(kind) => ("icmp".into(), format!(", type: {}", icmp(*kind))),
            Traffic::Protocol(6) => ("tcp".into(), ", ports: all".into()),
            Traffic::Protocol(17) => ("udp".into(), ", ports: all".into()),
            Traffic::Protocol(other) => (other.to_string(), String::new()),
        };
        let action = if *allows { "allow" } else { "deny" };
        format!("{{ rule: {number}, {action}: {protocol}{more}, {side}: {} }}", net(*far))
    }))
}

/// A group cannot have the same rule twice.
fn rules(all: &[(Traffic, Peer)], side: &str) -> String {
    let rules: BTreeSet<String> = all
        .iter()
        .map(|(traffic, peer)| {
            let traffic = match traffic {
                Traffic::All => "all: true".into(),
                Traffic::Tcp(from, to) => format!("tcp: {from}-{to}"),
                Traffic::Udp(from, to) => format!("udp: {from}-{to}"),
                Traffic::Icmp(kind) => format!("icmp: {}", icmp(*kind)),
                Traffic::Protocol(6) => "tcp: 0-65535".into(),
                Traffic::Protocol(17) => "udp: 0-65535".into(),
                Traffic::Protocol(other) => format!("protocol: {other}"),
            };
            let peer = match peer {
                Peer::Net(far) => net(*far),
                Peer::Group(group) => format!("g{group}"),
            };
            format!("{{ {traffic}, {side}: {peer} }}")
        })
        .collect();
    list(rules.into_iter())
}

fn icmp(kind: Option<u8>) -> String {
    kind.map_or_else(|| "all".into(), |kind| kind.to_string())
}

fn net((address, length): Net) -> String {
    format!("{}/{length}", ip(address))
}

fn list(items: impl Iterator<Item = String>) -> String {
    match items.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "[]".into(),
        some => format!("[ {some} ]"),
    }
}

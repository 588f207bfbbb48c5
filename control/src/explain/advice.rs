//! What would let a discarded packet through: what to add, and where.

use std::net::IpAddr;

use localvpc_api::DiscardReason;
use localvpc_api::trace::{Decision, Direction, Protocol, TraceStep, Tuple};

use crate::lower::Index;
use crate::model::{Instance, NatGateway, NatGatewayState, NetworkAcl, Target, Vpc};

/// Whether a packet is the first one or its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The first packet.
    Forward,
    /// Its reply.
    Back,
}

/// One sentence on what would help; `None` where nothing in the file would.
pub fn advice(index: &Index, reason: DiscardReason, step: Option<&TraceStep>, way: Way) -> Option<String> {
    let step = step?;
    let tuple = &step.tuple;
    match (reason, step.decision) {
        (_, Decision::NetworkAcl { network_acl, direction, entry, .. }) => {
            let (_, acl) = index.network_acl(network_acl)?;
            Some(network_acl_advice(index, acl, direction, entry, tuple, way))
        }
        (_, Decision::SecurityGroup { eni, direction, .. }) => {
            let (vpc, instance) = index.instance(eni)?;
            Some(security_group_advice(index, vpc, instance, direction, tuple, way))
        }
        (_, Decision::SourceDestCheck { eni, .. }) => Some(format!(
            "If {name} is meant to forward for others, set `source_dest_check: false` on it.",
            name = index.eni_name(eni)
        )),
        (DiscardReason::NoRoute, Decision::Route { subnet, route_table, .. }) => {
            let (vpc, subnet) = index.subnet(subnet)?;
            let table = index.route_table_name(route_table);
            let to = if is_public(tuple.destination) { "0.0.0.0/0".into() } else { host(tuple.destination) };
            let via = way_out(vpc, &subnet.name, tuple.source)?;
            Some(format!("Add `{{ to: {to}, via: {via} }}` to route table {table}."))
        }
        (DiscardReason::Blackhole, Decision::Route { route_table, .. }) => Some(format!(
            "Let that route of table {} lead to something that exists, or remove it.",
            index.route_table_name(route_table)
        )),
        (DiscardReason::NoSuchAddress, _) => Some(format!(
            "Give an instance the address {}; `localvpc ls` shows those in use.",
            tuple.destination
        )),
        (DiscardReason::NoPublicAddress, _) => Some(no_public_address(index, tuple.source)),
        (DiscardReason::NoPublicAssociation, _) => Some(format!(
            "Give what should be reached there an `eip: {}`; private addresses cannot be reached from the internet.",
            tuple.destination
        )),
        (DiscardReason::NoSuchHost, _) => Some(format!(
            "Add a host with `ip: {}` under `internet: hosts:`; nothing leaves this machine.",
            tuple.destination
        )),
        _ => general(reason).map(str::to_owned),
    }
}

/// Advice that needs no names.
fn general(reason: DiscardReason) -> Option<&'static str> {
    Some(match reason {
        DiscardReason::NatNoConnection => {
            "A NAT gateway only takes replies: to be reached, an instance needs an `eip:` of its own and a route to the \
             internet gateway."
        }
        DiscardReason::NatProtocol => {
            "Give the instance an `eip:` and route its subnet to the internet gateway, which passes every protocol."
        }
        DiscardReason::NatPortsExhausted => {
            "Add an Elastic IP to the NAT gateway: `eip:` takes a list, and each address serves 55,000 connections more."
        }
        DiscardReason::NatForeignSource => "Route the sender through a NAT gateway of its own VPC.",
        DiscardReason::Loop => {
            "Routes send it in circles: the subnet of a NAT gateway needs a route to the internet gateway, not to the \
             NAT gateway itself."
        }
        DiscardReason::PrivateDestination | DiscardReason::SharedDestination => {
            "Private addresses exist inside a VPC only; another VPC is reached by Elastic IP."
        }
        DiscardReason::PrivateSource | DiscardReason::SharedSource => "Send from a public address.",
        DiscardReason::TooBig => "Send smaller packets: the internet takes 1500 bytes.",
        DiscardReason::NatFragment => {
            "Keep TCP and ICMP within the MTU: a NAT gateway forwards fragments of UDP only."
        }
        DiscardReason::ConnectionAllowanceExceeded => {
            "Wait for connections to end, shorten their idle timeouts (`tracking:`), or raise `max_connections:`."
        }
        DiscardReason::ConnectionTableFull | DiscardReason::LeaseTableFull => {
            "Wait for connections to end, or shorten the idle timeouts."
        }
        _ => return None,
    })
}

fn network_acl_advice(
    index: &Index,
    acl: &NetworkAcl,
    direction: Direction,
    denied_by: Option<u16>,
    tuple: &Tuple,
    way: Way,
) -> String {
    let taken: Vec<u16> = acl.entries(direction).iter().map(|entry| entry.number).collect();
    let highest = taken.iter().copied().max().unwrap_or(0);
    let number = match denied_by {
        Some(denied_by) => (1..denied_by).rev().find(|number| !taken.contains(number)),
        None => Some(highest.saturating_add(10) / 10 * 10).filter(|number| *number <= 32766),
    };
    let number = number.map_or_else(|| "...".into(), |number| number.to_string());
    let (word, far, list) = match direction {
        Direction::Inbound => ("from", tuple.source, "inbound"),
        Direction::Outbound => ("to", tuple.destination, "outbound"),
    };
    let what = match (tuple.protocol, way) {
        (Protocol::TCP | Protocol::UDP, Way::Forward) => {
            format!("{}, ports: {}", tuple.protocol, tuple.destination_port)
        }
        // The reply goes to whatever port the client took.
        (Protocol::TCP | Protocol::UDP, Way::Back) => format!("{}, ports: 1024-65535", tuple.protocol),
        (Protocol::ICMP, Way::Forward) => "icmp, type: echo-request".into(),
        (Protocol::ICMP, Way::Back) => "icmp, type: echo-reply".into(),
        (Protocol(number), _) => number.to_string(),
    };
    let why = match way {
        Way::Forward => "",
        Way::Back => " Network ACLs keep no state, so replies need an entry of their own.",
    };
    format!(
        "Add `{{ rule: {number}, allow: {what}, {word}: {far} }}` to the {list} entries of network ACL {name}{at}.{why}",
        far = host(far),
        name = acl.name,
        at = at(index, acl.place),
    )
}

fn security_group_advice(
    index: &Index,
    vpc: &Vpc,
    instance: &Instance,
    direction: Direction,
    tuple: &Tuple,
    way: Way,
) -> String {
    let (word, far, list) = match direction {
        Direction::Inbound => ("from", tuple.source, "inbound"),
        Direction::Outbound => ("to", tuple.destination, "outbound"),
    };
    let what = match (tuple.protocol, way) {
        (Protocol::TCP | Protocol::UDP, Way::Forward) => {
            format!("{}: {}", tuple.protocol, tuple.destination_port)
        }
        (Protocol::TCP | Protocol::UDP, Way::Back) => format!("{}: 1024-65535", tuple.protocol),
        (Protocol::ICMP, Way::Forward) => "icmp: echo-request".into(),
        (Protocol::ICMP, Way::Back) => "icmp: echo-reply".into(),
        (Protocol(number), _) => format!("protocol: {number}"),
    };
    // An instance of the same VPC is better named by its group than by its address.
    let peer = vpc.instances.iter().find(|other| other.ip == far && other.name != instance.name);
    let peer = peer.and_then(|other| other.security_groups.iter().find(|group| *group != "default"));
    let peer = peer.cloned().unwrap_or_else(|| host(far));
    let named = instance.security_groups.iter().find(|group| *group != "default");
    match named.and_then(|name| vpc.security_group(name)) {
        Some(group) => format!(
            "Add `{{ {what}, {word}: {peer} }}` to the {list} rules of security group {}{}.",
            group.name,
            at(index, group.place)
        ),
        None => format!(
            "Give {} a security group of its own with the {list} rule `{{ {what}, {word}: {peer} }}`{}.",
            instance.name,
            at(index, Some(instance.place))
        ),
    }
}

fn no_public_address(index: &Index, source: IpAddr) -> String {
    let owners: Vec<_> = index.model().instances().filter(|(_, instance)| instance.ip == source).collect();
    match owners.as_slice() {
        [(_, instance)] => format!(
            "Give {name} an `eip:` or `public_ip: true`{at}, or route its subnet {subnet} through a NAT gateway.",
            name = instance.name,
            at = at(index, Some(instance.place)),
            subnet = instance.subnet,
        ),
        [] if private_nat_gateway(index, source).is_some() => format!(
            "NAT gateway {} is private: give it an `eip:` and leave `connectivity: private` out, or route the sender's \
             subnet through a public one.",
            private_nat_gateway(index, source).map_or("", |nat| &nat.name)
        ),
        _ => "Give the sender an `eip:`, or route its subnet through a NAT gateway.".into(),
    }
}

/// The private NAT gateway that has an address, where only one does.
fn private_nat_gateway(index: &Index, address: IpAddr) -> Option<&NatGateway> {
    let all = index.model().vpcs.iter().flat_map(|vpc| &vpc.nat_gateways);
    let mut owners =
        all.filter(|nat| nat.addresses.iter().any(|own| own.private == address && own.public.is_none()));
    let first = owners.next()?;
    owners.next().is_none().then_some(first)
}

/// Where a route out of a subnet should lead: what has a public address goes by the internet gateway, the
/// rest by a NAT gateway of another subnet.
fn way_out<'a>(vpc: &'a Vpc, subnet: &str, source: IpAddr) -> Option<&'a str> {
    let gateway = vpc.internet_gateway.as_ref().map(|gateway| gateway.name.as_str());
    let public = vpc.instances.iter().any(|instance| instance.ip == source && instance.public.is_some())
        || vpc.nat_gateways.iter().flat_map(|nat| &nat.addresses).any(|address| address.private == source);
    let used: Vec<&str> = vpc
        .route_tables
        .iter()
        .flat_map(|table| &table.routes)
        .filter_map(|route| match &route.target {
            Target::NatGateway(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let available = |nat: &&NatGateway| nat.state == NatGatewayState::Available && nat.subnet != subnet;
    let nat_gateways = vpc.nat_gateways.iter().filter(available);
    let nat = nat_gateways.map(|nat| nat.name.as_str()).max_by_key(|name| used.contains(name));
    if public { gateway } else { nat.or(gateway) }
}

fn at(index: &Index, place: Option<crate::model::Place>) -> String {
    place.map_or_else(String::new, |place| format!(" ({})", index.source(Some(place))))
}

fn host(address: IpAddr) -> String {
    ipnet::IpNet::from(address).to_string()
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => !v6.is_unique_local(),
    }
}

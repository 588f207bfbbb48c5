//! What would let a discarded packet through: what to add, and where.

use std::net::IpAddr;

use localvpc_api::trace::{Decision, Direction, Protocol};
use localvpc_api::{DiscardReason, Scope};

use crate::analysis::{Code, Detail, Hop, Way};
use crate::lower::Index;
use crate::model::{Instance, NatGateway, NatGatewayState, NetworkAcl, Target, Vpc};

/// One sentence on what would help; `None` where nothing in the file would.
pub fn advice(index: &Index, code: Code, hop: &Hop, way: Way) -> Option<String> {
    let tuple = &hop.tuple;
    let reason = match code {
        Code::Discard(reason) => reason,
        Code::Detail(detail) => return about_detail(index, detail, hop),
    };
    match (reason, hop.decision) {
        (_, Decision::NetworkAcl { network_acl, direction, entry, .. }) => {
            let (_, acl) = index.network_acl(network_acl)?;
            Some(network_acl_advice(index, acl, (direction, entry), hop, way))
        }
        (_, Decision::SecurityGroup { eni, direction, .. }) => {
            let (vpc, instance) = index.instance(eni)?;
            Some(security_group_advice(index, (vpc, instance), direction, hop, way))
        }
        (_, Decision::SourceDestCheck { eni, .. }) => Some(format!(
            "If {name} is meant to forward for others, set `source_dest_check: false` on it.",
            name = index.eni_name(eni)
        )),
        (DiscardReason::NoRoute, Decision::Route { subnet, route_table, .. }) => {
            let (vpc, subnet) = index.subnet(subnet)?;
            let table = index.route_table_name(route_table);
            let to = if Scope::of(tuple.destination) == Scope::Public {
                "0.0.0.0/0".into()
            } else {
                host(tuple.destination)
            };
            // Who asks from the internet has come by the internet gateway, and the reply must leave there.
            let gateway = vpc.internet_gateway.as_ref().filter(|_| way == Way::Back && to == "0.0.0.0/0");
            let via = match gateway {
                Some(gateway) => &gateway.name,
                None => way_out(vpc, &subnet.name, tuple.source)?,
            };
            Some(format!("Add `{{ to: {to}, via: {via} }}` to route table {table}."))
        }
        (DiscardReason::Blackhole, Decision::Route { route_table, .. }) => Some(format!(
            "Let that route of table {} lead to something that exists, or remove it.",
            index.route_table_name(route_table)
        )),
        (DiscardReason::NatNoConnection, Decision::NatGateway { nat_gateway, .. }) if way == Way::Back => {
            let way = index.nat_gateway(nat_gateway).and_then(|(vpc, _)| vpc.internet_gateway.as_ref());
            let way = way.map_or_else(String::new, |gateway| format!(", by {}", gateway.name));
            let name = index.nat_gateway_name(nat_gateway);
            Some(format!(
                "Replies must leave the way the packet came{way}: {name} knows nothing of the connection."
            ))
        }
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

/// What would help against what only the analysis tells.
fn about_detail(index: &Index, detail: Detail, hop: &Hop) -> Option<String> {
    Some(match (detail, hop.decision) {
        (Detail::NatChangesSource, Decision::NatGateway { nat_gateway, .. }) => format!(
            "The reply leaves by NAT gateway {}, as another sender: route it back the way the packet came.",
            index.nat_gateway_name(nat_gateway)
        ),
        (Detail::EniAddressRestriction, _) => "Leave out `--source-address`.".into(),
        (Detail::IgwOutsideVpc, _) => "Ask from the internet gateway of the receiver's own VPC.".into(),
        (Detail::DisconnectedVpcs, _) => {
            "Ask with the internet gateway of the sender's own VPC, or `internet`.".into()
        }
        (Detail::NoPath, _) => {
            "The reply does not come from the address that was asked: route it back the way the packet came."
                .into()
        }
        _ => return None,
    })
}

/// Advice that needs no names.
pub fn general(reason: DiscardReason) -> Option<&'static str> {
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
    (direction, denied_by): (Direction, Option<u16>),
    hop: &Hop,
    way: Way,
) -> String {
    let tuple = &hop.tuple;
    let taken: Vec<u16> = acl.entries(direction).iter().map(|entry| entry.number).collect();
    let highest = taken.iter().copied().max().unwrap_or(0);
    let number = match denied_by {
        Some(denied_by) => (1..denied_by).rev().find(|number| !taken.contains(number)),
        None => Some(highest.saturating_add(10) / 10 * 10).filter(|number| *number <= 32766),
    };
    let number = number.map_or_else(|| "...".into(), |number| number.to_string());
    let (word, far, list) = far_end(hop, direction);
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
        name = acl.name,
        at = at(index, acl.place),
    )
}

fn security_group_advice(
    index: &Index,
    (vpc, instance): (&Vpc, &Instance),
    direction: Direction,
    hop: &Hop,
    way: Way,
) -> String {
    let tuple = &hop.tuple;
    let (word, far, list) = far_end(hop, direction);
    let address = match direction {
        Direction::Inbound => tuple.source,
        Direction::Outbound => tuple.destination,
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
    let peer = vpc.instances.iter().find(|other| other.has(address) && other.name != instance.name);
    let peer = peer.and_then(|other| other.security_groups.iter().find(|group| *group != "default"));
    let peer = peer.cloned().unwrap_or(far);
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

/// The far end of a rule as a file says it, and the list that it would stand in.
fn far_end(hop: &Hop, direction: Direction) -> (&'static str, String, &'static str) {
    let (word, address, list) = match direction {
        Direction::Inbound => ("from", hop.before.source, "inbound"),
        Direction::Outbound => ("to", hop.before.destination, "outbound"),
    };
    (word, address.map_or_else(|| "0.0.0.0/0".into(), host), list)
}

fn no_public_address(index: &Index, source: IpAddr) -> String {
    let owners: Vec<_> = index.model().instances().filter(|(_, instance)| instance.has(source)).collect();
    match owners.as_slice() {
        [(_, instance)] if instance.ip != source => format!(
            "Give {source}, a secondary address of {name}, an `eip:`{at}, or send from one that has one.",
            name = instance.name,
            at = at(index, Some(instance.place)),
        ),
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
    let mut own = vpc.instances.iter().flat_map(Instance::addresses);
    let public = own.any(|(private, public)| private == source && public.is_some())
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

//! Checks that rows are a configuration that can be installed.
//!
//! Everything that compiled tables rely on is checked here and nowhere else: after
//! [`check`], compiling cannot fail.

use std::fmt::Display;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use ipnet::{IpNet, Ipv4Net};
use localvpc_api::message::{InvalidRow, RowProblem};
use localvpc_api::tables::*;
use localvpc_api::*;

use super::index::Index;

/// Most security groups of an ENI (SG-1).
const MAX_SECURITY_GROUPS: usize = 16;

/// Most addresses of a NAT gateway (NATGW-7).
const MAX_NAT_ADDRESSES: usize = 8;

/// Highest number of a network ACL entry that can be written (NACL-2).
const MAX_ENTRY_NUMBER: u16 = 32_766;

/// Smallest MTU of a device that carries IPv4, in bytes (RFC 791 §3.2).
const MIN_MTU: u16 = 68;

/// Checks every row and every reference, in an order that reports a cause before its consequences.
///
/// # Errors
///
/// The first row at fault. Routes and rules are named by their position from 0, network ACL entries by their number.
pub(super) fn check(rows: &Tables) -> Result<Index<'_>, InvalidRow> {
    let index = Index::new(rows)?;
    for vpc in &rows.vpcs {
        vpc_row(vpc).map_err(at(vpc.id))?;
    }
    subnets(rows, &index)?;
    links(rows)?;
    owners(rows, &index)?;
    for group in &rows.security_groups {
        security_group(group, &index)?;
    }
    for acl in &rows.network_acls {
        network_acl(acl)?;
    }
    internet_gateways(rows, &index)?;
    for table in &rows.route_tables {
        route_table(table, &index)?;
    }
    internet(rows, &index)?;
    Ok(index)
}

/// Names the row of a problem.
fn at(row: impl Display) -> impl FnOnce(RowProblem) -> InvalidRow {
    move |problem| InvalidRow { row: row.to_string(), problem }
}

fn vpc_row(vpc: &Vpc) -> Result<(), RowProblem> {
    if vpc.cidrs.is_empty() {
        return Err(RowProblem::OutOfRange("has no CIDR; a VPC needs at least one".into()));
    }
    for (position, cidr) in vpc.cidrs.iter().enumerate() {
        let cidr = network(cidr)?;
        if let Some(other) = vpc.cidrs[..position].iter().find(|other| overlap(**other, cidr)) {
            return Err(RowProblem::Cidr(format!("{cidr} overlaps {other} of the same VPC")));
        }
    }
    Ok(())
}

fn subnets(rows: &Tables, index: &Index) -> Result<(), InvalidRow> {
    // By VPC and first address: of two networks that overlap, one begins inside the other, so that neighbours tell.
    let mut seen: Vec<(VpcId, Ipv4Net, SubnetId)> = Vec::with_capacity(rows.subnets.len());
    for subnet in &rows.subnets {
        let cidr = subnet_row(subnet, rows, index).map_err(at(subnet.id))?;
        seen.push((subnet.vpc, cidr, subnet.id));
    }
    seen.sort_unstable();
    for pair in seen.windows(2) {
        let ((vpc, cidr, id), (other_vpc, other_cidr, other_id)) = (pair[0], pair[1]);
        if vpc == other_vpc && cidr.broadcast() >= other_cidr.network() {
            let (later, earlier) = (id.max(other_id), id.min(other_id));
            let (later_cidr, earlier_cidr) =
                if later == id { (cidr, other_cidr) } else { (other_cidr, cidr) };
            let problem = format!("{later_cidr} overlaps {earlier} ({earlier_cidr})");
            return Err(at(later)(RowProblem::Cidr(problem)));
        }
    }
    Ok(())
}

fn subnet_row(subnet: &Subnet, rows: &Tables, index: &Index) -> Result<Ipv4Net, RowProblem> {
    index.vpcs.require(subnet.vpc)?;
    let vpc = &rows.vpcs[index.vpcs.at(subnet.vpc).0 as usize];
    let cidr = network(&subnet.cidr)?;
    if !vpc.cidrs.iter().any(|range| range.contains(&subnet.cidr)) {
        return Err(RowProblem::Cidr(format!("{cidr} is not inside {}", list(&vpc.cidrs))));
    }
    same_vpc(subnet.vpc, index.vpc_of_route_table(subnet.route_table)?, subnet.route_table)?;
    index.network_acls.require(subnet.network_acl)?;
    Ok(cidr)
}

fn links(rows: &Tables) -> Result<(), InvalidRow> {
    let mut internet = None;
    for link in &rows.links {
        if link.mtu < MIN_MTU {
            let problem = format!("an MTU of {} is too small; at least {MIN_MTU} bytes are needed", link.mtu);
            return Err(at(link.id)(RowProblem::OutOfRange(problem)));
        }
        if link.kind == LinkKind::Internet
            && let Some(first) = internet.replace(link.id)
        {
            let problem = format!("{first} is the internet's link already; a lab has at most one");
            return Err(at(link.id)(RowProblem::TooMany(problem)));
        }
    }
    Ok(())
}

/// ENIs and NAT gateways: whatever owns addresses.
fn owners(rows: &Tables, index: &Index) -> Result<(), InvalidRow> {
    let mut taken = HashMap::with_hasher(RandomState::default());
    let mut vpc_of_link = HashMap::with_hasher(RandomState::default());
    for eni in &rows.enis {
        let vpc = eni_row(eni, index).map_err(at(eni.id))?;
        // Addresses tell the ENIs of a link apart, and they are unique in a VPC only.
        if *vpc_of_link.entry(eni.link).or_insert(vpc) != vpc {
            return Err(at(eni.id)(RowProblem::ForeignVpc(eni.link.to_string())));
        }
        addresses(&eni.addresses, eni.subnet, &eni.id, &mut taken, index).map_err(at(eni.id))?;
    }
    for nat in &rows.nat_gateways {
        index.subnets.require(nat.subnet).map_err(at(nat.id))?;
        if nat.addresses.len() > MAX_NAT_ADDRESSES {
            let problem =
                format!("has {} addresses; at most {MAX_NAT_ADDRESSES} are possible", nat.addresses.len());
            return Err(at(nat.id)(RowProblem::TooMany(problem)));
        }
        positive(nat.idle_timeout_ms, "idle_timeout_ms").map_err(at(nat.id))?;
        addresses(&nat.addresses, nat.subnet, &nat.id, &mut taken, index).map_err(at(nat.id))?;
    }
    Ok(())
}

/// Checks all but the addresses of an ENI, and tells its VPC.
fn eni_row(eni: &Eni, index: &Index) -> Result<VpcId, RowProblem> {
    let vpc = index.vpc_of_subnet(eni.subnet)?;
    if index.link(eni.link)?.kind != LinkKind::Enis {
        let problem = format!("{} leads to the internet; an ENI needs a link of kind `enis`", eni.link);
        return Err(RowProblem::OutOfRange(problem));
    }
    if eni.security_groups.len() > MAX_SECURITY_GROUPS {
        let problem = format!(
            "carries {} security groups; at most {MAX_SECURITY_GROUPS} are possible",
            eni.security_groups.len()
        );
        return Err(RowProblem::TooMany(problem));
    }
    for (position, group) in eni.security_groups.iter().enumerate() {
        same_vpc(vpc, index.vpc_of_security_group(*group)?, group)?;
        if eni.security_groups[..position].contains(group) {
            return Err(RowProblem::Duplicate(format!("carries {group} twice")));
        }
    }
    positive(eni.tracking.tcp_established_ms, "tcp_established_ms")?;
    positive(eni.tracking.udp_ms, "udp_ms")?;
    positive(eni.tracking.udp_stream_ms, "udp_stream_ms")?;
    positive(eni.max_connections.into(), "max_connections")?;
    Ok(vpc)
}

/// Checks that addresses are free and usable in their subnet, and takes them.
fn addresses(
    addresses: &[IpAddr],
    subnet: SubnetId,
    owner: &dyn Display,
    taken: &mut HashMap<(VpcId, IpAddr), String, RandomState>,
    index: &Index,
) -> Result<(), RowProblem> {
    if addresses.is_empty() {
        return Err(RowProblem::OutOfRange("has no address; at least one is needed".into()));
    }
    let subnet = index.subnet(subnet)?;
    for address in addresses {
        ipv4(address)?;
        if !subnet.cidr.contains(address) {
            return Err(RowProblem::Address(format!(
                "{address} is not inside {} ({})",
                subnet.id, subnet.cidr
            )));
        }
        if let Some(use_) = reserved(subnet.cidr, *address) {
            let problem = format!("{address} is reserved in {} ({}): {use_}", subnet.id, subnet.cidr);
            return Err(RowProblem::Address(problem));
        }
        if let Some(first) = taken.insert((subnet.vpc, *address), owner.to_string()) {
            return Err(RowProblem::Address(format!("{address} is taken by {first} already")));
        }
    }
    Ok(())
}

/// What an address of a subnet is reserved for (VPC-16).
fn reserved(subnet: IpNet, address: IpAddr) -> Option<&'static str> {
    let (IpNet::V4(subnet), IpAddr::V4(address)) = (subnet, address) else { return None };
    match u32::from(address) - u32::from(subnet.network()) {
        0 => Some("the network itself"),
        1 => Some("the VPC router"),
        2 => Some("DNS"),
        3 => Some("future use"),
        _ if address == subnet.broadcast() => Some("broadcast, which a VPC does not have"),
        _ => None,
    }
}

fn security_group(group: &SecurityGroup, index: &Index) -> Result<(), InvalidRow> {
    index.vpcs.require(group.vpc).map_err(at(group.id))?;
    for (direction, rules) in [("inbound", &group.inbound), ("outbound", &group.outbound)] {
        for (position, rule) in rules.iter().enumerate() {
            let check = || {
                traffic(rule.traffic)?;
                match &rule.peer {
                    Peer::Cidr(cidr) => network(cidr).map(drop),
                    Peer::SecurityGroup(peer) => {
                        same_vpc(group.vpc, index.vpc_of_security_group(*peer)?, peer)
                    }
                }
            };
            check().map_err(at(format_args!("{} {direction} rule {position}", group.id)))?;
        }
    }
    Ok(())
}

fn network_acl(acl: &NetworkAcl) -> Result<(), InvalidRow> {
    for (direction, entries) in [("inbound", &acl.inbound), ("outbound", &acl.outbound)] {
        let mut last = 0;
        for entry in entries {
            entry_row(entry, last)
                .map_err(at(format_args!("{} {direction} entry {}", acl.id, entry.number)))?;
            last = entry.number;
        }
    }
    Ok(())
}

fn entry_row(entry: &NetworkAclEntry, last: u16) -> Result<(), RowProblem> {
    if !(1..=MAX_ENTRY_NUMBER).contains(&entry.number) {
        return Err(RowProblem::OutOfRange(format!("the number must be from 1 to {MAX_ENTRY_NUMBER}")));
    }
    if entry.number == last {
        return Err(RowProblem::Duplicate("the number occurs twice in this direction".into()));
    }
    if entry.number < last {
        return Err(RowProblem::Duplicate(format!(
            "comes after entry {last}; entries must ascend by number"
        )));
    }
    traffic(entry.traffic)?;
    network(&entry.cidr).map(drop)
}

fn traffic(traffic: Traffic) -> Result<(), RowProblem> {
    match traffic {
        Traffic::Tcp(ports) | Traffic::Udp(ports) if ports.from > ports.to => {
            Err(RowProblem::OutOfRange(format!("the port range {}-{} is backwards", ports.from, ports.to)))
        }
        Traffic::Icmp(IcmpMatch { kind: None, code: Some(code) }) => {
            Err(RowProblem::OutOfRange(format!("ICMP code {code} needs a type; every type means every code")))
        }
        _ => Ok(()),
    }
}

fn internet_gateways(rows: &Tables, index: &Index) -> Result<(), InvalidRow> {
    let mut first_of = HashMap::with_hasher(RandomState::default());
    for gateway in &rows.internet_gateways {
        index.vpcs.require(gateway.vpc).map_err(at(gateway.id))?;
        if let Some(first) = first_of.insert(gateway.vpc, gateway.id) {
            let problem = format!("{} has {first} already; a VPC has at most one", gateway.vpc);
            return Err(at(gateway.id)(RowProblem::TooMany(problem)));
        }
    }
    Ok(())
}

fn route_table(table: &RouteTable, index: &Index) -> Result<(), InvalidRow> {
    index.vpcs.require(table.vpc).map_err(at(table.id))?;
    let duplicate = duplicate(&table.routes);
    for (position, route) in table.routes.iter().enumerate() {
        let check = || {
            let destination = network(&route.destination)?;
            if let Some((first, second)) = duplicate
                && second == position
            {
                return Err(RowProblem::Duplicate(format!(
                    "route {first} has the destination {destination} already"
                )));
            }
            match route.target {
                RouteTarget::Local | RouteTarget::Blackhole => Ok(()),
                RouteTarget::InternetGateway(id) => {
                    same_vpc(table.vpc, index.vpc_of_internet_gateway(id)?, id)
                }
                RouteTarget::NatGateway(id) => same_vpc(table.vpc, index.vpc_of_nat_gateway(id)?, id),
                RouteTarget::NetworkInterface(id) => same_vpc(table.vpc, index.vpc_of_eni(id)?, id),
            }
        };
        check().map_err(at(format_args!("{} route {position}", table.id)))?;
    }
    Ok(())
}

/// The first route whose destination another has before it: the positions of that one and of its own. By sorting, since a set of a million
/// destinations would miss the processor's caches with each.
fn duplicate(routes: &[Route]) -> Option<(usize, usize)> {
    let position = |(at, route): (usize, &Route)| match route.destination {
        IpNet::V4(net) => Some((u32::from(net.addr()), net.prefix_len(), at as u32)),
        // Refused anyway.
        IpNet::V6(_) => None,
    };
    let mut all: Vec<(u32, u8, u32)> = routes.iter().enumerate().filter_map(position).collect();
    all.sort_unstable();
    let same = all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter(|same| same.len() > 1);
    same.map(|same| (same[0].2 as usize, same[1].2 as usize)).min_by_key(|(_, second)| *second)
}

/// Internet hosts and public addresses.
fn internet(rows: &Tables, index: &Index) -> Result<(), InvalidRow> {
    let mut hosts = HashSet::with_hasher(RandomState::default());
    for host in &rows.internet_hosts {
        let check = ipv4(host).and_then(|()| match hosts.insert(*host) {
            true => Ok(()),
            false => Err(RowProblem::Address(format!("{host} is taken twice"))),
        });
        check.map_err(at(format_args!("internet-host {host}")))?;
    }
    let owned: HashSet<(VpcId, IpAddr), RandomState> = owned(rows, index);
    let mut public = HashMap::with_hasher(RandomState::default());
    let mut private = HashMap::with_hasher(RandomState::default());
    for row in &rows.public_addresses {
        let mut check = || {
            let vpc = index.vpc_of_internet_gateway(row.internet_gateway)?;
            ipv4(&row.public)?;
            ipv4(&row.private)?;
            if let Some(first) = public.insert(row.public, row.private) {
                return Err(RowProblem::Address(format!(
                    "{} is the public address of {first} already",
                    row.public
                )));
            }
            if hosts.contains(&row.public) {
                return Err(RowProblem::Address(format!(
                    "{} is the address of an internet host",
                    row.public
                )));
            }
            if let Some(first) = private.insert((vpc, row.private), row.public) {
                return Err(RowProblem::Address(format!(
                    "{} has the public address {first} already",
                    row.private
                )));
            }
            if !owned.contains(&(vpc, row.private)) {
                let problem = format!("{} belongs to no ENI and no NAT gateway of {vpc}", row.private);
                return Err(RowProblem::Address(problem));
            }
            Ok(())
        };
        check().map_err(at(format_args!("public-address {}", row.public)))?;
    }
    Ok(())
}

/// Every private address that something owns; the owners are checked already.
fn owned(rows: &Tables, index: &Index) -> HashSet<(VpcId, IpAddr), RandomState> {
    let enis = rows.enis.iter().map(|eni| (eni.subnet, &eni.addresses));
    let nat_gateways = rows.nat_gateways.iter().map(|nat| (nat.subnet, &nat.addresses));
    let owners =
        enis.chain(nat_gateways).filter_map(|(subnet, all)| Some((index.vpc_of_subnet(subnet).ok()?, all)));
    owners.flat_map(|(vpc, all)| all.iter().map(move |address| (vpc, *address))).collect()
}

fn same_vpc(own: VpcId, other: VpcId, row: impl Display) -> Result<(), RowProblem> {
    if own == other { Ok(()) } else { Err(RowProblem::ForeignVpc(row.to_string())) }
}

/// Checks that a CIDR is IPv4 without host bits.
fn network(cidr: &IpNet) -> Result<Ipv4Net, RowProblem> {
    ipv4(&cidr.addr())?;
    match cidr {
        IpNet::V4(cidr) if cidr.addr() == cidr.network() => Ok(*cidr),
        _ => Err(RowProblem::Cidr(format!("{cidr} has host bits; {} is meant", cidr.trunc()))),
    }
}

fn ipv4(address: &IpAddr) -> Result<(), RowProblem> {
    match address {
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => Err(RowProblem::OutOfRange(format!("{address}: IPv6 is not supported yet"))),
    }
}

fn positive(number: u64, field: &str) -> Result<(), RowProblem> {
    if number > 0 { Ok(()) } else { Err(RowProblem::OutOfRange(format!("{field} must not be 0"))) }
}

fn overlap(a: IpNet, b: Ipv4Net) -> bool {
    let b = IpNet::V4(b);
    a.contains(&b) || b.contains(&a)
}

fn list(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

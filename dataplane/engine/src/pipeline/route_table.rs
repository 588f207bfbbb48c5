//! Where does a packet that a subnet's member sends go?
//!
//! Inside the subnet it goes straight to the owner of the address: neither route
//! table nor network ACL is consulted (ORD-6, VPC-29). Otherwise the longest prefix of
//! the subnet's route table decides (RT-7), and only if that leads out of the subnet
//! does the network ACL come next (ORD-8). Each subnet exit looks up once (ORD-9): an
//! instance's, then the NAT gateway's. Touches no state.
//!
//! A packet without a route, or with a blackhole, is discarded in silence (RT-17, RT-26).

use std::net::IpAddr;

use ipnet::IpNet;
use localvpc_api::DiscardReason;
use localvpc_api::tables::RouteTarget;
use localvpc_api::trace::{Decision, MatchedRoute};

use super::{At, Next, Observer, Stop, Walk};
use crate::tables::{Owner, Route, SubnetIndex, Tables, Target};

pub fn route(
    tables: &Tables,
    walk: &mut Walk<'_>,
    subnet: SubnetIndex,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let row = tables.subnet(subnet);
    let destination = walk.tuple.destination;
    if row.cidr.contains(&destination) {
        seen.decided(&walk.tuple, || Decision::SameSubnet { subnet: row.id });
        return Ok(arrive(owner(tables, subnet, destination)?));
    }
    let table = tables.route_table(row.route_table);
    let route = table.route(destination);
    seen.decided(&walk.tuple, || {
        let target = |route: &Route| pushed_target(tables, route);
        let matched =
            route.map(|route| MatchedRoute { destination: route.destination, target: target(route) });
        Decision::Route { subnet: row.id, route_table: table.id, matched }
    });
    let next = match route.ok_or(DiscardReason::NoRoute)?.target {
        Target::Local => owner(tables, subnet, destination)?,
        Target::InternetGateway(igw) => Next::InternetGateway(igw),
        Target::NatGateway(nat) => Next::NatGateway(nat),
        Target::NetworkInterface(eni) => Next::Eni(eni),
        Target::Blackhole => return Err(DiscardReason::Blackhole.into()),
    };
    let stays = match next {
        Next::Eni(eni) => tables.eni(eni).subnet == subnet,
        Next::NatGateway(nat) => tables.nat_gateway(nat).subnet == subnet,
        Next::InternetGateway(_) => false,
    };
    Ok(if stays { arrive(next) } else { At::Outbound(subnet, next) })
}

/// The address of the VPC router in a subnet: the source of ICMP errors that the fabric makes (VPC-16).
pub fn router_address(tables: &Tables, subnet: SubnetIndex) -> IpAddr {
    match tables.subnet(subnet).cidr {
        IpNet::V4(cidr) => IpAddr::V4((u32::from(cidr.network()).wrapping_add(1)).into()),
        IpNet::V6(cidr) => IpAddr::V6((u128::from(cidr.network()).wrapping_add(1)).into()),
    }
}

/// The owner of an address in the VPC of `subnet`.
pub fn owner(tables: &Tables, subnet: SubnetIndex, address: IpAddr) -> Result<Next, DiscardReason> {
    match tables.vpc(tables.subnet(subnet).vpc).owners.get(&address) {
        Some(Owner::Eni(eni)) => Ok(Next::Eni(*eni)),
        Some(Owner::NatGateway(nat)) => Ok(Next::NatGateway(*nat)),
        None => Err(DiscardReason::NoSuchAddress),
    }
}

/// Straight to what lies behind a subnet's edge.
pub fn arrive(next: Next) -> At {
    match next {
        Next::Eni(eni) => At::Arriving(eni),
        Next::NatGateway(nat) => At::NatGateway(nat),
        Next::InternetGateway(igw) => At::InternetGateway(igw),
    }
}

fn pushed_target(tables: &Tables, route: &Route) -> RouteTarget {
    match route.target {
        Target::Local => RouteTarget::Local,
        Target::InternetGateway(igw) => RouteTarget::InternetGateway(tables.internet_gateway(igw).id),
        Target::NatGateway(nat) => RouteTarget::NatGateway(tables.nat_gateway(nat).id),
        Target::NetworkInterface(eni) => RouteTarget::NetworkInterface(tables.eni(eni).id),
        Target::Blackhole => RouteTarget::Blackhole,
    }
}

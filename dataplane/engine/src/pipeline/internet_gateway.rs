//! Which public address stands for this private one, and back?
//!
//! The internet gateway translates addresses 1:1 and keeps no state (IGW-3, IGW-13):
//! ports and the far end's address stay. Outward, the source needs a public address
//! (IGW-9) and the destination must not be private (IGW-8); packets are at most 1500
//! bytes (IGW-12), larger ones that must not be fragmented are answered with 3/4 from the
//! subnet's router (AWS leaves open who answers, MTU-3). Inward, the destination must be
//! the public address of something (IGW-6) and the source not private (IGW-8).
//!
//! What leaves through one gateway for a public address of the lab comes in at the
//! gateway that has it: EIP to EIP, between VPCs or within one (IGW-14).

use std::net::IpAddr;

use localvpc_api::trace::{Decision, Direction};
use localvpc_api::{DiscardReason, Scope};

use super::route_table::{owner, router_address};
use super::{At, Observer, Stop, Walk};
use crate::tables::{Association, InternetGatewayIndex, Tables};

/// IGW-12.
const INTERNET_MTU: u16 = 1500;

/// From a VPC to the internet.
pub fn leave(
    tables: &Tables,
    walk: &mut Walk<'_>,
    igw: InternetGatewayIndex,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let gateway = tables.internet_gateway(igw);
    let before = walk.tuple;
    let outcome = outward(tables, walk, igw);
    seen.decided(&before, || Decision::InternetGateway {
        internet_gateway: Some(gateway.id),
        direction: Direction::Outbound,
        translated: outcome.is_ok().then_some(walk.tuple),
    });
    outcome.map(|()| At::Internet)
}

/// On the internet: to a host, or into the gateway that has the destination.
pub fn enter(tables: &Tables, walk: &mut Walk<'_>, seen: &mut impl Observer) -> Result<At, Stop> {
    let destination = walk.tuple.destination;
    let before = walk.tuple;
    if let Some(association) = tables.internet.public.get(&destination) {
        let gateway = tables.internet_gateway(association.internet_gateway);
        let outcome = inward(tables, walk, association);
        seen.decided(&before, || Decision::InternetGateway {
            internet_gateway: Some(gateway.id),
            direction: Direction::Inbound,
            translated: outcome.is_ok().then_some(walk.tuple),
        });
        return outcome;
    }
    let from_inside = walk.sender.is_some() || walk.effects.pass_nat_gateway();
    if let Some(link) = tables.internet.link
        && tables.internet.hosts.contains(&destination)
    {
        seen.decided(&before, || Decision::Internet { found: true });
        let mtu = tables.links.get(&link).map_or(INTERNET_MTU, |link| link.mtu);
        // The internet's own routers would answer; this lab has none, so nobody does.
        walk.fit(mtu, destination, None)?;
        return Ok(At::Delivered(link));
    }
    if from_inside {
        seen.decided(&before, || Decision::Internet { found: false });
        return Err(DiscardReason::NoSuchHost.into());
    }
    // From a host of the internet to an address that no gateway of the lab has.
    seen.decided(&before, || Decision::InternetGateway {
        internet_gateway: None,
        direction: Direction::Inbound,
        translated: None,
    });
    Err(DiscardReason::NoPublicAssociation.into())
}

fn outward(tables: &Tables, walk: &mut Walk<'_>, igw: InternetGatewayIndex) -> Result<(), Stop> {
    let gateway = tables.internet_gateway(igw);
    let source = walk.tuple.source;
    match Scope::of(walk.tuple.destination) {
        Scope::Private => return Err(DiscardReason::PrivateDestination.into()),
        Scope::Shared => return Err(DiscardReason::SharedDestination.into()),
        Scope::Public => {}
    }
    let public = *gateway.public_of.get(&source).ok_or(DiscardReason::NoPublicAddress)?;
    let subnet = tables.vpc(gateway.vpc).subnet(source).ok_or(DiscardReason::NoPublicAddress)?;
    let back = At::Inbound(subnet, owner(tables, subnet, source)?);
    walk.fit(INTERNET_MTU, router_address(tables, subnet), Some(back))?;
    quotes(walk.embedded.map(|embedded| embedded.destination), source)?;
    walk.translate_source(public, None);
    Ok(())
}

fn inward(tables: &Tables, walk: &mut Walk<'_>, association: &Association) -> Result<At, Stop> {
    match Scope::of(walk.tuple.source) {
        Scope::Private => return Err(DiscardReason::PrivateSource.into()),
        Scope::Shared => return Err(DiscardReason::SharedSource.into()),
        Scope::Public => {}
    }
    let gateway = tables.internet_gateway(association.internet_gateway);
    let subnet = tables.vpc(gateway.vpc).subnet(association.private).ok_or(DiscardReason::NoSuchAddress)?;
    let next = owner(tables, subnet, association.private)?;
    quotes(walk.embedded.map(|embedded| embedded.source), walk.tuple.destination)?;
    walk.translate_destination(association.private, None);
    Ok(At::Inbound(subnet, next))
}

/// An ICMP error is about a packet from or to the very address that is translated: any other quote is forged (RFC 5508 REQ-4, REQ-5).
fn quotes(quoted: Option<IpAddr>, translated: IpAddr) -> Result<(), DiscardReason> {
    match quoted {
        Some(quoted) if quoted != translated => Err(DiscardReason::UnrelatedIcmpError),
        _ => Ok(()),
    }
}

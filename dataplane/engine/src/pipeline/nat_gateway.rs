//! Which source port does this connection get, and whose is this reply?
//!
//! A NAT gateway is an ENI in a subnet of its own: the subnet's network ACL was passed
//! on the way here, and its network ACL and route table come next (ORD-8, NATGW-31). From
//! inside, the source becomes one of its private addresses and a port of 1024–65535 that
//! is free towards this destination (NATGW-3, NATGW-10, NATGW-12); the Elastic IP is the
//! internet gateway's business. From outside, only replies pass, back to where the connection
//! came from (NATGW-18); pings of its own address stay without an answer (NATGW-19).
//! TCP, UDP and ICMP echo only (NATGW-9), and ICMP errors about them; of fragments those of UDP only (NATGW-27). It is a hop:
//! the TTL goes down by one, and time exceeded comes from its private address (NATGW-20); so does "fragmentation needed"
//! about what exceeds its MTU of 8500 bytes, and the MSS of connections is lowered to that (NATGW-28). Neither is said to whom
//! nobody inside has asked: what the gateway does not forward ends at it (RFC 1812 §5.3.1). A TCP segment
//! from inside on a connection that it does not know (any more) is answered with RST (NATGW-22).
//!
//! Reads leases; reserves a port; proposes to make or refresh a lease. A connection on the tuple of a closed one keeps that one's
//! port, so that nobody else gets it for a minute (NATGW-14). Of several addresses
//! a source keeps to one while that has ports (RFC 4787 REQ-2; AWS leaves it open, NATGW-16).

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use localvpc_api::DiscardReason;
use localvpc_api::trace::{Decision, Direction, Protocol, Tuple};

use super::effects::Effect;
use super::{Answer, AnswerKind, At, Observer, Stop, Walk, mss};
use crate::answer::IcmpErrorKind;
use crate::packet::{Echo, Kind};
use crate::state::State;
use crate::state::leases::{Found, InsideKey, NewLease, OutsideKey, PortReservation};
use crate::state::nat_ports::Destination;
use crate::tables::{NatGateway, NatGatewayIndex, Tables};

/// NATGW-28, MTU-2.
const MTU: u16 = 8500;

pub fn translate<'a>(
    tables: &Tables,
    state: &'a State,
    walk: &mut Walk<'a>,
    at: NatGatewayIndex,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let gateway = tables.nat_gateway(at);
    let before = walk.tuple;
    let direction = if gateway.addresses.contains(&before.destination) {
        Direction::Inbound
    } else {
        Direction::Outbound
    };
    let outcome = match direction {
        Direction::Inbound => inward(state, walk, at, gateway),
        Direction::Outbound => outward(tables, state, walk, at, gateway),
    };
    seen.decided(&before, || Decision::NatGateway {
        nat_gateway: gateway.id,
        direction,
        translated: outcome.is_ok().then_some(walk.tuple),
        established: matches!(outcome, Ok(Known::Established)),
    });
    if outcome.is_err() {
        walk.refused_by = Some((at, direction));
    }
    outcome.map(|_| At::Routing(gateway.subnet))
}

/// Whether the gateway knew the connection.
enum Known {
    Established,
    New,
}

/// A fragment of anything but UDP goes no further (NATGW-27).
fn in_one_piece(walk: &Walk<'_>) -> Result<(), Stop> {
    match walk.packet.fragment.is_some() && walk.packet.tuple.protocol != Protocol::UDP {
        true => Err(DiscardReason::NatFragment.into()),
        false => Ok(()),
    }
}

/// Takes a hop off a packet that is forwarded, if its TTL and its size allow that. What is for the gateway itself is not asked.
fn hop(
    gateway: &NatGateway,
    walk: &mut Walk<'_>,
    at: NatGatewayIndex,
    direction: Direction,
) -> Result<(), Stop> {
    // It came this far, so its sender tracks it (SG-35), and an answer is related.
    let related = Effect::Relate { nat_gateway: at, direction };
    // What comes from outside has come to one of its addresses, and knows no other.
    let own = match direction {
        Direction::Inbound => walk.tuple.destination,
        Direction::Outbound => gateway.addresses[0],
    };
    if walk.packet.ttl.saturating_sub(walk.ttl_spent) <= 1 {
        walk.effects.propose(related)?;
        return Err(Stop {
            reason: DiscardReason::TtlExceeded,
            answer: Some(Answer {
                kind: AnswerKind::Icmp(IcmpErrorKind::TimeExceeded),
                source: own,
                at: At::Routing(gateway.subnet),
            }),
        });
    }
    walk.mss = walk.mss.min(mss::of_mtu(MTU));
    if let Err(stop) = walk.fit(MTU, own, Some(At::Routing(gateway.subnet))) {
        walk.effects.propose(related)?;
        return Err(stop);
    }
    walk.ttl_spent += 1;
    Ok(())
}

fn outward<'a>(
    tables: &Tables,
    state: &'a State,
    walk: &mut Walk<'a>,
    at: NatGatewayIndex,
    gateway: &NatGateway,
) -> Result<Known, Stop> {
    in_one_piece(walk)?;
    hop(gateway, walk, at, Direction::Outbound)?;
    let source = walk.tuple.source;
    if gateway.addresses.contains(&source) {
        return Err(DiscardReason::Loop.into());
    }
    if !tables.vpc(tables.subnet(gateway.subnet).vpc).owners.contains_key(&source) {
        return Err(DiscardReason::NatForeignSource.into());
    }
    if let Some(embedded) = walk.embedded {
        // An error about a reply: what is quoted came in to the inside address.
        let key = InsideKey { nat_gateway: gateway.id, tuple: inside(embedded.reversed()) };
        let place = state.leases.inside(&key).ok_or(DiscardReason::NotIpv4)?;
        let translation = match state.leases.from_inside(&place, walk.now) {
            Found::Live(_, translation, _) => translation,
            _ => walk.assumed_translation(&place).ok_or(DiscardReason::UnrelatedIcmpError)?,
        };
        walk.effects.propose(Effect::Relate { nat_gateway: at, direction: Direction::Outbound })?;
        walk.translate_source(translation.address, Some(translation.port));
        return Ok(Known::Established);
    }
    if !translatable(&walk.packet.kind) {
        return Err(DiscardReason::NatProtocol.into());
    }
    let key = InsideKey { nat_gateway: gateway.id, tuple: inside(walk.tuple) };
    let place = state.leases.inside(&key).ok_or(DiscardReason::NotIpv4)?;
    let absence = state.leases.absence(&place);
    let vacancy = match state.leases.from_inside(&place, walk.now) {
        // An address that was taken away took its connections along (NATGW-47).
        Found::Live(activity, translation, line) if gateway.addresses.contains(&translation.address) => {
            let reopens = crate::state::reopens(walk.packet, line);
            walk.effects.propose(if reopens {
                // Another port would leave this one to others while the far end still remembers the connection (NATGW-14).
                Effect::Reopen { nat_gateway: at, place, activity, address: translation.address }
            } else {
                Effect::Lease { activity, nat_gateway: at, direction: Direction::Outbound }
            })?;
            walk.translate_source(translation.address, Some(translation.port));
            return Ok(if reopens { Known::New } else { Known::Established });
        }
        Found::Nothing => Some(absence),
        Found::Live(..) | Found::Ended => None,
    };
    if let Kind::Tcp(facts) = &walk.packet.kind
        && !facts.begins_connection()
    {
        // As in `hop`: its sender's group lets the answer in, though nothing is tracked any more.
        walk.effects.propose(Effect::Relate { nat_gateway: at, direction: Direction::Outbound })?;
        let kind = AnswerKind::Reset;
        let answer = Answer { kind, source: walk.tuple.destination, at: At::Routing(gateway.subnet) };
        return Err(Stop { reason: DiscardReason::NatNoConnection, answer: Some(answer) });
    }
    if let Kind::IcmpEcho(Echo::Reply) = walk.packet.kind {
        return Err(DiscardReason::NatNoConnection.into());
    }
    let reservation =
        reserve(state, gateway, &key.tuple, walk.random).ok_or(DiscardReason::NatPortsExhausted)?;
    let translation = reservation.translation();
    let new = NewLease { place, vacancy };
    walk.effects.propose(Effect::NewLease { nat_gateway: at, new, reservation })?;
    walk.translate_source(translation.address, Some(translation.port));
    Ok(Known::New)
}

fn inward<'a>(
    state: &'a State,
    walk: &mut Walk<'a>,
    at: NatGatewayIndex,
    gateway: &NatGateway,
) -> Result<Known, Stop> {
    in_one_piece(walk)?;
    if let Some(embedded) = walk.embedded {
        // An error about what this gateway has sent.
        let key = outside(gateway, embedded.reversed());
        let tuple = match state.leases.from_outside(&key, walk.now) {
            Some((_, tuple, _)) => tuple,
            None => walk.assumed_inside(&key).ok_or(DiscardReason::UnrelatedIcmpError)?,
        };
        hop(gateway, walk, at, Direction::Inbound)?;
        walk.effects.propose(Effect::Relate { nat_gateway: at, direction: Direction::Inbound })?;
        walk.translate_destination(tuple.source, Some(tuple.source_port));
        return Ok(Known::Established);
    }
    if !translatable(&walk.packet.kind) {
        return Err(DiscardReason::NatProtocol.into());
    }
    if let Kind::IcmpEcho(Echo::Request) = walk.packet.kind {
        return Err(DiscardReason::NatNoConnection.into());
    }
    let key = outside(gateway, walk.tuple);
    let (lease, tuple) = match state.leases.from_outside(&key, walk.now) {
        // A SYN on a closed connection would begin another one (NATGW-18).
        Some((_, _, line)) if crate::state::reopens(walk.packet, line) => {
            return Err(DiscardReason::NatNoConnection.into());
        }
        Some((activity, tuple, _)) => (Some(activity), tuple),
        None => (None, walk.assumed_inside(&key).ok_or(DiscardReason::NatNoConnection)?),
    };
    hop(gateway, walk, at, Direction::Inbound)?;
    if let Some(activity) = lease {
        walk.effects.propose(Effect::Lease { activity, nat_gateway: at, direction: Direction::Inbound })?;
    }
    walk.translate_destination(tuple.source, Some(tuple.source_port));
    Ok(Known::Established)
}

fn reserve<'a>(
    state: &'a State,
    gateway: &NatGateway,
    inside: &Tuple,
    random: u64,
) -> Option<PortReservation<'a>> {
    let first = gateway_address(gateway, inside.source);
    let count = gateway.addresses.len();
    (0..count).find_map(|step| {
        let destination = Destination {
            nat_gateway: gateway.id,
            address: gateway.addresses[(first + step) % count],
            remote: inside.destination,
            remote_port: inside.destination_port,
            protocol: inside.protocol,
        };
        PortReservation::take(&state.leases, destination, inside.source_port, random)
    })
}

/// The address that connections of this source get, as long as it has ports.
pub(super) fn preferred_address(gateway: &NatGateway, source: IpAddr) -> IpAddr {
    gateway.addresses[gateway_address(gateway, source)]
}

fn gateway_address(gateway: &NatGateway, source: IpAddr) -> usize {
    if gateway.addresses.len() == 1 {
        return 0;
    }
    // Which address it is does not need to be secret, only to stay the same.
    let hasher = foldhash::fast::FixedState::with_seed(u64::from(gateway.id.0));
    let mut state = hasher.build_hasher();
    source.hash(&mut state);
    (std::hash::Hasher::finish(&state) % gateway.addresses.len() as u64) as usize
}

fn translatable(kind: &Kind) -> bool {
    matches!(kind, Kind::Tcp(_) | Kind::Udp | Kind::IcmpEcho(_))
}

/// An echo's destination has no port: only the source side carries the identifier.
fn inside(tuple: Tuple) -> Tuple {
    match tuple.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => Tuple { destination_port: 0, ..tuple },
        _ => tuple,
    }
}

/// How a packet to the gateway identifies its lease.
fn outside(gateway: &NatGateway, tuple: Tuple) -> OutsideKey {
    let remote_port = match tuple.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => 0,
        _ => tuple.source_port,
    };
    OutsideKey {
        destination: Destination {
            nat_gateway: gateway.id,
            address: tuple.destination,
            remote: tuple.source,
            remote_port,
            protocol: tuple.protocol,
        },
        port: tuple.destination_port,
    }
}

//! Which way did the last SYN-ACK between these two ends take?
//!
//! What stages that keep no state say about it depends on its destination port, too, and that is another one for each connection. But only
//! network ACLs look at it, and between two ports that their entries name they say the same: so a way is remembered with an interval of ports.
//! Who an answer to a NAT gateway is for, its lease says; a way that leads through one is of those ends that the connection has inside.
//!
//! Only the way of an answer is remembered whose connection each ENI tracks: no rule of a security group was asked.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use localvpc_api::trace::{Direction, Protocol, Tuple};
use localvpc_api::{EniId, LinkId, NatGatewayId};

use super::{Addresses, Ends, LEGS, PLACES, Way};
use crate::hash::Seed;
use crate::packet::{Kind, Packet, TcpFacts};
use crate::pipeline::Walk;
use crate::pipeline::effects::Effect;
use crate::state::State;
use crate::state::conntrack::{ConnectionKey, Found};
use crate::state::leases::OutsideKey;
use crate::state::nat_ports::Destination;
use crate::tables::{NatGatewayIndex, Tables};

/// Ways of SYN-ACKs, of fixed number.
#[derive(Debug)]
pub(super) struct Answers {
    /// By hash of the ends.
    places: Box<[Option<Answer>]>,
    /// The one that the last of them came to: the next will likely do so, too.
    gateway: Option<Gateway>,
}

/// What a SYN-ACK between these ends would change, and how it leaves.
#[derive(Clone, Debug)]
struct Answer {
    /// Its source, and where it is going in the end; the port is that of its source.
    ends: Ends,
    /// Where it was going when it came.
    came_to: IpAddr,
    legs: ArrayVec<Leg, LEGS>,
    /// Its destination ports when it comes, and when it leaves.
    ports: [Ports; 2],
    way: Way,
}

/// Ports about which no network ACL on a way changes its mind, the first and the last.
#[derive(Clone, Copy, Debug)]
struct Ports(u16, u16);

#[derive(Clone, Copy, Debug)]
enum Leg {
    /// An ENI tracks the connection.
    Connection { eni: EniId, direction: Direction, at: Addresses },
    /// A NAT gateway has leased the port that it comes to.
    Lease,
}

/// A NAT gateway that answers come to.
#[derive(Clone, Copy, Debug)]
struct Gateway {
    /// The address that they come to, and its private one.
    public: IpAddr,
    private: IpAddr,
    index: NatGatewayIndex,
    id: NatGatewayId,
}

/// Whether a packet is a whole SYN-ACK.
#[inline]
pub(super) fn is_one(packet: &Packet) -> bool {
    const BOTH: u8 = TcpFacts::SYN | TcpFacts::ACK;
    let Kind::Tcp(facts) = &packet.kind else { return false };
    facts.flags & (BOTH | TcpFacts::FIN | TcpFacts::RST) == BOTH && packet.fragment.is_none()
}

impl Answers {
    /// None yet.
    pub fn new() -> Self {
        Self { places: vec![None; PLACES].into(), gateway: None }
    }

    /// Never any.
    pub fn none() -> Self {
        Self { places: Box::default(), gateway: None }
    }

    pub fn clear(&mut self) {
        self.places.fill(None);
        self.gateway = None;
    }

    /// Does to a walk that has not begun what all its stages would do; says where the packet leaves. `None`: only the stages know.
    pub fn take(&self, seed: Seed, state: &State, link: LinkId, walk: &mut Walk<'_>) -> Option<LinkId> {
        let came = walk.packet.tuple;
        let lease = match &self.gateway {
            Some(gateway) if gateway.public == came.destination => {
                let (activity, inside, _) = state.leases.from_outside(&gateway.key(&came), walk.now)?;
                Some((gateway.index, activity, inside))
            }
            _ => None,
        };
        let (destination, port) = match &lease {
            Some((_, _, inside)) => (inside.source, inside.source_port),
            None => (came.destination, came.destination_port),
        };
        let ends = answer_ends(&came, destination, link)?;
        let answer = self.places.get(ends.place(seed))?.as_ref().filter(|known| known.ends == ends)?;
        let fits = (answer.came_to, answer.through_lease()) == (came.destination, lease.is_some())
            && answer.ports[0].contain(came.destination_port)
            && answer.ports[1].contain(port)
            && answer.way.takes(walk.packet);
        if !fits {
            return None;
        }
        for leg in &answer.legs {
            match *leg {
                Leg::Connection { eni, direction, at } => {
                    let tuple = Tuple { source: at.source, destination: at.destination, ..walk.tuple };
                    let place = state.connections.place(eni, &tuple, direction)?;
                    let Found::Live(activity, _) = state.connections.find(&place, walk.now) else {
                        return None;
                    };
                    walk.effects.propose(Effect::Connection { activity, direction }).ok()?;
                }
                Leg::Lease => {
                    let (nat_gateway, activity, _) = lease?;
                    walk.tuple.destination_port = port;
                    let direction = Direction::Inbound;
                    walk.effects.propose(Effect::Lease { activity, nat_gateway, direction }).ok()?;
                }
            }
        }
        Some(answer.way.take(walk))
    }

    /// Remembers a walk that every stage accepted, if it is of a kind that can be taken again.
    pub fn remember(
        &mut self,
        seed: Seed,
        tables: &Tables,
        state: &State,
        link: LinkId,
        out: LinkId,
        walk: &Walk<'_>,
    ) {
        let came = walk.packet.tuple;
        let Some(ends) = answer_ends(&came, walk.tuple.destination, link) else { return };
        if let Some((legs, gateway)) = legs(tables, state, walk)
            && let Some(ports) = ports(tables, walk)
            && let Some(place) = self.places.get_mut(ends.place(seed))
        {
            *place = Some(Answer { ends, came_to: came.destination, legs, ports, way: Way::of(walk, out) });
            self.gateway = gateway.or(self.gateway);
        }
    }
}

impl Answer {
    fn through_lease(&self) -> bool {
        self.legs.iter().any(|leg| matches!(leg, Leg::Lease))
    }
}

impl Ports {
    const ALL: Self = Self(0, u16::MAX);

    #[inline]
    fn contain(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }

    fn within(self, (first, last): (u16, u16)) -> Self {
        Self(self.0.max(first), self.1.min(last))
    }
}

impl Gateway {
    /// How the lease of an answer is found that comes to it.
    #[inline]
    fn key(&self, came: &Tuple) -> OutsideKey {
        let destination = Destination {
            nat_gateway: self.id,
            address: self.private,
            remote: came.source,
            remote_port: came.source_port,
            protocol: Protocol::TCP,
        };
        OutsideKey { destination, port: came.destination_port }
    }
}

/// Of an answer that came with this tuple and goes to `destination`.
#[inline]
fn answer_ends(came: &Tuple, destination: IpAddr, link: LinkId) -> Option<Ends> {
    Ends::of(&Tuple { destination, destination_port: came.source_port, ..*came }, link)
}

/// `None` if another walk may meet something else, or another source than it came with.
fn legs(tables: &Tables, state: &State, walk: &Walk<'_>) -> Option<(ArrayVec<Leg, LEGS>, Option<Gateway>)> {
    let came = walk.packet.tuple;
    let (mut legs, mut gateway) = (ArrayVec::new(), None);
    for effect in walk.effects.as_slice() {
        let leg = match *effect {
            Effect::Connection { activity, direction } => {
                let ConnectionKey { eni, outbound } = state.connections.key(activity)?;
                let tuple = match direction {
                    Direction::Outbound => outbound,
                    Direction::Inbound => outbound.reversed(),
                };
                Leg::Connection { eni, direction, at: super::addresses(&tuple) }
            }
            Effect::Lease { activity, nat_gateway, direction: Direction::Inbound } if gateway.is_none() => {
                let known = state.leases.outside_key(activity)?;
                let found = Gateway {
                    public: came.destination,
                    private: known.destination.address,
                    index: nat_gateway,
                    id: tables.nat_gateway(nat_gateway).id,
                };
                if found.key(&came) != known {
                    return None;
                }
                gateway = Some(found);
                Leg::Lease
            }
            _ => return None,
        };
        legs.try_push(leg).ok()?;
    }
    Some((legs, gateway))
}

/// The ports around those of this walk about which its network ACLs would have said the same.
fn ports(tables: &Tables, walk: &Walk<'_>) -> Option<[Ports; 2]> {
    let own = [walk.packet.tuple.destination_port, walk.tuple.destination_port];
    let mut ports = [Ports::ALL; 2];
    for (subnet, direction, port) in walk.filtered.all()? {
        let acl = tables.network_acl(tables.subnet(*subnet).network_acl);
        let entries = match direction {
            Direction::Inbound => &acl.inbound,
            Direction::Outbound => &acl.outbound,
        };
        // Where both are the same, it may have been either that was looked at.
        for (ports, own) in ports.iter_mut().zip(own) {
            if own == *port {
                *ports = ports.within(entries.tcp_ports_like(*port));
            }
        }
    }
    Some(ports)
}

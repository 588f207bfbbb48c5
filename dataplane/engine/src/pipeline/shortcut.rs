//! Which way did the last connection between these two ends take?
//!
//! What rules, routes and gateways say about a SYN depends on the tables, the link, both addresses and the destination
//! port, but not on the source port. So a worker remembers for some such ends what the last SYN between them would change, and
//! makes the same proposals for the next one without asking the stages again, and those of a known connection for the segments of it that no
//! flow cache knows yet. All that is state is asked as ever: whether the connection is known, whether it has a lease, which port is free.
//! Wherever that makes a difference, the packet is walked.
//!
//! A SYN-ACK goes by what the last one between the same ends has met (`answers`).
//!
//! A shortcut is of one generation of the tables. It only stands in for a walk that every stage accepted; it counts and commits as that does.

mod answers;

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use localvpc_api::trace::{Direction, Protocol, Tuple};
use localvpc_api::{EniId, Generation, LinkId};

use super::Walk;
use super::effects::{Dependency, Effect};
use super::nat_gateway::preferred_address;
use super::rewrite::Rewrite;
use crate::flow::Decided;
use crate::hash::Seed;
use crate::packet::{Key, Kind, Packet};
use crate::state::State;
use crate::state::conntrack::{self, NewConnection};
use crate::state::leases::{self, InsideKey, NewLease, PortReservation};
use crate::state::nat_ports::Destination;
use crate::state::place::Place;
use crate::state::reopens;
use crate::tables::{EniIndex, NatGatewayIndex, Tables};
use answers::Answers;

/// Shortcuts of a worker, of fixed number.
#[derive(Debug)]
pub struct Shortcuts {
    /// By hash of the ends.
    places: Box<[Option<Shortcut>]>,
    answers: Answers,
    generation: Generation,
    seed: Seed,
}

/// What a SYN between these ends would change, and how it leaves.
#[derive(Clone, Debug)]
struct Shortcut {
    ends: Ends,
    legs: ArrayVec<Leg, LEGS>,
    way: Way,
}

/// How packets leave that go the same way.
#[derive(Clone, Copy, Debug)]
struct Way {
    source: IpAddr,
    destination: IpAddr,
    out: LinkId,
    sender: Option<EniIndex>,
    receiver: Option<EniIndex>,
    mtu: u16,
    mss: u16,
    ttl_spent: u8,
}

/// What stages that keep no state look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    link: LinkId,
    port: u16,
}

/// Addresses of a packet where something was proposed for it.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    source: IpAddr,
    destination: IpAddr,
}

#[derive(Clone, Copy, Debug)]
enum Leg {
    /// An ENI would track the connection.
    Track { eni: EniIndex, id: EniId, direction: Direction, untracked: bool, at: Addresses },
    /// A NAT gateway would lease a port of this address of its own.
    Lease { nat_gateway: NatGatewayIndex, address: IpAddr, at: Addresses },
}

/// A sender, a NAT gateway and a receiver.
const LEGS: usize = 3;

/// So few that they stay in the processor's cache.
const PLACES: usize = 256;

impl Shortcuts {
    /// None yet. `seed` should come from the system's randomness.
    pub fn new(seed: u64) -> Self {
        Self {
            places: vec![None; PLACES].into(),
            answers: Answers::new(),
            generation: Generation::default(),
            seed: Seed::from_random(seed),
        }
    }

    /// Never any.
    pub fn none() -> Self {
        Self {
            places: Box::default(),
            answers: Answers::none(),
            generation: Generation::default(),
            seed: Seed::from_random(0),
        }
    }

    /// Prepares for packets under `generation`; what was decided under another is no longer true.
    #[inline]
    pub fn turn_to(&mut self, generation: Generation) {
        if self.generation != generation {
            self.generation = generation;
            self.clear();
        }
    }

    /// Forgets all, which changes no packet.
    pub fn clear(&mut self) {
        self.places.fill(None);
        self.answers.clear();
    }

    /// Does to a walk that has not begun what all its stages would do; says where the packet leaves. `None`: only the stages know, and
    /// nothing was done.
    pub fn take<'a>(
        &self,
        tables: &Tables,
        state: &'a State,
        link: LinkId,
        walk: &mut Walk<'a>,
    ) -> Option<LinkId> {
        let taken = match answers::is_one(walk.packet) {
            true => self.answers.take(self.seed, state, link, walk),
            false => self.try_to_take(tables, state, link, walk),
        };
        if taken.is_none() {
            walk.effects.clear();
            walk.tuple = walk.packet.tuple;
        }
        taken
    }

    #[inline]
    fn try_to_take<'a>(
        &self,
        tables: &Tables,
        state: &'a State,
        link: LinkId,
        walk: &mut Walk<'a>,
    ) -> Option<LinkId> {
        let (ends, kind) = ends(walk.packet, link)?;
        let shortcut = self.known(&ends)?;
        if !shortcut.way.takes(walk.packet) {
            return None;
        }
        for leg in &shortcut.legs {
            match *leg {
                Leg::Track { eni, id, direction, untracked, at } => {
                    let tuple = Tuple { source: at.source, destination: at.destination, ..walk.tuple };
                    let place = state.connections.place(id, &tuple, direction)?;
                    let absence = state.connections.absence(&place);
                    let vacancy = match (state.connections.find(&place, walk.now), kind) {
                        (conntrack::Found::Live(activity, _), Segment::Later) => {
                            walk.effects.propose(Effect::Connection { activity, direction }).ok()?;
                            continue;
                        }
                        (_, Segment::Later) => return None,
                        (conntrack::Found::Nothing, _) => Some(absence),
                        (conntrack::Found::Live(_, line), _) if !reopens(walk.packet, line) => return None,
                        _ => None,
                    };
                    let new = NewConnection { place, direction, vacancy };
                    walk.effects.propose(Effect::Track { eni, new, untracked, absence }).ok()?;
                }
                Leg::Lease { nat_gateway, address, at } => {
                    let id = tables.nat_gateway(nat_gateway).id;
                    let tuple = Tuple { source: at.source, destination: at.destination, ..walk.tuple };
                    let place = state.leases.inside(&InsideKey { nat_gateway: id, tuple })?;
                    let absence = state.leases.absence(&place);
                    let vacancy = match (state.leases.from_inside(&place, walk.now), kind) {
                        (leases::Found::Live(activity, known, _), Segment::Later)
                            if known.address == address =>
                        {
                            walk.tuple.source_port = known.port;
                            let direction = Direction::Outbound;
                            walk.effects.propose(Effect::Lease { activity, nat_gateway, direction }).ok()?;
                            continue;
                        }
                        (_, Segment::Later) => return None,
                        (leases::Found::Nothing, _) => Some(absence),
                        (leases::Found::Ended, _) => None,
                        (leases::Found::Live(activity, known, line), _) => {
                            // Also where it has another address of the gateway, or one that this has no more: the stage knows.
                            if known.address != address || !reopens(walk.packet, line) {
                                return None;
                            }
                            walk.tuple.source_port = known.port;
                            walk.effects
                                .propose(Effect::Reopen { nat_gateway, place, activity, address })
                                .ok()?;
                            continue;
                        }
                    };
                    let destination = Destination {
                        nat_gateway: id,
                        address,
                        remote: at.destination,
                        remote_port: walk.tuple.destination_port,
                        protocol: Protocol::TCP,
                    };
                    // If none is free there, the stage tries another address.
                    let reservation = PortReservation::take(
                        &state.leases,
                        destination,
                        walk.tuple.source_port,
                        walk.random,
                    )?;
                    walk.tuple.source_port = reservation.translation().port;
                    let new = NewLease { place, vacancy };
                    walk.effects.propose(Effect::NewLease { nat_gateway, new, reservation }).ok()?;
                }
            }
        }
        Some(shortcut.way.take(walk))
    }

    /// Remembers a walk that every stage accepted, before its proposals are carried out, if it is of a kind that can be taken again.
    pub fn remember(&mut self, tables: &Tables, state: &State, link: LinkId, out: LinkId, walk: &Walk<'_>) {
        if answers::is_one(walk.packet) {
            self.answers.remember(self.seed, tables, state, link, out, walk);
            return;
        }
        let Some((ends, Segment::First)) = ends(walk.packet, link) else { return };
        if let Some(place) = self.places.get_mut(ends.place(self.seed))
            && let Some(legs) = legs(tables, walk)
        {
            *place = Some(Shortcut { ends, legs, way: Way::of(walk, out) });
        }
    }

    /// What the flow cache may keep of a connection's packets that go the other way, once the answer to its SYN was accepted: it came in on `from`
    /// with one tuple, leaves with another, and has decided so. `None`: only a walk knows.
    pub fn other_way(
        &self,
        from: LinkId,
        came: &Tuple,
        leaves: &Tuple,
        answer: &Decided,
    ) -> Option<(Key, Decided)> {
        let (before, after) = (leaves.reversed(), came.reversed());
        let ends = Ends::of(&before, answer.out)?;
        let Shortcut { legs, way, .. } = self.known(&ends)?;
        let leased = legs.iter().filter_map(|leg| match leg {
            Leg::Lease { nat_gateway, .. } => Some(*nat_gateway),
            Leg::Track { .. } => None,
        });
        // Then it is the same connections and leases that both ways depend on: at each of these, one's tuple is the other's reversed.
        let mirrored = (way.out, way.source, way.destination) == (from, after.source, after.destination)
            && (way.sender, way.receiver) == (answer.receiver, answer.sender)
            && legs.len() == answer.dependencies.len()
            && leased.eq(answer.nat_gateways.iter().map(|(nat_gateway, _)| *nat_gateway));
        if !mirrored {
            return None;
        }
        let dependencies = answer.dependencies.iter().map(|dependency| match *dependency {
            Dependency::Connection(activity, direction) => {
                Some(Dependency::Connection(activity, direction.opposite()))
            }
            Dependency::Lease(activity, direction) => Some(Dependency::Lease(activity, direction.opposite())),
            Dependency::NoConnection(_) => None,
        });
        let gateways = answer.nat_gateways.iter().map(|(at, direction)| (*at, direction.opposite()));
        let decided = Decided {
            out: way.out,
            rewrite: Rewrite::new(before, after, way.ttl_spent),
            mtu: way.mtu,
            ttl: Decided::smallest_ttl(way.ttl_spent),
            dependencies: dependencies.collect::<Option<_>>()?,
            nat_gateways: gateways.collect(),
            sender: way.sender,
            receiver: way.receiver,
        };
        Some((Key::of_answers(leaves, answer.out)?, decided))
    }

    #[inline]
    fn known(&self, ends: &Ends) -> Option<&Shortcut> {
        self.places.get(ends.place(self.seed))?.as_ref().filter(|known| known.ends == *ends)
    }
}

/// Which of a connection's segments it is.
#[derive(Clone, Copy)]
enum Segment {
    /// It asks for the connection.
    First,
    /// Any other.
    Later,
}

/// The ends of a whole TCP packet; `None` if it is anything else.
#[inline]
fn ends(packet: &Packet, link: LinkId) -> Option<(Ends, Segment)> {
    let (Kind::Tcp(facts), None) = (&packet.kind, packet.fragment) else { return None };
    let segment = if facts.begins_connection() { Segment::First } else { Segment::Later };
    Some((Ends::of(&packet.tuple, link)?, segment))
}

impl Ends {
    /// `None` if they are not IPv4.
    #[inline]
    fn of(tuple: &Tuple, link: LinkId) -> Option<Self> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (tuple.source, tuple.destination) else {
            return None;
        };
        Some(Self { source, destination, link, port: tuple.destination_port })
    }

    /// Which of the [`PLACES`] is theirs.
    #[inline]
    fn place(&self, seed: Seed) -> usize {
        let Self { source, destination, link, port } = *self;
        let addresses = u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination));
        seed.hash([addresses, u64::from(link.0) << 16 | u64::from(port)]) as usize % PLACES
    }
}

impl Way {
    /// That of a walk that every stage accepted.
    fn of(walk: &Walk<'_>, out: LinkId) -> Self {
        let Walk { tuple, sender, receiver, mtu, mss, ttl_spent, .. } = *walk;
        let Tuple { source, destination, .. } = tuple;
        Self { source, destination, out, sender, receiver, mtu, mss, ttl_spent }
    }

    /// Whether a packet can go it as it is.
    #[inline]
    fn takes(&self, packet: &Packet) -> bool {
        packet.segment_length <= self.mtu && packet.ttl > self.ttl_spent
    }

    /// Does to a walk what its stages would do, but for ports and proposals.
    #[inline]
    fn take(&self, walk: &mut Walk<'_>) -> LinkId {
        let Self { source, destination, out, sender, receiver, mtu, mss, ttl_spent } = *self;
        (walk.tuple.source, walk.tuple.destination) = (source, destination);
        (walk.sender, walk.receiver) = (sender, receiver);
        (walk.mtu, walk.mss, walk.ttl_spent) = (mtu, mss, ttl_spent);
        out
    }
}

/// `None` if the walk met state that another one may not meet, or changed more than a port of its source.
fn legs(tables: &Tables, walk: &Walk<'_>) -> Option<ArrayVec<Leg, LEGS>> {
    let mut legs = ArrayVec::new();
    let mut leased = false;
    for effect in walk.effects.as_slice() {
        let leg = match effect {
            Effect::Track { eni, new, untracked, .. } => {
                let tuple = match new.direction {
                    Direction::Outbound => new.place.tuple(),
                    Direction::Inbound => new.place.tuple().reversed(),
                };
                Leg::Track {
                    eni: *eni,
                    id: EniId(new.place.number()),
                    direction: new.direction,
                    untracked: *untracked,
                    at: addresses(&tuple),
                }
            }
            Effect::NewLease { nat_gateway, new, reservation } if !leased => {
                leased = true;
                lease(tables, *nat_gateway, &new.place, reservation.translation().address)?
            }
            Effect::Reopen { nat_gateway, place, address, .. } if !leased => {
                leased = true;
                lease(tables, *nat_gateway, place, *address)?
            }
            _ => return None,
        };
        legs.try_push(leg).ok()?;
    }
    Some(legs)
}

/// `None` if it has another than the preferred address, which is so only while that has no ports.
fn lease(tables: &Tables, nat_gateway: NatGatewayIndex, place: &Place, address: IpAddr) -> Option<Leg> {
    let tuple = place.tuple();
    let preferred = preferred_address(tables.nat_gateway(nat_gateway), tuple.source);
    (address == preferred).then(|| Leg::Lease { nat_gateway, address, at: addresses(&tuple) })
}

fn addresses(tuple: &Tuple) -> Addresses {
    Addresses { source: tuple.source, destination: tuple.destination }
}

#[cfg(test)]
mod tests;

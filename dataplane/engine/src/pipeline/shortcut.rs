//! Which way did the last connection between these two ends take?
//!
//! What rules, routes and gateways say about a SYN depends on the tables, the link, both addresses and the destination
//! port, but not on the source port. So a worker remembers for some such ends what the last SYN between them would change, and
//! makes the same proposals for the next one without asking the stages again, and those of a known connection for the segments of it that no
//! flow cache knows yet. All that is state is asked as ever: whether the connection is known, whether it has a lease, which port is free.
//! Wherever that makes a difference, the packet is walked.
//!
//! A shortcut is of one generation of the tables. It only stands in for a walk that every stage accepted; it counts and commits as that does.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use localvpc_api::trace::{Direction, Protocol, Tuple};
use localvpc_api::{EniId, Generation, LinkId};

use super::Walk;
use super::effects::Effect;
use super::nat_gateway::preferred_address;
use crate::hash::Seed;
use crate::packet::{Kind, Packet};
use crate::state::State;
use crate::state::conntrack::{self, NewConnection};
use crate::state::leases::{self, InsideKey, NewLease, PortReservation};
use crate::state::nat_ports::Destination;
use crate::state::place::Place;
use crate::state::reopens;
use crate::tables::{EniIndex, NatGatewayIndex, Tables};

/// Shortcuts of a worker, of fixed number.
#[derive(Debug)]
pub struct Shortcuts {
    /// By hash of the ends.
    places: Box<[Option<Shortcut>]>,
    generation: Generation,
    seed: Seed,
}

/// What a SYN between these ends would change, and how it leaves.
#[derive(Clone, Debug)]
struct Shortcut {
    ends: Ends,
    legs: ArrayVec<Leg, LEGS>,
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
            generation: Generation::default(),
            seed: Seed::from_random(seed),
        }
    }

    /// Never any.
    pub fn none() -> Self {
        Self { places: Box::default(), generation: Generation::default(), seed: Seed::from_random(0) }
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
        let taken = self.try_to_take(tables, state, link, walk);
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
        let shortcut = self.places.get(self.place(&ends))?.as_ref().filter(|known| known.ends == ends)?;
        if walk.packet.segment_length > shortcut.mtu || walk.packet.ttl <= shortcut.ttl_spent {
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
        walk.tuple.source = shortcut.source;
        walk.tuple.destination = shortcut.destination;
        walk.mtu = shortcut.mtu;
        walk.mss = shortcut.mss;
        walk.ttl_spent = shortcut.ttl_spent;
        walk.sender = shortcut.sender;
        walk.receiver = shortcut.receiver;
        Some(shortcut.out)
    }

    /// Remembers a walk that every stage accepted, before its proposals are carried out, if it is of a kind that can be taken again.
    pub fn remember(&mut self, tables: &Tables, link: LinkId, out: LinkId, walk: &Walk<'_>) {
        let Some((ends, Segment::First)) = ends(walk.packet, link) else { return };
        let at = self.place(&ends);
        if let Some(place) = self.places.get_mut(at)
            && let Some(legs) = legs(tables, walk)
        {
            let Walk { tuple, sender, receiver, mtu, mss, ttl_spent, .. } = *walk;
            let Tuple { source, destination, .. } = tuple;
            *place = Some(Shortcut {
                ends,
                legs,
                source,
                destination,
                out,
                sender,
                receiver,
                mtu,
                mss,
                ttl_spent,
            });
        }
    }

    #[inline]
    fn place(&self, ends: &Ends) -> usize {
        let Ends { source, destination, link, port } = *ends;
        let addresses = u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination));
        self.seed.hash([addresses, u64::from(link.0) << 16 | u64::from(port)]) as usize % PLACES
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
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.tuple.source, packet.tuple.destination)
    else {
        return None;
    };
    Some((Ends { source, destination, link, port: packet.tuple.destination_port }, segment))
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
mod tests {
    use super::*;
    use crate::packet::{Offload, TcpFacts, parse};
    use crate::testing::fabric::Fabric;
    use crate::testing::{craft, lab};

    /// What a walk is afterwards, for comparison. Of a reservation only what was reserved is shown.
    fn outcome(out: LinkId, walk: &Walk<'_>) -> String {
        let effects: Vec<String> = walk
            .effects
            .as_slice()
            .iter()
            .map(|effect| match effect {
                Effect::NewLease { nat_gateway, new, reservation } => {
                    format!("{nat_gateway:?} {new:?} {:?}", reservation.key())
                }
                other => format!("{other:?}"),
            })
            .collect();
        let Walk { tuple, embedded, ttl_spent, mtu, mss, sender, receiver, refused_by, .. } = walk;
        format!(
            "{out:?} {tuple:?} {embedded:?} {ttl_spent} {mtu} {mss} {sender:?} {receiver:?} {refused_by:?} {effects:#?}"
        )
    }

    fn by_stages<'a>(fabric: &'a Fabric, link: LinkId, walk: &mut Walk<'a>) -> LinkId {
        let at = crate::pipeline::admit(&fabric.tables, link, walk, &mut ()).unwrap();
        crate::pipeline::walk(&fabric.tables, &fabric.state, at, walk, &mut ()).unwrap()
    }

    fn syn(from: &str, to: &str) -> Packet {
        parse(&craft::tcp(TcpFacts::SYN, from, to), Offload::default()).unwrap()
    }

    fn fabric() -> Fabric {
        Fabric::new(lab::tables())
    }

    fn walk(packet: &Packet) -> Walk<'_> {
        Walk::new(packet, crate::Time(1_000_000), 12_345 << 32)
    }

    /// Shortcuts after a SYN from port 1000 on, and that SYN's ends.
    fn after_one(fabric: &Fabric, link: LinkId, from: &str, to: &str) -> Shortcuts {
        let mut shortcuts = Shortcuts::new(1);
        shortcuts.turn_to(fabric.tables.generation);
        let first = syn(&format!("{from}:1000"), to);
        let mut walk = walk(&first);
        let out = by_stages(fabric, link, &mut walk);
        shortcuts.remember(&fabric.tables, link, out, &walk);
        shortcuts
    }

    #[test]
    fn proposes_what_the_stages_propose() {
        let mut fabric = fabric();
        for (link, from, to) in [
            // Through the NAT gateway; through it and back in to another instance, which sees another source; through the internet
            // gateway; within the VPC; in from the internet.
            (lab::APP.1, "10.0.2.20", "203.0.113.5:443"),
            (lab::APP.1, "10.0.2.20", "198.51.100.10:80"),
            (lab::WEB.1, "10.0.1.10", "203.0.113.5:443"),
            (lab::APP.1, "10.0.2.20", "10.0.2.30:5432"),
            (lab::INTERNET, "203.0.113.5", "198.51.100.10:80"),
        ] {
            let shortcuts = after_one(&fabric, link, from, to);
            let ends = format!("{from}:2000");
            // The second finds the connection that the first has made.
            for flags in [TcpFacts::SYN, TcpFacts::ACK, TcpFacts::FIN | TcpFacts::ACK, TcpFacts::RST] {
                let bytes = craft::tcp(flags, ends.as_str(), to);
                let next = parse(&bytes, Offload::default()).unwrap();
                let expected = {
                    let mut walk = walk(&next);
                    let out = by_stages(&fabric, link, &mut walk);
                    outcome(out, &walk)
                };
                let mut taken = walk(&next);
                let out = shortcuts.take(&fabric.tables, &fabric.state, link, &mut taken);
                if link == lab::INTERNET && flags != TcpFacts::SYN {
                    assert_eq!(out, None, "web does not track what anybody may send it (SG-32)");
                    continue;
                }
                let out = out.unwrap_or_else(|| panic!("a shortcut from {from} to {to}, flags {flags:#x}"));
                assert_eq!(outcome(out, &taken), expected);
                drop(taken);
                fabric.send_on(0, link, bytes, Offload::default());
            }
        }
    }

    #[test]
    fn is_only_between_the_same_ends_for_what_fits() {
        let fabric = fabric();
        let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
        let shortcuts = after_one(&fabric, link, from, to);
        let taken = |link, packet: &Packet| {
            let mut walk = walk(packet);
            let taken = shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk).is_some();
            assert!(taken || walk.effects.as_slice().is_empty() && walk.tuple == packet.tuple, "{walk:?}");
            taken
        };
        let next = syn("10.0.2.20:2000", to);
        assert!(taken(link, &next));
        assert!(!taken(lab::WEB.1, &next), "another link");
        assert!(!taken(link, &syn("10.0.2.21:2000", to)), "another source");
        assert!(!taken(link, &syn("10.0.2.20:2000", "203.0.113.5:80")), "another port");
        assert!(!taken(link, &syn("10.0.2.20:2000", "203.0.113.6:443")), "another destination");
        assert!(!taken(link, &Packet { ttl: 1, ..next }), "time exceeded at the NAT gateway");
        assert!(taken(link, &Packet { ttl: 2, ..next }));
        assert!(taken(link, &Packet { segment_length: 1500, ..next }));
        assert!(!taken(link, &Packet { segment_length: 1501, ..next }), "too big for the internet");
        for flags in [TcpFacts::ACK, TcpFacts::SYN | TcpFacts::ACK, TcpFacts::SYN | TcpFacts::RST] {
            let other = parse(&craft::tcp(flags, "10.0.2.20:2000", to), Offload::default()).unwrap();
            assert!(!taken(link, &other), "flags {flags:#x}");
        }
    }

    #[test]
    fn ends_with_its_generation_and_gives_way_to_what_is_known() {
        let mut fabric = fabric();
        let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
        let mut shortcuts = after_one(&fabric, link, from, to);
        let next = syn("10.0.2.20:2000", to);
        let taken = |shortcuts: &Shortcuts, fabric: &Fabric| {
            shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(&next)).is_some()
        };
        assert!(taken(&shortcuts, &fabric));
        fabric.send_on(0, link, craft::tcp(TcpFacts::SYN, "10.0.2.20:2000", to), Offload::default());
        assert!(!taken(&shortcuts, &fabric), "the connection is known now");
        fabric.pass_ms(1_000_000);
        let ack = parse(&craft::tcp(TcpFacts::ACK, "10.0.2.20:2000", to), Offload::default()).unwrap();
        let later = shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(&ack));
        assert_eq!(later, None, "nothing is known any more");
        assert!(taken(&shortcuts, &fabric));
        shortcuts.turn_to(fabric.tables.generation);
        assert!(taken(&shortcuts, &fabric));
        shortcuts.turn_to(Generation(fabric.tables.generation.0 + 1));
        assert!(!taken(&shortcuts, &fabric));
    }

    #[test]
    fn a_closed_connection_that_is_opened_again_keeps_its_translation() {
        let mut fabric = fabric();
        let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
        let next = syn("10.0.2.20:2000", to);
        for flags in [TcpFacts::SYN, TcpFacts::RST] {
            fabric.send_on(0, link, craft::tcp(flags, "10.0.2.20:2000", to), Offload::default());
        }
        let mut walked = walk(&next);
        let out = by_stages(&fabric, link, &mut walked);
        let reopens = |effect: &Effect<'_>| matches!(effect, Effect::Reopen { .. });
        assert!(walked.effects.as_slice().iter().any(reopens), "{walked:?}");
        // As others remember it, and as it is remembered itself.
        let mut own = Shortcuts::new(1);
        own.turn_to(fabric.tables.generation);
        own.remember(&fabric.tables, link, out, &walked);
        for shortcuts in [after_one(&fabric, link, from, to), own] {
            let mut taken = walk(&next);
            assert_eq!(shortcuts.take(&fabric.tables, &fabric.state, link, &mut taken), Some(out));
            assert_eq!(outcome(out, &taken), outcome(out, &walked));
        }
    }

    #[test]
    fn of_several_addresses_only_the_one_that_its_source_keeps_to_is_remembered() {
        let mut fabric = fabric();
        fabric.push(|rows| {
            let other = lab::ip("10.0.1.101");
            rows.nat_gateways[0].addresses.push(other);
            rows.public_addresses.push(lab::public("198.51.100.101", "10.0.1.101"));
        });
        let (link, to) = (lab::APP.1, "203.0.113.5:443");
        let first = syn("10.0.2.20:1000", to);
        let preferred = preferred_address(&fabric.tables.nat_gateways[0], first.tuple.source);
        let destination = Destination {
            nat_gateway: lab::NAT,
            address: preferred,
            remote: first.tuple.destination,
            remote_port: 443,
            protocol: Protocol::TCP,
        };
        for _ in 0..55_000 {
            fabric.state.leases.ports.reserve(&destination, 7 << 32).unwrap();
        }
        let shortcuts = after_one(&fabric, link, "10.0.2.20", to);
        let mut walk = walk(&first);
        assert_eq!(shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk), None);
    }
}

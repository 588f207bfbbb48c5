//! The way of a set of packets, and of their replies, past every refusal.
//!
//! The arms are those of the dataplane's `pipeline::walk` and stand in its order; what is told follows AWS's
//! (ORD-1: a subnet's network ACL before its route table). It differs in three things: ports are sets; a refusal is noted and
//! passed; and no state is known, so the reply is judged as that of the packet that has just been walked.

mod gateways;
mod notes;
mod start;
mod subnets;

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::tables::{Action, Eni, RouteTarget, SourceDestCheck};
use localvpc_api::trace::{Decision, Direction, MatchedRoute, Protocol, SecurityGroupVerdict, Tuple};
use localvpc_api::{DiscardReason, EniId, InternetGatewayId, NatGatewayId, Scope, SubnetId, VpcId};

use super::fabric::{Fabric, Owner};
use super::filters::{self, Load};
use super::ranges::Ranges;
use super::*;

/// Walks the packets of a question.
///
/// `example` stands for the addresses of the internet that the question leaves open; `choice` says which of its
/// addresses each NAT gateway takes.
pub fn walk(fabric: &Fabric<'_>, question: &Question, example: Option<Ipv4Addr>, choice: usize) -> Case {
    let mut walker = Walker {
        fabric,
        question,
        choice,
        way: Way::Forward,
        ports: Vec::new(),
        forward: Vec::new(),
        back: Vec::new(),
        findings: Vec::new(),
        verdicts: Vec::new(),
        leases: Vec::new(),
        assumed: None,
    };
    walker.there_and_back(example);
    walker.case()
}

/// More stages than any packet meets on a sensible path, as in the dataplane.
const MAX_STAGES: usize = 24;

struct Walker<'f, 't> {
    fabric: &'f Fabric<'t>,
    question: &'f Question,
    choice: usize,
    way: Way,
    /// Source ports that are open, the sender's first.
    ports: Vec<OpenPort>,
    forward: Vec<Hop>,
    back: Vec<Hop>,
    findings: Vec<Finding>,
    /// What the interfaces on the way there do with the connection, as they see it.
    verdicts: Vec<(EniId, Direction, Packet, Tracking)>,
    /// What the NAT gateways on the way there have translated.
    leases: Vec<Lease>,
    /// A private address that is taken to have a public one, though it has none: that has been noted.
    assumed: Option<IpAddr>,
}

#[derive(Clone, Copy, PartialEq)]
enum Tracking {
    Tracked,
    Untracked,
}

/// A translation that a NAT gateway made.
struct Lease {
    nat_gateway: NatGatewayId,
    inside: Packet,
    address: IpAddr,
}

/// The packets at some point of their way.
#[derive(Clone, Copy, PartialEq)]
struct Packet {
    source: Address,
    destination: Address,
    source_port: Port,
    destination_port: Port,
}

#[derive(Clone, Copy, PartialEq)]
struct Address {
    ip: IpAddr,
    /// Whether it only stands for the addresses of the case.
    open: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Port {
    Fixed(u16),
    /// One of [`Walker::ports`].
    Open(usize),
}

#[derive(Clone, Copy)]
enum At {
    Leaving(EniId),
    Routing(SubnetId),
    Inbound(SubnetId, Next),
    Reaching(Next),
    Internet,
    Arrived(Arrival),
}

#[derive(Clone, Copy)]
enum Next {
    Eni(EniId),
    NatGateway(NatGatewayId),
    InternetGateway(InternetGatewayId),
}

/// Where it ends.
#[derive(Clone, Copy, PartialEq)]
enum Arrival {
    /// At an interface that has the address.
    Eni(EniId),
    /// At a host of the internet.
    Internet,
    /// At the NAT gateway that sent it.
    Sender,
    /// At an interface whose instance forwards it.
    Forwarder(EniId),
    /// Nowhere: it cannot be told where it would go on.
    Nowhere,
}

impl From<Owner> for Next {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Eni(id) => Self::Eni(id),
            Owner::NatGateway(id) => Self::NatGateway(id),
        }
    }
}

impl Address {
    const fn known(ip: IpAddr) -> Self {
        Self { ip, open: false }
    }
}

impl Packet {
    const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl Walker<'_, '_> {
    fn there_and_back(&mut self, example: Option<Ipv4Addr>) {
        let Some((at, sent)) = self.start(example) else { return };
        let Some((arrival, arrived)) = self.follow(at, sent) else { return };
        let own = |source: IpAddr| match self.question.from {
            Source::Eni(id) => self.fabric.eni(id).is_some_and(|eni| eni.addresses.contains(&source)),
            Source::NatGateway(id) => {
                self.fabric.nat_gateway(id).is_some_and(|nat| nat.addresses.contains(&source))
            }
            Source::Host(_) | Source::Internet | Source::InternetGateway(_) => true,
        };
        let back = match arrival {
            Arrival::Eni(eni) => At::Leaving(eni),
            Arrival::Internet => At::Internet,
            Arrival::Forwarder(_) => {
                self.find(Detail::UnknownDestination, Weight::Unknown);
                return self.find(Detail::Unidirectional, Weight::Detail);
            }
            Arrival::Sender | Arrival::Nowhere => return,
        };
        if !own(sent.source.ip) {
            // Its reply goes to whoever has the address.
            return self.find(Detail::Unidirectional, Weight::Detail);
        }
        self.way = Way::Back;
        match self.follow(back, arrived.reversed()) {
            Some((Arrival::Forwarder(_), _)) => self.find(Detail::UnknownDestination, Weight::Unknown),
            Some((Arrival::Eni(_) | Arrival::Internet, reply)) if reply != sent.reversed() => {
                // It comes from an address that the sender has not asked.
                self.find(Detail::NoPath, Weight::Blocks);
            }
            _ => {}
        }
    }

    fn case(self) -> Case {
        let has = |weight| self.findings.iter().any(|finding| finding.weight == weight);
        let outcome = if has(Weight::Blocks) {
            Outcome::Blocked
        } else if has(Weight::Unknown) {
            Outcome::Undecidable
        } else if self.ports.iter().any(|port| port.good != port.all) {
            Outcome::Partial
        } else {
            Outcome::Reachable
        };
        Case {
            outcome,
            addresses: None,
            forward: self.forward,
            back: self.back,
            findings: self.findings,
            ports: self.ports,
        }
    }

    fn follow(&mut self, mut at: At, mut packet: Packet) -> Option<(Arrival, Packet)> {
        for _ in 0..MAX_STAGES {
            at = match at {
                At::Leaving(eni) => self.leave(eni, packet)?,
                At::Routing(subnet) => self.route(subnet, packet)?,
                At::Inbound(subnet, next) => {
                    self.network_acl(subnet, Direction::Inbound, packet)?;
                    At::Reaching(next)
                }
                At::Reaching(Next::Eni(eni)) => self.arrive(eni, packet)?,
                At::Reaching(Next::NatGateway(nat)) => self.nat_gateway(nat, &mut packet)?,
                At::Reaching(Next::InternetGateway(igw)) => self.internet_gateway(igw, &mut packet)?,
                At::Internet => self.internet(&mut packet)?,
                At::Arrived(arrival) => return Some((arrival, packet)),
            };
        }
        self.hop(packet, Decision::End, Some(DiscardReason::Loop.into()), packet);
        self.find(Detail::NoPath, Weight::Detail);
        Some((Arrival::Nowhere, packet))
    }
}

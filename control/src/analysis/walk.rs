//! The way of a set of packets, and of their replies, past every refusal.
//!
//! The arms are those of the dataplane's `pipeline::walk` and stand in its order; what is told follows AWS's
//! (ORD-1: a subnet's network ACL before its route table). It differs in three things: ports are sets; a refusal is noted and
//! passed; and no state is known, so the reply is judged as that of the packet that has just been walked.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::tables::{Action, Eni, RouteTarget, SourceDestCheck};
use localvpc_api::trace::{Decision, Direction, MatchedRoute, Protocol, SecurityGroupVerdict, Tuple};
use localvpc_api::{DiscardReason, EniId, InternetGatewayId, NatGatewayId, SubnetId, VpcId};

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

    /// Where the packet begins, and what it is.
    fn start(&mut self, example: Option<Ipv4Addr>) -> Option<(At, Packet)> {
        let question = self.question;
        let open = example.map(|ip| Address { ip: ip.into(), open: true });
        let (at, own, vpc) = match question.from {
            Source::Eni(id) => {
                let eni = self.fabric.eni(id)?;
                let source = Address::known(*eni.addresses.first()?);
                (At::Leaving(id), source, Some(self.fabric.subnet(eni.subnet)?.vpc))
            }
            Source::NatGateway(id) => {
                let nat = self.fabric.nat_gateway(id)?;
                let source = Address::known(nat.addresses[self.choice % nat.addresses.len().max(1)]);
                (At::Routing(nat.subnet), source, Some(self.fabric.subnet(nat.subnet)?.vpc))
            }
            Source::Host(ip) => (At::Internet, Address::known(ip.into()), None),
            Source::Internet | Source::InternetGateway(_) => {
                let source = question.source_address.map(|ip| Address::known(ip.into())).or(open)?;
                (At::Internet, source, None)
            }
        };
        let source = question.source_address.map_or(own, |ip| Address::known(ip.into()));
        let has_ports = matches!(question.protocol, Protocol::TCP | Protocol::UDP);
        let (source_port, destination_port) = if has_ports {
            let (all, chosen_by) = match question.from {
                Source::NatGateway(id) => (Ranges::of(NAT_PORTS.0, NAT_PORTS.1), Chooser::NatGateway(id)),
                _ => (question.source_ports.clone(), Chooser::Sender),
            };
            let source = self.open_port(chosen_by, all);
            let destination = match (question.ports.count(), question.ports.first()) {
                // Ports of a question fit 16 bits.
                (1, Some(port)) => Port::Fixed(port as u16),
                _ => self.open_port(Chooser::Question, question.ports.clone()),
            };
            (source, destination)
        } else {
            (Port::Fixed(0), Port::Fixed(0))
        };
        let (destination, target) = match question.to {
            Destination::Eni(id) => {
                let ip = *self.fabric.eni(id)?.addresses.first()?;
                self.named(ip, Owner::Eni(id), vpc)
            }
            Destination::NatGateway(id) => {
                let ip = *self.fabric.nat_gateway(id)?.addresses.first()?;
                self.named(ip, Owner::NatGateway(id), vpc)
            }
            Destination::Address(ip) => (Address::known(ip.into()), None),
            Destination::Internet | Destination::InternetGateway(_) => (open?, None),
        };
        let packet = Packet { source, destination, source_port, destination_port };
        if !is_unicast(source.ip) || !is_unicast(destination.ip) {
            self.hop(packet, Decision::End, Some(DiscardReason::NotUnicast.into()), packet);
            return None;
        }
        if let Source::NatGateway(nat_gateway) = question.from
            && source != own
        {
            let decision = nat_decision(nat_gateway, Direction::Outbound, None, false);
            self.hop(packet, decision, Some(Detail::EniAddressRestriction.into()), packet);
        }
        let Some(target) = target else { return Some((at, packet)) };
        // From outside its VPC it has no address: what is in the way behind the gateway is told all the same.
        let subnet = self.fabric.subnet_of(target)?;
        self.assumed = Some(destination.ip);
        let decision = Decision::InternetGateway {
            internet_gateway: self.fabric.internet_gateway_of(subnet.vpc),
            direction: Direction::Inbound,
            translated: None,
        };
        self.hop(packet, decision, Some(DiscardReason::NoPublicAssociation.into()), packet);
        if vpc.is_some() {
            self.find(Detail::DisconnectedVpcs, Weight::Detail);
        }
        if self.is_other_gateway(subnet.vpc) {
            self.find(Detail::IgwOutsideVpc, Weight::Detail);
        }
        Some((At::Inbound(subnet.id, target.into()), packet))
    }

    /// The address under which something is known to a sender in `vpc`; with its owner if that is none.
    fn named(&self, ip: IpAddr, owner: Owner, vpc: Option<VpcId>) -> (Address, Option<Owner>) {
        let own_vpc = self.fabric.subnet_of(owner).map(|subnet| subnet.vpc);
        if vpc.is_some() && vpc == own_vpc {
            return (Address::known(ip), None);
        }
        let gateway = own_vpc.and_then(|vpc| self.fabric.internet_gateway_of(vpc));
        match gateway.and_then(|gateway| self.fabric.public_of(gateway, ip)) {
            Some(public) => (Address::known(public), None),
            None => (Address::known(ip), Some(owner)),
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

    fn leave(&mut self, eni: EniId, packet: Packet) -> Option<At> {
        let row = self.fabric.eni(eni)?;
        if row.source_dest_check == SourceDestCheck::Enabled && !row.addresses.contains(&packet.source.ip) {
            let decision = Decision::SourceDestCheck { eni, direction: Direction::Outbound, pass: false };
            self.hop(packet, decision, Some(DiscardReason::SourceDestCheck.into()), packet);
        }
        self.security_groups(row, Direction::Outbound, packet);
        Some(At::Routing(row.subnet))
    }

    fn arrive(&mut self, eni: EniId, packet: Packet) -> Option<At> {
        let row = self.fabric.eni(eni)?;
        let own = row.addresses.contains(&packet.destination.ip);
        if !own {
            let pass = row.source_dest_check == SourceDestCheck::Disabled;
            let decision = Decision::SourceDestCheck { eni, direction: Direction::Inbound, pass };
            let refusal = (!pass).then_some(DiscardReason::SourceDestCheck.into());
            self.hop(packet, decision, refusal, packet);
        }
        self.security_groups(row, Direction::Inbound, packet);
        Some(At::Arrived(if own { Arrival::Eni(eni) } else { Arrival::Forwarder(eni) }))
    }

    fn security_groups(&mut self, eni: &Eni, direction: Direction, packet: Packet) {
        let verdict = |verdict| Decision::SecurityGroup { eni: eni.id, direction, verdict };
        // A reply belongs to a connection by its addresses and ports there: one that a route leads to another interface, or to the
        // sender's own under another address, belongs to none (SG-30).
        let there = self.verdicts.iter().find(|(id, way, sent, _)| {
            (*id, *way, sent.reversed()) == (eni.id, direction.opposite(), packet)
        });
        let there = there.map(|(.., tracking)| *tracking).filter(|_| self.way == Way::Back);
        // What passes a NAT gateway is tracked, whatever the rules are (SG-35).
        if there == Some(Tracking::Tracked) || there.is_some() && !self.leases.is_empty() {
            return self.hop(packet, verdict(SecurityGroupVerdict::Tracked), None, packet);
        }
        let (far, load) = (far(direction, packet), self.load(packet));
        let said = filters::security_groups(self.fabric, eni, direction, far, &load);
        let protocol = self.question.protocol;
        let both =
            said.anywhere && filters::opens_everything(self.fabric, eni, direction.opposite(), protocol);
        let tracked = !(both || there == Some(Tracking::Untracked));
        if self.way == Way::Forward {
            let tracking = if tracked { Tracking::Tracked } else { Tracking::Untracked };
            self.verdicts.push((eni.id, direction, packet, tracking));
        }
        let several = said.parts.len() + usize::from(!said.refused.is_empty()) > 1;
        let nothing = said.parts.is_empty();
        let admitted = load.ports.without(&said.refused);
        for (security_group, rule, ports) in said.parts {
            let rule = SecurityGroupVerdict::Rule { security_group, rule, tracked };
            self.part(packet, verdict(rule), None, several.then_some(ports));
        }
        if said.refused.is_empty() {
            return;
        }
        let reason = match said.any_rules {
            true => DiscardReason::SecurityGroup,
            false => DiscardReason::SecurityGroupEmpty,
        };
        let decision = verdict(SecurityGroupVerdict::NoMatch { any_rules: said.any_rules });
        self.part(packet, decision, Some((reason, nothing)), several.then_some(said.refused));
        if !nothing {
            self.narrow(packet.destination_port, &admitted);
        }
        self.why_no_rule(eni, direction, packet, &load);
    }

    /// Whether rules would have known the packet by what it was, or is, elsewhere (SG-25).
    fn why_no_rule(&mut self, eni: &Eni, direction: Direction, packet: Packet, load: &Load) {
        let inside = match direction {
            Direction::Outbound => self.fabric.public(packet.destination.ip).map(|row| row.private),
            Direction::Inbound => match self.question.from {
                Source::Eni(id) if self.way == Way::Forward => {
                    let sender = self.fabric.eni(id).and_then(|eni| eni.addresses.first().copied());
                    sender.filter(|ip| *ip != packet.source.ip)
                }
                _ => None,
            },
        };
        let Some(inside) = inside else { return };
        if filters::references(self.fabric, eni, direction, inside, load) {
            self.find(Detail::GroupNotPreserved, Weight::Detail);
        }
        let admits = !filters::security_groups(self.fabric, eni, direction, inside, load).parts.is_empty();
        if direction == Direction::Inbound && admits && !self.leases.is_empty() {
            self.find(Detail::NatChangesSource, Weight::Detail);
        }
    }

    fn route(&mut self, subnet: SubnetId, packet: Packet) -> Option<At> {
        let row = self.fabric.subnet(subnet)?;
        let destination = packet.destination.ip;
        if row.cidr.contains(&destination) {
            let owner = self.fabric.owner(row.vpc, destination);
            let refusal = owner.is_none().then_some(DiscardReason::NoSuchAddress.into());
            self.hop(packet, Decision::SameSubnet { subnet }, refusal, packet);
            return Some(owner.map_or(At::Arrived(Arrival::Nowhere), |owner| At::Reaching(owner.into())));
        }
        let table = self.fabric.route_table(row.route_table)?;
        let route = self.fabric.route(table, destination);
        let (next, refusal) = match route.map(|route| route.target) {
            None => (self.way_out(subnet, packet), Some(DiscardReason::NoRoute)),
            Some(RouteTarget::Blackhole) => (self.way_out(subnet, packet), Some(DiscardReason::Blackhole)),
            Some(RouteTarget::Local) => {
                let owner = self.fabric.owner(row.vpc, destination);
                (owner.map(Next::from), owner.is_none().then_some(DiscardReason::NoSuchAddress))
            }
            Some(RouteTarget::InternetGateway(id)) => (Some(Next::InternetGateway(id)), None),
            Some(RouteTarget::NatGateway(id)) => (Some(Next::NatGateway(id)), None),
            Some(RouteTarget::NetworkInterface(id)) => (Some(Next::Eni(id)), None),
        };
        let beyond = match next {
            Some(Next::Eni(id)) => Some(self.fabric.eni(id)?.subnet),
            Some(Next::NatGateway(id)) => Some(self.fabric.nat_gateway(id)?.subnet),
            Some(Next::InternetGateway(_)) | None => None,
        };
        let leaves = beyond != Some(subnet) && refusal != Some(DiscardReason::NoSuchAddress);
        if leaves {
            self.network_acl(subnet, Direction::Outbound, packet)?;
        }
        let matched =
            route.map(|route| MatchedRoute { destination: route.destination, target: route.target });
        let decision = Decision::Route { subnet, route_table: table.id, matched };
        self.hop(packet, decision, refusal.map(Code::from), packet);
        match refusal {
            Some(DiscardReason::NoRoute) => {
                for route in &table.routes {
                    let local = route.target == RouteTarget::Local;
                    let detail = if local { Detail::LocalRouteOnly } else { Detail::CannotRoute };
                    self.find_route(detail, route.destination);
                }
            }
            Some(DiscardReason::Blackhole) => {
                let others = table.routes.iter().filter(|other| Some(*other) != route);
                for other in others.filter(|other| other.destination.contains(&destination)) {
                    self.find_route(Detail::MoreSpecificRoute, other.destination);
                }
            }
            _ => {}
        }
        Some(match (next, beyond) {
            (None, _) => At::Arrived(Arrival::Nowhere),
            (Some(next), Some(beyond)) if beyond != subnet => At::Inbound(beyond, next),
            (Some(next), _) => At::Reaching(next),
        })
    }

    /// Where a packet without a route would have to go: what has a public address by the internet gateway, all else by a
    /// NAT gateway of another subnet.
    fn way_out(&self, subnet: SubnetId, packet: Packet) -> Option<Next> {
        let vpc = self.fabric.subnet(subnet)?.vpc;
        let gateway = self.fabric.internet_gateway_of(vpc)?;
        if !is_public(packet.destination.ip) {
            return None;
        }
        let source = packet.source.ip;
        if self.fabric.public_of(gateway, source).is_some() || self.assumed == Some(source) {
            return Some(Next::InternetGateway(gateway));
        }
        if self.way == Way::Back {
            return None;
        }
        let mut others = self.fabric.tables.nat_gateways.iter();
        let other = others.find(|nat| {
            nat.subnet != subnet
                && self.fabric.subnet(nat.subnet).is_some_and(|subnet| subnet.vpc == vpc)
                && !nat.addresses.contains(&source)
        });
        other.map(|nat| Next::NatGateway(nat.id))
    }

    fn network_acl(&mut self, subnet: SubnetId, direction: Direction, packet: Packet) -> Option<()> {
        let acl = self.fabric.network_acl(self.fabric.subnet(subnet)?.network_acl)?;
        let entries = match direction {
            Direction::Inbound => &acl.inbound,
            Direction::Outbound => &acl.outbound,
        };
        let load = self.load(packet);
        let parts = filters::network_acl(entries, far(direction, packet), &load);
        let allowed = parts.iter().filter(|part| part.action == Action::Allow);
        let allowed: Ranges = allowed.flat_map(|part| part.ports.iter()).collect();
        let several = parts.len() > 1;
        for part in parts {
            let decision = Decision::NetworkAcl {
                subnet,
                network_acl: acl.id,
                direction,
                entry: part.entry,
                action: part.action,
            };
            let denied = part.action == Action::Deny;
            let refusal = denied.then_some((DiscardReason::NetworkAcl, allowed.is_empty()));
            self.part(packet, decision, refusal, several.then_some(part.ports));
        }
        if !allowed.is_empty() && allowed != load.ports {
            self.narrow(packet.destination_port, &allowed);
            if let Port::Open(at) = packet.destination_port
                && let Chooser::NatGateway(_) = self.ports[at].chosen_by
            {
                self.find(Detail::RemapsPort, Weight::Detail);
            }
        }
        Some(())
    }

    fn nat_gateway(&mut self, nat: NatGatewayId, packet: &mut Packet) -> Option<At> {
        let row = self.fabric.nat_gateway(nat)?;
        let before = *packet;
        let translates = matches!(self.question.protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP);
        if row.addresses.contains(&packet.destination.ip) {
            let decision = |translated| nat_decision(nat, Direction::Inbound, translated, true);
            if self.way == Way::Back
                && self.question.from == Source::NatGateway(nat)
                && self.leases.is_empty()
            {
                self.hop(before, decision(Some(self.tuple(before))), None, before);
                return Some(At::Arrived(Arrival::Sender));
            }
            let lease = self.leases.iter().rev().find(|lease| {
                (lease.nat_gateway, lease.address, lease.inside.destination.ip)
                    == (nat, packet.destination.ip, packet.source.ip)
            });
            if let Some(lease) = lease.filter(|_| self.way == Way::Back) {
                packet.destination = lease.inside.source;
                packet.destination_port = lease.inside.source_port;
                self.hop(before, decision(Some(self.tuple(*packet))), None, *packet);
                return Some(At::Routing(row.subnet));
            }
            let reason = if translates { DiscardReason::NatNoConnection } else { DiscardReason::NatProtocol };
            self.hop(before, decision(None), Some(reason.into()), before);
            self.find(Detail::NatKeepsDestination, Weight::Detail);
            return Some(At::Arrived(Arrival::Nowhere));
        }
        let decision = |translated| nat_decision(nat, Direction::Outbound, translated, false);
        let been = self.leases.iter().any(|lease| lease.nat_gateway == nat);
        if row.addresses.contains(&packet.source.ip) || self.way == Way::Forward && been {
            self.hop(before, decision(None), Some(DiscardReason::Loop.into()), before);
            self.find(Detail::NoPath, Weight::Detail);
            return Some(At::Arrived(Arrival::Nowhere));
        }
        let vpc = self.fabric.subnet(row.subnet)?.vpc;
        let foreign = self.fabric.owner(vpc, packet.source.ip).is_none();
        if self.way == Way::Back {
            // A reply has no lease there; of UDP it would make one, and come from another address.
            let refusal = match self.question.protocol {
                _ if foreign => DiscardReason::NatForeignSource.into(),
                Protocol::TCP | Protocol::ICMP => DiscardReason::NatNoConnection.into(),
                Protocol::UDP => Detail::NatChangesSource.into(),
                _ => Code::from(DiscardReason::NatProtocol),
            };
            self.hop(before, decision(None), Some(refusal), before);
            if self.question.protocol == Protocol::TCP {
                self.find(Detail::NatChangesSource, Weight::Detail);
            }
            return Some(At::Arrived(Arrival::Nowhere));
        }
        let refusal = match foreign {
            true => Some(DiscardReason::NatForeignSource),
            false => (!translates).then_some(DiscardReason::NatProtocol),
        };
        let address = row.addresses[self.choice % row.addresses.len().max(1)];
        packet.source = Address::known(address);
        if let Port::Open(_) = packet.source_port {
            let all = Ranges::of(NAT_PORTS.0, NAT_PORTS.1);
            packet.source_port = self.open_port(Chooser::NatGateway(nat), all);
        }
        let translated = refusal.is_none().then(|| self.tuple(*packet));
        self.hop(before, decision(translated), refusal.map(Code::from), *packet);
        self.leases.push(Lease { nat_gateway: nat, inside: before, address });
        Some(At::Routing(row.subnet))
    }

    /// From inside to the internet.
    fn internet_gateway(&mut self, igw: InternetGatewayId, packet: &mut Packet) -> Option<At> {
        let vpc = self.fabric.vpc_of(igw)?;
        let before = *packet;
        let decision = |translated| Decision::InternetGateway {
            internet_gateway: Some(igw),
            direction: Direction::Outbound,
            translated,
        };
        let dead_end = match scope(packet.destination.ip) {
            Scope::Private => Some(DiscardReason::PrivateDestination.into()),
            Scope::Shared => Some(DiscardReason::SharedDestination.into()),
            Scope::Public => match self.question.to {
                Destination::InternetGateway(other) if self.way == Way::Forward && other != igw => {
                    Some(Detail::DisconnectedVpcs.into())
                }
                _ => None::<Code>,
            },
        };
        if let Some(code) = dead_end {
            self.hop(before, decision(None), Some(code), before);
            return Some(At::Arrived(Arrival::Nowhere));
        }
        let source = packet.source.ip;
        match self.fabric.public_of(igw, source) {
            Some(public) => {
                packet.source = Address::known(public);
                self.hop(before, decision(Some(self.tuple(*packet))), None, *packet);
            }
            None if self.assumed == Some(source) => {
                self.hop(before, decision(Some(self.tuple(before))), None, before);
            }
            None => {
                self.hop(before, decision(None), Some(DiscardReason::NoPublicAddress.into()), before);
                if self.fabric.owner(vpc, source).is_none() {
                    self.find(Detail::RejectsSpoofed, Weight::Detail);
                    return Some(At::Arrived(Arrival::Nowhere));
                }
                self.assumed = Some(source);
            }
        }
        Some(At::Internet)
    }

    /// On the internet.
    fn internet(&mut self, packet: &mut Packet) -> Option<At> {
        let before = *packet;
        let destination = packet.destination;
        if destination.open {
            self.hop(before, Decision::Internet { found: true }, None, before);
            return Some(At::Arrived(Arrival::Internet));
        }
        let association = self.fabric.public(destination.ip);
        let inside = association.map(|row| (row.internet_gateway, row.private));
        let inside = inside.or_else(|| {
            // It has no public address; that has been told.
            let private = self.assumed.filter(|private| *private == destination.ip)?;
            let gateways = self.fabric.tables.internet_gateways.iter();
            let mut gateways = gateways.filter(|row| self.fabric.owner(row.vpc, private).is_some());
            Some((gateways.next()?.id, private))
        });
        if let Some((gateway, private)) = inside {
            return self.enter(gateway, private, packet);
        }
        if self.fabric.tables.internet_hosts.contains(&destination.ip) {
            self.hop(before, Decision::Internet { found: true }, None, before);
            return Some(At::Arrived(Arrival::Internet));
        }
        let from_outside = !matches!(self.question.from, Source::Eni(_) | Source::NatGateway(_));
        if from_outside && self.way == Way::Back {
            // Whoever has asked is there.
            self.hop(before, Decision::Internet { found: true }, None, before);
            return Some(At::Arrived(Arrival::Internet));
        }
        if from_outside {
            let decision = Decision::InternetGateway {
                internet_gateway: None,
                direction: Direction::Inbound,
                translated: None,
            };
            self.hop(before, decision, Some(DiscardReason::NoPublicAssociation.into()), before);
            if !is_public(destination.ip) {
                self.find(Detail::IgwExpectsPublic, Weight::Detail);
            }
            return Some(At::Arrived(Arrival::Nowhere));
        }
        let refusal = Some(DiscardReason::NoSuchHost.into());
        self.hop(before, Decision::Internet { found: false }, refusal, before);
        Some(At::Arrived(Arrival::Internet))
    }

    /// From the internet into a VPC.
    fn enter(&mut self, gateway: InternetGatewayId, private: IpAddr, packet: &mut Packet) -> Option<At> {
        let before = *packet;
        let vpc = self.fabric.vpc_of(gateway)?;
        let owner = self.fabric.owner(vpc, private);
        let refusal = match scope(packet.source.ip) {
            _ if self.is_other_gateway(vpc) => Some(Code::from(Detail::IgwOutsideVpc)),
            _ if self.assumed == Some(packet.source.ip) => None,
            Scope::Private => Some(DiscardReason::PrivateSource.into()),
            Scope::Shared => Some(DiscardReason::SharedSource.into()),
            Scope::Public => owner.is_none().then_some(DiscardReason::NoSuchAddress.into()),
        };
        packet.destination = Address::known(private);
        let decision = Decision::InternetGateway {
            internet_gateway: Some(gateway),
            direction: Direction::Inbound,
            translated: refusal.is_none().then(|| self.tuple(*packet)),
        };
        self.hop(before, decision, refusal, *packet);
        let Some(owner) = owner else { return Some(At::Arrived(Arrival::Nowhere)) };
        Some(At::Inbound(self.fabric.subnet_of(owner)?.id, owner.into()))
    }

    /// Whether the packet is to come from the gateway of another VPC than its destination's.
    fn is_other_gateway(&self, vpc: VpcId) -> bool {
        matches!(self.question.from, Source::InternetGateway(asked) if self.fabric.vpc_of(asked) != Some(vpc))
            && self.way == Way::Forward
    }

    fn open_port(&mut self, chosen_by: Chooser, all: Ranges) -> Port {
        self.ports.push(OpenPort { chosen_by, good: all.clone(), all });
        Port::Open(self.ports.len() - 1)
    }

    /// Of an open port only these are still good.
    fn narrow(&mut self, port: Port, good: &Ranges) {
        if let Port::Open(at) = port {
            self.ports[at].good = self.ports[at].good.and(good);
        }
    }

    fn load(&self, packet: Packet) -> Load {
        let kind = if self.way == Way::Forward { ECHO_REQUEST } else { ECHO_REPLY };
        let protocol = self.question.protocol;
        Load { protocol, icmp: (kind, 0), ports: self.port_set(packet.destination_port) }
    }

    fn port_set(&self, port: Port) -> Ranges {
        match port {
            Port::Fixed(port) => Ranges::one(port.into()),
            Port::Open(at) => self.ports[at].good.clone(),
        }
    }

    /// A packet of the set.
    fn tuple(&self, packet: Packet) -> Tuple {
        // Ports of the question fit 16 bits; a set that became empty has nothing to show.
        let port = |port| self.port_set(port).first().map_or(0, |port| port as u16);
        Tuple {
            source: packet.source.ip,
            destination: packet.destination.ip,
            source_port: port(packet.source_port),
            destination_port: port(packet.destination_port),
            protocol: self.question.protocol,
        }
    }

    fn header(&self, packet: Packet) -> Header {
        let address = |address: Address| (!address.open).then_some(address.ip);
        Header {
            source: address(packet.source),
            destination: address(packet.destination),
            source_ports: self.port_set(packet.source_port),
            destination_ports: self.port_set(packet.destination_port),
        }
    }

    /// Notes what a component decides about all of the packets.
    fn hop(&mut self, before: Packet, decision: Decision, refusal: Option<Code>, after: Packet) {
        let hop = Hop {
            tuple: self.tuple(before),
            decision,
            refusal,
            ports: None,
            before: self.header(before),
            after: self.header(after),
        };
        self.hops().push(hop);
        if let Some(code) = refusal {
            self.find(code, Weight::Blocks);
        }
    }

    /// Notes what a component decides about some of the packets; `refusal` says whether it refuses all of them.
    fn part(
        &mut self,
        packet: Packet,
        decision: Decision,
        refusal: Option<(DiscardReason, bool)>,
        ports: Option<Ranges>,
    ) {
        let mut header = self.header(packet);
        let mut tuple = self.tuple(packet);
        if let Some(ports) = &ports {
            header.destination_ports = ports.clone();
            tuple.destination_port = ports.first().map_or(0, |port| port as u16);
        }
        let refused = refusal.map(|(reason, _)| reason.into());
        let (before, after) = (header.clone(), header);
        self.hops().push(Hop { tuple, decision, refusal: refused, ports, before, after });
        if let Some((reason, whole)) = refusal {
            self.find(reason, if whole { Weight::Blocks } else { Weight::Narrows });
        }
    }

    /// Tells something about the hop that was noted last.
    fn find(&mut self, code: impl Into<Code>, weight: Weight) {
        let (code, way, hop) = (code.into(), self.way, self.hops().len().saturating_sub(1));
        self.findings.push(Finding { code, weight, way, hop, route: None });
    }

    fn find_route(&mut self, code: Detail, route: IpNet) {
        self.find(code, Weight::Detail);
        if let Some(finding) = self.findings.last_mut() {
            finding.route = Some(route);
        }
    }

    fn hops(&mut self) -> &mut Vec<Hop> {
        match self.way {
            Way::Forward => &mut self.forward,
            Way::Back => &mut self.back,
        }
    }
}

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// The far address, as rules see it.
fn far(direction: Direction, packet: Packet) -> IpAddr {
    match direction {
        Direction::Inbound => packet.source.ip,
        Direction::Outbound => packet.destination.ip,
    }
}

fn nat_decision(
    nat_gateway: NatGatewayId,
    direction: Direction,
    translated: Option<Tuple>,
    established: bool,
) -> Decision {
    Decision::NatGateway { nat_gateway, direction, translated, established }
}

enum Scope {
    Private,
    Shared,
    Public,
}

fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(v4) if v4.is_private() => Scope::Private,
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => Scope::Shared,
        _ => Scope::Public,
    }
}

fn is_public(address: IpAddr) -> bool {
    matches!(scope(address), Scope::Public)
}

/// Whether an address can name one host (VPC-30).
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(_) => false,
    }
}

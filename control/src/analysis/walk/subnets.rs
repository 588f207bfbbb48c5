//! What interfaces and subnets say: source/destination check, security groups, route table, network ACL.

use super::gateways::is_public;
use super::*;

impl Walker<'_, '_> {
    pub(super) fn leave(&mut self, eni: EniId, packet: Packet) -> Option<At> {
        let row = self.fabric.eni(eni)?;
        if row.source_dest_check == SourceDestCheck::Enabled && !row.addresses.contains(&packet.source.ip) {
            let decision = Decision::SourceDestCheck { eni, direction: Direction::Outbound, pass: false };
            self.hop(packet, decision, Some(DiscardReason::SourceDestCheck.into()), packet);
        }
        self.security_groups(row, Direction::Outbound, packet);
        Some(At::Routing(row.subnet))
    }

    pub(super) fn arrive(&mut self, eni: EniId, packet: Packet) -> Option<At> {
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

    pub(super) fn security_groups(&mut self, eni: &Eni, direction: Direction, packet: Packet) {
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
    pub(super) fn why_no_rule(&mut self, eni: &Eni, direction: Direction, packet: Packet, load: &Load) {
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

    pub(super) fn route(&mut self, subnet: SubnetId, packet: Packet) -> Option<At> {
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
    pub(super) fn way_out(&self, subnet: SubnetId, packet: Packet) -> Option<Next> {
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

    pub(super) fn network_acl(
        &mut self,
        subnet: SubnetId,
        direction: Direction,
        packet: Packet,
    ) -> Option<()> {
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
}

/// The far address, as rules see it.
fn far(direction: Direction, packet: Packet) -> IpAddr {
    match direction {
        Direction::Inbound => packet.source.ip,
        Direction::Outbound => packet.destination.ip,
    }
}

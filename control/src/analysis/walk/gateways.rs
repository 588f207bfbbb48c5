//! What NAT gateways, internet gateways and the internet do with packets.

use super::*;

impl Walker<'_, '_> {
    pub(super) fn nat_gateway(&mut self, nat: NatGatewayId, packet: &mut Packet) -> Option<At> {
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
    pub(super) fn internet_gateway(&mut self, igw: InternetGatewayId, packet: &mut Packet) -> Option<At> {
        let vpc = self.fabric.vpc_of(igw)?;
        let before = *packet;
        let decision = |translated| Decision::InternetGateway {
            internet_gateway: Some(igw),
            direction: Direction::Outbound,
            translated,
        };
        let dead_end = match Scope::of(packet.destination.ip) {
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
    pub(super) fn internet(&mut self, packet: &mut Packet) -> Option<At> {
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
    pub(super) fn enter(
        &mut self,
        gateway: InternetGatewayId,
        private: IpAddr,
        packet: &mut Packet,
    ) -> Option<At> {
        let before = *packet;
        let vpc = self.fabric.vpc_of(gateway)?;
        let owner = self.fabric.owner(vpc, private);
        let refusal = match Scope::of(packet.source.ip) {
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
    pub(super) fn is_other_gateway(&self, vpc: VpcId) -> bool {
        matches!(self.question.from, Source::InternetGateway(asked) if self.fabric.vpc_of(asked) != Some(vpc))
            && self.way == Way::Forward
    }
}

/// What a NAT gateway does, in the words of a trace.
pub(super) fn nat_decision(
    nat_gateway: NatGatewayId,
    direction: Direction,
    translated: Option<Tuple>,
    established: bool,
) -> Decision {
    Decision::NatGateway { nat_gateway, direction, translated, established }
}

/// Whether the internet knows an address of this kind.
pub(super) fn is_public(address: IpAddr) -> bool {
    Scope::of(address) == Scope::Public
}

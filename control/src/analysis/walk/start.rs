//! Where packets begin, and what they are.

use super::gateways::nat_decision;
use super::*;

impl Walker<'_, '_> {
    /// Where the packet begins, and what it is.
    pub(super) fn start(&mut self, example: Option<Ipv4Addr>) -> Option<(At, Packet)> {
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
            Destination::EniAddress(id, ip) => self.named(ip.into(), Owner::Eni(id), vpc),
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
    pub(super) fn named(&self, ip: IpAddr, owner: Owner, vpc: Option<VpcId>) -> (Address, Option<Owner>) {
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
}

/// Whether an address can name one host (VPC-30).
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(_) => false,
    }
}

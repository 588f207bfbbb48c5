//! What is noted on the way: hops, findings, and which ports are still good.

use super::*;

impl Walker<'_, '_> {
    pub(super) fn open_port(&mut self, chosen_by: Chooser, all: Ranges) -> Port {
        self.ports.push(OpenPort { chosen_by, good: all.clone(), all });
        Port::Open(self.ports.len() - 1)
    }

    /// Of an open port only these are still good.
    pub(super) fn narrow(&mut self, port: Port, good: &Ranges) {
        if let Port::Open(at) = port {
            self.ports[at].good = self.ports[at].good.and(good);
        }
    }

    pub(super) fn load(&self, packet: Packet) -> Load {
        let kind = if self.way == Way::Forward { ECHO_REQUEST } else { ECHO_REPLY };
        let protocol = self.question.protocol;
        Load { protocol, icmp: (kind, 0), ports: self.port_set(packet.destination_port) }
    }

    pub(super) fn port_set(&self, port: Port) -> Ranges {
        match port {
            Port::Fixed(port) => Ranges::one(port.into()),
            Port::Open(at) => self.ports[at].good.clone(),
        }
    }

    /// A packet of the set.
    pub(super) fn tuple(&self, packet: Packet) -> Tuple {
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

    pub(super) fn header(&self, packet: Packet) -> Header {
        let address = |address: Address| (!address.open).then_some(address.ip);
        Header {
            source: address(packet.source),
            destination: address(packet.destination),
            source_ports: self.port_set(packet.source_port),
            destination_ports: self.port_set(packet.destination_port),
        }
    }

    /// Notes what a component decides about all of the packets.
    pub(super) fn hop(&mut self, before: Packet, decision: Decision, refusal: Option<Code>, after: Packet) {
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
    pub(super) fn part(
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
    pub(super) fn find(&mut self, code: impl Into<Code>, weight: Weight) {
        let (code, way, hop) = (code.into(), self.way, self.hops().len().saturating_sub(1));
        self.findings.push(Finding { code, weight, way, hop, route: None });
    }

    pub(super) fn find_route(&mut self, code: Detail, route: IpNet) {
        self.find(code, Weight::Detail);
        if let Some(finding) = self.findings.last_mut() {
            finding.route = Some(route);
        }
    }

    pub(super) fn hops(&mut self) -> &mut Vec<Hop> {
        match self.way {
            Way::Forward => &mut self.forward,
            Way::Back => &mut self.back,
        }
    }
}

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

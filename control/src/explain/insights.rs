//! An analysis in the EC2 API's shape.

use localvpc_api::tables::{PortRange, Traffic};
use localvpc_api::trace::{Decision, Direction, Protocol, SecurityGroupVerdict};
use localvpc_api::{EniId, RouteTableId, SubnetId};

use crate::analysis::insights::*;
use crate::analysis::{
    Analysis, Case, Code, Destination, Detail, Fabric, Finding, Header, Hop, Outcome, Question, Ranges,
    Source, Way, Weight,
};
use crate::lower::Index;
use crate::model::id::stable_hash;
use crate::model::{self, Target};

use super::Asked;

/// The analysis as `DescribeNetworkInsightsAnalyses` would tell it.
pub fn insights(index: &Index, asked: &Asked, analysis: &Analysis) -> NetworkInsightsAnalysis {
    let case = analysis.main();
    let protocol = asked.question.protocol;
    let shape = Shape { index, question: &asked.question, case, protocol };
    let id = |prefix: &str| {
        let protocol = protocol.to_string();
        let parts = [index.model().lab.as_str(), &asked.from, &asked.to, &protocol, prefix];
        format!("{prefix}-{:016x}{:x}", stable_hash(&parts, 1), stable_hash(&parts, 2) & 0xf)
    };
    NetworkInsightsAnalysis {
        network_insights_analysis_id: id("nia"),
        network_insights_path_id: id("nip"),
        status: "succeeded".into(),
        network_path_found: match analysis.outcome {
            Outcome::Undecidable => None,
            // For some packets there is one, and the headers say for which.
            Outcome::Reachable | Outcome::Partial => Some(true),
            Outcome::Blocked => Some(false),
        },
        forward_path_components: shape.components(Way::Forward, &case.forward),
        return_path_components: shape.components(Way::Back, &case.back),
        explanations: case.findings.iter().filter_map(|finding| shape.explanation(finding)).collect(),
        alternate_path_hints: Vec::new(),
    }
}

struct Shape<'a> {
    index: &'a Index,
    question: &'a Question,
    case: &'a Case,
    protocol: Protocol,
}

impl Shape<'_> {
    /// The components of one way, in the order of RA-8: those of an instance around what filters for it.
    fn components(&self, way: Way, hops: &[Hop]) -> Vec<PathComponent> {
        let mut all = Vec::new();
        for (at, hop) in hops.iter().enumerate() {
            let component = self.component(way, at, hop);
            match hop.decision {
                Decision::SecurityGroup { eni, direction: Direction::Outbound, .. } => {
                    all.extend(self.instance(eni));
                    all.extend(self.interface(eni));
                    all.push(component);
                }
                Decision::SecurityGroup { eni, direction: Direction::Inbound, .. } => {
                    all.push(component);
                    all.extend(self.interface(eni));
                    all.extend(self.instance(eni));
                }
                Decision::SourceDestCheck { pass: true, .. } | Decision::SameSubnet { .. } => {}
                // A path from or to an internet gateway ends there.
                Decision::Internet { found: true } if self.ends_at_a_gateway() => {}
                _ => all.push(component),
            }
        }
        if let (Source::NatGateway(nat), Way::Forward) = (self.question.from, way)
            && let Some((_, nat)) = self.index.nat_gateway(nat)
        {
            let component = named(&nat.id, &nat.name);
            all.insert(0, PathComponent { component, ..PathComponent::default() });
        }
        // An instance or interface whose groups were asked several times stands there once.
        all.dedup_by(|b, a| a.component == b.component && b.inbound_header.is_none());
        for (number, component) in (1..).zip(&mut all) {
            component.sequence_number = number;
        }
        all
    }

    fn ends_at_a_gateway(&self) -> bool {
        matches!(self.question.from, Source::InternetGateway(_))
            || matches!(self.question.to, Destination::InternetGateway(_))
    }

    /// The VPCs of sender and receiver.
    fn vpcs(&self) -> [Option<AnalysisComponent>; 2] {
        let index = self.index;
        let from = match self.question.from {
            Source::Eni(eni) => index.instance(eni).map(|(vpc, _)| vpc),
            Source::NatGateway(nat) => index.nat_gateway(nat).map(|(vpc, _)| vpc),
            Source::InternetGateway(gateway) => index.internet_gateway(gateway).map(|(vpc, _)| vpc),
            Source::Host(_) | Source::Internet => None,
        };
        let to = match self.question.to {
            Destination::Eni(eni) | Destination::EniAddress(eni, _) => {
                index.instance(eni).map(|(vpc, _)| vpc)
            }
            Destination::NatGateway(nat) => index.nat_gateway(nat).map(|(vpc, _)| vpc),
            Destination::InternetGateway(gateway) => index.internet_gateway(gateway).map(|(vpc, _)| vpc),
            Destination::Address(_) | Destination::Internet => None,
        };
        [from, to].map(|vpc| vpc.map(|vpc| named(&vpc.id, &vpc.name)))
    }

    fn component(&self, way: Way, at: usize, hop: &Hop) -> PathComponent {
        let index = self.index;
        let mut it = PathComponent {
            inbound_header: Some(self.header(&hop.before)),
            outbound_header: hop.refusal.is_none().then(|| self.header(&hop.after)),
            ..PathComponent::default()
        };
        match hop.decision {
            Decision::SecurityGroup { eni, direction, verdict } => {
                let groups = self.groups(eni, verdict);
                it.component = groups.into_iter().next().unwrap_or_default();
                it.security_group_rule = self.security_group_rule(direction, verdict);
                it.vpc = index.instance(eni).map(|(vpc, _)| named(&vpc.id, &vpc.name));
            }
            Decision::SourceDestCheck { eni, .. } => {
                it.component = self.interface(eni).map(|it| it.component).unwrap_or_default();
            }
            Decision::NetworkAcl { subnet, network_acl, direction, entry, .. } => {
                if let Some((vpc, acl)) = index.network_acl(network_acl) {
                    it.component = named(&acl.id, &acl.name);
                    it.acl_rule = Some(acl_rule(acl, direction, entry));
                    it.vpc = Some(named(&vpc.id, &vpc.name));
                }
                it.subnet = self.subnet(subnet);
            }
            Decision::Route { subnet, route_table, matched } => {
                if let Some((vpc, table)) = index.route_table(route_table) {
                    it.component = named(&table.id, &table.name);
                    it.vpc = Some(named(&vpc.id, &vpc.name));
                    it.route_table_route =
                        matched.and_then(|matched| self.route(route_table, matched.destination));
                }
                it.subnet = self.subnet(subnet);
            }
            Decision::SameSubnet { subnet } => {
                it.component = self.subnet(subnet).unwrap_or_default();
            }
            Decision::NatGateway { nat_gateway, .. } => {
                if let Some((vpc, nat)) = index.nat_gateway(nat_gateway) {
                    it.component = named(&nat.id, &nat.name);
                    it.subnet = vpc.subnet(&nat.subnet).map(|subnet| named(&subnet.id, &subnet.name));
                    it.vpc = Some(named(&vpc.id, &vpc.name));
                }
            }
            Decision::InternetGateway { internet_gateway, .. } => {
                let gateway = internet_gateway.and_then(|id| index.internet_gateway(id));
                if let Some((vpc, gateway)) = gateway {
                    it.component = named(&gateway.id, &gateway.name);
                    it.vpc = Some(named(&vpc.id, &vpc.name));
                } else {
                    it.component = named("internet", "internet");
                }
            }
            Decision::Internet { .. } => it.component = named("internet", "internet"),
            Decision::End => {}
        }
        let own = self.case.findings.iter().filter(|finding| (finding.way, finding.hop) == (way, at));
        it.explanations = own.filter_map(|finding| self.explanation(finding)).collect();
        it
    }

    fn explanation(&self, finding: &Finding) -> Option<ExplanationItem> {
        let index = self.index;
        let hop = self.case.hop(finding)?;
        let mut it = ExplanationItem {
            explanation_code: finding.code.to_string(),
            port_ranges: hop.ports.as_ref().map(port_ranges).unwrap_or_default(),
            ..ExplanationItem::default()
        };
        if finding.weight == Weight::Detail {
            it.port_ranges.clear();
        }
        if finding.code == Code::Detail(Detail::DisconnectedVpcs) {
            [it.source_vpc, it.destination_vpc] = self.vpcs();
        }
        match hop.decision {
            Decision::SecurityGroup { eni, direction, verdict } => {
                it.direction = Some(way_word(direction).into());
                it.network_interface = self.interface(eni).map(|it| it.component);
                it.security_groups = self.groups(eni, verdict);
            }
            Decision::SourceDestCheck { eni, direction, .. } => {
                it.direction = Some(way_word(direction).into());
                it.network_interface = self.interface(eni).map(|it| it.component);
                let (field, address) = match direction {
                    Direction::Outbound => ("source", hop.tuple.source),
                    Direction::Inbound => ("destination", hop.tuple.destination),
                };
                it.packet_field = Some(field.into());
                it.address = Some(address.to_string());
            }
            Decision::NetworkAcl { subnet, network_acl, direction, entry, .. } => {
                it.direction = Some(way_word(direction).into());
                it.subnet = self.subnet(subnet);
                if let Some((_, acl)) = index.network_acl(network_acl) {
                    it.acl = Some(named(&acl.id, &acl.name));
                    it.acl_rule = Some(acl_rule(acl, direction, entry));
                }
            }
            Decision::Route { subnet, route_table, matched } => {
                it.subnet = self.subnet(subnet);
                it.route_table =
                    index.route_table(route_table).map(|(_, table)| named(&table.id, &table.name));
                let route = finding.route.or(matched.map(|matched| matched.destination));
                it.route_table_route = route.and_then(|route| self.route(route_table, route));
                it.address = Some(hop.tuple.destination.to_string());
                it.packet_field = Some("destination".into());
                it.state = it.route_table_route.as_ref().map(|route| route.state.clone());
            }
            Decision::SameSubnet { subnet } => {
                it.subnet = self.subnet(subnet);
                it.address = Some(hop.tuple.destination.to_string());
            }
            Decision::NatGateway { nat_gateway, direction, .. } => {
                it.direction = Some(way_word(direction).into());
                it.nat_gateway = index.nat_gateway(nat_gateway).map(|(_, nat)| named(&nat.id, &nat.name));
                it.protocols = vec![self.protocol.0.to_string()];
                it.address = Some(hop.tuple.source.to_string());
            }
            Decision::InternetGateway { internet_gateway, direction, .. } => {
                it.direction = Some(way_word(direction).into());
                let gateway = internet_gateway.and_then(|id| index.internet_gateway(id));
                it.internet_gateway = gateway.map(|(_, gateway)| named(&gateway.id, &gateway.name));
                it.vpc = gateway.map(|(vpc, _)| named(&vpc.id, &vpc.name));
                it.address = Some(match direction {
                    Direction::Outbound => hop.tuple.source.to_string(),
                    Direction::Inbound => hop.tuple.destination.to_string(),
                });
            }
            Decision::Internet { .. } | Decision::End => {
                it.address = Some(hop.tuple.destination.to_string());
            }
        }
        Some(it)
    }

    fn groups(&self, eni: EniId, verdict: SecurityGroupVerdict) -> Vec<AnalysisComponent> {
        if let SecurityGroupVerdict::Rule { security_group, .. } = verdict {
            let group = self.index.security_group(security_group);
            return group.map(|(_, group)| named(&group.id, &group.name)).into_iter().collect();
        }
        let Some((vpc, instance)) = self.index.instance(eni) else { return Vec::new() };
        let groups = instance.security_groups.iter().filter_map(|name| vpc.security_group(name));
        groups.map(|group| named(&group.id, &group.name)).collect()
    }

    fn security_group_rule(
        &self,
        direction: Direction,
        verdict: SecurityGroupVerdict,
    ) -> Option<AnalysisSecurityGroupRule> {
        let SecurityGroupVerdict::Rule { security_group, rule, .. } = verdict else { return None };
        let (vpc, group) = self.index.security_group(security_group)?;
        let row = group.rules(direction).get(rule as usize)?;
        let (cidr, peer) = match &row.peer {
            model::Peer::Cidr(cidr) => (Some(cidr.to_string()), None),
            model::Peer::SecurityGroup(name) => (None, vpc.security_group(name).map(|it| it.id.clone())),
        };
        Some(AnalysisSecurityGroupRule {
            cidr,
            direction: way_word(direction).into(),
            security_group_id: Some(peer.unwrap_or_else(|| group.id.clone())),
            port_range: ports_of(row.traffic),
            protocol: protocol_of(row.traffic),
        })
    }

    fn route(&self, table: RouteTableId, destination: ipnet::IpNet) -> Option<AnalysisRouteTableRoute> {
        let (vpc, table) = self.index.route_table(table)?;
        let route = table.routes.iter().find(|route| route.destination == destination)?;
        let blackhole = vpc.is_blackhole(route);
        let mut it = AnalysisRouteTableRoute {
            destination_cidr: destination.to_string(),
            origin: "createroute".into(),
            state: if blackhole { "blackhole" } else { "active" }.into(),
            ..AnalysisRouteTableRoute::default()
        };
        match &route.target {
            Target::Local => {
                it.gateway_id = Some("local".into());
                it.origin = "createroutetable".into();
            }
            Target::InternetGateway => {
                it.gateway_id = vpc.internet_gateway.as_ref().map(|it| it.id.clone());
            }
            Target::NatGateway(name) => it.nat_gateway_id = vpc.nat_gateway(name).map(|nat| nat.id.clone()),
            Target::Instance(name) => {
                let instance = vpc.instances.iter().find(|instance| instance.name == *name);
                it.network_interface_id = instance.map(|instance| instance.eni_id.clone());
            }
            Target::Blackhole => {}
        }
        Some(it)
    }

    fn instance(&self, eni: EniId) -> Option<PathComponent> {
        let (_, instance) = self.index.instance(eni)?;
        Some(PathComponent { component: named(&instance.id, &instance.name), ..PathComponent::default() })
    }

    fn interface(&self, eni: EniId) -> Option<PathComponent> {
        let (vpc, instance) = self.index.instance(eni)?;
        Some(PathComponent {
            component: named(&instance.eni_id, ""),
            attached_to: Some(named(&instance.id, &instance.name)),
            subnet: vpc.subnet(&instance.subnet).map(|subnet| named(&subnet.id, &subnet.name)),
            vpc: Some(named(&vpc.id, &vpc.name)),
            ..PathComponent::default()
        })
    }

    fn subnet(&self, id: SubnetId) -> Option<AnalysisComponent> {
        self.index.subnet(id).map(|(_, subnet)| named(&subnet.id, &subnet.name))
    }

    fn header(&self, header: &Header) -> AnalysisPacketHeader {
        let anywhere = || self.case.addresses.clone().unwrap_or_else(Fabric::internet);
        let addresses = |address: Option<std::net::IpAddr>| match address {
            Some(address) => vec![ipnet::IpNet::from(address).to_string()],
            None => anywhere().networks().iter().map(ToString::to_string).collect(),
        };
        let has_ports = matches!(self.protocol, Protocol::TCP | Protocol::UDP);
        let ports = |ports| if has_ports { port_ranges(ports) } else { Vec::new() };
        AnalysisPacketHeader {
            destination_addresses: addresses(header.destination),
            destination_port_ranges: ports(&header.destination_ports),
            protocol: self.protocol.0.to_string(),
            source_addresses: addresses(header.source),
            source_port_ranges: ports(&header.source_ports),
        }
    }
}

fn acl_rule(acl: &model::NetworkAcl, direction: Direction, number: Option<u16>) -> AnalysisAclRule {
    let egress = direction == Direction::Outbound;
    let entry = number.and_then(|number| acl.entries(direction).iter().find(|it| it.number == number));
    match entry {
        Some(entry) => AnalysisAclRule {
            cidr: entry.cidr.to_string(),
            egress,
            port_range: ports_of(entry.traffic),
            protocol: protocol_of(entry.traffic),
            rule_action: model::text::action(entry.action).into(),
            rule_number: entry.number.into(),
        },
        None => AnalysisAclRule {
            cidr: "0.0.0.0/0".into(),
            egress,
            port_range: None,
            protocol: "all".into(),
            rule_action: "deny".into(),
            rule_number: 32_767,
        },
    }
}

fn ports_of(traffic: Traffic) -> Option<AnalysisPortRange> {
    match traffic {
        Traffic::Tcp(PortRange { from, to }) | Traffic::Udp(PortRange { from, to }) => {
            Some(AnalysisPortRange { from, to })
        }
        Traffic::All | Traffic::Icmp(_) | Traffic::Protocol(_) => None,
    }
}

fn protocol_of(traffic: Traffic) -> String {
    match traffic {
        Traffic::All => "all".into(),
        Traffic::Tcp(_) => "tcp".into(),
        Traffic::Udp(_) => "udp".into(),
        Traffic::Icmp(_) => "icmp".into(),
        Traffic::Protocol(number) => Protocol(number).to_string(),
    }
}

/// Ports in the API's shape.
pub fn port_ranges(ports: &Ranges) -> Vec<AnalysisPortRange> {
    // Ports fit 16 bits.
    ports.iter().map(|(from, to)| AnalysisPortRange { from: from as u16, to: to as u16 }).collect()
}

fn way_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "ingress",
        Direction::Outbound => "egress",
    }
}

fn named(id: &str, name: &str) -> AnalysisComponent {
    AnalysisComponent { id: id.into(), name: name.into() }
}

//! From the model to boxes and lines.

use crate::model::{
    Instance, Model, Namespaces, NatGateway, NatGatewayState, PublicAddressKind, Subnet, Target, Vpc, text,
};

use super::{At, Edge, Graph, Kind, Node};

impl Graph {
    /// The picture of a lab, without a path.
    pub fn of(model: &Model) -> Self {
        let mut graph = Self { lab: model.lab.clone(), nodes: Vec::new(), edges: Vec::new(), path: None };
        let internet = model.has_internet().then(|| graph.internet(model));
        for vpc in &model.vpcs {
            graph.vpc(vpc, internet);
        }
        graph
    }

    fn add(&mut self, id: String, kind: Kind, name: &str, lines: Vec<String>, parent: Option<At>) -> At {
        self.nodes.push(Node { id, kind, name: name.to_owned(), lines, parent });
        self.nodes.len() - 1
    }

    fn internet(&mut self, model: &Model) -> At {
        let at = self.add("internet".into(), Kind::Internet, "internet", Vec::new(), None);
        for host in &model.internet_hosts {
            let id = format!("host:{}", host.name);
            self.add(id, Kind::InternetHost, &host.name, vec![host.ip.to_string()], Some(at));
        }
        at
    }

    fn vpc(&mut self, vpc: &Vpc, internet: Option<At>) {
        let cidrs: Vec<String> = vpc.cidrs.iter().map(ToString::to_string).collect();
        let at = self.add(format!("vpc:{}", vpc.name), Kind::Vpc, &vpc.name, vec![cidrs.join(", ")], None);
        let gateway = vpc.internet_gateway.as_ref().map(|gateway| {
            let id = format!("igw:{}/{}", vpc.name, gateway.name);
            self.add(id, Kind::InternetGateway, &gateway.name, vec!["internet gateway".into()], Some(at))
        });
        if let (Some(gateway), Some(internet)) = (gateway, internet) {
            self.edges.push(Edge { from: gateway, to: internet, label: String::new() });
        }
        // Public ones stand above, next to the gateway.
        let (public, private): (Vec<&Subnet>, Vec<&Subnet>) =
            vpc.subnets.iter().partition(|it| vpc.is_public(it));
        let subnets: Vec<(&Subnet, At)> =
            public.into_iter().chain(private).map(|subnet| (subnet, self.subnet(vpc, subnet, at))).collect();
        for (subnet, from) in subnets {
            self.routes(vpc, subnet, from);
        }
    }

    fn subnet(&mut self, vpc: &Vpc, subnet: &Subnet, parent: At) -> At {
        let kind = if vpc.is_public(subnet) { Kind::PublicSubnet } else { Kind::PrivateSubnet };
        let mut lines = vec![subnet.cidr.to_string(), format!("route table {}", subnet.route_table)];
        let routes = vpc.route_table(&subnet.route_table).into_iter().flat_map(|table| &table.routes);
        let routes: Vec<String> =
            routes.filter(|it| it.target != Target::Local).map(|it| text::route(vpc, it)).collect();
        lines.extend(routes.iter().take(MOST_ROUTES).map(|route| format!("  {route}")));
        if routes.len() > MOST_ROUTES {
            lines.push(format!("  and {} more", routes.len() - MOST_ROUTES));
        }
        lines.push(format!("network ACL {}", subnet.network_acl));
        if subnet.namespaces == Namespaces::Shared {
            lines.push("one namespace".into());
        }
        let at =
            self.add(format!("subnet:{}/{}", vpc.name, subnet.name), kind, &subnet.name, lines, Some(parent));
        for instance in vpc.instances.iter().filter(|it| it.subnet == subnet.name) {
            let id = format!("instance:{}", instance.name);
            self.add(id, Kind::Instance, &instance.name, instance_lines(instance), Some(at));
        }
        for nat in vpc.nat_gateways.iter().filter(|it| it.subnet == subnet.name) {
            let id = format!("nat:{}/{}", vpc.name, nat.name);
            self.add(id, Kind::NatGateway, &nat.name, nat_lines(nat), Some(at));
        }
        at
    }

    /// A line to everything that the subnet's routes lead to.
    fn routes(&mut self, vpc: &Vpc, subnet: &Subnet, from: At) {
        let Some(table) = vpc.route_table(&subnet.route_table) else { return };
        for route in &table.routes {
            let id = match &route.target {
                Target::InternetGateway => {
                    vpc.internet_gateway.as_ref().map(|it| format!("igw:{}/{}", vpc.name, it.name))
                }
                Target::NatGateway(name) => Some(format!("nat:{}/{name}", vpc.name)),
                Target::Instance(name) => Some(format!("instance:{name}")),
                Target::Local | Target::Blackhole => None,
            };
            let Some(to) = id.and_then(|id| self.nodes.iter().position(|node| node.id == id)) else {
                continue;
            };
            let label = route.destination.to_string();
            match self.edges.iter_mut().find(|edge| edge.from == from && edge.to == to) {
                Some(edge) => edge.label = format!("{}, {label}", edge.label),
                None => self.edges.push(Edge { from, to, label }),
            }
        }
    }
}

/// More routes than these are counted only.
const MOST_ROUTES: usize = 4;

fn instance_lines(instance: &Instance) -> Vec<String> {
    let mut lines = vec![instance.ip.to_string()];
    lines.extend(instance.public.map(|public| match public.kind {
        PublicAddressKind::Elastic => format!("EIP {}", public.ip),
        PublicAddressKind::Automatic => format!("public {}", public.ip),
    }));
    let secondary = &instance.secondary;
    for address in secondary.iter().take(MOST_ADDRESSES) {
        lines.push(address.ip.to_string());
        lines.extend(address.eip.map(|public| format!("EIP {public}")));
    }
    if secondary.len() > MOST_ADDRESSES {
        lines.push(format!("and {} more", secondary.len() - MOST_ADDRESSES));
    }
    let mut groups = String::from("sg");
    for (index, group) in instance.security_groups.iter().enumerate() {
        let end = if index + 1 < instance.security_groups.len() { "," } else { "" };
        if groups.len() + group.len() > WIDEST_GROUPS && groups.trim() != "sg" {
            lines.push(std::mem::replace(&mut groups, "  ".into()));
        }
        groups += &format!(" {group}{end}");
    }
    lines.push(groups);
    lines
}

/// More secondary addresses than these are counted only.
const MOST_ADDRESSES: usize = 3;

/// Characters of a line of security groups.
const WIDEST_GROUPS: usize = 20;

fn nat_lines(nat: &NatGateway) -> Vec<String> {
    let mut lines = vec![match nat.state {
        NatGatewayState::Available => "NAT gateway".to_owned(),
        NatGatewayState::Deleted => "NAT gateway, deleted".to_owned(),
    }];
    for address in &nat.addresses {
        lines.push(address.private.to_string());
        lines.extend(address.public.map(|public| format!("EIP {public}")));
    }
    lines
}

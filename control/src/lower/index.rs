//! Numbers back to names, rules and lines of the file.

use std::collections::BTreeMap;

use ipnet::IpNet;
use localvpc_api::trace::Direction;
use localvpc_api::*;

use crate::model::describe::resources;
use crate::model::{
    Instance, InternetGateway, Model, NatGateway, NatGatewayState, NetworkAcl, Place, RouteTable,
    SecurityGroup, Subnet, Vpc, text,
};
use crate::view;

use super::host::{internet_namespace, is_shared, namespace_of};
use super::registry::Naming;

/// What the numbers of a [`Lowered`](super::Lowered) mean, and the model behind them.
#[derive(Clone, Debug)]
pub struct Index {
    model: Model,
    vpcs: BTreeMap<VpcId, At>,
    subnets: BTreeMap<SubnetId, At>,
    route_tables: BTreeMap<RouteTableId, At>,
    network_acls: BTreeMap<NetworkAclId, At>,
    security_groups: BTreeMap<SecurityGroupId, At>,
    enis: BTreeMap<EniId, At>,
    internet_gateways: BTreeMap<InternetGatewayId, At>,
    nat_gateways: BTreeMap<NatGatewayId, At>,
    links: BTreeMap<LinkId, String>,
    links_of: BTreeMap<EniId, LinkId>,
    internet_link: Option<LinkId>,
}

/// A rule in words and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// `rule 100 allow tcp 443`.
    pub text: String,
    /// `two-tier.yaml:31`; `default` for what nobody wrote.
    pub source: String,
}

/// A position in the model: the VPC, and within it.
type At = (usize, usize);

impl Index {
    pub(super) fn new(model: Model, names: &mut Naming<'_>) -> Self {
        let internet_link = names.internet_link(&model);
        let mut index = Self {
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            network_acls: BTreeMap::new(),
            security_groups: BTreeMap::new(),
            enis: BTreeMap::new(),
            internet_gateways: BTreeMap::new(),
            nat_gateways: BTreeMap::new(),
            links: internet_link.map(|link| (link, "internet".to_owned())).into_iter().collect(),
            links_of: BTreeMap::new(),
            internet_link,
            model,
        };
        for (v, vpc) in index.model.vpcs.iter().enumerate() {
            index.vpcs.insert(names.vpc(vpc), (v, 0));
            index
                .subnets
                .extend((0..).zip(&vpc.subnets).map(|(i, it)| (names.subnet(vpc, &it.name), (v, i))));
            index.route_tables.extend(
                (0..).zip(&vpc.route_tables).map(|(i, it)| (names.route_table(vpc, &it.name), (v, i))),
            );
            index.network_acls.extend(
                (0..).zip(&vpc.network_acls).map(|(i, it)| (names.network_acl(vpc, &it.name), (v, i))),
            );
            index.security_groups.extend(
                (0..).zip(&vpc.security_groups).map(|(i, it)| (names.security_group(vpc, &it.name), (v, i))),
            );
            // A deleted one loses its number: one that comes back under its name is another one.
            let nat_gateways = (0..).zip(&vpc.nat_gateways);
            let nat_gateways = nat_gateways.filter(|(_, it)| it.state == NatGatewayState::Available);
            index.nat_gateways.extend(nat_gateways.map(|(i, it)| (names.nat_gateway(vpc, &it.name), (v, i))));
            if let Some(gateway) = &vpc.internet_gateway {
                index.internet_gateways.insert(names.internet_gateway(vpc, &gateway.name), (v, 0));
            }
            for (i, instance) in vpc.instances.iter().enumerate() {
                let (eni, link) = (names.eni(vpc, &instance.name), names.link(vpc, instance));
                let name = if is_shared(vpc, instance) { &instance.subnet } else { &instance.name };
                index.enis.insert(eni, (v, i));
                index.links_of.insert(eni, link);
                index.links.insert(link, name.clone());
            }
        }
        index
    }

    /// The model it was made from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// An instance by the number of its interface.
    pub fn instance(&self, id: EniId) -> Option<(&Vpc, &Instance)> {
        let (vpc, at) = self.at(self.enis.get(&id))?;
        Some((vpc, vpc.instances.get(at)?))
    }

    /// A subnet by number.
    pub fn subnet(&self, id: SubnetId) -> Option<(&Vpc, &Subnet)> {
        let (vpc, at) = self.at(self.subnets.get(&id))?;
        Some((vpc, vpc.subnets.get(at)?))
    }

    /// A NAT gateway by number.
    pub fn nat_gateway(&self, id: NatGatewayId) -> Option<(&Vpc, &NatGateway)> {
        let (vpc, at) = self.at(self.nat_gateways.get(&id))?;
        Some((vpc, vpc.nat_gateways.get(at)?))
    }

    /// An internet gateway by number.
    pub fn internet_gateway(&self, id: InternetGatewayId) -> Option<(&Vpc, &InternetGateway)> {
        let (vpc, _) = self.at(self.internet_gateways.get(&id))?;
        Some((vpc, vpc.internet_gateway.as_ref()?))
    }

    /// A route table by number.
    pub fn route_table(&self, id: RouteTableId) -> Option<(&Vpc, &RouteTable)> {
        let (vpc, at) = self.at(self.route_tables.get(&id))?;
        Some((vpc, vpc.route_tables.get(at)?))
    }

    /// A network ACL by number.
    pub fn network_acl(&self, id: NetworkAclId) -> Option<(&Vpc, &NetworkAcl)> {
        let (vpc, at) = self.at(self.network_acls.get(&id))?;
        Some((vpc, vpc.network_acls.get(at)?))
    }

    /// A security group by number.
    pub fn security_group(&self, id: SecurityGroupId) -> Option<(&Vpc, &SecurityGroup)> {
        let (vpc, at) = self.at(self.security_groups.get(&id))?;
        Some((vpc, vpc.security_groups.get(at)?))
    }

    /// The number of an instance's interface.
    pub fn eni_of(&self, instance: &str) -> Option<EniId> {
        self.enis.keys().copied().find(|id| self.instance(*id).is_some_and(|(_, it)| it.name == instance))
    }

    /// The number of a NAT gateway by its AWS-style id.
    pub fn nat_gateway_by_id(&self, id: &str) -> Option<NatGatewayId> {
        self.nat_gateways
            .keys()
            .copied()
            .find(|it| self.nat_gateway(*it).is_some_and(|(_, nat)| nat.id == id))
    }

    /// The number of an internet gateway by its AWS-style id.
    pub fn internet_gateway_by_id(&self, id: &str) -> Option<InternetGatewayId> {
        let is_it =
            |it: InternetGatewayId| self.internet_gateway(it).is_some_and(|(_, gateway)| gateway.id == id);
        self.internet_gateways.keys().copied().find(|it| is_it(*it))
    }

    /// The link that an interface is behind.
    pub fn link_of(&self, eni: EniId) -> Option<LinkId> {
        self.links_of.get(&eni).copied()
    }

    /// The link of the internet.
    pub fn internet_link(&self) -> Option<LinkId> {
        self.internet_link
    }

    /// Name of a VPC.
    pub fn vpc_name(&self, id: VpcId) -> String {
        self.at(self.vpcs.get(&id)).map_or_else(|| id.to_string(), |(vpc, _)| vpc.name.clone())
    }

    /// Name of an interface: its instance's.
    pub fn eni_name(&self, id: EniId) -> String {
        self.instance(id).map_or_else(|| id.to_string(), |(_, instance)| instance.name.clone())
    }

    /// Name of a subnet; with its VPC where two VPCs have one of that name. So are all names below.
    pub fn subnet_name(&self, id: SubnetId) -> String {
        self.label(
            self.subnets.get(&id),
            id,
            |vpc, at| vpc.subnets.get(at).map(|it| it.name.as_str()),
            |vpc, name| vpc.subnet(name).is_some(),
        )
    }

    /// Name of a route table.
    pub fn route_table_name(&self, id: RouteTableId) -> String {
        self.label(
            self.route_tables.get(&id),
            id,
            |vpc, at| vpc.route_tables.get(at).map(|it| it.name.as_str()),
            |_, _| false,
        )
    }

    /// Name of a network ACL.
    pub fn network_acl_name(&self, id: NetworkAclId) -> String {
        self.label(
            self.network_acls.get(&id),
            id,
            |vpc, at| vpc.network_acls.get(at).map(|it| it.name.as_str()),
            |_, _| false,
        )
    }

    /// Name of a security group.
    pub fn security_group_name(&self, id: SecurityGroupId) -> String {
        self.label(
            self.security_groups.get(&id),
            id,
            |vpc, at| vpc.security_groups.get(at).map(|it| it.name.as_str()),
            |_, _| false,
        )
    }

    /// Name of a NAT gateway.
    pub fn nat_gateway_name(&self, id: NatGatewayId) -> String {
        self.label(
            self.nat_gateways.get(&id),
            id,
            |vpc, at| vpc.nat_gateways.get(at).map(|it| it.name.as_str()),
            |vpc, name| vpc.nat_gateways.iter().any(|it| it.name == name),
        )
    }

    /// Name of an internet gateway.
    pub fn internet_gateway_name(&self, id: InternetGatewayId) -> String {
        self.label(
            self.internet_gateways.get(&id),
            id,
            |vpc, _| vpc.internet_gateway.as_ref().map(|it| it.name.as_str()),
            |vpc, name| vpc.internet_gateway.as_ref().is_some_and(|it| it.name == name),
        )
    }

    /// Name of a link: its namespace's name in the lab.
    pub fn link_name(&self, id: LinkId) -> String {
        self.links.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// A rule of a security group by its position in its direction, from 0.
    pub fn security_group_rule(
        &self,
        id: SecurityGroupId,
        direction: Direction,
        rule: u32,
    ) -> Option<RuleText> {
        let (_, group) = self.security_group(id)?;
        let rule = group.rules(direction).get(rule as usize)?;
        let word = match direction {
            Direction::Inbound => "from",
            Direction::Outbound => "to",
        };
        Some(RuleText { text: text::rule(rule, word), source: self.source(rule.place) })
    }

    /// An entry of a network ACL by its number; `None` is the final `*`.
    pub fn network_acl_entry(
        &self,
        id: NetworkAclId,
        direction: Direction,
        number: Option<u16>,
    ) -> Option<RuleText> {
        let (_, acl) = self.network_acl(id)?;
        let Some(number) = number else {
            return Some(RuleText { text: "rule * deny all".into(), source: self.source(acl.place) });
        };
        let entry = acl.entries(direction).iter().find(|entry| entry.number == number)?;
        Some(RuleText { text: text::acl_entry(entry), source: self.source(entry.place) })
    }

    /// A route by its destination.
    pub fn route(&self, id: RouteTableId, destination: IpNet) -> Option<RuleText> {
        let (vpc, table) = self.route_table(id)?;
        let route = table.routes.iter().find(|route| route.destination == destination)?;
        Some(RuleText { text: text::route(vpc, route), source: self.source(route.place) })
    }

    /// Where a security group, network ACL or anything else stands.
    pub fn source(&self, place: Option<Place>) -> String {
        self.model.source(place)
    }

    /// Everything in the lab, for `ls` and `inspect`.
    pub fn resources(&self) -> Vec<view::ResourceView> {
        resources(&self.model)
    }

    /// Instances and internet hosts. Their processes are left empty: only the host knows them.
    pub fn instances(&self) -> Vec<view::InstanceView> {
        let model = &self.model;
        let instances = model.instances().map(|(vpc, instance)| view::InstanceView {
            name: instance.name.clone(),
            kind: "instance".into(),
            vpc: vpc.name.clone(),
            subnet: instance.subnet.clone(),
            ip: instance.ip,
            public_ip: instance.public.map(|public| public.ip),
            secondary_ips: instance
                .secondary
                .iter()
                .map(|second| view::SecondaryIpView { ip: second.ip, public_ip: second.eip })
                .collect(),
            security_groups: instance.security_groups.clone(),
            namespace: namespace_of(model, vpc, instance),
            shared: is_shared(vpc, instance),
            processes: Vec::new(),
        });
        let hosts = model.internet_hosts.iter().map(|host| view::InstanceView {
            name: host.name.clone(),
            kind: "internet host".into(),
            vpc: String::new(),
            subnet: String::new(),
            ip: host.ip,
            public_ip: None,
            secondary_ips: Vec::new(),
            security_groups: Vec::new(),
            namespace: internet_namespace(model),
            shared: model.internet_hosts.len() > 1,
            processes: Vec::new(),
        });
        instances.chain(hosts).collect()
    }

    fn at(&self, at: Option<&At>) -> Option<(&Vpc, usize)> {
        let (vpc, within) = at?;
        Some((self.model.vpcs.get(*vpc)?, *within))
    }

    /// The name of what stands at `at`, with its VPC in front where another VPC has that name too.
    fn label<'a>(
        &'a self,
        at: Option<&At>,
        id: impl std::fmt::Display,
        name: impl Fn(&'a Vpc, usize) -> Option<&'a str>,
        has: impl Fn(&Vpc, &str) -> bool,
    ) -> String {
        let found = self.at(at).and_then(|(vpc, at)| Some((vpc, name(vpc, at)?)));
        match found {
            None => id.to_string(),
            Some((vpc, name)) if self.model.vpcs.iter().filter(|vpc| has(vpc, name)).count() > 1 => {
                format!("{}/{name}", vpc.name)
            }
            Some((_, name)) => name.to_owned(),
        }
    }
}

//! The rows of a lab, found by number and by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use localvpc_api::tables::*;
use localvpc_api::*;

use super::ranges::Ranges;

/// Tables with what finds rows in them.
#[derive(Debug)]
pub struct Fabric<'a> {
    /// The rows.
    pub tables: &'a Tables,
    enis: HashMap<EniId, &'a Eni>,
    subnets: HashMap<SubnetId, &'a Subnet>,
    route_tables: HashMap<RouteTableId, &'a RouteTable>,
    network_acls: HashMap<NetworkAclId, &'a NetworkAcl>,
    security_groups: HashMap<SecurityGroupId, &'a SecurityGroup>,
    nat_gateways: HashMap<NatGatewayId, &'a NatGateway>,
    owners: HashMap<(VpcId, IpAddr), Owner>,
    public: HashMap<IpAddr, &'a PublicAddress>,
    public_of: HashMap<(InternetGatewayId, IpAddr), IpAddr>,
    members: HashMap<SecurityGroupId, Vec<IpAddr>>,
}

/// Who has an address of a VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The interface of an instance.
    Eni(EniId),
    /// A NAT gateway.
    NatGateway(NatGatewayId),
}

impl<'a> Fabric<'a> {
    /// Indexes tables, whose references hold.
    pub fn new(tables: &'a Tables) -> Self {
        let subnets: HashMap<_, _> = tables.subnets.iter().map(|row| (row.id, row)).collect();
        let vpc_of = |subnet: SubnetId| subnets.get(&subnet).map(|row: &&Subnet| row.vpc);
        let mut owners = HashMap::new();
        let mut members: HashMap<SecurityGroupId, Vec<IpAddr>> = HashMap::new();
        for eni in &tables.enis {
            let vpc = vpc_of(eni.subnet);
            owners.extend(eni.addresses.iter().filter_map(|ip| Some(((vpc?, *ip), Owner::Eni(eni.id)))));
            for group in &eni.security_groups {
                members.entry(*group).or_default().extend(&eni.addresses);
            }
        }
        for nat in &tables.nat_gateways {
            let vpc = vpc_of(nat.subnet);
            let addresses = nat.addresses.iter();
            owners.extend(addresses.filter_map(|ip| Some(((vpc?, *ip), Owner::NatGateway(nat.id)))));
        }
        Self {
            tables,
            enis: tables.enis.iter().map(|row| (row.id, row)).collect(),
            route_tables: tables.route_tables.iter().map(|row| (row.id, row)).collect(),
            network_acls: tables.network_acls.iter().map(|row| (row.id, row)).collect(),
            security_groups: tables.security_groups.iter().map(|row| (row.id, row)).collect(),
            nat_gateways: tables.nat_gateways.iter().map(|row| (row.id, row)).collect(),
            owners,
            public: tables.public_addresses.iter().map(|row| (row.public, row)).collect(),
            public_of: tables
                .public_addresses
                .iter()
                .map(|row| ((row.internet_gateway, row.private), row.public))
                .collect(),
            members,
            subnets,
        }
    }

    /// An interface.
    pub fn eni(&self, id: EniId) -> Option<&'a Eni> {
        self.enis.get(&id).copied()
    }

    /// A subnet.
    pub fn subnet(&self, id: SubnetId) -> Option<&'a Subnet> {
        self.subnets.get(&id).copied()
    }

    /// A NAT gateway.
    pub fn nat_gateway(&self, id: NatGatewayId) -> Option<&'a NatGateway> {
        self.nat_gateways.get(&id).copied()
    }

    /// A network ACL.
    pub fn network_acl(&self, id: NetworkAclId) -> Option<&'a NetworkAcl> {
        self.network_acls.get(&id).copied()
    }

    /// A route table.
    pub fn route_table(&self, id: RouteTableId) -> Option<&'a RouteTable> {
        self.route_tables.get(&id).copied()
    }

    /// A security group.
    pub fn security_group(&self, id: SecurityGroupId) -> Option<&'a SecurityGroup> {
        self.security_groups.get(&id).copied()
    }

    /// Whether an interface with the address carries the group (SG-20).
    pub fn is_member(&self, group: SecurityGroupId, address: IpAddr) -> bool {
        self.members.get(&group).is_some_and(|members| members.contains(&address))
    }

    /// Who has an address of a VPC.
    pub fn owner(&self, vpc: VpcId, address: IpAddr) -> Option<Owner> {
        self.owners.get(&(vpc, address)).copied()
    }

    /// The subnet of what has an address.
    pub fn subnet_of(&self, owner: Owner) -> Option<&'a Subnet> {
        match owner {
            Owner::Eni(id) => self.subnet(self.eni(id)?.subnet),
            Owner::NatGateway(id) => self.subnet(self.nat_gateway(id)?.subnet),
        }
    }

    /// The association of a public address.
    pub fn public(&self, address: IpAddr) -> Option<&'a PublicAddress> {
        self.public.get(&address).copied()
    }

    /// The public address that stands for a private one at a gateway.
    pub fn public_of(&self, gateway: InternetGatewayId, private: IpAddr) -> Option<IpAddr> {
        self.public_of.get(&(gateway, private)).copied()
    }

    /// The internet gateway of a VPC.
    pub fn internet_gateway_of(&self, vpc: VpcId) -> Option<InternetGatewayId> {
        self.tables.internet_gateways.iter().find(|row| row.vpc == vpc).map(|row| row.id)
    }

    /// The VPC of an internet gateway.
    pub fn vpc_of(&self, gateway: InternetGatewayId) -> Option<VpcId> {
        self.tables.internet_gateways.iter().find(|row| row.id == gateway).map(|row| row.vpc)
    }

    /// The CIDRs of a VPC.
    pub fn cidrs(&self, vpc: VpcId) -> &'a [IpNet] {
        self.tables.vpcs.iter().find(|row| row.id == vpc).map_or(&[], |row| &row.cidrs)
    }

    /// The route with the longest prefix that holds the address (RT-7).
    pub fn route(&self, table: &'a RouteTable, address: IpAddr) -> Option<&'a Route> {
        let routes = table.routes.iter().filter(|route| route.destination.contains(&address));
        routes.max_by_key(|route| route.destination.prefix_len())
    }

    /// The addresses of the internet: all but private and shared ones (RA-9).
    pub fn internet() -> Ranges {
        let mut all = Ranges::of(0, u32::MAX);
        for network in NOT_INTERNET {
            all = all.without(&network_of(network));
        }
        all
    }

    /// Cuts a set of addresses into pieces that no rule, route or association tells apart. Each comes with an
    /// address that stands for it.
    pub fn pieces(&self, all: &Ranges) -> Vec<(Ipv4Addr, Ranges)> {
        let mut cuts: Vec<u32> = Vec::new();
        let mut cut = |network: IpNet| {
            if let IpNet::V4(network) = network {
                cuts.push(network.network().into());
                cuts.extend(u32::from(network.broadcast()).checked_add(1));
            }
        };
        let tables = self.tables;
        tables.vpcs.iter().flat_map(|vpc| &vpc.cidrs).for_each(|cidr| cut(*cidr));
        tables.route_tables.iter().flat_map(|it| &it.routes).for_each(|route| cut(route.destination));
        let entries = tables.network_acls.iter().flat_map(|acl| acl.inbound.iter().chain(&acl.outbound));
        entries.for_each(|entry| cut(entry.cidr));
        let rules = tables.security_groups.iter().flat_map(|it| it.inbound.iter().chain(&it.outbound));
        rules.for_each(|rule| match rule.peer {
            Peer::Cidr(cidr) => cut(cidr),
            Peer::SecurityGroup(_) => {}
        });
        tables.public_addresses.iter().for_each(|row| cut(row.public.into()));
        tables.enis.iter().flat_map(|eni| &eni.addresses).for_each(|ip| cut((*ip).into()));
        cuts.sort_unstable();
        cuts.dedup();
        // What no packet on the internet has (RFC 6890) is nobody's representative.
        let mut unicast = all.clone();
        for network in NOT_UNICAST {
            unicast = unicast.without(&network_of(network));
        }
        let mut pieces = Vec::new();
        let mut from = 0;
        for next in cuts.into_iter().filter(|cut| *cut > 0).map(Some).chain([None]) {
            let range = Ranges::of(from, next.map_or(u32::MAX, |next| next - 1));
            let piece = all.and(&range);
            // A host of the lab is the best example.
            let host = tables.internet_hosts.iter().find_map(|host| match host {
                IpAddr::V4(host) if piece.contains((*host).into()) => Some(*host),
                _ => None,
            });
            let example = host.or_else(|| unicast.and(&range).first().map(Ipv4Addr::from));
            pieces.extend(example.map(|example| (example, piece)));
            from = next.unwrap_or(u32::MAX);
        }
        pieces
    }
}

/// RFC 1918 and RFC 6598.
const NOT_INTERNET: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

/// This network, loopback, link-local, multicast, reserved.
const NOT_UNICAST: &[&str] = &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];

fn network_of(text: &str) -> Ranges {
    text.parse().map(Ranges::network).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ra_9_the_internet_is_all_but_private_and_shared_addresses() {
        let networks: Vec<_> = Fabric::internet().networks().iter().map(|it| it.to_string()).collect();
        assert_eq!(networks[..4], ["0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6"]);
        assert!(
            networks.contains(&"100.0.0.0/10".to_owned()) && networks.contains(&"100.128.0.0/9".to_owned())
        );
    }
}

//! A small valid configuration for tests to change.

use localvpc_api::tables::*;
use localvpc_api::*;

/// A VPC with a public and a private subnet, three instances, a NAT gateway and the internet; and a second VPC,
/// with the same addresses and an instance.
///
/// | id | what |
/// |---|---|
/// | subnet 1, 2 | public 10.0.1.0/24 and private 10.0.2.0/24 of VPC 1 |
/// | subnet 3 | 10.0.1.0/24 of VPC 2 |
/// | ENI 1, 2, 3 | 10.0.1.10, 10.0.2.20, 10.0.2.21 of VPC 1, on links of the same numbers |
/// | ENI 4 | 10.0.1.10 of VPC 2, on link 4 |
/// | security group 1, 2 | web (ENI 1) and db (ENIs 2 and 3) of VPC 1 |
/// | security group 3 | of VPC 2 |
/// | NAT gateway 1 | 10.0.1.100 |
/// | link 9 | the internet |
pub fn rows() -> Tables {
    let anything =
        SecurityGroupRule { traffic: Traffic::All, peer: Peer::Cidr("0.0.0.0/0".parse().unwrap()) };
    let tcp = |port, peer| SecurityGroupRule { traffic: Traffic::Tcp(PortRange::one(port)), peer };
    let open = |number| NetworkAclEntry {
        number,
        action: Action::Allow,
        traffic: Traffic::All,
        cidr: "0.0.0.0/0".parse().unwrap(),
    };
    let group = |id, vpc, inbound| SecurityGroup {
        id: SecurityGroupId(id),
        vpc: VpcId(vpc),
        inbound,
        outbound: vec![anything.clone()],
    };
    Tables {
        generation: Generation(7),
        vpcs: [1, 2].map(|id| Vpc { id: VpcId(id), cidrs: vec!["10.0.0.0/16".parse().unwrap()] }).into(),
        subnets: vec![
            subnet(1, 1, "10.0.1.0/24", 1),
            subnet(2, 1, "10.0.2.0/24", 2),
            subnet(3, 2, "10.0.1.0/24", 3),
        ],
        route_tables: vec![
            table(1, 1, &[RouteTarget::Local, RouteTarget::InternetGateway(InternetGatewayId(1))]),
            table(2, 1, &[RouteTarget::Local, RouteTarget::NatGateway(NatGatewayId(1))]),
            table(3, 2, &[RouteTarget::Local]),
        ],
        network_acls: vec![NetworkAcl {
            id: NetworkAclId(1),
            inbound: vec![open(100), open(200)],
            outbound: vec![open(100)],
        }],
        security_groups: vec![
            group(1, 1, vec![tcp(80, anything.peer)]),
            group(2, 1, vec![tcp(5432, Peer::SecurityGroup(SecurityGroupId(1)))]),
            group(3, 2, vec![]),
        ],
        enis: vec![
            eni(1, 1, "10.0.1.10", 1),
            eni(2, 2, "10.0.2.20", 2),
            eni(3, 2, "10.0.2.21", 2),
            eni(4, 3, "10.0.1.10", 3),
        ],
        internet_gateways: vec![InternetGateway { id: InternetGatewayId(1), vpc: VpcId(1) }],
        public_addresses: vec![public("203.0.113.10", "10.0.1.10"), public("203.0.113.20", "10.0.1.100")],
        nat_gateways: vec![NatGateway {
            id: NatGatewayId(1),
            subnet: SubnetId(1),
            addresses: vec!["10.0.1.100".parse().unwrap()],
            idle_timeout_ms: 350_000,
        }],
        links: [1, 2, 3, 4]
            .map(|id| Link { id: LinkId(id), kind: LinkKind::Enis, mtu: 9001 })
            .into_iter()
            .chain([Link { id: LinkId(9), kind: LinkKind::Internet, mtu: 1500 }])
            .collect(),
        internet_hosts: vec!["198.51.100.10".parse().unwrap()],
    }
}

/// A public address at internet gateway 1.
pub fn public(public: &str, private: &str) -> PublicAddress {
    PublicAddress {
        internet_gateway: InternetGatewayId(1),
        public: public.parse().unwrap(),
        private: private.parse().unwrap(),
    }
}

fn subnet(id: u32, vpc: u32, cidr: &str, route_table: u32) -> Subnet {
    Subnet {
        id: SubnetId(id),
        vpc: VpcId(vpc),
        cidr: cidr.parse().unwrap(),
        route_table: RouteTableId(route_table),
        network_acl: NetworkAclId(1),
    }
}

fn table(id: u32, vpc: u32, targets: &[RouteTarget]) -> RouteTable {
    let destinations = ["10.0.0.0/16", "0.0.0.0/0"].map(|destination| destination.parse().unwrap());
    let routes = destinations
        .into_iter()
        .zip(targets)
        .map(|(destination, target)| Route { destination, target: *target });
    RouteTable { id: RouteTableId(id), vpc: VpcId(vpc), routes: routes.collect() }
}

fn eni(id: u32, subnet: u32, address: &str, group: u32) -> Eni {
    Eni {
        id: EniId(id),
        link: LinkId(id),
        subnet: SubnetId(subnet),
        addresses: vec![address.parse().unwrap()],
        security_groups: vec![SecurityGroupId(group)],
        source_dest_check: SourceDestCheck::Enabled,
        tracking: TrackingTimeouts::default(),
        max_connections: DEFAULT_MAX_CONNECTIONS,
        fragments_per_second: DEFAULT_FRAGMENTS_PER_SECOND,
    }
}

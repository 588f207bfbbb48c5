//! The tables of the worked packet walks (aws-vpc.md §33), to be changed by a test.
//!
//! VPC 10.0.0.0/16; a public subnet 10.0.1.0/24 with a default route to the internet gateway, a private one
//! 10.0.2.0/24 with a default route to the NAT gateway at 10.0.1.100; `web` 10.0.1.10, `app` 10.0.2.20, `db` 10.0.2.30;
//! the internet with one host, 203.0.113.5.

use std::net::IpAddr;

use ipnet::IpNet;
use localvpc_api::tables::*;
use localvpc_api::{
    EniId, Generation, InternetGatewayId, LinkId, NatGatewayId, NetworkAclId, RouteTableId, SecurityGroupId,
    SubnetId, Tables, VpcId,
};

/// The only VPC.
pub const VPC: VpcId = VpcId(1);
/// 10.0.1.0/24.
pub const PUBLIC: SubnetId = SubnetId(1);
/// 10.0.2.0/24.
pub const PRIVATE: SubnetId = SubnetId(2);
/// Network ACL of the public subnet.
pub const PUBLIC_ACL: NetworkAclId = NetworkAclId(1);
/// Network ACL of the private subnet.
pub const PRIVATE_ACL: NetworkAclId = NetworkAclId(2);
/// Route table of the public subnet.
pub const PUBLIC_ROUTES: RouteTableId = RouteTableId(1);
/// Route table of the private subnet.
pub const PRIVATE_ROUTES: RouteTableId = RouteTableId(2);
/// Internet gateway.
pub const IGW: InternetGatewayId = InternetGatewayId(1);
/// NAT gateway.
pub const NAT: NatGatewayId = NatGatewayId(1);
/// Group of `web`: TCP 80 from everywhere, ICMP from everywhere, everything out.
pub const WEB_GROUP: SecurityGroupId = SecurityGroupId(1);
/// Group of `app`: nothing in, everything out.
pub const APP_GROUP: SecurityGroupId = SecurityGroupId(2);
/// Group of `db`: TCP 5432 from members of [`APP_GROUP`], everything out.
pub const DB_GROUP: SecurityGroupId = SecurityGroupId(3);
/// ENI and link of `web`, 10.0.1.10 with Elastic IP 198.51.100.10.
pub const WEB: (EniId, LinkId) = (EniId(1), LinkId(1));
/// ENI and link of `app`, 10.0.2.20.
pub const APP: (EniId, LinkId) = (EniId(2), LinkId(2));
/// ENI and link of `db`, 10.0.2.30.
pub const DB: (EniId, LinkId) = (EniId(3), LinkId(3));
/// Link of the internet.
pub const INTERNET: LinkId = LinkId(9);

/// The tables, generation 1.
pub fn tables() -> Tables {
    Tables {
        generation: Generation(1),
        vpcs: vec![Vpc { id: VPC, cidrs: vec![net("10.0.0.0/16")] }],
        subnets: vec![
            subnet(PUBLIC, "10.0.1.0/24", PUBLIC_ROUTES, PUBLIC_ACL),
            subnet(PRIVATE, "10.0.2.0/24", PRIVATE_ROUTES, PRIVATE_ACL),
        ],
        route_tables: vec![
            routes(PUBLIC_ROUTES, RouteTarget::InternetGateway(IGW)),
            routes(PRIVATE_ROUTES, RouteTarget::NatGateway(NAT)),
        ],
        network_acls: vec![open_acl(PUBLIC_ACL), open_acl(PRIVATE_ACL)],
        security_groups: vec![
            group(WEB_GROUP, vec![rule(tcp(80), anyone()), rule(ICMP, anyone())]),
            group(APP_GROUP, vec![]),
            group(DB_GROUP, vec![rule(tcp(5432), Peer::SecurityGroup(APP_GROUP))]),
        ],
        enis: vec![
            eni(WEB, PUBLIC, "10.0.1.10", WEB_GROUP),
            eni(APP, PRIVATE, "10.0.2.20", APP_GROUP),
            eni(DB, PRIVATE, "10.0.2.30", DB_GROUP),
        ],
        internet_gateways: vec![InternetGateway { id: IGW, vpc: VPC }],
        public_addresses: vec![public("198.51.100.10", "10.0.1.10"), public("198.51.100.20", "10.0.1.100")],
        nat_gateways: vec![NatGateway {
            id: NAT,
            subnet: PUBLIC,
            addresses: vec![ip("10.0.1.100")],
            idle_timeout_ms: 350_000,
        }],
        links: vec![
            link(WEB.1, LinkKind::Enis, 9001),
            link(APP.1, LinkKind::Enis, 9001),
            link(DB.1, LinkKind::Enis, 9001),
            link(INTERNET, LinkKind::Internet, 1500),
        ],
        internet_hosts: vec![ip("203.0.113.5")],
    }
}

/// Every ICMP message.
pub const ICMP: Traffic = Traffic::Icmp(IcmpMatch { kind: None, code: None });

/// TCP to one port.
pub const fn tcp(port: u16) -> Traffic {
    Traffic::Tcp(PortRange::one(port))
}

/// 0.0.0.0/0.
pub fn anyone() -> Peer {
    Peer::Cidr(net("0.0.0.0/0"))
}

/// A security group rule.
pub fn rule(traffic: Traffic, peer: Peer) -> SecurityGroupRule {
    SecurityGroupRule { traffic, peer }
}

/// A group that lets everything out.
pub fn group(id: SecurityGroupId, inbound: Vec<SecurityGroupRule>) -> SecurityGroup {
    SecurityGroup { id, vpc: VPC, inbound, outbound: vec![rule(Traffic::All, anyone())] }
}

/// A network ACL with one entry each way that allows everything.
pub fn open_acl(id: NetworkAclId) -> NetworkAcl {
    let all = vec![entry(100, Action::Allow, Traffic::All, "0.0.0.0/0")];
    NetworkAcl { id, inbound: all.clone(), outbound: all }
}

/// A network ACL entry.
pub fn entry(number: u16, action: Action, traffic: Traffic, cidr: &str) -> NetworkAclEntry {
    NetworkAclEntry { number, action, traffic, cidr: net(cidr) }
}

/// A route table with the local route and a default route.
pub fn routes(id: RouteTableId, default: RouteTarget) -> RouteTable {
    RouteTable {
        id,
        vpc: VPC,
        routes: vec![
            Route { destination: net("10.0.0.0/16"), target: RouteTarget::Local },
            Route { destination: net("0.0.0.0/0"), target: default },
        ],
    }
}

/// A subnet of the VPC.
pub fn subnet(id: SubnetId, cidr: &str, route_table: RouteTableId, network_acl: NetworkAclId) -> Subnet {
    Subnet { id, vpc: VPC, cidr: net(cidr), route_table, network_acl }
}

/// An ENI with one address and one group.
pub fn eni((id, link): (EniId, LinkId), subnet: SubnetId, address: &str, group: SecurityGroupId) -> Eni {
    Eni {
        id,
        link,
        subnet,
        addresses: vec![ip(address)],
        security_groups: vec![group],
        source_dest_check: SourceDestCheck::Enabled,
        tracking: TrackingTimeouts::default(),
        max_connections: DEFAULT_MAX_CONNECTIONS,
        fragments_per_second: DEFAULT_FRAGMENTS_PER_SECOND,
    }
}

/// A public address at the internet gateway.
pub fn public(public: &str, private: &str) -> PublicAddress {
    PublicAddress { internet_gateway: IGW, public: ip(public), private: ip(private) }
}

/// A link.
pub fn link(id: LinkId, kind: LinkKind, mtu: u16) -> Link {
    Link { id, kind, mtu }
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address")
}

/// A prefix.
pub fn net(text: &str) -> IpNet {
    text.parse().expect("a test's prefix")
}

/// Changes a rule, a route, or for a number above 6 nothing; the same change again takes it back.
pub fn change(rows: &mut Tables, what: usize) {
    match what {
        0 => toggle(&mut rows.security_groups[0].inbound, || rule(tcp(80), anyone())),
        1 => toggle(&mut rows.security_groups[0].outbound, || rule(Traffic::All, anyone())),
        2 => toggle(&mut rows.security_groups[1].inbound, || rule(Traffic::All, anyone())),
        3 => toggle(&mut rows.security_groups[2].inbound, || rule(Traffic::All, anyone())),
        4 => {
            toggle(&mut rows.network_acls[0].inbound, || entry(100, Action::Allow, Traffic::All, "0.0.0.0/0"))
        }
        5 => toggle(&mut rows.network_acls[1].outbound, || entry(100, Action::Allow, tcp(443), "0.0.0.0/0")),
        6 => {
            let target = &mut rows.route_tables[1].routes[1].target;
            *target = match target {
                RouteTarget::Blackhole => RouteTarget::NatGateway(NAT),
                _ => RouteTarget::Blackhole,
            };
        }
        _ => {}
    }
}

fn toggle<T>(list: &mut Vec<T>, make: impl FnOnce() -> T) {
    if list.is_empty() {
        list.push(make());
    } else {
        list.clear();
    }
}

//! A lab as the rows that analysis and dataplane get.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::tables::*;
use localvpc_api::*;

use crate::world::{self, End, Net, Target, World};

/// Tables, and the numbers in them.
pub struct Rows {
    pub tables: Tables,
}

/// Numbers: everything of a VPC has the VPC's hundred.
const fn id(vpc: usize, within: usize) -> u32 {
    (vpc as u32 + 1) * 100 + within as u32
}

const INTERNET: LinkId = LinkId(1);

impl Rows {
    pub fn eni(&self, vpc: usize, instance: usize) -> EniId {
        EniId(id(vpc, instance))
    }

    /// The link that a sender is behind; none for an address that no host has.
    pub fn link(&self, end: End) -> Option<LinkId> {
        match end {
            End::Instance(vpc, instance) => {
                let eni = self.eni(vpc, instance);
                self.tables.enis.iter().find(|row| row.id == eni).map(|row| row.link)
            }
            End::Host(address) => {
                let address = IpAddr::V4(address.into());
                self.tables.internet_hosts.contains(&address).then_some(INTERNET)
            }
        }
    }
}

pub fn of(world: &World) -> Rows {
    let mut tables = Tables {
        generation: Generation(1),
        links: vec![Link { id: INTERNET, kind: LinkKind::Internet, mtu: 1500 }],
        internet_hosts: world.hosts.iter().map(|host| ip(*host)).collect(),
        ..Tables::default()
    };
    for (at, vpc) in world.vpcs.iter().enumerate() {
        add(&mut tables, at, vpc);
    }
    Rows { tables }
}

fn add(tables: &mut Tables, at: usize, vpc: &world::Vpc) {
    let vpc_id = VpcId(id(at, 0));
    tables.vpcs.push(Vpc { id: vpc_id, cidrs: vec![net(vpc.cidr)] });
    for (number, subnet) in vpc.subnets.iter().enumerate() {
        tables.subnets.push(Subnet {
            id: SubnetId(id(at, number)),
            vpc: vpc_id,
            cidr: net(subnet.cidr),
            route_table: RouteTableId(id(at, subnet.table)),
            network_acl: NetworkAclId(id(at, subnet.acl)),
        });
    }
    for (number, routes) in vpc.tables.iter().enumerate() {
        let local = Route { destination: net(vpc.cidr), target: RouteTarget::Local };
        let others = routes.iter().map(|(destination, target)| Route {
            destination: net(*destination),
            target: match target {
                Target::Gateway => RouteTarget::InternetGateway(InternetGatewayId(id(at, 0))),
                Target::Nat(nat) => RouteTarget::NatGateway(NatGatewayId(id(at, *nat))),
                Target::Instance(instance) => RouteTarget::NetworkInterface(EniId(id(at, *instance))),
                Target::Blackhole => RouteTarget::Blackhole,
            },
        });
        let routes = [local].into_iter().chain(others).collect();
        tables.route_tables.push(RouteTable { id: RouteTableId(id(at, number)), vpc: vpc_id, routes });
    }
    for (number, acl) in vpc.acls.iter().enumerate() {
        let entries = |list: &[(bool, world::Traffic, Net)]| {
            let numbered = list.iter().zip((10..).step_by(10));
            let entry = |((allows, of, far), number): (&(bool, world::Traffic, Net), u16)| NetworkAclEntry {
                number,
                action: if *allows { Action::Allow } else { Action::Deny },
                traffic: traffic(*of),
                cidr: net(*far),
            };
            numbered.map(entry).collect()
        };
        tables.network_acls.push(NetworkAcl {
            id: NetworkAclId(id(at, number)),
            inbound: entries(&acl.inbound),
            outbound: entries(&acl.outbound),
        });
    }
    for (number, group) in vpc.groups.iter().enumerate() {
        let rules = |list: &[(world::Traffic, world::Peer)]| {
            let rule = |(of, peer): &(world::Traffic, world::Peer)| SecurityGroupRule {
                traffic: traffic(*of),
                peer: match peer {
                    world::Peer::Net(far) => Peer::Cidr(net(*far)),
                    world::Peer::Group(group) => Peer::SecurityGroup(SecurityGroupId(id(at, *group))),
                },
            };
            list.iter().map(rule).collect()
        };
        tables.security_groups.push(SecurityGroup {
            id: SecurityGroupId(id(at, number)),
            vpc: vpc_id,
            inbound: rules(&group.inbound),
            outbound: rules(&group.outbound),
        });
    }
    for (number, instance) in vpc.instances.iter().enumerate() {
        // Those of a shared subnet are behind one.
        let link = match vpc.subnets[instance.subnet].shared {
            true => LinkId(id(at, 50 + instance.subnet)),
            false => LinkId(id(at, number)),
        };
        if tables.links.iter().all(|row| row.id != link) {
            tables.links.push(Link { id: link, kind: LinkKind::Enis, mtu: 9001 });
        }
        tables.enis.push(Eni {
            id: EniId(id(at, number)),
            link,
            subnet: SubnetId(id(at, instance.subnet)),
            addresses: instance.addresses.iter().map(|(private, _)| ip(*private)).collect(),
            security_groups: instance.groups.iter().map(|group| SecurityGroupId(id(at, *group))).collect(),
            source_dest_check: match instance.checks {
                true => SourceDestCheck::Enabled,
                false => SourceDestCheck::Disabled,
            },
            tracking: TrackingTimeouts::default(),
            max_connections: 1000,
            fragments_per_second: 1024,
        });
    }
    for (number, nat) in vpc.nats.iter().enumerate() {
        tables.nat_gateways.push(NatGateway {
            id: NatGatewayId(id(at, number)),
            subnet: SubnetId(id(at, nat.subnet)),
            addresses: vec![ip(nat.address)],
            idle_timeout_ms: 350_000,
        });
    }
    if vpc.gateway {
        let gateway = InternetGatewayId(id(at, 0));
        tables.internet_gateways.push(InternetGateway { id: gateway, vpc: vpc_id });
        tables.public_addresses.extend(vpc.addresses().filter_map(|(private, public)| {
            Some(PublicAddress { internet_gateway: gateway, public: ip(public?), private: ip(private) })
        }));
    }
}

fn traffic(of: world::Traffic) -> Traffic {
    match of {
        world::Traffic::All => Traffic::All,
        world::Traffic::Tcp(from, to) => Traffic::Tcp(PortRange { from, to }),
        world::Traffic::Udp(from, to) => Traffic::Udp(PortRange { from, to }),
        world::Traffic::Icmp(kind) => Traffic::Icmp(IcmpMatch { kind, code: None }),
        world::Traffic::Protocol(number) => Traffic::Protocol(number),
    }
}

fn ip(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(address))
}

fn net((address, length): Net) -> IpNet {
    IpNet::V4(Ipv4Net::new(address.into(), length).expect("a prefix of at most 32 bits"))
}

//! One test for each thing that is checked.

use super::super::fixture::{public, rows};
use super::*;

/// Makes a valid configuration invalid.
type Change = fn(&mut Tables);

/// What is said about a valid configuration with one thing changed.
fn refusal(change: impl FnOnce(&mut Tables)) -> String {
    let mut rows = rows();
    change(&mut rows);
    check(&rows).err().expect("the rows are invalid").to_string()
}

fn net(cidr: &str) -> IpNet {
    cidr.parse().unwrap()
}

fn address(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn the_fixture_is_valid() {
    check(&rows()).unwrap();
}

#[test]
fn no_rows_are_valid() {
    check(&Tables::default()).unwrap();
}

#[test]
fn ids_occur_once() {
    let twice: [(&str, Change); 9] = [
        ("vpc#1", |rows| rows.vpcs.extend_from_within(..1)),
        ("subnet#1", |rows| rows.subnets.extend_from_within(..1)),
        ("route-table#1", |rows| rows.route_tables.extend_from_within(..1)),
        ("network-acl#1", |rows| rows.network_acls.extend_from_within(..1)),
        ("security-group#1", |rows| rows.security_groups.extend_from_within(..1)),
        ("eni#1", |rows| rows.enis.extend_from_within(..1)),
        ("internet-gateway#1", |rows| rows.internet_gateways.extend_from_within(..1)),
        ("nat-gateway#1", |rows| rows.nat_gateways.extend_from_within(..1)),
        ("link#1", |rows| rows.links.extend_from_within(..1)),
    ];
    for (row, change) in twice {
        assert_eq!(refusal(change), format!("{row}: the id occurs twice"));
    }
}

#[test]
fn references_lead_somewhere() {
    let dangling: [(&str, &str, Change); 14] = [
        ("subnet#1", "vpc#8", |rows| rows.subnets[0].vpc = VpcId(8)),
        ("subnet#1", "route-table#8", |rows| rows.subnets[0].route_table = RouteTableId(8)),
        ("subnet#1", "network-acl#8", |rows| rows.subnets[0].network_acl = NetworkAclId(8)),
        ("route-table#3", "vpc#8", |rows| {
            rows.subnets.pop();
            rows.enis.pop();
            rows.route_tables[2].vpc = VpcId(8);
        }),
        ("route-table#1 route 1", "internet-gateway#8", |rows| {
            rows.route_tables[0].routes[1].target = RouteTarget::InternetGateway(InternetGatewayId(8));
        }),
        ("route-table#1 route 1", "nat-gateway#8", |rows| {
            rows.route_tables[0].routes[1].target = RouteTarget::NatGateway(NatGatewayId(8));
        }),
        ("route-table#1 route 1", "eni#8", |rows| {
            rows.route_tables[0].routes[1].target = RouteTarget::NetworkInterface(EniId(8));
        }),
        ("security-group#3", "vpc#8", |rows| {
            rows.enis.pop();
            rows.security_groups[2].vpc = VpcId(8);
        }),
        ("security-group#2 inbound rule 0", "security-group#8", |rows| {
            rows.security_groups[1].inbound[0].peer = Peer::SecurityGroup(SecurityGroupId(8));
        }),
        ("eni#1", "subnet#8", |rows| rows.enis[0].subnet = SubnetId(8)),
        ("eni#1", "link#8", |rows| rows.enis[0].link = LinkId(8)),
        ("eni#1", "security-group#8", |rows| rows.enis[0].security_groups = vec![SecurityGroupId(8)]),
        ("internet-gateway#1", "vpc#8", |rows| rows.internet_gateways[0].vpc = VpcId(8)),
        ("nat-gateway#1", "subnet#8", |rows| rows.nat_gateways[0].subnet = SubnetId(8)),
    ];
    for (row, missing, change) in dangling {
        assert_eq!(refusal(change), format!("{row}: refers to {missing}, which does not exist"));
    }
    let said = refusal(|rows| rows.public_addresses[0].internet_gateway = InternetGatewayId(8));
    assert_eq!(said, "public-address 203.0.113.10: refers to internet-gateway#8, which does not exist");
}

#[test]
fn references_stay_in_the_vpc() {
    let foreign: [(&str, &str, Change); 7] = [
        ("subnet#3", "route-table#1", |rows| rows.subnets[2].route_table = RouteTableId(1)),
        ("route-table#3 route 0", "internet-gateway#1", |rows| {
            rows.route_tables[2].routes[0].target = RouteTarget::InternetGateway(InternetGatewayId(1));
        }),
        ("route-table#3 route 0", "nat-gateway#1", |rows| {
            rows.route_tables[2].routes[0].target = RouteTarget::NatGateway(NatGatewayId(1));
        }),
        ("route-table#3 route 0", "eni#1", |rows| {
            rows.route_tables[2].routes[0].target = RouteTarget::NetworkInterface(EniId(1));
        }),
        ("eni#4", "security-group#1", |rows| rows.enis[3].security_groups = vec![SecurityGroupId(1)]),
        ("security-group#3 outbound rule 0", "security-group#1", |rows| {
            rows.security_groups[2].outbound[0].peer = Peer::SecurityGroup(SecurityGroupId(1));
        }),
        ("eni#4", "link#1", |rows| rows.enis[3].link = LinkId(1)),
    ];
    for (row, other, change) in foreign {
        assert_eq!(refusal(change), format!("{row}: refers to {other}, which belongs to another VPC"));
    }
}

#[test]
fn a_vpc_has_cidrs_that_do_not_overlap() {
    let said = refusal(|rows| rows.vpcs[0].cidrs.clear());
    assert_eq!(said, "vpc#1: has no CIDR; a VPC needs at least one");
    let said = refusal(|rows| rows.vpcs[0].cidrs.push(net("10.0.128.0/20")));
    assert_eq!(said, "vpc#1: 10.0.128.0/20 overlaps 10.0.0.0/16 of the same VPC");
}

#[test]
fn a_subnet_lies_inside_its_vpc() {
    let said = refusal(|rows| rows.subnets[0].cidr = net("10.1.1.0/24"));
    assert_eq!(said, "subnet#1: 10.1.1.0/24 is not inside 10.0.0.0/16");
    let said = refusal(|rows| rows.subnets[0].cidr = net("10.0.0.0/15"));
    assert_eq!(said, "subnet#1: 10.0.0.0/15 is not inside 10.0.0.0/16");
}

#[test]
fn subnets_of_a_vpc_do_not_overlap() {
    let said = refusal(|rows| rows.subnets[1].cidr = net("10.0.0.0/22"));
    assert_eq!(said, "subnet#2: 10.0.0.0/22 overlaps subnet#1 (10.0.1.0/24)");
    let said = refusal(|rows| rows.subnets[1].cidr = net("10.0.1.0/24"));
    assert_eq!(said, "subnet#2: 10.0.1.0/24 overlaps subnet#1 (10.0.1.0/24)");
}

#[test]
fn cidrs_have_no_host_bits() {
    let with_host_bits: [(&str, Change); 5] = [
        ("vpc#1", |rows| rows.vpcs[0].cidrs[0] = net("10.0.1.0/16")),
        ("subnet#1", |rows| rows.subnets[0].cidr = net("10.0.1.0/16")),
        ("route-table#1 route 0", |rows| rows.route_tables[0].routes[0].destination = net("10.0.1.0/16")),
        ("network-acl#1 outbound entry 100", |rows| {
            rows.network_acls[0].outbound[0].cidr = net("10.0.1.0/16")
        }),
        ("security-group#1 inbound rule 0", |rows| {
            rows.security_groups[0].inbound[0].peer = Peer::Cidr(net("10.0.1.0/16"));
        }),
    ];
    for (row, change) in with_host_bits {
        assert_eq!(refusal(change), format!("{row}: 10.0.1.0/16 has host bits; 10.0.0.0/16 is meant"));
    }
}

#[test]
fn ipv6_is_refused_everywhere() {
    let ipv6: [(&str, Change); 10] = [
        ("vpc#1", |rows| rows.vpcs[0].cidrs.push(net("2001:db8::/56"))),
        ("subnet#1", |rows| rows.subnets[0].cidr = net("2001:db8::/64")),
        ("route-table#1 route 1", |rows| rows.route_tables[0].routes[1].destination = net("::/0")),
        ("network-acl#1 inbound entry 100", |rows| rows.network_acls[0].inbound[0].cidr = net("::/0")),
        ("security-group#1 inbound rule 0", |rows| {
            rows.security_groups[0].inbound[0].peer = Peer::Cidr(net("::/0"));
        }),
        ("eni#1", |rows| rows.enis[0].addresses.push(address("2001:db8::10"))),
        ("nat-gateway#1", |rows| rows.nat_gateways[0].addresses.push(address("2001:db8::10"))),
        ("public-address 2001:db8::10", |rows| rows.public_addresses[0].public = address("2001:db8::10")),
        ("public-address 203.0.113.10", |rows| rows.public_addresses[0].private = address("2001:db8::10")),
        ("internet-host 2001:db8::10", |rows| rows.internet_hosts.push(address("2001:db8::10"))),
    ];
    for (row, change) in ipv6 {
        let said = refusal(change);
        assert!(said.starts_with(&format!("{row}: ")), "{said}");
        assert!(said.ends_with(": IPv6 is not supported yet"), "{said}");
    }
}

#[test]
fn owners_have_addresses() {
    let said = refusal(|rows| rows.enis[0].addresses.clear());
    assert_eq!(said, "eni#1: has no address; at least one is needed");
    let said = refusal(|rows| rows.nat_gateways[0].addresses.clear());
    assert_eq!(said, "nat-gateway#1: has no address; at least one is needed");
}

#[test]
fn addresses_lie_in_their_subnet() {
    let said = refusal(|rows| rows.enis[0].addresses[0] = address("10.0.2.10"));
    assert_eq!(said, "eni#1: 10.0.2.10 is not inside subnet#1 (10.0.1.0/24)");
    let said = refusal(|rows| rows.nat_gateways[0].addresses[0] = address("10.0.2.10"));
    assert_eq!(said, "nat-gateway#1: 10.0.2.10 is not inside subnet#1 (10.0.1.0/24)");
}

#[test]
fn addresses_are_taken_once_in_a_vpc() {
    let said = refusal(|rows| rows.enis[2].addresses[0] = address("10.0.2.20"));
    assert_eq!(said, "eni#3: 10.0.2.20 is taken by eni#2 already");
    let said = refusal(|rows| rows.nat_gateways[0].addresses[0] = address("10.0.1.10"));
    assert_eq!(said, "nat-gateway#1: 10.0.1.10 is taken by eni#1 already");
    let said = refusal(|rows| rows.enis[0].addresses.push(address("10.0.1.10")));
    assert_eq!(said, "eni#1: 10.0.1.10 is taken by eni#1 already");
}

/// VPC-16.
#[test]
fn five_addresses_of_a_subnet_are_reserved() {
    for last in [0, 1, 2, 3, 255] {
        let said = refusal(|rows| rows.enis[0].addresses[0] = IpAddr::from([10, 0, 1, last]));
        let expected = format!("eni#1: 10.0.1.{last} is reserved in subnet#1 (10.0.1.0/24): ");
        assert!(said.starts_with(&expected), "{said}");
    }
    let said = refusal(|rows| rows.nat_gateways[0].addresses[0] = address("10.0.1.1"));
    assert_eq!(said, "nat-gateway#1: 10.0.1.1 is reserved in subnet#1 (10.0.1.0/24): the VPC router");
    for last in [4, 254] {
        let mut rows = rows();
        rows.enis[2].addresses[0] = IpAddr::from([10, 0, 2, last]);
        check(&rows).unwrap();
    }
}

#[test]
fn a_route_table_has_one_route_for_a_destination() {
    let said = refusal(|rows| rows.route_tables[0].routes.extend_from_within(1..));
    assert_eq!(said, "route-table#1 route 2: route 1 has the destination 0.0.0.0/0 already");
}

/// NACL-2.
#[test]
fn acl_entries_ascend_from_1_to_32766() {
    for number in [0, 32_767] {
        let said = refusal(|rows| rows.network_acls[0].outbound[0].number = number);
        let expected = format!("network-acl#1 outbound entry {number}: the number must be from 1 to 32766");
        assert_eq!(said, expected);
    }
    let said = refusal(|rows| rows.network_acls[0].inbound[1].number = 100);
    assert_eq!(said, "network-acl#1 inbound entry 100: the number occurs twice in this direction");
    let said = refusal(|rows| rows.network_acls[0].inbound.swap(0, 1));
    assert_eq!(said, "network-acl#1 inbound entry 100: comes after entry 200; entries must ascend by number");
}

#[test]
fn port_ranges_run_forwards() {
    let backwards = PortRange { from: 2, to: 1 };
    let said = refusal(|rows| rows.security_groups[0].inbound[0].traffic = Traffic::Tcp(backwards));
    assert_eq!(said, "security-group#1 inbound rule 0: the port range 2-1 is backwards");
    let said = refusal(|rows| rows.network_acls[0].inbound[0].traffic = Traffic::Udp(backwards));
    assert_eq!(said, "network-acl#1 inbound entry 100: the port range 2-1 is backwards");
}

/// SG-8.
#[test]
fn an_icmp_code_needs_a_type() {
    let code_only = Traffic::Icmp(IcmpMatch { kind: None, code: Some(4) });
    let said = refusal(|rows| rows.security_groups[0].inbound[0].traffic = code_only);
    let expected = "security-group#1 inbound rule 0: ICMP code 4 needs a type; every type means every code";
    assert_eq!(said, expected);
}

/// SG-1.
#[test]
fn an_eni_carries_up_to_16_groups() {
    let with = |count: u32| {
        move |rows: &mut Tables| {
            let groups = (100..100 + count).map(SecurityGroupId);
            rows.enis[0].security_groups = groups.clone().collect();
            rows.security_groups.extend(groups.map(|id| SecurityGroup {
                id,
                vpc: VpcId(1),
                inbound: vec![],
                outbound: vec![],
            }));
        }
    };
    assert_eq!(refusal(with(17)), "eni#1: carries 17 security groups; at most 16 are possible");
    let mut sixteen = rows();
    with(16)(&mut sixteen);
    check(&sixteen).unwrap();
    let said = refusal(|rows| rows.enis[0].security_groups = vec![SecurityGroupId(1); 2]);
    assert_eq!(said, "eni#1: carries security-group#1 twice");
}

/// NATGW-7.
#[test]
fn a_nat_gateway_has_up_to_8_addresses() {
    let with = |count: u8| {
        move |rows: &mut Tables| {
            rows.nat_gateways[0].addresses = (100..100 + count).map(|last| [10, 0, 1, last].into()).collect();
        }
    };
    assert_eq!(refusal(with(9)), "nat-gateway#1: has 9 addresses; at most 8 are possible");
    let mut eight = rows();
    with(8)(&mut eight);
    check(&eight).unwrap();
}

#[test]
fn timeouts_are_not_zero() {
    let said = refusal(|rows| rows.nat_gateways[0].idle_timeout_ms = 0);
    assert_eq!(said, "nat-gateway#1: idle_timeout_ms must not be 0");
    let said = refusal(|rows| rows.enis[0].tracking.udp_ms = 0);
    assert_eq!(said, "eni#1: udp_ms must not be 0");
}

#[test]
fn public_addresses_are_one_to_one() {
    let said = refusal(|rows| rows.public_addresses.push(public("203.0.113.10", "10.0.2.20")));
    let expected = "public-address 203.0.113.10: 203.0.113.10 is the public address of 10.0.1.10 already";
    assert_eq!(said, expected);
    let said = refusal(|rows| rows.public_addresses.push(public("203.0.113.30", "10.0.1.10")));
    assert_eq!(said, "public-address 203.0.113.30: 10.0.1.10 has the public address 203.0.113.10 already");
}

#[test]
fn a_public_address_is_no_internet_host() {
    let said = refusal(|rows| rows.internet_hosts.push(address("203.0.113.10")));
    assert_eq!(said, "public-address 203.0.113.10: 203.0.113.10 is the address of an internet host");
    let said = refusal(|rows| rows.internet_hosts.extend_from_within(..));
    assert_eq!(said, "internet-host 198.51.100.10: 198.51.100.10 is taken twice");
}

/// ENI 4 has 10.0.1.10 too, but in another VPC than the gateway's.
#[test]
fn a_public_address_stands_for_an_owned_one() {
    let said = refusal(|rows| rows.public_addresses[0].private = address("10.0.2.99"));
    let expected = "public-address 203.0.113.10: 10.0.2.99 belongs to no ENI and no NAT gateway of vpc#1";
    assert_eq!(said, expected);
    let said = refusal(|rows| {
        rows.enis[0].addresses[0] = address("10.0.1.11");
    });
    assert!(said.ends_with("10.0.1.10 belongs to no ENI and no NAT gateway of vpc#1"), "{said}");
}

#[test]
fn a_vpc_has_one_internet_gateway() {
    let second = InternetGateway { id: InternetGatewayId(2), vpc: VpcId(1) };
    let said = refusal(|rows| rows.internet_gateways.push(second));
    assert_eq!(said, "internet-gateway#2: vpc#1 has internet-gateway#1 already; a VPC has at most one");
}

#[test]
fn a_lab_has_one_internet() {
    let said = refusal(|rows| rows.links[0].kind = LinkKind::Internet);
    assert_eq!(said, "link#9: link#1 is the internet's link already; a lab has at most one");
}

#[test]
fn an_eni_is_not_on_the_internet() {
    let said = refusal(|rows| rows.enis[0].link = LinkId(9));
    assert_eq!(said, "eni#1: link#9 leads to the internet; an ENI needs a link of kind `enis`");
}

#[test]
fn a_link_takes_ipv4_packets() {
    let said = refusal(|rows| rows.links[0].mtu = 67);
    assert_eq!(said, "link#1: an MTU of 67 is too small; at least 68 bytes are needed");
}

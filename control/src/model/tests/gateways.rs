//! NAT gateways, and what is legal but does not get out.

use super::*;

#[test]
fn nat_gateways() {
    let with = |nat: &str| lab(&format!("    nat_gateways:\n      nat: {nat}\n"));
    refuse(&with("{ subnet: public }"), "15:7", "NAT gateway `nat` needs an `eip`");
    refuse(
        &with("{ subnet: public, eip: 203.0.113.9, connectivity: private }"),
        "15:35",
        "NAT gateway `nat` is private",
    );
    let private = read(&with("{ subnet: private, connectivity: private }"));
    assert_eq!(private.vpcs[0].nat_gateways[0].addresses[0].public, None);
    let many = read(&with("{ subnet: public, eip: [203.0.113.8, 203.0.113.9], ip: 10.0.1.100 }"));
    let addresses = &many.vpcs[0].nat_gateways[0].addresses;
    assert_eq!(addresses[0].private, IpAddr::from([10, 0, 1, 100]));
    assert_eq!(addresses[1].public, Some(IpAddr::from([203, 0, 113, 9])));
    assert_ne!(addresses[0].private, addresses[1].private);
}

#[test]
fn natgw_6_natgw_7_up_to_eight_addresses() {
    let with = |nat: &str| lab(&format!("    nat_gateways:\n      nat: {nat}\n"));
    let list = |range: std::ops::Range<u8>, net: &str| {
        range.map(|n| format!("{net}.{n}")).collect::<Vec<_>>().join(", ")
    };
    let eight = format!(
        "{{ subnet: public, eip: [{}], ip: [{}] }}",
        list(1..9, "203.0.113"),
        list(101..109, "10.0.1")
    );
    let model = read(&with(&eight));
    let addresses = &model.vpcs[0].nat_gateways[0].addresses;
    assert_eq!(addresses.len(), 8);
    let pair = (IpAddr::from([10, 0, 1, 108]), Some(IpAddr::from([203, 0, 113, 8])));
    assert_eq!((addresses[7].private, addresses[7].public), pair);
    let nine = format!("{{ subnet: public, eip: [{}] }}", list(1..10, "203.0.113"));
    let column = 36 + "203.0.113.1, ".len() * 8;
    refuse(&with(&nine), &format!("15:{column}"), "NAT gateway `nat` has more than 8 addresses");
    refuse(
        &with("{ subnet: public, eip: 203.0.113.1, ip: [10.0.1.101, 10.0.1.102] }"),
        "15:65",
        "NAT gateway `nat` has more private addresses than Elastic IPs",
    );
    refuse(
        &with("{ subnet: public, eip: [203.0.113.1, 203.0.113.1] }"),
        "15:49",
        "203.0.113.1 is taken by NAT gateway `nat`",
    );
    let private = read(&with(&format!(
        "{{ subnet: public, connectivity: private, ip: [{}] }}",
        list(101..109, "10.0.1")
    )));
    assert_eq!(private.vpcs[0].nat_gateways[0].addresses.len(), 8);
    let said = refuse(
        &with("{ subnet: public, eips: [203.0.113.1] }"),
        "15:30",
        "unknown key `eips` in a NAT gateway",
    );
    assert!(said.contains("did you mean `eip`?"), "{said}");
}

#[test]
fn natgw_4_a_private_gateway_before_the_internet_gateway_is_a_warning() {
    let text = lab("    nat_gateways:\n      nat: { subnet: public, connectivity: private }\n")
        .replace("{ cidr: 10.0.2.0/24 }", "{ cidr: 10.0.2.0/24, route_table: in }")
        .replace("via: igw } ]\n", "via: igw } ]\n      in: [ { to: 0.0.0.0/0, via: nat } ]\n");
    warn(
        &text,
        "11:35",
        "the route to 0.0.0.0/0 leads to NAT gateway `nat`, which is private, and on to the internet gateway",
    );
}

#[test]
fn rt_19_natgw_43_a_deleted_nat_gateway() {
    let text = lab("    nat_gateways:
      old: { subnet: public, eip: 203.0.113.9, ip: 10.0.1.100, state: deleted }
      new: { subnet: public, eip: 203.0.113.9, ip: 10.0.1.100 }
")
    .replace("{ cidr: 10.0.2.0/24 }", "{ cidr: 10.0.2.0/24, route_table: in }")
    .replace("via: igw } ]\n", "via: igw } ]\n      in: [ { to: 0.0.0.0/0, via: old } ]\n");
    let message = "the route to 0.0.0.0/0 leads to NAT gateway `old`, which is deleted: it is a blackhole";
    let model = warn(&text, "11:35", message);
    let vpc = &model.vpcs[0];
    let [old, new] = vpc.nat_gateways.as_slice() else { panic!() };
    assert_eq!(
        (old.state, old.addresses.len()),
        (NatGatewayState::Deleted, 0),
        "its addresses are free again"
    );
    assert_eq!((new.state, new.addresses.len()), (NatGatewayState::Available, 1));
    let route = vpc.route_table("in").unwrap().routes.last().unwrap();
    assert!(vpc.is_blackhole(route));
    assert_eq!(text::route(vpc, route), "0.0.0.0/0 → old (deleted)");
    let gateways =
        || lab("    nat_gateways:\n      nat: { subnet: nowhere, eip: 1.2.3.4, state: deleted }\n");
    refuse(&gateways(), "15:22", "subnet `nowhere` is not defined");
    refuse(&gateways().replace("deleted", "gone"), "15:52", "`gone` is not a state of a NAT gateway");
    let cut = lab("").replace("via: igw }", "via: igw }, { to: 10.9.0.0/16, via: egress }");
    let said = refuse(&cut, "10:67", "the route leads to `egress`, which is not defined in VPC `main`");
    assert!(said.contains("for a NAT gateway that was deleted, keep it with `state: deleted`."), "{said}");
}

#[test]
fn a_nat_gateway_without_a_way_out_is_a_warning() {
    let text = lab("    nat_gateways:\n      nat: { subnet: private, eip: 203.0.113.9 }\n");
    let message = "NAT gateway `nat` stands in subnet `private`, which has no route to the internet gateway: \
                   everything sent through it to the internet will be discarded there";
    warn(&text, "15:22", message);
}

#[test]
fn a_route_to_an_instance_that_does_not_forward_is_a_warning() {
    let text = lab("    instances:\n      fw: { subnet: public }\n")
        .replace("via: igw } ]", "via: igw }, { to: 192.168.0.0/16, via: fw } ]");
    warn(&text, "10:70", "the route leads to instance `fw`, whose source/destination check");
    let forwards = text.replace("fw: { subnet: public }", "fw: { subnet: public, source_dest_check: false }");
    assert!(Model::read("bad.yaml", &forwards).unwrap().1.is_empty());
}

#[test]
fn an_internet_host_inside_a_vpc_is_a_warning() {
    let text = "lab: x\nvpcs: { main: { cidr: 198.51.100.0/24 } }\ninternet: { hosts: { h: { ip: 198.51.100.7 } } }\n";
    warn(text, "3:31", "instances of VPC `main` cannot reach internet host `h`: 198.51.100.7 is local there");
}

#[test]
fn an_elastic_ip_without_a_way_back_is_a_warning() {
    let text = lab("    instances:\n      a: { subnet: private, eip: 203.0.113.9 }\n");
    warn(&text, "15:34", "instance `a` has Elastic IP 203.0.113.9, but subnet `private` has no route");
}

//! CIDRs and addresses.

use super::*;

#[test]
fn vpc_2_sizes_of_a_vpc() {
    let with = |cidr: &str| format!("lab: x\nvpcs:\n  main: {{ cidr: {cidr} }}\n");
    refuse(&with("10.0.0.0/8"), "3:17", "VPC `main` (10.0.0.0/8) is too large");
    refuse(&with("10.0.0.0/29"), "3:17", "VPC `main` (10.0.0.0/29) is too small");
    let said = refuse(&with("10.0.1.0/16"), "3:17", "VPC `main` (10.0.1.0/16) has host bits");
    assert!(said.ends_with("help: the network is 10.0.0.0/16."), "{said}");
    refuse(&with("10.0.0/16"), "3:17", "`10.0.0/16` is not a CIDR");
    let said = refuse(&with("10.0.0.0"), "3:17", "`10.0.0.0` is not a CIDR");
    assert!(said.contains("a prefix length is missing"), "{said}");
    refuse(&with("fd00::/16"), "3:17", "VPC `main` (fd00::/16) is IPv6, which is not supported yet");
    refuse(
        &with("127.0.0.0/16"),
        "3:17",
        "VPC `main` (127.0.0.0/16) is in 127.0.0.0/8, which no VPC can use",
    );
    read(&with("10.0.0.0/28"));
}

#[test]
fn vpc_6_secondary_cidrs_are_disjoint() {
    let with = |cidr: &str| format!("lab: x\nvpcs:\n  main: {{ cidr: 10.0.0.0/16, cidrs: [{cidr}] }}\n");
    refuse(&with("10.0.128.0/20"), "3:38", "secondary CIDR 10.0.128.0/20 of VPC `main` overlaps 10.0.0.0/16");
    let model = read(&with("10.1.0.0/16"));
    let routes = &model.vpcs[0].route_tables[0].routes;
    assert!(routes.iter().all(|route| route.target == Target::Local), "{routes:?}");
    assert_eq!(routes.len(), 2);
}

#[test]
fn vpc_7_a_secondary_cidr_is_smaller_than_any_destination_it_lies_in() {
    // In whatever order the two were made on AWS: a destination within a CIDR of the VPC is one of its subnets, or is local.
    let with = |to: &str| {
        format!(
            "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n    cidrs: [10.1.0.0/20]\n    subnets: {{ a: {{ cidr: 10.1.1.0/24 }} }}\n    route_tables: {{ out: [ {{ to: {to}, via: blackhole }} ] }}\n"
        )
    };
    refuse(&with("10.1.0.0/24"), "7:34", "10.1.0.0/24 is inside VPC `main` but is not the CIDR of a subnet");
    refuse(
        &with("10.1.15.255/32"),
        "7:34",
        "10.1.15.255/32 is inside VPC `main` but is not the CIDR of a subnet",
    );
    for larger in ["10.1.0.0/19", "10.0.0.0/8", "0.0.0.0/0"] {
        read(&with(larger));
    }
    // RT-5, RT-9: what AWS takes afterwards.
    for own in ["10.1.0.0/20", "10.1.1.0/24"] {
        read(&with(own));
    }
    refuse(
        &with("10.9.0.0/16").replace("10.1.0.0/20", "10.1.0.0/29"),
        "5:13",
        "VPC `main` (10.1.0.0/29) is too small",
    );
    refuse(
        &with("10.9.0.0/16").replace("10.1.0.0/20", "10.0.0.0/15"),
        "5:13",
        "VPC `main` (10.0.0.0/15) is too large",
    );
}

#[test]
fn vpc_8_families_of_cidrs_that_do_not_mix() {
    let with = |cidrs: &str| format!("lab: x\nvpcs:\n  main: {{ cidr: 10.0.0.0/16, cidrs: [{cidrs}] }}\n");
    let said = refuse(
        &with("10.1.0.0/16, 192.168.0.0/24"),
        "3:51",
        "AWS does not add 192.168.0.0/24 to VPC `main` (10.0.0.0/16): a VPC of 10.0.0.0/8 takes none of 172.16.0.0/12 and 192.168.0.0/16",
    );
    assert!(said.ends_with("help: a part of 100.64.0.0/10 can always be added."), "{said}");
    assert_eq!(read(&with("10.1.0.0/16, 100.64.0.0/16, 8.8.0.0/16")).vpcs[0].cidrs.len(), 4);
}

#[test]
fn eni_3_secondary_addresses() {
    let with = |more: &str| {
        lab(&format!(
            "    instances:\n      b: {{ subnet: private, ip: 10.0.2.9 }}\n      a: {{ subnet: public, ip: 10.0.1.9, {more} }}\n"
        ))
    };
    let model = read(&with("secondary_ips: [10.0.1.10, { ip: 10.0.1.11, eip: 203.0.113.11 }]"));
    let a = &model.vpcs[0].instances[1];
    let [none, eip] = [None, Some("203.0.113.11".parse().unwrap())];
    let own: Vec<_> = a.addresses().map(|(private, public)| (private.to_string(), public)).collect();
    assert_eq!(own, [("10.0.1.9".into(), none), ("10.0.1.10".into(), none), ("10.0.1.11".into(), eip)]);
    assert_eq!(read(&with("secondary_ips: 10.0.1.10")).vpcs[0].instances[1].secondary.len(), 1);
    let refused = |text: &str, word: &str, message: &str| refuse(text, &place_of(text, word), message);
    for (more, word, message) in [
        (
            "[10.0.2.9]",
            "10.0.2.9",
            "instance `a` has 10.0.2.9, which is outside its subnet `public` (10.0.1.0/24)",
        ),
        ("[10.0.1.1]", "10.0.1.1", "10.0.1.1 is reserved in subnet `public` (10.0.1.0/24): the VPC router"),
        ("[10.0.1.9]", "10.0.1.9", "10.0.1.9 is taken by instance `a`"),
        ("[ten]", "ten", "`ten` is not an address"),
        ("[{ eip: 203.0.113.11 }]", "{ eip", "a secondary address needs the key `ip`"),
        (
            "{ ip: 10.0.1.10, eip: 10.9.9.9 }",
            "10.9.9.9",
            "instance `a` has 10.9.9.9, a private address (RFC 1918): it cannot be on the internet",
        ),
        (
            "{ ip: 10.0.1.10, eip: 203.0.113.9 }, eip: 203.0.113.9",
            "203.0.113.9 },",
            "203.0.113.9 is taken by instance `a`",
        ),
    ] {
        refused(&with(&format!("secondary_ips: {more}")), word, message);
    }
    let dead = with("").replace(
        "subnet: private, ip: 10.0.2.9",
        "subnet: private, secondary_ips: { ip: 10.0.2.9, eip: 203.0.113.9 }",
    );
    let message =
        "instance `b` has Elastic IP 203.0.113.9, but subnet `private` has no route to the internet gateway";
    warn(&dead, &place_of(&dead, "203.0.113.9"), message);
    let detached = with("secondary_ips: { ip: 10.0.1.10, eip: 203.0.113.9 }")
        .replace("    internet_gateway: igw\n", "")
        .replace("via: igw", "via: blackhole");
    let message = "instance `a` asks for public addresses, but VPC `main` has no internet gateway";
    refused(&detached, "203.0.113.9", message);
}

#[test]
fn vpc_15_subnets_lie_in_their_vpc() {
    let with = |cidr: &str| {
        format!("lab: x\nvpcs:\n  main: {{ cidr: 10.0.0.0/16, subnets: {{ a: {{ cidr: {cidr} }} }} }}\n")
    };
    refuse(&with("10.1.0.0/24"), "3:52", "subnet `a` (10.1.0.0/24) is outside VPC `main` (10.0.0.0/16)");
    refuse(&with("10.0.1.0/29"), "3:52", "subnet `a` (10.0.1.0/29) is too small");
    refuse(&with("10.0.1.1/24"), "3:52", "subnet `a` (10.0.1.1/24) has host bits");
    read(&with("10.0.0.0/16"));
}

#[test]
fn vpc_16_reserved_addresses() {
    let with = |ip: &str| lab(&format!("    instances:\n      a: {{ subnet: public, ip: {ip} }}\n"));
    for (ip, why) in [
        ("10.0.1.0", "the network address"),
        ("10.0.1.1", "the VPC router"),
        ("10.0.1.2", "the DNS server"),
        ("10.0.1.3", "future use"),
        ("10.0.1.255", "the last address of the subnet"),
    ] {
        let said =
            refuse(&with(ip), "15:32", &format!("{ip} is reserved in subnet `public` (10.0.1.0/24): {why}"));
        assert!(said.ends_with("help: use an address from 10.0.1.4 to 10.0.1.254."), "{said}");
    }
    refuse(
        &with("10.0.2.9"),
        "15:32",
        "instance `a` has 10.0.2.9, which is outside its subnet `public` (10.0.1.0/24)",
    );
    refuse(&with("10.0.1.256"), "15:32", "`10.0.1.256` is not an address");
    read(&with("10.0.1.4"));
}

#[test]
fn an_address_taken_twice() {
    let more = "    instances:\n      a: { subnet: public, ip: 10.0.1.9 }\n      b: { subnet: public, ip: 10.0.1.9 }\n";
    let said = refuse(&lab(more), "16:32", "10.0.1.9 is taken by instance `a`");
    assert!(said.contains("--> bad.yaml:15:32"), "{said}");
    let more = "    nat_gateways:\n      nat: { subnet: public, ip: 10.0.1.9, eip: 203.0.113.9 }\n    instances:\n      b: { subnet: public, ip: 10.0.1.9 }\n";
    refuse(&lab(more), "17:32", "10.0.1.9 is taken by NAT gateway `nat`");
}

#[test]
fn elastic_ips() {
    let with =
        |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public, eip: 203.0.113.9 }}\n{more}"));
    let said = refuse(
        &with("      b: { subnet: public, eip: 203.0.113.9 }\n"),
        "16:33",
        "203.0.113.9 is taken by instance `a`",
    );
    assert!(said.contains("--> bad.yaml:15:33"), "{said}");
    refuse(
        &with("    nat_gateways: { nat: { subnet: public, eip: 203.0.113.9 } }\n"),
        "15:33",
        "203.0.113.9 is taken by NAT gateway `nat`",
    );
    let host = "internet:\n  hosts:\n    h: { ip: 203.0.113.9 }\n";
    refuse(&with(host), "15:33", "203.0.113.9 is taken by internet host `h`");
    refuse(
        &with("      b: { subnet: public, eip: 10.0.1.9 }\n"),
        "16:33",
        "instance `b` has 10.0.1.9, a private address (RFC 1918)",
    );
    let closed = with("").replace("    internet_gateway: igw\n", "").replace("via: igw", "via: blackhole");
    refuse(
        &closed,
        "14:33",
        "instance `a` asks for public addresses, but VPC `main` has no internet gateway",
    );
}

#[test]
fn internet_hosts() {
    let with = |ip: &str| format!("lab: x\ninternet:\n  hosts:\n    h: {{ ip: {ip} }}\n");
    refuse(
        &with("192.168.1.1"),
        "4:14",
        "internet host `h` has 192.168.1.1, a private address (RFC 1918): it cannot be on the internet",
    );
    refuse(&with("100.64.0.1"), "4:14", "internet host `h` has 100.64.0.1, a shared address (RFC 6598)");
    refuse(&with("224.0.0.1"), "4:14", "internet host `h` has 224.0.0.1, a multicast address");
    read(&with("198.51.100.10"));
    let twice = "lab: x\ninternet:\n  hosts:\n    a: { ip: 198.51.100.1 }\n    b: { ip: 198.51.100.1 }\n";
    refuse(twice, "5:14", "198.51.100.1 is taken by internet host `a`");
}

#[test]
fn automatic_addresses_fill_the_gaps() {
    let model = read(&lab("    instances:
      a: { subnet: public, public_ip: true }
      b: { subnet: public, ip: 10.0.1.4 }
      c: { subnet: private }
internet: { public_pool: 198.51.100.0/30, hosts: { h: { ip: 198.51.100.1 } } }
"));
    let [a, b, c] = model.vpcs[0].instances.as_slice() else { panic!() };
    assert!(model.vpcs[0].subnets[0].cidr.contains(&a.ip) && a.ip != b.ip);
    assert!(model.vpcs[0].subnets[1].cidr.contains(&c.ip));
    let public = a.public.unwrap();
    assert_eq!((public.ip, public.kind), (IpAddr::from([198, 51, 100, 2]), PublicAddressKind::Automatic));
    assert_eq!(b.public, None);
}

#[test]
fn a_subnet_that_gives_public_addresses() {
    let text =
        lab("    instances:\n      a: { subnet: public }\n      b: { subnet: public, public_ip: false }\n")
            .replace("route_table: out", "route_table: out, public_ip: true");
    let model = read(&text);
    let [a, b] = model.vpcs[0].instances.as_slice() else { panic!() };
    assert!("203.0.113.128/25".parse::<IpNet>().unwrap().contains(&a.public.unwrap().ip));
    assert_eq!(b.public, None);
}

#[test]
fn a_full_subnet_is_an_error() {
    let mut text = String::from(
        "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/28\n    subnets: { s: { cidr: 10.0.0.0/28 } }\n    instances:\n",
    );
    for number in 0..12 {
        text += &format!("      i{number}: {{ subnet: s }}\n");
    }
    refuse(&text, "18:22", "subnet `s` (10.0.0.0/28) has no address left for instance `i11`");
}

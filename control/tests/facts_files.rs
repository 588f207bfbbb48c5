//! Facts about what a file may say, one by one: sizes, names, defaults, references.

use localvpc::model::{Model, Namespaces, Peer, PublicAddressKind, Target, Vpc};
use localvpc_api::tables::{Action, SourceDestCheck, Traffic};
use std::net::IpAddr;

/// A VPC with a public and a private subnet, and `more` of it.
fn lab(more: &str) -> String {
    format!(
        "\
lab: facts
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public:  {{ cidr: 10.0.1.0/24, route_table: out }}
      private: {{ cidr: 10.0.2.0/24 }}
    route_tables:
      out: [ {{ to: 0.0.0.0/0, via: igw }} ]
{more}"
    )
}

/// The only VPC of a file that is right.
#[track_caller]
fn vpc(text: &str) -> Vpc {
    match Model::read("facts.yaml", text) {
        Ok((mut model, _)) => model.vpcs.remove(0),
        Err(errors) => panic!("{errors}\n\n{text}"),
    }
}

/// Requires that the file is refused, with these words among what is said.
#[track_caller]
fn refused(text: &str, words: &str) {
    let Err(errors) = Model::read("facts.yaml", text) else { panic!("accepted:\n{text}") };
    let said = errors.refusal();
    assert!(said.contains(words), "`{words}` is not in:\n{said}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn vpc_3_ranges_that_no_vpc_may_use() {
    for range in ["0.0.0.0/16", "127.1.0.0/16", "169.254.0.0/16", "224.0.0.0/20", "239.255.0.0/16"] {
        refused(&format!("lab: x\nvpcs: {{ a: {{ cidr: {range} }} }}\n"), "which no VPC can use");
    }
    vpc("lab: x\nvpcs: { a: { cidr: 169.253.0.0/16 } }\n");
}

#[test]
fn vpc_4_host_bits_are_an_error_with_the_network_named() {
    refused("lab: x\nvpcs: { a: { cidr: 100.68.0.18/18 } }\n", "the network is 100.68.0.0/18");
    refused(&lab("").replace("10.0.1.0/24", "10.0.1.7/24"), "the network is 10.0.1.0/24");
    refused(&lab("").replace("to: 0.0.0.0/0", "to: 192.168.1.1/16"), "192.168.0.0/16");
}

#[test]
fn vpc_12_ipv6_is_refused_and_not_ignored() {
    refused("lab: x\nvpcs: { a: { cidr: 10.0.0.0/16, cidrs: [\"2001:db8::/56\"] } }\n", "not supported yet");
}

#[test]
fn vpc_13_sg_4_nacl_6_what_a_new_vpc_has() {
    let vpc = vpc("lab: x\nvpcs: { a: { cidr: 10.0.0.0/16 } }\n");
    let main = vpc.route_table(&vpc.main_route_table).expect("VPC-13: a main route table");
    assert_eq!((main.routes.len(), &main.routes[0].target), (1, &Target::Local));
    let acl = vpc.network_acl("default").expect("a default network ACL");
    for entries in [&acl.inbound, &acl.outbound] {
        let [entry] = entries.as_slice() else { panic!("NACL-6: one entry, {entries:?}") };
        assert_eq!((entry.number, entry.action, entry.traffic), (100, Action::Allow, Traffic::All));
        assert_eq!(entry.cidr.to_string(), "0.0.0.0/0");
    }
    let group = vpc.security_group("default").expect("a default security group");
    assert_eq!(group.inbound.len(), 1);
    assert_eq!(group.inbound[0].peer, Peer::SecurityGroup("default".into()), "SG-4");
    assert_eq!(group.outbound.len(), 1);
}

#[test]
fn vpc_14_vpc_20_vpc_22_public_is_what_has_a_route_and_nothing_else() {
    let bare = vpc(
        "lab: x\nvpcs: { a: { cidr: 10.0.0.0/16, subnets: { s: { cidr: 10.0.1.0/24 } }, instances: { i: { subnet: s } } } }\n",
    );
    assert_eq!(bare.internet_gateway, None, "VPC-14");
    assert!(!bare.is_public(&bare.subnets[0]));
    assert_eq!((bare.subnets[0].public_ip, bare.instances[0].public), (false, None), "VPC-22");
    let built = vpc(&lab("    instances: { a: { subnet: public } }\n"));
    let public = |name: &str| built.is_public(built.subnet(name).expect("a subnet"));
    assert!(public("public") && !public("private"), "VPC-20");
    assert_eq!(built.instances[0].public, None, "VPC-22: not by itself in a public subnet either");
}

#[test]
fn vpc_19_a_subnet_has_all_but_five_of_its_addresses() {
    let with = |count: usize| {
        let mut text = String::from(
            "lab: x\nvpcs:\n  a:\n    cidr: 10.0.0.0/28\n    subnets: { s: { cidr: 10.0.0.0/28 } }\n    instances:\n",
        );
        (0..count).for_each(|number| text += &format!("      i{number}: {{ subnet: s }}\n"));
        text
    };
    assert_eq!(vpc(&with(11)).instances.len(), 11, "VPC-19: 16 - 5");
    refused(&with(12), "has no address left");
}

#[test]
fn vpc_21_nacl_1_rt_3_every_subnet_has_one_table_and_one_acl() {
    let text = lab("    network_acls: { own: {} }\n")
        .replace("private: { cidr: 10.0.2.0/24 }", "private: { cidr: 10.0.2.0/24 }\n      third: { cidr: 10.0.3.0/24, route_table: out, network_acl: own }");
    let vpc = vpc(&text);
    let of = |name: &str| {
        let subnet = vpc.subnet(name).expect("a subnet");
        (subnet.route_table.as_str(), subnet.network_acl.as_str())
    };
    assert_eq!(of("public"), ("out", "default"), "NACL-1");
    assert_eq!(of("private"), ("main", "default"), "VPC-21: implicitly");
    assert_eq!(of("third"), ("out", "own"), "RT-3: one table serves many subnets");
    assert!(vpc.network_acl("own").is_some_and(|acl| acl.inbound.is_empty() && acl.outbound.is_empty()));
    assert!(vpc.subnets.iter().all(|subnet| subnet.namespaces == Namespaces::PerInstance));
    refused(&text.replace("route_table: out, network_acl: own", "route_table: [out, main]"), "expected");
}

#[test]
fn rt_1_the_main_table_governs_those_that_name_none() {
    let before = vpc(&lab(""));
    let after = vpc(&lab("    main_route_table: out\n"));
    let table = |vpc: &Vpc, name: &str| vpc.subnet(name).expect("a subnet").route_table.clone();
    assert_eq!((table(&before, "private"), table(&after, "private")), ("main".into(), "out".into()), "RT-1");
    assert_eq!(table(&after, "public"), "out");
}

#[test]
fn rt_2_rt_5_a_table_begins_with_the_local_routes() {
    let text = lab("").replace("out: [ { to: 0.0.0.0/0, via: igw } ]", "out: []");
    let vpc = vpc(&text.replace("cidr: 10.0.0.0/16\n", "cidr: 10.0.0.0/16\n    cidrs: [10.1.0.0/16]\n"));
    let routes = &vpc.route_table("out").expect("a table").routes;
    let all: Vec<_> = routes.iter().map(|route| (route.destination.to_string(), &route.target)).collect();
    let local = |cidr: &str| (cidr.to_owned(), &Target::Local);
    assert_eq!(all, [local("10.0.0.0/16"), local("10.1.0.0/16")], "RT-2, RT-5, VPC-6");
}

#[test]
fn rt_5_local_may_lead_elsewhere() {
    let fw = "    instances: { fw: { subnet: public, source_dest_check: false } }\n";
    let replaced = lab(fw).replace("via: igw }", "via: igw }, { to: 10.0.0.0/16, via: fw }");
    let routes = &vpc(&replaced).route_table("out").expect("a table").routes.clone();
    let local = routes.iter().find(|route| route.destination.to_string() == "10.0.0.0/16");
    assert_eq!(local.map(|route| &route.target), Some(&Target::Instance("fw".into())), "RT-5, RT-9");
    assert_eq!(routes.len(), 2, "it takes the local route's place");
}

#[test]
fn rt_15_rt_16_one_destination_one_target_once() {
    let with = |route: &str| lab("").replace("{ to: 0.0.0.0/0, via: igw }", route);
    refused(&with("{ to: 0.0.0.0/0, via: [igw, blackhole] }"), "expected");
    refused(&with("{ to: 0.0.0.0/0 }"), "a route needs the key `via`");
    refused(&with("{ via: igw }"), "a route needs the key `to`");
    refused(
        &with("{ to: 0.0.0.0/0, via: igw }, { to: 0.0.0.0/0, via: blackhole }"),
        "two routes to 0.0.0.0/0",
    );
}

#[test]
fn rt_9_vpc_31_destinations_that_no_route_may_have() {
    let with = |route: &str| lab("").replace("{ to: 0.0.0.0/0, via: igw }", route);
    refused(&with("{ to: 10.0.2.0/25, via: blackhole }"), "is not the CIDR of a subnet");
    refused(&with("{ to: 10.0.2.0/24, via: igw }"), "cannot lead to the internet gateway");
    refused(&with("{ to: 169.254.168.0/22, via: igw }"), "169.254.168.0/22");
    refused(&with("{ to: 169.254.171.0/24, via: igw }"), "169.254.168.0/22");
    vpc(&with("{ to: 169.254.0.0/16, via: igw }"));
}

#[test]
fn rt_17_a_written_blackhole_and_nati_4_an_instance_that_is_not_there() {
    let with = |via: &str| lab("").replace("via: igw", &format!("via: {via}"));
    let routes = &vpc(&with("blackhole")).route_table("out").expect("a table").routes.clone();
    assert!(routes.iter().any(|route| route.target == Target::Blackhole), "RT-17");
    refused(&with("nat-instance"), "the route leads to `nat-instance`, which is not defined");
    let more = "    instances: { nat-instance: { subnet: public, source_dest_check: false } }\n";
    let routes = vpc(&(with("nat-instance") + more)).route_table("out").expect("a table").routes.clone();
    assert!(routes.iter().any(|route| route.target == Target::Instance("nat-instance".into())), "NATI-4");
}

#[test]
fn igw_18_eip_11_public_addresses_need_a_gateway() {
    let text = lab("    instances: { a: { subnet: public, eip: 203.0.113.9 } }\n");
    assert_eq!(vpc(&text).instances[0].public.map(|it| it.ip), Some(ip("203.0.113.9")));
    let detached = text.replace("    internet_gateway: igw\n", "").replace("via: igw", "via: blackhole");
    refused(&detached, "VPC `main` has no internet gateway");
}

#[test]
fn eip_1_eip_2_public_addresses_by_subnet_or_by_instance() {
    let more = "    instances:\n      a: { subnet: public }\n      b: { subnet: public, public_ip: false }\n      c: { subnet: private, public_ip: true }\n";
    let text = lab(more).replace("route_table: out }", "route_table: out, public_ip: true }");
    let vpc = vpc(&text);
    let [a, b, c] = vpc.instances.as_slice() else { panic!("three instances") };
    for instance in [a, c] {
        let public = instance.public.expect("EIP-1: from the pool");
        assert_eq!(public.kind, PublicAddressKind::Automatic);
        assert!(public.ip.to_string().starts_with("203.0.113."));
    }
    assert_eq!(b.public, None, "EIP-2: an instance may refuse");
    assert_ne!(a.public.map(|it| it.ip), c.public.map(|it| it.ip));
}

#[test]
fn eip_6_eip_8_an_elastic_ip_is_one_instances_and_stays() {
    let with =
        |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public, eip: 203.0.113.9 }}\n{more}"));
    for text in [with(""), with("      b: { subnet: public }\n")] {
        let public = vpc(&text).instances[0].public.expect("EIP-6: as written, whoever else comes");
        assert_eq!((public.ip, public.kind), (ip("203.0.113.9"), PublicAddressKind::Elastic));
    }
    refused(&with("      b: { subnet: public, eip: 203.0.113.9 }\n"), "203.0.113.9 is taken by instance `a`");
}

#[test]
fn eip_15_natgw_1_natgw_2_a_public_nat_gateway_has_an_eip_and_a_gateway() {
    let with = |nat: &str| lab(&format!("    nat_gateways: {{ nat: {nat} }}\n"));
    refused(&with("{ subnet: public }"), "NAT gateway `nat` needs an `eip`");
    refused(
        &with("{ subnet: public, eip: 203.0.113.9, connectivity: private }"),
        "cannot have an Elastic IP",
    );
    let private = vpc(&with("{ subnet: private, connectivity: private }"));
    assert_eq!(private.nat_gateways[0].addresses[0].public, None, "NATGW-1");
    let detached = with("{ subnet: public, eip: 203.0.113.9 }")
        .replace("    internet_gateway: igw\n", "")
        .replace("via: igw", "via: blackhole");
    refused(&detached, "has no internet gateway");
}

#[test]
fn eni_1_an_interface_and_what_belongs_to_it() {
    let more = "    security_groups: { a: {}, b: {} }
    instances:
      i: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.9, security_groups: [a, b], source_dest_check: false, tracking: { udp: 40s } }
      j: { subnet: public, ip: 10.0.1.11 }
";
    let vpc = vpc(&lab(more));
    let [i, j] = vpc.instances.as_slice() else { panic!("two instances") };
    assert_eq!((i.ip, i.public.map(|it| it.ip)), (ip("10.0.1.10"), Some(ip("203.0.113.9"))), "ENI-1");
    assert_eq!(i.security_groups, ["a", "b"]);
    assert_eq!(
        (i.source_dest_check, j.source_dest_check),
        (SourceDestCheck::Disabled, SourceDestCheck::Enabled)
    );
    assert_eq!((i.tracking.udp_ms, j.tracking.udp_ms), (40_000, 30_000), "SG-37: per interface");
    assert_ne!(i.eni_id, j.eni_id);
}

#[test]
fn sg_3_a_new_group_lets_nothing_in_and_everything_out() {
    let vpc = vpc(&lab("    security_groups: { new: {}, closed: { outbound: [] } }\n"));
    let group = vpc.security_group("new").expect("a group");
    assert!(group.inbound.is_empty(), "SG-3");
    let [rule] = group.outbound.as_slice() else { panic!("one rule, {:?}", group.outbound) };
    assert_eq!(rule.traffic, Traffic::All);
    assert!(matches!(rule.peer, Peer::Cidr(cidr) if cidr.prefix_len() == 0));
    assert!(vpc.security_group("closed").is_some_and(|group| group.outbound.is_empty()));
}

#[test]
fn sg_6_sg_11_names_and_references_of_groups() {
    refused(&lab("    security_groups: { sg-1: {} }\n"), "a security group cannot be called `sg-1`");
    refused(&lab("    security_groups: { \"two words\": {} }\n"), "is not a name");
    let with = |more: &str| {
        lab(&format!("    security_groups: {{ a: {{ inbound: [ {{ tcp: 80, from: b }} ] }}{more} }}\n"))
    };
    vpc(&with(", b: {}"));
    refused(&with(""), "security group `b` is not defined");
    let text = lab("    instances: { i: { subnet: public, security_groups: gone } }\n");
    // SG-28: existence is all that is asked of a reference.
    refused(&text, "security group `gone` is not defined");
}

#[test]
fn sg_7_sg_10_what_a_rule_says_and_says_once() {
    let with = |rules: &str| lab(&format!("    security_groups: {{ a: {{ inbound: [ {rules} ] }} }}\n"));
    let all = "{ tcp: 80-90, from: 10.0.0.0/8, description: web }, { udp: all, from: self }, { icmp: { type: 3, code: 4 }, from: default }, { protocol: 50, from: 192.0.2.0/24 }, { all: true, from: self }";
    let vpc = vpc(&with(all));
    let rules = &vpc.security_group("a").expect("a group").inbound;
    let traffic: Vec<_> = rules.iter().map(|rule| format!("{:?}", rule.traffic)).collect();
    assert_eq!(rules.len(), 5, "SG-7: {traffic:?}");
    assert_eq!(rules[0].description, "web");
    refused(&with("{ tcp: 80, from: self }, { tcp: [79, 80], from: self }"), "has this rule twice");
}

#[test]
fn nacl_3_nacl_11_nacl_18_numbers_and_ends_of_entries() {
    let with = |entries: &str| lab(&format!("    network_acls: {{ x: {{ inbound: [ {entries} ] }} }}\n"));
    let entry = |number: u32, from: &str| format!("{{ rule: {number}, allow: all, from: {from} }}");
    for number in [0, 32_767, 65_535] {
        refused(&with(&entry(number, "0.0.0.0/0")), "out of range");
    }
    refused(&with(&entry(1, "default")), "is not a CIDR");
    refused(
        &with(&format!("{}, {}", entry(7, "0.0.0.0/0"), entry(7, "10.0.0.0/8"))),
        "two inbound entries with number 7",
    );
    assert_eq!(
        vpc(&with(&entry(32_766, "0.0.0.0/0"))).network_acl("x").map(|acl| acl.inbound.len()),
        Some(1)
    );
}

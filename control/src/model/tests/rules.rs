//! Route tables, network ACLs and security groups.

use super::*;

#[test]
fn routes() {
    let with = |route: &str| lab("").replace("{ to: 0.0.0.0/0, via: igw }", route);
    let said = refuse(
        &with("{ to: 0.0.0.0/0, via: ig }"),
        "10:36",
        "the route leads to `ig`, which is not defined in VPC `main`",
    );
    assert!(said.ends_with("help: did you mean `igw`?"), "{said}");
    let said = refuse(&with("{ to: 0.0.0.0/0, via: nat-a }"), "10:36", "the route leads to `nat-a`");
    assert!(said.contains("in VPC `main` a route can lead to `igw`, or `blackhole`"), "{said}");
    let said = refuse(
        &with("{ to: 0.0.0.0/0, via: igw }, { to: 0.0.0.0/0, via: blackhole }"),
        "10:49",
        "route table `out` has two routes to 0.0.0.0/0",
    );
    assert!(said.contains("note: the first one"), "{said}");
    refuse(&with("{ to: 0.0.0.1/0, via: igw }"), "10:20", "destination 0.0.0.1/0 has host bits");
    // RT-9
    refuse(
        &with("{ to: 10.0.2.0/25, via: igw }"),
        "10:38",
        "10.0.2.0/25 is inside VPC `main`, so it cannot lead to the internet gateway",
    );
    refuse(
        &with("{ to: 10.0.2.0/25, via: blackhole }"),
        "10:20",
        "10.0.2.0/25 is inside VPC `main` but is not the CIDR of a subnet",
    );
    refuse(
        &with("{ to: 10.9.0.0/16, via: local }"),
        "10:38",
        "10.9.0.0/16 is not a CIDR of VPC `main`, so it cannot be `local`",
    );
    // VPC-31
    refuse(&with("{ to: 169.254.169.0/24, via: igw }"), "10:20", "169.254.169.0/24 is in 169.254.168.0/22");
}

#[test]
fn main_route_table() {
    let model = read(&lab(""));
    assert_eq!(model.vpcs[0].subnets[1].route_table, "main");
    assert_eq!(model.vpcs[0].route_table("main").unwrap().routes.len(), 1, "the local route");
    let promoted = read(&lab("    main_route_table: out\n"));
    assert_eq!(promoted.vpcs[0].subnets[1].route_table, "out");
    let record = lab("").replace(
        "out: [ { to: 0.0.0.0/0, via: igw } ]",
        "out: { main: true, routes: [ { to: 0.0.0.0/0, via: igw } ] }",
    );
    assert_eq!(read(&record).vpcs[0].subnets[1].route_table, "out");
    let both = format!("{record}    main_route_table: main\n");
    refuse(&both, "10:20", "route tables `main` and `out` cannot both be the main one");
    refuse(&lab("    main_route_table: ou\n"), "14:23", "route table `ou` is not defined in VPC `main`");
}

#[test]
fn a_rule_that_names_an_instance() {
    let text = lab("    instances:\n      front: { subnet: public }\n")
        .replace("web: {}", "web: { inbound: [ { tcp: 80, from: front } ] }");
    refuse(&text, "12:42", "`front` is an instance; a rule names a security group or a CIDR");
}

#[test]
fn nacl_2_rule_numbers() {
    let with = |entries: &str| lab(&format!("    network_acls:\n      x: {{ inbound: [ {entries} ] }}\n"));
    let entry = |number: u32| format!("{{ rule: {number}, allow: all, from: 0.0.0.0/0 }}");
    refuse(&with(&entry(0)), "15:31", "rule number 0 is out of range");
    refuse(&with(&entry(32767)), "15:31", "rule number 32767 is out of range");
    read(&with(&format!("{}, {}", entry(1), entry(32766))));
    let said = refuse(
        &with(&format!("{}, {}", entry(100), entry(100))),
        "15:75",
        "network ACL `x` has two inbound entries with number 100",
    );
    assert!(said.contains("101 is free"), "{said}");
    let model = read(&with(&format!("{}, {}", entry(200), entry(100))));
    let numbers: Vec<u16> =
        model.vpcs[0].network_acl("x").unwrap().inbound.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [100, 200], "ascending, whatever the order of the file");
}

#[test]
fn network_acl_entries() {
    let with = |entry: &str| lab(&format!("    network_acls:\n      x: {{ inbound: [ {{ {entry} }} ] }}\n"));
    refuse(&with("rule: 1, from: 0.0.0.0/0"), "15:23", "the entry neither allows nor denies");
    refuse(&with("rule: 1, allow: all, deny: all, from: 0.0.0.0/0"), "15:52", "the entry allows and denies");
    refuse(
        &with("rule: 1, allow: tcp, ports: 2000-1000, from: 0.0.0.0/0"),
        "15:53",
        "`2000-1000` is not a port or a range of ports",
    );
    refuse(
        &with("rule: 1, allow: icmp, ports: 80, from: 0.0.0.0/0"),
        "15:54",
        "ports go with tcp and udp only",
    );
    refuse(
        &with("rule: 1, allow: tcp, type: echo-reply, from: 0.0.0.0/0"),
        "15:52",
        "`type` and `code` go with icmp only",
    );
    refuse(&with("rule: 1, allow: icmp, code: 1, from: 0.0.0.0/0"), "15:53", "an ICMP code needs a type");
    refuse(&with("rule: 1, allow: all, to: 0.0.0.0/0"), "15:50", "an inbound entry takes `from`, not `to`");
    refuse(&with("rule: 1, allow: all"), "15:23", "the entry has no `from`");
    refuse(&with("rule: 1, allow: tpc, from: 0.0.0.0/0"), "15:41", "`tpc` is not a protocol");
    refuse(&with("rule: 1, allow: all, from: 10.0.0.1/8"), "15:52", "range 10.0.0.1/8 has host bits");
}

#[test]
fn security_group_rules() {
    let with = |rule: &str| lab("").replace("web: {}", &format!("web: {{ inbound: [ {{ {rule} }} ] }}"));
    refuse(&with("from: 0.0.0.0/0"), "12:25", "the rule names no protocol");
    refuse(&with("tcp: 80"), "12:25", "the rule has no `from`");
    refuse(&with("tcp: 80, to: 0.0.0.0/0"), "12:40", "an inbound rule takes `from`, not `to`");
    refuse(&with("tcp: 70000, from: self"), "12:32", "`70000` is not a port or a range of ports");
    refuse(&with("tcp: 80, all: true, from: self"), "12:41", "`all` admits every protocol");
    refuse(&with("icmp: pong, from: self"), "12:33", "`pong` is not an ICMP type");
    refuse(&with("icmp: { type: all, code: 3 }, from: self"), "12:52", "an ICMP code needs a type");
    let said = refuse(
        &with("tcp: 80, from: 10.0.0.1"),
        "12:42",
        "`10.0.0.1` is not a CIDR, a security group or `self`",
    );
    assert!(said.contains("10.0.0.1/32"), "{said}");
    refuse(&with("tcp: [80, 80], from: self"), "12:25", "security group `web` has this rule twice");
    let model = read(&with("tcp: [80, 8000-8080], udp: 53, from: [self, default]"));
    assert_eq!(model.vpcs[0].security_group("web").unwrap().inbound.len(), 6);
}

#[test]
fn sg_3_sg_4_defaults_of_groups() {
    let model = read(&lab("    instances:\n      a: { subnet: public }\n"));
    let vpc = &model.vpcs[0];
    let outbound = |name: &str| vpc.security_group(name).unwrap().outbound.clone();
    assert_eq!(outbound("web").len(), 1, "everything out");
    assert_eq!(outbound("web"), outbound("default"));
    assert_eq!(vpc.security_group("default").unwrap().inbound[0].peer, Peer::SecurityGroup("default".into()));
    assert_eq!(vpc.instances[0].security_groups, ["default"]);
    let closed = read(&lab("").replace("web: {}", "web: { outbound: [] }"));
    assert_eq!(closed.vpcs[0].security_group("web").unwrap().outbound, []);
}

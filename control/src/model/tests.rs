//! Files and what is said about them: every case of bad input, with its line.

use super::*;
use crate::config::Severity;

/// A VPC with a public and a private subnet; `{more}` is put into it, at line 14.
fn lab(more: &str) -> String {
    format!(
        "\
lab: bad
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public:  {{ cidr: 10.0.1.0/24, route_table: out }}
      private: {{ cidr: 10.0.2.0/24 }}
    route_tables:
      out: [ {{ to: 0.0.0.0/0, via: igw }} ]
    security_groups:
      web: {{}}
    # what is tested:
{more}"
    )
}

fn read(text: &str) -> Model {
    Model::read("bad.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n\n{text}")).0
}

/// Asserts that a file is refused with an error of this message at this place.
#[track_caller]
fn refuse(text: &str, at: &str, message: &str) -> String {
    let Err(errors) = Model::read("bad.yaml", text) else { panic!("accepted:\n{text}") };
    let wanted = (format!("error: {message}"), format!("--> bad.yaml:{at}\n"));
    let rendered = errors.rendered();
    let found = rendered.iter().find(|one| one.contains(&wanted.0) && one.contains(&wanted.1));
    let Some(found) = found else { panic!("expected {message:?} at {at}, got\n\n{}", errors.render()) };
    assert!(errors.refusal().ends_with("Nothing was changed."));
    found.clone()
}

/// Line and column of the last `word` in a text.
fn place_of(text: &str, word: &str) -> String {
    let before = &text[..text.rfind(word).expect("the word is there")];
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("{}:{}", before.lines().count(), line.len() + 1)
}

/// Asserts that a file is accepted with a warning of this message at this place.
#[track_caller]
fn warn(text: &str, at: &str, message: &str) -> Model {
    let (model, warnings) =
        Model::read("bad.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n\n{text}"));
    let rendered = warnings.render();
    assert!(rendered.starts_with("warning[") && rendered.contains(&format!("]: {message}")), "{rendered}");
    assert!(rendered.contains(&format!("--> bad.yaml:{at}\n")), "{rendered}");
    model
}

#[test]
fn overlapping_subnets_are_shown_as_in_the_design() {
    let text = "\
lab: broken
vpcs:
  main:
    cidr: 10.0.0.0/16
    # two tiers
    subnets:
      db:        { cidr: 10.0.3.0/24 }

      private-a: { cidr: 10.0.2.0/23, network_acl: default }
";
    let errors = Model::read("broken.yaml", text).unwrap_err();
    assert_eq!(
        errors.refusal(),
        "\
error: subnet `private-a` (10.0.2.0/23) overlaps subnet `db` (10.0.3.0/24)
 --> broken.yaml:9:26
  |
9 |       private-a: { cidr: 10.0.2.0/23, network_acl: default }
  |                          ^^^^^^^^^^^
note: subnet `db` is here
 --> broken.yaml:7:26
  |
7 |       db:        { cidr: 10.0.3.0/24 }
  |                          ^^^^^^^^^^^
help: 10.0.2.0/24 would fit. Nothing was changed."
    );
    let view = errors.error_view();
    assert_eq!(view.kind, "invalid_config");
    let position = crate::view::Position { file: "broken.yaml".into(), line: 9, column: 26 };
    assert_eq!(view.positions, [position]);
}

#[test]
fn all_errors_are_shown_at_once_in_the_order_of_the_file() {
    let text = lab(
        "    nat_gateways:\n      nat: { subnet: pubic, eip: 10.1.1.1, color: red }\n    instances:\n      a: { subnet: private, ip: 10.0.1.9 }\n",
    );
    let errors = Model::read("bad.yaml", &text).unwrap_err();
    let lines: Vec<u32> = errors.list().iter().map(|one| one.span.line).collect();
    assert_eq!(lines, [15, 15, 15, 17], "{errors}");
    assert!(errors.refusal().ends_with("4 errors. Nothing was changed."));
}

#[test]
fn syntax() {
    refuse("lab: x\nvpcs: { main: [\n", "2:15", "this is not YAML");
    refuse("lab: x\n\tvpcs: {}\n", "2:1", "this line is indented with a tab");
}

#[test]
fn unknown_keys_suggest_the_nearest() {
    let said = refuse(&lab("    subnet: {}\n"), "14:5", "unknown key `subnet` in a VPC");
    assert!(said.ends_with("help: did you mean `subnets`?"), "{said}");
    let said = refuse(&lab("    zone: a\n"), "14:5", "unknown key `zone` in a VPC");
    assert!(said.contains("a VPC has the keys `cidr`, `cidrs`, `internet_gateway`"), "{said}");
}

#[test]
fn missing_keys_and_wrong_kinds() {
    refuse("vpcs: {}\n", "1:1", "a lab needs the key `lab`");
    refuse(
        &lab("    instances:\n      a: { ip: 10.0.1.9 }\n"),
        "15:10",
        "an instance needs the key `subnet`",
    );
    refuse(&lab("    instances:\n      a:\n"), "15:7", "an instance needs the key `subnet`");
    refuse(&lab("    instances: [a]\n"), "14:16", "expected names with what they stand for, found a list");
    refuse(&lab("    network_acls: { x: { inbound: all } }\n"), "14:35", "expected a list, found `all`");
}

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
fn eni_13_fragments_of_an_instance() {
    let with = |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public{more} }}\n"));
    let of = |model: &Model| model.vpcs[0].instances[0].fragments_per_second;
    assert_eq!((of(&read(&with(""))), of(&read(&with(", fragments_per_second: 9")))), (1024, 9));
    refuse(&with(", fragments_per_second: many"), "15:50", "`many` is not a number");
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
fn undefined_references() {
    let text = lab("").replace("route_table: out", "route_table: ot, network_acl: x");
    let said = refuse(&text, "7:50", "route table `ot` is not defined in VPC `main`");
    assert!(said.ends_with("help: did you mean `out`?"), "{said}");
    refuse(&text, "7:67", "network ACL `x` is not defined in VPC `main`");
    let with = |instance: &str| lab(&format!("    instances:\n      a: {instance}\n"));
    refuse(&with("{ subnet: publik }"), "15:20", "subnet `publik` is not defined in VPC `main`");
    let said = refuse(
        &with("{ subnet: public, security_groups: [wep] }"),
        "15:46",
        "security group `wep` is not defined in VPC `main`",
    );
    assert!(said.ends_with("help: did you mean `web`?"), "{said}");
    let groups = lab("").replace("web: {}", "web: { inbound: [ { tcp: 80, from: front } ] }");
    refuse(&groups, "12:42", "security group `front` is not defined in VPC `main`");
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
fn names() {
    let with = |name: &str| lab(&format!("    instances:\n      {name}: {{ subnet: public }}\n"));
    let said = refuse(&with("Web_1"), "15:7", "`Web_1` is not a name");
    assert!(said.contains("`web-1`"), "{said}");
    refuse(&with("-a"), "15:7", "`-a` is not a name");
    refuse(&with(&"a".repeat(64)), "15:7", &format!("`{}` is not a name", "a".repeat(64)));
    refuse(&with("internet"), "15:7", "an instance cannot be called `internet`");
    refuse(&with("blackhole"), "15:7", "an instance cannot be called `blackhole`");
    refuse(&with("igw"), "15:7", "the name `igw` is taken by the internet gateway of VPC `main`");
    let host = "internet: { hosts: { a: { ip: 198.51.100.1 } } }\n";
    refuse(&format!("{}{host}", with("a")), "15:7", "the name `a` is taken by an internet host");
    for lab in ["My Lab", "a_b", "a.b", "-a", &"a".repeat(49)] {
        let said = refuse(&format!("lab: {lab}\n"), "1:6", &format!("`{lab}` is not a name for a lab"));
        assert!(said.contains("at most 48"), "{said}");
        assert!(crate::host::RunDir::of(lab).is_err(), "one rule");
    }
    refuse(&with("control"), "15:7", "an instance cannot be called `control`");
    refuse(
        "lab: x\ninternet: { hosts: { dataplane: { ip: 198.51.100.1 } } }\n",
        "2:22",
        "an internet host cannot be called `dataplane`",
    );
    let twice = format!(
        "{}  other:\n    cidr: 10.0.0.0/16\n    subnets: {{ s: {{ cidr: 10.0.0.0/24 }} }}\n    instances: {{ a: {{ subnet: s }} }}\n",
        with("a")
    );
    refuse(&twice, "19:18", "the name `a` is taken by an instance");
}

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
fn sg_39_most_connections_of_an_instance() {
    let with = |more: &str| {
        lab(&format!("    instances:\n      a: {{ subnet: public, max_connections: {more} }}\n"))
    };
    assert_eq!(read(&with("76957")).vpcs[0].instances[0].max_connections, 76_957);
    assert_eq!(read(&with("~")).vpcs[0].instances[0].max_connections, 262_144);
    refuse(&with("0"), "15:45", "`max_connections` is zero");
    refuse(&with("-1"), "15:45", "`-1` is not a number");
    refuse(&with("lots"), "15:45", "`lots` is not a number");
}

#[test]
fn offload_is_as_the_instance_says_or_its_subnet() {
    use localvpc_api::message::Offload;
    let with = |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public{more} }}\n"));
    let offload = |text: &str| read(text).vpcs[0].instances[0].offload;
    assert_eq!(offload(&with("")), Offload::VirtioHeader);
    assert_eq!(offload(&with(", offload: off")), Offload::Off);
    let bare = |more| with(more).replace("10.0.1.0/24,", "10.0.1.0/24, offload: off,");
    assert_eq!(offload(&bare("")), Offload::Off);
    assert_eq!(offload(&bare(", offload: on")), Offload::VirtioHeader);
    refuse(&with(", offload: maybe"), "15:37", "`maybe` is not whether a device has offloads");
    let shared = bare(", offload: on").replace("offload: off,", "offload: off, namespace: shared,");
    let said = refuse(&shared, "15:37", "instance `a` has no device of its own: subnet `public` is shared");
    assert!(said.contains("write `offload` on subnet `public`"), "{said}");
    assert_eq!(read(&lab("")).internet_offload, Offload::VirtioHeader);
    assert_eq!(read(&(lab("") + "internet: { offload: off }\n")).internet_offload, Offload::Off);
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

#[test]
fn timers_outside_awss_range_are_a_warning() {
    let nat = lab("    nat_gateways:\n      nat: { subnet: public, eip: 203.0.113.9, idle_timeout: 5s }\n");
    let model = warn(&nat, "15:62", "`idle_timeout` is 5 s; AWS always uses 350 s");
    assert_eq!(model.vpcs[0].nat_gateways[0].idle_timeout_ms, 5_000);
    let tracking =
        lab("    instances:\n      a: { subnet: public, tracking: { tcp_established: 10s, udp: 30s } }\n");
    let model = warn(&tracking, "15:57", "`tcp_established` is 10 s; AWS takes 60 s to 5 d");
    assert_eq!(model.vpcs[0].instances[0].tracking.tcp_established_ms, 10_000);
    assert_eq!(model.vpcs[0].instances[0].tracking.udp_stream_ms, 180_000);
    let other = lab("    instances:\n      a: { subnet: public, tracking: { other: 5s } }\n");
    let model = warn(&other, "15:47", "`other` is 5 s; AWS always uses 600 s");
    assert_eq!(model.vpcs[0].instances[0].tracking.other_ms, 5_000, "SG-30");
    refuse(&nat.replace("5s", "0s"), "15:62", "`idle_timeout` is zero");
    let said = refuse(&nat.replace("5s", "5"), "15:62", "`5` is not a time");
    assert!(said.contains("`5s`"), "{said}");
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

#[test]
fn attached_namespaces() {
    let with =
        |attach: &str| lab(&format!("    instances:\n      a: {{ subnet: public, attach: {attach} }}\n"));
    assert_eq!(read(&with("box")).vpcs[0].instances[0].attach, Some("/run/netns/box".into()));
    refuse(&with("/etc/passwd"), "15:36", "`/etc/passwd` is not a network namespace");
    refuse(
        &format!("{}      b: {{ subnet: public, attach: box }}\n", with("box")),
        "16:36",
        "instance `a` attaches to this namespace already",
    );
    let own = format!("{}      b: {{ subnet: public }}\n", with("bad-b"));
    refuse(&own, "15:36", "instance `a` attaches to the namespace that this lab makes for `b`");
    refuse(
        &with("bad-internet"),
        "15:36",
        "instance `a` attaches to the namespace that this lab makes for `internet`",
    );
    read(&with("bad-a"));
    let shared = with("box").replace("route_table: out", "route_table: out, namespace: shared");
    refuse(&shared, "15:36", "instance `a` is in a shared subnet, so it has no namespace to attach");
}

#[test]
fn expectations_name_what_exists() {
    let with = |from: &str, to: &str, more: &str| {
        let expect = format!("{{ from: {from}, to: {to}, protocol: tcp, port: 80, reachable: false{more} }}");
        lab(&format!(
            "    nat_gateways: {{ nat: {{ subnet: public, eip: 203.0.113.9 }} }}\n    instances:\n      app: {{ subnet: public }}\ninternet: {{ hosts: {{ h: {{ ip: 198.51.100.1 }} }} }}\nexpect:\n  - {expect}\n"
        ))
    };
    for (from, to, more) in [
        ("app", "h", ", via: [nat, igw], because: NO_ROUTE_TO_DESTINATION"),
        ("internet", "main/app", ""),
        ("10.0.1.9", "nat", ""),
        ("nat", "h", ""),
        ("igw", "app", ", because: SG_REFERENCES_NOT_PRESERVED"),
    ] {
        let (_, notes) =
            Model::read("bad.yaml", &with(from, to, more)).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(notes.rendered().is_empty(), "{}", notes.render());
    }
    let said =
        refuse(&with("ap", "h", ""), "19:13", "the file expects something of `ap`, which is not in it");
    assert!(said.ends_with("help: did you mean `app`?"), "{said}");
    refuse(&with("app", "nowhere", ""), "19:22", "the file expects something of `nowhere`");
    let elsewhere = with("app", "h", ", because: TGW_RTB_CANNOT_ROUTE");
    refuse(
        &elsewhere,
        "19:77",
        "`TGW_RTB_CANNOT_ROUTE` cannot be the reason here: there are no transit gateways yet",
    );
    let portless = with("app", "h", "").replace("port: 80, ", "");
    refuse(&portless, "19:35", "this expects nothing in particular without `port:`");
    let icmp = with("app", "h", "").replace("protocol: tcp", "protocol: icmp");
    refuse(&icmp, "19:47", "only tcp and udp have ports");
    refuse(&with("app", "h", ", via: iwg"), "19:73", "the file expects something of `iwg`");
    let because = with("app", "h", ", because: NO_ROUTE_TO_DESTINATON");
    let said = refuse(&because, "19:77", "`NO_ROUTE_TO_DESTINATON` is not the code of a reason");
    assert!(said.ends_with("help: did you mean `NO_ROUTE_TO_DESTINATION`?"), "{said}");
}

#[test]
fn the_same_warning_is_shown_once() {
    let text = lab("    instances:\n      fw: { subnet: public }\n").replace(
        "via: igw } ]",
        "via: igw }, { to: 192.168.0.0/16, via: fw }, { to: 172.16.0.0/16, via: fw } ]",
    );
    let (_, warnings) = Model::read("bad.yaml", &text).unwrap();
    let [one] = &warnings.rendered()[..] else { panic!("{}", warnings.render()) };
    assert!(one.contains("note: the same in one more place"), "{one}");
}

#[test]
fn the_labs_in_configs_are_without_warnings() {
    for (path, text) in [
        ("two-tier.yaml", include_str!("../../../configs/two-tier.yaml")),
        ("peers.yaml", include_str!("../../../configs/peers.yaml")),
        ("shared.yaml", include_str!("../../../configs/shared.yaml")),
    ] {
        let (model, warnings) = Model::read(path, text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(warnings.list().iter().all(|one| one.severity == Severity::Note), "{}", warnings.render());
        assert_eq!(format!("{}.yaml", model.lab), path);
        assert!(!model.expectations.is_empty());
    }
}

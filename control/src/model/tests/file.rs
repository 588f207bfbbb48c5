//! The file as a whole: how errors are shown, names, expectations.

use super::*;

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
        ("two-tier.yaml", include_str!("../../../../configs/two-tier.yaml")),
        ("peers.yaml", include_str!("../../../../configs/peers.yaml")),
        ("shared.yaml", include_str!("../../../../configs/shared.yaml")),
    ] {
        let (model, warnings) = Model::read(path, text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(warnings.list().iter().all(|one| one.severity == Severity::Note), "{}", warnings.render());
        assert_eq!(format!("{}.yaml", model.lab), path);
        assert!(!model.expectations.is_empty());
    }
}

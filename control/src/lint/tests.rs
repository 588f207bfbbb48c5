//! Every check finds what its case has, exactly where, and nothing in the fixed twin.
//!
//! `cases/ID.yaml` has it; comments like `#    ^^^ ID` below a line say what is found there. `cases/ID.fixed.yaml`
//! is the same, repaired.

use super::catalog::LINTS;
use super::*;
use crate::config::{Span, parse};

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test] fn $name() { case(&stringify!($name).replace('_', "-")); })*

        #[test]
        fn every_check_has_a_case() {
            let cases = [$(stringify!($name).replace('_', "-")),*];
            for lint in LINTS {
                assert!(cases.iter().any(|case| case == lint.id), "{} has no case", lint.id);
            }
        }
    };
}

cases! {
    nat_gateway_without_way_out route_to_nat_gateway_without_way_out private_nat_gateway_to_internet
    nat_gateway_replies_blocked route_to_deleted_nat_gateway route_to_instance_that_does_not_forward
    public_address_without_route internet_host_hidden network_acl_entry_shadowed network_acl_blocks_replies
    expectations_contradict network_acl_entry_redundant network_acl_entry_for_own_subnet range_nobody_has
    route_blackhole route_never_chosen security_group_rule_without_members security_group_rule_contained
    everything_open_to_the_world admin_port_open_to_the_world database_port_open_to_the_world
    instance_admits_nothing served_port_not_admitted instance_without_public_address unused_security_group
    unused_network_acl unused_route_table unused_nat_gateway unused_internet_gateway expectation_repeated
    beyond_quota timeout_beyond_aws allowance_unknown allowance_unused
}

#[track_caller]
fn case(id: &str) {
    let (path, text) = read(&format!("{id}.yaml"));
    let report = look(&path, &text);
    let mut found: Vec<(Span, &str)> =
        report.findings.list().iter().map(|one| (one.span, one.id.unwrap_or(""))).collect();
    let mut expected = marked(&text);
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "\n{}", report.findings.render());
    assert!(expected.iter().any(|(_, other)| *other == id), "{path} does not have {id}");
    for one in report.findings.list() {
        assert!(one.reason.is_some() && one.help.is_some(), "{one:?}");
    }

    let (path, text) = read(&format!("{id}.fixed.yaml"));
    let report = look(&path, &text);
    assert!(report.findings.is_empty(), "{}", report.findings.render());
}

/// What stands in `configs/` is right, or says itself what is wrong on purpose.
#[test]
fn the_labs_of_this_project_are_clean() {
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let files = std::fs::read_dir(configs).unwrap().map(|entry| entry.unwrap().path());
    let mut labs = 0;
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
        labs += 1;
        let report = look(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
        assert!(report.findings.is_empty(), "{}", report.findings.render());
    }
    assert!(labs >= 3, "{configs} has labs");
}

#[test]
fn an_allowance_silences_one_finding_on_one_line() {
    let two = "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n    route_tables:\n      a: []\n      b: []\n";
    let ids = |text: &str| -> Vec<(u32, &'static str)> {
        look("x.yaml", text).findings.list().iter().map(|one| (one.span.line, one.id.unwrap())).collect()
    };
    let id = "unused-route-table";
    assert_eq!(ids(two), [(6, id), (7, id)]);
    assert_eq!(ids(&two.replace("a: []", &format!("a: []  # lint: allow {id}, because"))), [(7, id)]);
    assert_eq!(ids(&two.replace("      b", &format!("      # lint: allow {id}\n      b"))), [(6, id)]);
    assert_eq!(
        ids(&two.replace("b: []", "b: []  # lint: allow route-blackhole"))[2],
        (7, "allowance-unused")
    );
}

/// What is advised against a deny comes before it, and then the finding is gone.
#[test]
fn replies_that_are_denied_are_allowed_before() {
    let deny = "{ rule: 110, deny: tcp, ports: all, to: 10.0.1.0/24 }";
    let text = format!(
        "\
lab: x
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets:
      a: {{ cidr: 10.0.1.0/24 }}
      b: {{ cidr: 10.0.2.0/24, network_acl: narrow }}
    network_acls:
      narrow:
        inbound: [ {{ rule: 100, allow: tcp, ports: 80, from: 0.0.0.0/0 }} ]
        outbound: [ {{ rule: 100, allow: tcp, ports: 32768-49151, to: 0.0.0.0/0 }}, {deny} ]
    security_groups:
      web: {{ inbound: [ {{ tcp: 80, from: 0.0.0.0/0 }} ] }}
    instances:
      one: {{ subnet: a, ip: 10.0.1.10 }}
      two: {{ subnet: b, ip: 10.0.2.10, security_groups: [web] }}
"
    );
    let report = look("x.yaml", &text);
    let [finding] = report.findings.list() else { panic!("{}", report.findings.render()) };
    assert_eq!(finding.id, Some("network-acl-blocks-replies"));
    let advised = "{ rule: 109, allow: tcp, ports: 1024-65535, to: 10.0.1.0/24 }";
    assert_eq!(finding.help, Some(format!("add `{advised}` to its outbound entries.")));
    let report = look("x.yaml", &text.replace(deny, &format!("{advised}, {deny}")));
    let left: Vec<_> = report.findings.list().iter().map(|one| one.id).collect();
    assert!(!left.contains(&finding.id), "{}", report.findings.render());
}

/// What a file allows is not warned of by `up` and `validate` either; other places of the same still are.
#[test]
fn an_allowance_silences_a_warning_of_the_model() {
    let text = std::fs::read_to_string(read("route-to-deleted-nat-gateway.yaml").0).unwrap();
    let twice =
        text.replace("public:  [ { to: 0.0.0.0/0, via: igw } ]", "public:  [ { to: 0.0.0.0/0, via: nat } ]");
    let warned = |text: &str| {
        let (_, warnings) = Model::read("x.yaml", text).unwrap();
        warnings.list().iter().map(|one| (one.span.line, one.also.len())).collect::<Vec<_>>()
    };
    let allow = "  # lint: allow route-to-deleted-nat-gateway\n";
    assert_eq!(warned(&twice), [(10, 1)]);
    assert_eq!(warned(&twice.replacen(" ]\n", &format!(" ]{allow}"), 1)), [(11, 0)]);
    assert_eq!(warned(&twice.replace(" ]\n", &format!(" ]{allow}"))), []);
}

fn read(name: &str) -> (String, String) {
    let path = format!("{}/src/lint/cases/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    (path, text)
}

#[track_caller]
fn look(path: &str, text: &str) -> Report {
    let document = parse(path, text).unwrap_or_else(|errors| panic!("{errors}"));
    check(&document).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What the comments below the lines of a case say.
fn marked(text: &str) -> Vec<(Span, &str)> {
    let mut marks = Vec::new();
    let mut line = 0;
    for (number, content) in (1..).zip(text.lines()) {
        let mark =
            content.trim_start().strip_prefix('#').map(str::trim_start).filter(|it| it.starts_with('^'));
        match mark {
            None => line = number,
            Some(mark) => {
                let column = (content.len() - mark.len()) as u32 + 1;
                let (carets, id) = mark.split_once(' ').expect("an id behind the carets");
                marks.push((Span { line, column, width: carets.len() as u32 }, id));
            }
        }
    }
    marks
}

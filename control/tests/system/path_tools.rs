//! traceroute, mtr and tracepath: which hops they show, and which they do not.

use serde_json::Value;

use crate::harness::{Lab, behind_a_nat_gateway, edit, tell_always};

/// app is behind a NAT gateway; web takes TCP and UDP from everybody, which leaves them untracked (SG-32), but no ICMP.
const FILE: &str = behind_a_nat_gateway!(
    "    security_groups:
      app: {}
      web: { inbound: [ { tcp: all, from: 0.0.0.0/0 }, { udp: all, from: 0.0.0.0/0 } ] }
      open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      app: { subnet: private, ip: 10.0.2.20, security_groups: app }
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: web, run: localvpc serve 80 }
      open: { subnet: public, ip: 10.0.1.11, eip: 203.0.113.11, security_groups: open, run: localvpc serve 80 }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: localvpc serve 80 }
"
);

const NAT: &str = "10.0.1.100";
const EXAMPLE: &str = "198.51.100.10";
/// UDP to high ports, UDP to one port, ICMP, TCP.
const METHODS: [&str; 4] = ["", "-U -p 53", "-I", "-T -p 80"];

/// The lab; kernels that answer every probe.
#[track_caller]
fn up(file: &str) -> Option<Lab> {
    let lab = Lab::up(file)?;
    for who in ["app", "web", "open", "internet"] {
        tell_always(&lab.netns(who));
    }
    Some(lab)
}

/// Hops that traceroute shows, `*` for one that is silent.
#[track_caller]
fn traceroute(lab: &Lab, from: &str, arguments: &str) -> Vec<String> {
    let done = lab.exec(from, &format!("traceroute -n -q 1 -m 4 {arguments}")).ok();
    let hops = done.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    hops.map(str::to_owned).collect()
}

#[test]
fn natgw_20_pkt_1_pkt_2_traceroute_shows_the_nat_gateway_and_nothing_else() {
    let Some(lab) = up(FILE) else { return };
    for method in METHODS {
        let hops = |from, to| traceroute(&lab, from, &format!("-w 5 {method} {to}"));
        assert_eq!(hops("app", EXAMPLE), [NAT, EXAMPLE], "{method}");
        assert_eq!(hops("open", EXAMPLE), [EXAMPLE], "{method}");
        assert_eq!(hops("app", "10.0.1.11"), ["10.0.1.11"], "{method}, between subnets");
        assert_eq!(hops("internet", "203.0.113.11"), ["203.0.113.11"], "{method}, from outside");
    }
    // Nothing that is for the gateway itself is answered, whatever its TTL (NATGW-18).
    lab.discards("NGW_NO_CONNECTION", || {
        assert_eq!(traceroute(&lab, "internet", "-w 0.5 203.0.113.20"), ["*"; 4]);
    });
}

#[test]
fn natgw_20_pkt_1_pkt_2_mtr_shows_the_same_without_loss() {
    let Some(lab) = up(FILE) else { return };
    let ways = [
        ("app", EXAMPLE, vec![NAT, EXAMPLE]),
        ("open", EXAMPLE, vec![EXAMPLE]),
        ("app", "10.0.1.11", vec!["10.0.1.11"]),
    ];
    let runs: Vec<_> = ways
        .iter()
        .flat_map(|way| ["", "-u", "-T -P 80"].map(|method| (way, method)))
        .map(|((from, to, hops), method)| {
            // All at once: each waits a while for replies that are late.
            let running =
                lab.spawn(from, &format!("mtr --report --json -n -c 3 -i 0.1 -G 5 -m 4 {method} {to}"));
            (format!("{from} to {to} {method}"), hops, running)
        })
        .collect();
    for (way, hops, running) in runs {
        let done = running.end().ok();
        let report: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"));
        let hubs = report["report"]["hubs"].as_array().unwrap_or_else(|| panic!("no hubs: {done}"));
        let shown: Vec<&str> = hubs.iter().filter_map(|hub| hub["host"].as_str()).collect();
        assert_eq!(shown, *hops, "{way}");
        assert!(hubs.iter().all(|hub| hub["Loss%"] == 0.0 && hub["Snt"] == 3), "{way}: {done}");
    }
}

/// What tracepath says of each hop, and in the end.
#[track_caller]
fn tracepath(lab: &Lab, from: &str, to: &str) -> Vec<String> {
    let done = lab.exec(from, &format!("tracepath -n -m 4 {to}")).ok();
    let words = |line: &str| {
        let words = line.split_whitespace().filter(|word| !word.ends_with("ms") && *word != "asymm");
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = done.stdout.lines().map(words).collect();
    // It asks the first hop twice.
    lines.dedup();
    lines
}

#[test]
fn mtu_2_natgw_28_tracepath_finds_every_mtu_on_the_way() {
    let Some(lab) = up(FILE) else { return };
    assert_eq!(
        tracepath(&lab, "app", EXAMPLE),
        [
            "1?: [LOCALHOST] pmtu 9001",
            "1: 10.0.1.100",
            "2: 10.0.1.100 pmtu 8500",
            // Who says so at the internet gateway, AWS leaves open (MTU-3): the router of the NAT gateway's subnet does.
            "2: 10.0.1.1 pmtu 1500",
            "2: 198.51.100.10 reached",
            "Resume: pmtu 1500 hops 2 back 2",
        ]
    );
    assert_eq!(
        tracepath(&lab, "open", EXAMPLE),
        [
            "1?: [LOCALHOST] pmtu 9001",
            "1: 10.0.1.1 pmtu 1500",
            "1: 198.51.100.10 reached",
            "Resume: pmtu 1500 hops 1 back 1",
        ]
    );
    assert_eq!(
        tracepath(&lab, "app", "10.0.1.11"),
        ["1?: [LOCALHOST] pmtu 9001", "1: 10.0.1.11 reached", "Resume: pmtu 9001 hops 1 back 1"]
    );
}

#[test]
fn sg_41_sg_34_an_untracked_probe_needs_a_rule_for_the_error() {
    let Some(lab) = up(FILE) else { return };
    lab.discards("ENI_SG_RULES_MISMATCH", || {
        assert_eq!(traceroute(&lab, "web", "-w 0.5 198.51.100.10"), ["*"; 4]);
    });
    // ICMP is always tracked; and a SYN-ACK comes by the rule.
    assert_eq!(traceroute(&lab, "web", "-w 5 -I 198.51.100.10"), [EXAMPLE]);
    assert_eq!(traceroute(&lab, "web", "-w 5 -T -p 80 198.51.100.10"), [EXAMPLE]);
    // With one for ICMP, or without everything out, which makes UDP tracked (SG-36).
    let web = "web: { inbound: [ { tcp: all, from: 0.0.0.0/0 }, { udp: all, from: 0.0.0.0/0 }";
    for more in [", { icmp: all, from: 0.0.0.0/0 } ]", " ], outbound: [ { udp: all, to: 198.51.100.0/24 } ]"]
    {
        lab.apply(&edit(FILE, &format!("{web} ]"), &format!("{web}{more}"))).ok();
        assert_eq!(traceroute(&lab, "web", "-w 5 198.51.100.10"), [EXAMPLE], "{more}");
    }
}

#[test]
fn nacl_14_a_hop_shows_only_if_the_network_acl_lets_time_exceeded_in() {
    let guarded = edit(
        FILE,
        "route_table: private }\n    route_tables",
        "route_table: private, network_acl: guard }\n    route_tables",
    );
    let with = |more: &str| {
        let acl = format!(
            "    network_acls:
      guard:
        outbound: [ {{ rule: 100, allow: all, to: 0.0.0.0/0 }} ]
        inbound:
          - {{ rule: 100, allow: icmp, type: 3, from: 0.0.0.0/0 }}
{more}"
        );
        edit(&guarded, "    security_groups:\n", &format!("{acl}    security_groups:\n"))
    };
    let Some(lab) = up(&with("")) else { return };
    lab.discards("SUBNET_ACL_RESTRICTION", || {
        assert_eq!(traceroute(&lab, "app", "-w 5 198.51.100.10"), ["*", EXAMPLE]);
    });
    lab.apply(&with("          - { rule: 110, allow: icmp, type: 11, code: 0, from: 0.0.0.0/0 }\n")).ok();
    assert_eq!(traceroute(&lab, "app", "-w 5 198.51.100.10"), [NAT, EXAMPLE]);
}

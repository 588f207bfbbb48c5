//! Questions and their answers, walked by the real engine over the labs in `configs/`.

use std::fmt::Write as _;

use localvpc_api::Generation;
use localvpc_engine::Time;
use localvpc_engine::metrics::Metrics;
use localvpc_engine::state::{Limits, State};

use super::*;
use crate::lower::{IdRegistry, Lowered, lower};
use crate::model::Model;
use crate::view::{ErrorView, ExplainOutcome, ExplainRequest, Explanation};

const TWO_TIER: &str = include_str!("../../../configs/two-tier.yaml");
const PEERS: &str = include_str!("../../../configs/peers.yaml");
const SHARED: &str = include_str!("../../../configs/shared.yaml");

fn lowered(text: &str) -> Lowered {
    let (model, _) = Model::read("configs/lab.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    lower(&model, &mut IdRegistry::default(), Generation(1))
}

fn ask(text: &str, from: &str, to: &str, what: &str) -> Result<Explanation, ErrorView> {
    let (protocol, port) =
        what.split_once('/').map_or((what, None), |(protocol, port)| (protocol, port.parse().ok()));
    ask_of(&lowered(text), &ExplainRequest::new(from, to, protocol, port))
}

/// Analyses, and compares with what the engine says to the same packet.
fn ask_of(lab: &Lowered, request: &ExplainRequest) -> Result<Explanation, ErrorView> {
    let asked = resolve(&lab.index, request)?;
    let mut explanation = answer(&lab.index, &lab.tables, &asked);
    if let Some(trace) = &asked.trace {
        let tables = localvpc_engine::tables::build(&lab.tables, &Metrics::default()).unwrap();
        let state = State::new(Limits::default());
        let report = localvpc_engine::trace::trace(&tables, &state, trace, Time(1));
        compare(&lab.index, &mut explanation, &report);
        let said = explanation.dataplane.as_ref().unwrap();
        assert!(said.agrees, "{explanation:#?}\n{report:#?}");
    }
    Ok(explanation)
}

/// An explanation as lines: `place | component | decision | source`, a failing step with `!` in front.
fn lines(explanation: &Explanation) -> String {
    let mut out = format!("{} → {} {}\n", explanation.from, explanation.to, explanation.protocol);
    for (way, steps) in [("out", &explanation.forward), ("back", &explanation.back)] {
        for step in steps.iter().filter(|step| !step.pass || !step.beyond) {
            let sign = if step.pass { ' ' } else { '!' };
            let line = format!(
                "{way:4}{sign}{} | {} | {} | {}",
                step.place, step.component, step.decision, step.source
            );
            let _ = writeln!(out, "{}", line.trim_end_matches([' ', '|']));
        }
    }
    if let Some(code) = &explanation.code {
        let _ = writeln!(out, "{code}");
    }
    if let Some(advice) = &explanation.advice {
        let _ = writeln!(out, "{advice}");
    }
    out
}

#[track_caller]
fn expect(text: &str, (from, to, what): (&str, &str, &str), expected: &str) {
    let explanation = ask(text, from, to, what).unwrap_or_else(|error| panic!("{}", error.message));
    assert_eq!(lines(&explanation), expected);
    let blocked = explanation.code.is_some();
    assert_eq!(explanation.outcome == ExplainOutcome::Blocked, blocked);
}

#[track_caller]
fn refuse(text: &str, (from, to, what): (&str, &str, &str), message: &str) {
    let error = ask(text, from, to, what).unwrap_err();
    assert!(error.message.contains(message), "{}", error.message);
}

/// Even where a NAT gateway stands ready: it knows nothing of the connection.
#[test]
fn a_reply_to_the_internet_is_routed_to_where_the_packet_came_in() {
    let text = TWO_TIER.replace("[ { to: 0.0.0.0/0, via: nat-a } ]", "[]");
    assert_ne!(text, TWO_TIER);
    let advice = ask(&text, "internet", "app", "tcp/80").unwrap().advice.unwrap();
    assert!(advice.contains("Add `{ to: 0.0.0.0/0, via: igw }` to route table private."), "{advice}");
    let advice = ask(&text, "app", "internet", "tcp/443").unwrap().advice.unwrap();
    assert!(advice.contains("Add `{ to: 0.0.0.0/0, via: nat-a }` to route table private."), "{advice}");
}

/// RA-3: by way of a NAT gateway.
#[test]
fn walk_2_through_the_nat_gateway_and_back() {
    expect(
        TWO_TIER,
        ("app", "example", "tcp/443"),
        "\
app 10.0.2.20 → example 198.51.100.10:443 tcp
out  eni app | security group app out | all traffic | default
out  subnet private-a | network ACL app out | rule 110 allow tcp 443 | lab.yaml:49
out  subnet private-a | route table private | 0.0.0.0/0 → nat-a | lab.yaml:31
out  subnet public-a | network ACL default in | rule 100 allow all | default
out  nat-a | source | 10.0.2.20:* → 10.0.1.100:*
out  subnet public-a | network ACL default out | rule 100 allow all | default
out  subnet public-a | route table public | 0.0.0.0/0 → igw | lab.yaml:30
out  igw | source | 10.0.1.100 → 203.0.113.20
out  internet | host example | 198.51.100.10 | lab.yaml:71
back igw | destination | 203.0.113.20 → 10.0.1.100
back subnet public-a | network ACL default in | rule 100 allow all | default
back nat-a | destination | 10.0.1.100:* → 10.0.2.20:*
back subnet public-a | network ACL default out | rule 100 allow all | default
back subnet public-a | route table public | 10.0.0.0/16 → local | default
back subnet private-a | network ACL app in | rule 100 allow tcp 1024-65535 | lab.yaml:44
back eni app | connection in | tracked: no rule is consulted
",
    );
}

#[test]
fn walk_1_from_the_internet_to_a_public_instance() {
    expect(
        TWO_TIER,
        ("internet", "web", "tcp/80"),
        "\
internet → web 203.0.113.10:80 tcp
out  igw | destination | 203.0.113.10 → 10.0.1.10
out  subnet public-a | network ACL default in | rule 100 allow all | default
out  eni web | security group web in | tcp 80 from 0.0.0.0/0 (untracked) | lab.yaml:56
back eni web | security group web out | all traffic (untracked) | default
back subnet public-a | network ACL default out | rule 100 allow all | default
back subnet public-a | route table public | 0.0.0.0/0 → igw | lab.yaml:30
back igw | source | 10.0.1.10 → 203.0.113.10
back internet | any address
",
    );
}

#[test]
fn walk_4_a_private_instance_has_no_public_address() {
    expect(TWO_TIER, ("internet", "app", "tcp/22"), "\
internet → app 10.0.2.20:22 tcp
out !igw | app has no public address
out !subnet private-a | network ACL app in | rule * deny all | lab.yaml:41
out !eni app | security group app in | no rules for what enters it | lab.yaml:58
back!subnet private-a | network ACL app out | rule * deny all | lab.yaml:41
back!nat-a | source | a reply to nothing that went through it
IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS
To let it in, give app an `eip:` and route its subnet private-a to igw; to reach it from inside, go through a bastion.
Add `{ rule: 120, allow: tcp, ports: 22, from: 0.0.0.0/0 }` to the inbound entries of network ACL app (lab.yaml:41).
Add `{ tcp: 22, from: 0.0.0.0/0 }` to the inbound rules of security group app (lab.yaml:58).
Add `{ rule: 130, allow: tcp, ports: 1024-65535, to: 0.0.0.0/0 }` to the outbound entries of network ACL app (lab.yaml:41). Network ACLs keep no state, so replies need an entry of their own.
Replies must leave the way the packet came, by igw: nat-a knows nothing of the connection.
");
}

#[test]
fn walk_4_a_nat_gateway_lets_nothing_in() {
    expect(TWO_TIER, ("internet", "nat-a", "tcp/22"), "\
internet → nat-a 203.0.113.20:22 tcp
out  igw | destination | 203.0.113.20 → 10.0.1.100
out  subnet public-a | network ACL default in | rule 100 allow all | default
out !nat-a | destination | no connection: it lets nothing in that was not asked for
NGW_NO_CONNECTION
A NAT gateway only takes replies: to be reached, an instance needs an `eip:` of its own and a route to the internet gateway.
");
}

#[test]
fn a_security_group_admits_nobody_else() {
    expect(
        TWO_TIER,
        ("web", "db", "tcp/5432"),
        "\
web 10.0.1.10 → db 10.0.2.30:5432 tcp
out  eni web | security group web out | all traffic | default
out  subnet public-a | network ACL default out | rule 100 allow all | default
out  subnet public-a | route table public | 10.0.0.0/16 → local | default
out  subnet private-a | network ACL app in | rule 90 allow all | lab.yaml:43
out !eni db | security group db in | no rule admits tcp 5432 from 10.0.1.10 | lab.yaml:59
ENI_SG_RULES_MISMATCH
Add `{ tcp: 5432, from: web }` to the inbound rules of security group db (lab.yaml:59).
",
    );
}

#[test]
fn a_network_acl_that_has_no_entry() {
    expect(TWO_TIER, ("app", "example", "udp/53"), "\
app 10.0.2.20 → example 198.51.100.10:53 udp
out  eni app | security group app out | all traffic | default
out !subnet private-a | network ACL app out | rule * deny all | lab.yaml:41
back!subnet private-a | network ACL app in | rule * deny all | lab.yaml:41
SUBNET_ACL_RESTRICTION
Add `{ rule: 130, allow: udp, ports: 53, to: 198.51.100.10/32 }` to the outbound entries of network ACL app (lab.yaml:41).
Add `{ rule: 120, allow: udp, ports: 1024-65535, from: 198.51.100.10/32 }` to the inbound entries of network ACL app (lab.yaml:41). Network ACLs keep no state, so replies need an entry of their own.
");
}

#[test]
fn a_network_acl_that_denies_the_reply() {
    let text = TWO_TIER
        .replace("{ rule: 100, allow: tcp, ports: 1024-65535", "{ rule: 100, deny: tcp, ports: 1024-65535");
    expect(&text, ("app", "example", "tcp/443"), "\
app 10.0.2.20 → example 198.51.100.10:443 tcp
out  eni app | security group app out | all traffic | default
out  subnet private-a | network ACL app out | rule 110 allow tcp 443 | lab.yaml:49
out  subnet private-a | route table private | 0.0.0.0/0 → nat-a | lab.yaml:31
out  subnet public-a | network ACL default in | rule 100 allow all | default
out  nat-a | source | 10.0.2.20:* → 10.0.1.100:*
out  subnet public-a | network ACL default out | rule 100 allow all | default
out  subnet public-a | route table public | 0.0.0.0/0 → igw | lab.yaml:30
out  igw | source | 10.0.1.100 → 203.0.113.20
out  internet | host example | 198.51.100.10 | lab.yaml:71
back igw | destination | 203.0.113.20 → 10.0.1.100
back subnet public-a | network ACL default in | rule 100 allow all | default
back nat-a | destination | 10.0.1.100:* → 10.0.2.20:*
back subnet public-a | network ACL default out | rule 100 allow all | default
back subnet public-a | route table public | 10.0.0.0/16 → local | default
back!subnet private-a | network ACL app in | rule 100 deny tcp 1024-65535 | lab.yaml:44
SUBNET_ACL_RESTRICTION
Add `{ rule: 99, allow: tcp, ports: 1024-65535, from: 198.51.100.10/32 }` to the inbound entries of network ACL app (lab.yaml:41). Network ACLs keep no state, so replies need an entry of their own.
");
}

#[test]
fn ra_20_no_route() {
    let text = TWO_TIER.replace("private: [ { to: 0.0.0.0/0, via: nat-a } ]", "private: []");
    expect(
        &text,
        ("app", "example", "tcp/443"),
        "\
app 10.0.2.20 → example 198.51.100.10:443 tcp
out  eni app | security group app out | all traffic | default
out  subnet private-a | network ACL app out | rule 110 allow tcp 443 | lab.yaml:49
out !subnet private-a | route table private | no route to 198.51.100.10 | lab.yaml:31
NO_ROUTE_TO_DESTINATION
Add `{ to: 0.0.0.0/0, via: nat-a }` to route table private.
",
    );
}

#[test]
fn rt_17_a_deleted_nat_gateway_leaves_a_blackhole() {
    let text = TWO_TIER.replace("nat-a: {", "nat-a: { state: deleted,");
    assert_ne!(text, TWO_TIER);
    expect(
        &text,
        ("app", "example", "tcp/443"),
        "\
app 10.0.2.20 → example 198.51.100.10:443 tcp
out  eni app | security group app out | all traffic | default
out  subnet private-a | network ACL app out | rule 110 allow tcp 443 | lab.yaml:49
out !subnet private-a | route table private | 0.0.0.0/0 → nat-a (deleted) | lab.yaml:31
BAD_STATE_ROUTE
Let that route of table private lead to something that exists, or remove it.
",
    );
    refuse(&text, ("app", "nat-a", "tcp/443"), "NAT gateway `nat-a` is deleted: it has no address");
}

#[test]
fn natgw_4_a_private_nat_gateway_does_not_get_past_the_internet_gateway() {
    let written = TWO_TIER.lines().find(|line| line.contains("nat-a: {")).unwrap();
    let text =
        TWO_TIER.replace(written, "      nat-a: { subnet: public-a, ip: 10.0.1.100, connectivity: private }");
    expect(
        &text,
        ("app", "example", "tcp/443"),
        "\
app 10.0.2.20 → example 198.51.100.10:443 tcp
out  eni app | security group app out | all traffic | default
out  subnet private-a | network ACL app out | rule 110 allow tcp 443 | lab.yaml:49
out  subnet private-a | route table private | 0.0.0.0/0 → nat-a | lab.yaml:31
out  subnet public-a | network ACL default in | rule 100 allow all | default
out  nat-a | source | 10.0.2.20:* → 10.0.1.100:*
out  subnet public-a | network ACL default out | rule 100 allow all | default
out  subnet public-a | route table public | 0.0.0.0/0 → igw | lab.yaml:30
out !igw | source | 10.0.1.100 has no public address
IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS
NAT gateway nat-a is private: give it an `eip:` and leave `connectivity: private` out, or route the sender's subnet through a public one.
",
    );
}

#[test]
fn two_vpcs_with_the_same_addresses() {
    expect(
        PEERS,
        ("left", "right", "tcp/80"),
        "\
left 10.0.1.10 → right 203.0.113.12:80 tcp
out  eni left | security group web out | all traffic | default
out  subnet a/net | network ACL default out | rule 100 allow all | default
out  subnet a/net | route table out | 0.0.0.0/0 → igw | lab.yaml:18
out  a/igw | source | 10.0.1.10 → 203.0.113.11
out  b/igw | destination | 203.0.113.12 → 10.0.1.10
out  subnet b/net | network ACL default in | rule 100 allow all | default
out  eni right | security group web in | tcp 80 from 203.0.113.11/32 | lab.yaml:33
back eni right | connection out | tracked: no rule is consulted
back subnet b/net | network ACL default out | rule 100 allow all | default
back subnet b/net | route table out | 0.0.0.0/0 → igw | lab.yaml:31
back b/igw | source | 10.0.1.10 → 203.0.113.12
back a/igw | destination | 203.0.113.11 → 10.0.1.10
back subnet a/net | network ACL default in | rule 100 allow all | default
back eni left | connection in | tracked: no rule is consulted
",
    );
    refuse(
        PEERS,
        ("10.0.1.10", "right", "tcp/80"),
        "10.0.1.10 is the address of `left` and `right`, in different VPCs",
    );
}

#[test]
fn inside_a_shared_namespace_the_kernel_delivers() {
    expect(
        SHARED,
        ("worker-1", "stranger", "tcp/80"),
        "\
worker-1 10.20.1.11 → stranger 10.20.1.13:80 tcp
out  namespace workers | kernel | both addresses are in it, so no packet leaves it
Inside one namespace neither security groups nor network ACLs apply.
",
    );
    expect(
        SHARED,
        ("stranger", "store", "tcp/80"),
        "\
stranger 10.20.1.13 → store 10.20.2.94:80 tcp
out  eni stranger | security group default out | all traffic | default
out  subnet workers | network ACL default out | rule 100 allow all | default
out  subnet workers | route table main | 10.20.0.0/16 → local | default
out  subnet stores | network ACL default in | rule 100 allow all | default
out !eni store | security group store in | no rule admits tcp 80 from 10.20.1.13 | lab.yaml:21
ENI_SG_RULES_MISMATCH
Add `{ tcp: 80, from: 10.20.1.13/32 }` to the inbound rules of security group store (lab.yaml:21).
",
    );
}

/// `natbox` forwards what `app` sends out, and what `app` and `web` say to each other.
const NAT_INSTANCE: &str = "\
lab: box
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public: { cidr: 10.0.1.0/24, route_table: out }
      private: { cidr: 10.0.2.0/24, route_table: nat }
      other: { cidr: 10.0.3.0/24 }
    route_tables:
      out: [ { to: 0.0.0.0/0, via: igw } ]
      nat: [ { to: 0.0.0.0/0, via: natbox }, { to: 10.0.1.0/24, via: natbox } ]
    security_groups:
      any: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      natbox: { subnet: other, eip: 203.0.113.5, security_groups: any, source_dest_check: false }
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.6, security_groups: any }
      app: { subnet: private, ip: 10.0.2.20 }
internet: { hosts: { example: { ip: 198.51.100.10 } } }
";

#[test]
fn an_instance_that_forwards_is_not_the_destination() {
    for (to, what) in [("example", "tcp/443"), ("web", "icmp"), ("10.0.1.10", "udp/53")] {
        let explanation = ask(NAT_INSTANCE, "app", to, what).unwrap();
        assert_eq!(explanation.outcome, ExplainOutcome::Undecidable);
        assert_eq!((explanation.code.as_deref(), explanation.back.as_slice()), (None, &[][..]));
        let last = explanation.forward.last().unwrap();
        assert_eq!(
            last.decision, "natbox forwards it: what it does with the packet is its own affair",
            "{explanation:?}"
        );
        let advice = explanation.advice.unwrap();
        assert!(advice.ends_with(&format!("ask `localvpc explain natbox {to} {what}`.")), "{advice}");
    }
    let itself = ask(NAT_INSTANCE, "app", "natbox", "tcp/22").unwrap();
    assert_eq!(itself.outcome, ExplainOutcome::Reachable, "it is the destination here");
    let checked = NAT_INSTANCE.replace(", source_dest_check: false", "");
    let blocked = ask(&checked, "app", "example", "tcp/443").unwrap();
    assert_eq!(blocked.code.as_deref(), Some("ENI_SOURCE_DEST_CHECK_RESTRICTION"));
}

#[test]
fn a_reply_that_an_instance_forwards_is_not_followed_either() {
    let explanation = ask(NAT_INSTANCE, "web", "app", "tcp/80").unwrap();
    assert_eq!(explanation.outcome, ExplainOutcome::Blocked, "app admits nobody");
    let open = NAT_INSTANCE.replace("ip: 10.0.2.20 }", "ip: 10.0.2.20, security_groups: any }");
    let explanation = ask(&open, "web", "app", "tcp/80").unwrap();
    assert_eq!(explanation.outcome, ExplainOutcome::Undecidable, "{explanation:#?}");
    assert!(explanation.back.last().unwrap().decision.starts_with("natbox forwards it"));
    assert!(explanation.advice.unwrap().starts_with("The packet arrives. Its reply is routed to natbox"));
}

/// A route leads the reply to the very interface that has asked, but not as the reply to what it sent: it asked a public
/// address, and here comes a private one.
#[test]
fn sg_30_a_reply_under_another_address_belongs_to_no_connection() {
    let text = "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n    internet_gateway: igw\n    subnets:\n      \
        a: { cidr: 10.0.1.0/24, route_table: out }\n      b: { cidr: 10.0.2.0/24, route_table: back }\n    route_tables:\n      \
        out: [ { to: 0.0.0.0/0, via: igw } ]\n      back: [ { to: 0.0.0.0/0, via: asks } ]\n    security_groups:\n      none: {}\n      \
        open: { inbound: [ { udp: 53, from: 0.0.0.0/0 } ] }\n    instances:\n      \
        asks: { subnet: a, eip: 203.0.113.13, security_groups: none, source_dest_check: false }\n      \
        answers: { subnet: b, eip: 203.0.113.14, security_groups: open }\n";
    let explanation = ask(text, "asks", "203.0.113.14", "udp/53").unwrap();
    assert_eq!(explanation.outcome, ExplainOutcome::Blocked);
    assert_eq!(explanation.code.as_deref(), Some("SG_HAS_NO_RULES"));
    let stopped = explanation.back.iter().find(|step| !step.pass).unwrap();
    assert_eq!(stopped.place, "eni asks");
}

/// An instance is named by its name, which means its first address, or by any address that it has.
#[test]
fn eni_3_every_address_of_an_instance_sends_and_receives() {
    let lab = "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n    internet_gateway: igw\n    subnets:\n      \
        a: { cidr: 10.0.1.0/24, route_table: out }\n    route_tables:\n      out: [ { to: 0.0.0.0/0, via: igw } ]\n    security_groups:\n      \
        web: { inbound: [ { tcp: 80, from: 0.0.0.0/0 } ] }\n    instances:\n      \
        web: { subnet: a, ip: 10.0.1.10, secondary_ips: [10.0.1.11, { ip: 10.0.1.12, eip: 203.0.113.12 }], security_groups: web }\n      \
        other: { subnet: a, ip: 10.0.1.20 }\ninternet: { hosts: { example: { ip: 198.51.100.10 } } }\n";
    let said = |from: &str, to: &str| {
        let said = ask(lab, from, to, "tcp/80").unwrap();
        let ends = format!("{} → {}", said.from, said.to);
        let send = said.send.map(|send| format!("{} → {}", send.packet.source, send.packet.destination));
        (ends, said.code.unwrap_or_default(), send.unwrap_or_default())
    };
    let all = |ends: &str, code: &str, send: &str| (ends.to_owned(), code.to_owned(), send.to_owned());
    let example = "example 198.51.100.10:80";
    // As a sender: only the address with an Elastic IP gets out.
    for (from, code) in [
        ("web", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS"),
        ("10.0.1.11", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS"),
        ("main/10.0.1.11", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS"),
        ("10.0.1.12", ""),
        ("203.0.113.12", ""),
    ] {
        let own = if from == "web" { "10.0.1.10" } else { from.trim_start_matches("main/") };
        let own = own.replace("203.0.113.12", "10.0.1.12");
        let send = format!("{own} → 198.51.100.10");
        assert_eq!(said(from, "example"), all(&format!("web {own} → {example}"), code, &send));
    }
    // As a receiver.
    let other = "other 10.0.1.20";
    let send = "10.0.1.20 → 10.0.1.11";
    assert_eq!(said("other", "10.0.1.11"), all(&format!("{other} → web 10.0.1.11:80"), "", send));
    assert_eq!(said("other", "main/10.0.1.11"), all(&format!("{other} → web 10.0.1.11:80"), "", send));
    let from_outside = "198.51.100.10 → 203.0.113.12";
    let outside = "example 198.51.100.10";
    for word in ["web", "203.0.113.12", "main/10.0.1.12"] {
        assert_eq!(said("example", word), all(&format!("{outside} → web 203.0.113.12:80"), "", from_outside));
    }
    let nameless = said("example", "main/10.0.1.11");
    assert_eq!(nameless.1, "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS");
}

#[test]
fn why_no_packet_can_be_sent_is_told() {
    let why = |text: &str, from: &str, to: &str| ask(text, from, to, "tcp/80").unwrap().unsendable;
    let dev_prod = include_str!("../../../configs/scenarios/dev-prod.yaml");
    for (text, from, to, expected) in [
        (
            dev_prod,
            "dev-app",
            "prod-db",
            Some("dev-app knows no address of prod-db, which has no public one"),
        ),
        (TWO_TIER, "nat-a", "example", Some("nat-a is a NAT gateway, which sends nothing by itself")),
        (TWO_TIER, "8.8.8.8", "web", Some("no host of the lab's internet has 8.8.8.8")),
        (TWO_TIER, "web", "127.0.0.1", Some("none leaves the namespace, whose kernel delivers by itself")),
        (TWO_TIER, "web", "224.0.0.1", Some("nobody sends from such an address to 224.0.0.1")),
        (TWO_TIER, "internet", "app", None),
        (TWO_TIER, "web", "10.0.9.9", None),
    ] {
        assert_eq!(why(text, from, to).as_deref(), expected, "{from} → {to}");
    }
}

#[test]
fn vpc_16_addresses_that_nothing_can_have() {
    for (to, what) in [
        ("10.0.2.1", "10.0.2.1 is the VPC router of subnet private-a (10.0.2.0/24): it answers nothing."),
        (
            "10.0.2.2",
            "10.0.2.2 is the DNS server of subnet private-a (10.0.2.0/24), which is not implemented yet",
        ),
        ("10.0.1.3", "10.0.1.3 is reserved in subnet public-a (10.0.1.0/24): future use."),
        (
            "10.0.1.255",
            "10.0.1.255 is reserved in subnet public-a (10.0.1.0/24): the last address of the subnet.",
        ),
        ("10.0.9.9", "10.0.9.9 is in no subnet of VPC main"),
        ("169.254.169.254", "169.254.169.254 is a link-local address. Link-local services"),
        ("224.0.0.1", "224.0.0.1 is a multicast address"),
        ("255.255.255.255", "255.255.255.255 is the broadcast address"),
        ("192.168.1.1", "192.168.1.1 is a private address (RFC 1918): in VPC main nothing has it"),
        ("240.0.0.1", "240.0.0.1 is a reserved address: in VPC main nothing has it"),
    ] {
        let explanation = ask(TWO_TIER, "app", to, "tcp/443").unwrap();
        assert_eq!(explanation.outcome, ExplainOutcome::Blocked, "{to}");
        let advice = explanation.advice.unwrap();
        assert!(advice.starts_with(what), "{advice}");
    }
    let outside = ask(TWO_TIER, "internet", "10.0.1.10", "tcp/80").unwrap();
    let advice = outside.advice.unwrap();
    assert!(advice.starts_with("10.0.1.10 is an address of VPC main, which nobody outside"), "{advice}");
    let free = ask(TWO_TIER, "app", "10.0.2.99", "tcp/80").unwrap();
    assert_eq!(
        free.advice.as_deref(),
        Some("Give an instance the address 10.0.2.99; `localvpc ls` shows those in use.")
    );
}

#[test]
fn what_stays_in_the_namespace() {
    for (to, why) in [("127.0.0.1", "127.0.0.1 is a loopback address"), ("10.0.2.20", "its own address")] {
        let explanation = ask(TWO_TIER, "app", to, "tcp/80").unwrap();
        assert_eq!(explanation.outcome, ExplainOutcome::Reachable);
        assert!(explanation.forward[0].decision.contains(why), "{explanation:?}");
    }
}

#[test]
fn wrong_questions() {
    refuse(TWO_TIER, ("ap", "example", "tcp/80"), "`ap` is not in lab two-tier: did you mean `app`?");
    refuse(
        TWO_TIER,
        ("app", "nobody", "tcp/80"),
        "`nobody` is not in lab two-tier: there are `web`, `app`, `db`, `example`, `nat-a` and `igw`",
    );
    refuse(TWO_TIER, ("private-a", "example", "tcp/80"), "`private-a` is a subnet, which sends and receives");
    refuse(
        TWO_TIER,
        ("10.9.9.9", "example", "tcp/80"),
        "no instance or internet host has the address 10.9.9.9",
    );
    refuse(TWO_TIER, ("app", "example", "tcp"), "tcp needs a destination port");
    refuse(TWO_TIER, ("app", "example", "http"), "`http` is not a protocol");
    refuse(SHARED, ("internet", "store", "tcp/80"), "this lab has no internet");
}

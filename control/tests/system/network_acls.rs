//! Network ACLs: order, edges of subnets, no memory.

use crate::harness::{Capture, Lab, comes_back, echoes, edit, is_silent};

const RESTRICTION: &str = "SUBNET_ACL_RESTRICTION";

/// Two instances in one subnet, and one in another.
const TWO_SUBNETS: &str = "
lab: subnets
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets:
      left: { cidr: 10.0.1.0/24 }
      right: { cidr: 10.0.2.0/24, network_acl: guard }
    network_acls:
      guard:
        inbound:
          - { rule: 100, allow: tcp, ports: 80, from: 0.0.0.0/0 }
        outbound:
          - { rule: 100, allow: tcp, ports: 1024-65535, to: 0.0.0.0/0 }
    security_groups:
      open: { inbound: [ { all: true, from: 10.0.0.0/16 } ] }
    instances:
      client: { subnet: left, ip: 10.0.1.10, security_groups: open }
      server: { subnet: right, ip: 10.0.2.10, security_groups: open, run: localvpc serve 80 --echo }
      neighbour: { subnet: right, ip: 10.0.2.20, security_groups: open }
";

const INBOUND: &str = "- { rule: 100, allow: tcp, ports: 80, from: 0.0.0.0/0 }";
const OUTBOUND: &str = "- { rule: 100, allow: tcp, ports: 1024-65535, to: 0.0.0.0/0 }";

#[test]
fn nacl_2_the_lowest_number_that_matches_decides() {
    let Some(lab) = Lab::up(TWO_SUBNETS) else { return };
    let mut connection = lab.connect("client", "10.0.2.10:80");
    echoes(&mut connection);
    // What no rule admits is denied.
    lab.ping_is_cut("client", "10.0.2.10", RESTRICTION);

    let deny = |number: u32| {
        edit(
            TWO_SUBNETS,
            INBOUND,
            &format!("- {{ rule: {number}, deny: tcp, ports: 80, from: 10.0.1.10/32 }}\n          {INBOUND}"),
        )
    };
    lab.apply(&deny(101)).ok();
    echoes(&mut connection);
    // No memory: what is there is cut as well (NACL-16).
    lab.apply(&deny(99)).ok();
    lab.discards(RESTRICTION, || is_silent(&mut connection));
    lab.connect_is_cut("client", "10.0.2.10:80", RESTRICTION);
    // It was discarded, not answered: TCP sends it again, and goes on.
    lab.apply(TWO_SUBNETS).ok();
    comes_back(&mut connection);
}

#[test]
fn nacl_4_inside_a_subnet_no_network_acl_is_asked() {
    let closed = edit(&edit(TWO_SUBNETS, INBOUND, "[]"), OUTBOUND, "[]");
    let Some(lab) = Lab::up(&closed) else { return };
    echoes(&mut lab.connect("neighbour", "10.0.2.10:80"));
    lab.exec("neighbour", "ping -n -c 1 -W 10 10.0.2.10").ok();
    lab.connect_is_cut("client", "10.0.2.10:80", RESTRICTION);
    lab.ping_is_cut("neighbour", "10.0.1.10", RESTRICTION);
}

#[test]
fn nacl_5_replies_need_a_rule_of_their_own() {
    let mute = edit(TWO_SUBNETS, OUTBOUND, "- { rule: 100, allow: tcp, ports: 80, to: 0.0.0.0/0 }");
    let Some(lab) = Lab::up(&mute) else { return };
    let mut at_server = Capture::start(&lab, "server", "tcp port 80");
    lab.connect_is_cut("client", "10.0.2.10:80", RESTRICTION);
    at_server.packet("the request", |it| it.is_syn() && it.destination == "10.0.2.10:80");
    at_server.packet("the reply that is discarded", |it| it.source == "10.0.2.10:80");

    lab.apply(TWO_SUBNETS).ok();
    echoes(&mut lab.connect("client", "10.0.2.10:80"));
}

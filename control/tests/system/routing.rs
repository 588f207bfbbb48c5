//! Route tables, and VPCs beside each other.

use std::collections::BTreeSet;

use crate::harness::{Lab, edit};

/// `implicit` names no route table, `explicit` does.
const TABLES: &str = "
lab: tables
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      implicit: { cidr: 10.0.1.0/24 }
      explicit: { cidr: 10.0.2.0/24, route_table: public }
    route_tables:
      public:
        - { to: 0.0.0.0/0, via: igw }
    security_groups:
      open: { inbound: [ { all: true, from: 10.0.0.0/16 } ] }
    instances:
      one: { subnet: implicit, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: open }
      two: { subnet: explicit, ip: 10.0.2.10, eip: 203.0.113.11, security_groups: open }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: localvpc serve 80 }
    other: { ip: 198.51.100.11, run: localvpc serve 80 }
";

#[test]
fn rt_1_rt_3_a_subnet_without_a_table_of_its_own_uses_the_main_one() {
    let Some(lab) = Lab::up(TABLES) else { return };
    // The main table of a new VPC knows local routes only (VPC-13).
    lab.curl_is_cut("one", "http://198.51.100.10/", "NO_ROUTE_TO_DESTINATION");
    assert!(lab.curl("two", "http://198.51.100.10/").starts_with("you are 203.0.113.11:"));
    lab.exec("one", "ping -n -c 1 -W 10 10.0.2.10").ok();

    // Another table becomes the main one, and those who named none follow at once.
    let promoted =
        edit(TABLES, "internet_gateway: igw\n", "internet_gateway: igw\n    main_route_table: public\n");
    lab.apply(&promoted).ok();
    assert!(lab.curl("one", "http://198.51.100.10/").starts_with("you are 203.0.113.10:"));
}

#[test]
fn rt_7_rt_17_the_longest_prefix_wins_even_when_it_leads_nowhere() {
    let route = "- { to: 0.0.0.0/0, via: igw }";
    let holed =
        edit(TABLES, route, &format!("{route}\n        - {{ to: 198.51.100.11/32, via: blackhole }}"));
    let Some(lab) = Lab::up(&holed) else { return };
    lab.curl("two", "http://198.51.100.10/");
    lab.curl_is_cut("two", "http://198.51.100.11/", "BAD_STATE_ROUTE");
}

/// Two VPCs with the same addresses, and one address that only the second has.
const PEERS: &str = "
lab: peers
vpcs:
  a:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      net: { cidr: 10.0.1.0/24, route_table: out }
    route_tables:
      out: [ { to: 0.0.0.0/0, via: igw } ]
    security_groups:
      web: { inbound: [ { tcp: 80, from: 203.0.113.12/32 }, { icmp: all, from: 10.0.0.0/16 } ] }
    instances:
      left: { subnet: net, ip: 10.0.1.10, eip: 203.0.113.11, security_groups: [web], run: localvpc serve 80 }
  b:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      net: { cidr: 10.0.1.0/24, route_table: out }
    route_tables:
      out: [ { to: 0.0.0.0/0, via: igw } ]
    security_groups:
      web: { inbound: [ { tcp: 80, from: 203.0.113.11/32 }, { icmp: all, from: 10.0.0.0/16 } ] }
    instances:
      right: { subnet: net, ip: 10.0.1.10, eip: 203.0.113.12, security_groups: [web], run: localvpc serve 80 }
      hidden: { subnet: net, ip: 10.0.1.20, security_groups: [web] }
internet:
  hosts:
    stranger: { ip: 198.51.100.66 }
";

/// Inside and outside, so to speak, have the same addresses (RFC 4787 REQ-7).
#[test]
fn vpcs_with_the_same_addresses_meet_only_by_their_elastic_ips() {
    let Some(lab) = Lab::up(PEERS) else { return };
    assert!(lab.curl("left", "http://203.0.113.12/").starts_with("you are 203.0.113.11:"));
    assert!(lab.curl("right", "http://203.0.113.11/").starts_with("you are 203.0.113.12:"));
    assert!(
        lab.curl("left", "http://right/").starts_with("you are 203.0.113.11:"),
        "the name is the public address"
    );
    lab.curl_is_cut("internet", "http://203.0.113.12/", "ENI_SG_RULES_MISMATCH");

    // Within b that address is somebody, within a it is nobody.
    lab.exec("right", "ping -n -c 1 -W 10 10.0.1.20").ok();
    lab.ping_is_cut("left", "10.0.1.20", "NO_POSSIBLE_DESTINATION");
}

#[test]
fn igw_8_private_addresses_do_not_cross_an_internet_gateway() {
    let Some(lab) = Lab::up(TABLES) else { return };
    lab.curl_is_cut("two", "http://192.168.1.1/", "IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS");
    lab.curl_is_cut("two", "http://100.64.1.1/", "IGW_DESTINATION_ADDRESS_NOT_IN_RFC6598_EGRESS");
    lab.exec("internet", "ip address add 192.168.1.1/32 dev inet0").ok();
    lab.ping_is_cut("internet", "-I 192.168.1.1 203.0.113.11", "IGW_SOURCE_ADDRESS_NOT_IN_RFC1918_INGRESS");
    // A public address that nobody has.
    lab.curl_is_cut("two", "http://198.51.100.99/", "INTERNET_HOST_UNKNOWN");
    lab.curl_is_cut("internet", "http://203.0.113.99/", "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS");
}

#[test]
fn an_automatic_public_address_works_like_an_elastic_one() {
    let two = "ip: 10.0.2.10, eip: 203.0.113.11,";
    let Some(lab) = Lab::up(&edit(TABLES, two, "ip: 10.0.2.10, public_ip: true,")) else { return };
    let status = lab.status();
    let public = status.instances.iter().find(|it| it.name == "two").and_then(|it| it.public_ip);
    let public = public.expect("a public address").to_string();
    assert!(public.starts_with("203.0.113."), "{public}");
    assert!(lab.curl("two", "http://198.51.100.10/").starts_with(&format!("you are {public}:")));
}

#[test]
fn two_labs_with_the_same_addresses_run_side_by_side() {
    let (Some(one), Some(other)) = (Lab::up(PEERS), Lab::up(PEERS)) else { return };
    for lab in [&one, &other] {
        assert!(lab.curl("left", "http://203.0.113.12/").starts_with("you are 203.0.113.11:"));
    }
    // Not counters: the last packets of connections above may still be on their way.
    let tracked = |lab: &Lab| -> BTreeSet<String> {
        lab.connections().iter().map(|it| format!("{} {:?}", it.name, it.row.outbound)).collect()
    };
    let (here, before) = (tracked(&one), tracked(&other));
    one.curl("left", "http://203.0.113.12/");
    assert!(!tracked(&one).is_subset(&here) && tracked(&other).is_subset(&before), "{before:#?}");
    one.down();
    assert!(other.curl("right", "http://203.0.113.11/").starts_with("you are 203.0.113.12:"));
}

//! Interfaces with several addresses.

use crate::harness::{Lab, edit};

const SEVERAL: &str = "
lab: several
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      net: { cidr: 10.0.1.0/24, route_table: out }
    route_tables:
      out: [ { to: 0.0.0.0/0, via: igw } ]
    security_groups:
      web: { inbound: [ { tcp: 80, from: 0.0.0.0/0 } ] }
    instances:
      one: { subnet: net, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: web, secondary_ips: [ { ip: 10.0.1.12, eip: 203.0.113.12 }, 10.0.1.13 ], run: localvpc serve 80 --bind 0.0.0.0 }
      two: { subnet: net, ip: 10.0.1.20, eip: 203.0.113.20, security_groups: web, run: localvpc serve 80 --bind 0.0.0.0 }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: localvpc serve 80 }
";

#[test]
fn eni_3_eip_7_a_secondary_address_has_its_own_elastic_ip_and_moves() {
    let Some(lab) = Lab::up(SEVERAL) else { return };
    let seen = |who: &str, from: &str| lab.curl(who, &format!("--interface {from} http://198.51.100.10/"));
    assert!(lab.curl("one", "http://198.51.100.10/").starts_with("you are 203.0.113.10:"), "the primary one");
    assert!(seen("one", "10.0.1.12").starts_with("you are 203.0.113.12:"), "EIP-7");
    lab.curl_is_cut(
        "one",
        "--interface 10.0.1.13 http://198.51.100.10/",
        "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS",
    );
    for address in ["10.0.1.10", "10.0.1.12", "10.0.1.13"] {
        assert!(
            lab.curl("two", &format!("http://{address}/")).starts_with("you are 10.0.1.20:"),
            "{address}"
        );
    }
    assert!(lab.curl("example", "http://203.0.113.12/").starts_with("you are 198.51.100.10:"));

    // Each of them can be asked about, and packets prove it.
    for (question, exit_status) in [
        ("10.0.1.12 example tcp/80 --probe", 0),
        ("10.0.1.13 example tcp/80 --probe", 1),
        ("two 10.0.1.13 tcp/80 --probe", 0),
        ("example 203.0.113.12 tcp/80 --probe", 0),
        ("main/10.0.1.13 two tcp/80 --probe", 0),
    ] {
        assert_eq!(lab.explain(question, exit_status)["probe"]["agrees"], true, "{question}");
    }

    // ENI-3: it is given to the other interface, Elastic IP and all.
    let moved = edit(SEVERAL, "{ ip: 10.0.1.12, eip: 203.0.113.12 }, ", "");
    let moved = edit(
        &moved,
        "eip: 203.0.113.20,",
        "eip: 203.0.113.20, secondary_ips: { ip: 10.0.1.12, eip: 203.0.113.12 },",
    );
    lab.apply(&moved).ok();
    assert!(seen("two", "10.0.1.12").starts_with("you are 203.0.113.12:"));
    assert!(lab.curl("one", "http://10.0.1.12/").starts_with("you are 10.0.1.10:"));
    // curl: 45, the interface is not there.
    lab.exec("one", "curl -sS --interface 10.0.1.12 http://198.51.100.10/").exits(45);
}

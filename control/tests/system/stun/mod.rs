//! What a STUN client finds out about its NAT (RFC 5780): the NAT gateway maps and filters by address and port and does
//! not hairpin; an Elastic IP is one to one.

mod behaviour;
mod message;
mod server;

use crate::harness::{Lab, behind_a_nat_gateway, edit};
use behaviour::{Behaviour, Dependence, Hairpin, discover};
use server::Server;

/// app is behind a NAT gateway, web has an Elastic IP; everybody may send to either.
const FILE: &str = behind_a_nat_gateway!(
    "    security_groups:
      open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      app: { subnet: private, ip: 10.0.2.20, security_groups: open }
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: open }
internet:
  hosts:
    stun: { ip: 198.51.100.10 }
    alternate: { ip: 198.51.100.11 }
"
);

/// The lab, and a server on both addresses of its internet.
#[track_caller]
fn up(file: &str) -> Option<(Lab, Server)> {
    let lab = Lab::up(file)?;
    let server = lab.inside("internet", || Server::start(["198.51.100.10", "198.51.100.11"]));
    Some((lab, server))
}

#[test]
fn natgw_13_natgw_18_a_nat_gateway_depends_on_address_and_port_and_does_not_hairpin() {
    let Some((lab, server)) = up(FILE) else { return };
    let found = lab.inside("app", || discover("10.0.2.20:40000", server.primary()));
    assert_eq!(
        found,
        Behaviour {
            public: "203.0.113.20".parse().expect("an address"),
            port_kept: false,
            mapping: Dependence::AddressAndPort,
            filtering: Dependence::AddressAndPort,
            hairpin: Hairpin::No,
        }
    );
    assert!(lab.discarded("NGW_NO_CONNECTION") >= 3, "two filtered answers, and what should have come back");
}

#[test]
fn igw_3_igw_14_an_elastic_ip_is_one_to_one_and_reflects() {
    let Some((lab, server)) = up(FILE) else { return };
    let open = Behaviour {
        public: "203.0.113.10".parse().expect("an address"),
        port_kept: true,
        mapping: Dependence::None,
        filtering: Dependence::None,
        hairpin: Hairpin::As("203.0.113.10".parse().expect("an address")),
    };
    let found = lab.inside("web", || discover("10.0.1.10:40000", server.primary()));
    assert_eq!(found, open);
    assert!(lab.leases().is_empty() && lab.connections().is_empty(), "nothing is kept for that (IGW-13)");

    // Filtering is the security group's, which lets replies in and nothing else.
    lab.apply(&edit(FILE, "open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }", "open: { inbound: [] }"))
        .ok();
    let found = lab.inside("web", || discover("10.0.1.10:40001", server.primary()));
    assert_eq!(found, Behaviour { filtering: Dependence::AddressAndPort, hairpin: Hairpin::No, ..open });
    assert!(lab.discarded("SG_HAS_NO_RULES") >= 3);
}

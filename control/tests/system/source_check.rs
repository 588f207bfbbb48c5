//! The source/destination check of an ENI, and instances that forward: ENI-4, WALK-12.

use crate::harness::{Lab, TWO_TIER, edit};

const CHECK: &str = "ENI_SOURCE_DEST_CHECK_RESTRICTION";

#[test]
fn eni_4_a_spoofed_source_is_discarded() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    lab.exec("app", "ip address add 10.0.2.99/32 dev eth0").ok();
    lab.ping_is_cut("app", "-I 10.0.2.99 10.0.1.10", CHECK);
    lab.exec("app", "ping -n -c 1 -W 10 10.0.1.10").ok();
}

/// app gets out through an instance that forwards and masquerades.
const NAT_INSTANCE: &str = "
lab: nat-instance
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public: { cidr: 10.0.1.0/24, route_table: public }
      private: { cidr: 10.0.2.0/24, route_table: private }
    route_tables:
      public: [ { to: 0.0.0.0/0, via: igw } ]
      private: [ { to: 0.0.0.0/0, via: box } ]
    security_groups:
      box: { inbound: [ { tcp: 80, from: 10.0.2.0/24 } ] }
    instances:
      box: { subnet: public, ip: 10.0.1.50, eip: 203.0.113.50, security_groups: [box], source_dest_check: false }
      app: { subnet: private, ip: 10.0.2.20 }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: localvpc serve 80 }
";

#[test]
fn eni_4_walk_12_a_nat_instance_needs_the_check_off() {
    let Some(lab) = Lab::up(NAT_INSTANCE) else { return };
    lab.localvpc(&["exec", "box", "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).ok();
    lab.exec("box", "nft add table ip nat").ok();
    lab.exec("box", "nft add chain ip nat post { type nat hook postrouting priority 100 ; }").ok();
    lab.exec("box", "nft add rule ip nat post ip saddr 10.0.2.0/24 masquerade").ok();
    // NATI-1: it forwards and masquerades.
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.50:"));

    // On arrival: the destination is not the box.
    lab.apply(&edit(NAT_INSTANCE, "source_dest_check: false", "source_dest_check: true")).ok();
    lab.curl_is_cut("app", "http://198.51.100.10/", CHECK);
}

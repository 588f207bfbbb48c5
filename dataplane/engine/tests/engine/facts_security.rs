//! Facts about interfaces, security groups and network ACLs, one by one, on memory.

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Action, IcmpMatch, Peer, PortRange, SourceDestCheck, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::tables;
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const NO_RULE: DiscardReason = DiscardReason::SecurityGroup;
const NO_RULES: DiscardReason = DiscardReason::SecurityGroupEmpty;

fn lab_net() -> Fabric {
    Fabric::new(lab::tables())
}

fn from_group(
    traffic: Traffic,
    group: localvpc_api::SecurityGroupId,
) -> localvpc_api::tables::SecurityGroupRule {
    rule(traffic, Peer::SecurityGroup(group))
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(net(text))
}

#[test]
fn eni_4_pkt_7_both_ends_check_addresses() {
    let mut net = lab_net();
    let spoofed = net.send(APP.1, udp("10.0.2.30:5000", "10.0.2.30:53", b""));
    assert_eq!(spoofed.verdict, Err(DiscardReason::SourceDestCheck), "PKT-7: at the sender's");
    assert_eq!(net.counted(DB.0).0, 0);
    net.push(|rows| {
        rows.route_tables[1].routes[1].target = localvpc_api::tables::RouteTarget::NetworkInterface(WEB.0);
        rows.security_groups[0].inbound.push(rule(Traffic::All, anyone()));
    });
    let for_others = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    assert_eq!(for_others.verdict, Err(DiscardReason::SourceDestCheck), "ENI-4: at the receiver's");
    net.push(|rows| rows.enis[0].source_dest_check = SourceDestCheck::Disabled);
    assert_eq!(net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).verdict, Ok(WEB.1));
}

#[test]
fn eni_3_a_secondary_address_moves_to_another_interface() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.enis[2].addresses.push(ip("10.0.2.31"));
        rows.security_groups[1].inbound = vec![from_group(lab::tcp(7000), DB_GROUP)];
    });
    let there = |flags| tcp(flags, "10.0.2.20:40000", "10.0.2.31:5432");
    assert_eq!(net.send(APP.1, there(SYN)).verdict, Ok(DB.1), "ENI-3: db has two addresses");
    assert_eq!(net.send(DB.1, tcp(SYN_ACK, "10.0.2.31:5432", "10.0.2.20:40000")).verdict, Ok(APP.1));
    let by_second = net.send(DB.1, tcp(SYN, "10.0.2.31:40000", "10.0.2.20:7000"));
    assert_eq!(by_second.verdict, Ok(APP.1), "SG-20: its groups stand for both");
    // web takes the address over; its subnet is the same now.
    net.push(|rows| {
        rows.enis[0].subnet = PRIVATE;
        rows.enis[0].addresses = vec![ip("10.0.2.10"), ip("10.0.2.31")];
        rows.public_addresses.remove(0);
        rows.enis[2].addresses.pop();
    });
    let moved = net.send(APP.1, there(TcpFacts::ACK));
    assert_eq!(moved.verdict, Err(NO_RULE), "web's group, which tracks nothing of db's");
    assert_eq!(net.send(APP.1, tcp(SYN, "10.0.2.20:40001", "10.0.2.31:80")).verdict, Ok(WEB.1));
    let old = net.send(DB.1, tcp(SYN_ACK, "10.0.2.31:5432", "10.0.2.20:40000"));
    assert_eq!(old.verdict, Err(DiscardReason::SourceDestCheck), "db may not send from it any more");
}

#[test]
fn eni_7_eni_9_an_interface_stays_in_its_vpc_and_its_subnet() {
    let refused = |change: fn(&mut localvpc_api::Tables)| {
        let net = lab_net();
        let mut rows = lab::tables();
        rows.vpcs.push(localvpc_api::tables::Vpc { id: localvpc_api::VpcId(2), ..rows.vpcs[0].clone() });
        change(&mut rows);
        tables::build(&rows, &net.state.metrics).is_err()
    };
    assert!(!refused(|_| {}));
    assert!(refused(|rows| rows.security_groups[0].vpc = localvpc_api::VpcId(2)), "ENI-7");
    assert!(refused(|rows| rows.enis[0].addresses[0] = ip("10.0.2.77")), "ENI-9");
}

#[test]
fn sg_1_sg_2_any_rule_of_any_group_admits() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.security_groups[1].inbound =
            vec![rule(lab::tcp(22), cidr("192.0.2.0/24")), rule(lab::tcp(7000), cidr("10.0.1.0/24"))];
        rows.security_groups[2].inbound = vec![rule(lab::tcp(7001), cidr("10.0.1.0/24"))];
        rows.enis[1].security_groups = vec![APP_GROUP, DB_GROUP];
    });
    let mut to = |port: u16| {
        net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", format!("10.0.2.20:{port}").as_str())).verdict
    };
    assert_eq!(to(7000), Ok(APP.1), "SG-2: the second rule of one group");
    assert_eq!(to(7001), Ok(APP.1), "SG-1: another group of the same interface");
    assert_eq!(to(22), Err(NO_RULE), "a rule for somebody else denies nothing and admits nothing");
}

#[test]
fn sg_5_members_of_a_default_group_reach_each_other_on_everything() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.security_groups[1].inbound = vec![from_group(Traffic::All, APP_GROUP)];
        rows.enis[2].security_groups = vec![APP_GROUP];
    });
    let packets = |from: &str| {
        let end = |port: u16| format!("{from}:{port}");
        [
            tcp(SYN, end(4000).as_str(), "10.0.2.30:22"),
            udp(end(4000).as_str(), "10.0.2.30:53", b""),
            ping(Echo::Request, from, "10.0.2.30", 7, 1),
            craft::other(Protocol(50), from, "10.0.2.30", b"esp"),
        ]
    };
    for packet in packets("10.0.2.20") {
        assert_eq!(net.send(APP.1, packet).verdict, Ok(DB.1), "SG-5");
    }
    for packet in packets("10.0.1.10") {
        assert_eq!(net.send(WEB.1, packet).verdict, Err(NO_RULE), "SG-5: nobody else");
    }
}

#[test]
fn sg_8_ports_and_types_of_rules() {
    let mut net = lab_net();
    let mut with = |traffic: Traffic, packet: Vec<u8>| {
        net.push(|rows| rows.security_groups[2].inbound = vec![rule(traffic, cidr("10.0.0.0/16"))]);
        let verdict = net.send(WEB.1, packet).verdict;
        net.pass_ms(1_000_000_000);
        verdict.is_ok()
    };
    let icmp = |kind, code| Traffic::Icmp(IcmpMatch { kind, code });
    let echo = || ping(Echo::Request, "10.0.1.10", "10.0.2.30", 7, 1);
    let stamp = || craft::icmp_message(13, 0, [0; 4], "10.0.1.10", "10.0.2.30", &[0; 12]);
    let gre = || craft::other(Protocol(47), "10.0.1.10", "10.0.2.30", b"gre");
    for port in [1023, 1024, 2000, 2001] {
        let range = PortRange { from: 1024, to: 2000 };
        let to = format!("10.0.2.30:{port}");
        assert_eq!(with(Traffic::Udp(range), udp("10.0.1.10:9", to.as_str(), b"")), range.contains(port));
        assert!(!with(Traffic::Tcp(range), udp("10.0.1.10:9", to.as_str(), b"")));
    }
    assert!(with(icmp(None, None), echo()) && with(icmp(Some(8), None), echo()), "SG-8");
    assert!(with(icmp(Some(8), Some(0)), echo()) && !with(icmp(Some(8), Some(1)), echo()));
    assert!(with(icmp(Some(13), None), stamp()) && !with(icmp(Some(8), None), stamp()));
    assert!(with(Traffic::Protocol(47), gre()) && with(Traffic::All, gre()));
    assert!(!with(Traffic::Protocol(50), gre()) && !with(icmp(None, None), gre()));
}

#[test]
fn sg_9_what_no_rule_admits_is_dropped_in_silence() {
    let mut net = lab_net();
    let tcp_out = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.30:5432"));
    let udp_out = net.send(WEB.1, udp("10.0.1.10:40000", "10.0.2.30:53", b""));
    for out in [tcp_out, udp_out] {
        assert_eq!(out.verdict, Err(NO_RULE));
        assert!(out.answers.is_empty(), "SG-9: neither RST nor ICMP");
    }
}

#[test]
fn sg_12_a_change_reaches_every_interface_at_once() {
    let mut net = lab_net();
    net.push(|rows| {
        for eni in &mut rows.enis[1..] {
            eni.security_groups = vec![DB_GROUP];
        }
    });
    let mut all = || {
        ["10.0.2.20:7000", "10.0.2.30:7000"]
            .map(|to| net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", to)).verdict)
    };
    assert_eq!(all(), [Err(NO_RULE); 2]);
    net.push(|rows| rows.security_groups[2].inbound = vec![rule(lab::tcp(7000), cidr("10.0.1.0/24"))]);
    let mut all = || {
        ["10.0.2.20:7000", "10.0.2.30:7000"]
            .map(|to| net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", to)).verdict)
    };
    assert_eq!(all(), [Ok(APP.1), Ok(DB.1)], "SG-12");
}

#[test]
fn sg_22_a_group_that_an_interface_loses_no_longer_admits_it() {
    let mut net = lab_net();
    let to_db = |port: u16, net: &mut Fabric| {
        net.send(APP.1, tcp(SYN, format!("10.0.2.20:{port}").as_str(), "10.0.2.30:5432")).verdict
    };
    assert_eq!(to_db(1, &mut net), Ok(DB.1));
    net.push(|rows| rows.enis[1].security_groups = vec![WEB_GROUP]);
    assert_eq!(to_db(2, &mut net), Err(NO_RULE), "SG-22");
    net.push(|rows| rows.enis[1].security_groups = vec![WEB_GROUP, APP_GROUP]);
    assert_eq!(to_db(3, &mut net), Ok(DB.1));
}

#[test]
fn sg_25_a_reference_does_not_survive_public_addresses_nor_nat() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.security_groups[0].inbound = vec![from_group(Traffic::All, APP_GROUP)];
        rows.enis[2].security_groups.push(APP_GROUP);
    });
    let private = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.1.10:80"));
    assert_eq!(private.verdict, Ok(WEB.1));
    let public = net.send(APP.1, tcp(SYN, "10.0.2.20:40001", "198.51.100.10:80"));
    assert_eq!(public.verdict, Err(NO_RULE), "SG-25: it comes from the NAT gateway's address");
}

#[test]
fn sg_35_through_a_nat_gateway_everything_is_tracked() {
    let mut net = lab_net();
    net.push(|rows| rows.security_groups[1].inbound = vec![rule(Traffic::All, anyone())]);
    net.send(APP.1, udp("10.0.2.20:5000", "10.0.1.10:53", b""));
    assert_eq!(net.state.connections.len(), 0, "everybody in, everybody out: untracked (SG-32)");
    assert_eq!(net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).verdict, Ok(INTERNET));
    assert_eq!(net.state.connections.len(), 1, "SG-35");
}

#[test]
fn sg_38_pings_are_remembered_for_half_a_minute() {
    let mut net = lab_net();
    let reply = || ping(Echo::Reply, "10.0.1.10", "10.0.2.20", 7, 1);
    let request = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "10.0.1.10", 7, 1));
    assert_eq!(request.verdict, Ok(WEB.1));
    assert_eq!(net.send(WEB.1, reply()).verdict, Ok(APP.1));
    net.pass_ms(29_999);
    assert_eq!(net.send(WEB.1, reply()).verdict, Ok(APP.1), "SG-38");
    net.pass_ms(30_000);
    assert_eq!(net.send(WEB.1, reply()).verdict, Err(NO_RULES));
}

#[test]
fn sg_41_an_untracked_flow_without_a_rule_for_icmp_is_told_nothing() {
    let mut net = lab_net();
    let told = |net: &mut Fabric| {
        let syn = tcp(SYN, "203.0.113.5:40000", "198.51.100.10:80");
        assert_eq!(net.send(INTERNET, syn).verdict, Ok(WEB.1));
        let sent = net.send(WEB.1, tcp(SYN_ACK, "10.0.1.10:80", "203.0.113.5:40000"));
        let error = craft::fragmentation_needed("203.0.113.5", 1280, &sent.bytes);
        net.send(INTERNET, error).verdict
    };
    assert_eq!(told(&mut net), Ok(WEB.1), "web's group admits ICMP");
    net.push(|rows| {
        rows.security_groups[0].inbound.pop();
    });
    assert!(told(&mut net).is_err(), "SG-41: untracked, no rule");
    net.push(|rows| rows.security_groups[0].inbound = vec![rule(lab::tcp(80), cidr("203.0.113.0/24"))]);
    net.pass_ms(1_000_000_000);
    assert_eq!(told(&mut net), Ok(WEB.1), "SG-41: tracked");
}

#[test]
fn sg_41_not_even_by_its_own_router_unless_the_gateway_had_it_tracked() {
    let mut net = lab_net();
    // UDP in, everything out: what the group admits without tracking has no related errors.
    net.push(|rows| rows.security_groups[0].inbound = vec![rule(Traffic::Udp(PortRange::ALL), anyone())]);
    let big = || udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 2000]);
    let refused = net.send(WEB.1, big());
    assert_eq!(refused.verdict, Err(DiscardReason::TooBig));
    assert!(refused.answers.is_empty(), "SG-41: the packet was not tracked, and no rule admits the error");
    net.push(|rows| rows.security_groups[0].inbound = vec![rule(lab::tcp(80), anyone())]);
    let refused = net.send(WEB.1, big());
    assert_eq!(refused.verdict, Err(DiscardReason::TooBig));
    assert_eq!(refused.answers.len(), 1, "SG-41: tracked");
}

#[test]
fn sg_44_a_network_acl_cuts_what_security_groups_remember() {
    let mut net = lab_net();
    net.push(|rows| rows.security_groups[1].inbound = vec![rule(Traffic::All, cidr("10.0.1.0/24"))]);
    let there = || udp("10.0.1.10:5000", "10.0.2.20:53", b"");
    let back = || udp("10.0.2.20:53", "10.0.1.10:5000", b"");
    assert_eq!((net.send(WEB.1, there()).verdict, net.send(APP.1, back()).verdict), (Ok(APP.1), Ok(WEB.1)));
    net.push(|rows| rows.security_groups[1].inbound.clear());
    assert_eq!(net.send(WEB.1, there()).verdict, Ok(APP.1), "SG-31: tracked");
    net.push(|rows| rows.network_acls[1].inbound.clear());
    assert_eq!(net.send(WEB.1, there()).verdict, Err(DiscardReason::NetworkAcl), "SG-44");
}

#[test]
fn nacl_7_a_list_without_entries_denies_everything() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.network_acls[1].inbound.clear();
        rows.network_acls[1].outbound.clear();
    });
    let inward = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.20:22"));
    let outward = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "10.0.1.10", 7, 1));
    for out in [inward, outward] {
        assert_eq!(out.verdict, Err(DiscardReason::NetworkAcl), "NACL-7");
        assert!(out.answers.is_empty());
    }
}

#[test]
fn nacl_8_nacl_9_what_entries_match() {
    let mut net = lab_net();
    net.push(|rows| rows.security_groups[1].inbound = vec![rule(Traffic::All, cidr("10.0.1.0/24"))]);
    let mut inward = |traffic: Traffic, from: &str, packet: Vec<u8>| {
        net.push(|rows| rows.network_acls[1].inbound = vec![entry(100, Action::Allow, traffic, from)]);
        net.send(WEB.1, packet).verdict.is_ok()
    };
    let ask = || udp("10.0.1.10:5000", "10.0.2.20:53", b"");
    let one = |port| Traffic::Udp(PortRange::one(port));
    assert!(inward(one(53), "10.0.1.10/32", ask()), "NACL-8: source, destination port");
    assert!(!inward(one(5000), "10.0.1.10/32", ask()), "never the source port");
    assert!(!inward(one(53), "10.0.2.20/32", ask()), "never the destination on the way in");
    let gre = || craft::other(Protocol(47), "10.0.1.10", "10.0.2.20", b"gre");
    assert!(inward(Traffic::Protocol(47), "0.0.0.0/0", gre()), "NACL-9: all of a protocol without ports");
    assert!(inward(Traffic::All, "0.0.0.0/0", gre()) && inward(Traffic::All, "0.0.0.0/0", ask()));
    assert!(!inward(Traffic::Protocol(47), "0.0.0.0/0", ask()));
    let mut net = lab_net();
    net.push(|rows| {
        rows.network_acls[1].outbound = vec![entry(100, Action::Allow, one(53), "10.0.1.10/32")];
    });
    assert_eq!(
        net.send(APP.1, udp("10.0.2.20:9", "10.0.1.10:54", b"")).verdict,
        Err(DiscardReason::NetworkAcl)
    );
    let out = net.send(APP.1, udp("10.0.2.20:9", "10.0.1.10:53", b"")).verdict;
    assert_eq!(out, Err(NO_RULE), "NACL-8: outward the destination; web's group is next");
}

#[test]
fn nacl_14_mtu_5_path_mtu_discovery_needs_an_entry_for_icmp() {
    let mut net = lab_net();
    let big = || udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 2000]);
    assert_eq!(net.send(WEB.1, big()).answers.len(), 1);
    net.push(|rows| {
        let deny = entry(50, Action::Deny, lab::ICMP, "0.0.0.0/0");
        rows.network_acls[0].inbound.insert(0, deny);
    });
    assert!(net.send(WEB.1, big()).answers.is_empty(), "NACL-14, RFC5508-9");
    net.push(|rows| {
        let needed = Traffic::Icmp(IcmpMatch { kind: Some(3), code: Some(4) });
        rows.network_acls[0].inbound.insert(0, entry(40, Action::Allow, needed, "0.0.0.0/0"));
    });
    assert_eq!(net.send(WEB.1, big()).answers.len(), 1, "MTU-5: 3/4 is all it takes");
}

#[test]
fn nacl_21_the_worked_example() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.security_groups[1].inbound = vec![rule(Traffic::All, cidr("10.0.1.0/24"))];
        rows.network_acls[1].inbound = vec![
            entry(100, Action::Allow, lab::tcp(80), "0.0.0.0/0"),
            entry(110, Action::Allow, lab::tcp(443), "0.0.0.0/0"),
        ];
    });
    for (port, admitted) in [(80, true), (443, true), (139, false)] {
        let out = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", format!("10.0.2.20:{port}").as_str()));
        assert_eq!(out.verdict.is_ok(), admitted, "NACL-21: {port}");
    }
}

#[test]
fn nacl_22_groups_begin_closed_and_remember_acls_begin_open_and_forget() {
    let mut net = lab_net();
    let ask = || udp("10.0.1.10:5000", "10.0.2.20:53", b"");
    let answer = || udp("10.0.2.20:53", "10.0.1.10:5000", b"");
    assert_eq!(
        net.send(WEB.1, ask()).verdict,
        Err(NO_RULES),
        "NACL-22: past the network ACL, not past the group"
    );
    net.push(|rows| {
        rows.security_groups[1].inbound = vec![rule(Traffic::All, cidr("10.0.1.0/24"))];
        rows.security_groups[1].outbound.clear();
    });
    assert_eq!(net.send(WEB.1, ask()).verdict, Ok(APP.1));
    assert_eq!(net.send(APP.1, answer()).verdict, Ok(WEB.1), "a group remembers");
    net.push(|rows| rows.network_acls[1].outbound.clear());
    assert_eq!(net.send(WEB.1, ask()).verdict, Ok(APP.1));
    assert_eq!(net.send(APP.1, answer()).verdict, Err(DiscardReason::NetworkAcl), "a network ACL does not");
}

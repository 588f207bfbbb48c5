//! Tracked and untracked flows, and what a push does to each (SG-30…SG-36, SG-42).

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Peer, PortRange, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const CLIENT: &str = "203.0.113.5:40000";

/// app opens a connection to db on 5432 and both sides have sent data.
fn connected() -> Fabric {
    let mut net = Fabric::new(lab::tables());
    for (from, packet) in [
        (APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5432")),
        (DB.1, tcp(SYN_ACK, "10.0.2.30:5432", "10.0.2.20:40000")),
        (APP.1, tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432")),
        (DB.1, tcp(ACK, "10.0.2.30:5432", "10.0.2.20:40000")),
    ] {
        assert!(net.send(from, packet).verdict.is_ok());
    }
    net
}

#[test]
fn sg_9_replies_pass_without_a_rule() {
    let net = connected();
    assert_eq!(net.state.connections.len(), 2, "one at each ENI");
    assert_eq!((net.counted(APP.0), net.counted(DB.0)), ((2, 2), (2, 2)));
}

#[test]
fn sg_21_a_group_that_refers_to_itself_admits_its_members_only() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.security_groups[1].inbound = vec![rule(lab::tcp(7000), Peer::SecurityGroup(APP_GROUP))];
        rows.enis[2].security_groups = vec![APP_GROUP];
    });
    assert_eq!(net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:7000")).verdict, Ok(DB.1));
    let web = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.30:7000"));
    assert_eq!(web.verdict, Err(DiscardReason::SecurityGroup));
}

#[test]
fn sg_31_a_tracked_connection_outlives_its_rule() {
    let mut net = connected();
    net.push(|rows| rows.security_groups[2].inbound.clear());
    for _ in 0..3 {
        assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432")).verdict, Ok(DB.1));
        assert_eq!(net.send(DB.1, tcp(ACK, "10.0.2.30:5432", "10.0.2.20:40000")).verdict, Ok(APP.1));
    }
    let new = net.send(APP.1, tcp(SYN, "10.0.2.20:40001", "10.0.2.30:5432"));
    assert_eq!(
        new.verdict,
        Err(DiscardReason::SecurityGroupEmpty),
        "new connections are judged by the rules"
    );
}

#[test]
fn sg_31_until_it_times_out() {
    let mut net = connected();
    net.push(|rows| rows.security_groups[2].inbound.clear());
    net.pass_ms(432_000_000 - 1);
    assert_eq!(net.send(DB.1, tcp(ACK, "10.0.2.30:5432", "10.0.2.20:40000")).verdict, Ok(APP.1), "SG-37");
    net.pass_ms(432_000_000);
    assert!(net.state.connections.is_empty());
    let late = net.send(APP.1, tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432"));
    assert_eq!(late.verdict, Err(DiscardReason::SecurityGroupEmpty), "SG-43");
}

#[test]
fn sg_33_an_untracked_flow_is_cut_with_its_rule_and_stays_cut() {
    let mut net = Fabric::new(lab::tables());
    let inward = |flags| tcp(flags, CLIENT, "198.51.100.10:80");
    let outward = |flags| tcp(flags, "10.0.1.10:80", CLIENT);
    assert_eq!(net.send(INTERNET, inward(SYN)).verdict, Ok(WEB.1));
    assert_eq!(net.send(WEB.1, outward(SYN_ACK)).verdict, Ok(INTERNET));
    assert_eq!(net.send(INTERNET, inward(ACK)).verdict, Ok(WEB.1));
    assert_eq!(net.send(WEB.1, outward(ACK)).verdict, Ok(INTERNET));
    net.push(|rows| rows.security_groups[0].inbound.clear());
    for _ in 0..2 {
        assert_eq!(net.send(INTERNET, inward(ACK)).verdict, Err(DiscardReason::SecurityGroupEmpty), "SG-33");
        assert_eq!(net.send(WEB.1, outward(ACK)).verdict, Ok(INTERNET), "the way out is still open");
    }
}

#[test]
fn sg_36_what_is_tracked_and_what_is_not() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.security_groups[0]
            .inbound
            .push(rule(lab::tcp(22), Peer::Cidr("203.0.113.1/32".parse().unwrap())));
        rows.internet_hosts.push(ip("203.0.113.1"));
    });
    net.send(INTERNET, tcp(SYN, CLIENT, "198.51.100.10:80"));
    assert_eq!(net.state.connections.len(), 0, "80 from everywhere: untracked");
    net.send(INTERNET, tcp(SYN, "203.0.113.1:40000", "198.51.100.10:22"));
    assert_eq!(net.state.connections.len(), 1, "22 from one address: tracked");
    net.send(INTERNET, ping(Echo::Request, "203.0.113.5", "198.51.100.10", 5, 1));
    assert_eq!(net.state.connections.len(), 2, "SG-34: ICMP is always tracked");
    net.push(|rows| rows.security_groups[0].outbound.clear());
    net.send(INTERNET, tcp(SYN, "203.0.113.5:40001", "198.51.100.10:80"));
    assert_eq!(net.state.connections.len(), 3, "without the outbound rule 80 is tracked too");
    let reply = net.send(WEB.1, tcp(SYN_ACK, "10.0.1.10:80", "203.0.113.5:40001"));
    assert_eq!(reply.verdict, Ok(INTERNET), "and its reply passes by state");
    let old = net.send(WEB.1, tcp(SYN_ACK, "10.0.1.10:80", CLIENT));
    assert_eq!(old.verdict, Err(DiscardReason::SecurityGroupEmpty), "the untracked one is cut");
}

#[test]
fn sg_32_a_narrower_way_back_makes_the_flow_tracked() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        let ports = Traffic::Tcp(PortRange { from: 1, to: 65535 });
        rows.security_groups[0].outbound = vec![rule(ports, anyone())];
    });
    net.send(INTERNET, tcp(SYN, CLIENT, "198.51.100.10:80"));
    assert_eq!(net.state.connections.len(), 1, "port 0 is missing");
}

#[test]
fn sg_37_udp_becomes_a_stream_with_its_second_exchange() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.security_groups[2].inbound =
            vec![rule(Traffic::Udp(PortRange::one(53)), Peer::SecurityGroup(APP_GROUP))];
    });
    let ask = || udp("10.0.2.20:5000", "10.0.2.30:53", b"?");
    let answer = || udp("10.0.2.30:53", "10.0.2.20:5000", b"!");
    assert!(net.send(APP.1, ask()).verdict.is_ok() && net.send(DB.1, answer()).verdict.is_ok());
    net.pass_ms(29_999);
    assert_eq!(net.state.connections.len(), 2);
    assert_eq!(net.send(DB.1, answer()).verdict, Ok(APP.1));
    assert!(net.send(APP.1, ask()).verdict.is_ok() && net.send(DB.1, answer()).verdict.is_ok());
    net.pass_ms(179_999);
    assert_eq!(net.send(DB.1, answer()).verdict, Ok(APP.1), "180 s for a stream");
    net.pass_ms(180_000);
    assert_eq!(net.send(DB.1, answer()).verdict, Err(DiscardReason::SecurityGroupEmpty));
}

#[test]
fn sg_30_other_protocols_are_tracked_by_address() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.security_groups[2].inbound = vec![rule(Traffic::Protocol(47), Peer::SecurityGroup(APP_GROUP))];
    });
    let gre = |from: &str, to: &str| craft::other(Protocol(47), from, to, b"data");
    assert_eq!(net.send(APP.1, gre("10.0.2.20", "10.0.2.30")).verdict, Ok(DB.1));
    net.pass_ms(599_999);
    assert_eq!(net.send(DB.1, gre("10.0.2.30", "10.0.2.20")).verdict, Ok(APP.1), "600 s");
    net.pass_ms(600_000);
    assert!(net.send(DB.1, gre("10.0.2.30", "10.0.2.20")).verdict.is_err());
    // Each interface has a timer of its own.
    net.push(|rows| rows.enis[1].tracking.other_ms = 5_000);
    assert_eq!(net.send(APP.1, gre("10.0.2.20", "10.0.2.30")).verdict, Ok(DB.1));
    net.pass_ms(4_999);
    assert_eq!(net.send(DB.1, gre("10.0.2.30", "10.0.2.20")).verdict, Ok(APP.1));
    net.pass_ms(5_000);
    assert_eq!(net.send(DB.1, gre("10.0.2.30", "10.0.2.20")).verdict, Err(DiscardReason::SecurityGroupEmpty));
    assert_eq!(net.state.connections.len(), 1, "db tracks it for 600 s");
}

#[test]
fn sg_42_an_icmp_error_passes_with_its_connection_and_not_without() {
    let mut net = connected();
    let quoted = tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432");
    let error = net.send(DB.1, craft::port_unreachable("10.0.2.30", &quoted));
    assert_eq!(error.verdict, Ok(APP.1), "app has no rule for ICMP");
    let unrelated = tcp(ACK, "10.0.2.20:40009", "10.0.2.30:5432");
    let error = net.send(DB.1, craft::port_unreachable("10.0.2.30", &unrelated));
    assert_eq!(error.verdict, Err(DiscardReason::SecurityGroupEmpty));
}

#[test]
fn sg_42_a_segment_in_mid_stream_tracks_nothing() {
    let mut net = Fabric::new(lab::tables());
    let data = net.send(APP.1, tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432"));
    assert_eq!(data.verdict, Ok(DB.1), "the rules admit it");
    assert!(net.state.connections.is_empty(), "RFC5961-SWITCHES: none is picked up");
    let reply = net.send(DB.1, tcp(ACK, "10.0.2.30:5432", "10.0.2.20:40000"));
    assert_eq!(reply.verdict, Err(DiscardReason::SecurityGroupEmpty));
}

#[test]
fn nacl_2_4_5_16_entries_are_judged_by_number_on_every_packet() {
    use localvpc_api::tables::Action::{Allow, Deny};
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.enis[0].security_groups.push(APP_GROUP));
    let there = |flags| tcp(flags, "10.0.1.10:40000", "10.0.2.30:5432");
    let back = |flags| tcp(flags, "10.0.2.30:5432", "10.0.1.10:40000");
    assert!(net.send(WEB.1, there(SYN)).verdict.is_ok() && net.send(DB.1, back(SYN_ACK)).verdict.is_ok());
    assert!(net.send(WEB.1, there(ACK)).verdict.is_ok());
    net.push(|rows| {
        rows.network_acls[1].inbound = vec![
            entry(90, Deny, lab::tcp(5432), "10.0.1.10/32"),
            entry(100, Allow, Traffic::All, "0.0.0.0/0"),
        ];
    });
    assert_eq!(net.send(WEB.1, there(ACK)).verdict, Err(DiscardReason::NetworkAcl), "NACL-16, NACL-2");
    assert_eq!(net.send(APP.1, tcp(SYN, "10.0.2.20:1", "10.0.2.30:5432")).verdict, Ok(DB.1), "NACL-4");
    net.push(|rows| {
        rows.network_acls[1].inbound = vec![entry(100, Allow, Traffic::All, "0.0.0.0/0")];
        rows.network_acls[1].outbound = vec![entry(100, Allow, lab::tcp(5432), "0.0.0.0/0")];
    });
    assert_eq!(net.send(WEB.1, there(ACK)).verdict, Ok(DB.1));
    assert_eq!(
        net.send(DB.1, back(ACK)).verdict,
        Err(DiscardReason::NetworkAcl),
        "NACL-5: no state for replies"
    );
}

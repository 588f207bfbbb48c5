//! What a NAT gateway counts, under the names of CloudWatch (NATGW-48), and what must hold between the numbers (NATGW-49).

use localvpc_api::report::{NatGatewayCounters, Traffic};
use localvpc_api::tables::{Action, Traffic as Match};
use localvpc_api::{DiscardReason, report as api};
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const FIN: u8 = TcpFacts::FIN | TcpFacts::ACK;
const SERVER: &str = "203.0.113.5:443";

fn counters(net: &Fabric) -> NatGatewayCounters {
    report::nat_gateways(&net.tables, &net.state, net.now).remove(0)
}

/// app opens a connection through the gateway; what the server sees as its far end.
fn open(net: &mut Fabric, port: u16) -> String {
    let inside = format!("10.0.2.20:{port}");
    let syn = net.send(APP.1, tcp(SYN, inside.as_str(), SERVER));
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    net.send(APP.1, tcp(ACK, inside.as_str(), SERVER));
    eip
}

#[test]
fn natgw_48_attempts_are_initial_syns_and_established_are_handshakes() {
    let mut net = Fabric::new(lab::tables());
    for _ in 0..3 {
        net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    }
    net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    net.send(APP.1, ping(Echo::Request, "10.0.2.20", "203.0.113.5", 7, 1));
    let now = counters(&net);
    assert_eq!(
        (now.connection_attempts, now.connections_established),
        (1, 0),
        "a repeated SYN is no attempt"
    );
    assert_eq!((now.active_connections, now.leases), (1, 3), "TCP only");

    let eip = open(&mut net, 51001);
    for _ in 0..5 {
        net.send(APP.1, tcp(ACK, "10.0.2.20:51001", SERVER));
        net.send(INTERNET, tcp(ACK, SERVER, eip.as_str()));
    }
    let now = counters(&net);
    assert_eq!((now.connection_attempts, now.connections_established), (2, 1));
    assert_eq!(now.active_connections, 2);

    net.send(APP.1, tcp(FIN, "10.0.2.20:51001", SERVER));
    net.send(INTERNET, tcp(FIN, SERVER, eip.as_str()));
    assert_eq!(
        counters(&net).active_connections,
        1,
        "a closed connection is not active, though its port is held"
    );
    net.pass_ms(350_000);
    let now = counters(&net);
    assert_eq!((now.active_connections, now.leases), (0, 0));
    assert_eq!(now.idle_timeouts, 3, "the SYN, the datagram and the ping; what was closed did not idle out");
}

/// NATGW-49: what came in left on the other side, or was counted as dropped.
#[track_caller]
fn invariants(now: &NatGatewayCounters) {
    let lost = |arrived: Traffic, left: Traffic| {
        assert!(arrived.bytes >= left.bytes && arrived.packets >= left.packets, "{now:?}");
        arrived.packets - left.packets
    };
    let dropped =
        lost(now.in_from_source, now.out_to_destination) + lost(now.in_from_destination, now.out_to_source);
    assert_eq!(dropped, now.packets_dropped, "{now:?}");
    assert!(now.connections_established <= now.connection_attempts, "{now:?}");
    assert!(now.error_port_allocation <= now.packets_dropped, "{now:?}");
}

#[test]
fn natgw_48_natgw_49_what_comes_in_goes_out_or_is_dropped() {
    let mut net = Fabric::new(lab::tables());
    let (mut out, mut back) = (Traffic::default(), Traffic::default());
    let eip = open(&mut net, 51000);
    out += Traffic { packets: 2, bytes: 80 };
    back += Traffic { packets: 1, bytes: 40 };
    // Mid-stream, so by the flow caches, too.
    for _ in 0..50 {
        let facts = TcpFacts { flags: ACK, sequence: 1001, acknowledgement: 1, window: 100, payload: 60 };
        assert!(net.send(APP.1, craft::tcp_segment(facts, "10.0.2.20:51000", SERVER)).verdict.is_ok());
        assert!(net.send(INTERNET, craft::tcp_segment(facts, SERVER, eip.as_str())).verdict.is_ok());
        out += Traffic { packets: 1, bytes: 100 };
        back += Traffic { packets: 1, bytes: 100 };
    }
    let now = counters(&net);
    invariants(&now);
    assert_eq!((now.in_from_source, now.out_to_destination), (out, out));
    assert_eq!((now.in_from_destination, now.out_to_source), (back, back));
    assert_eq!(now.packets_dropped, 0);

    // Dropped by the gateway: a scan from outside, a ping of its own address, a segment it does not know, GRE.
    net.send(INTERNET, tcp(SYN, "203.0.113.5:40000", "198.51.100.20:22"));
    net.send(INTERNET, ping(Echo::Request, "203.0.113.5", "198.51.100.20", 5, 1));
    net.send(APP.1, tcp(ACK, "10.0.2.20:60000", SERVER));
    net.send(APP.1, craft::other(localvpc_api::trace::Protocol(47), "10.0.2.20", "203.0.113.5", b"gre"));
    let now = counters(&net);
    invariants(&now);
    assert_eq!(now.packets_dropped, 4);
    assert_eq!(now.in_from_source.packets - now.out_to_destination.packets, 2);
    assert_eq!(now.in_from_destination.packets - now.out_to_source.packets, 2);

    // Dropped further on, by the network ACL of its subnet: the gateway did its part.
    net.push(|rows| {
        rows.network_acls[0].outbound = vec![entry(100, Action::Allow, Match::All, "10.0.0.0/8")]
    });
    let before = counters(&net);
    let refused = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    assert_eq!(refused.verdict, Err(DiscardReason::NetworkAcl));
    let now = counters(&net);
    invariants(&now);
    assert_eq!(now.out_to_destination.packets, before.out_to_destination.packets + 1);
    assert_eq!((now.packets_dropped, now.leases), (before.packets_dropped, before.leases));

    // Nor is it the gateway's doing if a packet of a connection it knows is dropped further on, either way.
    let refused = net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert_eq!(refused.verdict, Err(DiscardReason::NetworkAcl));
    net.push(|rows| rows.network_acls[1].inbound = vec![entry(100, Action::Deny, Match::All, "0.0.0.0/0")]);
    let refused = net.send(INTERNET, tcp(ACK, SERVER, eip.as_str()));
    assert_eq!(refused.verdict, Err(DiscardReason::NetworkAcl));
    let after = counters(&net);
    invariants(&after);
    assert_eq!(after.out_to_destination.packets, now.out_to_destination.packets + 1);
    assert_eq!(after.out_to_source.packets, now.out_to_source.packets + 1);
    assert_eq!(after.packets_dropped, now.packets_dropped);
}

#[test]
fn natgw_48_error_port_allocation_is_part_of_what_is_dropped() {
    let mut net = Fabric::new(lab::tables());
    for port in 1..=55_010_u16 {
        net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), "203.0.113.5:53", b""));
    }
    let now = counters(&net);
    invariants(&now);
    assert_eq!((now.error_port_allocation, now.packets_dropped), (10, 10));
    assert_eq!((now.in_from_source.packets, now.out_to_destination.packets), (55_010, 55_000));
}

#[test]
fn natgw_48_peaks_are_of_the_last_minute() {
    let mut net = Fabric::new(lab::tables());
    net.pass_ms(1_000);
    for _ in 0..10 {
        for _ in 0..100 {
            net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", &[0; 72]));
        }
        net.pass_ms(1_000);
    }
    let peaks = |row: &api::NatGatewayCounters| (row.peak_packets_per_second, row.peak_bytes_per_second);
    assert_eq!(peaks(&counters(&net)), (100, 10_000));
    for _ in 0..60 {
        net.pass_ms(1_000);
    }
    assert_eq!(peaks(&counters(&net)), (0, 0));
}

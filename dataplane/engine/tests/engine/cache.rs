//! What the flow cache must not confuse: flows that look alike to it, and packets of a known flow that do not fit its way.

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Action, Peer, PortRange, Traffic};
use localvpc_engine::packet::{Offload, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::{Limits, Worker};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const FIN: u8 = TcpFacts::FIN | TcpFacts::ACK;
const RST: u8 = TcpFacts::RST | TcpFacts::ACK;

#[test]
fn flows_that_share_a_tag_are_kept_apart() {
    let mut tables = lab::tables();
    for group in [0, 2] {
        tables.security_groups[group].inbound.push(rule(Traffic::Udp(PortRange::ALL), anyone()));
    }
    // One set of 32 flows, which are told apart by 16 bits of their hash before their keys are compared.
    let worker = Worker::with_cache(0, 7, 32);
    let mut net = Fabric::with_workers(tables, vec![worker], Limits { connections: 1 << 17, leases: 16 });
    // So many flows meet one with their tag about nineteen times: 40,000 · 31 / 65,536.
    for ports in (1..=40_000_u16).collect::<Vec<_>>().chunks(32) {
        let far = |port: &u16| {
            if port.is_multiple_of(2) { (DB.1, "10.0.2.30:53") } else { (WEB.1, "10.0.1.10:53") }
        };
        let packet = |port: &u16| udp(format!("10.0.2.20:{port}").as_str(), far(port).1, b"whose?");
        let batch = ports.iter().map(|port| (APP.1, packet(port), Offload::default())).collect();
        for (outcome, port) in net.offer_batch(0, batch).into_iter().zip(ports) {
            assert_eq!(outcome.unwrap().verdict, Ok(far(port).0), "port {port}");
        }
    }
}

#[test]
fn a_known_flow_whose_ttl_runs_out_is_walked() {
    let mut net = Fabric::new(lab::tables());
    let packet = |ttl| craft::with_ttl(udp("10.0.2.20:5000", "203.0.113.5:53", b"?"), ttl);
    for ttl in [64, 64, 64] {
        assert!(net.send(APP.1, packet(ttl)).verdict.is_ok());
    }
    let batch = [64, 1, 64, 2, 1].map(|ttl| (APP.1, packet(ttl), Offload::default()));
    let found: Vec<_> = net
        .offer_batch(0, batch.to_vec())
        .into_iter()
        .map(|outcome| outcome.unwrap().verdict.err())
        .collect();
    let expired = Some(DiscardReason::TtlExceeded);
    assert_eq!(found, [None, expired, None, None, expired], "RFC1812-TTL");
}

#[test]
fn segments_before_the_handshake_and_after_the_end_are_seen_as_without_a_cache() {
    let (app, db) = ("10.0.2.20:5000", "10.0.2.30:5432");
    // From app or to it, flags, sequence, acknowledgement.
    let steps = [
        (true, SYN, 1000, 0),
        (true, ACK, 1001, 9001),
        (true, ACK, 1001, 9001),
        (false, SYN_ACK, 9000, 1001),
        (true, ACK, 1001, 9001),
        (false, ACK, 9001, 1001),
        (true, ACK, 1001, 9001),
        (false, RST, 9001, 1001),
        (false, ACK, 9001, 1001),
        (true, ACK, 1001, 9001),
        (true, ACK, 1001, 9001),
    ];
    let story = |flows: usize| {
        let worker = Worker::with_cache(0, 7, flows);
        let limits = Limits { connections: 64, leases: 64 };
        let mut net = Fabric::with_workers(lab::tables(), vec![worker], limits);
        steps.map(|(from_app, flags, sequence, acknowledgement)| {
            net.now.0 += 1_000;
            let facts = TcpFacts { flags, sequence, acknowledgement, window: 500, payload: 0 };
            let (link, from, to) = if from_app { (APP.1, app, db) } else { (DB.1, db, app) };
            let verdict = net.send(link, craft::tcp_segment(facts, from, to)).verdict;
            let known: Vec<_> = report::connections(&net.state, net.now)
                .iter()
                .map(|row| (row.eni, row.state, row.idle_ms, row.timeout_ms, row.sent, row.received))
                .collect();
            format!("{verdict:?} {known:?}")
        })
    };
    assert_eq!(story(64), story(0));
}

/// A whole connection through the NAT gateway: only its SYN and the answer are walked, and all is counted as if every packet were.
#[test]
fn a_connection_is_opened_closed_and_reset_through_the_cache_as_without() {
    let (app, server) = ("10.0.2.20:5000", "203.0.113.5:443");
    // From app or to it, flags, sequence, acknowledgement.
    let closed = [
        (true, SYN, 1000, 0),
        (false, SYN_ACK, 9000, 1001),
        (true, ACK, 1001, 9001),
        (true, FIN, 1001, 9001),
        (false, FIN, 9001, 1002),
        (true, ACK, 1002, 9002),
    ];
    // An acknowledgement before its time puts the flow into the cache, from which the right one then comes.
    let reset = [
        (true, SYN, 1000, 0),
        (true, ACK, 1001, 9001),
        (false, SYN_ACK, 9000, 1001),
        (true, ACK, 1001, 9001),
        (false, ACK, 9001, 1001),
        (false, RST, 9001, 1001),
    ];
    for (steps, walks) in [(closed, 2), (reset, 3)] {
        let story = |flows: usize| {
            let worker = Worker::with_cache(0, 7, flows);
            let limits = Limits { connections: 64, leases: 64 };
            let mut net = Fabric::with_workers(lab::tables(), vec![worker], limits);
            let mut outside = server.to_owned();
            let seen = steps.map(|(from_app, flags, sequence, acknowledgement)| {
                net.now.0 += 1_000;
                let facts = TcpFacts { flags, sequence, acknowledgement, window: 500, payload: 0 };
                let packet = |from: &str, to: &str| craft::tcp_segment(facts, from, to);
                if from_app {
                    let source = net.send(APP.1, packet(app, server)).tuple().source_port;
                    outside = format!("198.51.100.20:{source}");
                } else {
                    let outcome = net.send(INTERNET, packet(server, &outside));
                    assert_eq!(outcome.verdict, Ok(APP.1));
                }
                let connections: Vec<_> = report::connections(&net.state, net.now)
                    .iter()
                    .map(|row| (row.state, row.idle_ms, row.timeout_ms, row.sent, row.received))
                    .collect();
                let gateway = report::nat_gateways(&net.tables, &net.state, net.now);
                format!("{connections:?} {gateway:?}")
            });
            (seen, net.workers[0].counters().walks.value())
        };
        let (cached, walked) = (story(64), story(0));
        assert_eq!(cached.0, walked.0);
        assert_eq!((cached.1, walked.1), (walks, steps.len() as u64));
    }
}

/// The second connection between two ends goes by what the first one met, also where a network ACL denies the answers to some ports.
#[test]
fn connections_between_the_same_ends_are_as_without_a_cache() {
    let ends = [
        (APP.1, "10.0.2.20", "203.0.113.5:443"),
        (DB.1, "10.0.2.30", "203.0.113.5:443"),
        (APP.1, "10.0.2.20", "10.0.1.10:22"),
        (APP.1, "10.0.2.20", "10.0.2.30:5432"),
        (INTERNET, "203.0.113.5", "198.51.100.10:22"),
        (INTERNET, "203.0.113.5", "198.51.100.10:80"),
    ];
    let story = |flows: usize| {
        let mut tables = lab::tables();
        for group in &mut tables.security_groups {
            group
                .inbound
                .push(rule(Traffic::Tcp(PortRange { from: 22, to: 22 }), Peer::Cidr(net("0.0.0.0/1"))));
            group
                .inbound
                .push(rule(Traffic::Tcp(PortRange { from: 22, to: 22 }), Peer::Cidr(net("128.0.0.0/1"))));
        }
        for acl in &mut tables.network_acls {
            let denied = Traffic::Tcp(PortRange { from: 2000, to: 2099 });
            acl.outbound.insert(0, entry(1, Action::Deny, denied, "0.0.0.0/0"));
            let denied = Traffic::Tcp(PortRange { from: 30_000, to: 40_000 });
            acl.inbound.insert(0, entry(2, Action::Deny, denied, "203.0.113.0/24"));
        }
        let worker = Worker::with_cache(0, 7, flows);
        let limits = Limits { connections: 1024, leases: 1024 };
        let mut net = Fabric::with_workers(tables, vec![worker], limits);
        let mut told = Vec::new();
        // 1000 twice: the second time on the tuple of a connection that has closed.
        for port in [1000, 1999, 2000, 2099, 2100, 1000, 35_000, 60_000] {
            for (link, from, to) in ends {
                let (mut back, mut outside) = (None, None);
                for (forth, flags, sequence, acknowledgement) in [
                    (true, SYN, 1000, 0),
                    (false, SYN_ACK, 9000, 1001),
                    (true, ACK, 1001, 9001),
                    (true, ACK, 1001, 9001),
                    (false, FIN, 9001, 1001),
                    (true, FIN, 1001, 9002),
                    (false, ACK, 9002, 1002),
                ] {
                    net.now.0 += 100;
                    let facts = TcpFacts { flags, sequence, acknowledgement, window: 500, payload: 0 };
                    let near = format!("{from}:{port}");
                    if forth {
                        let bytes = craft::tcp_segment(facts, near.as_str(), to);
                        let outcome = net.send(link, bytes);
                        told.push(format!(
                            "{:?} {:?}",
                            outcome.verdict,
                            outcome.verdict.is_ok().then(|| outcome.tuple())
                        ));
                        if let Ok(out) = outcome.verdict {
                            (back, outside) = (Some(out), Some(outcome.tuple().reversed()));
                        }
                    } else if let (Some(back), Some(tuple)) = (back, outside) {
                        let (far, near) = (
                            format!("{}:{}", tuple.source, tuple.source_port),
                            format!("{}:{}", tuple.destination, tuple.destination_port),
                        );
                        let outcome = net.send(back, craft::tcp_segment(facts, far.as_str(), near.as_str()));
                        told.push(format!(
                            "{:?} {:?}",
                            outcome.verdict,
                            outcome.verdict.is_ok().then(|| outcome.tuple())
                        ));
                    }
                }
            }
        }
        let connections = report::connections(&net.state, net.now);
        told.extend(connections.iter().map(|row| format!("{row:?}")));
        told.push(format!("{:?}", report::nat_gateways(&net.tables, &net.state, net.now)));
        told.extend([WEB, APP, DB].map(|(eni, _)| format!("{:?}", net.counted(eni))));
        (told, net.workers[0].counters().walks.value())
    };
    let ((cached, by_cache), (walked, by_stages)) = (story(256), story(0));
    for (cached, walked) in cached.iter().zip(&walked) {
        assert_eq!(cached, walked);
    }
    assert_eq!(cached.len(), walked.len());
    assert!(cached.iter().any(|line| line.contains("NetworkAcl")), "some answers are denied");
    assert!(by_cache < by_stages, "{by_cache} {by_stages}");
}

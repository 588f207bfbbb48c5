//! How many connections an ENI may track, and who gives way (SG-39).

use localvpc_api::report::{ConnectionState, EniCounters};
use localvpc_api::trace::{Protocol, TraceOutcome};
use localvpc_api::{DiscardReason, EniId};
use localvpc_engine::packet::{Offload, TcpFacts};
use localvpc_engine::testing::craft::{tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::{Limits, Worker, report};
use proptest::prelude::*;

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;

/// The lab with room for `most` connections at db.
fn limited(most: u32) -> Fabric {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.enis[2].max_connections = most);
    net
}

fn row(net: &Fabric, eni: EniId) -> EniCounters {
    report::enis(&net.tables).into_iter().find(|row| row.eni == eni).unwrap()
}

/// app's SYN to db from a port.
fn knock(net: &mut Fabric, port: u16) -> Result<localvpc_api::LinkId, DiscardReason> {
    net.send(APP.1, tcp(SYN, format!("10.0.2.20:{port}").as_str(), "10.0.2.30:5432")).verdict
}

/// The rest of the handshake, and a segment each way.
fn establish(net: &mut Fabric, port: u16) {
    assert_eq!(knock(net, port), Ok(DB.1));
    let app = format!("10.0.2.20:{port}");
    for _ in 0..2 {
        assert_eq!(net.send(DB.1, tcp(SYN_ACK, "10.0.2.30:5432", app.as_str())).verdict, Ok(APP.1));
        assert_eq!(net.send(APP.1, tcp(ACK, app.as_str(), "10.0.2.30:5432")).verdict, Ok(DB.1));
    }
}

/// Ports of app whose connections db tracks, and how far they have come.
fn tracked(net: &Fabric) -> Vec<(u16, ConnectionState)> {
    let mine = |row: &localvpc_api::report::Connection| row.eni == DB.0;
    let all = report::connections(&net.state, net.now).into_iter().filter(mine);
    let mut all: Vec<_> = all.map(|row| (row.outbound.destination_port, row.state)).collect();
    all.sort_by_key(|(port, _)| *port);
    all
}

#[test]
fn sg_39_at_the_limit_a_new_connection_is_discarded_and_counted() {
    let mut net = limited(3);
    for port in 1..=3 {
        establish(&mut net, port);
    }
    assert_eq!(row(&net, DB.0).conntrack_allowance_available, 0);
    assert_eq!(knock(&mut net, 4), Err(DiscardReason::ConnectionAllowanceExceeded));
    let other = net.send(DB.1, udp("10.0.2.30:5000", "10.0.1.10:53", b""));
    assert!(other.verdict.is_err(), "whichever way it begins, and whatever protocol");
    let db = row(&net, DB.0);
    // ENI-13: under the names of ENA.
    assert_eq!((db.conntrack_allowance_available, db.conntrack_half_open_evicted), (0, 0));
    assert!(db.conntrack_allowance_exceeded >= 1, "{db:?}");
    assert_eq!(row(&net, APP.0).conntrack_allowance_exceeded, 0, "db is at its limit, not app");
    assert_eq!(tracked(&net).len(), 3);

    // What has a connection keeps it.
    assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:1", "10.0.2.30:5432")).verdict, Ok(DB.1));
    // One that ends makes room, when its time is over.
    net.send(APP.1, tcp(TcpFacts::RST, "10.0.2.20:1", "10.0.2.30:5432"));
    net.pass_ms(60_000);
    assert_eq!(row(&net, DB.0).conntrack_allowance_available, 1);
    assert_eq!(knock(&mut net, 5), Ok(DB.1));
}

#[test]
fn sg_39_the_oldest_half_open_connection_gives_way_and_an_established_one_never() {
    let mut net = limited(4);
    establish(&mut net, 1);
    for port in 2..=4 {
        net.pass_ms(10);
        assert_eq!(knock(&mut net, port), Ok(DB.1));
    }
    // 3 becomes established; so 2 and 4 are half-open.
    for (from, packet) in [
        (DB.1, tcp(SYN_ACK, "10.0.2.30:5432", "10.0.2.20:3")),
        (APP.1, tcp(ACK, "10.0.2.20:3", "10.0.2.30:5432")),
    ] {
        assert!(net.send(from, packet).verdict.is_ok());
    }
    assert_eq!(knock(&mut net, 5), Ok(DB.1));
    let ports = |net: &Fabric| tracked(net).iter().map(|(port, _)| *port).collect::<Vec<_>>();
    assert_eq!(ports(&net), [1, 3, 4, 5], "2 was the oldest");
    assert_eq!(knock(&mut net, 6), Ok(DB.1));
    assert_eq!(ports(&net), [1, 3, 5, 6]);
    // A flood pushes out itself.
    for port in 100..1_100 {
        assert_eq!(knock(&mut net, port), Ok(DB.1));
    }
    assert_eq!(ports(&net), [1, 3, 1_098, 1_099]);
    let db = row(&net, DB.0);
    assert_eq!((db.conntrack_half_open_evicted, db.conntrack_allowance_exceeded), (1_002, 0));
    assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:1", "10.0.2.30:5432")).verdict, Ok(DB.1));
}

#[test]
fn sg_39_when_the_whole_table_is_full_half_open_connections_give_way_too() {
    let workers = vec![Worker::new(0, 1), Worker::new(1, 2)];
    // Each connection between app and db is tracked at both.
    let mut net = Fabric::with_workers(lab::tables(), workers, Limits { connections: 6, leases: 6 });
    establish(&mut net, 1);
    for port in 2..50 {
        assert_eq!(knock(&mut net, port), Ok(DB.1));
    }
    assert_eq!(tracked(&net).len(), 3);
    establish(&mut net, 50);
    establish(&mut net, 51);
    assert_eq!(knock(&mut net, 52), Err(DiscardReason::ConnectionTableFull));
    assert_eq!(tracked(&net).iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 50, 51]);
}

#[test]
fn sg_39_a_smaller_limit_cuts_nothing_and_a_larger_one_is_in_force_at_once() {
    let mut net = limited(3);
    for port in 1..=3 {
        establish(&mut net, port);
    }
    net.push(|rows| rows.enis[2].max_connections = 1);
    assert_eq!(row(&net, DB.0).conntrack_allowance_available, 0);
    assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:3", "10.0.2.30:5432")).verdict, Ok(DB.1));
    assert_eq!(knock(&mut net, 4), Err(DiscardReason::ConnectionAllowanceExceeded));
    net.push(|rows| rows.enis[2].max_connections = 4);
    assert_eq!(knock(&mut net, 4), Ok(DB.1));
}

#[test]
fn rfc6888_4_rfc6888_5_a_limit_of_connections_is_one_of_what_is_translated() {
    let mut net = limited(3);
    let ask = |net: &mut Fabric, link, end: &str| net.send(link, udp(end, "203.0.113.5:53", b"")).verdict;
    for port in 1..=3 {
        assert_eq!(ask(&mut net, DB.1, &format!("10.0.2.30:{port}")), Ok(INTERNET));
    }
    let refused = Err(DiscardReason::ConnectionAllowanceExceeded);
    assert_eq!(ask(&mut net, DB.1, "10.0.2.30:4"), refused, "RFC6888-5");
    assert_eq!(net.state.leases.len(), 3, "RFC6888-4: and no port is leased");
    assert_eq!(ask(&mut net, APP.1, "10.0.2.20:4"), Ok(INTERNET), "nobody else is concerned");
}

#[test]
fn a_trace_tells_that_the_allowance_is_used_up() {
    let mut net = limited(1);
    let question = tuple(Protocol::TCP, "10.0.2.20:9", "10.0.2.30:5432");
    assert_eq!(net.trace(APP.1, question).forward.outcome, TraceOutcome::Delivered(DB.1));
    knock(&mut net, 1).unwrap();
    assert_eq!(net.trace(APP.1, question).forward.outcome, TraceOutcome::Delivered(DB.1), "1 would give way");
    establish(&mut net, 1);
    let refused = TraceOutcome::Discarded(DiscardReason::ConnectionAllowanceExceeded);
    assert_eq!(net.trace(APP.1, question).forward.outcome, refused);
    assert_eq!(tracked(&net).len(), 1, "asking changes nothing");

    let mut net = limited(2);
    establish(&mut net, 1);
    assert_eq!(
        net.trace(APP.1, question).forward.outcome,
        TraceOutcome::Delivered(DB.1),
        "room for one more"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is counted is what is tracked, and never more than allowed, whatever is sent when.
    #[test]
    fn what_is_counted_is_what_is_tracked(
        steps in prop::collection::vec((0..12_u16, 0..6_u8, 0..3_u64, 0..2_usize), 1..200)
    ) {
        let mut net = limited(4);
        for (port, what, wait, worker) in steps {
            let app = format!("10.0.2.20:{}", port + 1);
            let db = "10.0.2.30:5432";
            let (link, packet) = match what {
                0 => (APP.1, tcp(SYN, app.as_str(), db)),
                1 => (DB.1, tcp(SYN_ACK, db, app.as_str())),
                2 => (APP.1, tcp(ACK, app.as_str(), db)),
                3 => (APP.1, tcp(TcpFacts::RST, app.as_str(), db)),
                4 => (DB.1, tcp(TcpFacts::FIN | ACK, db, app.as_str())),
                _ => (DB.1, udp("10.0.2.30:5000", app.as_str(), b"")),
            };
            let _ = net.send_on(worker, link, packet, Offload::default());
            if wait == 2 {
                net.pass_ms(60_000);
            }
            let in_index = |eni| {
                let mut count = 0;
                net.state.connections.for_each(net.now, |key, _, _| count += u64::from(key.eni == eni));
                count
            };
            let db = row(&net, DB.0);
            prop_assert_eq!(4 - db.conntrack_allowance_available, in_index(DB.0));
            let app = row(&net, APP.0);
            prop_assert_eq!(u64::from(localvpc_api::tables::DEFAULT_MAX_CONNECTIONS) - app.conntrack_allowance_available, in_index(APP.0));
        }
        // Nothing is left over: with the ENIs' time everything ends.
        net.pass_ms(432_000_000);
        prop_assert_eq!(row(&net, DB.0).conntrack_allowance_available, 4);
    }
}

//! What must hold whatever happens: the flow cache changes no packet, pushes are idempotent, leases are distinct,
//! and workers that run at the same time agree.

use std::collections::HashSet;
use std::sync::Barrier;

use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::{Echo, Offload, TcpFacts, parse};
use localvpc_engine::state::fragments::{Amount, LIFETIME_MS};
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::{Limits, Verdict, Worker, report};
use proptest::prelude::*;

/// One thing that happens to a dataplane.
#[derive(Clone, Debug)]
enum Step {
    /// A packet of a flow, in its first direction.
    Send { flow: usize, flags: u8, worker: usize, payload: usize, cut: Cut },
    /// A fragment of a datagram of a flow: one of the sender's, or one that overlaps them.
    Piece { flow: usize, flags: u8, worker: usize, identification: u16, part: usize, shift: u16, keep: usize },
    /// An answer to the last packet that a link received, by swapping its ends.
    Reply { flags: u8, worker: usize },
    /// An ICMP error about the last packet that a link received.
    Refuse { worker: usize },
    /// A push that turns something on or off.
    Push(usize),
    /// Time.
    Pass(u64),
    /// Only for the cached side: caches are dropped.
    DropCaches,
}

/// Whether a packet may be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    May,
    MustNot,
}

/// What became of a step.
#[derive(Debug, PartialEq)]
enum Ran {
    NoPacket,
    Held,
    Done(Outcome),
}

const FLOWS: &[(LinkId, &str, &str)] = &[
    (APP.1, "10.0.2.20:5000", "203.0.113.5:443"),
    (APP.1, "10.0.2.20:5001", "203.0.113.5:443"),
    (APP.1, "10.0.2.20:5000", "10.0.2.30:5432"),
    (APP.1, "10.0.2.20:5000", "10.0.1.10:80"),
    (WEB.1, "10.0.1.10:5000", "10.0.2.30:5432"),
    (WEB.1, "10.0.1.10:5000", "203.0.113.5:443"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.10:80"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.20:80"),
    (APP.1, "10.0.2.20:5000", "198.51.100.10:80"),
    (DB.1, "10.0.2.30:5000", "203.0.113.5:443"),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop_oneof![
        3 => Just(TcpFacts::SYN),
        2 => Just(TcpFacts::SYN | TcpFacts::ACK),
        8 => Just(TcpFacts::ACK),
        1 => Just(TcpFacts::FIN | TcpFacts::ACK),
        1 => Just(TcpFacts::RST),
        // Beyond TCP's flags: UDP, echo request.
        3 => Just(0x40),
        1 => Just(0x80),
    ];
    let step = prop_oneof![
        8 => (0..FLOWS.len(), flags.clone(), 0..2_usize, prop_oneof![Just(0), Just(1400), Just(1480), Just(3000)], prop_oneof![Just(Cut::MustNot), Just(Cut::May)])
            .prop_map(|(flow, flags, worker, payload, cut)| Step::Send { flow, flags, worker, payload, cut }),
        8 => (0..FLOWS.len(), prop_oneof![6 => Just(0x40), 1 => Just(0x80), 1 => Just(TcpFacts::SYN)], 0..2_usize, 0..2_u16, 0..3_usize,
            prop_oneof![9 => Just(0_u16), 1 => Just(1)], prop_oneof![9 => Just(usize::MAX), 1 => 0..60_usize])
            .prop_map(|(flow, flags, worker, identification, part, shift, keep)| {
                Step::Piece { flow, flags, worker, identification, part, shift, keep }
            }),
        8 => (flags, 0..2_usize).prop_map(|(flags, worker)| Step::Reply { flags, worker }),
        1 => (0..2_usize).prop_map(|worker| Step::Refuse { worker }),
        1 => (0..8_usize).prop_map(Step::Push),
        2 => prop_oneof![Just(1), Just(29_999), Just(30_000), Just(60_000), Just(180_000), Just(350_000), Just(432_000_000)].prop_map(Step::Pass),
        1 => Just(Step::DropCaches),
    ];
    prop::collection::vec(step, 1..80)
}

fn packet(flags: u8, source: &str, destination: &str, payload: usize) -> Vec<u8> {
    match flags {
        0x40 => udp(source, destination, &vec![7; payload]),
        0x80 => {
            let host = |end: &str| end.split(':').next().unwrap().to_owned();
            ping(Echo::Request, &host(source), &host(destination), 9, 1)
        }
        flags => {
            let facts =
                TcpFacts { flags, sequence: 1, acknowledgement: 1, window: 100, payload: payload as u32 };
            craft::tcp_segment(facts, source, destination)
        }
    }
}

fn push(net: &mut Fabric, what: usize) {
    net.push(|rows| lab::change(rows, what));
}

/// Carries out a step; says what became of the packet, if one was sent.
fn run(net: &mut Fabric, last: &mut Option<(LinkId, Vec<u8>)>, step: &Step) -> Ran {
    let Some((worker, link, bytes)) = packet_of(net, last, step) else { return Ran::NoPacket };
    let Some(outcome) = net.offer_on(worker, link, bytes, Offload::default()) else { return Ran::Held };
    let whole = |bytes: &[u8]| parse(bytes, Offload::default()).is_ok_and(|packet| packet.fragment.is_none());
    if let Ok(link) = outcome.verdict
        && whole(&outcome.bytes)
    {
        *last = Some((link, outcome.bytes.clone()));
    }
    Ran::Done(outcome)
}

/// The packet that a step sends, and where; carries out the steps that send none.
fn packet_of(
    net: &mut Fabric,
    last: &Option<(LinkId, Vec<u8>)>,
    step: &Step,
) -> Option<(usize, LinkId, Vec<u8>)> {
    Some(match step {
        Step::Send { flow, flags, worker, payload, cut } => {
            let (link, source, destination) = FLOWS[*flow];
            let bytes = packet(*flags, source, destination, *payload);
            let bytes = if *cut == Cut::May { craft::fragmentable(bytes) } else { bytes };
            (*worker, link, bytes)
        }
        Step::Piece { flow, flags, worker, identification, part, shift, keep } => {
            let (link, source, destination) = FLOWS[*flow];
            let whole = match *flags {
                0x80 => craft::other(
                    Protocol(1),
                    source.split(':').next()?,
                    destination.split(':').next()?,
                    &[8; 3000],
                ),
                flags => packet(flags, source, destination, 3000),
            };
            let mut bytes = craft::fragments(&whole, *identification, 1480).swap_remove(*part);
            let start = u16::from_be_bytes([bytes[6], bytes[7]]) + shift;
            bytes[6..8].copy_from_slice(&start.to_be_bytes());
            bytes.truncate(*keep);
            (*worker, link, if bytes.len() < 20 { bytes } else { craft::seal(bytes) })
        }
        Step::Reply { flags, worker } => {
            let (link, received) = last.clone()?;
            let parsed = localvpc_engine::packet::parse(&received, Offload::default()).unwrap();
            let tuple = parsed.tuple.reversed();
            let end = |address, port| format!("{address}:{port}");
            let bytes = match parsed.kind {
                localvpc_engine::packet::Kind::Tcp(_) => {
                    let flags = if *flags >= 0x40 { TcpFacts::ACK } else { *flags };
                    packet(
                        flags,
                        &end(tuple.source, tuple.source_port),
                        &end(tuple.destination, tuple.destination_port),
                        0,
                    )
                }
                localvpc_engine::packet::Kind::Udp => packet(
                    0x40,
                    &end(tuple.source, tuple.source_port),
                    &end(tuple.destination, tuple.destination_port),
                    10,
                ),
                localvpc_engine::packet::Kind::IcmpEcho(_) => ping(
                    Echo::Reply,
                    &tuple.source.to_string(),
                    &tuple.destination.to_string(),
                    tuple.source_port,
                    1,
                ),
                _ => return None,
            };
            (*worker, link, bytes)
        }
        Step::Refuse { worker } => {
            let (link, received) = last.clone()?;
            let source =
                localvpc_engine::packet::parse(&received, Offload::default()).unwrap().tuple.destination;
            (*worker, link, craft::port_unreachable(&source.to_string(), &received))
        }
        Step::Push(what) => {
            push(net, *what);
            return None;
        }
        Step::Pass(ms) => {
            net.now.0 += ms;
            return None;
        }
        Step::DropCaches => {
            net.workers.iter_mut().for_each(Worker::drop_cache);
            return None;
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4096, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_changes_no_packet_and_no_state(steps in steps()) {
        let limits = Limits { connections: 1000, leases: 1000 };
        let uncached = vec![Worker::with_cache(0, 5, 0), Worker::with_cache(1, 6, 0)];
        let mut without = Fabric::with_workers(lab::tables(), uncached, limits);
        // Four flows: entries get evicted all the time.
        let small = vec![Worker::with_cache(0, 5, 4), Worker::with_cache(1, 6, 4)];
        let mut with_small = Fabric::with_workers(lab::tables(), small, limits);
        let large = vec![Worker::with_cache(0, 5, 1000), Worker::with_cache(1, 6, 1000)];
        let mut with_large = Fabric::with_workers(lab::tables(), large, limits);
        let mut last = [None, None, None];
        for step in &steps {
            let expected = run(&mut without, &mut last[0], step);
            prop_assert_eq!(&run(&mut with_small, &mut last[1], step), &expected, "{:?}", step);
            prop_assert_eq!(&run(&mut with_large, &mut last[2], step), &expected, "{:?}", step);
        }
        for with in [&with_small, &with_large] {
            prop_assert_eq!(report::connections(&with.state, with.now), report::connections(&without.state, without.now));
            prop_assert_eq!(report::leases(&with.state, with.now), report::leases(&without.state, without.now));
            prop_assert_eq!(report::enis(&with.tables), report::enis(&without.tables));
            prop_assert_eq!(report::discards(&with.state), report::discards(&without.state));
            prop_assert_eq!(
                report::nat_gateways(&with.tables, &with.state, with.now),
                report::nat_gateways(&without.tables, &without.state, without.now)
            );
        }
    }

    /// Packets in batches of any size meet the same fate, in the same order, as one after the other.
    #[test]
    fn a_batch_is_its_packets_one_after_the_other(steps in steps(), sizes in prop::collection::vec(1..70_usize, 1..9), flows in prop_oneof![Just(0_usize), Just(4), Just(1000)]) {
        let limits = Limits { connections: 1000, leases: 1000 };
        let fabric = || Fabric::with_workers(lab::tables(), vec![Worker::with_cache(0, 5, flows)], limits);
        let (mut single, mut batched) = (fabric(), fabric());
        let mut sizes = sizes.iter().cycle();
        let (mut last, mut waiting, mut expected) = (None, Vec::new(), Vec::new());
        for step in steps.iter().chain([&Step::Pass(0)]) {
            let Some((_, link, bytes)) = packet_of(&mut single, &last, step) else {
                while !waiting.is_empty() {
                    let size = (*sizes.next().unwrap()).min(waiting.len());
                    let outcomes = batched.offer_batch(0, waiting.drain(..size).collect());
                    let expected: Vec<_> = expected.drain(..size).collect();
                    prop_assert_eq!(outcomes, expected);
                }
                packet_of(&mut batched, &None, step);
                continue;
            };
            waiting.push((link, bytes.clone(), Offload::default()));
            let outcome = single.offer_on(0, link, bytes, Offload::default());
            if let Some(Outcome { verdict: Ok(link), bytes, .. }) = &outcome
                && parse(bytes, Offload::default()).is_ok_and(|packet| packet.fragment.is_none())
            {
                last = Some((*link, bytes.clone()));
            }
            expected.push(outcome);
        }
        prop_assert_eq!(report::connections(&batched.state, batched.now), report::connections(&single.state, single.now));
        prop_assert_eq!(report::leases(&batched.state, batched.now), report::leases(&single.state, single.now));
        prop_assert_eq!(report::enis(&batched.tables), report::enis(&single.tables));
        prop_assert_eq!(report::discards(&batched.state), report::discards(&single.state));
        prop_assert_eq!(
            report::nat_gateways(&batched.tables, &batched.state, batched.now),
            report::nat_gateways(&single.tables, &single.state, single.now)
        );
        let packets = |net: &Fabric| net.workers[0].counters().packets.value();
        prop_assert_eq!(packets(&batched), packets(&single));
    }

    #[test]
    fn the_same_push_twice_is_the_same_as_once(steps in steps()) {
        let limits = Limits { connections: 1000, leases: 1000 };
        let workers = || vec![Worker::new(0, 5), Worker::new(1, 6)];
        let mut once = Fabric::with_workers(lab::tables(), workers(), limits);
        let mut twice = Fabric::with_workers(lab::tables(), workers(), limits);
        let mut last = [None, None];
        for step in &steps {
            let expected = run(&mut once, &mut last[0], step);
            prop_assert_eq!(run(&mut twice, &mut last[1], step), expected);
            twice.push(|_| {});
        }
    }

    #[test]
    fn every_packet_has_one_verdict_and_every_discard_is_counted(steps in steps()) {
        let mut net = Fabric::new(lab::tables());
        let mut last = None;
        let (mut refused, mut held, mut released) = (0_u64, 0_u64, 0_u64);
        for step in &steps {
            match run(&mut net, &mut last, step) {
                Ran::NoPacket => {}
                Ran::Held => held += 1,
                Ran::Done(outcome) => {
                    refused += u64::from(outcome.verdict.is_err());
                    if outcome.verdict.is_ok() {
                        prop_assert!(outcome.answers.is_empty());
                        prop_assert!(outcome.bytes.is_empty() <= (outcome.fragments.len() > 1), "cut, so into several");
                    }
                    if !outcome.bytes.is_empty() {
                        released += outcome.fragments.len() as u64;
                    }
                }
            }
        }
        let leases = report::leases(&net.state, net.now);
        net.pass_ms(LIFETIME_MS);
        prop_assert_eq!((net.state.fragments.len(), net.state.fragments.held()), (0, Amount::default()));
        // What was held back has left or was discarded.
        let ended = refused + held - released;
        let discarded: u64 = report::discards(&net.state).iter().map(|row| row.packets).sum();
        // An answer that is itself discarded is counted too.
        prop_assert!(ended <= discarded && discarded <= ended + refused, "{ended} {discarded} {refused}");
        let reverse: HashSet<_> = leases
            .iter()
            .map(|lease| (lease.nat_gateway, lease.address, lease.port, lease.protocol, lease.inside.destination, lease.inside.destination_port))
            .collect();
        prop_assert_eq!(reverse.len(), leases.len(), "no two live leases share a reverse tuple");
    }
}

#[test]
fn two_workers_at_once_agree_about_one_connection() {
    // Both see the first packet of the same connections at the same time: each must end up with one lease.
    let net = Fabric::new(lab::tables());
    let start = Barrier::new(2);
    let run = |index: usize| {
        let mut worker = Worker::new(index, index as u64);
        let mut ports = Vec::new();
        for port in 1024..3024_u16 {
            start.wait();
            let mut bytes = udp(format!("10.0.2.20:{port}").as_str(), "203.0.113.5:53", b"");
            let verdict =
                worker.forward(&net.tables, &net.state, APP.1, &mut bytes, Offload::default(), net.now);
            assert!(matches!(verdict, Verdict::Forward { link: INTERNET, .. }), "{verdict:?}");
            ports.push(u16::from_be_bytes([bytes[20], bytes[21]]));
        }
        ports
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        (run(0), other.join().unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(net.state.leases.len(), 2000);
    assert_eq!(net.state.connections.len(), 2000);
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let workers = vec![Worker::new(0, 1)];
    let mut net = Fabric::with_workers(lab::tables(), workers, Limits { connections: 3, leases: 2 });
    let send = |net: &mut Fabric, port: u16| {
        net.send(APP.1, tcp(TcpFacts::SYN, format!("10.0.2.20:{port}").as_str(), "203.0.113.5:443")).verdict
    };
    assert_eq!(send(&mut net, 1), Ok(INTERNET));
    assert_eq!(send(&mut net, 2), Ok(INTERNET));
    assert_eq!(send(&mut net, 3), Err(DiscardReason::LeaseTableFull));
    assert_eq!(net.state.connections.len(), 2, "the connection of the refused packet was taken back");
    assert_eq!(send(&mut net, 1), Ok(INTERNET), "RFC 6888 REQ-11D");
    assert!(
        net.send(APP.1, tcp(TcpFacts::SYN, "10.0.2.20:9", "10.0.2.30:5432")).verdict
            == Err(DiscardReason::ConnectionTableFull)
    );
}

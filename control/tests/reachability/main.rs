//! The analysis against two others that answer the same question: a naive evaluator written straight from the facts,
//! and the dataplane's engine.
//!
//! Random labs and random packets; the evaluator ([`facts`]) walks one packet with its ports, the analysis all of them at
//! once. They share no code: [`world`] makes a lab in a form of its own, from which the evaluator reads, and [`rows`]
//! turns it into the tables that analysis and engine get.
//!
//! `CASES` is how many packets are tried, 100,000 where it is not set; `SEED` repeats a run.

mod facts;
mod random;
mod rows;
mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use localvpc::analysis::{self, Case, Destination, Fabric, Outcome, Question, Ranges, Source, Way};
use localvpc_api::trace::{Decision, Protocol, TraceOutcome, TraceReport, TraceRequest, Tuple};
use localvpc_engine::Time;
use localvpc_engine::metrics::Metrics;
use localvpc_engine::state::{Limits, State};

use facts::{Fate, Packet};
use random::Random;
use world::{End, World};

/// Packets that are tried in one lab.
const PACKETS: u64 = 8;

/// RA-1 and RA-12: the rows alone say what becomes of TCP, UDP, ICMP and another protocol.
#[test]
fn three_ways_to_one_answer() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = setting("CASES").unwrap_or(100_000);
    let seed = setting("SEED").unwrap_or(1);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for lab in 0.. {
        // Some of the packets that are thought of are none: the kernel delivers them by itself.
        if seen.values().sum::<u64>() >= cases {
            break;
        }
        let mut random = Random::new(seed.wrapping_mul(1_000_003) + lab);
        let world = World::random(&mut random);
        let rows = rows::of(&world);
        let fabric = Fabric::new(&rows.tables);
        let tables = localvpc_engine::tables::build(&rows.tables, &Metrics::default())
            .unwrap_or_else(|error| panic!("SEED={seed}, lab {lab}: {error:?}\n{world:#?}"));
        for _ in 0..PACKETS {
            let Some(asked) = Asked::random(&world, &mut random) else { continue };
            let question = asked.question(&rows);
            let analysis = analysis::analyse_in(&fabric, &question);
            let case = asked.case(&analysis);
            let (fate, _) = facts::fate(&world, asked.from, asked.packet, &asked.nat_ports);
            *seen.entry(label(&fate)).or_default() += 1;
            let about = || format!("SEED={seed}, lab {lab}: {asked:?}\n{world:#?}\n{case:#?}");
            agree(case, &fate, asked.packet.source_port, &asked.nat_ports, &about);

            // The engine takes a NAT port of its own; the evaluator is asked about that one.
            let Some(link) = rows.link(asked.from) else { continue };
            let report = localvpc_engine::trace::trace(
                &tables,
                &State::new(Limits { connections: 16, leases: 16 }),
                &TraceRequest { link, tuple: asked.packet.tuple(), reply: true },
                Time(1),
            );
            let nat_ports = nat_ports(&report);
            let (fate, _) = facts::fate(&world, asked.from, asked.packet, &nat_ports);
            agree(case, &fate, asked.packet.source_port, &nat_ports, &about);
            engine_agrees(&fate, &report, asked.packet, &about);
        }
    }
    println!("{seen:#?}");
    if cases >= 10_000 {
        // What never happens is not tested.
        for code in EXPECTED {
            assert!(seen.contains_key(*code), "nothing ended as {code}: {seen:?}");
        }
        let reached = seen["reached"] * 100 / seen.values().sum::<u64>();
        assert!((5..=95).contains(&reached), "{reached}% reach their destination: {seen:?}");
    }
}

/// How packets should end, at least one each.
const EXPECTED: &[&str] = &[
    "reached",
    "forwarded",
    "ENI_SG_RULES_MISMATCH",
    "SG_HAS_NO_RULES",
    "SUBNET_ACL_RESTRICTION",
    "NO_ROUTE_TO_DESTINATION",
    "BAD_STATE_ROUTE",
    "NO_POSSIBLE_DESTINATION",
    "ENI_SOURCE_DEST_CHECK_RESTRICTION",
    "ROUTING_LOOP",
    "PROTOCOL_RESTRICTION",
    "NGW_NO_CONNECTION",
    "NGW_SOURCE_ADDRESS_REASSIGN",
    "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS",
    "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS",
    "IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS",
    "INTERNET_HOST_UNKNOWN",
];

/// A packet and who sends it to whom.
#[derive(Debug)]
struct Asked {
    from: End,
    packet: Packet,
    /// The ports that NAT gateways take, in the order of the way.
    nat_ports: Vec<u16>,
    /// Whether the analysis is asked about the whole internet.
    open: bool,
}

impl Asked {
    fn random(world: &World, random: &mut Random) -> Option<Self> {
        let (from, source) = world.sender(random);
        let destination = world.destination(random, from);
        let is_host = |address: u32| world.hosts.contains(&address);
        // What a kernel delivers by itself is no packet.
        if source == destination || matches!(from, End::Host(_)) && is_host(destination) {
            return None;
        }
        let protocol = *random.of(&[6, 6, 6, 17, 17, 1, 47]);
        let (source_port, port) = match protocol {
            6 | 17 => (random.port(), *random.of(&[22, 53, 80, 443, 5432, 8080])),
            _ => (0, 0),
        };
        let packet =
            Packet { source, destination, source_port, destination_port: port, protocol, is_reply: false };
        let nat_ports = (0..4).map(|_| random.port().max(1024)).collect();
        let open = matches!(from, End::Host(_)) && random.one_in(3);
        Some(Self { from, packet, nat_ports, open })
    }

    fn question(&self, rows: &rows::Rows) -> Question {
        Question {
            from: match self.from {
                End::Instance(vpc, instance) => Source::Eni(rows.eni(vpc, instance)),
                End::Host(_) if self.open => Source::Internet,
                End::Host(address) => Source::Host(address.into()),
            },
            // The one from which an interface sends that is not told otherwise is its first.
            source_address: matches!(self.from, End::Instance(..)).then_some(self.packet.source.into()),
            to: Destination::Address(Ipv4Addr::from(self.packet.destination)),
            protocol: Protocol(self.packet.protocol),
            ports: Ranges::one(self.packet.destination_port.into()),
            source_ports: Ranges::of(1024, 65_535),
        }
    }

    /// The case of an analysis that the packet belongs to.
    fn case<'a>(&self, analysis: &'a analysis::Analysis) -> &'a Case {
        let of = |case: &&Case| {
            case.addresses.as_ref().is_none_or(|addresses| addresses.contains(self.packet.source))
        };
        analysis.cases.iter().find(of).expect("every address of the internet is in a case")
    }
}

/// Whether the analysis says of this packet what the evaluator says.
fn agree(case: &Case, fate: &Fate, source_port: u16, nat_ports: &[u16], about: &impl Fn() -> String) {
    let chosen = [&[source_port][..], nat_ports].concat();
    let bad = case.ports.iter().zip(&chosen).any(|(open, port)| !open.good.contains((*port).into()));
    let codes: Vec<&str> = case.findings.iter().map(|finding| finding.code.as_str()).collect();
    match fate {
        Fate::Reached => {
            assert!(!bad && [Outcome::Reachable, Outcome::Partial].contains(&case.outcome), "{}", about());
        }
        Fate::Forwarded(_) => assert!(!bad && case.outcome == Outcome::Undecidable, "{}", about()),
        Fate::Dropped(code, way) => {
            assert!(bad || case.outcome == Outcome::Blocked, "dropped: {code}\n{}", about());
            let way = if *way == facts::Way::There { Way::Forward } else { Way::Back };
            let told = case.findings.iter().any(|it| it.code.as_str() == *code && it.way == way);
            assert!(told, "{code} on the way {way:?} is not among {codes:?}\n{}", about());
        }
    }
}

/// Whether the engine does what the evaluator says.
fn engine_agrees(fate: &Fate, report: &TraceReport, sent: Packet, about: &impl Fn() -> String) {
    let code = |outcome: TraceOutcome| match outcome {
        TraceOutcome::Discarded(reason) => Some(reason.code()),
        TraceOutcome::Delivered(_) => None,
    };
    let forward = code(report.forward.outcome);
    let back = report.reply.as_ref().and_then(|reply| code(reply.outcome));
    let about = || format!("{fate:?}\n{report:#?}\n{}", about());
    match fate {
        Fate::Reached => {
            assert_eq!((forward, back), (None, None), "{}", about());
            let came = report.reply.as_ref().and_then(|reply| reply.steps.last()).expect("a reply");
            assert_eq!(came.tuple.source, sent.tuple().destination, "{}", about());
        }
        // The engine's trace ends at the instance, and has it reply.
        Fate::Forwarded(facts::Way::There) => assert_eq!(forward, None, "{}", about()),
        Fate::Forwarded(facts::Way::Back) => assert_eq!((forward, back), (None, None), "{}", about()),
        Fate::Dropped(dropped, facts::Way::There) => assert_eq!(forward, Some(*dropped), "{}", about()),
        // A datagram goes on, as somebody else's.
        Fate::Dropped("NGW_SOURCE_ADDRESS_REASSIGN", _) => assert_eq!(forward, None, "{}", about()),
        Fate::Dropped(dropped, facts::Way::Back) => {
            assert_eq!((forward, back), (None, Some(*dropped)), "{}", about());
        }
    }
}

/// The source ports that NAT gateways have taken for a packet.
fn nat_ports(report: &TraceReport) -> Vec<u16> {
    let taken = report.forward.steps.iter().filter_map(|step| match step.decision {
        Decision::NatGateway { translated: Some(translated), .. } => Some(translated.source_port),
        _ => None,
    });
    let mut ports: Vec<u16> = taken.collect();
    // For gateways on the way that it did not come to.
    ports.resize(ports.len().max(8), 1024);
    ports
}

impl Packet {
    fn tuple(self) -> Tuple {
        let address = |address: u32| IpAddr::V4(address.into());
        Tuple {
            source: address(self.source),
            destination: address(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: Protocol(self.protocol),
        }
    }
}

fn label(fate: &Fate) -> String {
    match fate {
        Fate::Reached => "reached".into(),
        Fate::Forwarded(_) => "forwarded".into(),
        Fate::Dropped(code, _) => (*code).into(),
    }
}

//! Polling, merging, batches and the flow cache change when and how packets are written, and nothing else: every flow's segments are the same, and so
//! are connections, leases and counters afterwards.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use localvpc_api::message::Offload as Framing;
use localvpc_api::report::{Discards, EniCounters, NatGatewayCounters};
use localvpc_api::settings::{Merge, Poll, Settings};
use localvpc_api::{Generation, LinkId, Tables};
use localvpc_dataplane::device::memory::{MemoryDevice, Packet};
use localvpc_dataplane::device::{Arrival, Batch, Device, NO_OFFLOAD, Outgoing, Written};
use localvpc_dataplane::fleet::Fleet;
use localvpc_dataplane::links::Link;
use localvpc_engine::Worker;
use localvpc_engine::merge::Takes;
use localvpc_engine::packet::{Segmentation, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::segment::{Unfit, segment};
use localvpc_engine::tables::build;
use localvpc_engine::testing::{craft, lab};
use proptest::prelude::*;

/// More than any wait takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device whose read of the first packet waits for the test, so that what is sent meanwhile waits with it.
struct Gate {
    device: MemoryDevice,
    reached: Arc<Barrier>,
    opened: Arc<Barrier>,
}

impl Device for Gate {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        let arrival = self.device.read(batch)?;
        if arrival == Arrival::Packet {
            batch.pop();
            self.reached.wait();
            self.opened.wait();
        }
        Ok(Arrival::Nothing)
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        self.device.write(packet)
    }

    fn takes(&self) -> Takes {
        self.device.takes()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.descriptor()
    }
}

/// One worker between devices in memory, under the tables of the worked packet walks.
struct Net {
    fleet: Fleet,
    app: MemoryDevice,
    db: MemoryDevice,
    internet: MemoryDevice,
    gate: MemoryDevice,
    reached: Arc<Barrier>,
    opened: Arc<Barrier>,
}

impl Net {
    fn new(settings: Settings, cached_flows: usize, takes: Takes) -> Self {
        let engine = |index, seed| Worker::with_cache(index, seed, cached_flows);
        let fleet = Fleet::start_with(1, 7, engine).unwrap();
        let rows = Tables { generation: Generation(1), ..lab::tables() };
        fleet.install(build(&rows, &fleet.state().metrics).unwrap()).unwrap();
        fleet.configure(settings).unwrap();
        let attach = |link: LinkId, device: Box<dyn Device>| {
            fleet.attach(Link::new(link, Framing::VirtioHeader, vec![device])).unwrap();
        };
        let device = || MemoryDevice::new(10_000).unwrap().taking(takes);
        let (app, db, internet, gate) = (device(), device(), device(), device());
        let (reached, opened) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        attach(lab::APP.1, Box::new(app.clone()));
        attach(lab::DB.1, Box::new(db.clone()));
        attach(lab::INTERNET, Box::new(internet.clone()));
        let (reached_too, opened_too) = (reached.clone(), opened.clone());
        attach(lab::WEB.1, Box::new(Gate { device: gate.clone(), reached: reached_too, opened: opened_too }));
        Self { fleet, app, db, internet, gate, reached, opened }
    }

    /// Does something while the worker stands still.
    fn meanwhile(&self, act: impl FnOnce()) {
        self.gate.send(b"", NO_OFFLOAD);
        self.reached.wait();
        act();
        self.opened.wait();
    }

    /// Takes the worker once through its loop: it counts after it writes.
    fn pass(&self) {
        self.fleet.detach(LinkId(9999)).unwrap();
    }

    /// What there is to know once everything has been delivered.
    fn known(&self) -> Known {
        let (tables, state) = (self.fleet.tables(), self.fleet.state());
        let now = localvpc_dataplane::clock::now().into();
        let mut nat_gateways = report::nat_gateways(&tables, state, now);
        for gateway in &mut nat_gateways {
            // What passed within a time says something about the time, too.
            (gateway.peak_bytes_per_second, gateway.peak_packets_per_second) = (0, 0);
        }
        Known {
            enis: report::enis(&tables),
            nat_gateways,
            discards: report::discards(state),
            connections: state.connections.len(),
            leases: state.leases.len(),
        }
    }

    fn merged(&self) -> u64 {
        self.pass();
        self.fleet.link_counters().iter().map(|link| link.merged).sum()
    }
}

/// Everything that is counted and remembered.
#[derive(Debug, PartialEq)]
struct Known {
    enis: Vec<EniCounters>,
    nat_gateways: Vec<NatGatewayCounters>,
    discards: Vec<Discards>,
    connections: usize,
    leases: usize,
}

/// A packet of one of the flows.
#[derive(Clone, Debug)]
struct Step {
    flow: Flow,
    /// Data bytes; of a super-packet, of each segment.
    size: u16,
    /// Segments; more than 1: a super-packet.
    segments: u16,
    push: bool,
    partial: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flow {
    /// From `app` to `db`, over TCP; one of two connections.
    ToDatabase(u16),
    /// The other way.
    FromDatabase(u16),
    /// From `app` to the internet, over UDP and through the NAT gateway.
    ToInternet(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = (0..3u8, 0..2u16).prop_map(|(kind, number)| match kind {
        0 => Flow::ToDatabase(number),
        1 => Flow::FromDatabase(number),
        _ => Flow::ToInternet(number),
    });
    let size = prop_oneof![4 => Just(100u16), 1 => Just(60u16), 1 => 1..200u16];
    let step =
        (flow, size, prop_oneof![4 => Just(1u16), 1 => 2..5u16], prop::bool::weighted(0.1), any::<bool>());
    proptest::collection::vec(step, 1..60).prop_map(|steps| {
        let step = |(flow, size, segments, push, partial)| Step { flow, size, segments, push, partial };
        steps.into_iter().map(step).collect()
    })
}

const DATABASE: &str = "10.0.2.30:5432";

fn client(number: u16) -> String {
    format!("10.0.2.20:{}", 2000 + number)
}

/// The packets of the steps, each with whether it is sent by `db` (or else by `app`).
fn packets(steps: &[Step]) -> Vec<(bool, Packet)> {
    let mut sent: BTreeMap<Flow, u32> = BTreeMap::new();
    steps
        .iter()
        .map(|step| {
            let payload = u32::from(step.size) * u32::from(step.segments);
            let at = sent.entry(step.flow).or_insert(0);
            let facts = TcpFacts {
                flags: TcpFacts::ACK | if step.push { TcpFacts::PSH } else { 0 },
                sequence: 1001 + *at,
                acknowledgement: 1001,
                window: 64240,
                payload,
            };
            let (from_db, bytes, segmentation) = match step.flow {
                Flow::ToDatabase(number) => {
                    let bytes = craft::tcp_segment(facts, client(number).as_str(), DATABASE);
                    (false, bytes, Segmentation::TcpV4 { size: step.size })
                }
                Flow::FromDatabase(number) => {
                    let bytes = craft::tcp_segment(facts, DATABASE, client(number).as_str());
                    (true, bytes, Segmentation::TcpV4 { size: step.size })
                }
                Flow::ToInternet(number) => {
                    let data: Vec<u8> = (0..payload).map(|byte| (*at + byte) as u8).collect();
                    let bytes = craft::udp(client(number).as_str(), "203.0.113.5:53", &data);
                    (false, bytes, Segmentation::Udp { size: step.size })
                }
            };
            *at += payload;
            let (bytes, offload) = match (step.segments, step.partial) {
                (1, false) => (bytes, NO_OFFLOAD),
                (1, true) => craft::offloaded(bytes, Segmentation::None),
                _ => craft::offloaded(bytes, segmentation),
            };
            (from_db, Packet { bytes, offload })
        })
        .collect()
}

/// What was delivered: by receiver, protocol and ports, the segments in their order.
type Delivered = BTreeMap<(u8, Vec<u8>), Vec<Vec<u8>>>;

/// Takes as many segments as there are from all devices.
fn delivered(net: &Net, segments: usize) -> Delivered {
    let mut delivered = Delivered::new();
    let (mut found, mut nothing) = (0, 0);
    for (number, device) in [&net.app, &net.db, &net.internet].into_iter().enumerate().cycle() {
        let patience = if nothing < 3 { Duration::ZERO } else { PATIENCE / 1000 };
        let Some(Packet { mut bytes, offload }) = device.receive(patience) else {
            nothing += 1;
            assert!(nothing < 3000, "{found} of {segments} segments came");
            continue;
        };
        nothing = 0;
        segment(&mut bytes, offload, |packet| {
            let mut packet = packet.to_vec();
            // DF is set on all, so that the identification means nothing (RFC 6864 §4.1).
            packet[4..6].fill(0);
            packet[10..12].fill(0);
            delivered.entry((number as u8, packet[9..24].to_vec())).or_default().push(packet);
            found += 1;
            Ok::<_, Unfit>(())
        })
        .unwrap();
        if found == segments {
            break;
        }
    }
    for device in [&net.app, &net.db, &net.internet] {
        assert_eq!(device.receive(Duration::ZERO), None, "more than was sent");
    }
    delivered
}

/// How the packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    OneByOne,
    AllAtOnce,
}

fn run(net: &Net, steps: &[Step], coming: Coming) -> Delivered {
    for number in 0..2 {
        net.app.send(&craft::tcp(TcpFacts::SYN, client(number).as_str(), DATABASE), NO_OFFLOAD);
        net.db.receive(PATIENCE).expect("the SYN");
        let answer = craft::tcp(TcpFacts::SYN | TcpFacts::ACK, DATABASE, client(number).as_str());
        net.db.send(&answer, NO_OFFLOAD);
        net.app.receive(PATIENCE).expect("the SYN-ACK");
        net.app.send(&craft::tcp(TcpFacts::ACK, client(number).as_str(), DATABASE), NO_OFFLOAD);
        net.db.receive(PATIENCE).expect("the ACK");
    }
    let packets = packets(steps);
    let send = |(from_db, packet): &(bool, Packet)| {
        let device = if *from_db { &net.db } else { &net.app };
        device.send(&packet.bytes, packet.offload);
    };
    if coming == Coming::AllAtOnce {
        net.meanwhile(|| packets.iter().for_each(send));
        return delivered(net, steps.iter().map(|step| usize::from(step.segments)).sum());
    }
    let mut all = Delivered::new();
    for (step, packet) in steps.iter().zip(&packets) {
        send(packet);
        for (flow, mut segments) in delivered(net, step.segments.into()) {
            all.entry(flow).or_default().append(&mut segments);
        }
    }
    all
}

const PLAIN: Settings = Settings { poll: Poll::Block, merge: Merge::Off };

/// What differs beside the settings: flows that the cache holds, what receivers take, and how packets come.
fn circumstances() -> impl Strategy<Value = (usize, Takes, Coming)> {
    let cached_flows = prop_oneof![Just(0), Just(1), Just(1 << 10)];
    let takes = prop_oneof![Just(Takes::Tcp), Just(Takes::TcpAndUdp)];
    let coming = prop_oneof![1 => Just(Coming::OneByOne), 3 => Just(Coming::AllAtOnce)];
    (cached_flows, takes, coming)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_flow_is_delivered_alike_under_all_settings(
        steps in steps(),
        (cached_flows, takes, coming) in circumstances(),
    ) {
        let plain = Net::new(PLAIN, 0, Takes::Nothing);
        let expected = run(&plain, &steps, Coming::OneByOne);
        let known = plain.known();
        prop_assert!(known.connections >= 2 && known.enis.iter().any(|eni| eni.sent.bytes > 0));
        for poll in [Poll::Adaptive, Poll::Busy, Poll::Block] {
            for merge in [Merge::On, Merge::Off] {
                let net = Net::new(Settings { poll, merge }, cached_flows, takes);
                let found = run(&net, &steps, coming);
                prop_assert_eq!(&found, &expected, "polling {}, merging {}", poll, merge);
                prop_assert_eq!(&net.known(), &known, "polling {}, merging {}", poll, merge);
                if merge == Merge::Off || coming == Coming::OneByOne {
                    prop_assert_eq!(net.merged(), 0);
                }
            }
        }
    }
}

#[test]
fn what_waits_together_leaves_together_and_is_counted() {
    let flow = |size| Step { flow: Flow::ToInternet(0), size, segments: 1, push: false, partial: true };
    let steps: Vec<_> = (0..10).map(|_| flow(100)).collect();
    let merged = |merge, takes| {
        let net = Net::new(Settings { merge, ..PLAIN }, 1 << 10, takes);
        run(&net, &steps, Coming::AllAtOnce);
        net.pass();
        let link = net.fleet.link_counters().into_iter().find(|link| link.link == lab::INTERNET).unwrap();
        (link.writes, link.merged, link.written_bytes)
    };
    assert_eq!(merged(Merge::On, Takes::TcpAndUdp), (1, 10, 28 + 1000));
    assert_eq!(merged(Merge::On, Takes::Tcp), (10, 0, 1280));
    assert_eq!(merged(Merge::Off, Takes::TcpAndUdp), (10, 0, 1280));
}

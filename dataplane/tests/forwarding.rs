//! Worker threads between devices in memory: what they carry, count and survive.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use localvpc_api::message::Offload;
use localvpc_api::report::{LinkCounters, WorkerCounters};
use localvpc_api::{DiscardReason, Generation, LinkId, Tables};
use localvpc_dataplane::device::memory::MemoryDevice;
use localvpc_dataplane::device::{Arrival, Batch, Device, NO_OFFLOAD, Outgoing, Written};
use localvpc_dataplane::fleet::Fleet;
use localvpc_dataplane::links::Link;
use localvpc_engine::merge::Takes;
use localvpc_engine::packet::{Segmentation, TcpFacts};
use localvpc_engine::tables::build;
use localvpc_engine::testing::{craft, lab};

/// More than any wait takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Workers under the tables of the worked packet walks.
fn fleet(workers: usize) -> Fleet {
    let fleet = Fleet::start(workers, 1).unwrap();
    install(&fleet, 1);
    fleet
}

fn install(fleet: &Fleet, generation: u64) {
    let rows = Tables { generation: Generation(generation), ..lab::tables() };
    fleet.install(build(&rows, &fleet.state().metrics).unwrap()).unwrap();
}

fn attach(fleet: &Fleet, link: LinkId, queues: Vec<Box<dyn Device>>) {
    fleet.attach(Link::new(link, Offload::VirtioHeader, queues)).unwrap();
}

/// A link with one queue that takes many packets.
fn memory(fleet: &Fleet, link: LinkId) -> MemoryDevice {
    let device = MemoryDevice::new(100_000).unwrap();
    attach(fleet, link, vec![Box::new(device.clone())]);
    device
}

/// A SYN from `app` to `db`, which its security group admits.
fn syn(port: u16) -> Vec<u8> {
    craft::tcp(TcpFacts::SYN, source(port).as_str(), "10.0.2.30:5432")
}

fn source(port: u16) -> String {
    format!("10.0.2.20:{port}")
}

fn received(device: &MemoryDevice) -> Vec<u8> {
    device.receive(PATIENCE).expect("a packet").bytes
}

fn counters(fleet: &Fleet, link: LinkId) -> LinkCounters {
    fleet.link_counters().into_iter().find(|counters| counters.link == link).unwrap()
}

fn discards(fleet: &Fleet, reason: DiscardReason) -> u64 {
    let all = fleet.state().metrics.all_discards();
    all.iter().find(|discards| discards.reason == reason).map_or(0, |discards| discards.packets)
}

/// Waits until `holds`; workers count after they write.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never happened: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_super_packet_passes_unsplit_and_is_counted_by_segments() {
    let fleet = fleet(1);
    let (app, db) = (memory(&fleet, lab::APP.1), memory(&fleet, lab::DB.1));
    app.send(&syn(1000), NO_OFFLOAD);
    assert_eq!(received(&db), syn(1000));
    db.send(&craft::tcp(TcpFacts::SYN | TcpFacts::ACK, "10.0.2.30:5432", "10.0.2.20:1000"), NO_OFFLOAD);
    received(&app);
    let facts = TcpFacts {
        flags: TcpFacts::ACK,
        sequence: 1001,
        acknowledgement: 1001,
        window: 64240,
        payload: 60_000,
    };
    let data = craft::tcp_segment(facts, "10.0.2.20:1000", "10.0.2.30:5432");
    let (data, offload) = craft::offloaded(data, Segmentation::TcpV4 { size: 8949 });
    app.send(&data, offload);
    let arrived = db.receive(PATIENCE).unwrap();
    assert_eq!((arrived.bytes.len(), arrived.offload), (data.len(), offload));
    eventually("the write is counted", || counters(&fleet, lab::DB.1).writes == 2);
    let (from, to) = (counters(&fleet, lab::APP.1), counters(&fleet, lab::DB.1));
    assert_eq!((from.reads, from.read_segments, from.read_bytes), (2, 1 + 7, 40 + 60_040));
    assert_eq!((to.writes, to.written_bytes, to.write_errors), (2, 40 + 60_040, 0));
}

#[test]
fn each_worker_reads_and_writes_its_own_queue() {
    let fleet = fleet(2);
    let device = || MemoryDevice::new(9).unwrap();
    let (app, db) = ([device(), device()], [device(), device()]);
    let queues = |link: &[MemoryDevice; 2]| link.iter().map(|queue| Box::new(queue.clone()) as _).collect();
    attach(&fleet, lab::APP.1, queues(&app));
    attach(&fleet, lab::DB.1, queues(&db));
    for worker in [1, 0] {
        app[worker].send(&syn(worker as u16), NO_OFFLOAD);
        assert_eq!(received(&db[worker]), syn(worker as u16));
    }
    eventually("both have counted", || fleet.worker_counters().iter().all(|worker| worker.packets == 1));
}

#[test]
fn what_the_dataplane_answers_goes_to_the_sender() {
    let fleet = fleet(1);
    let (app, internet) = (memory(&fleet, lab::APP.1), memory(&fleet, lab::INTERNET));
    app.send(&craft::tcp(TcpFacts::SYN, "10.0.2.20:1000", "203.0.113.5:80"), NO_OFFLOAD);
    received(&internet);
    // DF is set and the internet takes 1,500 bytes (MTU-3).
    let facts =
        TcpFacts { flags: TcpFacts::ACK, sequence: 1001, acknowledgement: 0, window: 64240, payload: 1600 };
    app.send(&craft::tcp_segment(facts, "10.0.2.20:1000", "203.0.113.5:80"), NO_OFFLOAD);
    let answer = received(&app);
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4), "ICMP: fragmentation needed");
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1500, "its MTU");
    assert_eq!(discards(&fleet, DiscardReason::TooBig), 1);
}

#[test]
fn what_is_too_big_leaves_in_fragments_and_fragments_wait_for_their_first() {
    let fleet = fleet(1);
    let (web, internet) = (memory(&fleet, lab::WEB.1), memory(&fleet, lab::INTERNET));
    let data: Vec<u8> = (0..4000).map(|at| at as u8).collect();
    let datagram = craft::fragmentable(craft::udp("10.0.1.10:5000", "203.0.113.5:53", &data));
    let joined = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|_| received(&internet).split_off(20)).skip(8).collect()
    };
    web.send(&datagram, NO_OFFLOAD);
    assert_eq!(joined(3), data, "cut here");
    let mut parts = craft::fragments(&datagram, 9, 1480);
    parts.rotate_left(1);
    parts.iter().for_each(|part| web.send(part, NO_OFFLOAD));
    assert_eq!(joined(3), data, "cut by the sender, the first sent last");
    eventually("the writes are counted", || counters(&fleet, lab::INTERNET).writes == 6);
}

#[test]
fn a_full_device_costs_the_packet_and_is_counted() {
    let fleet = fleet(1);
    let app = memory(&fleet, lab::APP.1);
    let db = MemoryDevice::new(1).unwrap();
    attach(&fleet, lab::DB.1, vec![Box::new(db.clone())]);
    for port in [1, 2, 3] {
        app.send(&syn(port), NO_OFFLOAD);
    }
    eventually("two are lost", || discards(&fleet, DiscardReason::LinkWrite) == 2);
    let to = counters(&fleet, lab::DB.1);
    assert_eq!((to.writes, to.write_errors), (1, 2));
    assert_eq!(received(&db), syn(1));
}

#[test]
fn a_link_that_is_not_attached_costs_the_packet_and_is_counted() {
    let fleet = fleet(1);
    memory(&fleet, lab::APP.1).send(&syn(1), NO_OFFLOAD);
    eventually("it is lost", || discards(&fleet, DiscardReason::LinkWrite) == 1);
}

/// A device in memory that does something else on its first read.
struct Odd {
    device: MemoryDevice,
    first: AtomicBool,
    does: fn() -> io::Result<Arrival>,
}

impl Odd {
    fn queues(device: &MemoryDevice, does: fn() -> io::Result<Arrival>) -> Vec<Box<dyn Device>> {
        vec![Box::new(Self { device: device.clone(), first: AtomicBool::new(true), does })]
    }
}

impl Device for Odd {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        if self.first.swap(false, Ordering::Relaxed) {
            self.device.read(batch)?;
            return (self.does)();
        }
        self.device.read(batch)
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

#[test]
fn a_hostile_offload_header_costs_the_packet_only() {
    let fleet = fleet(1);
    let (app, db) = (MemoryDevice::new(9).unwrap(), memory(&fleet, lab::DB.1));
    attach(&fleet, lab::APP.1, Odd::queues(&app, || Ok(Arrival::Hostile)));
    app.send(&syn(1), NO_OFFLOAD);
    app.send(&syn(2), NO_OFFLOAD);
    assert_eq!(received(&db), syn(2));
    assert_eq!(discards(&fleet, DiscardReason::HostileOffload), 1);
}

#[test]
fn a_panic_costs_the_packet_only() {
    let fleet = fleet(1);
    let (app, db) = (MemoryDevice::new(9).unwrap(), memory(&fleet, lab::DB.1));
    attach(&fleet, lab::APP.1, Odd::queues(&app, || panic!("this panic is part of a test")));
    app.send(&syn(1), NO_OFFLOAD);
    app.send(&syn(2), NO_OFFLOAD);
    assert_eq!(received(&db), syn(2));
    assert_eq!(discards(&fleet, DiscardReason::Internal), 1);
}

#[test]
fn a_broken_device_is_let_go_and_the_others_are_served() {
    let fleet = fleet(1);
    let (web, app, db) =
        (MemoryDevice::new(9).unwrap(), memory(&fleet, lab::APP.1), memory(&fleet, lab::DB.1));
    attach(&fleet, lab::WEB.1, Odd::queues(&web, || Err(io::ErrorKind::BrokenPipe.into())));
    web.send(b"", NO_OFFLOAD);
    // Still readable, and nobody looks.
    web.send(b"", NO_OFFLOAD);
    app.send(&syn(1), NO_OFFLOAD);
    assert_eq!(received(&db), syn(1));
    assert_idle(&fleet);
    // It can still be detached.
    fleet.detach(lab::WEB.1).unwrap();
    app.send(&syn(2), NO_OFFLOAD);
    assert_eq!(received(&db), syn(2));
}

/// Asserts that workers sleep though something may be readable.
fn assert_idle(fleet: &Fleet) {
    let batches = |fleet: &Fleet| fleet.worker_counters().iter().map(|worker| worker.batches).sum::<u64>();
    // Publishing takes a worker through its loop: it has looked at everything readable by then.
    let before = batches(fleet);
    for _ in 0..100 {
        fleet.detach(LinkId(9999)).unwrap();
    }
    let after = batches(fleet);
    assert!(after <= before + 2, "{} batches without a packet", after - before);
}

/// A device over a duplicate of another's descriptor, as control holds them.
struct Duplicate {
    device: MemoryDevice,
    descriptor: OwnedFd,
}

impl Device for Duplicate {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        self.device.read(batch)
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        self.device.write(packet)
    }

    fn takes(&self) -> Takes {
        self.device.takes()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[test]
fn a_detached_link_is_left_alone_although_control_keeps_its_descriptor() {
    let fleet = fleet(2);
    let (app, db) = (MemoryDevice::new(9).unwrap(), memory(&fleet, lab::DB.1));
    for round in 0..3 {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(app.descriptor(), 0).unwrap();
        attach(&fleet, lab::APP.1, vec![Box::new(Duplicate { device: app.clone(), descriptor })]);
        app.send(&syn(round), NO_OFFLOAD);
        assert_eq!(received(&db), syn(round));
        fleet.detach(lab::APP.1).unwrap();
        assert!(!fleet.links().contains_key(&lab::APP.1));
        app.send(&syn(77), NO_OFFLOAD);
        assert_idle(&fleet);
        assert_eq!(db.receive(Duration::ZERO), None);
        // Not left for the next round.
        assert_eq!(app.read(&mut Batch::new(1, 1)).unwrap(), Arrival::Packet);
    }
}

/// A device whose read waits until the test lets it go.
struct Gate {
    device: MemoryDevice,
    reached: Arc<Barrier>,
    opened: Arc<Barrier>,
}

impl Device for Gate {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        if self.device.read(batch)? == Arrival::Packet {
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

/// Attaches a gate as the internet's link: a packet sent to it stops the worker between the two barriers.
fn gate(fleet: &Fleet) -> (MemoryDevice, Arc<Barrier>, Arc<Barrier>) {
    let device = MemoryDevice::new(1).unwrap();
    let (reached, opened) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let gate = Gate { device: device.clone(), reached: reached.clone(), opened: opened.clone() };
    attach(fleet, lab::INTERNET, vec![Box::new(gate)]);
    (device, reached, opened)
}

#[test]
fn a_busy_link_does_not_starve_the_others() {
    let fleet = fleet(1);
    let (app, web, db) = (memory(&fleet, lab::APP.1), memory(&fleet, lab::WEB.1), memory(&fleet, lab::DB.1));
    let (gate, reached, opened) = gate(&fleet);
    gate.send(b"", NO_OFFLOAD);
    reached.wait();
    for port in 0..1000 {
        app.send(&syn(port), NO_OFFLOAD);
    }
    // db's group refuses web, which is counted.
    web.send(&craft::tcp(TcpFacts::SYN, "10.0.1.10:9", "10.0.2.30:5432"), NO_OFFLOAD);
    opened.wait();
    let mut forwarded = 0;
    while discards(&fleet, DiscardReason::SecurityGroup) == 0 {
        received(&db);
        forwarded += 1;
    }
    assert!(forwarded < 1000, "web's only packet waited for all of app's");
}

#[test]
fn pushes_lose_no_packet_and_every_worker_has_switched_when_they_return() {
    const PACKETS: u16 = 5000;
    let fleet = Arc::new(fleet(2));
    let (app, db) = (memory(&fleet, lab::APP.1), memory(&fleet, lab::DB.1));
    let sent = Arc::new(AtomicBool::new(false));
    let sender = thread::spawn({
        let sent = sent.clone();
        move || {
            for port in 1..=PACKETS {
                app.send(&syn(port), NO_OFFLOAD);
            }
            sent.store(true, Ordering::Release);
        }
    });
    let mut generation = 1;
    while !sent.load(Ordering::Acquire) || generation < 50 {
        generation += 1;
        install(&fleet, generation);
        let swaps = |worker: &WorkerCounters| worker.table_swaps;
        assert_eq!(fleet.worker_counters().iter().map(swaps).collect::<Vec<_>>(), [generation; 2]);
    }
    sender.join().unwrap();
    for port in 1..=PACKETS {
        assert_eq!(received(&db), syn(port));
    }
    assert!(fleet.state().metrics.all_discards().is_empty());
}

#[test]
fn a_stall_while_packets_wait_is_in_the_longest_gap_and_idling_is_not() {
    const STALL: Duration = Duration::from_millis(100);
    let fleet = fleet(1);
    let (app, db) = (memory(&fleet, lab::APP.1), memory(&fleet, lab::DB.1));
    let (gate, reached, opened) = gate(&fleet);
    let longest = || Duration::from_micros(fleet.worker_counters()[0].longest_gap_us);
    app.send(&syn(1), NO_OFFLOAD);
    received(&db);
    let before = longest();
    let idle = before + STALL;
    thread::park_timeout(idle);
    app.send(&syn(2), NO_OFFLOAD);
    received(&db);
    assert!(longest() < idle, "{idle:?} without packets count as a gap of {:?}", longest());
    gate.send(b"", NO_OFFLOAD);
    reached.wait();
    app.send(&syn(3), NO_OFFLOAD);
    let began = Instant::now();
    thread::park_timeout(idle);
    let stall = began.elapsed();
    opened.wait();
    received(&db);
    assert!(longest() >= stall, "a stall of {stall:?} counts as {:?}", longest());
}

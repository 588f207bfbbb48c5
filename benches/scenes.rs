//! Packets, tables and state to measure on. Always the same: every random choice has a fixed seed.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::tables::{
    Action, NetworkAclEntry, Peer, PortRange, SecurityGroup, SecurityGroupRule, Traffic,
};
use localvpc_api::trace::Protocol;
use localvpc_api::{NatGatewayId, SecurityGroupId};
use localvpc_engine::packet::{Offload, Segmentation, TcpFacts};
use localvpc_engine::state::nat_ports::{Destination, NatPorts};
use localvpc_engine::tables::rules::{AclRules, RuleSet, Selector};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::{craft, lab};
use localvpc_engine::worker::Verdict;
use localvpc_engine::{BatchPacket, Limits, State, Tables, Time, Worker};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(limit)) >> 32) as u32
    }
}

/// Items in turn, for ever. Enough of them that the branch predictor cannot learn them by heart.
#[derive(Clone)]
pub struct Cycle<T> {
    items: Vec<T>,
    at: usize,
}

impl<T: Copy> Cycle<T> {
    /// 2¹⁴ items.
    pub fn new(item: impl FnMut() -> T) -> Self {
        Self::of(1 << 14, item)
    }

    /// So many items, a power of two.
    pub fn of(count: usize, item: impl FnMut() -> T) -> Self {
        assert!(count.is_power_of_two(), "so that going round takes no division");
        Self { items: std::iter::repeat_with(item).take(count).collect(), at: 0 }
    }

    /// The next one.
    #[inline]
    pub fn step(&mut self) -> T {
        self.at = (self.at + 1) & (self.items.len() - 1);
        self.items[self.at]
    }
}

/// The rules of several groups on one ENI, one direction. All differ, most are for TCP.
pub fn security_groups(groups: u32, rules: u32) -> RuleSet {
    let mut random = Random(4);
    let groups: Vec<(SecurityGroupId, Vec<SecurityGroupRule>)> = (0..groups)
        .map(|group| {
            let rule =
                |_| SecurityGroupRule { traffic: traffic(&mut random), peer: Peer::Cidr(cidr(&mut random)) };
            (SecurityGroupId(group), (0..rules).map(rule).collect())
        })
        .collect();
    RuleSet::build(groups.iter().map(|(id, rules)| (*id, rules.as_slice())), |_| &[])
}

/// A network ACL whose entries all differ.
pub fn network_acl(entries: u16) -> AclRules {
    let mut random = Random(5);
    let entry = |number| NetworkAclEntry {
        number,
        action: if random.below(2) == 0 { Action::Allow } else { Action::Deny },
        traffic: traffic(&mut random),
        cidr: cidr(&mut random),
    };
    AclRules::build(&(1..=entries).map(entry).collect::<Vec<_>>())
}

/// Packets for the rules above. Half come from the addresses that the rules are about; few of them match a rule.
pub fn rule_packets() -> Cycle<(IpAddr, Selector)> {
    let mut random = Random(6);
    Cycle::new(|| {
        let bits =
            if random.below(2) == 0 { 0x0a00_0000 | random.below(1 << 16) } else { random.draw() as u32 };
        let port = random.below(1 << 16) as u16;
        let selector = if random.below(4) == 0 { Selector::Udp(port) } else { Selector::Tcp(port) };
        (Ipv4Addr::from(bits).into(), selector)
    })
}

/// TCP or UDP to some ports.
pub fn traffic(random: &mut Random) -> Traffic {
    let from = random.below(1 << 16) as u16;
    let ports = PortRange { from, to: from.saturating_add(random.below(100) as u16) };
    if random.below(4) == 0 { Traffic::Udp(ports) } else { Traffic::Tcp(ports) }
}

/// Some addresses of 10.0.0.0/16.
pub fn cidr(random: &mut Random) -> IpNet {
    let address = Ipv4Addr::from(0x0a00_0000 | random.below(1 << 16));
    Ipv4Net::new_assert(address, 24 + random.below(9) as u8).trunc().into()
}

/// A destination of a NAT gateway; another number is another one.
pub fn destination(number: u32) -> Destination {
    Destination {
        nat_gateway: NatGatewayId(1),
        address: Ipv4Addr::new(10, 0, 1, 100).into(),
        remote: Ipv4Addr::from(0xc633_6400 + (number >> 8)).into(),
        remote_port: 1 + (number & 0xff) as u16,
        protocol: Protocol::TCP,
    }
}

/// Ports with so many in use towards destination 0.
pub fn nat_ports(in_use: u32) -> NatPorts {
    let ports = NatPorts::default();
    let mut random = Random(7);
    for _ in 0..in_use {
        ports.reserve(&destination(0), random.draw()).expect("the quota is not used up");
    }
    ports
}

/// Packets as they come from a TUN, with names.
pub fn packets() -> [(&'static str, Vec<u8>, Offload); 4] {
    let facts = TcpFacts { flags: TcpFacts::ACK, sequence: 1, acknowledgement: 1, window: 502, payload: 0 };
    let data = craft::tcp_segment(TcpFacts { payload: 1400, ..facts }, "10.0.2.20:40000", "203.0.113.5:443");
    let (partial, offload) = craft::offloaded(data.clone(), Default::default());
    [
        ("ipv4_tcp", data, Offload::default()),
        ("ipv4_tcp_partial_checksum", partial, offload),
        ("ipv4_udp", craft::udp("10.0.2.20:40000", "203.0.113.5:53", &[0; 100]), Offload::default()),
        (
            "ipv4_icmp_echo",
            craft::ping(localvpc_engine::packet::Echo::Request, "10.0.2.20", "203.0.113.5", 1, 1),
            Offload::default(),
        ),
    ]
}

/// Established TCP connections from `app` through the NAT gateway and the internet gateway to a host, all on one worker.
pub struct Connections {
    fabric: Fabric,
    /// A segment of the first, with data.
    template: [u8; SEGMENT],
    /// The packets that are being forwarded.
    buffers: Vec<[u8; SEGMENT]>,
    numbers: Vec<u32>,
}

/// Bytes of a segment with 100 bytes of data.
const SEGMENT: usize = 140;

/// The most packets of one batch.
pub const MAX_BATCH: usize = 64;

/// How a worker forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// It holds both directions of all, and is four fifths full if they are many.
    On,
    /// Every packet is walked.
    Off,
}

impl Connections {
    /// Opens connections, 50,000 to each port of the host.
    ///
    /// The ENI has a group of 60 rules and the subnets have network ACLs with 20 entries each way.
    pub fn open(count: u32, cache: Cache) -> Self {
        let flows = match cache {
            Cache::On => (5 * count as usize / 2).max(1 << 15),
            Cache::Off => 0,
        };
        let mut fabric = fabric(flows, count);
        for number in 0..count {
            let (inside, host) = ends(number);
            let segment = |flags, sequence, acknowledgement, payload| {
                let facts = TcpFacts { flags, sequence, acknowledgement, window: 502, payload };
                craft::tcp_segment(facts, inside, host)
            };
            let out = fabric.send_on(0, lab::APP.1, segment(TcpFacts::SYN, 1_000, 0, 0), Offload::default());
            let public = match out.tuple().source {
                IpAddr::V4(address) => (address, out.tuple().source_port),
                IpAddr::V6(_) => unreachable!("an IPv4 connection stays one"),
            };
            let flags = TcpFacts::SYN | TcpFacts::ACK;
            let facts = TcpFacts { flags, sequence: 5_000, acknowledgement: 1_001, window: 502, payload: 0 };
            let answer = craft::tcp_segment(facts, host, public);
            let back = fabric.send_on(0, lab::INTERNET, answer, Offload::default());
            assert_eq!(back.verdict, Ok(lab::APP.1), "the handshake is answered");
            fabric.send_on(0, lab::APP.1, segment(TcpFacts::ACK, 1_001, 5_001, 0), Offload::default());
        }
        let facts = TcpFacts {
            flags: TcpFacts::ACK,
            sequence: 1_001,
            acknowledgement: 5_001,
            window: 502,
            payload: 100,
        };
        let (inside, host) = ends(0);
        let template = craft::tcp_segment(facts, inside, host).try_into().expect("its length is known");
        let buffers = vec![[0; SEGMENT]; MAX_BATCH];
        let mut this = Self { fabric, template, buffers, numbers: Vec::with_capacity(MAX_BATCH) };
        // Once around, so that every flow is in the cache.
        for number in 0..count {
            assert!(matches!(this.forward(number), Verdict::Forward { link: lab::INTERNET, .. }));
        }
        this
    }

    /// Forwards a segment of one of the connections: writes its 40 bytes of headers to a buffer, and from there on as a packet's way is.
    #[inline]
    pub fn forward(&mut self, number: u32) -> Verdict {
        write_segment(&self.template, number, &mut self.buffers[0]);
        let Fabric { workers, tables, state, now, .. } = &mut self.fabric;
        workers[0].forward(tables, state, lab::APP.1, &mut self.buffers[0], Offload::default(), *now)
    }

    /// The same for a batch of at most [`MAX_BATCH`], of connections that `choose` names.
    #[inline]
    pub fn forward_batch(&mut self, size: usize, choose: impl FnMut() -> u32) {
        let (mut lane, Beside { tables, state, now, .. }) = self.lane();
        lane.forward_each(tables, state, now, size, choose, |_| ());
    }

    /// What forwards, apart from what it forwards with: so that somebody else may use that at the same time.
    #[inline]
    pub fn lane(&mut self) -> (Lane<'_>, Beside<'_>) {
        let Self { fabric, template, buffers, numbers } = self;
        let Fabric { workers, tables, state, rows, now, .. } = fabric;
        (
            Lane { worker: &mut workers[0], template, buffers, numbers },
            Beside { tables, state, rows, now: *now },
        )
    }

    /// Flows in the cache.
    pub fn cached_flows(&self) -> u64 {
        self.fabric.workers[0].counters().cached_flows.value()
    }

    /// Packets so far that the cache has decided, and that were walked.
    pub fn hits_and_walks(&self) -> (u64, u64) {
        let counters = self.fabric.workers[0].counters();
        (counters.cache_hits.value(), counters.walks.value())
    }
}

/// A worker with packets of connections.
pub struct Lane<'a> {
    worker: &'a mut Worker,
    template: &'a [u8; SEGMENT],
    buffers: &'a mut Vec<[u8; SEGMENT]>,
    numbers: &'a mut Vec<u32>,
}

/// What a [`Lane`] forwards with.
pub struct Beside<'a> {
    /// Compiled.
    pub tables: &'a Tables,
    /// Its connections and leases.
    pub state: &'a State,
    /// What the tables were compiled from.
    pub rows: &'a localvpc_api::Tables,
    /// The time.
    pub now: Time,
}

impl Lane<'_> {
    /// Forwards a segment each of connections that `choose` names, at most [`MAX_BATCH`]; says how many left by the internet's link.
    #[inline]
    pub fn forward_batch(
        &mut self,
        tables: &Tables,
        state: &State,
        now: Time,
        size: usize,
        choose: impl FnMut() -> u32,
    ) -> usize {
        let mut left = 0;
        self.forward_each(tables, state, now, size, choose, |packet| {
            let to_internet = matches!(packet.verdict, Some(Verdict::Forward { link: lab::INTERNET, .. }));
            left += usize::from(to_internet);
        });
        left
    }

    /// The same; shows each packet with its verdict to `see`.
    #[inline]
    fn forward_each(
        &mut self,
        tables: &Tables,
        state: &State,
        now: Time,
        size: usize,
        mut choose: impl FnMut() -> u32,
        see: impl FnMut(&BatchPacket<'_>),
    ) {
        self.numbers.clear();
        self.numbers.extend((0..size).map(|_| choose()));
        for (number, buffer) in self.numbers.iter().zip(&mut *self.buffers) {
            write_segment(self.template, *number, buffer);
        }
        let mut batch: arrayvec::ArrayVec<BatchPacket<'_>, MAX_BATCH> = self.buffers[..size]
            .iter_mut()
            .map(|buffer| BatchPacket::new(lab::APP.1, buffer, Offload::default()))
            .collect();
        self.worker.forward_batch(tables, state, &mut batch, now);
        batch.iter().for_each(see);
    }
}

/// The inside and the host of a connection; successive ones have distant ports.
fn ends(number: u32) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    // 7,919 is prime to 50,000: visits every port once.
    let port = 10_000 + (u64::from(number) * 7_919 % 50_000) as u16;
    ((Ipv4Addr::new(10, 0, 2, 20), port), (Ipv4Addr::new(203, 0, 113, 5), 443 + (number / 50_000) as u16))
}

/// The headers of a connection's segment. The data stays, and the checksum is only right for the first: it is updated, not verified.
#[inline]
fn write_segment(template: &[u8; SEGMENT], number: u32, buffer: &mut [u8; SEGMENT]) {
    let ((_, inside), (_, host)) = ends(number);
    buffer[..40].copy_from_slice(&template[..40]);
    buffer[20..22].copy_from_slice(&inside.to_be_bytes());
    buffer[22..24].copy_from_slice(&host.to_be_bytes());
}

/// First packets of new connections from `app` to hosts on the internet.
pub struct NewConnections {
    fabric: Fabric,
    at: usize,
    syns: Vec<Vec<u8>>,
}

impl NewConnections {
    /// No connection yet; `syns` are those that will be made.
    pub fn new(syns: Vec<Vec<u8>>) -> Self {
        let mut fabric = fabric(1 << 15, syns.len() as u32);
        // What is measured is the packets' way; zeroing memory, 2 MiB at a time, is the kernel's.
        fabric.state.populate();
        Self { fabric, at: 0, syns }
    }

    /// Packets for `count` connections, 50,000 to each port of the host.
    pub fn syns(count: u32) -> Vec<Vec<u8>> {
        let syn = |number| {
            let (inside, host) = ends(number);
            craft::tcp(TcpFacts::SYN, inside, host)
        };
        (0..count).map(syn).collect()
    }

    /// The same, but no two to the same port of the host, as far as it has so many.
    pub fn syns_apart(count: u32) -> Vec<Vec<u8>> {
        let syn = |number: u32| {
            let host = (Ipv4Addr::new(203, 0, 113, 5), 1 + (number % 65_535) as u16);
            let inside = (Ipv4Addr::new(10, 0, 2, 20), 10_000 + (number / 65_535) as u16);
            craft::tcp(TcpFacts::SYN, inside, host)
        };
        (0..count).map(syn).collect()
    }

    /// Makes the next connections, at most [`MAX_BATCH`], and says how many were left to make.
    ///
    /// # Panics
    /// If one is not made.
    pub fn make_next(&mut self, size: usize) -> usize {
        let end = (self.at + size).min(self.syns.len());
        let mut batch: arrayvec::ArrayVec<BatchPacket<'_>, MAX_BATCH> = self.syns[self.at..end]
            .iter_mut()
            .map(|bytes| BatchPacket::new(lab::APP.1, bytes, Offload::default()))
            .collect();
        let Fabric { workers, tables, state, now, .. } = &mut self.fabric;
        workers[0].forward_batch(tables, state, &mut batch, *now);
        let made = |packet: &BatchPacket<'_>| matches!(packet.verdict, Some(Verdict::Forward { .. }));
        assert!(
            batch.iter().all(made),
            "{:?}",
            batch.iter().map(|packet| packet.verdict).collect::<Vec<_>>()
        );
        end - std::mem::replace(&mut self.at, end)
    }
}

/// TCP connections from `app` through the NAT gateway to a host that are opened and closed at once, several together: the first packets of all, then the
/// second ones, and so on.
pub struct ShortConnections {
    fabric: Fabric,
    count: u32,
    /// The first of those that are next.
    next: u32,
    together: u32,
    packets: Vec<(Vec<u8>, Offload)>,
    /// What the host sees of each: the address and port that it answers to.
    seen: Vec<(Ipv4Addr, u16)>,
}

/// The packets of a short connection, in their order: who sends it, its flags, and how far both streams have come.
const SHORT: [(Sender, u8, u32, u32); 6] = [
    (Sender::App, TcpFacts::SYN, 1_000, 0),
    (Sender::Host, TcpFacts::SYN | TcpFacts::ACK, 5_000, 1_001),
    (Sender::App, TcpFacts::ACK, 1_001, 5_001),
    (Sender::Host, TcpFacts::FIN | TcpFacts::ACK, 5_001, 1_001),
    (Sender::App, TcpFacts::FIN | TcpFacts::ACK, 1_001, 5_002),
    (Sender::Host, TcpFacts::ACK, 5_002, 1_002),
];

#[derive(Clone, Copy)]
enum Sender {
    App,
    Host,
}

impl ShortConnections {
    /// Names of the packets.
    pub const PACKETS: [&str; SHORT.len()] = ["syn", "syn_ack", "ack", "host_fin", "app_fin", "last_ack"];

    /// `count` of them in turn, which begin anew on the same ports then; `together` at a time, at most [`MAX_BATCH`].
    pub fn new(count: u32, together: u32) -> Self {
        assert!(count.is_multiple_of(together) && together as usize <= MAX_BATCH, "whole batches");
        let mut fabric = fabric(1 << 15, count);
        fabric.state.populate();
        Self { fabric, count, next: 0, together, packets: Vec::new(), seen: Vec::new() }
    }

    /// Opens and closes the next ones. `around` is called for each batch of packets, with its number in [`PACKETS`](Self::PACKETS)
    /// and what forwards it.
    ///
    /// # Panics
    /// If a packet is not forwarded.
    pub fn open_and_close(&mut self, mut around: impl FnMut(usize, &mut dyn FnMut())) {
        let numbers = self.next..self.next + self.together;
        self.next = numbers.end % self.count;
        for (step, (sender, flags, sequence, acknowledgement)) in SHORT.into_iter().enumerate() {
            let facts = TcpFacts { flags, sequence, acknowledgement, window: 502, payload: 0 };
            self.packets.clear();
            for (at, number) in numbers.clone().enumerate() {
                let (inside, host) = ends(number);
                let segment = match sender {
                    Sender::App => craft::tcp_segment(facts, inside, host),
                    Sender::Host => craft::tcp_segment(facts, host, self.seen[at]),
                };
                // As a TUN gives them.
                self.packets.push(craft::offloaded(segment, Segmentation::None));
            }
            let link = match sender {
                Sender::App => lab::APP.1,
                Sender::Host => lab::INTERNET,
            };
            let Fabric { workers, tables, state, now, .. } = &mut self.fabric;
            let mut batch: arrayvec::ArrayVec<BatchPacket<'_>, MAX_BATCH> = self
                .packets
                .iter_mut()
                .map(|(bytes, offload)| BatchPacket::new(link, bytes, *offload))
                .collect();
            around(step, &mut || workers[0].forward_batch(tables, state, &mut batch, *now));
            let left = |packet: &BatchPacket<'_>| matches!(packet.verdict, Some(Verdict::Forward { .. }));
            assert!(batch.iter().all(left), "{}: {:?}", Self::PACKETS[step], batch[0].verdict);
            drop(batch);
            if step == 0 {
                self.seen.clear();
                self.seen.extend(self.packets.iter().map(|(bytes, _)| source(bytes)));
            }
        }
    }
}

/// The address and port that a packet comes from.
fn source(packet: &[u8]) -> (Ipv4Addr, u16) {
    let address = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    (address, u16::from_be_bytes([packet[20], packet[21]]))
}

/// The worked packet walks' lab, with a group of 60 rules and network ACLs of 20 entries each way, the last of which decides.
fn fabric(flows: usize, connections: u32) -> Fabric {
    let mut rows = lab::tables();
    let app: &mut SecurityGroup =
        rows.security_groups.iter_mut().find(|group| group.id == lab::APP_GROUP).expect("the lab has it");
    let narrow = |port| lab::rule(lab::tcp(port), Peer::Cidr(lab::net("192.0.2.0/24")));
    app.inbound = (1..=60).map(narrow).collect();
    app.outbound = (1..=59).map(narrow).collect();
    // For every TCP port but 0: admits all that the benchmarks send, and its connections are tracked.
    app.outbound.push(lab::rule(Traffic::Tcp(PortRange { from: 1, to: u16::MAX }), lab::anyone()));
    for acl in &mut rows.network_acls {
        for entries in [&mut acl.inbound, &mut acl.outbound] {
            let narrow = |number| lab::entry(number, Action::Deny, lab::tcp(number), "192.0.2.0/24");
            entries.splice(0..0, (1..=19).map(narrow));
        }
    }
    for eni in &mut rows.enis {
        eni.max_connections = u32::MAX;
        // As long as a lease at the NAT gateway, so that both idle out together.
        eni.tracking.tcp_established_ms = 350_000;
    }
    let room = connections.max(1 << 17);
    let limits = Limits { connections: room, leases: room };
    let mut fabric = Fabric::with_workers(rows, vec![Worker::with_cache(0, 1, flows)], limits);
    // The NAT gateway chooses ports as in a dataplane of two workers.
    fabric.state.leases.choose_for(2);
    fabric
}

//! Packets, tables and state to measure on. Always the same: every random choice has a fixed seed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::tables::{
    Action, NetworkAclEntry, Peer, PortRange, SecurityGroup, SecurityGroupRule, Traffic,
};
use localvpc_api::trace::Protocol;
use localvpc_api::{NatGatewayId, SecurityGroupId};
use localvpc_engine::packet::{Offload, TcpFacts};
use localvpc_engine::state::nat_ports::{Destination, NatPorts};
use localvpc_engine::tables::rules::{AclRules, RuleSet, Selector};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::{craft, lab};
use localvpc_engine::worker::Verdict;
use localvpc_engine::{Limits, Worker};

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
pub struct Cycle<T> {
    items: Vec<T>,
    at: usize,
}

impl<T: Copy> Cycle<T> {
    /// 2¹⁴ items.
    pub fn new(item: impl FnMut() -> T) -> Self {
        Self { items: std::iter::repeat_with(item).take(1 << 14).collect(), at: 0 }
    }

    /// The next one.
    #[inline]
    pub fn step(&mut self) -> T {
        self.at = (self.at + 1) % (1 << 14);
        self.items[self.at]
    }
}

/// A default route and distinct routes with the lengths of an internet routing table, each with a number.
pub fn routes(count: usize) -> Vec<(Ipv4Net, u32)> {
    // Per cent of a full table's routes, roughly: most are /24.
    const LENGTHS: [(u8, u32); 9] =
        [(24, 60), (23, 10), (22, 12), (21, 5), (20, 5), (19, 3), (18, 2), (17, 1), (16, 2)];
    let mut random = Random(1);
    let mut routes = HashMap::from([(Ipv4Net::default(), 0)]);
    while routes.len() < count {
        let mut share = random.below(100);
        let length = LENGTHS.iter().find(|(_, per_cent)| match share.checked_sub(*per_cent) {
            Some(rest) => {
                share = rest;
                false
            }
            None => true,
        });
        let (length, _) = length.expect("the shares add up to 100");
        // Unicast addresses: 1.0.0.0 up to 223.255.255.255.
        let address = Ipv4Addr::from(0x0100_0000 + random.below(0xdf00_0000));
        let number = routes.len() as u32;
        routes.entry(Ipv4Net::new_assert(address, *length).trunc()).or_insert(number);
    }
    let mut routes: Vec<_> = routes.into_iter().collect();
    routes.sort_unstable();
    routes
}

/// What a subnet of a normal VPC has: local, a default route, and a few others.
pub fn vpc_routes() -> Vec<(Ipv4Net, u32)> {
    let routes =
        ["0.0.0.0/0", "10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
    routes.iter().zip(0..).map(|(route, number)| (route.parse().expect("a prefix"), number)).collect()
}

/// Any unicast addresses: most have only the default route.
pub fn random_keys() -> Cycle<Ipv4Addr> {
    let mut random = Random(2);
    Cycle::new(|| Ipv4Addr::from(0x0100_0000 + random.below(0xdf00_0000)))
}

/// Addresses within the routes, each route as likely as another.
pub fn routed_keys(routes: &[(Ipv4Net, u32)]) -> Cycle<Ipv4Addr> {
    let mut random = Random(3);
    Cycle::new(|| {
        let (route, _) = routes[random.below(routes.len() as u32) as usize];
        let host = random.draw() as u32 & u32::from(route.hostmask());
        Ipv4Addr::from(u32::from(route.network()) | host)
    })
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

fn traffic(random: &mut Random) -> Traffic {
    let from = random.below(1 << 16) as u16;
    let ports = PortRange { from, to: from.saturating_add(random.below(100) as u16) };
    if random.below(4) == 0 { Traffic::Udp(ports) } else { Traffic::Tcp(ports) }
}

fn cidr(random: &mut Random) -> IpNet {
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
    /// A segment of each from inside, with data.
    segments: Vec<Vec<u8>>,
    /// The one that is being forwarded.
    buffer: Vec<u8>,
}

/// How a worker forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// With room for every flow of the benchmarks.
    On,
    /// Every packet is walked.
    Off,
}

impl Connections {
    /// Opens connections, at most 50,000, in random order of their ports.
    ///
    /// The ENI has a group of 60 rules and the subnets have network ACLs with 20 entries each way.
    pub fn open(count: u16, cache: Cache) -> Self {
        let mut this = Self { fabric: fabric(cache), segments: Vec::new(), buffer: Vec::new() };
        let stride = 7_919; // Prime to 50,000: visits every port once.
        for number in 0..u32::from(count) {
            let port = 10_000 + (number * stride % 50_000) as u16;
            let inside = (Ipv4Addr::new(10, 0, 2, 20), port);
            let host = (Ipv4Addr::new(203, 0, 113, 5), 443);
            let segment = |flags, sequence, acknowledgement, payload| {
                let facts = TcpFacts { flags, sequence, acknowledgement, window: 502, payload };
                craft::tcp_segment(facts, inside, host)
            };
            let out =
                this.fabric.send_on(0, lab::APP.1, segment(TcpFacts::SYN, 1_000, 0, 0), Offload::default());
            let public = match out.tuple().source {
                IpAddr::V4(address) => (address, out.tuple().source_port),
                IpAddr::V6(_) => unreachable!("an IPv4 connection stays one"),
            };
            let flags = TcpFacts::SYN | TcpFacts::ACK;
            let facts = TcpFacts { flags, sequence: 5_000, acknowledgement: 1_001, window: 502, payload: 0 };
            let answer = craft::tcp_segment(facts, host, public);
            let back = this.fabric.send_on(0, lab::INTERNET, answer, Offload::default());
            assert_eq!(back.verdict, Ok(lab::APP.1), "the handshake is answered");
            this.fabric.send_on(0, lab::APP.1, segment(TcpFacts::ACK, 1_001, 5_001, 0), Offload::default());
            this.segments.push(segment(TcpFacts::ACK, 1_001, 5_001, 100));
        }
        this.buffer = vec![0; this.segments[0].len()];
        // Once around, so that every flow is in the cache.
        for number in 0..this.segments.len() {
            assert!(matches!(this.forward(number), Verdict::Forward { link: lab::INTERNET, .. }));
        }
        this
    }

    /// Forwards a segment of one of the connections: copies its 140 bytes to the buffer, and from there on as a packet's way is.
    #[inline]
    pub fn forward(&mut self, number: usize) -> Verdict {
        self.buffer.copy_from_slice(&self.segments[number]);
        let Fabric { workers, tables, state, now, .. } = &mut self.fabric;
        workers[0].forward(tables, state, lab::APP.1, &mut self.buffer, Offload::default(), *now)
    }

    /// Packets so far that the cache has decided, and that were walked.
    pub fn hits_and_walks(&self) -> (u64, u64) {
        let counters = self.fabric.workers[0].counters();
        (counters.cache_hits.value(), counters.walks.value())
    }
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
        Self { fabric: fabric(Cache::On), at: 0, syns }
    }

    /// Packets for `count` connections, at most 50,000, each from a port of its own.
    pub fn syns(count: u16) -> Vec<Vec<u8>> {
        let host = Ipv4Addr::new(203, 0, 113, 5);
        let syn = |number| {
            let inside = (Ipv4Addr::new(10, 0, 2, 20), 10_000 + number);
            craft::tcp(TcpFacts::SYN, inside, (host, 443))
        };
        (0..count).map(syn).collect()
    }

    /// Makes the next connection; `None` when all are made.
    pub fn make_next(&mut self) -> Option<Verdict> {
        let bytes = self.syns.get_mut(self.at)?;
        self.at += 1;
        let Fabric { workers, tables, state, now, .. } = &mut self.fabric;
        Some(workers[0].forward(tables, state, lab::APP.1, bytes, Offload::default(), *now))
    }
}

/// The worked packet walks' lab, with a group of 60 rules and network ACLs of 20 entries each way, the last of which decides.
fn fabric(cache: Cache) -> Fabric {
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
    let flows = match cache {
        Cache::On => 1 << 18,
        Cache::Off => 0,
    };
    let limits = Limits { connections: 1 << 17, leases: 1 << 17 };
    Fabric::with_workers(rows, vec![Worker::with_cache(0, 1, flows)], limits)
}

//! Finds all rules that match a packet, as bits in the order of the rules.
//!
//! ```text
//!                    10.0.0.0    10.0.1.0          …              tcp 0   80   81   443 …
//! peer address  ───▶    │ 0011 │    0111 │           tcp port ───▶  │0001│1001│0001│ …
//!                             └──────────┐                      ┌────────┘
//!                                      0111        AND        1001   =  0001: rule 0 matches
//! ```
//!
//! The rules cut the addresses into intervals within which the same rules match,
//! and likewise the ports of each protocol. A packet selects one row of bits by
//! its address and one by its port; the rules in both rows match it. The cost
//! depends little on the rules ("High-speed policy-based packet forwarding using
//! efficient multi-dimensional range matching", Lakshman and Stiliadis, SIGCOMM 1998).

use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;
use localvpc_api::tables::{IcmpMatch, Traffic};
use localvpc_api::trace::Protocol;

use super::Selector;
use crate::tables::intervals::{Intervals, Key};

/// A rule to compile: traffic, and the addresses of the far end.
#[derive(Clone, Debug)]
pub(super) struct Pattern<'a> {
    pub traffic: Traffic,
    pub peer: PatternPeer<'a>,
}

/// The far end of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum PatternPeer<'a> {
    Cidr(IpNet),
    /// These addresses alone.
    Addresses(&'a [IpAddr]),
}

/// Compiled rules. They are known by their position.
#[derive(Debug)]
pub(super) struct Matcher {
    v4: Axis<u32>,
    v6: Axis<u128>,
    tcp: Axis<u16>,
    udp: Axis<u16>,
    /// By type and code: `type << 8 | code`.
    icmp: Axis<u16>,
    /// By protocol number.
    other: Axis<u16>,
}

impl Matcher {
    pub fn build(patterns: &[Pattern]) -> Self {
        let axis = |ports: fn(Traffic) -> Option<(u16, u16)>| {
            let ranges =
                (0..).zip(patterns).filter_map(|(rule, pattern)| Some((rule, ports(pattern.traffic)?)));
            Axis::build(ranges, patterns.len())
        };
        Self {
            v4: Axis::build(
                (0..).zip(patterns).flat_map(|(rule, at)| at.peer.v4().map(move |it| (rule, it))),
                patterns.len(),
            ),
            v6: Axis::build(
                (0..).zip(patterns).flat_map(|(rule, at)| at.peer.v6().map(move |it| (rule, it))),
                patterns.len(),
            ),
            tcp: axis(tcp),
            udp: axis(udp),
            icmp: axis(icmp),
            other: axis(other),
        }
    }

    /// Bits of the rules that match, 64 rules at a time, the first in the lowest bit.
    #[inline]
    pub fn matching(&self, peer: IpAddr, selector: Selector) -> impl Iterator<Item = u64> {
        let by_address = match peer {
            IpAddr::V4(address) => self.v4.row(address.into()),
            IpAddr::V6(address) => self.v6.row(address.into()),
        };
        let by_port = match selector {
            Selector::Tcp(port) => self.tcp.row(port),
            Selector::Udp(port) => self.udp.row(port),
            Selector::Icmp { kind, code } => self.icmp.row(u16::from_be_bytes([kind, code])),
            Selector::Other(Protocol(number)) => self.other.row(number.into()),
        };
        by_address.iter().zip(by_port).map(|(a, b)| a & b)
    }

    /// The first and the last of the TCP ports around this one that match the same rules.
    pub fn tcp_ports_like(&self, port: u16) -> (u16, u16) {
        self.tcp.rows.around(port)
    }
}

/// One dimension: which rules match a key.
#[derive(Debug)]
struct Axis<K> {
    /// Where the row of a key begins in `bits`. Equal rows are stored once.
    rows: Intervals<K>,
    bits: Box<[u64]>,
    /// Length of a row.
    words: usize,
}

impl<K: Key> Axis<K> {
    /// From (rule, (first, last)): a rule matches from its first key to its last. Ranges of one rule are equal or disjoint.
    fn build(ranges: impl Iterator<Item = (usize, (K, K))>, rules: usize) -> Self {
        let mut changes = Vec::new();
        for (rule, (first, last)) in ranges {
            changes.push((first, Change::Begin, rule));
            changes.extend(last.successor().map(|next| (next, Change::End, rule)));
        }
        changes.sort_unstable();
        let mut rows = Rows::new(rules.div_ceil(64));
        let mut active = vec![0; rows.words];
        let mut cuts = vec![];
        let mut from = K::LOWEST;
        for change in changes.chunk_by(|a, b| a.0 == b.0) {
            let start = change[0].0;
            if start != K::LOWEST {
                cuts.push((from, rows.intern(&active)));
                from = start;
            }
            for (_, change, rule) in change {
                match change {
                    Change::End => active[rule / 64] &= !(1 << (rule % 64)),
                    Change::Begin => active[rule / 64] |= 1 << (rule % 64),
                }
            }
        }
        cuts.push((from, rows.intern(&active)));
        Self { rows: Intervals::new(&cuts), words: rows.words, bits: rows.bits.into() }
    }

    #[inline]
    fn row(&self, key: K) -> &[u64] {
        let at = self.rows.value(key) as usize;
        &self.bits[at..at + self.words]
    }
}

/// Ends come first, so that a range that begins where another of its rule ended stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    End,
    Begin,
}

/// Rows of bits, each stored once.
struct Rows {
    words: usize,
    bits: Vec<u64>,
    known: HashMap<Box<[u64]>, u32, RandomState>,
}

impl Rows {
    fn new(words: usize) -> Self {
        Self { words, bits: Vec::new(), known: HashMap::default() }
    }

    fn intern(&mut self, row: &[u64]) -> u32 {
        if let Some(at) = self.known.get(row) {
            return *at;
        }
        let at = self.bits.len() as u32;
        self.bits.extend_from_slice(row);
        self.known.insert(row.into(), at);
        at
    }
}

impl<'a> PatternPeer<'a> {
    fn v4(self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let (cidr, addresses) = self.parts();
        let cidr = cidr.and_then(|cidr| match cidr {
            IpNet::V4(net) => Some((net.network().into(), net.broadcast().into())),
            IpNet::V6(_) => None,
        });
        let addresses = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(((*address).into(), (*address).into())),
            IpAddr::V6(_) => None,
        });
        cidr.into_iter().chain(addresses)
    }

    fn v6(self) -> impl Iterator<Item = (u128, u128)> + use<'a> {
        let (cidr, addresses) = self.parts();
        let cidr = cidr.and_then(|cidr| match cidr {
            IpNet::V6(net) => Some((net.network().into(), net.broadcast().into())),
            IpNet::V4(_) => None,
        });
        let addresses = addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(((*address).into(), (*address).into())),
            IpAddr::V4(_) => None,
        });
        cidr.into_iter().chain(addresses)
    }

    fn parts(self) -> (Option<IpNet>, &'a [IpAddr]) {
        match self {
            Self::Cidr(cidr) => (Some(cidr), &[]),
            Self::Addresses(addresses) => (None, addresses),
        }
    }
}

const EVERY: Option<(u16, u16)> = Some((0, u16::MAX));

fn tcp(traffic: Traffic) -> Option<(u16, u16)> {
    match traffic {
        Traffic::Tcp(ports) => Some((ports.from, ports.to)),
        _ => whole(traffic, Protocol::TCP),
    }
}

fn udp(traffic: Traffic) -> Option<(u16, u16)> {
    match traffic {
        Traffic::Udp(ports) => Some((ports.from, ports.to)),
        _ => whole(traffic, Protocol::UDP),
    }
}

fn icmp(traffic: Traffic) -> Option<(u16, u16)> {
    match traffic {
        Traffic::Icmp(IcmpMatch { kind: None, .. }) => EVERY,
        Traffic::Icmp(IcmpMatch { kind: Some(kind), code }) => {
            let (from, to) = code.map_or((0, u8::MAX), |code| (code, code));
            Some((u16::from_be_bytes([kind, from]), u16::from_be_bytes([kind, to])))
        }
        _ => whole(traffic, Protocol::ICMP),
    }
}

fn other(traffic: Traffic) -> Option<(u16, u16)> {
    match traffic {
        Traffic::All => EVERY,
        Traffic::Protocol(number) => Some((number.into(), number.into())),
        Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Icmp(_) => None,
    }
}

/// All of a protocol, where a rule names it by number or means every one.
fn whole(traffic: Traffic, protocol: Protocol) -> Option<(u16, u16)> {
    match traffic {
        Traffic::All => EVERY,
        Traffic::Protocol(number) if Protocol(number) == protocol => EVERY,
        _ => None,
    }
}

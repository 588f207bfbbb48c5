//! Sets of packets, exact: addresses of the far end × traffic.
//!
//! Every kind of traffic is one interval on a line of 2²⁴ points: protocol number × 65536 + destination port
//! (TCP, UDP) or type and code (ICMP). A prefix is an interval of addresses. So a rule is a rectangle, and what
//! several rules leave of another is a list of rectangles.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets};
use localvpc_api::tables::{IcmpMatch, PortRange, Traffic};

use crate::model::text;

/// An interval, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<T> {
    /// First.
    pub first: T,
    /// Last, not smaller.
    pub last: T,
}

/// A rectangle of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Far ends; IPv4 as mapped into IPv6. The model takes no IPv6 yet: `::/0` would have to leave that out (NACL-10).
    pub addresses: Interval<u128>,
    /// Traffic.
    pub traffic: Interval<u32>,
}

/// Packets, as rectangles that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region(pub Vec<Rect>);

impl Rect {
    /// What a rule for this far end and traffic matches.
    pub fn new(far: IpNet, traffic: Traffic) -> Self {
        Self { addresses: addresses(far), traffic: points(traffic) }
    }

    /// The same far ends, other traffic.
    pub fn with(self, traffic: Traffic) -> Self {
        Self { traffic: points(traffic), ..self }
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Option<Self> {
        Some(Self {
            addresses: self.addresses.and(&other.addresses)?,
            traffic: self.traffic.and(&other.traffic)?,
        })
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.and(other) == Some(*other)
    }

    /// `tcp 1024-65535`.
    pub fn traffic_text(&self) -> String {
        let Interval { first, last } = self.traffic;
        let (protocol, from, to) = ((first >> 16) as u8, first as u16, last as u16);
        if first >> 16 != last >> 16 {
            return "all traffic".into();
        }
        text::traffic(match protocol {
            6 => Traffic::Tcp(PortRange { from, to }),
            17 => Traffic::Udp(PortRange { from, to }),
            // Echo has no other code.
            1 if from == to && matches!(from, 0 | 0x800) => {
                Traffic::Icmp(IcmpMatch { kind: Some((from >> 8) as u8), code: None })
            }
            1 if from == to => {
                Traffic::Icmp(IcmpMatch { kind: Some((from >> 8) as u8), code: Some(from as u8) })
            }
            1 if from == to & 0xff00 => {
                Traffic::Icmp(IcmpMatch { kind: Some((from >> 8) as u8), code: None })
            }
            1 => Traffic::Icmp(IcmpMatch { kind: None, code: None }),
            other => Traffic::Protocol(other),
        })
    }

    /// The far ends, where they are one prefix of IPv4.
    pub fn prefix(&self) -> Option<IpNet> {
        let v4 = |address: u128| Ipv6Addr::from(address).to_ipv4_mapped();
        let mut prefixes = Ipv4Subnets::new(v4(self.addresses.first)?, v4(self.addresses.last)?, 0);
        let only = prefixes.next()?;
        prefixes.next().is_none().then_some(only.into())
    }
}

impl Region {
    /// Takes `rect` out; whether there was any of it.
    pub fn take(&mut self, rect: &Rect) -> bool {
        let mut taken = false;
        let mut left = Vec::with_capacity(self.0.len());
        for own in &self.0 {
            match own.and(rect) {
                None => left.push(*own),
                Some(common) => {
                    taken = true;
                    left.extend(around(own, &common));
                }
            }
        }
        self.0 = left;
        taken
    }

    /// What is in it and in `rect`.
    pub fn and(&self, rect: &Rect) -> Self {
        Self(self.0.iter().filter_map(|own| own.and(rect)).collect())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Rect> for Region {
    fn from(rect: Rect) -> Self {
        Self(vec![rect])
    }
}

impl<T: Ord + Copy> Interval<T> {
    /// What is in both.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// The addresses of a prefix.
pub fn addresses(net: IpNet) -> Interval<u128> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_ipv6_mapped(&v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    Interval { first: number(net.network()), last: number(net.broadcast()) }
}

/// What of `own` lies around `common`, which is within it.
fn around(own: &Rect, common: &Rect) -> Vec<Rect> {
    let mut pieces = Vec::new();
    let (outer, inner) = (own.addresses, common.addresses);
    if outer.first < inner.first {
        pieces.push(Rect { addresses: Interval { first: outer.first, last: inner.first - 1 }, ..*own });
    }
    if inner.last < outer.last {
        pieces.push(Rect { addresses: Interval { first: inner.last + 1, last: outer.last }, ..*own });
    }
    let (outer, within) = (own.traffic, common.traffic);
    let middle = |traffic| Rect { addresses: inner, traffic };
    if outer.first < within.first {
        pieces.push(middle(Interval { first: outer.first, last: within.first - 1 }));
    }
    if within.last < outer.last {
        pieces.push(middle(Interval { first: within.last + 1, last: outer.last }));
    }
    pieces
}

fn points(traffic: Traffic) -> Interval<u32> {
    let of = |protocol: u8, from: u16, to: u16| {
        let start = u32::from(protocol) << 16;
        Interval { first: start | u32::from(from), last: start | u32::from(to) }
    };
    match traffic {
        Traffic::All => Interval { first: 0, last: 0xff_ffff },
        Traffic::Tcp(ports) => of(6, ports.from, ports.to),
        Traffic::Udp(ports) => of(17, ports.from, ports.to),
        Traffic::Icmp(IcmpMatch { kind: None, .. }) => of(1, 0, u16::MAX),
        Traffic::Icmp(IcmpMatch { kind: Some(kind), code }) => {
            let kind = u16::from(kind) << 8;
            of(1, kind | code.map_or(0, u16::from), kind | code.map_or(0xff, u16::from))
        }
        Traffic::Protocol(number) => of(number, 0, u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rect(net: &str, traffic: Traffic) -> Rect {
        Rect::new(net.parse().unwrap(), traffic)
    }

    fn tcp(from: u16, to: u16) -> Traffic {
        Traffic::Tcp(PortRange { from, to })
    }

    #[test]
    fn a_union_can_cover_what_no_single_rule_does() {
        let mut left = Region::from(rect("10.0.0.0/23", tcp(80, 90)));
        assert!(left.take(&rect("10.0.0.0/24", tcp(0, 85))));
        assert!(left.take(&rect("10.0.1.0/24", Traffic::All)));
        assert!(!left.take(&rect("10.0.0.0/8", Traffic::Udp(PortRange::ALL))));
        assert_eq!(left.0.len(), 1);
        assert_eq!(left.0[0], rect("10.0.0.0/24", tcp(86, 90)));
        assert_eq!(left.0[0].prefix().map(|net| net.to_string()), Some("10.0.0.0/24".into()));
        assert!(left.take(&rect("0.0.0.0/0", tcp(86, 65_535))));
        assert!(left.is_empty());
    }

    #[test]
    fn every_kind_of_traffic_reads_as_it_is_written() {
        let icmp = |kind, code| Traffic::Icmp(IcmpMatch { kind, code });
        for traffic in [
            tcp(443, 443),
            Traffic::Udp(PortRange::ALL),
            icmp(None, None),
            icmp(Some(8), None),
            icmp(Some(3), Some(4)),
            Traffic::Protocol(47),
        ] {
            assert_eq!(rect("0.0.0.0/0", traffic).traffic_text(), text::traffic(traffic));
        }
        assert_eq!(rect("0.0.0.0/0", Traffic::All).traffic_text(), "all traffic");
    }

    fn small() -> impl Strategy<Value = Rect> {
        (0u128..12, 0u128..12, 0u32..12, 0u32..12).prop_map(|(a, b, c, d)| Rect {
            addresses: Interval { first: a.min(b), last: a.max(b) },
            traffic: Interval { first: c.min(d), last: c.max(d) },
        })
    }

    proptest! {
        /// Point by point, what is left is what no other rectangle has, and no point is left twice.
        #[test]
        fn taking_is_exact(own in small(), others in prop::collection::vec(small(), 0..6)) {
            let mut left = Region::from(own);
            for other in &others {
                left.take(other);
            }
            for address in 0..12 {
                for traffic in 0..12 {
                    let point = Rect {
                        addresses: Interval { first: address, last: address },
                        traffic: Interval { first: traffic, last: traffic },
                    };
                    let expected = own.contains(&point) && !others.iter().any(|it| it.contains(&point));
                    let found = left.0.iter().filter(|it| it.contains(&point)).count();
                    prop_assert_eq!(found, usize::from(expected));
                }
            }
        }
    }
}

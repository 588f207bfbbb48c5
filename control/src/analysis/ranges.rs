//! Sets of numbers as disjoint ranges: ports, and IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use localvpc_api::tables::PortRange;

/// A set of numbers, as ascending inclusive ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The numbers from `from` to `to`; none where `to` is less.
    pub fn of(from: u32, to: u32) -> Self {
        Self(if from <= to { vec![(from, to)] } else { Vec::new() })
    }

    /// One number.
    pub fn one(number: u32) -> Self {
        Self::of(number, number)
    }

    /// The ports of a rule.
    pub fn ports(range: PortRange) -> Self {
        Self::of(range.from.into(), range.to.into())
    }

    /// The addresses of a network.
    pub fn network(network: Ipv4Net) -> Self {
        Self::of(network.network().into(), network.broadcast().into())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| u64::from(to - from) + 1).sum()
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|(from, _)| *from)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|(from, to)| *from <= number && number <= *to)
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some((a, b)), Some((c, d))) = (left.peek(), right.peek()) {
            let (from, to) = (*a.max(c), *b.min(d));
            if from <= to {
                both.push((from, to));
            }
            if b <= d {
                left.next()
            } else {
                right.next()
            };
        }
        Self(both)
    }

    /// What is in either.
    pub fn or(&self, other: &Self) -> Self {
        let mut all: Vec<(u32, u32)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match merged.last_mut() {
                Some(last) if u64::from(from) <= u64::from(last.1) + 1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// What is in this and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(first, to) in &self.0 {
            let mut from = Some(first);
            for &(c, d) in other.0.iter().filter(|(_, d)| *d >= first) {
                let Some(start) = from.filter(|start| *start <= to) else { break };
                if c > to {
                    break;
                }
                if c > start {
                    left.push((start, c - 1));
                }
                from = d.checked_add(1);
            }
            if let Some(start) = from.filter(|start| *start <= to) {
                left.push((start, to));
            }
        }
        Self(left)
    }

    /// As addresses: the fewest networks that hold exactly these (RA-9).
    pub fn networks(&self) -> Vec<Ipv4Net> {
        let subnets = self.0.iter().map(|(from, to)| {
            ipnet::Ipv4Subnets::new(Ipv4Addr::from(*from), Ipv4Addr::from(*to), 0).collect::<Vec<_>>()
        });
        subnets.flatten().collect()
    }
}

impl FromIterator<(u32, u32)> for Ranges {
    /// The union of ranges in any order.
    fn from_iter<T: IntoIterator<Item = (u32, u32)>>(ranges: T) -> Self {
        let mut all: Vec<(u32, u32)> = ranges.into_iter().filter(|(from, to)| from <= to).collect();
        all.sort_unstable();
        Self(all).or(&Self::default())
    }
}

impl fmt::Display for Ranges {
    /// `1024-32767, 61000-65535`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, to)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u32, u32)]) -> Ranges {
        ranges.iter().copied().collect()
    }

    #[test]
    fn touching_ranges_become_one() {
        assert_eq!(set(&[(5, 9), (1, 4), (20, 30), (25, 40)]).to_string(), "1-9, 20-40");
        assert_eq!(set(&[(0, u32::MAX), (7, 7)]).count(), 1 << 32);
        assert_eq!(Ranges::of(2, 1).to_string(), "");
    }

    /// Against a set of bits.
    #[test]
    fn sets_of_ranges_are_sets() {
        let all: Vec<Ranges> = (0_u32..256)
            .map(|bits| (0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| (bit, bit)).collect())
            .collect();
        let bits =
            |set: &Ranges| (0..8_u32).filter(|bit| set.contains(*bit)).map(|bit| 1 << bit).sum::<usize>();
        for (a, left) in all.iter().enumerate() {
            assert_eq!(left.count(), u64::from(a.count_ones()));
            for (b, right) in all.iter().enumerate() {
                assert_eq!(bits(&left.and(right)), a & b);
                assert_eq!(bits(&left.or(right)), a | b);
                assert_eq!(bits(&left.without(right)), a & !b, "{left} without {right}");
                assert_eq!(left.without(right), all[a & !b], "in one form only");
            }
        }
    }

    #[test]
    fn the_ends_of_all_numbers() {
        let all = Ranges::of(0, u32::MAX);
        assert_eq!(all.without(&Ranges::one(u32::MAX)), Ranges::of(0, u32::MAX - 1));
        assert_eq!(all.without(&Ranges::one(0)), Ranges::of(1, u32::MAX));
        assert!(all.without(&all).is_empty());
    }

    #[test]
    fn the_fewest_networks() {
        let networks = |set: Ranges| set.networks().iter().map(Ipv4Net::to_string).collect::<Vec<_>>();
        assert_eq!(networks(Ranges::of(0, u32::MAX)), ["0.0.0.0/0"]);
        assert_eq!(networks(Ranges::network("10.0.1.0/24".parse().unwrap())), ["10.0.1.0/24"]);
        assert_eq!(networks(Ranges::of(0x0a00_0001, 0x0a00_0003)), ["10.0.0.1/32", "10.0.0.2/31"]);
    }
}

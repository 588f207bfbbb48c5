//! Finds the longest prefix that contains an address.
//!
//! Prefixes nest or are disjoint, so they cut the addresses into at most twice as
//! many intervals, each with one longest prefix: a lookup finds the interval.
//! `benches/lpm.rs` compares this with the crates that do the same.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

use super::intervals::{Intervals, Key};

/// A set of prefixes with a number each.
#[derive(Debug)]
pub struct Lpm {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

impl Default for Lpm {
    fn default() -> Self {
        Self::build([])
    }
}

impl Lpm {
    /// Numbers are below this: a little less than 2³¹.
    pub const LIMIT: u32 = NONE;

    /// Builds the set; prefixes are distinct, numbers need not be.
    pub fn build(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, number) in prefixes {
            debug_assert!(number < Self::LIMIT);
            match prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), number)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), number)),
            }
        }
        Self { v4: intervals(v4), v6: intervals(v6) }
    }

    /// The number of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<u32> {
        let number = match address {
            IpAddr::V4(address) => self.v4.value(u32::from(address)),
            IpAddr::V6(address) => self.v6.value(u128::from(address)),
        };
        (number != NONE).then_some(number)
    }
}

/// What no prefix contains.
const NONE: u32 = Intervals::<u32>::LIMIT - 1;

/// From first and last address of each prefix.
fn intervals<K: Key>(mut prefixes: Vec<(K, K, u32)>) -> Intervals<K> {
    // A prefix comes after those that contain it.
    prefixes.sort_unstable_by_key(|(first, last, _)| (*first, Reverse(*last)));
    let mut cuts = Cuts(Vec::with_capacity(2 * prefixes.len() + 1));
    cuts.0.push((K::LOWEST, NONE));
    let mut open: Vec<(K, u32)> = Vec::new();
    for (first, last, number) in prefixes {
        while open.last().is_some_and(|(last, _)| *last < first) {
            cuts.close(&mut open);
        }
        cuts.at(first, number);
        open.push((last, number));
    }
    while !open.is_empty() {
        cuts.close(&mut open);
    }
    Intervals::new(&cuts.0)
}

/// Intervals in the making: first keys and numbers.
struct Cuts<K>(Vec<(K, u32)>);

impl<K: Key> Cuts<K> {
    /// From `start` on, `number` holds.
    fn at(&mut self, start: K, number: u32) {
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        self.0.push((start, number));
    }

    /// Ends the innermost open prefix: behind it, the one around it holds.
    fn close(&mut self, open: &mut Vec<(K, u32)>) {
        if let Some((last, _)) = open.pop()
            && let Some(next) = last.successor()
        {
            self.at(next, open.last().map_or(NONE, |(_, number)| *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn lpm(prefixes: &[&str]) -> Lpm {
        Lpm::build(prefixes.iter().zip(0..).map(|(prefix, value)| (prefix.parse().unwrap(), value)))
    }

    fn lookup(lpm: &Lpm, address: &str) -> Option<u32> {
        lpm.lookup(address.parse().unwrap())
    }

    #[test]
    fn an_empty_set_contains_nothing() {
        assert_eq!(lookup(&Lpm::default(), "10.0.0.1"), None);
        assert_eq!(lookup(&Lpm::default(), "2001:db8::1"), None);
    }

    /// RT-29.
    #[test]
    fn the_longest_prefix_wins() {
        let routes = lpm(&["0.0.0.0/0", "10.0.0.0/16", "172.31.0.0/16"]);
        for (address, route) in [("10.0.9.9", 1), ("172.31.1.1", 2), ("8.8.8.8", 0), ("255.255.255.255", 0)] {
            assert_eq!(lookup(&routes, address), Some(route), "{address}");
        }
    }

    #[test]
    fn prefixes_nest_and_end_together() {
        let routes =
            lpm(&["0.0.0.0/0", "128.0.0.0/1", "255.255.255.254/31", "255.255.255.255/32", "10.0.0.0/31"]);
        let expected = [
            ("127.255.255.255", 0),
            ("128.0.0.0", 1),
            ("255.255.255.253", 1),
            ("255.255.255.254", 2),
            ("255.255.255.255", 3),
            ("9.255.255.255", 0),
            ("10.0.0.0", 4),
            ("10.0.0.1", 4),
            ("10.0.0.2", 0),
        ];
        for (address, route) in expected {
            assert_eq!(lookup(&routes, address), Some(route), "{address}");
        }
    }

    /// RT-6.
    #[test]
    fn families_are_independent() {
        let routes = lpm(&["0.0.0.0/0", "2001:db8::/32"]);
        assert_eq!(lookup(&routes, "10.0.0.1"), Some(0));
        assert_eq!(lookup(&routes, "2001:db8::1"), Some(1));
        assert_eq!(lookup(&routes, "2001:db9::1"), None);
    }

    fn scan(prefixes: &HashMap<IpNet, u32>, address: IpAddr) -> Option<u32> {
        let containing = prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
        containing.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, value)| *value)
    }

    /// The ends of a prefix, and their neighbours outside.
    fn edges(prefix: &IpNet) -> [IpAddr; 4] {
        match prefix {
            IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| Ipv4Addr::from(bits).into())
            }
            IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| Ipv6Addr::from(bits).into())
            }
        }
    }

    /// Half of them in one small region, so that they nest; the shortest and longest lengths often.
    fn prefix_v4() -> impl Strategy<Value = IpNet> {
        let address = prop_oneof![any::<u32>(), 0x0a00_0000..0x0a00_0200u32];
        let length = prop_oneof![0..=32u8, Just(0), 31..=32u8];
        (address, length).prop_map(|(bits, length)| Ipv4Net::new_assert(bits.into(), length).trunc().into())
    }

    fn prefix_v6() -> impl Strategy<Value = IpNet> {
        let address = prop_oneof![any::<u128>(), 0..512u128];
        let length = prop_oneof![0..=128u8, Just(0), 127..=128u8];
        (address, length).prop_map(|(bits, length)| Ipv6Net::new_assert(bits.into(), length).trunc().into())
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            prefixes in prop::collection::hash_map(prop_oneof![3 => prefix_v4(), 1 => prefix_v6()], 0..Lpm::LIMIT, 0..200),
            v4 in prop::collection::vec(any::<u32>(), 50),
            v6 in prop::collection::vec(any::<u128>(), 10),
        ) {
            let lpm = Lpm::build(prefixes.iter().map(|(prefix, value)| (*prefix, *value)));
            let v4 = v4.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
            let v6 = v6.into_iter().map(|bits| IpAddr::from(Ipv6Addr::from(bits)));
            for address in v4.chain(v6).chain(prefixes.keys().flat_map(edges)) {
                prop_assert_eq!(lpm.lookup(address), scan(&prefixes, address), "{}", address);
            }
        }
    }
}

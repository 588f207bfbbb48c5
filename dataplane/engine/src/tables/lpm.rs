//! Finds the longest prefix that contains an address.
//!
//! Prefixes nest or are disjoint, so they cut the addresses into at most twice as
//! many intervals, each with one longest prefix: a lookup finds the interval.
//! `benches/lpm.rs` compares this with the poptrie and prefix-trie crates.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

use super::intervals::{Intervals, Key};

/// A set of prefixes with a value each.
#[derive(Debug)]
pub struct Lpm<T> {
    v4: Prefixes<u32, T>,
    v6: Prefixes<u128, T>,
}

impl<T: Copy> Default for Lpm<T> {
    fn default() -> Self {
        Self::build([])
    }
}

impl<T: Copy> Lpm<T> {
    /// Builds the set; prefixes are distinct.
    pub fn build(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), value)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), value)),
            }
        }
        Self { v4: Prefixes::build(v4), v6: Prefixes::build(v6) }
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(u32::from(address)),
            IpAddr::V6(address) => self.v6.lookup(u128::from(address)),
        }
    }
}

/// The prefixes of one family.
#[derive(Debug)]
struct Prefixes<K, T> {
    intervals: Intervals<K>,
    /// Per interval, the value of its longest prefix.
    values: Box<[Option<T>]>,
}

impl<K: Key, T: Copy> Prefixes<K, T> {
    /// From first and last address of each prefix.
    fn build(mut prefixes: Vec<(K, K, T)>) -> Self {
        // A prefix comes after those that contain it.
        prefixes.sort_unstable_by_key(|(first, last, _)| (*first, Reverse(*last)));
        let mut cuts = Cuts { starts: vec![K::LOWEST], values: vec![None] };
        let mut open: Vec<(K, T)> = Vec::new();
        for (first, last, value) in prefixes {
            while open.last().is_some_and(|(last, _)| *last < first) {
                cuts.close(&mut open);
            }
            cuts.at(first, Some(value));
            open.push((last, value));
        }
        while !open.is_empty() {
            cuts.close(&mut open);
        }
        Self { intervals: Intervals::new(cuts.starts), values: cuts.values.into() }
    }

    #[inline]
    fn lookup(&self, address: K) -> Option<T> {
        self.values[self.intervals.find(address)]
    }
}

/// Intervals in the making.
struct Cuts<K, T> {
    starts: Vec<K>,
    values: Vec<Option<T>>,
}

impl<K: Key, T: Copy> Cuts<K, T> {
    /// From `start` on, `value` holds.
    fn at(&mut self, start: K, value: Option<T>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        self.starts.push(start);
        self.values.push(value);
    }

    /// Ends the innermost open prefix: behind it, the one around it holds.
    fn close(&mut self, open: &mut Vec<(K, T)>) {
        if let Some((last, _)) = open.pop()
            && let Some(next) = last.successor()
        {
            self.at(next, open.last().map(|(_, value)| *value));
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

    fn lpm(prefixes: &[&str]) -> Lpm<u8> {
        Lpm::build(prefixes.iter().zip(0..).map(|(prefix, value)| (prefix.parse().unwrap(), value)))
    }

    fn lookup(lpm: &Lpm<u8>, address: &str) -> Option<u8> {
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
            prefixes in prop::collection::hash_map(prop_oneof![3 => prefix_v4(), 1 => prefix_v6()], any::<u32>(), 0..200),
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

//! Numbers the datagrams that many senders send from one address (RFC 6864 §5.3).
//!
//! Behind a NAT gateway all instances have one address. If two of them sent datagrams to one host under the same
//! identification at the same time, their fragments would be put together to something that neither has sent (RFC 4963).
//! So the gateway counts itself, for each pair of addresses and protocol. A datagram that cannot be fragmented
//! any more (DF, and whole) keeps the number it has: nobody may make anything of it (RFC 6864 §4.1).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use foldhash::fast::FixedState;
use zerocopy::FromBytes;

use crate::wire::Ipv4;

/// What a datagram's identification is unique for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
}

/// The next identification of everybody.
#[derive(Debug)]
pub struct Identifications {
    /// Several [`Ends`] may share a counter: then the numbers of each have gaps.
    next: Box<[AtomicU16]>,
}

/// As many as Linux has (`ip_idents`).
const COUNTERS: usize = 2048;

impl Ends {
    /// Those of a packet.
    ///
    /// # Panics
    /// If it is shorter than an IPv4 header.
    pub fn of(bytes: &[u8]) -> Self {
        let (ip, _) = Ipv4::ref_from_prefix(bytes).expect("a packet has a header");
        Self { source: ip.source, destination: ip.destination, protocol: ip.protocol }
    }
}

impl Default for Identifications {
    fn default() -> Self {
        Self { next: (0..COUNTERS).map(|_| AtomicU16::default()).collect() }
    }
}

impl Identifications {
    /// The first of `count` identifications in a row; a super-packet needs one for each of its segments.
    pub fn take(&self, ends: Ends, count: u16) -> u16 {
        let counter = FixedState::default().hash_one(ends) as usize % COUNTERS;
        self.next[counter].fetch_add(count, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::craft;

    #[test]
    fn no_number_comes_again_before_all_others_have_come() {
        let identifications = Identifications::default();
        let ends = Ends::of(&craft::udp("10.0.1.100:1024", "203.0.113.5:53", b""));
        let taken: HashSet<u16> = (0..65_536).map(|_| identifications.take(ends, 1)).collect();
        assert_eq!(taken.len(), 65_536);
    }

    #[test]
    fn a_super_packet_has_a_number_for_each_segment() {
        let identifications = Identifications::default();
        let ends = Ends::of(&craft::udp("10.0.1.100:1024", "203.0.113.5:53", b""));
        let first = identifications.take(ends, 45);
        assert_eq!(identifications.take(ends, 1), first.wrapping_add(45));
    }

    #[test]
    fn ports_make_no_difference_and_addresses_do() {
        let of = |source, destination| Ends::of(&craft::udp(source, destination, b""));
        assert_eq!(of("10.0.1.100:1", "203.0.113.5:2"), of("10.0.1.100:3", "203.0.113.5:4"));
        assert_ne!(of("10.0.1.100:1", "203.0.113.5:2"), of("10.0.1.100:1", "203.0.113.6:2"));
    }
}

//! Where a connection or lease is looked for: what names it, packed and hashed, once per packet.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::trace::{Protocol, Tuple};

use super::activity::Label;
use crate::hash::Seed;

/// The name of a connection at an ENI, or of a lease at a NAT gateway, and its hash.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Addresses; ports and the number of the ENI or gateway.
    words: [u64; 2],
    protocol: u32,
    pub(super) hash: u64,
}

impl Place {
    /// Of a tuple at the ENI or gateway with this number; `None` if it is not IPv4: no such packet is carried.
    #[inline]
    pub(super) fn new(tuple: &Tuple, number: u32, seed: Seed) -> Option<Self> {
        let Tuple { source, destination, source_port, destination_port, protocol } = *tuple;
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { return None };
        let addresses = u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination));
        let ports = u64::from(source_port) << 48 | u64::from(destination_port) << 32 | u64::from(number);
        Some(Self::of([addresses, ports], protocol.0.into(), seed))
    }

    /// Of what a label begins with.
    #[inline]
    pub(super) fn of(words: [u64; 2], protocol: u32, seed: Seed) -> Self {
        let [addresses, ports] = words;
        let protocol_bits = u64::from(protocol).rotate_right(8);
        Self { words, protocol, hash: seed.hash([addresses, ports ^ protocol_bits]) }
    }

    /// Of what a label says.
    #[inline]
    pub(super) fn of_label(label: &Label, seed: Seed) -> Self {
        Self::of(label.words, label.more & 0xFF, seed)
    }

    /// What it is found by.
    #[inline]
    pub fn key(&self) -> [u64; 3] {
        [self.words[0], self.words[1], self.protocol.into()]
    }

    /// What it was made of, packed.
    #[inline]
    pub(super) fn words(&self) -> ([u64; 2], u32) {
        (self.words, self.protocol)
    }

    /// The label that it begins, with `more` above the protocol.
    #[inline]
    pub(super) fn label(&self, more: u32, extra: u32) -> Label {
        Label { words: self.words, more: self.protocol | more << 8, extra }
    }

    /// The protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.protocol as u8)
    }

    /// The number of the ENI or gateway.
    #[inline]
    pub fn number(&self) -> u32 {
        self.words[1] as u32
    }

    /// The tuple that it was made of.
    pub fn tuple(&self) -> Tuple {
        let [addresses, ports] = self.words;
        let address = |word: u64| Ipv4Addr::from(word as u32).into();
        Tuple {
            source: address(addresses >> 32),
            destination: address(addresses),
            source_port: (ports >> 48) as u16,
            destination_port: (ports >> 32) as u16,
            protocol: self.protocol(),
        }
    }
}

/// They name the same; then the hash is the same, too.
impl PartialEq for Place {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Place {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::craft;

    #[test]
    fn says_what_it_was_made_of() {
        let seed = Seed::from_random(1);
        let tuple = craft::tuple(Protocol::UDP, "10.0.2.20:40000", "203.0.113.5:53");
        let place = Place::new(&tuple, 0xDEAD_BEEF, seed).unwrap();
        assert_eq!((place.tuple(), place.number(), place.protocol()), (tuple, 0xDEAD_BEEF, Protocol::UDP));
        let label = place.label(0xABCDEF, 7);
        assert_eq!((label.more, label.extra, label.key()), (0xABCD_EF11, 7, place.key()));
        let again = Place::of_label(&label, seed);
        assert_eq!((again, again.hash), (place, place.hash));
        for other in [
            Place::new(&tuple.reversed(), 0xDEAD_BEEF, seed),
            Place::new(&tuple, 0xDEAD_BEEE, seed),
            Place::new(&Tuple { protocol: Protocol::TCP, ..tuple }, 0xDEAD_BEEF, seed),
            Place::new(&Tuple { source_port: 1, ..tuple }, 0xDEAD_BEEF, seed),
        ] {
            let other = other.unwrap();
            assert!(other != place && other.hash != place.hash, "{other:?}");
        }
        assert!(Place::new(&Tuple { source: "::1".parse().unwrap(), ..tuple }, 1, seed).is_none());
    }
}

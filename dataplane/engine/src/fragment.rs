//! Cuts a packet that is too big for its way into fragments (RFC 791 §3.2, RFC 1812 §4.2.2.7).

use zerocopy::FromBytes;
use zerocopy::IntoBytes;

use crate::wire::Ipv4;
use crate::wire::checksum::Sum;

/// Calls `emit` with the header and the data of each fragment, in order.
///
/// `packet` is a whole packet or itself a fragment, without IP options, its transport checksum complete: that is
/// in the first fragment, and covers all. A packet that fits is emitted as it is. `mtu` is at least 68 (RFC 791).
///
/// # Panics
///
/// If `packet` is shorter than an IPv4 header.
pub fn fragment(packet: &[u8], mtu: u16, mut emit: impl FnMut(&Ipv4, &[u8])) {
    let (whole, data) = Ipv4::ref_from_prefix(packet).expect("a packet has a header");
    if packet.len() <= usize::from(mtu) {
        return emit(whole, data);
    }
    // All but the last have a multiple of 8 bytes.
    let room = (usize::from(mtu).saturating_sub(Ipv4::LENGTH) & !7).max(8);
    let first = usize::from(whole.fragment_offset());
    let mut skipped = 0;
    for part in data.chunks(room) {
        let mut header = *whole;
        let last = skipped + part.len() == data.len();
        let more = if last && !whole.more_fragments() { 0 } else { Ipv4::MORE_FRAGMENTS };
        // An offset is at most 65,528 bytes: 8,191 units.
        let offset = ((first + skipped) / 8) as u16 & Ipv4::OFFSET;
        header.flags_and_offset.set(more | offset);
        header.total_length.set((Ipv4::LENGTH + part.len()) as u16);
        header.checksum.set(0);
        header.checksum.set(Sum::of(header.as_bytes()).checksum());
        emit(&header, part);
        skipped += part.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Offload, parse};
    use crate::testing::craft;

    fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let mut fragments = Vec::new();
        fragment(packet, mtu, |header, data| fragments.push([header.as_bytes(), data].concat()));
        fragments
    }

    fn datagram(data: usize) -> Vec<u8> {
        let data: Vec<u8> = (0..data).map(|at| (at * 7) as u8).collect();
        craft::fragmentable(craft::udp("10.0.2.20:5000", "203.0.113.5:53", &data))
    }

    #[test]
    fn a_datagram_of_4000_bytes_for_an_mtu_of_1500() {
        let said: Vec<_> = cut(&datagram(3972), 1500)
            .iter()
            .map(|fragment| {
                let (header, data) = Ipv4::checked(fragment).unwrap();
                (fragment.len(), header.fragment_offset(), header.more_fragments(), data.len())
            })
            .collect();
        assert_eq!(said, [(1500, 0, true, 1480), (1500, 1480, true, 1480), (1040, 2960, false, 1020)]);
    }

    #[test]
    fn a_packet_that_fits_stays_whole() {
        assert_eq!(cut(&datagram(1472), 1500), [datagram(1472)]);
        assert_eq!(cut(&datagram(1473), 1500).len(), 2);
    }

    proptest! {
        #[test]
        fn fragments_and_fragments_of_fragments_reassemble(
            data in 0usize..20_000, first in 68u16..9001, second in 68u16..9001,
        ) {
            let packet = datagram(data);
            let mut joined = Vec::new();
            for fragment in cut(&packet, first).iter().flat_map(|fragment| cut(fragment, second)) {
                prop_assert!(fragment.len() <= usize::from(first.min(second)).max(packet.len().min(68)));
                let (header, data) = Ipv4::checked(&fragment).unwrap();
                prop_assert_eq!(usize::from(header.fragment_offset()), joined.len());
                joined.extend_from_slice(data);
                prop_assert_eq!(header.more_fragments(), joined.len() < packet.len() - 20);
                // A datagram of few bytes may be cut within its UDP header by an MTU below 68 only.
                prop_assert!(parse(&fragment, Offload::default()).is_ok());
            }
            prop_assert_eq!(&joined[..], &packet[20..]);
        }
    }
}

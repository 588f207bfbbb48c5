//! How large may the segments of this connection become? Lowers the MSS that a SYN offers.
//!
//! Both ends of a connection through a NAT gateway announce what their own interface takes, 9001 bytes; the gateway takes
//! 8500. It lowers the option on every SYN and SYN-ACK (NATGW-28, MTU-4), so that they never learn it the hard
//! way. A SYN without the option is left alone: its sender is content with 536 bytes (RFC 9293 §3.7.1).

use localvpc_api::trace::Protocol;
use zerocopy::FromBytes;

use crate::packet::{Checksum, Kind, Packet, TcpFacts};
use crate::wire::checksum::{Sum, update};
use crate::wire::{Ipv4, Tcp};

/// The MSS that fills a packet of `mtu` bytes (RFC 6691 §2).
pub const fn of_mtu(mtu: u16) -> u16 {
    mtu.saturating_sub((Ipv4::LENGTH + Tcp::LENGTH) as u16)
}

/// Lowers the MSS option of a SYN to `limit`; does nothing to any other packet.
///
/// # Panics
///
/// If `bytes` are not those that `packet` was parsed from.
pub fn clamp(bytes: &mut [u8], packet: &Packet, limit: u16) {
    if !matches!(packet.kind, Kind::Tcp(facts) if facts.flags & TcpFacts::SYN != 0) {
        return;
    }
    debug_assert_eq!(packet.tuple.protocol, Protocol::TCP);
    let segment = &mut bytes[packet.transport.into()..];
    let (tcp, _) =
        Tcp::ref_from_prefix(segment).expect("the bytes are those that the packet was parsed from");
    let length = tcp.header_length();
    let Some(at) = option(&segment[..length]) else { return };
    // The option may stand at an odd place: the checksum is updated by the whole words that it touches.
    let words = at & !1..(at + 3) & !1;
    let before: [u8; 4] = std::array::from_fn(|byte| *segment.get(words.start + byte).unwrap_or(&0));
    let offered = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if offered <= limit {
        return;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    // A partial checksum covers the pseudo-header alone.
    if packet.checksum == Checksum::Complete {
        let difference = Sum::difference(&before[..words.len()], &segment[words]);
        let (tcp, _) = Tcp::mut_from_prefix(segment).expect("as above");
        tcp.checksum.set(update(tcp.checksum.get(), difference));
    }
}

/// Where in a TCP header the value of the MSS option stands.
fn option(header: &[u8]) -> Option<usize> {
    let mut at = Tcp::LENGTH;
    loop {
        match header.get(at..)? {
            [END, ..] => return None,
            [NOTHING, ..] => at += 1,
            [MSS, 4, _, _, ..] => return Some(at + 2),
            [_, length, ..] if *length >= 2 => at += usize::from(*length),
            _ => return None,
        }
    }
}

// RFC 9293 §3.2.
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Segmentation, parse};
    use crate::testing::craft;

    fn clamped(options: &[u8]) -> Vec<u8> {
        let mut bytes = craft::tcp_with_options(TcpFacts::SYN, "10.0.2.20:5000", "203.0.113.5:443", options);
        let packet = parse(&bytes, Default::default()).unwrap();
        clamp(&mut bytes, &packet, 8460);
        bytes
    }

    #[test]
    fn a_large_mss_becomes_the_limit_wherever_it_stands() {
        for (before, after) in [
            (vec![2, 4, 0x23, 0x01], vec![2, 4, 0x21, 0x0C]),
            (vec![1, 2, 4, 0x23, 0x01, 1, 1, 1], vec![1, 2, 4, 0x21, 0x0C, 1, 1, 1]),
            (vec![4, 2, 2, 4, 0xFF, 0xFF, 1, 0], vec![4, 2, 2, 4, 0x21, 0x0C, 1, 0]),
            (vec![2, 4, 0x21, 0x0D], vec![2, 4, 0x21, 0x0C]),
            (vec![2, 4, 0x21, 0x00], vec![2, 4, 0x21, 0x00]),
            (vec![2, 4, 5, 0xB4], vec![2, 4, 5, 0xB4]),
            (vec![0, 0, 2, 4, 0xFF, 0xFF, 0, 0], vec![0, 0, 2, 4, 0xFF, 0xFF, 0, 0]),
            (vec![2, 3, 0xFF, 1], vec![2, 3, 0xFF, 1]),
            (vec![3, 0, 2, 4, 0xFF, 0xFF, 0, 0], vec![3, 0, 2, 4, 0xFF, 0xFF, 0, 0]),
            (vec![1, 1, 1, 2], vec![1, 1, 1, 2]),
            (vec![], vec![]),
        ] {
            let expected =
                craft::tcp_with_options(TcpFacts::SYN, "10.0.2.20:5000", "203.0.113.5:443", &after);
            assert_eq!(clamped(&before), expected, "{before:?}");
        }
    }

    #[test]
    fn only_a_syn_is_touched_and_a_partial_checksum_stays() {
        let (from, to, options) = ("10.0.2.20:5000", "203.0.113.5:443", [2, 4, 0xFF, 0xFF]);
        let mut ack = craft::tcp_with_options(TcpFacts::ACK, from, to, &options);
        let before = ack.clone();
        let packet = parse(&ack, Default::default()).unwrap();
        clamp(&mut ack, &packet, 1000);
        assert_eq!(ack, before);

        let syn = craft::tcp_with_options(TcpFacts::SYN | TcpFacts::ACK, from, to, &options);
        let (mut syn, offload) = craft::offloaded(syn, Segmentation::None);
        let packet = parse(&syn, offload).unwrap();
        let sum = syn[36..38].to_vec();
        clamp(&mut syn, &packet, 1000);
        assert_eq!((&syn[36..38], &syn[42..44]), (&sum[..], &1000_u16.to_be_bytes()[..]));
    }

    proptest! {
        #[test]
        fn any_options_leave_a_right_checksum(words in prop::collection::vec(any::<[u8; 4]>(), 0..=10)) {
            let bytes = clamped(&words.concat());
            let sum = Sum::pseudo_header([10, 0, 2, 20].into(), [203, 0, 113, 5].into(), Protocol::TCP, bytes.len() as u32 - 20);
            prop_assert_eq!(sum.and(Sum::of(&bytes[20..])).fold(), 0xFFFF);
        }
    }
}

//! Views an IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use localvpc_api::DiscardReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;

/// The fixed part of the header; options follow it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version in the upper half, header length in 32-bit words in the lower.
    pub version_and_length: u8,
    /// DSCP and ECN.
    pub type_of_service: u8,
    /// Bytes from here to the end of the packet.
    pub total_length: U16,
    /// Names the packet among its fragments.
    pub identification: U16,
    /// Reserved, DF and MF, then the fragment offset in units of 8 bytes.
    pub flags_and_offset: U16,
    /// Hops left.
    pub ttl: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Over the header, options included.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4 {
    /// Length of a header without options, bytes.
    pub const LENGTH: usize = size_of::<Self>();
    /// Don't fragment, in [`flags_and_offset`](Self::flags_and_offset).
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// More fragments follow, in [`flags_and_offset`](Self::flags_and_offset).
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// The fragment offset, in [`flags_and_offset`](Self::flags_and_offset), in units of 8 bytes.
    pub const OFFSET: u16 = 0x1FFF;

    /// The header of a packet that is carried, and what the packet has behind it; bytes beyond the total length are left out.
    ///
    /// # Errors
    ///
    /// The packet is shorter than it says, is not IPv4, its header is malformed or has a
    /// wrong checksum, or it carries options.
    #[inline]
    pub fn checked(bytes: &[u8]) -> Result<(&Self, &[u8]), DiscardReason> {
        let (header, header_length) = Self::plausible(bytes)?;
        let length = usize::from(header.total_length.get());
        if length < header_length {
            return Err(DiscardReason::MalformedIpHeader);
        }
        let Some(packet) = bytes.get(..length) else {
            return Err(DiscardReason::Truncated);
        };
        // The usual length is a constant, for which the sum is a handful of instructions.
        let sums_up = match header_length {
            Self::LENGTH => checksum::verify(header.as_bytes()),
            _ => checksum::verify(&packet[..header_length]),
        };
        if !sums_up {
            return Err(DiscardReason::WrongIpChecksum);
        }
        if header_length > Self::LENGTH {
            return Err(DiscardReason::IpOptions);
        }
        Ok((header, &packet[header_length..]))
    }

    /// The header of a packet that an ICMP error quotes, and what is quoted behind it and its options.
    ///
    /// The quotation may end anywhere, so the total length says nothing here.
    ///
    /// # Errors
    ///
    /// The header is cut off or malformed, its checksum is wrong (RFC 5508 REQ-3a), or it is that of a later
    /// fragment, which names no connection.
    pub fn quoted(bytes: &[u8]) -> Result<(&Self, &[u8]), DiscardReason> {
        let (header, header_length) = Self::plausible(bytes).map_err(|reason| match reason {
            DiscardReason::Truncated => DiscardReason::Truncated,
            _ => DiscardReason::MalformedTransportHeader,
        })?;
        let Some((whole, rest)) = bytes.split_at_checked(header_length) else {
            return Err(DiscardReason::Truncated);
        };
        if !checksum::verify(whole) {
            return Err(DiscardReason::WrongIcmpChecksum);
        }
        if header.flags_and_offset.get() & Self::OFFSET != 0 {
            return Err(DiscardReason::UnrelatedIcmpError);
        }
        Ok((header, rest))
    }

    /// Bytes of the header with its options.
    pub const fn header_length(&self) -> usize {
        (self.version_and_length & 0x0F) as usize * 4
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// Whether the packet must not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_offset.get() & Self::DONT_FRAGMENT != 0
    }

    /// Whether the packet is only a part of a datagram.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_offset.get() & (Self::MORE_FRAGMENTS | Self::OFFSET) != 0
    }

    /// Where the data of the packet starts in that of its datagram, bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_and_offset.get() & Self::OFFSET) * 8
    }

    /// Whether other fragments of the datagram come behind this one.
    pub fn more_fragments(&self) -> bool {
        self.flags_and_offset.get() & Self::MORE_FRAGMENTS != 0
    }

    /// Version and header length, before anything is known of the rest.
    #[inline]
    fn plausible(bytes: &[u8]) -> Result<(&Self, usize), DiscardReason> {
        match bytes.first() {
            None => return Err(DiscardReason::Truncated),
            Some(first) if first >> 4 != 4 => return Err(DiscardReason::NotIpv4),
            Some(_) => (),
        }
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(DiscardReason::Truncated);
        };
        let length = header.header_length();
        if length < Self::LENGTH {
            return Err(DiscardReason::MalformedIpHeader);
        }
        Ok((header, length))
    }
}

/// Whether an address can name one host: not multicast, broadcast or class E, "this network" or loopback (RFC 1812 §5.3.7).
pub const fn is_unicast(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.1.10 → 198.51.100.10, UDP, DF, TTL 64, two bytes behind the UDP header.
    const BYTES: [u8; 30] = [
        0x45, 0x00, 0x00, 0x1E, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0xF3, 0x53, 10, 0, 1, 10, 198, 51, 100,
        10, 0, 53, 0, 53, 0, 10, 0, 0, 1, 2,
    ];

    fn patched(changes: &[(usize, u8)]) -> Result<usize, DiscardReason> {
        let mut bytes = BYTES.to_vec();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        let header_length = (usize::from(bytes[0] & 15) * 4).clamp(20, 30);
        bytes[10..12].fill(0);
        let checksum = checksum::Sum::of(&bytes[..header_length]).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        Ipv4::checked(&bytes).map(|(_, rest)| rest.len())
    }

    #[test]
    fn reads_literal_bytes() {
        let (header, rest) = Ipv4::checked(&BYTES).unwrap();
        assert_eq!(header.source(), Ipv4Addr::new(10, 0, 1, 10));
        assert_eq!(header.destination(), Ipv4Addr::new(198, 51, 100, 10));
        assert_eq!((header.ttl, header.protocol), (64, 17));
        assert_eq!((header.header_length(), header.total_length.get()), (20, 30));
        assert!(header.dont_fragment());
        assert_eq!(rest, &BYTES[20..]);
    }

    #[test]
    fn fragments_are_recognised_by_offset_and_more() {
        let fragment = |high: u8, low: u8| {
            let mut header = *Ipv4::checked(&BYTES).unwrap().0;
            header.flags_and_offset = [high, low].into();
            (header.is_fragment(), header.fragment_offset(), header.more_fragments())
        };
        assert_eq!(fragment(0x40, 0), (false, 0, false), "DF");
        assert_eq!(fragment(0x80, 0), (false, 0, false), "the reserved bit");
        assert_eq!(fragment(0x20, 0), (true, 0, true));
        assert_eq!(fragment(0x20, 1), (true, 8, true));
        assert_eq!(fragment(0x1F, 0xFF), (true, 65_528, false));
    }

    #[test]
    fn padding_is_left_out() {
        let padded = [&BYTES[..], &[0xAA; 16]].concat();
        assert_eq!(Ipv4::checked(&padded).unwrap().1, &BYTES[20..]);
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(patched(&[]), Ok(10));
        assert_eq!(patched(&[(0, 0x65)]), Err(DiscardReason::NotIpv4));
        assert_eq!(patched(&[(0, 0x44)]), Err(DiscardReason::MalformedIpHeader));
        assert_eq!(patched(&[(3, 19)]), Err(DiscardReason::MalformedIpHeader));
        assert_eq!(patched(&[(3, 31)]), Err(DiscardReason::Truncated));
        assert_eq!(patched(&[(0, 0x46)]), Err(DiscardReason::IpOptions));
        assert_eq!(patched(&[(6, 0xC0)]), Ok(10), "the reserved bit is ignored");

        let mut wrong = BYTES;
        wrong[11] ^= 1;
        assert_eq!(Ipv4::checked(&wrong).unwrap_err(), DiscardReason::WrongIpChecksum);
        for length in 0..BYTES.len() {
            assert_eq!(Ipv4::checked(&BYTES[..length]).unwrap_err(), DiscardReason::Truncated, "{length}");
        }
    }

    #[test]
    fn a_quotation_may_be_cut_off_behind_its_header() {
        assert_eq!(Ipv4::quoted(&BYTES[..28]).unwrap().1.len(), 8);
        assert_eq!(Ipv4::quoted(&BYTES[..20]).unwrap().1.len(), 0);
        assert_eq!(Ipv4::quoted(&BYTES[..19]).unwrap_err(), DiscardReason::Truncated);
        let mut wrong = BYTES;
        wrong[8] = 63;
        assert_eq!(Ipv4::quoted(&wrong).unwrap_err(), DiscardReason::WrongIcmpChecksum);
        wrong[0] = 0x60;
        assert_eq!(Ipv4::quoted(&wrong).unwrap_err(), DiscardReason::MalformedTransportHeader);
    }

    #[test]
    fn unicast() {
        for address in
            ["10.0.0.1", "1.0.0.0", "126.255.255.255", "128.0.0.1", "169.254.169.254", "223.255.255.255"]
        {
            assert!(is_unicast(address.parse().unwrap()), "{address}");
        }
        for address in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]
        {
            assert!(!is_unicast(address.parse().unwrap()), "{address}");
        }
    }
}

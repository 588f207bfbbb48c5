//! Views a UDP header (RFC 768).

use localvpc_api::DiscardReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Bytes of header and data.
    pub length: U16,
    /// Over the pseudo-header, the header and the data; zero is none.
    pub checksum: U16,
}

impl Udp {
    /// Length of the header, bytes.
    pub const LENGTH: usize = size_of::<Self>();
    /// Where the checksum stands in the header.
    pub const CHECKSUM: usize = std::mem::offset_of!(Self, checksum);

    /// The header of a datagram, and its data; bytes beyond its length are left out.
    ///
    /// # Errors
    ///
    /// The bytes end before the header does, or its length is below 8 or beyond the bytes.
    #[inline]
    pub fn checked(bytes: &[u8]) -> Result<(&Self, &[u8]), DiscardReason> {
        let malformed = DiscardReason::MalformedTransportHeader;
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| malformed)?;
        let data = bytes.get(Self::LENGTH..header.length.get().into()).ok_or(malformed)?;
        Ok((header, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5353 → 53, two bytes of data.
    const BYTES: [u8; 10] = [0x14, 0xE9, 0x00, 0x35, 0x00, 0x0A, 0xAB, 0xCD, 1, 2];

    #[test]
    fn reads_literal_bytes() {
        let (header, data) = Udp::checked(&BYTES).unwrap();
        assert_eq!((header.source_port.get(), header.destination_port.get()), (5353, 53));
        assert_eq!((header.length.get(), header.checksum.get()), (10, 0xABCD));
        assert_eq!(data, [1, 2]);
        assert_eq!(BYTES[Udp::CHECKSUM..][..2], [0xAB, 0xCD]);
        assert_eq!(Udp::checked(&[&BYTES[..], &[9; 5]].concat()).unwrap().1, [1, 2]);
    }

    #[test]
    fn refuses_a_length_below_the_header_or_beyond_the_packet() {
        for length in 0..BYTES.len() {
            assert_eq!(Udp::checked(&BYTES[..length]).unwrap_err(), DiscardReason::MalformedTransportHeader);
        }
        for length in [0, 7, 11] {
            let mut wrong = BYTES;
            wrong[5] = length;
            assert_eq!(Udp::checked(&wrong).unwrap_err(), DiscardReason::MalformedTransportHeader);
        }
    }
}

//! Views an ICMP header (RFC 792).

use localvpc_api::DiscardReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes of a message, named as an echo uses them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// What it is.
    pub icmp_type: u8,
    /// What it is more exactly.
    pub code: u8,
    /// Over the whole message.
    pub checksum: U16,
    /// Echo: names the pinging process.
    pub identifier: U16,
    /// Echo: counts its pings. "Fragmentation needed": the MTU (RFC 1191 §4).
    pub sequence: U16,
}

impl Icmp {
    /// Length of the header, bytes.
    pub const LENGTH: usize = size_of::<Self>();
    /// Type of an echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type of "destination unreachable".
    pub const UNREACHABLE: u8 = 3;
    /// Type of a source quench, long out of use.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Type of a redirect.
    pub const REDIRECT: u8 = 5;
    /// Type of an echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Type of "time exceeded".
    pub const TIME_EXCEEDED: u8 = 11;
    /// Type of "parameter problem".
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of [`UNREACHABLE`](Self::UNREACHABLE): the packet is too big and must not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;

    /// The header of a message, and what follows it.
    ///
    /// # Errors
    ///
    /// The bytes end before the header does.
    #[inline]
    pub fn checked(bytes: &[u8]) -> Result<(&Self, &[u8]), DiscardReason> {
        Self::ref_from_prefix(bytes).map_err(|_| DiscardReason::MalformedTransportHeader)
    }

    /// Whether it is an echo request or reply. With another code than 0 it is something that has no name.
    pub const fn is_echo(&self) -> bool {
        matches!((self.icmp_type, self.code), (Self::ECHO_REQUEST | Self::ECHO_REPLY, 0))
    }

    /// Whether it is an error, and so quotes the packet it is about (RFC 1122 §3.2.2).
    pub const fn is_error(&self) -> bool {
        matches!(
            self.icmp_type,
            Self::UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_literal_bytes() {
        let bytes = [8, 0, 0x12, 0x34, 0xBE, 0xEF, 0, 7, b'x'];
        let (header, data) = Icmp::checked(&bytes).unwrap();
        assert!(header.is_echo() && !header.is_error());
        assert_eq!((header.identifier.get(), header.sequence.get()), (0xBEEF, 7));
        assert_eq!(header.checksum.get(), 0x1234);
        assert_eq!(data, b"x");
    }

    #[test]
    fn refuses_less_than_eight_bytes() {
        for length in 0..8 {
            assert_eq!(
                Icmp::checked(&[3; 8][..length]).unwrap_err(),
                DiscardReason::MalformedTransportHeader
            );
        }
    }

    #[test]
    fn errors_are_the_five_types_that_quote() {
        let errors: Vec<u8> =
            (0..=255).filter(|icmp_type| Icmp::checked(&[*icmp_type; 8]).unwrap().0.is_error()).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
    }
}

//! Sums 16-bit words in one's complement: the internet checksum (RFC 1071), from scratch and incrementally.

use std::net::Ipv4Addr;

use localvpc_api::trace::Protocol;

/// A one's complement sum of big-endian 16-bit words, not folded yet.
///
/// A checksum field holds the complement of the sum ([`Sum::checksum`]); the field of
/// a packet whose checksum the receiver of an offload completes holds the sum of
/// the pseudo-header itself ([`Sum::fold`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of bytes that start at an even offset of what is summed; an odd last byte is padded with zero.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // The sum does not depend on byte order (RFC 1071 §2.B), so the words are added as
        // the machine reads them, 32 bits at a time, and swapped once at the end.
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut sum = 0u64;
        for chunk in chunks {
            let word = u64::from_ne_bytes(*chunk);
            sum += (word & 0xFFFF_FFFF) + (word >> 32);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let word = u64::from_ne_bytes(last);
        sum += (word & 0xFFFF_FFFF) + (word >> 32);
        Self(u64::from(u16::from_be(Self(sum).fold())))
    }

    /// Of the pseudo-header of TCP and UDP; `length` counts the bytes from the transport header on.
    pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, length: u32) -> Self {
        Self::of(&source.octets())
            .and(Self::of(&destination.octets()))
            .and_word(protocol.0.into())
            .and(Self(length.into()))
    }

    /// What to add to a sum in which the words of `from` are replaced by those of `to` (RFC 1624 §3, eqn. 3).
    #[inline]
    pub fn difference(from: &[u8], to: &[u8]) -> Self {
        let removed = Self::of(from).checksum();
        match Self::of(to).and_word(removed).fold() {
            // Minus zero. A difference that changes nothing is written as zero, so that it
            // also leaves a sum of zero (UDP's 0xFFFF) alone.
            0xFFFF => Self(0),
            difference => Self(difference.into()),
        }
    }

    /// The same of 32 bits, as big-endian numbers.
    #[inline]
    pub fn change(from: u32, to: u32) -> Self {
        Self::changes([(from, to)])
    }

    /// The same of several numbers of 32 bits, each with what replaces it.
    #[inline]
    pub fn changes<const COUNT: usize>(pairs: [(u32, u32); COUNT]) -> Self {
        let halves = |number: u32| (number >> 16) + (number & 0xFFFF);
        let sum: u32 = pairs.iter().map(|(from, to)| halves(!from) + halves(*to)).sum();
        // Folding keeps the remainder, as 2¹⁶ leaves 1; minus zero becomes zero, as above.
        Self((sum % 0xFFFF).into())
    }

    /// Both sums together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// With one more word.
    pub const fn and_word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// The sum in 16 bits. It is zero only if nothing but zeros was added.
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
        sum = (sum & 0xFFFF) + ((sum >> 16) & 0xFFFF) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum as u16
    }

    /// The complement, as checksum fields hold it.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// Whether bytes that contain their own checksum add up.
#[inline]
pub fn verify(bytes: &[u8]) -> bool {
    Sum::of(bytes).fold() == 0xFFFF
}

/// The same for an IPv4 header without options, which has a version: not all of it is zero.
#[inline]
pub fn verify_header(header: &[u8; 20]) -> bool {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let [a, b, c, d, e, f, g, h, ..] = *header;
    let (sum, carry) =
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]).overflowing_add(word(8) + word(12) + word(16));
    // What was carried out comes in again: it is one either way, modulo 0xFFFF.
    let sum = sum + u64::from(carry);
    // Folding keeps the remainder, as 2¹⁶ leaves 1; and no sum of zeros folds to anything but zero.
    // A multiple of 0xFFFF is divided by the multiplication, modulo 2⁶⁴; every other number becomes larger than any quotient.
    const INVERSE: u64 = (u64::MAX / 0xFFFF).wrapping_neg();
    const { assert!(INVERSE.wrapping_mul(0xFFFF) == 1) };
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xFFFF
}

/// Two folded sums together, folded.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    (sum + (sum >> 16)) as u16
}

/// A complete checksum after `difference` was applied to what it covers (RFC 1624 §3, eqn. 3).
pub const fn update(checksum: u16, difference: Sum) -> u16 {
    Sum(!checksum as u64).and(difference).checksum()
}

/// The same for a field that holds a sum which is still to be completed.
pub const fn update_partial(sum: u16, difference: Sum) -> u16 {
    Sum(sum as u64).and(difference).fold()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(Sum::of(&bytes).fold(), 0xDDF2);
    }

    #[test]
    fn example_of_rfc_1624() {
        // §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, where RFC 1141 went wrong.
        let difference = Sum::difference(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(update(0xDD2F, difference), 0x0000);
    }

    #[test]
    fn nothing_but_zeros_is_zero() {
        assert_eq!(Sum::of(&[0; 33]).fold(), 0);
        assert_eq!(Sum::of(&[]).fold(), 0);
        assert_eq!(Sum::of(&[0xFF; 64]).fold(), 0xFFFF);
    }

    #[test]
    fn a_difference_that_changes_nothing_is_zero() {
        assert_eq!(Sum::difference(&[1, 2, 3, 4], &[1, 2, 3, 4]).fold(), 0);
        assert_eq!(Sum::difference(&[1, 2, 3, 4], &[3, 4, 1, 2]).fold(), 0);
        assert_eq!(update(0xFFFF, Sum::difference(&[9, 9], &[9, 9])), 0xFFFF);
    }

    #[test]
    fn folds_the_largest_sum() {
        assert_eq!(Sum(u64::MAX).fold(), 0xFFFF);
        assert_eq!(Sum(0x1_0000).fold(), 1);
        assert_eq!(Sum(0xFFFF_FFFF_FFFF).fold(), 0xFFFF);
    }

    proptest! {
        #[test]
        fn sums_as_defined(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Sum::of(&bytes).fold(), slow(&bytes));
        }

        #[test]
        fn a_header_verifies_as_its_bytes_do(mut header: [u8; 20], version in 1..=u8::MAX, complete: bool) {
            header[0] = version;
            if complete {
                header[10..12].fill(0);
                let checksum = Sum::of(&header).checksum().to_be_bytes();
                header[10..12].copy_from_slice(&checksum);
            }
            prop_assert_eq!(verify_header(&header), verify(&header));
            prop_assert!(!complete || verify(&header));
        }

        #[test]
        fn folds_modulo_ffff(sum: u64) {
            let folded = Sum(sum).fold();
            prop_assert_eq!(u64::from(folded) % 0xFFFF, sum % 0xFFFF);
            prop_assert_eq!(folded == 0, sum == 0);
        }

        #[test]
        fn an_update_is_a_recomputation(mut bytes in proptest::collection::vec(any::<u8>(), 8..64), word: [u8; 2], at in 0usize..4) {
            prop_assume!(bytes[4..].iter().any(|byte| *byte != 0) || word != [0, 0]);
            let before = Sum::of(&bytes);
            let difference = Sum::difference(&bytes[at * 2..at * 2 + 2], &word);
            bytes[at * 2..at * 2 + 2].copy_from_slice(&word);
            let after = Sum::of(&bytes);
            prop_assume!(before.fold() != 0 && after.fold() != 0);
            prop_assert_eq!(update(before.checksum(), difference), after.checksum());
            prop_assert_eq!(update_partial(before.fold(), difference), after.fold());
        }
    }
}

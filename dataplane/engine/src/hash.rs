//! Hashes keys of two words, so that nobody can aim at a place without the seed.

use std::hash::BuildHasher;

/// What makes a table's hashes its own.
#[derive(Clone, Copy, Debug)]
pub struct Seed([u64; 2]);

impl Seed {
    /// From a random number.
    pub const fn from_random(random: u64) -> Self {
        Self([random ^ 0x9e37_79b9_7f4a_7c15, random.rotate_left(32) ^ 0xbf58_476d_1ce4_e5b9])
    }

    /// All bits of it are good.
    #[inline]
    pub const fn hash(self, words: [u64; 2]) -> u64 {
        let folded = fold((words[0] ^ self.0[0]) as u128 * (words[1] ^ self.0[1]) as u128);
        // The low bits of a product see only the low bits of its factors: once more.
        fold(folded as u128 * (self.0[0] | 1) as u128)
    }
}

impl Default for Seed {
    /// From the randomness of the process.
    fn default() -> Self {
        Self::from_random(foldhash::fast::RandomState::default().hash_one(0))
    }
}

#[inline]
const fn fold(product: u128) -> u64 {
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbours_spread_over_high_and_low_bits() {
        let seed = Seed::from_random(7);
        let hashes: Vec<u64> = (0..65_536).map(|n| seed.hash([0x0A00_0214_CB00_7105, n << 32 | 6])).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), 65_536);
        for part in [0, 16, 32, 48, 56] {
            let mut buckets = [0; 256];
            hashes.iter().for_each(|hash| buckets[(hash >> part) as usize % 256] += 1);
            // 256 expected, standard deviation 16.
            assert!(buckets.iter().all(|count| (160..360).contains(count)), "bits {part}: {buckets:?}");
        }
        assert_ne!(Seed::from_random(1).hash([1, 2]), Seed::from_random(2).hash([1, 2]));
    }
}

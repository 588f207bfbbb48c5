//! Keeps the ports in use towards a destination that has many.

use super::{NatPorts, Search};

/// A bit per port, and a bit per word of those that tells whether the word is full.
#[derive(Debug)]
pub(super) struct Bitmap {
    used: [u64; WORDS],
    full: [u64; SUMMARY],
    pub(super) count: u32,
}

impl Bitmap {
    pub(super) fn of(taken: &[u16]) -> Box<Self> {
        let mut bitmap = Box::new(Self { used: [0; WORDS], full: [0; SUMMARY], count: 0 });
        // Words that do not exist have no room.
        bitmap.full[SUMMARY - 1] = !0 << (WORDS % 64);
        for port in taken {
            bitmap.take(usize::from(port - FIRST_PORT));
        }
        bitmap
    }

    pub(super) fn take_from(&mut self, search: Search) -> Option<u16> {
        if self.count >= NatPorts::QUOTA {
            return None;
        }
        let first = usize::from(search.port - FIRST_PORT);
        let bit = self.free_like(first, search.step.into()).unwrap_or_else(|| self.free_from(first));
        self.take(bit);
        Some(FIRST_PORT + bit as u16)
    }

    /// A free bit whole steps away from `start`, if one is soon found.
    fn free_like(&self, start: usize, step: usize) -> Option<usize> {
        if step == 1 {
            return None;
        }
        let mut bit = start;
        for _ in 0..TRIES {
            if self.used[bit / 64] & (1 << (bit % 64)) == 0 {
                return Some(bit);
            }
            bit += step;
            if bit >= PORTS as usize {
                // Round, which does not change what is left of a division by the step.
                bit -= PORTS as usize / step * step;
            }
        }
        None
    }

    /// The first free bit from `start` on, going round. There is one: the quota is below the number of ports.
    fn free_from(&self, start: usize) -> usize {
        let word = start / 64;
        let free = !self.used[word] & (!0 << (start % 64));
        let word = if free != 0 { return word * 64 + free.trailing_zeros() as usize } else { word + 1 };
        // The rest of the summary word, the others, and the first part of this one again.
        let mut room = self.full.get(word / 64).map_or(0, |full| !full & (!0 << (word % 64)));
        let mut summary = word / 64 % SUMMARY;
        while room == 0 {
            summary = (summary + 1) % SUMMARY;
            room = !self.full[summary];
        }
        let word = summary * 64 + room.trailing_zeros() as usize;
        word * 64 + (!self.used[word]).trailing_zeros() as usize
    }

    fn take(&mut self, bit: usize) {
        let word = &mut self.used[bit / 64];
        *word |= 1 << (bit % 64);
        if *word == !0 {
            self.full[bit / 4096] |= 1 << (bit / 64 % 64);
        }
        self.count += 1;
    }

    pub(super) fn give_back(&mut self, port: u16) {
        let Some(bit) = port.checked_sub(FIRST_PORT).map(usize::from) else { return };
        let word = &mut self.used[bit / 64];
        if *word & (1 << (bit % 64)) != 0 {
            *word &= !(1 << (bit % 64));
            self.full[bit / 4096] &= !(1 << (bit / 64 % 64));
            self.count -= 1;
        }
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = u16> {
        let not_0 = |word: u64| (word != 0).then_some(word);
        let bits = (0..).zip(&self.used).flat_map(move |(word, &used)| {
            std::iter::successors(not_0(used), move |rest| not_0(rest & (rest - 1)))
                .map(move |rest| word * 64 + rest.trailing_zeros() as u16)
        });
        bits.map(|bit| FIRST_PORT + bit)
    }
}

/// Ports as good as the first that are looked at before any is taken: at half of the quota one of them is free almost always, at all of it 12
/// times in 13.
const TRIES: usize = 16;

/// NATGW-10.
pub(super) const FIRST_PORT: u16 = 1024;

/// 1024 to 65535.
pub(super) const PORTS: u32 = 65_536 - FIRST_PORT as u32;

const WORDS: usize = PORTS as usize / 64;

const SUMMARY: usize = WORDS.div_ceil(64);

const _: () = assert!(PORTS.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The bitmap alone, at any fill: it finds what a scan finds.
        #[test]
        fn a_bitmap_finds_the_next_free_port(
            holes in prop::collection::vec(1024..=65_535u16, 9_600..10_000),
            starts in prop::collection::vec(1024..=65_535u16, 200),
        ) {
            let holes: BTreeSet<u16> = holes.into_iter().collect();
            let taken: Vec<u16> = (1024..=65_535).filter(|port| !holes.contains(port)).collect();
            let bitmap = Bitmap::of(&taken);
            prop_assert_eq!(bitmap.taken().collect::<Vec<_>>(), taken);
            for start in starts {
                let expected = holes.range(start..).chain(&holes).next().unwrap();
                prop_assert_eq!(FIRST_PORT + bitmap.free_from(usize::from(start - FIRST_PORT)) as u16, *expected);
            }
        }
    }
}

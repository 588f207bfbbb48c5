//! Finds the interval that contains a key.
//!
//! The whole range of keys is cut at sorted points. The part of the range that has
//! cuts is divided into slots of equal size; a slot knows the few cuts within it, and
//! most have none or one. ("DXR: Towards a Billion Routing Lookups per Second in Software",
//! Zec, Rizzo and Mikuc, ACM CCR 2012, has the idea.) Ports, addresses and routes are
//! all looked up this way.

/// A partition of all keys into intervals.
#[derive(Debug)]
pub(super) struct Intervals<K> {
    /// First key of each interval, ascending; the first is the lowest key.
    starts: Box<[K]>,
    /// Per slot: how many intervals start before it. One more at the end.
    slots: Box<[u32]>,
    /// The lowest cut, where slot 0 begins. What lies before belongs to slot 0 too, and what lies behind all
    /// slots to the last.
    origin: K,
    /// Size of a slot, as a power of two.
    shift: u32,
}

impl<K: Key> Intervals<K> {
    /// Cuts at `starts`, which ascend from [`Key::LOWEST`].
    pub fn new(starts: Vec<K>) -> Self {
        debug_assert!(starts.first() == Some(&K::LOWEST) && starts.is_sorted_by(|a, b| a < b));
        let cuts = starts.get(1).copied().zip(starts.last().copied());
        let (origin, last) = cuts.unwrap_or((K::LOWEST, K::LOWEST));
        // About four slots per interval: most lookups then need no search, and a small table stays in a few lines.
        let bits = (starts.len().ilog2() + 2).min(MAX_SLOT_BITS);
        let shift = last.above(origin).width().saturating_sub(bits);
        let mut this = Self { starts: starts.into(), slots: vec![0; (1 << bits) + 1].into(), origin, shift };
        let mut before = 0;
        for slot in 0..this.slots.len() {
            while this.starts.get(before).is_some_and(|start| this.slot(*start) < slot) {
                before += 1;
            }
            this.slots[slot] = before as u32;
        }
        this
    }

    /// The position of the interval that contains `key`.
    #[inline]
    pub fn find(&self, key: K) -> usize {
        let slot = self.slot(key);
        let (from, to) = (self.slots[slot] as usize, self.slots[slot + 1] as usize);
        let inside = &self.starts[from..to];
        let up_to_key = if inside.len() <= LINEAR {
            inside.iter().filter(|start| **start <= key).count()
        } else {
            inside.partition_point(|start| *start <= key)
        };
        from + up_to_key - 1
    }

    /// The slot of a key; a higher key has the same or a higher one.
    #[inline]
    fn slot(&self, key: K) -> usize {
        key.above(self.origin).slot(self.shift, self.slots.len() - 2)
    }
}

/// An unsigned integer to cut intervals of.
pub(super) trait Key: Copy + Ord {
    /// The lowest key.
    const LOWEST: Self;
    /// The distance from `origin`; 0 below it.
    fn above(self, origin: Self) -> Self;
    /// Bits that it takes to write it.
    fn width(self) -> u32;
    /// What is left of it without the lowest `shift` bits, or `last` if that is less.
    fn slot(self, shift: u32, last: usize) -> usize;
    /// The next key, if this is not the highest.
    fn successor(self) -> Option<Self>;
}

macro_rules! keys {
    ($($key:ty)*) => {$(
        impl Key for $key {
            const LOWEST: Self = 0;

            #[inline]
            fn above(self, origin: Self) -> Self {
                self.saturating_sub(origin)
            }

            fn width(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }

            #[inline]
            fn slot(self, shift: u32, last: usize) -> usize {
                // Up to the last cut no more is left than there are slots; what lies behind joins the last.
                usize::try_from(self >> shift).unwrap_or(last).min(last)
            }

            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    )*};
}

keys! { u16 u32 u128 }

/// A million slots, four megabytes: for a full internet table.
const MAX_SLOT_BITS: u32 = 20;

/// Up to so many cuts, comparing with all of them is faster than a binary search.
const LINEAR: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive<K: Key>(starts: &[K], key: K) -> usize {
        starts.iter().rposition(|start| *start <= key).unwrap()
    }

    fn cuts<K: Key>(mut starts: Vec<K>) -> Vec<K> {
        starts.push(K::LOWEST);
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds_among_ports(
            starts in prop::collection::vec(any::<u16>(), 0..300).prop_map(cuts),
            keys in prop::collection::vec(any::<u16>(), 50),
        ) {
            let intervals = Intervals::new(starts.clone());
            for key in keys.into_iter().chain(starts.iter().copied()).chain([0, u16::MAX]) {
                prop_assert_eq!(intervals.find(key), naive(&starts, key));
            }
        }

        /// Clustered in one slot, and spread.
        #[test]
        fn finds_what_a_scan_finds_among_addresses(
            starts in prop::collection::vec(prop_oneof![any::<u32>(), 0x0a00_0000..0x0a00_0100u32], 0..300).prop_map(cuts),
            keys in prop::collection::vec(prop_oneof![any::<u32>(), 0x0a00_0000..0x0a00_0100u32], 50),
        ) {
            let intervals = Intervals::new(starts.clone());
            for key in keys.into_iter().chain(starts.iter().copied()).chain([0, u32::MAX]) {
                prop_assert_eq!(intervals.find(key), naive(&starts, key));
            }
        }

        #[test]
        fn finds_what_a_scan_finds_among_ipv6_addresses(
            starts in prop::collection::vec(any::<u128>(), 0..100).prop_map(cuts),
            keys in prop::collection::vec(any::<u128>(), 50),
        ) {
            let intervals = Intervals::new(starts.clone());
            for key in keys.into_iter().chain(starts.iter().copied()).chain([0, u128::MAX]) {
                prop_assert_eq!(intervals.find(key), naive(&starts, key));
            }
        }
    }
}

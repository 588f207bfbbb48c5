//! Finds what holds for the interval that contains a key.
//!
//! ```text
//!                       ┌ 16 ends │ … ┐                    layer 0: one node
//!                 ┌───────────┴───────────┐
//!      ┌ 16 ends │ … ┐    …    ┌ 16 ends │ … ┐             layer 1: up to 17
//!      ┌──────┴──────┐
//! ┌ 16 ends │ 16 values ┐  …                               the last layer: the intervals
//! ```
//!
//! The whole range of keys is cut into intervals, known by their last keys. 16 of them are a cache line, compared with
//! all at once; how many lie below the key is the child to go on with. The tree is complete, so that children are found without
//! pointers and each search takes the same steps: the processor guesses no branch wrong, and so works on several lookups at a time, which hides
//! most of the time that memory takes. ("Static B-trees" as in Algorithmica; "Cache-sensitive search on B+ trees" is older.)
//! A table of up to 16 intervals is two lines.
//!
//! Keys of more than 32 bits are searched word by word: what is cut inside of a word's value has a tree of its own for the words behind it.
//! Ports, addresses and routes are all looked up this way.

use std::marker::PhantomData;

use zerocopy::FromZeros;

use crate::memory::Zeroed;

/// A partition of all keys into intervals, with a value each.
#[derive(Debug)]
pub(super) struct Intervals<K> {
    nodes: Zeroed<Node>,
    root: Tree,
    key: PhantomData<K>,
}

impl<K: Key> Intervals<K> {
    /// Values are below this.
    pub const LIMIT: u32 = NESTED;

    /// From the first key of each interval and its value; they ascend from [`Key::LOWEST`].
    pub fn new(cuts: &[(K, u32)]) -> Self {
        debug_assert!(cuts.first().is_some_and(|(start, _)| *start == K::LOWEST));
        debug_assert!(cuts.is_sorted_by(|a, b| a.0 < b.0) && cuts.iter().all(|(_, value)| *value < NESTED));
        let mut nodes = Vec::new();
        let root = build(&mut nodes, cuts, 0, 0);
        let mut stored = Zeroed::new(nodes.len());
        stored.copy_from_slice(&nodes);
        Self { nodes: stored, root, key: PhantomData }
    }

    /// The value of the interval that contains `key`.
    #[inline]
    pub fn value(&self, key: K) -> u32 {
        let mut found = self.search(self.root, key.word(0));
        for word in 1..K::WORDS {
            if found & NESTED == 0 {
                break;
            }
            found = self.search(Tree(found), key.word(word));
        }
        found
    }
}

impl Intervals<u16> {
    /// The first and the last key of the interval that contains `key`.
    pub fn around(&self, key: u16) -> (u16, u16) {
        let nodes = &self.nodes[self.root.start()..];
        let word = Sought::new(key.word(0));
        let (mut at, mut first_leaf) = (0, 0);
        for _ in 0..self.root.inner_layers() {
            at = first_child(at) + word.above(&nodes[at].ends);
            first_leaf = first_child(first_leaf);
        }
        let below = word.above(&nodes[at].ends);
        // Leaves are full, but the last.
        let before = match below.checked_sub(1) {
            Some(place) => Some(nodes[at].ends[place]),
            None if at > first_leaf => Some(nodes[at - 1].ends[FAN - 1]),
            None => None,
        };
        let end_of = |end: i32| u16::try_from(unbiased(end)).unwrap_or(u16::MAX);
        (before.map_or(0, |end| end_of(end) + 1), end_of(nodes[at].ends[below]))
    }
}

impl<K: Key> Intervals<K> {
    #[inline]
    fn search(&self, tree: Tree, word: u32) -> u32 {
        let nodes = &self.nodes[tree.start()..];
        let word = Sought::new(word);
        let mut at = 0;
        for _ in 0..tree.inner_layers() {
            at = first_child(at) + word.above(&nodes[at].ends);
        }
        let leaf = &nodes[at];
        // Some end is the highest word there is, which is not below another.
        leaf.values[word.above(&leaf.ends) % FAN]
    }
}

/// An unsigned integer to cut intervals of, as words.
pub(super) trait Key: Copy + Ord {
    /// The lowest key.
    const LOWEST: Self;
    /// How many words it has.
    const WORDS: usize;
    /// One of its words, the highest first.
    fn word(self, at: usize) -> u32;
    /// Whether all words from `at` on are 0.
    fn ends_before(self, at: usize) -> bool;
    /// The next key, if this is not the highest.
    fn successor(self) -> Option<Self>;
}

macro_rules! keys {
    ($($key:ty: $words:literal;)*) => {$(
        impl Key for $key {
            const LOWEST: Self = 0;
            const WORDS: usize = $words;

            #[inline]
            fn word(self, at: usize) -> u32 {
                (self >> (32 * (Self::WORDS - 1 - at))) as u32
            }

            fn ends_before(self, at: usize) -> bool {
                (at..Self::WORDS).all(|at| self.word(at) == 0)
            }

            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    )*};
}

keys! { u16: 1; u32: 1; u128: 4; }

/// Intervals in a cache line.
const FAN: usize = 16;

/// 16 ends, and in the last layer what belongs to them.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
struct Node {
    /// Last words of the intervals, or of the children but the last; biased, since signed numbers are compared faster. Those behind
    /// the highest are the highest.
    ends: [i32; FAN],
    values: [u32; FAN],
}

impl Node {
    const EMPTY: Self = Self { ends: [i32::MAX; FAN], values: [0; FAN] };

    fn of_ends(ends: &[u32]) -> Self {
        let mut node = Self::EMPTY;
        for (place, end) in node.ends.iter_mut().zip(ends) {
            *place = biased(*end);
        }
        node
    }
}

/// Where a tree's nodes begin and how many layers it has, in one word; a value with [`NESTED`] names the tree that goes on.
#[derive(Clone, Copy, Debug)]
struct Tree(u32);

const NESTED: u32 = 1 << 31;
const LAYERS_SHIFT: u32 = 28;

impl Tree {
    fn new(start: usize, inner_layers: u32) -> Self {
        assert!(start < 1 << LAYERS_SHIFT && inner_layers < 8, "no table has that many intervals");
        Self(NESTED | inner_layers << LAYERS_SHIFT | start as u32)
    }

    #[inline]
    fn start(self) -> usize {
        (self.0 & ((1 << LAYERS_SHIFT) - 1)) as usize
    }

    #[inline]
    fn inner_layers(self) -> u32 {
        self.0 >> LAYERS_SHIFT & 7
    }
}

/// Nodes are numbered layer by layer, as if all were there.
#[inline]
const fn first_child(node: usize) -> usize {
    node * (FAN + 1) + 1
}

/// Builds the tree for the words `at` of keys that agree in those before. What lies below the first cut has the value `before`.
fn build<K: Key>(nodes: &mut Vec<Node>, cuts: &[(K, u32)], at: usize, before: u32) -> Tree {
    // First words, with a value or a nested tree.
    let mut starts: Vec<(u32, u32)> = Vec::with_capacity(cuts.len() + 1);
    let mut add = |start: u32, value: u32| match starts.last_mut() {
        Some((last, old)) if *last == start => *old = value,
        Some((_, old)) if *old == value => {}
        _ => starts.push((start, value)),
    };
    add(0, before);
    let mut current = before;
    for group in cuts.chunk_by(|a, b| a.0.word(at) == b.0.word(at)) {
        let word = group[0].0.word(at);
        let after = group[group.len() - 1].1;
        if group.len() == 1 && group[0].0.ends_before(at + 1) {
            add(word, after);
        } else {
            add(word, build(nodes, group, at + 1, current).0);
            if let Some(next) = word.checked_add(1) {
                add(next, after);
            }
        }
        current = after;
    }
    store(nodes, &starts)
}

/// Lays a tree out behind the other nodes.
fn store(nodes: &mut Vec<Node>, starts: &[(u32, u32)]) -> Tree {
    let start = nodes.len();
    let leaves = starts.len().div_ceil(FAN);
    let (mut inner_layers, mut width, mut first) = (0, 1, 0);
    while width < leaves {
        width *= FAN + 1;
        first = first_child(first);
        inner_layers += 1;
    }
    nodes.resize(start + first + leaves, Node::EMPTY);
    let tree = &mut nodes[start..];
    let mut ends = starts.iter().skip(1).map(|(start, _)| start - 1).chain([u32::MAX]);
    // The last word below each node of the layer.
    let mut lasts = Vec::with_capacity(leaves);
    for (node, starts) in tree[first..].iter_mut().zip(starts.chunks(FAN)) {
        let ends: arrayvec::ArrayVec<u32, FAN> = ends.by_ref().take(starts.len()).collect();
        *node = Node::of_ends(&ends);
        for (place, (_, value)) in node.values.iter_mut().zip(starts) {
            *place = *value;
        }
        lasts.push(ends[ends.len() - 1]);
    }
    while first > 0 {
        first = (first - 1) / (FAN + 1);
        let children = lasts.chunks(FAN + 1);
        for (node, lasts) in tree[first..].iter_mut().zip(children.clone()) {
            *node = Node::of_ends(&lasts[..lasts.len() - 1]);
        }
        lasts = children.map(|lasts| lasts[lasts.len() - 1]).collect();
    }
    Tree::new(start, inner_layers)
}

#[inline]
const fn biased(word: u32) -> i32 {
    (word ^ 1 << 31) as i32
}

const fn unbiased(end: i32) -> u32 {
    end as u32 ^ 1 << 31
}

/// A word to compare with many.
#[derive(Clone, Copy)]
struct Sought(i32);

impl Sought {
    #[inline]
    fn new(word: u32) -> Self {
        Self(biased(word))
    }

    /// Above how many of the ends, which ascend, it lies.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    fn above(self, ends: &[i32; FAN]) -> usize {
        use std::arch::x86_64::*;
        // SAFETY: every x86-64 processor has SSE2, and each of the four loads is within `ends`; they need no alignment.
        unsafe {
            let sought = _mm_set1_epi32(self.0);
            let above = |at| _mm_cmpgt_epi32(sought, _mm_loadu_si128(ends.as_ptr().add(at).cast()));
            let (low, high) = (_mm_packs_epi32(above(0), above(4)), _mm_packs_epi32(above(8), above(12)));
            (!_mm_movemask_epi8(_mm_packs_epi16(low, high))).trailing_zeros() as usize
        }
    }

    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    fn above(self, ends: &[i32; FAN]) -> usize {
        ends.iter().map(|end| usize::from(*end < self.0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn cuts<K: Key>(starts: Vec<K>) -> Vec<(K, u32)> {
        let starts: BTreeMap<K, ()> =
            starts.into_iter().chain([K::LOWEST]).map(|start| (start, ())).collect();
        starts.into_keys().zip((0..).step_by(3)).collect()
    }

    fn naive<K: Key>(cuts: &[(K, u32)], key: K) -> u32 {
        cuts.iter().rfind(|(start, _)| *start <= key).unwrap().1
    }

    fn check<K: Key + std::fmt::Debug>(
        cuts: &[(K, u32)],
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), TestCaseError> {
        let intervals = Intervals::new(cuts);
        let edges = cuts.iter().flat_map(|(start, _)| [Some(*start), start.successor()]).flatten();
        for key in keys.into_iter().chain(edges) {
            prop_assert_eq!(intervals.value(key), naive(cuts, key), "{:?}", key);
        }
        Ok(())
    }

    #[test]
    fn a_small_table_is_two_lines_and_every_size_finds_its_way() {
        assert_eq!(size_of::<Node>(), 128);
        for count in [1_u32, 2, 15, 16, 17, 271, 272, 273, 4_623, 4_624, 4_625, 80_000] {
            let cuts: Vec<(u32, u32)> = (0..count).map(|at| (at * 50_000, at)).collect();
            let intervals = Intervals::new(&cuts);
            for (start, value) in &cuts {
                assert_eq!(intervals.value(*start), *value, "{count}");
                assert_eq!(intervals.value(start + 49_999), *value, "{count}");
            }
            assert_eq!(intervals.value(u32::MAX), count - 1);
            if count <= 16 {
                assert_eq!(intervals.nodes.len(), 1);
            }
        }
    }

    /// One /112 and one address: only their words have trees.
    #[test]
    fn long_keys_have_trees_only_where_they_are_cut() {
        let cuts = [(0, 1), (7 << 96, 2), (8 << 96, 1), (9 << 96 | 5, 3), (9 << 96 | 6, 1)];
        let intervals = Intervals::<u128>::new(&cuts);
        assert_eq!(intervals.nodes.len(), 4);
        let found = [0, 7 << 96, (8 << 96) - 1, 8 << 96, 9 << 96 | 4, 9 << 96 | 5, 9 << 96 | 6, u128::MAX];
        assert_eq!(found.map(|key| intervals.value(key)), [1, 2, 2, 1, 1, 3, 1, 1]);
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds_among_ports(
            cuts in prop::collection::vec(any::<u16>(), 0..400).prop_map(cuts),
            keys in prop::collection::vec(any::<u16>(), 50),
        ) {
            check(&cuts, keys.into_iter().chain([0, u16::MAX]))?;
        }

        /// Clustered, and spread.
        #[test]
        fn finds_what_a_scan_finds_among_addresses(
            cuts in prop::collection::vec(prop_oneof![any::<u32>(), 0x0a00_0000..0x0a00_0100u32], 0..400).prop_map(cuts),
            keys in prop::collection::vec(prop_oneof![any::<u32>(), 0x0a00_0000..0x0a00_0100u32], 50),
        ) {
            check(&cuts, keys.into_iter().chain([0, u32::MAX]))?;
        }

        /// Few values in each word, so that keys share some words and not others; the lowest and the highest often.
        #[test]
        fn finds_what_a_scan_finds_among_ipv6_addresses(
            cuts in prop::collection::vec(long(), 0..100).prop_map(cuts),
            keys in prop::collection::vec(long(), 50),
        ) {
            check(&cuts, keys.into_iter().chain([0, u128::MAX]))?;
        }
    }

    fn long() -> impl Strategy<Value = u128> {
        let word = prop_oneof![4 => Just(0), 2 => Just(u32::MAX), 3 => 1..4u32, 1 => any::<u32>()];
        prop::array::uniform4(word)
            .prop_map(|words| words.iter().fold(0, |key, word| key << 32 | u128::from(*word)))
    }

    #[test]
    fn around_a_key_is_all_of_its_interval() {
        // One leaf; several below one node; below several; an interval that begins a leaf, and the last one.
        for (count, step) in [(1_u16, 1), (2, 100), (16, 5), (17, 300), (40, 7), (300, 200), (5_000, 13)] {
            let cuts: Vec<(u16, u32)> = (0..count).map(|at| (at * step, u32::from(at % 2))).collect();
            let intervals = Intervals::new(&cuts);
            for at in 0..count {
                let (first, last) = (at * step, if at + 1 < count { (at + 1) * step - 1 } else { u16::MAX });
                for key in [first, first / 2 + last / 2, last] {
                    assert_eq!(intervals.around(key), (first, last), "{key} of {count} by {step}");
                }
            }
        }
    }
}

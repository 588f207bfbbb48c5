//! Finds a record by the hash of its key: buckets of one cache line, of fixed number, that readers search without a lock.
//!
//! An entry is the position of a record and eight bits of hash. Whoever searches compares keys in the record itself, which
//! may be taken back at that very moment: a [`Ref`](super::activity::Ref)'s version tells. Writers of one key exclude each other by its
//! [lock](Index::lock); an entry never moves, so a reader never misses one that stays.
//!
//! An entry that finds its home bucket full goes into the next that has room, and those that it has passed count it, so that a search goes on
//! behind them. Twelve bytes hold two entries and a half: at most two thirds of the places are ever used.

use std::sync::atomic::{AtomicU32, Ordering::*};

use zerocopy::FromZeros;

use super::lock::{self, Lock};
use crate::memory::{Zeroed, prefetch};

/// Places of records, by hash.
#[derive(Debug)]
pub struct Index {
    buckets: Zeroed<Bucket>,
    stripes: Box<[Stripe]>,
}

/// That nothing with some key was found. It holds until a record is made whose key has a similar hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    pub(crate) stripe: u32,
    pub(crate) made: u32,
}

/// A part of all hashes, and the right to write about their keys.
#[derive(Debug)]
pub struct Locked<'a> {
    stripe: &'a Stripe,
    _lock: lock::Locked<'a, ()>,
}

/// What a part of all hashes has in common.
#[derive(Debug, Default)]
struct Stripe {
    lock: Lock<()>,
    /// Records made so far.
    made: AtomicU32,
}

#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
struct Bucket {
    /// The lowest bits of the hash above the position of the record and one; 0 is free.
    entries: [AtomicU32; ENTRIES],
    /// Entries that found this one full, and lie behind it.
    passed: AtomicU32,
}

const ENTRIES: usize = 15;

/// Of 15: so few find their home full that nearly every search reads one line.
const FILLED: usize = 10;

const POSITION: u32 = (1 << 24) - 1;

/// So many that two workers rarely wait for each other, and an absence is rarely doubted because of another record: each doubt costs a walk.
const STRIPES: usize = 4096;

impl Index {
    /// The most records that it can tell apart.
    pub const MAX: u32 = POSITION;

    /// Room for `capacity` records, of which the first is number 0.
    ///
    /// # Panics
    /// If they are more than [`MAX`](Self::MAX), or there is not that much memory.
    pub fn new(capacity: u32) -> Self {
        assert!(capacity <= Self::MAX, "at most {} records", Self::MAX);
        let buckets = (capacity as usize).div_ceil(FILLED).max(1);
        Self { buckets: Zeroed::new(buckets), stripes: (0..STRIPES).map(|_| Stripe::default()).collect() }
    }

    /// Has the kernel give all of its memory now.
    pub fn populate(&mut self) {
        self.buckets.populate();
    }

    /// Excludes other writers of keys with this hash, and some others.
    #[inline]
    pub fn lock(&self, hash: u64) -> Locked<'_> {
        let stripe = &self.stripes[stripe(hash)];
        Locked { stripe, _lock: stripe.lock.lock() }
    }

    /// What to compare later, to know that a record that is not found now is still absent. To be taken before [`find`](Self::find).
    #[inline]
    pub fn absence(&self, hash: u64) -> Absence {
        let stripe = stripe(hash);
        Absence { stripe: stripe as u32, made: self.stripes[stripe].made.load(Acquire) }
    }

    /// Whether no such record can have been made since.
    #[inline]
    pub fn still_absent(&self, absence: Absence) -> bool {
        self.stripes[absence.stripe as usize].made.load(Acquire) == absence.made
    }

    /// Has the processor fetch where [`absence`](Self::absence) and [`find`](Self::find) begin.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
        prefetch(&self.stripes[stripe(hash)]);
    }

    /// Calls `fetch` with the positions of records that [`find`](Self::find) will likely look at.
    #[inline]
    pub fn foresee(&self, hash: u64, fetch: impl Fn(u32)) {
        let tagged = tag(hash) << 24;
        // The first free entry is mostly the end of them.
        let entries = self.buckets[self.home(hash)].entries.iter().map(|entry| entry.load(Relaxed));
        for entry in entries.take_while(|entry| *entry != 0) {
            let position = entry ^ tagged;
            if position.wrapping_sub(1) < POSITION {
                fetch(position - 1);
            }
        }
    }

    /// The first result that `look` has about a record that may have the hash.
    #[inline]
    pub fn find<T>(&self, hash: u64, look: impl Fn(u32) -> Option<T>) -> Option<T> {
        let home = self.home(hash);
        let bucket = &self.buckets[home];
        let found = bucket.find(hash, &look);
        if found.is_some() || bucket.passed.load(Acquire) == 0 {
            return found;
        }
        self.find_behind(home, hash, look)
    }

    /// The same of what its home had no room for.
    #[cold]
    fn find_behind<T>(&self, home: usize, hash: u64, look: impl Fn(u32) -> Option<T>) -> Option<T> {
        for bucket in self.from(home).skip(1) {
            let found = bucket.find(hash, &look);
            if found.is_some() || bucket.passed.load(Acquire) == 0 {
                return found;
            }
        }
        None
    }

    /// Adds a record; the caller holds the [lock](Self::lock) of its hash.
    ///
    /// # Panics
    /// If there are more records than there is room for.
    pub fn insert(&self, hash: u64, position: u32) {
        let new = tag(hash) << 24 | (position + 1);
        for bucket in self.probes(hash) {
            // Others may use the bucket, for keys with another lock.
            let free = |entry: &&AtomicU32| entry.compare_exchange(0, new, Release, Relaxed).is_ok();
            let mut free_ones = bucket.entries.iter().filter(|entry| entry.load(Relaxed) == 0);
            if free_ones.find(free).is_some() {
                return;
            }
            bucket.passed.fetch_add(1, Release);
        }
        unreachable!("there are more places than records");
    }

    /// Removes a record; the caller holds the [lock](Self::lock) of its hash. Does nothing if it is not there.
    pub fn remove(&self, hash: u64, position: u32) {
        let old = tag(hash) << 24 | (position + 1);
        for (distance, bucket) in self.probes(hash).enumerate() {
            if let Some(entry) = bucket.entries.iter().find(|entry| entry.load(Relaxed) == old) {
                entry.store(0, Release);
                for passed in self.probes(hash).take(distance) {
                    passed.passed.fetch_sub(1, Release);
                }
                return;
            }
            if bucket.passed.load(Relaxed) == 0 {
                return;
            }
        }
    }

    fn probes(&self, hash: u64) -> impl Iterator<Item = &Bucket> {
        self.from(self.home(hash))
    }

    fn from(&self, home: usize) -> impl Iterator<Item = &Bucket> {
        let (before, behind) = self.buckets.split_at(home);
        behind.iter().chain(before)
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }
}

impl Bucket {
    #[inline]
    fn find<T>(&self, hash: u64, look: &impl Fn(u32) -> Option<T>) -> Option<T> {
        let tagged = tag(hash) << 24;
        for entry in &self.entries {
            // With the right tag only the position is left, which is not 0 in an entry.
            let position = entry.load(Acquire) ^ tagged;
            if position.wrapping_sub(1) < POSITION
                && let Some(found) = look(position - 1)
            {
                return Some(found);
            }
        }
        None
    }
}

impl Locked<'_> {
    /// Notes that a record was made, or has begun anew: what was absent may not be so any more.
    #[inline]
    pub fn note_made(&self) {
        let made = &self.stripe.made;
        made.store(made.load(Relaxed).wrapping_add(1), Release);
    }
}

#[inline]
fn stripe(hash: u64) -> usize {
    (hash >> 8) as usize % STRIPES
}

#[inline]
fn tag(hash: u64) -> u32 {
    hash as u32 & 0xFF
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::hash::Seed;

    fn hash(key: u32) -> u64 {
        Seed::from_random(1).hash([u64::from(key), 5])
    }

    fn find(index: &Index, hash: u64, wanted: u32) -> bool {
        index.find(hash, |position| (position == wanted).then_some(())).is_some()
    }

    #[test]
    fn is_one_line_per_bucket_and_six_bytes_per_record() {
        assert_eq!((size_of::<Bucket>(), Index::new(1000).buckets.len()), (64, 100));
    }

    #[test]
    fn holds_as_many_as_it_has_room_for_even_of_one_hash() {
        let index = Index::new(40);
        (0..40).for_each(|position| index.insert(u64::MAX, position));
        assert!((0..40).all(|position| find(&index, u64::MAX, position)));
        for position in (0..40).rev() {
            index.remove(u64::MAX, position);
            assert!(
                !find(&index, u64::MAX, position) && (0..position).all(|other| find(&index, u64::MAX, other))
            );
        }
        assert!(index.buckets.iter().all(|bucket| bucket.passed.load(Relaxed) == 0));
        index.remove(u64::MAX, 3);
        assert!(index.buckets.iter().all(|bucket| bucket.passed.load(Relaxed) == 0), "it was not there");
    }

    #[test]
    fn foresees_what_it_will_find() {
        let index = Index::new(40);
        let foreseen = |hash: u64| {
            let seen = std::cell::RefCell::new(Vec::new());
            index.foresee(hash, |position| seen.borrow_mut().push(position));
            seen.into_inner()
        };
        assert!(foreseen(5).is_empty());
        for (position, hash) in [(0, 5), (3, 6), (7, 5)] {
            index.insert(hash, position);
        }
        assert_eq!((foreseen(5), foreseen(6)), (vec![0, 7], vec![3]));
    }

    #[test]
    fn an_absence_holds_until_something_similar_is_made() {
        let index = Index::new(10);
        let (absent, other) = (index.absence(5 << 8), index.absence(6 << 8));
        assert!(index.still_absent(absent) && index.still_absent(other));
        index.lock(5 << 8).note_made();
        assert!(!index.still_absent(absent) && index.still_absent(other));
    }

    #[test]
    fn a_lock_excludes_others() {
        let index = Index::new(10);
        let counted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let _lock = index.lock(7 << 8);
                        counted.store(counted.load(Relaxed) + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(counted.load(Relaxed), 40_000);
    }

    proptest! {
        #[test]
        fn equals_a_map(steps in prop::collection::vec((0..60_u32, 0..6_u64, any::<bool>()), 0..400)) {
            let index = Index::new(60);
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (position, hash, insert) in steps {
                // Few homes, few tags.
                let hash = hash << 62 | hash & 1;
                match (model.get(&position).copied(), insert) {
                    (None, true) => {
                        index.insert(hash, position);
                        model.insert(position, hash);
                    }
                    (Some(hash), false) => {
                        index.remove(hash, position);
                        model.remove(&position);
                    }
                    (None, false) => index.remove(hash, position),
                    (Some(_), true) => {}
                }
                for position in 0..60 {
                    match model.get(&position) {
                        Some(hash) => prop_assert!(find(&index, *hash, position)),
                        None => prop_assert!((0..4_u64).all(|home| !find(&index, home << 62 | home & 1, position))),
                    }
                }
            }
        }
    }

    /// Writers come and go around records that stay: no reader may ever miss one of those.
    #[test]
    fn a_reader_never_misses_what_stays() {
        let index = Index::new(600);
        let stays = 0..200_u32;
        for position in stays.clone() {
            index.insert(hash(position), position);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..2_u32 {
                let (index, stop) = (&index, &stop);
                scope.spawn(move || {
                    for round in 0..300_u32 {
                        let mine = (200 + writer * 200)..(400 + writer * 200);
                        for position in mine.clone() {
                            let hash = hash(position * 7 + round);
                            let _lock = index.lock(hash);
                            index.insert(hash, position);
                        }
                        for position in mine {
                            let hash = hash(position * 7 + round);
                            let _lock = index.lock(hash);
                            index.remove(hash, position);
                        }
                    }
                    stop.store(true, Relaxed);
                });
            }
            while !stop.load(Relaxed) {
                assert!(stays.clone().all(|position| find(&index, hash(position), position)));
            }
        });
        assert!((200..600).all(|position| !find(&index, hash(position * 7 + 299), position)));
        let passed: u32 = index.buckets.iter().map(|bucket| bucket.passed.load(Relaxed)).sum();
        let alone = Index::new(600);
        stays.for_each(|position| alone.insert(hash(position), position));
        assert!(passed <= 200, "{passed}");
    }
}

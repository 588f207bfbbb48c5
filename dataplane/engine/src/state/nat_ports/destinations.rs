//! Keeps the destinations of a shard, each with its ports in use.

use std::net::IpAddr;

use super::bitmap::{Bitmap, FIRST_PORT};
use super::{Destination, Search};
use crate::memory::{Pool, Pooled, prefetch};

/// A destination, packed: both addresses; gateway, port, protocol, and a bit that is always set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromZeros)]
pub(super) struct Key(pub(super) [u64; 2]);

impl Key {
    /// What no destination has.
    const NONE: Self = Self([0; 2]);

    #[inline]
    pub(super) fn of(destination: &Destination) -> Option<Self> {
        let Destination { nat_gateway, address, remote, remote_port, protocol } = *destination;
        let (IpAddr::V4(address), IpAddr::V4(remote)) = (address, remote) else { return None };
        let addresses = u64::from(u32::from(address)) << 32 | u64::from(u32::from(remote));
        let rest = u64::from(nat_gateway.0) << 32 | u64::from(remote_port) << 16 | u64::from(protocol.0) << 8;
        Some(Self([addresses, rest | 1]))
    }
}

/// Destinations by hash, in segments of places that are tried one after the other.
///
/// A segment of which three quarters are used has the next one in order split: half of what that holds moves to a new one behind
/// the last (linear hashing). So nothing is ever moved for all destinations at once, and no memory is given back to be asked for again.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    segments: Vec<Segment>,
    /// The bits of a hash that tell segments apart, when all of those of this round have been split.
    mask: usize,
    /// Ports of destinations that have more than fit in a place.
    crowds: Vec<(Key, Crowd)>,
}

/// Some of the destinations.
#[derive(Debug)]
struct Segment {
    groups: Pooled<Groups>,
    used: usize,
}

/// The places of a segment.
pub(super) type Groups = [Group; GROUPS];

/// The places where a hash is looked for together, in two cache lines. If all are used, those of the next group are.
#[derive(Clone, Copy, Debug, zerocopy::FromZeros)]
#[repr(C, align(128))]
pub(super) struct Group([Place; GROUP]);

/// A destination with its ports.
#[derive(Clone, Copy, Debug, zerocopy::FromZeros)]
#[repr(C, align(32))]
pub(super) struct Place {
    key: Key,
    /// In no order, and zeros behind them. Or [`CROWD`], and the two halves of the position among the crowds.
    ports: [u16; FEW],
}

impl Place {
    const FREE: Self = Self { key: Key::NONE, ports: [0; FEW] };

    #[inline]
    fn crowd(&self) -> Option<usize> {
        let [first, high, low, ..] = self.ports;
        (first == CROWD).then(|| usize::from(high) << 16 | usize::from(low))
    }

    fn set_crowd(&mut self, position: usize) {
        self.ports[..3].copy_from_slice(&[CROWD, (position >> 16) as u16, position as u16]);
    }

    #[inline]
    fn few(&self) -> usize {
        self.ports.iter().filter(|port| **port != 0).count()
    }
}

impl Destinations {
    /// Destinations with ports in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.used).sum()
    }

    /// Which form the destination at a place has.
    #[cfg(test)]
    pub(super) fn form(&self, at: At) -> &'static str {
        match self.at(at).crowd().map(|crowd| &self.crowds[crowd]) {
            None => "few",
            Some((_, Crowd::Some(_))) => "some",
            Some((_, Crowd::Many(_))) => "many",
        }
    }

    /// The segment for a hash.
    #[inline]
    fn segment(&self, hash: u64) -> usize {
        let segment = (hash >> 32) as usize & self.mask;
        if segment < self.segments.len() { segment } else { self.not_split(segment) }
    }

    /// One that does not exist yet is still part of the one that will be split. A call, and so a jump, which is foreseen, instead of a
    /// choice that everything behind it waits for.
    #[cold]
    #[inline(never)]
    fn not_split(&self, segment: usize) -> usize {
        segment & self.mask >> 1
    }

    /// The place of a destination, or the one where it would be.
    #[inline]
    pub(super) fn find(&self, key: Key, hash: u64) -> Result<At, At> {
        let segment = self.segment(hash);
        let found = match self.segments.get(segment) {
            Some(segment) => segment.find(key, hash),
            None => Err(home(hash)),
        };
        found.map(|place| At { segment, place }).map_err(|place| At { segment, place })
    }

    /// Adds a destination that is not there, at the place where it would be, with a port.
    #[inline]
    pub(super) fn insert(
        &mut self,
        at: At,
        (key, hash): (Key, u64),
        port: u16,
        pool: &Pool<Groups>,
        hash_of: impl Fn(Key) -> u64,
    ) {
        let At { segment, place } = match self.segments.get(at.segment) {
            Some(segment) if segment.used < FULL => at,
            _ => self.make_room(hash, pool, hash_of),
        };
        let segment = &mut self.segments[segment];
        let mut ports = [0; FEW];
        ports[0] = port;
        *segment.place(place) = Place { key, ports };
        segment.used += 1;
    }

    /// Grows by a segment, and says where a hash has a free place now.
    #[cold]
    fn make_room(&mut self, hash: u64, pool: &Pool<Groups>, hash_of: impl Fn(Key) -> u64) -> At {
        loop {
            self.grow(pool, &hash_of);
            let segment = self.segment(hash);
            // One whose turn to be split has not come yet still has places, unless chance fills it long before the others.
            if self.segments[segment].used < PLACES - 1 {
                return At { segment, place: self.segments[segment].free(home(hash)) };
            }
        }
    }

    /// Adds a segment, to which half of another moves.
    fn grow(&mut self, pool: &Pool<Groups>, hash_of: impl Fn(Key) -> u64) {
        let new = self.segments.len();
        self.segments.push(Segment { groups: pool.take(), used: 0 });
        if new > self.mask {
            self.mask = self.mask * 2 + 1;
        }
        if new == 0 {
            return;
        }
        let bit = 1 << new.ilog2();
        let (old, moved) = self.segments.split_at_mut(new);
        old[new - bit].split(&mut moved[0], |key| {
            let hash = hash_of(key);
            ((hash >> 32) as usize & bit != 0, hash)
        });
    }

    /// Removes the destination at a place.
    pub(super) fn remove(&mut self, at: At, hash_of: impl Fn(Key) -> u64) {
        self.segments[at.segment].remove(at.place, hash_of);
    }

    /// Where a destination with this hash is looked for first.
    #[inline]
    pub(super) fn group(&self, hash: u64) -> Option<&Group> {
        Some(&self.segments.get(self.segment(hash))?.groups[home(hash)])
    }

    #[inline]
    fn at(&self, at: At) -> &Place {
        &self.segments[at.segment].groups[at.place / GROUP % GROUPS].0[at.place % GROUP]
    }

    #[inline]
    fn at_mut(&mut self, at: At) -> &mut Place {
        self.segments[at.segment].place(at.place)
    }

    /// Ports in use towards the destination at a place.
    pub(super) fn count(&self, at: At) -> u32 {
        let place = self.at(at);
        match place.crowd() {
            None => place.few() as u32,
            Some(crowd) => self.crowds[crowd].1.count(),
        }
    }

    /// Takes the first free port of a search, going round at the end.
    pub(super) fn take_from(&mut self, at: At, search: Search) -> Option<u16> {
        let place = self.segments[at.segment].place(at.place);
        if let Some(crowd) = place.crowd() {
            return self.crowds[crowd].1.take_from(search);
        }
        let port = free_beside(&place.ports, search);
        match place.ports.iter_mut().find(|port| **port == 0) {
            Some(free) => *free = port,
            None => {
                let all = place.ports.iter().copied().chain([port]).collect();
                place.set_crowd(self.crowds.len());
                self.crowds.push((place.key, Crowd::Some(all)));
            }
        }
        Some(port)
    }

    /// Gives a port back and tells how many are still in use.
    pub(super) fn give_back(&mut self, at: At, port: u16, hash_of: impl Fn(Key) -> u64) -> u32 {
        let place = self.segments[at.segment].place(at.place);
        let Some(crowd) = place.crowd() else {
            let few = place.few();
            if let Some(found) = place.ports.iter().position(|taken| *taken == port && port != 0) {
                place.ports[found] = place.ports[few - 1];
                place.ports[few - 1] = 0;
            }
            return place.few() as u32;
        };
        let left = self.crowds[crowd].1.give_back(port);
        if left as usize <= FEW / 2
            && let (_, Crowd::Some(list)) = self.crowds.swap_remove(crowd)
        {
            let place = self.segments[at.segment].place(at.place);
            place.ports = [0; FEW];
            place.ports[..list.len()].copy_from_slice(&list);
            self.renumber(crowd, hash_of);
        }
        left
    }

    /// The last crowd has become this one, if there is another.
    fn renumber(&mut self, crowd: usize, hash_of: impl Fn(Key) -> u64) {
        if let Some((key, _)) = self.crowds.get(crowd)
            && let Ok(at) = self.find(*key, hash_of(*key))
        {
            self.at_mut(at).set_crowd(crowd);
        }
    }
}

/// Where a destination is, until one is added or removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    segment: usize,
    place: usize,
}

impl Group {
    const FULL: usize = GROUP;

    /// One place of each cache line.
    #[inline]
    pub(super) fn lines(&self) -> [&Place; 2] {
        [&self.0[0], &self.0[GROUP / 2]]
    }

    /// The first free place, or [`Group::FULL`]. Without branches, as nobody could guess where they go.
    #[inline]
    fn free(&self) -> usize {
        let mut free = Self::FULL;
        for at in (0..GROUP).rev() {
            free = if self.0[at].key == Key::NONE { at } else { free };
        }
        free
    }
}

impl Segment {
    /// The place of a destination, or the free one where it would be.
    #[inline]
    fn find(&self, key: Key, hash: u64) -> Result<usize, usize> {
        let mut group = home(hash);
        loop {
            let places = &self.groups[group];
            for (at, place) in places.0.iter().enumerate() {
                if place.key == key {
                    return Ok(group * GROUP + at);
                }
            }
            let free = places.free();
            if free != Group::FULL {
                return Err(group * GROUP + free);
            }
            group = next(group);
        }
    }

    /// The first free place from a group on. There is one.
    #[inline]
    fn free(&self, mut group: usize) -> usize {
        loop {
            let free = self.groups[group].free();
            if free != Group::FULL {
                return group * GROUP + free;
            }
            group = next(group);
        }
    }

    #[inline]
    fn place(&mut self, at: usize) -> &mut Place {
        &mut self.groups[at / GROUP % GROUPS].0[at % GROUP]
    }

    /// Moves some to a segment that is empty. `moves` tells for a key whether it is one of them, and its hash.
    fn split(&mut self, other: &mut Segment, moves: impl Fn(Key) -> (bool, u64)) {
        // What is to be done is written down first, without branches, while the memory of the other is fetched.
        let (mut moved, mut count) = ([(0, 0); PLACES], 0);
        let (mut astray, mut strays) = ([(0, 0); PLACES], 0);
        for (group, places) in self.groups.iter().enumerate() {
            other.groups[group].lines().into_iter().for_each(prefetch);
            for (at, place) in places.0.iter().enumerate() {
                let (moves, hash) = moves(place.key);
                let (used, home) = (place.key != Key::NONE, home(hash));
                moved[count] = ((group * GROUP + at) as u16, home as u16);
                astray[strays] = moved[count];
                count += usize::from(used & moves);
                strays += usize::from(used & !moves & (home != group));
            }
        }
        let start = self.free(0) as u16 / GROUP as u16;
        for &(at, home) in &moved[..count] {
            let place = std::mem::replace(self.place(at.into()), Place::FREE);
            let free = other.free(home.into());
            *other.place(free) = place;
        }
        (self.used, other.used) = (self.used - count, count);
        // Those that have not found a place in their group look again. Beginning behind a group that had one, each finds one where it was
        // or before, and who may be in its way has been there already.
        let (before, behind) =
            astray[..strays].split_at(astray[..strays].partition_point(|(at, _)| at / GROUP as u16 <= start));
        for &(at, home) in behind.iter().chain(before) {
            let place = std::mem::replace(self.place(at.into()), Place::FREE);
            let free = self.free(home.into());
            *self.place(free) = place;
        }
    }

    /// Frees a place, and moves those behind it that would not be found any more.
    fn remove(&mut self, at: usize, hash_of: impl Fn(Key) -> u64) {
        self.used -= 1;
        let mut hole = at;
        while let Some(from) = self.stray_beyond(hole / GROUP, &hash_of) {
            *self.place(hole) = *self.place(from);
            hole = from;
        }
        *self.place(hole) = Place::FREE;
    }

    /// One that would be in this group, if that had not been full.
    fn stray_beyond(&self, full: usize, hash_of: impl Fn(Key) -> u64) -> Option<usize> {
        let mut group = full;
        while self.groups[group].free() == Group::FULL {
            group = next(group);
            let distance = |from: usize| group.wrapping_sub(from) % GROUPS;
            let stray = self.groups[group].0.iter().position(|place| {
                place.key != Key::NONE && distance(home(hash_of(place.key))) >= distance(full)
            });
            if let Some(at) = stray {
                return Some(group * GROUP + at);
            }
        }
        None
    }
}

/// The group in which a hash is looked for first.
#[inline]
fn home(hash: u64) -> usize {
    hash as usize % GROUPS
}

#[inline]
fn next(group: usize) -> usize {
    (group + 1) % GROUPS
}

/// The ports in use towards a destination that has many.
#[derive(Debug)]
enum Crowd {
    /// In no order.
    Some(Vec<u16>),
    Many(Box<Bitmap>),
}

impl Crowd {
    fn count(&self) -> u32 {
        match self {
            Self::Some(list) => list.len() as u32,
            Self::Many(bitmap) => bitmap.count,
        }
    }

    fn take_from(&mut self, search: Search) -> Option<u16> {
        if let Self::Some(list) = self
            && list.len() == SOME
        {
            *self = Self::Many(Bitmap::of(list));
        }
        match self {
            Self::Some(list) => {
                let port = free_beside(list, search);
                list.push(port);
                Some(port)
            }
            Self::Many(bitmap) => bitmap.take_from(search),
        }
    }

    fn give_back(&mut self, port: u16) -> u32 {
        match self {
            Self::Some(list) => {
                if let Some(at) = list.iter().position(|taken| *taken == port) {
                    list.swap_remove(at);
                }
            }
            Self::Many(bitmap) => {
                bitmap.give_back(port);
                if bitmap.count as usize <= SOME / 2 {
                    *self = Self::Some(bitmap.taken().collect());
                }
            }
        }
        self.count()
    }
}

/// The first port of the search that is not in the list, at most [`SOME`] steps away. (The range has more of the longest steps than that.)
fn free_beside(list: &[u16], search: Search) -> u16 {
    let mut port = search.port;
    while list.contains(&port) {
        port = port.checked_add(search.step).unwrap_or(FIRST_PORT);
    }
    port
}

/// Places of a group.
const GROUP: usize = 4;

const GROUPS: usize = PLACES / GROUP;

/// Places of a segment: so many that chance fills all of them alike, and so few that splitting one takes a microsecond.
const PLACES: usize = 256;

/// Destinations of a segment that make it too full.
const FULL: usize = PLACES / 4 * 3;

/// Ports that fit beside the destination in half a cache line.
const FEW: usize = 8;

/// No port that is given out.
const CROWD: u16 = 1;

/// Ports that a list holds: a scan of one or two cache lines.
const SOME: usize = 64;

const _: () = assert!(size_of::<Place>() == 32 && CROWD < FIRST_PORT && GROUPS.is_power_of_two());

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::hash::Seed;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// So many that segments are split, and so close together that groups are full.
        #[test]
        fn a_growing_shard_loses_nobody(
            seed: u64, homes in 1..64_u64, steps in prop::collection::vec((0..3000_u64, 0..4_u8), 1000..5000),
        ) {
            let hash = |key: Key| {
                let hash = Seed::from_random(seed).hash(key.0);
                (hash & !0xFFFF_FFFF) | (hash % (1 << 32) % homes)
            };
            let pool = Pool::new(1);
            let mut shard = Destinations::default();
            let mut model = BTreeMap::new();
            for (number, what) in steps {
                let key = Key([number, 1]);
                match (shard.find(key, hash(key)), what) {
                    (Err(at), 0..3) => {
                        let port = 1024 + number as u16;
                        shard.insert(at, (key, hash(key)), port, &pool, hash);
                        prop_assert_eq!(model.insert(number, port), None);
                    }
                    (Ok(at), 3) => {
                        shard.remove(at, hash);
                        prop_assert!(model.remove(&number).is_some());
                    }
                    (found, _) => prop_assert_eq!(found.is_ok(), model.contains_key(&number)),
                }
            }
            for number in 0..3000 {
                let key = Key([number, 1]);
                let port = shard.find(key, hash(key)).ok().map(|at| shard.at(at).ports[0]);
                prop_assert_eq!(port, model.get(&number).copied());
            }
            prop_assert_eq!(shard.len(), model.len());
            prop_assert!(shard.segments.len() * PLACES <= model.len().max(3000) * 4, "{} segments", shard.segments.len());
        }
    }

    proptest! {
        /// Few homes, so that destinations lie behind each other; crowds come and go.
        #[test]
        fn a_shard_equals_a_map(steps in prop::collection::vec((0..24_u64, 0..12_u16, any::<bool>()), 0..600)) {
            let key = |number: u64| Key([number, 1]);
            let hash = |key: Key| key.0[0] % 5 * 7;
            let pool = Pool::new(1);
            let mut shard = Destinations::default();
            let mut model: BTreeMap<u64, BTreeSet<u16>> = BTreeMap::new();
            for (number, port, take) in steps {
                let (key, port) = (key(number), 2000 + port);
                let taken = model.entry(number).or_default();
                match shard.find(key, hash(key)) {
                    Err(at) if take => shard.insert(at, (key, hash(key)), port, &pool, hash),
                    Ok(at) if take && !taken.contains(&port) => {
                        prop_assert_eq!(shard.take_from(at, Search { port, step: 1 }), Some(port));
                    }
                    Ok(at) if !take && shard.give_back(at, port, hash) == 0 => shard.remove(at, hash),
                    _ => {}
                }
                if take { taken.insert(port) } else { taken.remove(&port) };
                model.retain(|_, taken| !taken.is_empty());
                prop_assert_eq!(shard.len(), model.len());
                let crowds = model.values().filter(|taken| taken.len() > FEW).count();
                prop_assert!(shard.crowds.len() >= crowds);
                for number in 0..24 {
                    let key = Key([number, 1]);
                    let count = shard.find(key, hash(key)).ok().map(|at| shard.count(at) as usize);
                    prop_assert_eq!(count, model.get(&number).map(BTreeSet::len));
                }
            }
        }
    }
}

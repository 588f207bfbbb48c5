//! Keeps the destinations of a shard, each with its ports in use.

use std::net::IpAddr;

use super::Destination;
use super::bitmap::{Bitmap, FIRST_PORT};

/// A destination, packed: both addresses; gateway, port, protocol, and a bit that is always set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Destinations by hash, in places that are tried one after the other; at most three quarters of them are used.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// A power of two of them, or none.
    places: Box<[Place]>,
    used: usize,
    /// Ports of destinations that have more than fit in a place.
    crowds: Vec<(Key, Crowd)>,
}

/// A destination with its ports.
#[derive(Clone, Copy, Debug)]
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
        self.used
    }

    /// Which form the destination at a place has.
    #[cfg(test)]
    pub(super) fn form(&self, at: usize) -> &'static str {
        match self.places[at].crowd().map(|crowd| &self.crowds[crowd]) {
            None => "few",
            Some((_, Crowd::Some(_))) => "some",
            Some((_, Crowd::Many(_))) => "many",
        }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.places.len().wrapping_sub(1)
    }

    /// The place of a destination.
    #[inline]
    pub(super) fn find(&self, key: Key, hash: u64) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let place = self.places.get(at)?;
            if place.key == key {
                return Some(at);
            }
            if place.key == Key::NONE {
                return None;
            }
            at = self.home(at as u64 + 1);
        }
    }

    /// Adds a destination that is not there, with a port.
    pub(super) fn insert(&mut self, key: Key, hash: u64, port: u16, hash_of: impl Fn(Key) -> u64) {
        if (self.used + 1) * 4 > self.places.len() * 3 {
            let more = vec![Place::FREE; (self.places.len() * 2).max(4)];
            for place in std::mem::replace(&mut self.places, more.into()) {
                if place.key != Key::NONE {
                    let at = self.free(hash_of(place.key));
                    self.places[at] = place;
                }
            }
        }
        let at = self.free(hash);
        self.places[at] = Place { key, ..Place::FREE };
        self.places[at].ports[0] = port;
        self.used += 1;
    }

    /// The first free place for a hash. There is one.
    fn free(&self, hash: u64) -> usize {
        let mut at = self.home(hash);
        while self.places[at].key != Key::NONE {
            at = self.home(at as u64 + 1);
        }
        at
    }

    /// Frees a place, and moves those behind it that would not be found any more.
    pub(super) fn remove(&mut self, mut at: usize, hash_of: impl Fn(Key) -> u64) {
        self.used -= 1;
        let mut next = at;
        loop {
            next = self.home(next as u64 + 1);
            let place = self.places[next];
            if place.key == Key::NONE {
                break;
            }
            let distance = |from: usize| next.wrapping_sub(from) & (self.places.len() - 1);
            if distance(self.home(hash_of(place.key))) >= distance(at) {
                self.places[at] = place;
                at = next;
            }
        }
        self.places[at] = Place::FREE;
    }

    /// Where a destination with this hash is looked for first.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Option<&Place> {
        self.places.get(self.home(hash))
    }

    /// Ports in use towards the destination at a place.
    pub(super) fn count(&self, at: usize) -> u32 {
        let place = &self.places[at];
        match place.crowd() {
            None => place.few() as u32,
            Some(crowd) => self.crowds[crowd].1.count(),
        }
    }

    /// Takes the first free port from `start` on, going round at the end.
    pub(super) fn take_from(&mut self, at: usize, start: u16) -> Option<u16> {
        let place = &mut self.places[at];
        if let Some(crowd) = place.crowd() {
            return self.crowds[crowd].1.take_from(start);
        }
        let port = free_beside(&place.ports, start);
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
    pub(super) fn give_back(&mut self, at: usize, port: u16, hash_of: impl Fn(Key) -> u64) -> u32 {
        let place = &mut self.places[at];
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
            self.places[at].ports = [0; FEW];
            self.places[at].ports[..list.len()].copy_from_slice(&list);
            self.renumber(crowd, hash_of);
        }
        left
    }

    /// The last crowd has become this one, if there is another.
    fn renumber(&mut self, crowd: usize, hash_of: impl Fn(Key) -> u64) {
        if let Some((key, _)) = self.crowds.get(crowd)
            && let Some(at) = self.find(*key, hash_of(*key))
        {
            self.places[at].set_crowd(crowd);
        }
    }
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

    fn take_from(&mut self, start: u16) -> Option<u16> {
        if let Self::Some(list) = self
            && list.len() == SOME
        {
            *self = Self::Many(Bitmap::of(list));
        }
        match self {
            Self::Some(list) => {
                let port = free_beside(list, start);
                list.push(port);
                Some(port)
            }
            Self::Many(bitmap) => bitmap.take_from(start),
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

/// The first port from `start` on that is not in the list, at most [`SOME`] steps away.
fn free_beside(list: &[u16], start: u16) -> u16 {
    let mut port = start;
    while list.contains(&port) {
        port = port.checked_add(1).unwrap_or(FIRST_PORT);
    }
    port
}

/// Ports that fit beside the destination in half a cache line.
const FEW: usize = 8;

/// No port that is given out.
const CROWD: u16 = 1;

/// Ports that a list holds: a scan of one or two cache lines.
const SOME: usize = 64;

const _: () = assert!(size_of::<Place>() == 32 && CROWD < FIRST_PORT);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few homes, so that destinations lie behind each other; crowds come and go.
        #[test]
        fn a_shard_equals_a_map(steps in prop::collection::vec((0..24_u64, 0..12_u16, any::<bool>()), 0..600)) {
            let key = |number: u64| Key([number, 1]);
            let hash = |key: Key| key.0[0] % 5 * 7;
            let mut shard = Destinations::default();
            let mut model: BTreeMap<u64, BTreeSet<u16>> = BTreeMap::new();
            for (number, port, take) in steps {
                let (key, port) = (key(number), 2000 + port);
                let taken = model.entry(number).or_default();
                match shard.find(key, hash(key)) {
                    None if take => shard.insert(key, hash(key), port, hash),
                    Some(at) if take && !taken.contains(&port) => {
                        prop_assert_eq!(shard.take_from(at, port), Some(port));
                    }
                    Some(at) if !take && shard.give_back(at, port, hash) == 0 => shard.remove(at, hash),
                    _ => {}
                }
                if take { taken.insert(port) } else { taken.remove(&port) };
                model.retain(|_, taken| !taken.is_empty());
                prop_assert_eq!(shard.used, model.len());
                let crowds = model.values().filter(|taken| taken.len() > FEW).count();
                prop_assert!(shard.crowds.len() >= crowds);
                for number in 0..24 {
                    let key = Key([number, 1]);
                    let count = shard.find(key, hash(key)).map(|at| shard.count(at) as usize);
                    prop_assert_eq!(count, model.get(&number).map(BTreeSet::len));
                }
            }
        }
    }
}

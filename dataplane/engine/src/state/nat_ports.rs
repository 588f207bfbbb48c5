//! Hands out the source ports of NAT gateways, exactly and in constant time.
//!
//! ```text
//! NatPorts ── 64 shards, a mutex each (by hash of the destination)
//!               └─ Destination → Ports
//!                                 ├─ Few    up to 8 ports, inline
//!                                 ├─ Some   up to 64 ports, a list
//!                                 └─ Many   a bitmap of 64,512 ports (8 KiB) with a summary on top
//! ```
//!
//! A destination grows into the next form when it must, and back when it has
//! shrunk well below it; with its last port it is forgotten. Almost all
//! destinations of a gateway have few connections, so a million of them fit.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use localvpc_api::NatGatewayId;
use localvpc_api::trace::Protocol;

/// What the quota of 55,000 counts for: an address of a gateway towards a unique destination (NATGW-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The gateway.
    pub nat_gateway: NatGatewayId,
    /// Its private address.
    pub address: IpAddr,
    /// The far end.
    pub remote: IpAddr,
    /// The far end's port; 0 for ICMP.
    pub remote_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Ports in use, by destination. Shared by all workers.
#[derive(Debug)]
pub struct NatPorts {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// Some of the destinations. Aligned, so that two workers in two shards do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<HashTable<(Destination, Ports)>>);

impl Default for NatPorts {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl NatPorts {
    /// Connections per destination and address (NATGW-12).
    pub const QUOTA: u32 = 55_000;

    /// Takes a random free port in 1024–65535 (NATGW-10, RFC 6056), or `None` if the quota is used up.
    ///
    /// `random` is uniform; the port is the first free one from a random start (RFC 6056 §3.3.1).
    pub fn reserve(&self, destination: &Destination, random: u64) -> Option<u16> {
        // The upper half scaled to the range: as uniform as 2³² over 64,512 can be, without a division.
        let start = FIRST_PORT + (((random >> 32) * u64::from(PORTS)) >> 32) as u16;
        let hash = self.hasher.hash_one(destination);
        let mut shard = self.shard(hash);
        match shard.entry(hash, |(key, _)| key == destination, |(key, _)| self.hasher.hash_one(key)) {
            Entry::Occupied(mut entry) => entry.get_mut().1.take_from(start),
            Entry::Vacant(entry) => {
                entry.insert((*destination, Ports::Few(ArrayVec::from_iter([start]))));
                Some(start)
            }
        }
    }

    /// Gives a port back. Does nothing if it is not in use.
    pub fn release(&self, destination: &Destination, port: u16) {
        let hash = self.hasher.hash_one(destination);
        let mut shard = self.shard(hash);
        if let Ok(mut entry) = shard.find_entry(hash, |(key, _)| key == destination)
            && entry.get_mut().1.give_back(port) == 0
        {
            entry.remove();
        }
    }

    /// Ports in use towards a destination.
    pub fn in_use(&self, destination: &Destination) -> u32 {
        let hash = self.hasher.hash_one(destination);
        self.shard(hash).find(hash, |(key, _)| key == destination).map_or(0, |(_, ports)| ports.count())
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashTable<(Destination, Ports)>> {
        // The table uses the lowest bits for the place and the highest seven as a tag, so take some in between.
        let at = (hash >> 48) as usize % SHARDS;
        self.shards[at].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports in use towards one destination.
#[derive(Debug)]
enum Ports {
    /// In no order.
    Few(ArrayVec<u16, FEW>),
    /// In no order.
    Some(Vec<u16>),
    Many(Box<Bitmap>),
}

impl Ports {
    fn count(&self) -> u32 {
        match self {
            Self::Few(list) => list.len() as u32,
            Self::Some(list) => list.len() as u32,
            Self::Many(bitmap) => bitmap.count,
        }
    }

    /// Takes the first free port from `start` on, going round at the end.
    fn take_from(&mut self, start: u16) -> Option<u16> {
        match self {
            Self::Few(list) if list.is_full() => *self = Self::Some(list.to_vec()),
            Self::Some(list) if list.len() == SOME => *self = Self::Many(Bitmap::of(list)),
            _ => {}
        }
        match self {
            Self::Few(list) => {
                let port = free_beside(list, start);
                list.push(port);
                Some(port)
            }
            Self::Some(list) => {
                let port = free_beside(list, start);
                list.push(port);
                Some(port)
            }
            Self::Many(bitmap) => bitmap.take_from(start),
        }
    }

    /// Gives a port back and tells how many are still in use.
    fn give_back(&mut self, port: u16) -> u32 {
        match self {
            Self::Few(list) => {
                if let Some(at) = list.iter().position(|taken| *taken == port) {
                    list.swap_remove(at);
                }
            }
            Self::Some(list) => {
                if let Some(at) = list.iter().position(|taken| *taken == port) {
                    list.swap_remove(at);
                }
                if list.len() <= FEW / 2 {
                    *self = Self::Few(list.iter().copied().collect());
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

/// A bit per port, and a bit per word of those that tells whether the word is full.
#[derive(Debug)]
struct Bitmap {
    used: [u64; WORDS],
    full: [u64; SUMMARY],
    count: u32,
}

impl Bitmap {
    fn of(taken: &[u16]) -> Box<Self> {
        let mut bitmap = Box::new(Self { used: [0; WORDS], full: [0; SUMMARY], count: 0 });
        // Words that do not exist have no room.
        bitmap.full[SUMMARY - 1] = !0 << (WORDS % 64);
        for port in taken {
            bitmap.take(usize::from(port - FIRST_PORT));
        }
        bitmap
    }

    fn take_from(&mut self, start: u16) -> Option<u16> {
        if self.count >= NatPorts::QUOTA {
            return None;
        }
        let bit = self.free_from(usize::from(start - FIRST_PORT));
        self.take(bit);
        Some(FIRST_PORT + bit as u16)
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

    fn give_back(&mut self, port: u16) {
        let Some(bit) = port.checked_sub(FIRST_PORT).map(usize::from) else { return };
        let word = &mut self.used[bit / 64];
        if *word & (1 << (bit % 64)) != 0 {
            *word &= !(1 << (bit % 64));
            self.full[bit / 4096] &= !(1 << (bit / 64 % 64));
            self.count -= 1;
        }
    }

    fn taken(&self) -> impl Iterator<Item = u16> {
        let not_0 = |word: u64| (word != 0).then_some(word);
        let bits = (0..).zip(&self.used).flat_map(move |(word, &used)| {
            std::iter::successors(not_0(used), move |rest| not_0(rest & (rest - 1)))
                .map(move |rest| word * 64 + rest.trailing_zeros() as u16)
        });
        bits.map(|bit| FIRST_PORT + bit)
    }
}

/// Enough that two workers rarely meet; a power of two.
const SHARDS: usize = 64;

/// NATGW-10.
const FIRST_PORT: u16 = 1024;

/// 1024 to 65535.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// Ports that fit beside the destination: the entry is one cache line and a bit.
const FEW: usize = 8;

/// Ports that a list holds: a scan of one or two cache lines.
const SOME: usize = 64;

const WORDS: usize = PORTS as usize / 64;

const SUMMARY: usize = WORDS.div_ceil(64);

const _: () = assert!(NatPorts::QUOTA < PORTS && PORTS.is_multiple_of(64) && SHARDS.is_power_of_two());

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap, HashSet};
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn destination(number: u16) -> Destination {
        Destination {
            nat_gateway: NatGatewayId(1),
            address: Ipv4Addr::new(10, 0, 1, 100).into(),
            remote: Ipv4Addr::new(198, 51, 100, 10).into(),
            remote_port: number,
            protocol: Protocol::TCP,
        }
    }

    /// SplitMix64.
    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn destinations(ports: &NatPorts) -> usize {
        ports.shards.iter().map(|shard| shard.0.lock().unwrap().len()).sum()
    }

    fn form(ports: &NatPorts, destination: &Destination) -> &'static str {
        let hash = ports.hasher.hash_one(destination);
        match ports.shard(hash).find(hash, |(key, _)| key == destination) {
            None => "none",
            Some((_, Ports::Few(_))) => "few",
            Some((_, Ports::Some(_))) => "some",
            Some((_, Ports::Many(_))) => "many",
        }
    }

    /// NATGW-12: 55,000 to one destination, not one more, whatever happens at another; NATGW-10: all from 1024 up.
    #[test]
    fn serves_55000_connections_to_each_destination() {
        let ports = NatPorts::default();
        let mut seed = 1;
        let mut seen = HashSet::new();
        for _ in 0..55_000 {
            let port = ports.reserve(&destination(443), random(&mut seed)).expect("the quota is not used up");
            assert!(port >= 1024);
            assert!(seen.insert(port), "{port} was given twice");
        }
        assert_eq!(ports.in_use(&destination(443)), 55_000);
        assert_eq!(ports.reserve(&destination(443), random(&mut seed)), None);

        let udp = Destination { protocol: Protocol::UDP, ..destination(443) };
        let other_address = Destination { address: Ipv4Addr::new(10, 0, 1, 101).into(), ..destination(443) };
        for other in [destination(80), udp, other_address] {
            assert!(ports.reserve(&other, random(&mut seed)).is_some(), "{other:?}");
        }

        let freed = *seen.iter().next().unwrap();
        ports.release(&destination(443), freed);
        let again = ports.reserve(&destination(443), random(&mut seed)).expect("one port came back");
        assert!(again == freed || !seen.contains(&again));
        assert_eq!(ports.reserve(&destination(443), random(&mut seed)), None);
    }

    #[test]
    fn goes_round_at_the_end_of_the_range() {
        let ports = NatPorts::default();
        let given: Vec<_> = (0..200).map(|_| ports.reserve(&destination(443), u64::MAX).unwrap()).collect();
        let expected: Vec<_> = [65_535].into_iter().chain(1024..1024 + 199).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn grows_and_shrinks_with_its_connections_and_is_forgotten_with_the_last() {
        let ports = NatPorts::default();
        let target = destination(443);
        let mut seed = 2;
        let mut forms = vec![(0, form(&ports, &target))];
        let mut given = Vec::new();
        while given.len() < 100 {
            given.push(ports.reserve(&target, random(&mut seed)).unwrap());
            let form = form(&ports, &target);
            if forms.last().unwrap().1 != form {
                forms.push((given.len(), form));
            }
        }
        while let Some(port) = given.pop() {
            ports.release(&target, port);
            let form = form(&ports, &target);
            if forms.last().unwrap().1 != form {
                forms.push((given.len(), form));
            }
        }
        let expected =
            [(0, "none"), (1, "few"), (9, "some"), (65, "many"), (32, "some"), (4, "few"), (0, "none")];
        assert_eq!(forms, expected);
        assert_eq!(destinations(&ports), 0);
    }

    /// RFC 6056: the port must not be guessable. Buckets of a 16th of the range each, over first ports and over
    /// the ports of one busy destination.
    /// RFC7857-RANDOM.
    #[test]
    fn ports_are_spread_evenly() {
        let mut seed = 3;
        let ports = NatPorts::default();
        let mut spread = |target: fn(u16) -> Destination| {
            let mut buckets = [0; 16];
            for number in 0..16_000 {
                let port = ports.reserve(&target(number), random(&mut seed)).unwrap();
                buckets[usize::from(port - 1024) / (64_512 / 16)] += 1;
            }
            buckets
        };
        for buckets in [spread(destination), spread(|_| destination(65_535))] {
            // 1,000 expected, standard deviation 31.
            assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
        }
    }

    #[test]
    fn two_workers_never_get_the_same_port() {
        let ports = NatPorts::default();
        let worker = |mut seed| {
            let ports = &ports;
            move || {
                (0..27_500).map(|_| ports.reserve(&destination(443), random(&mut seed)).unwrap()).collect()
            }
        };
        let (one, two): (Vec<u16>, Vec<u16>) = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(worker(4)), scope.spawn(worker(5)));
            (one.join().unwrap(), two.join().unwrap())
        });
        let all: HashSet<_> = one.into_iter().chain(two).collect();
        assert_eq!(all.len(), 55_000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve {
            destination: u16,
            random: u64,
        },
        /// A port in use if there is one, by its place in order.
        Release {
            destination: u16,
            place: prop::sample::Index,
        },
        /// Any port, in use or not.
        ReleaseAny {
            destination: u16,
            port: u16,
        },
        ReleaseAll {
            destination: u16,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        // Starts cluster at both ends of the range, so that ports collide and go round.
        let random = prop_oneof![any::<u64>(), (0..64u64).prop_map(|n| n << 48), Just(u64::MAX)];
        prop_oneof![
            12 => (0..3u16, random).prop_map(|(destination, random)| Step::Reserve { destination, random }),
            6 => (0..3u16, any::<prop::sample::Index>())
                .prop_map(|(destination, place)| Step::Release { destination, place }),
            2 => (0..3u16, any::<u16>()).prop_map(|(destination, port)| Step::ReleaseAny { destination, port }),
            1 => (0..3u16).prop_map(|destination| Step::ReleaseAll { destination }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_a_set_of_ports(steps in prop::collection::vec(step(), 0..1_500)) {
            let ports = NatPorts::default();
            let mut model: HashMap<u16, BTreeSet<u16>> = HashMap::new();
            for step in steps {
                match step {
                    Step::Reserve { destination: number, random } => {
                        let port = ports.reserve(&destination(number), random);
                        let taken = model.entry(number).or_default();
                        prop_assert_eq!(port, Some(naive(taken, random)));
                        taken.extend(port);
                    }
                    Step::Release { destination: number, place } => {
                        let taken = model.entry(number).or_default();
                        if let Some(port) = (!taken.is_empty()).then(|| *place.get(&Vec::from_iter(&*taken))).copied() {
                            ports.release(&destination(number), port);
                            taken.remove(&port);
                        }
                    }
                    Step::ReleaseAny { destination: number, port } => {
                        ports.release(&destination(number), port);
                        model.entry(number).or_default().remove(&port);
                    }
                    Step::ReleaseAll { destination: number } => {
                        for port in model.remove(&number).unwrap_or_default() {
                            ports.release(&destination(number), port);
                        }
                    }
                }
                for (number, taken) in &model {
                    prop_assert_eq!(ports.in_use(&destination(*number)) as usize, taken.len());
                }
            }
            prop_assert_eq!(destinations(&ports), model.values().filter(|taken| !taken.is_empty()).count());
        }

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

    fn naive(taken: &BTreeSet<u16>, random: u64) -> u16 {
        let start = 1024 + ((u128::from(random >> 32) * 64_512) >> 32) as u16;
        (start..=65_535).chain(1024..start).find(|port| !taken.contains(port)).unwrap()
    }
}

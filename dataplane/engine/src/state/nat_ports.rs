//! Hands out the source ports of NAT gateways, exactly and in constant time.
//!
//! ```text
//! NatPorts ── 256 shards, a lock each (by hash of the destination)
//!               ├─ segments of 256 places of half a cache line: the destination, and up to 8 ports
//!               └─ crowds, for destinations with more
//!                    ├─ Some   up to 64 ports, a list
//!                    └─ Many   a bitmap of 64,512 ports (8 KiB) with a summary on top
//! ```
//!
//! A destination grows into the next form when it must, and back when it has
//! shrunk well below it; with its last port it is forgotten. Almost all
//! destinations of a gateway have few connections, so a million of them fit, and one or two lines of memory are all that is read
//! of one: they can be [fetched ahead](NatPorts::prefetch). A shard grows by one segment at a time, so that nobody waits for long.

mod bitmap;
mod destinations;

use std::net::IpAddr;

use localvpc_api::trace::Protocol;
use localvpc_api::{NatGatewayId, steering};

use super::lock::{Lock, Locked};
use crate::hash::Seed;
use crate::memory::{Pool, prefetch};
use bitmap::{FIRST_PORT, PORTS};
use destinations::{Destinations, Groups, Key};

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

/// Where the search for a free port begins, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// The port that is tried first.
    port: u16,
    /// How far the next is that would be as good; 1 if all are.
    step: u16,
}

impl Search {
    /// At any port; each is as good as any other.
    #[inline]
    pub fn random(random: u64) -> Self {
        // The upper half scaled to the range: as uniform as 2³² over 64,512 can be, without a division.
        Self { port: FIRST_PORT + (((random >> 32) * u64::from(PORTS)) >> 32) as u16, step: 1 }
    }

    /// At any port whose packets come by the queue that those of the port `inside` come by ([`steering`]).
    #[inline]
    pub fn like(inside: u16, queues: u32, random: u64) -> Self {
        let Self { port, step } = Self::random(random);
        match steering::period(queues) {
            Some(period) => Self { port: steering::like(inside, port, queues), step: period },
            None => Self { port, step },
        }
    }
}

/// Ports in use, by destination. Shared by all workers.
#[derive(Debug)]
pub struct NatPorts {
    seed: Seed,
    shards: Box<[Shard]>,
    /// Asked by a shard that grows, while it is locked.
    pool: Pool<Groups>,
}

/// Some of the destinations. Aligned, so that two workers in two shards do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Lock<Destinations>);

impl Default for NatPorts {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            pool: Pool::new(SHARDS),
        }
    }
}

impl NatPorts {
    /// Connections per destination and address (NATGW-12).
    pub const QUOTA: u32 = 55_000;

    /// Takes a random free port in 1024–65535 (NATGW-10, RFC 6056), or `None` if the quota is used up. (And for IPv6: no such packet is carried.)
    ///
    /// `random` is uniform; the port is the first free one from a random start (RFC 6056 §3.3.1).
    pub fn reserve(&self, destination: &Destination, random: u64) -> Option<u16> {
        self.reserve_from(destination, Search::random(random))
    }

    /// The same from a start of the caller's choice.
    pub fn reserve_from(&self, destination: &Destination, search: Search) -> Option<u16> {
        let key = Key::of(destination)?;
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        match shard.find(key, hash) {
            Ok(at) => shard.take_from(at, search),
            Err(at) => {
                shard.insert(at, (key, hash), search.port, &self.pool, |key| self.hash(key));
                Some(search.port)
            }
        }
    }

    /// Gives a port back. Does nothing if it is not in use.
    pub fn release(&self, destination: &Destination, port: u16) {
        let Some(key) = Key::of(destination) else { return };
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        if let Ok(at) = shard.find(key, hash)
            && shard.give_back(at, port, |key| self.hash(key)) == 0
        {
            shard.remove(at, |key| self.hash(key));
        }
    }

    /// Ports in use towards a destination.
    pub fn in_use(&self, destination: &Destination) -> u32 {
        let Some(key) = Key::of(destination) else { return 0 };
        let hash = self.hash(key);
        let shard = self.shard(hash);
        shard.find(key, hash).map_or(0, |at| shard.count(at))
    }

    /// Has the processor fetch what [`reserve`](Self::reserve) reads, unless somebody else is at it.
    #[inline]
    pub fn prefetch(&self, destination: &Destination) {
        let Some(key) = Key::of(destination) else { return };
        let hash = self.hash(key);
        if let Some(shard) = self.shard_of(hash).try_lock()
            && let Some(group) = shard.group(hash)
        {
            group.lines().into_iter().for_each(prefetch);
        }
    }

    #[inline]
    fn hash(&self, key: Key) -> u64 {
        self.seed.hash(key.0)
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> &Lock<Destinations> {
        // A shard uses the lowest bits.
        &self.shards[(hash >> 48) as usize % SHARDS].0
    }

    #[inline]
    fn shard(&self, hash: u64) -> Locked<'_, Destinations> {
        self.shard_of(hash).lock()
    }
}

/// Enough that two workers rarely meet; a power of two.
const SHARDS: usize = 256;

const _: () = assert!(NatPorts::QUOTA < PORTS && SHARDS.is_power_of_two() && size_of::<Shard>() == 64);

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
        ports.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    fn form(ports: &NatPorts, destination: &Destination) -> &'static str {
        let key = Key::of(destination).unwrap();
        let shard = ports.shard(ports.hash(key));
        let Ok(at) = shard.find(key, ports.hash(key)) else { return "none" };
        shard.form(at)
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

    /// As long as there are such ports, and then any: no port of the quota is out of reach.
    #[test]
    fn ports_come_by_the_queue_of_the_port_inside() {
        let ports = NatPorts::default();
        let mut seed = 6;
        let mut seen = HashSet::new();
        let mut strangers = 0;
        for number in 0..55_000_u16 {
            // Each queue has as many connections as the other two.
            let inside = 2 * (number % 30_000);
            let search = Search::like(inside, 3, random(&mut seed));
            let port = ports.reserve_from(&destination(443), search).expect("the quota is not used up");
            assert!(port >= FIRST_PORT && seen.insert(port), "{port}");
            if steering::queue(port, 443, 3) != steering::queue(inside, 443, 3) {
                strangers += 1;
                assert!(number > 20_000, "connection {number} came by another queue");
            }
        }
        assert!((1..2_000).contains(&strangers), "{strangers}");
        assert_eq!(ports.reserve_from(&destination(443), Search::like(7, 3, 0)), None);
    }

    /// One queue has all connections: it has a third of the ports.
    #[test]
    fn a_queue_without_ports_takes_those_of_others() {
        let ports = NatPorts::default();
        let mut seed = 7;
        let kept = |number: u32, seed: &mut u64| {
            let port = ports.reserve_from(&destination(443), Search::like(40_000, 3, random(seed)));
            let port = port.unwrap_or_else(|| panic!("no port for connection {number}"));
            steering::queue(port, 443, 3) == steering::queue(40_000, 443, 3)
        };
        let kept = (0..55_000).filter(|number| kept(*number, &mut seed)).count();
        assert!((20_000..=21_504).contains(&kept), "{kept}");
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
    }

    fn naive(taken: &BTreeSet<u16>, random: u64) -> u16 {
        let start = 1024 + ((u128::from(random >> 32) * 64_512) >> 32) as u16;
        (start..=65_535).chain(1024..start).find(|port| !taken.contains(port)).unwrap()
    }
}

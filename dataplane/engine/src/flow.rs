//! Remembers what a walk decided, so that the flow's next packet need not be walked.
//!
//! One cache per worker, of fixed size, in sets of 16. It holds nothing that the
//! tables and the state do not: an entry is used only while its generation is that of
//! the tables and everything it depends on is still live and in mid-stream, and dropping all of it at any
//! instant changes no packet. Only mid-stream TCP and UDP are remembered; what can change a connection's
//! state walks.
//!
//! An entry is one cache line. What many flows have in common (the way out, who counts them) is a [`path`] that they share;
//! a set is searched by 16 bits of hash per entry, so that nearly always one line of flows is touched.

pub mod path;

use localvpc_api::trace::Direction;
use localvpc_api::{Generation, LinkId};
use zerocopy::FromZeros;

use crate::Time;
use crate::hash::Seed;
use crate::memory::{Zeroed, prefetch};
use crate::packet::{Brief, Key};
use crate::pipeline::effects::{Dependencies, Dependency};
use crate::pipeline::rewrite::Rewrite;
use crate::state::State;
use crate::state::activity::{Activity, Ref};
use crate::state::index::Absence;
use crate::tables::{EniIndex, NatGatewayIndex};
use path::{DEPENDENCIES, Paths, Role};

/// What was decided for a flow.
#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
pub struct Flow {
    key: Key,
    /// [`FlowCache::epoch`] when it was decided.
    epoch: u32,
    /// What it shares with others.
    path: u16,
    /// What changes in its packets.
    pub rewrite: Rewrite,
    /// Connections and leases it belongs to, or their absence: what each is, the path says.
    dependencies: [Stored; DEPENDENCIES],
}

const _: () = assert!(size_of::<Flow>() == 64);

/// A [`Ref`] or an [`Absence`].
#[derive(Clone, Copy, Debug, FromZeros)]
struct Stored(u32, u32);

/// A worker's cache.
#[derive(Debug)]
pub struct FlowCache {
    /// By set, 16 bits of the hash of each flow in it; 0 where there is none.
    tags: Zeroed<[u64; WAYS / 4]>,
    flows: Zeroed<Flow>,
    paths: Paths,
    seed: Seed,
    generation: Generation,
    /// Flows of other epochs are no longer true.
    epoch: u32,
    /// The next to give way when all of a set are taken.
    victim: u8,
}

const WAYS: usize = 16;

/// In the seventh byte of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// Where a flow may be in the cache: only a hint, until its key was compared.
#[derive(Clone, Copy, Debug)]
pub struct Place(u32);

impl FlowCache {
    /// Room for about `capacity` flows; 0 keeps none. A little more than half full, hardly any gives way to another.
    ///
    /// `seed` should come from the system's randomness.
    ///
    /// # Panics
    /// If there is not that much memory: 66 bytes per flow, taken when first used.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let sets = capacity.div_ceil(WAYS).min(1 << 26);
        Self {
            tags: Zeroed::new(sets),
            flows: Zeroed::new(sets * WAYS),
            paths: Paths::default(),
            seed: Seed::from_random(seed),
            generation: Generation::default(),
            epoch: 1,
            victim: 0,
        }
    }

    /// Prepares for packets under `generation`; flows decided under another are no longer true.
    #[inline]
    pub fn turn_to(&mut self, generation: Generation) {
        if self.generation != generation {
            self.generation = generation;
            self.clear();
        }
    }

    /// The hash of a flow.
    #[inline]
    pub fn hash(&self, key: Key) -> u64 {
        key.hash(self.seed)
    }

    /// Has the processor fetch what [`place`](Self::place) reads.
    #[inline]
    pub fn prefetch_set(&self, hash: u64) {
        if let Some(tags) = self.tags.get(self.set(hash)) {
            prefetch(tags);
        }
    }

    /// Where a flow with this hash may be. Has the processor fetch what is there.
    #[inline]
    pub fn place(&self, hash: u64) -> Option<Place> {
        let set = self.set(hash);
        let way = matching(self.tags.get(set)?, tag(hash)).next()?;
        let place = set * WAYS + way;
        prefetch(&self.flows[place]);
        Some(Place(place as u32))
    }

    /// Has the processor fetch what a flow depends on.
    #[inline]
    pub fn prefetch_dependencies(&self, place: Place, state: &State) {
        let flow = &self.flows[place.0 as usize];
        if flow.epoch != self.epoch {
            return;
        }
        for (at, role) in self.paths.at(flow.path).roles.iter().enumerate() {
            let stored = flow.dependencies[at];
            match role {
                Role::Connection(_) => state.connections.activities.prefetch(stored.reference()),
                Role::Lease(_) => state.leases.activities.prefetch(stored.reference()),
                Role::NoConnection | Role::Nothing => {}
            }
        }
    }

    /// Forwards a packet: rewrites it, and counts it everywhere. Returns the link it leaves on, or `None`, having changed nothing, if
    /// its flow was not decided under this generation, not all it depends on is live, or the packet does not fit its way.
    #[inline(always)]
    pub fn forward(
        &mut self,
        hint: Option<Place>,
        (packet, key, hash): (&Brief, Key, u64),
        bytes: &mut [u8],
        state: &State,
        now: Time,
    ) -> Option<LinkId> {
        let flow = match hint {
            Some(Place(place)) if self.flows[place as usize].key == key => &self.flows[place as usize],
            _ => &self.flows[self.position(key, hash)?],
        };
        if flow.epoch != self.epoch {
            return None;
        }
        let path = self.paths.at(flow.path);
        if packet.segment_length > path.mtu || packet.ttl < path.ttl {
            return None;
        }
        let (connections, leases) = (&state.connections.activities, &state.leases.activities);
        for (at, role) in path.roles.iter().enumerate() {
            let stored = flow.dependencies[at];
            let holds = match role {
                Role::Connection(_) => connections.steady(stored.reference(), now).is_some(),
                // What leaves a NAT gateway and may be fragmented gets a number there: it is walked.
                Role::Lease(direction) => {
                    let keeps_number = *direction == Direction::Inbound || bytes[6] & DONT_FRAGMENT != 0;
                    keeps_number && leases.steady(stored.reference(), now).is_some()
                }
                Role::NoConnection => state.connections.still_absent(stored.absence()),
                Role::Nothing => break,
            };
            if !holds {
                return None;
            }
        }
        let (load, facts) = (packet.load(), packet.facts());
        for (at, role) in path.roles.iter().enumerate() {
            let reference = flow.dependencies[at].reference();
            match *role {
                Role::Connection(direction) => connections.line(reference).touch(load, facts, direction, now),
                Role::Lease(direction) => leases.line(reference).touch(load, facts, direction, now),
                Role::NoConnection => {}
                Role::Nothing => break,
            }
        }
        flow.rewrite.apply_brief(bytes, packet);
        Some(self.paths.count(flow.path, load))
    }

    /// Remembers a flow, in place of an older decision or of the set's next victim. Returns by how many flows the cache has grown.
    pub fn insert(&mut self, key: Key, decided: Decided) -> u64 {
        if self.tags.is_empty() || decided.dependencies.len() > DEPENDENCIES {
            return 0;
        }
        let Some(path) = self.paths.intern(&decided) else { return 0 };
        let hash = self.hash(key);
        let set = self.set(hash);
        let mut dependencies = [Stored(0, 0); DEPENDENCIES];
        for (stored, dependency) in dependencies.iter_mut().zip(&decided.dependencies) {
            *stored = Stored::of(dependency);
        }
        let at = match self.position(key, hash) {
            Some(at) => at,
            None => set * WAYS + self.make_room(set, tag(hash)).way,
        };
        let grown = u64::from(self.flows[at].epoch == 0);
        self.flows[at] = Flow { key, epoch: self.epoch, path, rewrite: decided.rewrite, dependencies };
        grown
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.paths.clear();
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // The flows of four billion epochs ago would be true again.
            self.tags.fill([0; WAYS / 4]);
            self.flows.iter_mut().for_each(|flow| flow.epoch = 0);
            self.epoch = 1;
        }
    }

    /// The paths that flows share.
    #[inline]
    pub fn paths(&mut self) -> &mut Paths {
        &mut self.paths
    }

    fn position(&self, key: Key, hash: u64) -> Option<usize> {
        let set = self.set(hash);
        let ways = matching(self.tags.get(set)?, tag(hash));
        ways.map(|way| set * WAYS + way).find(|at| self.flows[*at].key == key)
    }

    /// Gives a way of a set to a flow.
    fn make_room(&mut self, set: usize, tag: u16) -> Room {
        let tags = &mut self.tags[set];
        let way = matching(tags, 0).next().unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS as u8;
            usize::from(self.victim)
        });
        let shift = way % 4 * 16;
        tags[way / 4] = tags[way / 4] & !(0xFFFF << shift) | u64::from(tag) << shift;
        Room { way }
    }

    #[inline]
    fn set(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.tags.len() as u128) >> 64) as usize
    }
}

struct Room {
    way: usize,
}

/// What [`FlowCache::insert`] is told of a walk.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Where its packets leave.
    pub out: LinkId,
    /// What changes in them.
    pub rewrite: Rewrite,
    /// Largest packet that its way takes.
    pub mtu: u16,
    /// Smallest TTL that survives its way.
    pub ttl: u8,
    /// Connections and leases it belongs to, or their absence.
    pub dependencies: Dependencies,
    /// NAT gateways that count it.
    pub nat_gateways: arrayvec::ArrayVec<(NatGatewayIndex, Direction), 2>,
    /// The ENI that sends it.
    pub sender: Option<EniIndex>,
    /// The ENI that receives it.
    pub receiver: Option<EniIndex>,
}

/// Whether a dependency still holds, and its connection or lease is past its handshake and not closed.
///
/// # Errors
/// [`Stale`].
#[inline]
pub fn holds(state: &State, dependency: &Dependency, now: Time) -> Result<(), Stale> {
    let holds = match *dependency {
        Dependency::Connection(activity, _) => state.connections.activities.steady(activity, now).is_some(),
        Dependency::Lease(activity, _) => state.leases.activities.steady(activity, now).is_some(),
        Dependency::NoConnection(absence) => state.connections.still_absent(absence),
    };
    holds.then_some(()).ok_or(Stale)
}

/// The connection or lease behind a dependency that [holds], and the direction of the flow's packets.
#[inline]
pub fn activity<'a>(state: &'a State, dependency: &Dependency) -> Option<(&'a Activity, Direction)> {
    match *dependency {
        Dependency::Connection(activity, direction) => {
            Some((state.connections.activities.same(activity)?, direction))
        }
        Dependency::Lease(activity, direction) => Some((state.leases.activities.same(activity)?, direction)),
        Dependency::NoConnection(_) => None,
    }
}

/// A flow that must be walked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Stored {
    fn of(dependency: &Dependency) -> Self {
        match *dependency {
            Dependency::Connection(Ref { slot, version }, _)
            | Dependency::Lease(Ref { slot, version }, _) => Self(slot, version),
            Dependency::NoConnection(Absence { stripe, made }) => Self(stripe, made),
        }
    }

    #[inline]
    fn reference(self) -> Ref {
        Ref { slot: self.0, version: self.1 }
    }

    #[inline]
    fn absence(self) -> Absence {
        Absence { stripe: self.0, made: self.1 }
    }
}

/// Not 0, which says that there is none.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash as u16).max(1)
}

/// The ways of a set that have a tag, and rarely, behind one that has it, others; the caller compares keys. 0 is found exactly.
#[inline]
fn matching(tags: &[u64; WAYS / 4], tag: u16) -> impl Iterator<Item = usize> {
    const ONES: u64 = 0x0001_0001_0001_0001;
    const HIGHS: u64 = 0x8000_8000_8000_8000;
    let wanted = u64::from(tag) * ONES;
    tags.iter().enumerate().flat_map(move |(at, word)| {
        let difference = word ^ wanted;
        let mut found = difference.wrapping_sub(ONES) & !difference & HIGHS;
        std::iter::from_fn(move || {
            let way = at * 4 + (found != 0).then(|| found.trailing_zeros() as usize / 16)?;
            found &= found - 1;
            Some(way)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Offload, brief};
    use crate::testing::craft;

    fn key(port: u16, link: u32) -> Key {
        let bytes = craft::udp(format!("10.0.0.4:{port}").as_str(), "10.0.0.5:53", b"");
        brief(&bytes, Offload::default()).unwrap().key(LinkId(link)).unwrap()
    }

    fn decided(out: u32) -> Decided {
        let tuple = craft::tuple(localvpc_api::trace::Protocol::UDP, "10.0.0.4:1", "10.0.0.5:53");
        Decided {
            out: LinkId(out),
            rewrite: Rewrite::new(tuple, tuple, 0),
            mtu: 1500,
            ttl: 0,
            dependencies: Dependencies::new(),
            nat_gateways: arrayvec::ArrayVec::new(),
            sender: None,
            receiver: None,
        }
    }

    fn out(cache: &FlowCache, key: Key) -> Option<u32> {
        let at = cache.position(key, cache.hash(key))?;
        let flow = &cache.flows[at];
        (flow.epoch == cache.epoch).then(|| cache.paths.at(flow.path).out.0)
    }

    #[test]
    fn keeps_flows_apart_by_all_of_their_key() {
        let mut cache = FlowCache::new(64, 1);
        for (number, key) in [key(1, 1), key(2, 1), key(1, 2)].into_iter().enumerate() {
            assert_eq!(cache.insert(key, decided(number as u32)), 1);
        }
        assert_eq!(
            [key(1, 1), key(2, 1), key(1, 2), key(2, 2)].map(|key| out(&cache, key)),
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(cache.insert(key(1, 1), decided(9)), 0, "in place of the older decision");
        assert_eq!(out(&cache, key(1, 1)), Some(9));
    }

    #[test]
    fn never_holds_more_than_it_has_room_for_and_keeps_the_last() {
        let mut cache = FlowCache::new(16, 1);
        let grown: u64 = (0..1000).map(|port| cache.insert(key(port, 1), decided(u32::from(port) % 7))).sum();
        assert_eq!(grown, 16);
        assert_eq!(out(&cache, key(999, 1)), Some(999 % 7));
        assert_eq!((0..1000).filter(|port| out(&cache, key(*port, 1)).is_some()).count(), 16);
    }

    #[test]
    fn another_generation_forgets_all_and_so_does_a_full_circle_of_epochs() {
        let mut cache = FlowCache::new(64, 1);
        cache.insert(key(1, 1), decided(1));
        cache.turn_to(Generation(0));
        assert_eq!(out(&cache, key(1, 1)), Some(1));
        cache.turn_to(Generation(7));
        assert_eq!(out(&cache, key(1, 1)), None);
        cache.insert(key(1, 1), decided(1));
        cache.epoch = u32::MAX;
        cache.insert(key(2, 1), decided(1));
        cache.clear();
        assert_eq!((out(&cache, key(1, 1)), out(&cache, key(2, 1))), (None, None));
    }

    #[test]
    fn without_room_it_keeps_none() {
        let mut cache = FlowCache::new(0, 1);
        assert_eq!(cache.insert(key(1, 1), decided(1)), 0);
        assert!(cache.place(7).is_none() && out(&cache, key(1, 1)).is_none());
    }

    #[test]
    fn ways_are_found_by_their_tags() {
        let tags = [0x0001_8000_0000_FFFF, 0, 0x7FFF_0001_0002_0003, u64::MAX];
        let found = |tag| matching(&tags, tag).next();
        assert_eq!(
            [0xFFFF, 0, 0x8000, 1, 2, 3, 0x7FFF, 9].map(found),
            [Some(0), Some(1), Some(2), Some(3), Some(9), Some(8), Some(11), None]
        );
    }
}

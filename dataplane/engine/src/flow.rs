//! Remembers what a walk decided, so that the flow's next packet need not be walked.
//!
//! One cache per worker, of fixed size, in sets of 32. It holds nothing that the
//! tables and the state do not: an entry is used only while its generation is that of
//! the tables and everything it depends on is still live, and dropping all of it at any
//! instant changes no packet. Only UDP and TCP without SYN goes by it: once a connection and its leases are known, nothing else
//! decides where its packets go, whatever they do to its state.
//!
//! An entry is one cache line. What many flows have in common (the way out, who counts them) is a [`path`] that they share;
//! a set is searched by 16 bits of hash per entry, so that nearly always one line of flows is touched.

pub mod path;

use std::num::NonZeroU16;

use localvpc_api::trace::Direction;
use localvpc_api::{Generation, LinkId};
use zerocopy::FromZeros;

use crate::Time;
use crate::hash::Seed;
use crate::hint::cold_path;
use crate::memory::{Zeroed, prefetch};
use crate::packet::{Brief, Carried, Key};
use crate::pipeline::effects::{Dependencies, Dependency};
use crate::pipeline::rewrite::Rewrite;
use crate::state::State;
use crate::state::activity::{Activity, MAX_LINES, Ref};
use crate::state::index::Absence;
use crate::state::tcp::side::Segment;
use crate::tables::{EniIndex, NatGatewayIndex};
use path::Paths;

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

/// Dependencies of a flow that is cached; the rare one with more is walked.
const DEPENDENCIES: usize = 3;

/// A [`Dependency`], or that there is none, and none behind it.
#[derive(Clone, Copy, Debug, FromZeros)]
struct Stored {
    /// Its kind in the upper two bits, the direction of the flow's packets in the next; then the slot of its [`Ref`] or the stripe of its [`Absence`].
    place: u32,
    /// The version of its [`Ref`], or how many the [`Absence`] has counted.
    version: u32,
}

const NOTHING: u32 = 0;
/// This and the next one are kept, in this order.
const CONNECTION: u32 = 1;
const LEASE: u32 = 2;
const NO_CONNECTION: u32 = 3;

const KIND_SHIFT: u32 = 30;
const DIRECTION_SHIFT: u32 = 29;
const _: () = assert!(MAX_LINES == 1 << DIRECTION_SHIFT);

/// A worker's cache.
#[derive(Debug)]
pub struct FlowCache {
    /// By set, 16 bits of the hash of each flow in it; 0 where there is none.
    tags: Zeroed<[u16; WAYS]>,
    flows: Zeroed<Flow>,
    paths: Paths,
    seed: Seed,
    generation: Generation,
    /// Flows of other epochs are no longer true.
    epoch: u32,
    /// The next to give way when all of a set are taken.
    victim: u8,
}

/// Their tags are one line. With half as many, three times as many flows give way to others when the cache is four fifths full.
const WAYS: usize = 32;

/// Where a flow is looked for: a set, and what stands there in its place.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    set: u32,
    tag: NonZeroU16,
}

/// Where a flow may be in the cache: only a hint, until its key was compared.
#[derive(Clone, Copy, Debug)]
pub struct Place(u32);

impl FlowCache {
    /// Room for about `capacity` flows; 0 keeps none. Two thirds full, hardly any gives way to another.
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

    /// Where a flow is looked for, if anywhere. Has the processor fetch what [`place`](Self::place) reads.
    #[inline]
    pub fn spot(&self, key: Key) -> Option<Spot> {
        let hash = key.hash(self.seed);
        let set = ((u128::from(hash) * self.tags.len() as u128) >> 64) as usize;
        prefetch(self.tags.get(set)?);
        // There are at most 2²⁶. 0 says that there is no flow.
        Some(Spot { set: set as u32, tag: NonZeroU16::new(hash as u16).unwrap_or(NonZeroU16::MIN) })
    }

    /// Where the flow that is looked for there may be. Has the processor fetch what is there.
    #[inline]
    pub fn place(&self, spot: Spot) -> Option<Place> {
        let set = spot.set as usize;
        let found = matching(&self.tags[set], spot.tag.get());
        if found == 0 {
            return None;
        }
        let place = set * WAYS + found.trailing_zeros() as usize;
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
        for stored in &flow.dependencies {
            match stored.kind() {
                CONNECTION => state.connections.activities.prefetch(stored.slot()),
                LEASE => state.leases.activities.prefetch(stored.slot()),
                _ => {}
            }
        }
    }

    /// Forwards a packet in mid-stream: rewrites it, and counts it everywhere. Returns the link it leaves on, or `None`, having changed nothing, if
    /// its flow was not decided under this generation, not all it depends on is live and steady, or the packet does not fit its way.
    #[inline(always)]
    pub fn forward(
        &mut self,
        hint: Option<Place>,
        key: Key,
        packet: &Brief,
        bytes: &mut [u8],
        state: &State,
        now: Time,
    ) -> Option<LinkId> {
        let flow = match hint {
            Some(Place(place)) if self.flows[place as usize].key == key => &self.flows[place as usize],
            _ => &self.flows[self.position(key)?],
        };
        if flow.epoch != self.epoch {
            return None;
        }
        let path = self.paths.at(flow.path);
        if !path.takes(packet.segment_length, packet.ttl, packet.dont_fragment) {
            return None;
        }
        let kept = [&state.connections.activities, &state.leases.activities];
        let mut lines = [None; DEPENDENCIES];
        for (line, stored) in lines.iter_mut().zip(&flow.dependencies) {
            // By index, since jumps that depend on what a flow has are hard to foresee.
            if let Some(activities) = kept.get(stored.kind().wrapping_sub(CONNECTION) as usize) {
                *line = Some((activities.steady(stored.reference(), now)?, stored.direction()));
            } else if stored.kind() == NOTHING {
                break;
            } else if !state.connections.still_absent(stored.absence()) {
                return None;
            }
        }
        let load = packet.load();
        match &packet.carried {
            Carried::Tcp(facts) => {
                let segment = Segment::in_mid_stream(facts);
                for (line, direction) in lines.iter().flatten() {
                    line.touch(load, Some(&segment), *direction, now);
                }
            }
            Carried::Udp => {
                for (line, direction) in lines.iter().flatten() {
                    line.touch(load, None, *direction, now);
                }
            }
        }
        flow.rewrite.apply_brief(bytes, packet);
        Some(path.count(load))
    }

    /// The same of any segment of a connection but its SYN: one that may change the connection's state, or that of an opening or closed one.
    #[inline]
    pub fn forward_segment(
        &mut self,
        hint: Option<Place>,
        key: Key,
        packet: &Brief,
        bytes: &mut [u8],
        state: &State,
        now: Time,
    ) -> Option<LinkId> {
        let facts = packet.facts()?;
        let at = match hint {
            Some(Place(place)) if self.flows[place as usize].key == key => place as usize,
            _ => self.position(key)?,
        };
        let flow = &self.flows[at];
        if flow.epoch != self.epoch {
            return None;
        }
        let mut path = self.paths.at(flow.path);
        if !path.takes(packet.segment_length, packet.ttl, packet.dont_fragment) {
            return None;
        }
        let mut lines = [None; DEPENDENCIES];
        for (line, stored) in lines.iter_mut().zip(&flow.dependencies) {
            if stored.kind() == NOTHING {
                break;
            }
            let Some(found) = stored.find(state, now) else {
                cold_path();
                return None;
            };
            *line = found;
        }
        let load = packet.load();
        let mut leases = 0;
        for (line, stored) in lines.iter().zip(&flow.dependencies) {
            let Some(line) = line else { continue };
            let opens = line.see_segment(load, facts, None, stored.direction(), now);
            if stored.kind() == LEASE {
                if opens {
                    path.note_opened(leases);
                }
                leases += 1;
            }
        }
        flow.rewrite.apply_brief(bytes, packet);
        Some(path.count(load))
    }

    /// Remembers a flow, in place of an older decision or of the set's next victim. Returns by how many flows the cache has grown.
    pub fn insert(&mut self, key: Key, decided: &Decided) -> u64 {
        if self.tags.is_empty() || decided.dependencies.len() > DEPENDENCIES {
            return 0;
        }
        let Some(path) = self.paths.intern(decided) else { return 0 };
        let Some(spot) = self.spot(key) else { return 0 };
        let mut dependencies = [Stored { place: NOTHING, version: 0 }; DEPENDENCIES];
        for (stored, dependency) in dependencies.iter_mut().zip(&decided.dependencies) {
            *stored = Stored::of(dependency);
        }
        let (at, grown) = match self.position_from(spot, key) {
            Some(at) => (at, 0),
            None => self.make_room(spot),
        };
        self.flows[at] = Flow { key, epoch: self.epoch, path, rewrite: decided.rewrite, dependencies };
        grown
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.paths.clear();
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // The flows of four billion epochs ago would be true again.
            self.tags.fill([0; WAYS]);
            self.flows.iter_mut().for_each(|flow| flow.epoch = 0);
            self.epoch = 1;
        }
    }

    /// The paths that flows share.
    #[inline]
    pub fn paths(&mut self) -> &mut Paths {
        &mut self.paths
    }

    fn position(&self, key: Key) -> Option<usize> {
        self.position_from(self.spot(key)?, key)
    }

    #[inline(always)]
    fn position_from(&self, spot: Spot, key: Key) -> Option<usize> {
        let set = spot.set as usize;
        let mut found = matching(&self.tags[set], spot.tag.get());
        while found != 0 {
            let at = set * WAYS + found.trailing_zeros() as usize;
            if self.flows[at].key == key {
                return Some(at);
            }
            found &= found - 1;
        }
        None
    }

    /// Gives a way of a set to a flow; says which of all it is, and by how many flows the cache has grown.
    fn make_room(&mut self, Spot { set, tag }: Spot) -> (usize, u64) {
        let set = set as usize;
        let tags = &mut self.tags[set];
        let (way, grown) = match matching(tags, 0) {
            0 => {
                self.victim = (self.victim + 1) % WAYS as u8;
                (usize::from(self.victim), 0)
            }
            free => (free.trailing_zeros() as usize, 1),
        };
        tags[way] = tag.get();
        (set * WAYS + way, grown)
    }
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

impl Decided {
    /// The smallest TTL of a packet from which a way takes so much.
    pub fn smallest_ttl(spent: u8) -> u8 {
        if spent == 0 { 0 } else { spent + 1 }
    }
}

/// The live connection or lease behind a dependency, and the direction of the flow's packets.
#[inline]
pub fn activity<'a>(
    state: &'a State,
    dependency: &Dependency,
    now: Time,
) -> Option<(&'a Activity, Direction)> {
    match *dependency {
        Dependency::Connection(activity, direction) => {
            Some((state.connections.activities.live(activity, now)?, direction))
        }
        Dependency::Lease(activity, direction) => {
            Some((state.leases.activities.live(activity, now)?, direction))
        }
        Dependency::NoConnection(_) => None,
    }
}

impl Stored {
    fn of(dependency: &Dependency) -> Self {
        let kept = |kind: u32, Ref { slot, version }: Ref, direction: Direction| Self {
            place: kind << KIND_SHIFT | (direction as u32) << DIRECTION_SHIFT | slot,
            version,
        };
        match *dependency {
            Dependency::Connection(activity, direction) => kept(CONNECTION, activity, direction),
            Dependency::Lease(activity, direction) => kept(LEASE, activity, direction),
            Dependency::NoConnection(Absence { stripe, made }) => {
                Self { place: NO_CONNECTION << KIND_SHIFT | stripe, version: made }
            }
        }
    }

    /// The live connection or lease, if it is one; `None` if that has ended, or one has come that was not there.
    fn find(self, state: &State, now: Time) -> Option<Option<&Activity>> {
        match self.kind() {
            CONNECTION => Some(Some(state.connections.activities.live(self.reference(), now)?)),
            LEASE => Some(Some(state.leases.activities.live(self.reference(), now)?)),
            NO_CONNECTION if !state.connections.still_absent(self.absence()) => None,
            _ => Some(None),
        }
    }

    #[inline]
    fn kind(self) -> u32 {
        self.place >> KIND_SHIFT
    }

    #[inline]
    fn direction(self) -> Direction {
        match self.place >> DIRECTION_SHIFT & 1 {
            0 => Direction::Inbound,
            _ => Direction::Outbound,
        }
    }

    #[inline]
    fn slot(self) -> u32 {
        self.place & (MAX_LINES - 1)
    }

    #[inline]
    fn reference(self) -> Ref {
        Ref { slot: self.slot(), version: self.version }
    }

    #[inline]
    fn absence(self) -> Absence {
        Absence { stripe: self.slot(), made: self.version }
    }
}

/// A bit for each way of a set that has a tag.
#[cfg(target_arch = "x86_64")]
#[inline]
fn matching(tags: &[u16; WAYS], tag: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    const LANES: usize = 8;
    const { assert!(WAYS == 4 * LANES) };
    // SAFETY: every x86-64 has SSE2; all four parts lie within the array, and may lie anywhere.
    unsafe {
        let wanted = _mm_set1_epi16(tag.cast_signed());
        let part = |at: usize| _mm_cmpeq_epi16(_mm_loadu_si128(tags.as_ptr().add(at * LANES).cast()), wanted);
        let two = |at: usize| _mm_movemask_epi8(_mm_packs_epi16(part(at), part(at + 1))) as u32;
        two(0) | two(2) << (2 * LANES)
    }
}

/// A bit for each way of a set that has a tag.
#[cfg(not(target_arch = "x86_64"))]
fn matching(tags: &[u16; WAYS], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |found, (way, known)| found | u32::from(*known == tag) << way)
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

    fn out(cache: &mut FlowCache, key: Key) -> Option<u32> {
        let at = cache.position(key)?;
        let flow = &cache.flows[at];
        (flow.epoch == cache.epoch).then(|| cache.paths.at(flow.path).out.0)
    }

    #[test]
    fn keeps_flows_apart_by_all_of_their_key() {
        let mut cache = FlowCache::new(64, 1);
        for (number, key) in [key(1, 1), key(2, 1), key(1, 2)].into_iter().enumerate() {
            assert_eq!(cache.insert(key, &decided(number as u32)), 1);
        }
        assert_eq!(
            [key(1, 1), key(2, 1), key(1, 2), key(2, 2)].map(|key| out(&mut cache, key)),
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(cache.insert(key(1, 1), &decided(9)), 0, "in place of the older decision");
        assert_eq!(out(&mut cache, key(1, 1)), Some(9));
    }

    #[test]
    fn never_holds_more_than_it_has_room_for_and_keeps_the_last() {
        let mut cache = FlowCache::new(WAYS, 1);
        let grown: u64 =
            (0..1000).map(|port| cache.insert(key(port, 1), &decided(u32::from(port) % 7))).sum();
        assert_eq!(grown, WAYS as u64);
        assert_eq!(out(&mut cache, key(999, 1)), Some(999 % 7));
        assert_eq!((0..1000).filter(|port| out(&mut cache, key(*port, 1)).is_some()).count(), WAYS);
    }

    #[test]
    fn another_generation_forgets_all_and_so_does_a_full_circle_of_epochs() {
        let mut cache = FlowCache::new(64, 1);
        cache.insert(key(1, 1), &decided(1));
        cache.turn_to(Generation(0));
        assert_eq!(out(&mut cache, key(1, 1)), Some(1));
        cache.turn_to(Generation(7));
        assert_eq!(out(&mut cache, key(1, 1)), None);
        cache.insert(key(1, 1), &decided(1));
        cache.epoch = u32::MAX;
        cache.insert(key(2, 1), &decided(1));
        cache.clear();
        assert_eq!((out(&mut cache, key(1, 1)), out(&mut cache, key(2, 1))), (None, None));
    }

    #[test]
    fn without_room_it_keeps_none() {
        let mut cache = FlowCache::new(0, 1);
        assert_eq!(cache.insert(key(1, 1), &decided(1)), 0);
        assert!(cache.spot(key(1, 1)).is_none() && out(&mut cache, key(1, 1)).is_none());
    }

    #[test]
    fn ways_are_found_by_their_tags() {
        let half = [9, 0, 0x7FFF, 0xFFFF, 1, 1, 2, 3, 0x8000, 0x0100, 4, 5, 6, 7, 8, 0];
        let mut tags = [0x1234; WAYS];
        tags[..16].copy_from_slice(&half);
        let found = |tag| matching(&tags, tag);
        assert_eq!([9, 0xFFFF, 0x8000, 0x0100, 8].map(found), [1, 1 << 3, 1 << 8, 1 << 9, 1 << 14]);
        assert_eq!([1, 0, 10, 0xFF00].map(found), [0b11 << 4, 1 << 1 | 1 << 15, 0, 0]);
        assert_eq!(found(0x1234), 0xFFFF << 16);
        tags[16..].copy_from_slice(&half);
        assert_eq!([9, 5, 8].map(|tag| matching(&tags, tag)), [0x1_0001, 0x0800_0800, 0x4000_4000]);
    }
}

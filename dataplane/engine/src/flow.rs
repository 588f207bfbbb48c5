//! Remembers what a walk decided, so that the flow's next packet need not be walked.
//!
//! One cache per worker, of fixed size, in sets of four. It holds nothing that the
//! tables and the state do not: an entry is used only while its generation is that of
//! the tables and everything it depends on is still live and in mid-stream, and dropping all of it at any
//! instant changes no packet. Only mid-stream TCP and UDP are remembered; what can change a connection's
//! state walks.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use localvpc_api::trace::{Direction, Protocol};
use localvpc_api::{Generation, LinkId};

use crate::Time;
use crate::packet::{Kind, Packet, TcpFacts};
use crate::pipeline::effects::{Dependencies, Dependency};
use crate::pipeline::rewrite::Rewrite;
use crate::state::State;
use crate::state::activity::Activity;
use crate::tables::{EniIndex, NatGatewayIndex};

/// What was decided for a flow.
#[derive(Clone, Debug)]
pub struct Flow {
    key: Key,
    /// The tables it was decided under; indexes below are into these.
    generation: Generation,
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

/// An IPv4 flow on a link, in 16 bytes: addresses, ports, link, protocol.
///
/// IPv6 flows will have a cache of their own with a wider key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u128);

/// Links with greater ids are not cached: 2²⁴ of them in one lab's life are beyond what it is for.
const MAX_LINK: u32 = 1 << 24;

/// A worker's cache.
#[derive(Debug)]
pub struct FlowCache {
    sets: Box<[Set]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Set {
    flows: [Option<Flow>; WAYS],
    /// The next to give way when all are taken.
    victim: u8,
}

const WAYS: usize = 4;

impl FlowCache {
    /// Room for `capacity` flows, rounded up to a power of two; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        let sets = match capacity {
            0 => 0,
            _ => capacity.div_ceil(WAYS).next_power_of_two(),
        };
        Self { sets: (0..sets).map(|_| Set::default()).collect(), hasher: RandomState::default() }
    }

    /// The flow of a packet, if it was decided under this generation, its connections live and the packet fits its way.
    #[inline]
    pub fn find(
        &self,
        link: LinkId,
        packet: &Packet,
        generation: Generation,
        state: &State,
        now: Time,
    ) -> Option<&Flow> {
        let key = Key::of(link, packet)?;
        let flow = self.set(key)?.flows.iter().flatten().find(|flow| flow.key == key)?;
        let usable = flow.generation == generation
            && packet.segment_length <= flow.mtu
            && packet.ttl >= flow.ttl
            && flow.dependencies.iter().all(|dependency| holds(state, dependency, now).is_ok());
        usable.then_some(flow)
    }

    /// Remembers a flow, in place of an older decision or of the set's next victim. Returns by how many flows the cache has grown.
    pub fn insert(&mut self, link: LinkId, packet: &Packet, generation: Generation, decided: Decided) -> u64 {
        let Some(key) = Key::of(link, packet) else { return 0 };
        let Decided { out, rewrite, mtu, ttl, dependencies, nat_gateways, sender, receiver } = decided;
        let flow =
            Flow { key, generation, out, rewrite, mtu, ttl, dependencies, nat_gateways, sender, receiver };
        let Some(set) = self.set_mut(key) else { return 0 };
        let same = set.flows.iter().position(|slot| slot.as_ref().is_some_and(|flow| flow.key == key));
        let unused = || {
            let unused = |slot: &Option<Flow>| slot.as_ref().is_none_or(|flow| flow.generation != generation);
            set.flows.iter().position(unused)
        };
        let at = same.or_else(unused).unwrap_or_else(|| {
            set.victim = (set.victim + 1) % WAYS as u8;
            usize::from(set.victim)
        });
        u64::from(set.flows[at].replace(flow).is_none())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for set in &mut self.sets {
            *set = Set::default();
        }
    }

    /// Flows in it, decided under whatever generation.
    pub fn len(&self) -> usize {
        self.sets.iter().flat_map(|set| &set.flows).flatten().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn set(&self, key: Key) -> Option<&Set> {
        // The number of sets is a power of two, or 0.
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get(self.hasher.hash_one(key.0) as usize & mask)
    }

    fn set_mut(&mut self, key: Key) -> Option<&mut Set> {
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get_mut(self.hasher.hash_one(key.0) as usize & mask)
    }
}

/// What [`FlowCache::insert`] is told of a walk.
#[derive(Clone, Debug)]
pub struct Decided {
    /// See [`Flow`] for all of these.
    pub out: LinkId,
    /// What changes.
    pub rewrite: Rewrite,
    /// Largest packet.
    pub mtu: u16,
    /// Smallest TTL.
    pub ttl: u8,
    /// Connections and leases.
    pub dependencies: Dependencies,
    /// NAT gateways.
    pub nat_gateways: arrayvec::ArrayVec<(NatGatewayIndex, Direction), 2>,
    /// Sending ENI.
    pub sender: Option<EniIndex>,
    /// Receiving ENI.
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

impl Key {
    /// The key of a packet that a cache may decide: TCP in mid-stream, or UDP.
    #[inline]
    fn of(link: LinkId, packet: &Packet) -> Option<Self> {
        match &packet.kind {
            Kind::Tcp(facts) if facts.flags & (TcpFacts::SYN | TcpFacts::FIN | TcpFacts::RST) == 0 => {}
            Kind::Udp => {}
            _ => return None,
        }
        let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) =
            (packet.tuple.source, packet.tuple.destination)
        else {
            return None;
        };
        if link.0 >= MAX_LINK {
            return None;
        }
        let addresses = u128::from(u32::from(source)) << 32 | u128::from(u32::from(destination));
        let ports = u128::from(packet.tuple.source_port) << 16 | u128::from(packet.tuple.destination_port);
        let Protocol(protocol) = packet.tuple.protocol;
        Some(Self(addresses << 64 | ports << 32 | u128::from(link.0) << 8 | u128::from(protocol)))
    }
}

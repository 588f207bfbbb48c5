//! What flows have in common: where they leave, and who counts them.
//!
//! A hit adds to its path's counts, one cache line however many ENIs and gateways count it; at the end of a batch they are
//! added to the metrics.

use arrayvec::ArrayVec;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::LinkId;
use localvpc_api::trace::Direction;

use super::Decided;
use crate::metrics::EniSlot;
use crate::packet::Load;
use crate::pipeline::effects::Dependency;
use crate::tables::{EniIndex, NatGatewayIndex, Tables};

/// A way through the VPC.
#[derive(Debug)]
pub struct Path {
    /// Where its packets leave.
    pub out: LinkId,
    /// Largest packet that it takes.
    pub mtu: u16,
    /// Smallest TTL that survives it.
    pub ttl: u8,
    /// Whether a packet on it gets a number if it may be fragmented: it leaves a NAT gateway.
    pub numbers: bool,
    counters: Counters,
    /// Packets of the batch so far.
    packets: u32,
    /// Their bytes.
    bytes: u64,
    /// TCP connections that they have opened, at each of its NAT gateways.
    opened: [u32; MAX_NAT_GATEWAYS],
}

/// The links of so many are told apart by their numbers; with more, some take turns.
const RECENT: usize = 16;

/// A path has no more: a flow has a lease of each.
const MAX_NAT_GATEWAYS: usize = 2;

impl Path {
    /// Whether a packet can go this way as it is.
    #[inline(always)]
    pub fn takes(&self, segment_length: u16, ttl: u8, dont_fragment: bool) -> bool {
        segment_length <= self.mtu && ttl >= self.ttl && (!self.numbers || dont_fragment)
    }

    /// Whether it is the one that was decided.
    fn is_of(&self, decided: &Decided, numbers: bool) -> bool {
        let Self { out, mtu, ttl, numbers: own, counters, .. } = self;
        let Counters { sender, receiver, nat_gateways } = counters;
        (*out, *mtu, *ttl, *own) == (decided.out, decided.mtu, decided.ttl, numbers)
            && (*sender, *receiver) == (decided.sender, decided.receiver)
            && *nat_gateways == decided.nat_gateways
    }
}

/// Who counts a packet; positions in the tables of the cache's generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Counters {
    sender: Option<EniIndex>,
    receiver: Option<EniIndex>,
    nat_gateways: ArrayVec<(NatGatewayIndex, Direction), MAX_NAT_GATEWAYS>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    out: LinkId,
    mtu: u16,
    ttl: u8,
    numbers: bool,
    counters: Counters,
}

/// A path that a packet is about to take.
#[derive(Debug)]
pub struct Lent<'a> {
    number: u16,
    path: &'a mut Path,
    counted: &'a mut Vec<u16>,
}

impl Lent<'_> {
    /// Counts a connection that a packet on it has opened at one of its NAT gateways, in their order.
    pub fn note_opened(&mut self, nat_gateway: usize) {
        if let Some(opened) = self.path.opened.get_mut(nat_gateway) {
            *opened += 1;
        }
    }

    /// Counts a packet on it, and says where it leaves.
    #[inline(always)]
    pub fn count(self, load: Load) -> LinkId {
        let Self { number, path, counted } = self;
        if path.packets == 0 {
            counted.push(number);
        }
        path.packets += u32::from(load.segments);
        path.bytes += u64::from(load.length);
        path.out
    }
}

impl std::ops::Deref for Lent<'_> {
    type Target = Path;

    #[inline(always)]
    fn deref(&self) -> &Path {
        self.path
    }
}

/// All paths of a cache.
#[derive(Debug, Default)]
pub struct Paths {
    paths: Vec<Path>,
    known: HashMap<Identity, u16, RandomState>,
    /// By the number of the link that they leave on, the last that was asked for: comparing is faster than hashing.
    recent: [Option<u16>; RECENT],
    /// Those with counts of the batch.
    counted: Vec<u16>,
}

impl Paths {
    /// The path with a number that [`intern`](Self::intern) gave out since the last [`clear`](Self::clear).
    #[inline(always)]
    pub fn at(&mut self, number: u16) -> Lent<'_> {
        Lent { number, path: &mut self.paths[usize::from(number)], counted: &mut self.counted }
    }

    /// The number of a walk's path; `None` if there are too many.
    pub fn intern(&mut self, decided: &Decided) -> Option<u16> {
        let leaves =
            |dependency: &Dependency| matches!(dependency, Dependency::Lease(_, Direction::Outbound));
        let numbers = decided.dependencies.iter().any(leaves);
        let recent = decided.out.0 as usize % RECENT;
        if let Some(known) = self.recent[recent]
            && self.paths[usize::from(known)].is_of(decided, numbers)
        {
            return Some(known);
        }
        let identity = Identity {
            out: decided.out,
            mtu: decided.mtu,
            ttl: decided.ttl,
            numbers,
            counters: Counters {
                sender: decided.sender,
                receiver: decided.receiver,
                nat_gateways: decided.nat_gateways.clone(),
            },
        };
        if let Some(known) = self.known.get(&identity) {
            self.recent[recent] = Some(*known);
            return Some(*known);
        }
        let number = u16::try_from(self.paths.len()).ok()?;
        let Identity { out, mtu, ttl, numbers, counters } = identity.clone();
        self.paths.push(Path {
            out,
            mtu,
            ttl,
            numbers,
            counters,
            packets: 0,
            bytes: 0,
            opened: [0; MAX_NAT_GATEWAYS],
        });
        self.known.insert(identity, number);
        Some(number)
    }

    /// Forgets all; what was counted must have been [settled](Self::settle).
    pub fn clear(&mut self) {
        self.paths.clear();
        self.known.clear();
        self.recent = [None; RECENT];
        self.counted.clear();
    }

    /// Adds what was counted to the metrics, in the slots of a worker.
    #[inline]
    pub fn settle(&mut self, tables: &Tables, worker: usize) {
        while let Some(number) = self.counted.pop() {
            let path = &mut self.paths[usize::from(number)];
            let packets = u64::from(std::mem::take(&mut path.packets));
            let bytes = std::mem::take(&mut path.bytes);
            let slot = |eni: EniIndex| -> &EniSlot { tables.eni(eni).metrics.slot(worker) };
            if let Some(sender) = path.counters.sender {
                slot(sender).sent.add_sum(packets, bytes);
            }
            if let Some(receiver) = path.counters.receiver {
                slot(receiver).received.add_sum(packets, bytes);
            }
            for ((nat_gateway, direction), opened) in path.counters.nat_gateways.iter().zip(&mut path.opened)
            {
                let slot = tables.nat_gateway(*nat_gateway).metrics.slot(worker);
                slot.traffic(*direction).add_sum(packets, bytes);
                slot.connections_established.add(std::mem::take(opened).into());
            }
        }
    }
}

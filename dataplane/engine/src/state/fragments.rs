//! Remembers what became of first fragments, so that the others, which carry no ports, share their fate.
//!
//! The first fragment of a datagram is walked like any packet. What was decided is kept under
//! (link, source, destination, protocol, identification), for [`LIFETIME_MS`] at most, and later fragments follow it,
//! across a push too: a datagram is judged once. A fragment that comes before its first
//! is held back, and leaves behind it. So a receiver gets all of a datagram or nothing, in whatever order
//! it was sent (RFC 4787 REQ-14).
//!
//! Everything is bounded, in all and for each source on its link (RFC 4787 REQ-14a): datagrams, fragments of each,
//! fragments held back and their bytes. A source that exceeds its share loses its own oldest datagram.
//! Fragments that overlap or contradict each other end their datagram (RFC 5722 §3; for IPv4 RFC 1858 recommends as
//! much); exact duplicates pass.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::trace::{Direction, Protocol};
use localvpc_api::{DiscardReason, LinkId};

use crate::Time;
use crate::metrics::{EniMetrics, NatGatewayMetrics};
use crate::packet::{Fragment, Packet};
use crate::pipeline::effects::Dependencies;
use crate::pipeline::rewrite::Rewrite;

/// What was decided for a first fragment.
#[derive(Debug)]
pub enum Fate {
    /// It left.
    Pass(Way),
    /// It was discarded.
    Discard(Refusal),
}

/// How a first fragment left.
#[derive(Debug)]
pub struct Way {
    /// On which link.
    pub out: LinkId,
    /// What changed; of later fragments that is addresses and TTL.
    pub rewrite: Rewrite,
    /// Largest packet that its way takes.
    pub mtu: u16,
    /// TTL that its way uses up.
    pub ttl_spent: u8,
    /// The identification that the datagram leaves with, where it is not its own.
    pub identification: Option<u16>,
    /// Connections and leases that count it.
    pub dependencies: Dependencies,
    /// The ENI that sends it.
    pub sender: Option<Arc<EniMetrics>>,
    /// The ENI that receives it.
    pub receiver: Option<Arc<EniMetrics>>,
    /// NAT gateways that count it.
    pub nat_gateways: arrayvec::ArrayVec<(Arc<NatGatewayMetrics>, Direction), 2>,
}

/// Why a first fragment was discarded, and who counts that.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub reason: DiscardReason,
    /// The ENI from or to which it went.
    pub eni: Option<Arc<EniMetrics>>,
    /// The NAT gateway that discarded it, and the direction in which it came.
    pub nat_gateway: Option<(Arc<NatGatewayMetrics>, Direction)>,
}

/// What becomes of a fragment that has just come in.
#[derive(Debug)]
pub enum Admission {
    /// It is a first fragment: walk it, then tell [`Fragments::decide`].
    Walk {
        /// What became of it when it came before.
        earlier: Option<Arc<Fate>>,
    },
    /// It follows its first.
    Follow(Arc<Fate>),
    /// It is kept until its first comes.
    Held,
}

/// A fragment that came before its first.
#[derive(Debug)]
pub struct Held {
    /// Its facts.
    pub packet: Packet,
    /// Its bytes.
    pub bytes: Box<[u8]>,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Datagrams, in all.
    pub datagrams: usize,
    /// Datagrams of one source.
    pub datagrams_per_source: usize,
    /// Different fragments of one datagram.
    pub fragments_per_datagram: usize,
    /// Fragments held back, in all.
    pub held: Amount,
    /// Fragments of one source held back.
    pub held_per_source: Amount,
}

/// A number of fragments and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Fragments.
    pub fragments: usize,
    /// Bytes of them, headers included.
    pub bytes: usize,
}

impl Default for Bounds {
    /// A source may have Linux's `ipfrag_max_dist` of 64 datagrams under way, the two largest of them in reverse order.
    fn default() -> Self {
        Self {
            datagrams: 1 << 14,
            datagrams_per_source: 64,
            // The largest datagram at the smallest MTU that hosts must accept, 576 bytes (RFC 791), has 119.
            fragments_per_datagram: 128,
            held: Amount { fragments: 1 << 12, bytes: 4 << 20 },
            held_per_source: Amount { fragments: 256, bytes: 128 << 10 },
        }
    }
}

/// From the first fragment that comes, whichever it is, to the end of what is remembered. Linux's `ipfrag_time`: the receiver gives up no later.
pub const LIFETIME_MS: u64 = 30_000;

/// Datagrams that are on their way in fragments.
#[derive(Debug)]
pub struct Fragments {
    /// By source, so that one lock holds all that a source's share is made of.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bounds: Bounds,
    datagrams: AtomicUsize,
    held: AtomicUsize,
    held_bytes: AtomicUsize,
}

/// A source's datagrams, oldest first.
type Shard = HashMap<Source, Vec<Datagram>, RandomState>;

/// Where fragments come from. An address may exist on several links: in VPCs of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The link.
    pub link: LinkId,
    /// The address that they name.
    pub address: IpAddr,
}

#[derive(Debug)]
struct Datagram {
    destination: IpAddr,
    protocol: Protocol,
    identification: u16,
    expires: Time,
    /// Fragments that came, by start; none overlaps another.
    parts: Vec<Part>,
    /// Bytes of all parts.
    covered: u32,
    /// Where its data ends, once the last fragment has come.
    end: Option<u16>,
    stage: Stage,
    held: Vec<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: u16,
    end: u16,
}

#[derive(Debug)]
enum Stage {
    /// The first fragment has not come, or is being walked.
    Awaited,
    /// It has been.
    Decided(Arc<Fate>),
    /// Fragments overlap: none of them passes any more.
    Overlapped,
}

const SHARDS: usize = 64;

impl Fragments {
    /// Nothing remembered yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            bounds,
            datagrams: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes note of a fragment that came in, and says what becomes of it.
    ///
    /// `lost` is called for each fragment of the same source that was held back and now is discarded.
    ///
    /// # Errors
    ///
    /// Why the fragment must be discarded.
    pub fn admit(
        &self,
        link: LinkId,
        packet: &Packet,
        fragment: Fragment,
        bytes: &[u8],
        now: Time,
        mut lost: impl FnMut(DiscardReason),
    ) -> Result<Admission, DiscardReason> {
        let source = Source { link, address: packet.tuple.source };
        let mut shard = self.shard_of(&source);
        if !shard.contains_key(&source) && self.datagrams.load(Relaxed) >= self.bounds.datagrams {
            return Err(DiscardReason::FragmentTableFull);
        }
        let datagrams = shard.entry(source).or_default();
        self.expire(datagrams, now, &mut lost);
        let found = datagrams.iter().position(|datagram| datagram.is_of(packet, fragment));
        let at = match found {
            Some(at) => {
                let datagram = &mut datagrams[at];
                if datagram.is_complete() && (fragment.is_first() || !datagram.has(fragment)) {
                    // The identification is used again, or the first fragment was sent twice: either way it starts over.
                    *datagram = Datagram::new(packet, fragment, now);
                }
                at
            }
            None => {
                self.make_room(datagrams, &mut lost)?;
                self.datagrams.fetch_add(1, Relaxed);
                datagrams.push(Datagram::new(packet, fragment, now));
                datagrams.len() - 1
            }
        };
        let waits = !fragment.is_first() && matches!(datagrams[at].stage, Stage::Awaited);
        if waits && !self.has_room_for(datagrams, bytes.len()) {
            return Err(DiscardReason::FragmentTableFull);
        }
        let datagram = &mut datagrams[at];
        if let Stage::Overlapped = datagram.stage {
            return Err(DiscardReason::FragmentOverlap);
        }
        if !datagram.has(fragment) && datagram.parts.len() >= self.bounds.fragments_per_datagram {
            return Err(DiscardReason::FragmentTableFull);
        }
        if datagram.add(fragment).is_err() {
            datagram.stage = Stage::Overlapped;
            self.lose(datagram, DiscardReason::FragmentOverlap, &mut lost);
            return Err(DiscardReason::FragmentOverlap);
        }
        match &datagram.stage {
            Stage::Decided(fate) if fragment.is_first() => {
                Ok(Admission::Walk { earlier: Some(fate.clone()) })
            }
            _ if fragment.is_first() => Ok(Admission::Walk { earlier: None }),
            Stage::Decided(fate) => Ok(Admission::Follow(fate.clone())),
            Stage::Awaited | Stage::Overlapped => {
                self.held.fetch_add(1, Relaxed);
                self.held_bytes.fetch_add(bytes.len(), Relaxed);
                datagram.held.push(Held { packet: *packet, bytes: bytes.into() });
                Ok(Admission::Held)
            }
        }
    }

    /// Remembers what became of a first fragment; returns those that waited for it, in the order in which they came.
    pub fn decide(&self, link: LinkId, packet: &Packet, fragment: Fragment, fate: &Arc<Fate>) -> Vec<Held> {
        let source = Source { link, address: packet.tuple.source };
        let mut shard = self.shard_of(&source);
        let datagram = shard
            .get_mut(&source)
            .and_then(|datagrams| datagrams.iter_mut().find(|datagram| datagram.is_of(packet, fragment)));
        match datagram {
            Some(datagram) if !matches!(datagram.stage, Stage::Overlapped) => {
                datagram.stage = Stage::Decided(fate.clone());
                self.take(datagram)
            }
            // Given up by another worker meanwhile: whatever waited has been counted.
            _ => Vec::new(),
        }
    }

    /// Ends what has come to its time in one part of the table; calls `lost` for each fragment whose first never came.
    pub fn sweep(&self, part: usize, now: Time, mut lost: impl FnMut(Source)) -> usize {
        let mut ended = 0;
        self.shard(part % SHARDS).retain(|source, datagrams| {
            let before = datagrams.len();
            self.expire(datagrams, now, &mut |_| lost(*source));
            ended += before - datagrams.len();
            !datagrams.is_empty()
        });
        ended
    }

    /// Datagrams that are remembered.
    pub fn len(&self) -> usize {
        self.datagrams.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is held back.
    pub fn held(&self) -> Amount {
        Amount { fragments: self.held.load(Relaxed), bytes: self.held_bytes.load(Relaxed) }
    }

    fn expire(&self, datagrams: &mut Vec<Datagram>, now: Time, lost: &mut impl FnMut(DiscardReason)) {
        datagrams.retain_mut(|datagram| {
            let keep = now < datagram.expires;
            if !keep {
                self.end(datagram, DiscardReason::FragmentTimeout, lost);
            }
            keep
        });
    }

    /// Makes room for one more datagram of a source: its oldest gives way, one that is complete before all others.
    fn make_room(
        &self,
        datagrams: &mut Vec<Datagram>,
        lost: &mut impl FnMut(DiscardReason),
    ) -> Result<(), DiscardReason> {
        let in_all = self.datagrams.load(Relaxed) >= self.bounds.datagrams;
        if datagrams.len() < self.bounds.datagrams_per_source && !in_all {
            return Ok(());
        }
        let oldest = (0..datagrams.len())
            .min_by_key(|at| (!datagrams[*at].is_complete(), datagrams[*at].expires))
            .ok_or(DiscardReason::FragmentTableFull)?;
        let mut datagram = datagrams.remove(oldest);
        self.end(&mut datagram, DiscardReason::FragmentTableFull, lost);
        Ok(())
    }

    fn has_room_for(&self, datagrams: &[Datagram], bytes: usize) -> bool {
        let fits = |held: Amount, bound: Amount| {
            held.fragments < bound.fragments && held.bytes + bytes <= bound.bytes
        };
        let of_source =
            datagrams.iter().flat_map(|datagram| &datagram.held).fold(Amount::default(), |sum, held| {
                Amount { fragments: sum.fragments + 1, bytes: sum.bytes + held.bytes.len() }
            });
        fits(of_source, self.bounds.held_per_source) && fits(self.held(), self.bounds.held)
    }

    /// To be called for each datagram that is about to be dropped.
    fn end(&self, datagram: &mut Datagram, reason: DiscardReason, lost: &mut impl FnMut(DiscardReason)) {
        self.lose(datagram, reason, lost);
        self.datagrams.fetch_sub(1, Relaxed);
    }

    fn lose(&self, datagram: &mut Datagram, reason: DiscardReason, lost: &mut impl FnMut(DiscardReason)) {
        self.take(datagram).iter().for_each(|_| lost(reason));
    }

    fn take(&self, datagram: &mut Datagram) -> Vec<Held> {
        let held = std::mem::take(&mut datagram.held);
        self.held.fetch_sub(held.len(), Relaxed);
        self.held_bytes.fetch_sub(held.iter().map(|held| held.bytes.len()).sum(), Relaxed);
        held
    }

    fn shard_of(&self, source: &Source) -> MutexGuard<'_, Shard> {
        self.shard(self.hasher.hash_one(source) as usize % SHARDS)
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fragment overlaps or contradicts another.
struct Contradiction;

impl Datagram {
    fn new(packet: &Packet, fragment: Fragment, now: Time) -> Self {
        Self {
            destination: packet.tuple.destination,
            protocol: packet.tuple.protocol,
            identification: fragment.identification,
            expires: Time(now.0 + LIFETIME_MS),
            parts: Vec::new(),
            covered: 0,
            end: None,
            stage: Stage::Awaited,
            held: Vec::new(),
        }
    }

    fn is_of(&self, packet: &Packet, fragment: Fragment) -> bool {
        self.identification == fragment.identification
            && self.destination == packet.tuple.destination
            && self.protocol == packet.tuple.protocol
    }

    /// Whether every byte of it has come, and its first fragment was decided.
    fn is_complete(&self) -> bool {
        !matches!(self.stage, Stage::Awaited) && self.end.is_some_and(|end| u32::from(end) == self.covered)
    }

    /// Whether this very fragment has come before.
    fn has(&self, fragment: Fragment) -> bool {
        let at = self.parts.partition_point(|part| part.start < fragment.start);
        self.parts.get(at) == Some(&Part { start: fragment.start, end: fragment.end })
            && (self.end == Some(fragment.end)) != fragment.more
    }

    /// Adds a fragment, unless it has come before.
    fn add(&mut self, fragment: Fragment) -> Result<(), Contradiction> {
        let Fragment { start, end, more, .. } = fragment;
        if self.has(fragment) {
            return Ok(());
        }
        let at = self.parts.partition_point(|part| part.start < start);
        let overlaps = at > 0 && self.parts[at - 1].end > start
            || self.parts.get(at).is_some_and(|part| part.start < end);
        let last = self.parts.last().map_or(0, |part| part.end);
        let contradicts = match (more, self.end) {
            (true, known) => known.is_some_and(|known| end >= known),
            (false, Some(known)) => known != end,
            (false, None) => last > end,
        };
        if overlaps || contradicts {
            return Err(Contradiction);
        }
        if !more {
            self.end = Some(end);
        }
        self.covered += u32::from(end - start);
        self.parts.insert(at, Part { start, end });
        Ok(())
    }
}

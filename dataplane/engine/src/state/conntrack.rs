//! Remembers which connections the security groups of an ENI have admitted.
//!
//! AWS tracks at each interface, so the key is the ENI and the connection as the
//! ENI sees it: its own side is always the source, whoever began. Both directions
//! have the same key. What a packet changes is in an [`Activity`];
//! this is the index, in shards with a lock each.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use localvpc_api::EniId;
use localvpc_api::report::{ConnectionState, Initiator};
use localvpc_api::tables::TrackingTimeouts;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::activity::{Activities, Activity, Ref, Timeouts};
use super::allowance::{Allowance, Allowances};
use crate::Time;
use crate::packet::Packet;

/// A connection at an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// The ENI.
    pub eni: EniId,
    /// As the ENI sends it.
    pub outbound: Tuple,
}

impl ConnectionKey {
    /// The connection of a packet with this tuple.
    pub fn new(eni: EniId, tuple: Tuple, direction: Direction) -> Self {
        let outbound = match direction {
            Direction::Outbound => tuple,
            Direction::Inbound => tuple.reversed(),
        };
        Self { eni, outbound }
    }
}

/// A new connection that a packet would make.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection {
    /// Its key.
    pub key: ConnectionKey,
    /// Where the packet goes, seen from the ENI.
    pub direction: Direction,
    /// Idle timeouts of the ENI.
    pub tracking: TrackingTimeouts,
    /// Most connections that the ENI tracks.
    pub max_connections: u32,
}

/// Why a connection was not made: nothing half-open could give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTracked {
    /// The ENI tracks as many as it may (SG-39).
    Allowance,
    /// The table is full.
    Full,
}

/// That a connection was not tracked when somebody looked. It holds until one of the same hash is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    pub(crate) counter: u32,
    pub(crate) made: u32,
}

/// All tracked connections.
#[derive(Debug)]
pub struct Connections {
    shards: Box<[Mutex<Shard>]>,
    /// Connections made so far, by hash of their keys: what an [`Absence`] is compared with.
    made: Box<[AtomicU32]>,
    hasher: RandomState,
    /// Shared with the flow caches' references.
    pub activities: Activities,
    /// What each ENI uses of its allowance.
    pub allowances: Allowances,
}

type Shard = HashMap<ConnectionKey, Tracked, RandomState>;

#[derive(Clone, Copy, Debug)]
struct Tracked {
    activity: Ref,
    initiator: Initiator,
}

/// Enough that two workers rarely wait for each other, and that sweeping one shard is short.
const SHARDS: usize = 256;

/// So many that an absence is rarely doubted because of another connection: each doubt costs a walk.
const ABSENCES: usize = 4096;

/// SG-38: AWS does not publish these; they are close to Linux's.
const TCP_NEW_MS: u32 = 120_000;
const TCP_CLOSING_MS: u32 = 120_000;
const TCP_CLOSED_MS: u32 = 60_000;
const ICMP_MS: u32 = 30_000;
/// SG-30.
const OTHER_MS: u32 = 600_000;

impl Connections {
    /// Room for `capacity` connections.
    pub fn new(capacity: u32) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            made: (0..ABSENCES).map(|_| AtomicU32::default()).collect(),
            hasher: RandomState::default(),
            activities: Activities::new(capacity),
            allowances: Allowances::default(),
        }
    }

    /// The live connection with this key.
    pub fn find(&self, key: &ConnectionKey, now: Time) -> Option<(Ref, &Activity)> {
        let tracked = *self.shard(key).get(key)?;
        Some((tracked.activity, self.activities.live(tracked.activity, now)?))
    }

    /// What to compare later, to know that a connection that is not found now is still absent. To be taken before
    /// [`find`](Self::find).
    pub fn absence(&self, key: &ConnectionKey) -> Absence {
        let counter = self.counter(key);
        Absence { counter: counter as u32, made: self.made[counter].load(Ordering::Acquire) }
    }

    /// Whether no such connection can have been made since.
    #[inline]
    pub fn still_absent(&self, absence: Absence) -> bool {
        self.made[absence.counter as usize].load(Ordering::Acquire) == absence.made
    }

    /// Makes a connection that begins with `packet`. One that is closed or has idled out is replaced; a live one is kept
    /// and counts the packet. Where there is no room, the ENI's oldest half-open connection gives way.
    ///
    /// # Errors
    /// [`NotTracked`].
    pub fn track(&self, new: &NewConnection, packet: &Packet, now: Time) -> Result<Ref, NotTracked> {
        let allowance = self.allowances.of(new.key.eni);
        loop {
            // Its shard is locked within only: the connection that gives way is in another one.
            match self.track_if_room(new, &allowance, packet, now) {
                Ok(activity) => return Ok(activity),
                Err(not) if !self.evict(&allowance) => return Err(not),
                Err(_) => {}
            }
        }
    }

    /// Whether [`track`](Self::track) would find room for it, or make some.
    pub fn has_room(&self, new: &NewConnection, now: Time) -> bool {
        let Some(allowance) = self.allowances.known(new.key.eni) else { return true };
        allowance.tracked() < new.max_connections
            || self.find(&new.key, now).is_some()
            || allowance.has_half_open(|activity| self.is_half_open(activity, now))
    }

    fn track_if_room(
        &self,
        new: &NewConnection,
        allowance: &Allowance,
        packet: &Packet,
        now: Time,
    ) -> Result<Ref, NotTracked> {
        let timeouts = timeouts(new.key.outbound.protocol, &new.tracking);
        let initiator = match new.direction {
            Direction::Outbound => Initiator::Local,
            Direction::Inbound => Initiator::Remote,
        };
        let activity = match self.shard(&new.key).entry(new.key) {
            Entry::Occupied(mut entry) => {
                let activity = self.activities.line(entry.get().activity);
                if activity.expired(now) || super::reopens(packet, activity) {
                    let old = entry.get().activity;
                    let activity = self.activities.restart(old, packet, new.direction, timeouts, now);
                    entry.insert(Tracked { activity, initiator });
                    self.made[self.counter(&new.key)].fetch_add(1, Ordering::Release);
                    activity
                } else {
                    activity.see(packet, new.direction, now);
                    return Ok(entry.get().activity);
                }
            }
            Entry::Vacant(entry) => {
                if !allowance.take(new.max_connections) {
                    return Err(NotTracked::Allowance);
                }
                let Some(activity) = self.activities.start(packet, new.direction, timeouts, now) else {
                    allowance.give_back();
                    return Err(NotTracked::Full);
                };
                entry.insert(Tracked { activity, initiator });
                self.made[self.counter(&new.key)].fetch_add(1, Ordering::Release);
                activity
            }
        };
        if new.key.outbound.protocol == Protocol::TCP {
            allowance.note_half_open(new.key, activity, |activity| self.is_half_open(activity, now));
        }
        Ok(activity)
    }

    /// Ends the oldest half-open connection of an ENI. `false` if it has none.
    fn evict(&self, allowance: &Allowance) -> bool {
        while let Some((key, activity)) = allowance.take_oldest() {
            let mut shard = self.shard(&key);
            let same = shard.get(&key).is_some_and(|tracked| tracked.activity == activity);
            if same && self.activities.line(activity).state() == ConnectionState::New {
                shard.remove(&key);
                self.activities.end(activity);
                allowance.note_eviction();
                return true;
            }
        }
        false
    }

    fn is_half_open(&self, activity: Ref, now: Time) -> bool {
        self.activities.live(activity, now).is_some_and(|line| line.state() == ConnectionState::New)
    }

    /// Takes back what [`track`](Self::track) made, when the rest of the walk's outcome could not be kept.
    pub fn forget(&self, key: &ConnectionKey) {
        if let Some(tracked) = self.shard(key).remove(key) {
            self.end(key.eni, tracked);
        }
    }

    /// Ends what has idled out, and what `gone` says has no ENI any more, in one shard.
    pub fn sweep(&self, shard: usize, now: Time, gone: impl Fn(EniId) -> bool) -> usize {
        let mut ended = 0;
        self.lock(shard % SHARDS).retain(|key, tracked| {
            let keep = !self.activities.line(tracked.activity).expired(now) && !gone(key.eni);
            if !keep {
                self.end(key.eni, *tracked);
                ended += 1;
            }
            keep
        });
        ended
    }

    /// Number of shards that [`sweep`](Self::sweep) takes.
    pub const fn shards(&self) -> usize {
        SHARDS
    }

    /// Calls `each` for every live connection, one shard at a time.
    pub fn for_each(&self, now: Time, mut each: impl FnMut(&ConnectionKey, Initiator, &Activity)) {
        for shard in 0..SHARDS {
            for (key, tracked) in self.lock(shard).iter() {
                if let Some(activity) = self.activities.live(tracked.activity, now) {
                    each(key, tracked.initiator, activity);
                }
            }
        }
    }

    /// Connections in the index.
    pub fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self, eni: EniId, tracked: Tracked) {
        self.activities.end(tracked.activity);
        if let Some(allowance) = self.allowances.known(eni) {
            allowance.give_back();
        }
    }

    fn counter(&self, key: &ConnectionKey) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % ABSENCES
    }

    fn shard(&self, key: &ConnectionKey) -> MutexGuard<'_, Shard> {
        self.lock(self.hasher.hash_one(key) as usize % SHARDS)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timeouts(protocol: Protocol, tracking: &TrackingTimeouts) -> Timeouts {
    let all = |ms| Timeouts { new: ms, established: ms, closing: ms, closed: ms };
    match protocol {
        Protocol::TCP => Timeouts {
            new: TCP_NEW_MS,
            established: saturate(tracking.tcp_established_ms),
            closing: TCP_CLOSING_MS,
            closed: TCP_CLOSED_MS,
        },
        Protocol::UDP => Timeouts { new: saturate(tracking.udp_ms), ..all(saturate(tracking.udp_stream_ms)) },
        Protocol::ICMP | Protocol::ICMPV6 => all(ICMP_MS),
        _ => all(OTHER_MS),
    }
}

/// 2³² ms are 49 days, more than any timer here.
pub(super) fn saturate(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

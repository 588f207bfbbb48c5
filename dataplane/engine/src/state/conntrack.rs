//! Remembers which connections the security groups of an ENI have admitted.
//!
//! AWS tracks at each interface, so the key is the ENI and the connection as the
//! ENI sees it: its own side is always the source, whoever began. Both directions
//! have the same key. What a packet changes is in an [`Activity`], and so is the key;
//! an [`Index`] finds it.

use std::sync::atomic::{AtomicU32, Ordering};

use localvpc_api::EniId;
use localvpc_api::report::{ConnectionState, Initiator};
use localvpc_api::tables::TrackingTimeouts;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::activity::{Activities, Activity, Label, Ref, Timeouts};
use super::allowance::{Allowance, Allowances};
use super::index::Index;
use crate::Time;
use crate::hash::Seed;
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
    index: Index,
    seed: Seed,
    /// Connections made so far, by hash of their keys: what an [`Absence`] is compared with.
    made: Box<[AtomicU32]>,
    /// Shared with the flow caches' references.
    pub activities: Activities,
    /// What each ENI uses of its allowance.
    pub allowances: Allowances,
}

/// What [`Connections::track`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// There was no live connection; now there is.
    New(Ref),
    /// There was one, and it counts the packet, or has begun anew.
    Known(Ref),
}

/// So many that ending what has idled out in one is short.
const PARTS: usize = 256;

/// So many that an absence is rarely doubted because of another connection: each doubt costs a walk.
const ABSENCES: usize = 4096;

/// SG-38: AWS does not publish it; it is close to Linux's. It is that of half-open and half-closed connections.
const TCP_TRANSITORY_MS: u32 = 120_000;
const ICMP_MS: u32 = 30_000;

impl Connections {
    /// Room for `capacity` connections.
    pub fn new(capacity: u32) -> Self {
        Self {
            index: Index::new(capacity),
            seed: Seed::default(),
            made: (0..ABSENCES).map(|_| AtomicU32::default()).collect(),
            activities: Activities::new(capacity),
            allowances: Allowances::default(),
        }
    }

    /// The live connection with this key.
    pub fn find(&self, key: &ConnectionKey, now: Time) -> Option<(Ref, &Activity)> {
        let key = packed(key)?.key();
        let (activity, _) = self.index.find(self.hash(key), |slot| self.activities.with_key(slot, key))?;
        Some((activity, self.activities.live(activity, now)?))
    }

    /// What to compare later, to know that a connection that is not found now is still absent. To be taken before
    /// [`find`](Self::find).
    pub fn absence(&self, key: &ConnectionKey) -> Absence {
        // Of what is never tracked, the absence is sure.
        let counter = packed(key).map_or(0, |label| counter(self.hash(label.key())));
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
    pub fn track(&self, new: &NewConnection, packet: &Packet, now: Time) -> Result<Tracked, NotTracked> {
        // Nothing else is carried yet.
        let label = packed(&new.key).ok_or(NotTracked::Full)?;
        let label = Label { more: label.more | (new.direction as u32) << 8, ..label };
        let allowance = self.allowances.of(new.key.eni);
        loop {
            // Its key is locked within only: the connection that gives way has another one.
            match self.track_if_room(new, label, &allowance, packet, now) {
                Ok(tracked) => return Ok(tracked),
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
        label: Label,
        allowance: &Allowance,
        packet: &Packet,
        now: Time,
    ) -> Result<Tracked, NotTracked> {
        let timeouts = timeouts(new.key.outbound.protocol, &new.tracking);
        let hash = self.hash(label.key());
        let lock = self.index.lock(hash);
        let tracked = match self.index.find(hash, |slot| self.activities.with_key(slot, label.key())) {
            Some((known, _)) => {
                let activity = self.activities.line(known);
                let expired = activity.expired(now);
                if !expired && !super::reopens(packet, activity) {
                    activity.see(packet, new.direction, now);
                    return Ok(Tracked::Known(known));
                }
                let activity = self.activities.restart(known, label, packet, new.direction, timeouts, now);
                if expired { Tracked::New(activity) } else { Tracked::Known(activity) }
            }
            None => {
                if !allowance.take(new.max_connections) {
                    return Err(NotTracked::Allowance);
                }
                let Some(activity) = self.activities.start(label, packet, new.direction, timeouts, now)
                else {
                    allowance.give_back();
                    return Err(NotTracked::Full);
                };
                self.index.insert(hash, activity.slot);
                Tracked::New(activity)
            }
        };
        self.made[counter(hash)].fetch_add(1, Ordering::Release);
        drop(lock);
        if new.key.outbound.protocol == Protocol::TCP {
            allowance.note_half_open(tracked.activity(), |activity| self.is_half_open(activity, now));
        }
        Ok(tracked)
    }

    /// Ends the oldest half-open connection of an ENI. `false` if it has none.
    fn evict(&self, allowance: &Allowance) -> bool {
        while let Some(activity) = allowance.take_oldest() {
            let half_open = |line: &Activity| line.state() == ConnectionState::New;
            if self.end_if(activity, half_open) {
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
    pub fn forget(&self, key: &ConnectionKey, activity: Ref) {
        if self.end_if(activity, |_| true) {
            self.give_back(key.eni);
        }
    }

    /// Ends what has idled out, and what `gone` says has no ENI any more, in one part.
    pub fn sweep(&self, part: usize, now: Time, gone: impl Fn(EniId) -> bool) -> usize {
        let mut ended = 0;
        self.activities.each_of_part(part % PARTS, PARTS, |activity, label, line| {
            let eni = unpacked(&label).eni;
            let gone = gone(eni);
            if (gone || line.expired(now)) && self.end_if(activity, |line| gone || line.expired(now)) {
                self.give_back(eni);
                ended += 1;
            }
        });
        ended
    }

    /// Number of parts that [`sweep`](Self::sweep) takes.
    pub const fn parts(&self) -> usize {
        PARTS
    }

    /// Calls `each` for every live connection.
    pub fn for_each(&self, now: Time, mut each: impl FnMut(&ConnectionKey, Initiator, &Activity)) {
        self.activities.each_of_part(0, 1, |_, label, line| {
            if !line.expired(now) {
                let initiator = match label.more >> 8 {
                    INBOUND => Initiator::Remote,
                    _ => Initiator::Local,
                };
                each(&unpacked(&label), initiator, line);
            }
        });
    }

    /// Connections in the index.
    pub fn len(&self) -> usize {
        self.activities.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a connection, unless that was done meanwhile or `when` no longer holds.
    fn end_if(&self, activity: Ref, when: impl Fn(&Activity) -> bool) -> bool {
        let Some((_, label)) = self.activities.label(activity.slot).filter(|(now, _)| *now == activity)
        else {
            return false;
        };
        let hash = self.hash(label.key());
        let _lock = self.index.lock(hash);
        let ends = self.activities.same(activity).is_some_and(when);
        if ends {
            self.index.remove(hash, activity.slot);
            self.activities.end(activity);
        }
        ends
    }

    fn give_back(&self, eni: EniId) {
        if let Some(allowance) = self.allowances.known(eni) {
            allowance.give_back();
        }
    }

    fn hash(&self, [addresses, ports, protocol]: [u64; 3]) -> u64 {
        self.seed.hash([addresses, ports ^ protocol << 56])
    }
}

impl Tracked {
    /// The connection.
    pub fn activity(self) -> Ref {
        match self {
            Self::New(activity) | Self::Known(activity) => activity,
        }
    }
}

fn counter(hash: u64) -> usize {
    (hash >> 20) as usize % ABSENCES
}

const INBOUND: u32 = Direction::Inbound as u32;

/// Addresses; ports and ENI; protocol, and above it the direction of the first packet. `None` if it is not IPv4: no such packet is carried.
fn packed(key: &ConnectionKey) -> Option<Label> {
    let Tuple { source, destination, source_port, destination_port, protocol } = key.outbound;
    let words =
        [super::addresses(source, destination)?, super::ports(source_port, destination_port, key.eni.0)];
    Some(Label { words, more: protocol.0.into(), extra: 0 })
}

fn unpacked(label: &Label) -> ConnectionKey {
    let (outbound, eni) = super::tuple(label);
    ConnectionKey { eni: EniId(eni), outbound }
}

fn timeouts(protocol: Protocol, tracking: &TrackingTimeouts) -> Timeouts {
    let all = |ms| Timeouts { new: ms, established: ms };
    match protocol {
        Protocol::TCP => {
            Timeouts { new: TCP_TRANSITORY_MS, established: saturate(tracking.tcp_established_ms) }
        }
        Protocol::UDP => {
            Timeouts { new: saturate(tracking.udp_ms), established: saturate(tracking.udp_stream_ms) }
        }
        Protocol::ICMP | Protocol::ICMPV6 => all(ICMP_MS),
        _ => all(saturate(tracking.other_ms)),
    }
}

/// 2³² ms are 49 days, more than any timer here.
pub(super) fn saturate(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

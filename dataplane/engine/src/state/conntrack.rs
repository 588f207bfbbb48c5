//! Remembers which connections the security groups of an ENI have admitted.
//!
//! AWS tracks at each interface, so the key is the ENI and the connection as the
//! ENI sees it: its own side is always the source, whoever began. Both directions
//! have the same key. What a packet changes is in an [`Activity`], and so is the key;
//! an [`Index`] finds it.

use std::sync::Arc;

use localvpc_api::EniId;
use localvpc_api::report::{ConnectionState, Initiator};
use localvpc_api::tables::TrackingTimeouts;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::activity::{Activities, Activity, Label, Ref, Timeouts};
use super::allowance::{Allowance, Allowances};
use super::index::{Absence, Index};
use super::place::Place;
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

/// A new connection that a packet would make.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection {
    /// Where it is found.
    pub place: Place,
    /// Where the packet goes, seen from the ENI.
    pub direction: Direction,
    /// That there was none, not even one that has ended. While it holds, nobody needs to look again.
    pub vacancy: Option<Absence>,
}

/// What an ENI allows its connections.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// Idle timeouts.
    pub tracking: &'a TrackingTimeouts,
    /// Most connections that it tracks.
    pub max_connections: u32,
    /// What it uses of that.
    pub allowance: &'a Allowance,
}

/// What is found in a place.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A connection.
    Live(Ref, &'a Activity),
    /// One that has idled out.
    Ended,
    /// Nothing.
    Nothing,
}

/// Why a connection was not made: nothing half-open could give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTracked {
    /// The ENI tracks as many as it may (SG-39).
    Allowance,
    /// The table is full.
    Full,
}

/// All tracked connections.
#[derive(Debug)]
pub struct Connections {
    index: Index,
    seed: Seed,
    /// Shared with the flow caches' references.
    pub activities: Activities,
    /// What each ENI uses of its allowance.
    allowances: Arc<Allowances>,
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

/// SG-38: AWS does not publish it; it is close to Linux's. It is that of half-open and half-closed connections.
const TCP_TRANSITORY_MS: u32 = 120_000;
const ICMP_MS: u32 = 30_000;

impl Connections {
    /// Room for `capacity` connections, which count in `allowances`.
    pub fn new(capacity: u32, allowances: Arc<Allowances>) -> Self {
        Self {
            index: Index::new(capacity),
            seed: Seed::default(),
            activities: Activities::new(capacity),
            allowances,
        }
    }

    /// Has the kernel give all of its memory now.
    pub fn populate(&mut self) {
        self.index.populate();
        self.activities.populate();
    }

    /// Where the connection of a packet with this tuple is found; `None` if it is not IPv4: no such packet is carried.
    #[inline]
    pub fn place(&self, eni: EniId, tuple: &Tuple, direction: Direction) -> Option<Place> {
        match direction {
            Direction::Outbound => Place::new(tuple, eni.0, self.seed),
            Direction::Inbound => Place::new(&tuple.reversed(), eni.0, self.seed),
        }
    }

    /// What is in a place.
    #[inline]
    pub fn find(&self, place: &Place, now: Time) -> Found<'_> {
        match self.search(place) {
            Some(known) => match self.activities.live(known, now) {
                Some(activity) => Found::Live(known, activity),
                None => Found::Ended,
            },
            None => Found::Nothing,
        }
    }

    /// Has the processor fetch where [`find`](Self::find) begins.
    #[inline]
    pub fn prefetch(&self, place: &Place) {
        self.index.prefetch(place.hash);
    }

    /// Has the processor fetch the records that [`find`](Self::find) compares.
    #[inline]
    pub fn prefetch_records(&self, place: &Place) {
        self.index.foresee(place.hash, |slot| self.activities.prefetch_all(slot));
    }

    /// What to compare later, to know that a connection that is not found now is still absent. To be taken before
    /// [`find`](Self::find).
    #[inline]
    pub fn absence(&self, place: &Place) -> Absence {
        self.index.absence(place.hash)
    }

    /// Whether no such connection can have been made since.
    #[inline]
    pub fn still_absent(&self, absence: Absence) -> bool {
        self.index.still_absent(absence)
    }

    /// What a connection is, if it still is: its ENI, and the tuple as that sends it.
    pub fn key(&self, activity: Ref) -> Option<ConnectionKey> {
        let (_, label) = self.activities.label(activity.slot).filter(|(now, _)| *now == activity)?;
        Some(self.unpacked(&label))
    }

    /// Makes a connection that begins with `packet`. One that is closed or has idled out is replaced; a live one is kept
    /// and counts the packet. Where there is no room, the ENI's oldest half-open connection gives way.
    ///
    /// # Errors
    /// [`NotTracked`].
    pub fn track(
        &self,
        new: &NewConnection,
        allowed: Allowed<'_>,
        packet: &Packet,
        now: Time,
    ) -> Result<Tracked, NotTracked> {
        loop {
            // Its key is locked within only: the connection that gives way has another one.
            match self.track_if_room(new, allowed, packet, now) {
                Ok(tracked) => return Ok(tracked),
                Err(not) if !self.evict(allowed.allowance) => return Err(not),
                Err(_) => {}
            }
        }
    }

    /// Whether [`track`](Self::track) would find room for it, or make some.
    pub fn has_room(&self, new: &NewConnection, allowed: Allowed<'_>, now: Time) -> bool {
        let allowance = allowed.allowance;
        allowance.tracked() < allowed.max_connections
            || matches!(self.find(&new.place, now), Found::Live(..))
            || allowance.has_half_open(|activity| self.is_half_open(activity, now))
    }

    fn track_if_room(
        &self,
        new: &NewConnection,
        allowed: Allowed<'_>,
        packet: &Packet,
        now: Time,
    ) -> Result<Tracked, NotTracked> {
        let allowance = allowed.allowance;
        let timeouts = timeouts(new.place.protocol(), allowed.tracking);
        let label = new.place.label(new.direction as u32, 0);
        let lock = self.index.lock(new.place.hash);
        let known = match new.vacancy {
            Some(vacancy) if self.still_absent(vacancy) => None,
            _ => self.search(&new.place),
        };
        let tracked = match known {
            Some(known) => {
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
                if !allowance.take(allowed.max_connections) {
                    return Err(NotTracked::Allowance);
                }
                let Some(activity) = self.activities.start(label, packet, new.direction, timeouts, now)
                else {
                    allowance.give_back();
                    return Err(NotTracked::Full);
                };
                self.index.insert(new.place.hash, activity.slot);
                Tracked::New(activity)
            }
        };
        lock.note_made();
        drop(lock);
        if new.place.protocol() == Protocol::TCP {
            allowance.note_half_open(tracked.activity(), |activity| self.is_half_open(activity, now));
        }
        Ok(tracked)
    }

    #[inline]
    fn search(&self, place: &Place) -> Option<Ref> {
        self.index.find(place.hash, |slot| Some(self.activities.with_key(slot, place.key())?.0))
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
    pub fn forget(&self, place: &Place, activity: Ref) {
        if self.end_if(activity, |_| true) {
            self.give_back(eni(place));
        }
    }

    /// Ends what has idled out, and what `gone` says has no ENI any more, in one part.
    pub fn sweep(&self, part: usize, now: Time, gone: impl Fn(EniId) -> bool) -> usize {
        let mut ended = 0;
        self.activities.each_of_part(part % PARTS, PARTS, |activity, label, line| {
            let eni = EniId(label.words[1] as u32);
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
                // The direction of its first packet.
                let initiator = match label.more >> 8 {
                    INBOUND => Initiator::Remote,
                    _ => Initiator::Local,
                };
                each(&self.unpacked(&label), initiator, line);
            }
        });
    }

    fn unpacked(&self, label: &Label) -> ConnectionKey {
        let place = Place::of_label(label, self.seed);
        ConnectionKey { eni: eni(&place), outbound: place.tuple() }
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
        let hash = Place::of_label(&label, self.seed).hash;
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
}

impl Tracked {
    /// The connection.
    pub fn activity(self) -> Ref {
        match self {
            Self::New(activity) | Self::Known(activity) => activity,
        }
    }
}

const INBOUND: u32 = Direction::Inbound as u32;

fn eni(place: &Place) -> EniId {
    EniId(place.number())
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

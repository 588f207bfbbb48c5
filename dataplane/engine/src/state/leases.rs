//! Remembers which source port a NAT gateway has given to which connection.
//!
//! A lease is found two ways: by what comes from inside, and by what comes back.
//! Two indexes find the one [`Activity`] that holds both keys. A port is reserved
//! ([`PortReservation`]) before the walk goes on and becomes a lease only when the
//! whole walk says yes; dropped before that, it is free again.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::NatGatewayId;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::activity::{Activities, Activity, Label, Ref, Timeouts};
use super::conntrack::saturate;
use super::index::{Absence, Index};
use super::nat_ports::{Destination, NatPorts, Search};
use super::place::Place;
use crate::Time;
use crate::hash::Seed;
use crate::packet::Packet;

/// A connection as it comes from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InsideKey {
    /// The gateway.
    pub nat_gateway: NatGatewayId,
    /// Before translation. ICMP echo: the identifier as source port, 0 as destination port.
    pub tuple: Tuple,
}

/// A connection as its replies come back to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutsideKey {
    /// Which of the gateway's addresses, which far end, which protocol.
    pub destination: Destination,
    /// The leased port, or ICMP identifier.
    pub port: u16,
}

/// A lease that a packet would make.
#[derive(Clone, Copy, Debug)]
pub struct NewLease {
    /// Where it is found from inside.
    pub place: Place,
    /// That there was none, not even one that has ended. While it holds, nobody needs to look again.
    pub vacancy: Option<Absence>,
}

/// What is found in a place.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A lease, and what it translates to.
    Live(Ref, Translation, &'a Activity),
    /// One that has idled out.
    Ended,
    /// Nothing.
    Nothing,
}

/// What a lease translates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The gateway's private address.
    pub address: IpAddr,
    /// The leased port.
    pub port: u16,
}

/// A port that is taken but not leased yet. Dropping it gives the port back.
#[derive(Debug)]
pub struct PortReservation<'a> {
    ports: &'a NatPorts,
    key: OutsideKey,
    /// Of the key, for [`Leases::lease`]: known here, before anything waits for it.
    hash: u64,
    kept: bool,
}

impl<'a> PortReservation<'a> {
    /// Takes a random free port towards `destination`, if the quota allows (NATGW-12), so that replies come by the queue that packets
    /// from the port `inside` come by.
    pub fn take(leases: &'a Leases, destination: Destination, inside: u16, random: u64) -> Option<Self> {
        let ports = &leases.ports;
        let port = ports.reserve_from(&destination, Search::like(inside, leases.queues, random))?;
        let key = OutsideKey { destination, port };
        // Ports are reserved for IPv4 only, of which everything has a place.
        let hash = outside(&key, leases.seed).map_or(0, |place| place.hash);
        leases.outside.prefetch(hash);
        Some(Self { ports, key, hash, kept: false })
    }

    /// The address and port that were taken.
    pub fn translation(&self) -> Translation {
        Translation { address: self.key.destination.address, port: self.key.port }
    }

    /// How replies will come back.
    pub fn key(&self) -> OutsideKey {
        self.key
    }
}

impl Drop for PortReservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.ports.release(&self.key.destination, self.key.port);
        }
    }
}

/// All NAT leases.
#[derive(Debug)]
pub struct Leases {
    inside: Index,
    outside: Index,
    seed: Seed,
    /// Of each device.
    queues: u32,
    /// Ports in use.
    pub ports: NatPorts,
    /// Shared with the flow caches' references.
    pub activities: Activities,
}

/// Why a lease was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLeased {
    /// Another worker leased a port for the same connection a moment ago: walk again.
    Raced,
    /// The table is full.
    Full,
}

/// So many that ending what has idled out in one is short.
const PARTS: usize = 256;

/// Where the leased port stands in what a label has above the protocol.
const PORT: u32 = 8;

/// NATGW-25: not published. Opening and closing connections are held for RFC 5382's transitory minutes at most; a closed
/// tuple is not reused for a minute (NATGW-14).
const TCP_TRANSITORY_MS: u32 = 240_000;

impl Leases {
    /// Room for `capacity` leases.
    pub fn new(capacity: u32) -> Self {
        Self {
            queues: 1,
            inside: Index::new(capacity),
            outside: Index::new(capacity),
            seed: Seed::default(),
            ports: NatPorts::default(),
            activities: Activities::new(capacity),
        }
    }

    /// Chooses ports for devices with so many queues.
    pub fn choose_for(&mut self, queues: u32) {
        self.queues = queues;
    }

    /// Has the kernel give all of its memory now.
    pub fn populate(&mut self) {
        self.inside.populate();
        self.outside.populate();
        self.activities.populate();
    }

    /// Where the lease of a connection from inside is found. ICMP echo: the identifier as source port, 0 as destination port.
    /// `None` if it is not IPv4: no such packet is carried.
    #[inline]
    pub fn inside(&self, key: &InsideKey) -> Option<Place> {
        Place::new(&key.tuple, key.nat_gateway.0, self.seed)
    }

    /// The lease of a connection from inside.
    pub fn from_inside(&self, place: &Place, now: Time) -> Found<'_> {
        match self.search(place) {
            Some((lease, label)) => match self.activities.live(lease, now) {
                Some(activity) => Found::Live(lease, translation(&label), activity),
                None => Found::Ended,
            },
            None => Found::Nothing,
        }
    }

    /// What to compare later, to know that a lease that is not found now is still absent. To be taken before
    /// [`from_inside`](Self::from_inside).
    #[inline]
    pub fn absence(&self, place: &Place) -> Absence {
        self.inside.absence(place.hash)
    }

    /// Has the processor fetch where [`from_inside`](Self::from_inside) begins.
    #[inline]
    pub fn prefetch_inside(&self, place: &Place) {
        self.inside.prefetch(place.hash);
    }

    /// Has the processor fetch the records that [`from_inside`](Self::from_inside) compares.
    #[inline]
    pub fn prefetch_records(&self, place: &Place) {
        self.inside.foresee(place.hash, |slot| self.activities.prefetch_all(slot));
    }

    /// The live lease that a reply belongs to.
    pub fn from_outside(&self, key: &OutsideKey, now: Time) -> Option<(Ref, Tuple, &Activity)> {
        let place = outside(key, self.seed)?;
        let (activity, label) = self.outside.find(place.hash, |slot| {
            self.activities.label(slot).filter(|(_, label)| outside_words(label) == place.words())
        })?;
        let tuple = Place::of_label(&label, self.seed).tuple();
        Some((activity, tuple, self.activities.live(activity, now)?))
    }

    /// Turns a reservation into a lease that begins with `packet`. `addresses` are those that the gateway has: a lease of
    /// any other is replaced.
    ///
    /// # Errors
    /// [`NotLeased`]; the port is still only reserved.
    pub fn lease(
        &self,
        new: &NewLease,
        reservation: &mut PortReservation<'_>,
        addresses: &[IpAddr],
        idle_timeout_ms: u64,
        packet: &Packet,
        now: Time,
    ) -> Result<Ref, NotLeased> {
        // Nothing else is carried yet.
        let IpAddr::V4(address) = reservation.key.destination.address else { return Err(NotLeased::Full) };
        let label = new.place.label(u32::from(reservation.key.port) << PORT, address.into());
        let lock = self.inside.lock(new.place.hash);
        let known = match new.vacancy {
            Some(vacancy) if self.inside.still_absent(vacancy) => None,
            _ => self.search(&new.place),
        };
        if let Some((old, known)) = known {
            let usable = addresses.contains(&translation(&known).address);
            if usable && !self.activities.line(old).expired(now) {
                return Err(NotLeased::Raced);
            }
            self.end(old, &known);
        }
        let timeouts = timeouts(new.place.protocol(), idle_timeout_ms);
        let activity = self
            .activities
            .start(label, packet, Direction::Outbound, timeouts, now)
            .ok_or(NotLeased::Full)?;
        reservation.kept = true;
        self.inside.insert(new.place.hash, activity.slot);
        // The port is reserved, so nobody else has the same key.
        self.outside.insert(reservation.hash, activity.slot);
        lock.note_made();
        Ok(activity)
    }

    /// Makes the lease of a connection that has closed that of another one on the same tuple, which begins with `packet`.
    /// It keeps its port. `None` if another worker was faster: walk again.
    pub fn reopen(
        &self,
        place: &Place,
        closed: Ref,
        idle_timeout_ms: u64,
        packet: &Packet,
        now: Time,
    ) -> Option<Ref> {
        let _lock = self.inside.lock(place.hash);
        let line = self.activities.live(closed, now)?;
        if !super::reopens(packet, line) {
            return None;
        }
        let (_, label) = self.activities.label(closed.slot)?;
        // The first reply is looked for there soon.
        self.outside.prefetch(self.outside_hash(&label));
        let timeouts = timeouts(place.protocol(), idle_timeout_ms);
        Some(self.activities.restart(closed, label, packet, Direction::Outbound, timeouts, now))
    }

    #[inline]
    fn search(&self, place: &Place) -> Option<(Ref, Label)> {
        self.inside.find(place.hash, |slot| self.activities.with_key(slot, place.key()))
    }

    /// Takes back what [`lease`](Self::lease) made, when the rest of the walk's outcome could not be kept.
    pub fn forget(&self, activity: Ref) {
        self.end_if(activity, |_| true);
    }

    /// Ends what has idled out, and what `gone` says has no gateway or no address there any more, in one part; calls
    /// `idled` for each of the former.
    pub fn sweep(
        &self,
        part: usize,
        now: Time,
        gone: impl Fn(NatGatewayId, IpAddr) -> bool,
        mut idled: impl FnMut(NatGatewayId),
    ) -> usize {
        let mut ended = 0;
        self.activities.each_of_part(part % PARTS, PARTS, |activity, label, line| {
            let nat_gateway = NatGatewayId(label.words[1] as u32);
            let gone = gone(nat_gateway, translation(&label).address);
            let expired = line.expired(now);
            let closed = line.state() == localvpc_api::report::ConnectionState::Closed;
            if (gone || expired) && self.end_if(activity, |line| gone || line.expired(now)) {
                if expired && !closed {
                    idled(nat_gateway);
                }
                ended += 1;
            }
        });
        ended
    }

    /// Calls `each` for every live lease.
    pub fn for_each(&self, now: Time, mut each: impl FnMut(&InsideKey, Translation, &Activity)) {
        self.activities.each_of_part(0, 1, |_, label, line| {
            if !line.expired(now) {
                each(&self.unpacked(&label), translation(&label), line);
            }
        });
    }

    /// Leases in the index.
    pub fn len(&self) -> usize {
        self.activities.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a lease, unless that was done meanwhile or `when` no longer holds.
    fn end_if(&self, activity: Ref, when: impl Fn(&Activity) -> bool) -> bool {
        let Some((_, label)) = self.activities.label(activity.slot).filter(|(now, _)| *now == activity)
        else {
            return false;
        };
        let _lock = self.inside.lock(Place::of_label(&label, self.seed).hash);
        let ends = self.activities.same(activity).is_some_and(when);
        if ends {
            self.end(activity, &label);
        }
        ends
    }

    /// The caller holds the lock of its inside key. The port is free last: so nobody finds two leases by it.
    fn end(&self, activity: Ref, label: &Label) {
        self.inside.remove(Place::of_label(label, self.seed).hash, activity.slot);
        self.outside.remove(self.outside_hash(label), activity.slot);
        self.activities.end(activity);
        let OutsideKey { destination, port } = self.outer(label);
        self.ports.release(&destination, port);
    }

    /// How the replies of a lease come back, if it still is.
    pub fn outside_key(&self, activity: Ref) -> Option<OutsideKey> {
        let (_, label) = self.activities.label(activity.slot).filter(|(now, _)| *now == activity)?;
        Some(self.outer(&label))
    }

    fn outer(&self, label: &Label) -> OutsideKey {
        let Translation { address, port } = translation(label);
        let InsideKey { nat_gateway, tuple } = self.unpacked(label);
        let destination = Destination {
            nat_gateway,
            address,
            remote: tuple.destination,
            remote_port: tuple.destination_port,
            protocol: tuple.protocol,
        };
        OutsideKey { destination, port }
    }

    fn unpacked(&self, label: &Label) -> InsideKey {
        let place = Place::of_label(label, self.seed);
        InsideKey { nat_gateway: NatGatewayId(place.number()), tuple: place.tuple() }
    }

    fn outside_hash(&self, label: &Label) -> u64 {
        let (words, protocol) = outside_words(label);
        Place::of(words, protocol, self.seed).hash
    }
}

fn timeouts(protocol: Protocol, idle_timeout_ms: u64) -> Timeouts {
    let idle = saturate(idle_timeout_ms);
    let new = if protocol == Protocol::TCP { idle.min(TCP_TRANSITORY_MS) } else { idle };
    Timeouts { new, established: idle }
}

fn translation(label: &Label) -> Translation {
    // `lease` has put the port behind the protocol, and the gateway's address behind that.
    Translation { address: Ipv4Addr::from(label.extra).into(), port: (label.more >> 8 >> PORT) as u16 }
}

/// Where a reply's lease is found: as if the gateway's address and port were its source.
fn outside(key: &OutsideKey, seed: Seed) -> Option<Place> {
    let Destination { nat_gateway, address, remote, remote_port, protocol } = key.destination;
    let tuple = Tuple {
        source: address,
        destination: remote,
        source_port: key.port,
        destination_port: remote_port,
        protocol,
    };
    Place::new(&tuple, nat_gateway.0, seed)
}

/// The same of a lease.
fn outside_words(label: &Label) -> ([u64; 2], u32) {
    let [addresses, ports] = label.words;
    let outer = u64::from(label.extra) << 32 | addresses & 0xFFFF_FFFF;
    ([outer, u64::from(label.more >> 8 >> PORT) << 48 | ports & !(0xFFFF << 48)], label.more & 0xFF)
}

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
use super::index::Index;
use super::nat_ports::{Destination, NatPorts};
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
    kept: bool,
}

impl<'a> PortReservation<'a> {
    /// Takes a random free port towards `destination`, if the quota allows (NATGW-12).
    pub fn take(ports: &'a NatPorts, destination: Destination, random: u64) -> Option<Self> {
        let port = ports.reserve(&destination, random)?;
        Some(Self { ports, key: OutsideKey { destination, port }, kept: false })
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

/// NATGW-25: not published. Opening and closing connections are held for RFC 5382's transitory minutes at most; a closed
/// tuple is not reused for a minute (NATGW-14).
const TCP_TRANSITORY_MS: u32 = 240_000;

impl Leases {
    /// Room for `capacity` leases.
    pub fn new(capacity: u32) -> Self {
        Self {
            inside: Index::new(capacity),
            outside: Index::new(capacity),
            seed: Seed::default(),
            ports: NatPorts::default(),
            activities: Activities::new(capacity),
        }
    }

    /// The live lease of a connection from inside.
    pub fn from_inside(&self, key: &InsideKey, now: Time) -> Option<(Ref, Translation, &Activity)> {
        let key = inside_key(key)?;
        let (activity, label) =
            self.inside.find(self.hash(key), |slot| self.activities.with_key(slot, key))?;
        Some((activity, translation(&label), self.activities.live(activity, now)?))
    }

    /// The live lease that a reply belongs to.
    pub fn from_outside(&self, key: &OutsideKey, now: Time) -> Option<(Ref, Tuple, &Activity)> {
        let key = outside_key(key)?;
        let (activity, label) = self.outside.find(self.hash(key), |slot| {
            self.activities.label(slot).filter(|(_, label)| outside_key_of(label) == key)
        })?;
        Some((activity, unpacked(&label).tuple, self.activities.live(activity, now)?))
    }

    /// Turns a reservation into a lease that begins with `packet`. `addresses` are those that the gateway has: a lease of
    /// any other is replaced.
    ///
    /// # Errors
    /// [`NotLeased`]; the port is free again.
    pub fn lease(
        &self,
        key: InsideKey,
        mut reservation: PortReservation<'_>,
        addresses: &[IpAddr],
        idle_timeout_ms: u64,
        packet: &Packet,
        now: Time,
    ) -> Result<Ref, NotLeased> {
        let idle = saturate(idle_timeout_ms);
        let timeouts = Timeouts {
            new: if key.tuple.protocol == Protocol::TCP { idle.min(TCP_TRANSITORY_MS) } else { idle },
            established: idle,
        };
        // Nothing else is carried yet.
        let label = packed(&key, &reservation.key()).ok_or(NotLeased::Full)?;
        let hash = self.hash(label.key());
        let _lock = self.inside.lock(hash);
        if let Some((old, known)) = self.inside.find(hash, |slot| self.activities.with_key(slot, label.key()))
        {
            let activity = self.activities.line(old);
            let usable = addresses.contains(&translation(&known).address);
            if usable && !activity.expired(now) && !super::reopens(packet, activity) {
                return Err(NotLeased::Raced);
            }
            self.end(old, &known);
        }
        let activity = self
            .activities
            .start(label, packet, Direction::Outbound, timeouts, now)
            .ok_or(NotLeased::Full)?;
        reservation.kept = true;
        self.inside.insert(hash, activity.slot);
        // The port is reserved, so nobody else has the same key.
        self.outside.insert(self.hash(outside_key_of(&label)), activity.slot);
        Ok(activity)
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
            let nat_gateway = unpacked(&label).nat_gateway;
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
                each(&unpacked(&label), translation(&label), line);
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
        let _lock = self.inside.lock(self.hash(label.key()));
        let ends = self.activities.same(activity).is_some_and(when);
        if ends {
            self.end(activity, &label);
        }
        ends
    }

    /// The caller holds the lock of its inside key. The port is free last: so nobody finds two leases by it.
    fn end(&self, activity: Ref, label: &Label) {
        self.inside.remove(self.hash(label.key()), activity.slot);
        self.outside.remove(self.hash(outside_key_of(label)), activity.slot);
        self.activities.end(activity);
        let Translation { address, port } = translation(label);
        let InsideKey { nat_gateway, tuple } = unpacked(label);
        let destination = Destination {
            nat_gateway,
            address,
            remote: tuple.destination,
            remote_port: tuple.destination_port,
            protocol: tuple.protocol,
        };
        self.ports.release(&destination, port);
    }

    fn hash(&self, [addresses, ports, rest]: [u64; 3]) -> u64 {
        self.seed.hash([addresses ^ rest.rotate_left(32), ports ^ rest << 56])
    }
}

/// The inside connection's addresses; its ports and the gateway; protocol and leased port; the gateway's address.
fn packed(inside: &InsideKey, outside: &OutsideKey) -> Option<Label> {
    let [addresses, ports, protocol] = inside_key(inside)?;
    let IpAddr::V4(address) = outside.destination.address else { return None };
    let more = protocol as u32 | u32::from(outside.port) << 16;
    Some(Label { words: [addresses, ports], more, extra: address.into() })
}

fn unpacked(label: &Label) -> InsideKey {
    let (tuple, nat_gateway) = super::tuple(label);
    InsideKey { nat_gateway: NatGatewayId(nat_gateway), tuple }
}

fn translation(label: &Label) -> Translation {
    Translation { address: Ipv4Addr::from(label.extra).into(), port: (label.more >> 16) as u16 }
}

/// `None` if it is not IPv4: no such packet is carried.
fn inside_key(key: &InsideKey) -> Option<[u64; 3]> {
    let Tuple { source, destination, source_port, destination_port, protocol } = key.tuple;
    let ports = super::ports(source_port, destination_port, key.nat_gateway.0);
    Some([super::addresses(source, destination)?, ports, protocol.0.into()])
}

fn outside_key(key: &OutsideKey) -> Option<[u64; 3]> {
    let Destination { nat_gateway, address, remote, remote_port, protocol } = key.destination;
    let ports = super::ports(key.port, remote_port, nat_gateway.0);
    Some([super::addresses(address, remote)?, ports, protocol.0.into()])
}

/// The [`outside_key`] of a lease.
fn outside_key_of(label: &Label) -> [u64; 3] {
    let [addresses, ports] = label.words;
    let outer = u64::from(label.extra) << 32 | addresses & 0xFFFF_FFFF;
    [outer, u64::from(label.more >> 16) << 48 | ports & !(0xFFFF << 48), u64::from(label.more & 0xFF)]
}

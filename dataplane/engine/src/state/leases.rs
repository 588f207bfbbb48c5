//! Remembers which source port a NAT gateway has given to which connection.
//!
//! A lease is found two ways: by what comes from inside, and by what comes back.
//! The two indexes refer to one [`Activity`]. A port is reserved
//! ([`PortReservation`]) before the walk goes on and becomes a lease only when the
//! whole walk says yes; dropped before that, it is free again.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::NatGatewayId;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::activity::{Activities, Activity, Ref, Timeouts};
use super::conntrack::saturate;
use super::nat_ports::{Destination, NatPorts};
use crate::Time;
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
    inside: Sharded<InsideKey, (Ref, OutsideKey)>,
    outside: Sharded<OutsideKey, (Ref, InsideKey)>,
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

const SHARDS: usize = 256;

/// NATGW-25: not published. Opening and closing connections are held for RFC 5382's transitory minutes at most; a closed
/// tuple is not reused for a minute (NATGW-14).
const TCP_TRANSITORY_MS: u32 = 240_000;
const TCP_CLOSED_MS: u32 = 60_000;

impl Leases {
    /// Room for `capacity` leases.
    pub fn new(capacity: u32) -> Self {
        Self {
            inside: Sharded::default(),
            outside: Sharded::default(),
            ports: NatPorts::default(),
            activities: Activities::new(capacity),
        }
    }

    /// The live lease of a connection from inside.
    pub fn from_inside(&self, key: &InsideKey, now: Time) -> Option<(Ref, Translation, &Activity)> {
        let (activity, outside) = *self.inside.lock(key).get(key)?;
        let translation = Translation { address: outside.destination.address, port: outside.port };
        Some((activity, translation, self.activities.live(activity, now)?))
    }

    /// The live lease that a reply belongs to.
    pub fn from_outside(&self, key: &OutsideKey, now: Time) -> Option<(Ref, Tuple, &Activity)> {
        let (activity, inside) = *self.outside.lock(key).get(key)?;
        Some((activity, inside.tuple, self.activities.live(activity, now)?))
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
            closing: idle.min(TCP_TRANSITORY_MS),
            closed: idle.min(TCP_CLOSED_MS),
        };
        let mut inside = self.inside.lock(&key);
        if let Some((old, outside)) = inside.get(&key).copied() {
            let activity = self.activities.line(old);
            let usable = addresses.contains(&outside.destination.address);
            if usable && !activity.expired(now) && !super::reopens(packet, activity) {
                return Err(NotLeased::Raced);
            }
            inside.remove(&key);
            self.release(old, outside);
        }
        let outside = reservation.key();
        let activity =
            self.activities.start(packet, Direction::Outbound, timeouts, now).ok_or(NotLeased::Full)?;
        reservation.kept = true;
        inside.insert(key, (activity, outside));
        self.outside.lock(&outside).insert(outside, (activity, key));
        Ok(activity)
    }

    /// Takes back what [`lease`](Self::lease) made, when the rest of the walk's outcome could not be kept.
    pub fn forget(&self, key: &InsideKey) {
        let mut inside = self.inside.lock(key);
        if let Some((activity, outside)) = inside.remove(key) {
            self.release(activity, outside);
        }
    }

    /// Ends what has idled out, and what `gone` says has no gateway or no address there any more, in one shard; calls
    /// `idled` for each of the former.
    pub fn sweep(
        &self,
        shard: usize,
        now: Time,
        gone: impl Fn(NatGatewayId, IpAddr) -> bool,
        mut idled: impl FnMut(NatGatewayId),
    ) -> usize {
        let mut ended = 0;
        self.inside.shard(shard % SHARDS).retain(|key, (activity, outside)| {
            let line = self.activities.line(*activity);
            let expired = line.expired(now);
            if expired && line.state() != localvpc_api::report::ConnectionState::Closed {
                idled(key.nat_gateway);
            }
            let keep = !expired && !gone(key.nat_gateway, outside.destination.address);
            if !keep {
                self.release(*activity, *outside);
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

    /// Calls `each` for every live lease, one shard at a time.
    pub fn for_each(&self, now: Time, mut each: impl FnMut(&InsideKey, Translation, &Activity)) {
        for shard in 0..SHARDS {
            for (key, (activity, outside)) in self.inside.shard(shard).iter() {
                if let Some(activity) = self.activities.live(*activity, now) {
                    each(
                        key,
                        Translation { address: outside.destination.address, port: outside.port },
                        activity,
                    );
                }
            }
        }
    }

    /// Leases in the index.
    pub fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.inside.shard(shard).len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lock order: an inside shard may be held, the outside shard is taken here.
    fn release(&self, activity: Ref, outside: OutsideKey) {
        self.outside.lock(&outside).remove(&outside);
        self.ports.release(&outside.destination, outside.port);
        self.activities.end(activity);
    }
}

/// A map in shards with a lock each.
#[derive(Debug)]
struct Sharded<K, V> {
    shards: Box<[Mutex<HashMap<K, V, RandomState>>]>,
    hasher: RandomState,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    fn lock(&self, key: &K) -> MutexGuard<'_, HashMap<K, V, RandomState>> {
        self.shard(self.hasher.hash_one(key) as usize % SHARDS)
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, HashMap<K, V, RandomState>> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Counts what happens to packets, per ENI, per NAT gateway and in all.
//!
//! Every counter has one slot per worker, and only that worker writes to it: a
//! count is a plain load and store. Readers add the slots up. Counters are kept
//! by id outside of the tables, so that a push does not reset them.

mod peaks;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::report::{Discards, Traffic};
use localvpc_api::trace::Direction;
use localvpc_api::{DiscardReason, EniId, NatGatewayId};

use crate::Time;
use crate::state::allowance::Allowances;
use peaks::Peaks;

/// Most workers a dataplane runs.
pub const MAX_WORKERS: usize = 16;

/// The slot of the one thread that ends what has idled out.
pub const HOUSEKEEPER: usize = MAX_WORKERS;

/// A number that one worker per slot adds to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only one thread may add to a counter.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct TrafficCounter {
    packets: Counter,
    bytes: Counter,
}

impl TrafficCounter {
    /// Adds a packet, or the segments of a super-packet.
    #[inline]
    pub fn add(&self, segments: u16, bytes: u32) {
        self.add_sum(segments.into(), bytes.into());
    }

    /// Adds several packets.
    #[inline]
    pub fn add_sum(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }

    fn value(&self) -> Traffic {
        Traffic { packets: self.packets.value(), bytes: self.bytes.value() }
    }
}

/// Discards by reason.
#[derive(Debug)]
pub struct DiscardCounters([Counter; DiscardReason::COUNT]);

impl Default for DiscardCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl DiscardCounters {
    /// Adds packets that were discarded.
    pub fn add(&self, reason: DiscardReason, packets: u16) {
        self.0[reason as usize].add(u64::from(packets));
    }

    fn add_to(&self, sums: &mut [u64; DiscardReason::COUNT]) {
        for (sum, counter) in sums.iter_mut().zip(&self.0) {
            *sum += counter.value();
        }
    }
}

/// One worker's counters of an ENI.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EniSlot {
    /// Delivered to it.
    pub received: TrafficCounter,
    /// Sent by it and forwarded.
    pub sent: TrafficCounter,
    /// Discarded on the way from or to it.
    pub discards: DiscardCounters,
}

/// Counters of an ENI.
#[derive(Debug, Default)]
pub struct EniMetrics(PerWorker<EniSlot>);

/// One worker's counters of a NAT gateway.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct NatGatewaySlot {
    /// From inside to a destination.
    pub out_to_destination: TrafficCounter,
    /// From a destination to inside.
    pub out_to_source: TrafficCounter,
    /// Packets it discarded, by direction: what arrived and did not leave.
    pub refused: [TrafficCounter; 2],
    /// New leases of TCP connections.
    pub connection_attempts: Counter,
    /// TCP handshakes completed.
    pub connections_established: Counter,
    /// Packets without a source port.
    pub error_port_allocation: Counter,
}

impl NatGatewaySlot {
    /// What is forwarded in a direction: outbound is from inside.
    pub fn traffic(&self, direction: Direction) -> &TrafficCounter {
        match direction {
            Direction::Outbound => &self.out_to_destination,
            Direction::Inbound => &self.out_to_source,
        }
    }
}

/// Counters of a NAT gateway.
#[derive(Debug, Default)]
pub struct NatGatewayMetrics {
    slots: PerWorker<NatGatewaySlot>,
    /// Leases that ended by idling; expiry may run on any thread.
    pub idle_timeouts: AtomicU64,
    peaks: Mutex<Peaks>,
}

/// A slot per worker, and one for the housekeeper.
#[derive(Debug)]
struct PerWorker<T>(Box<[T]>);

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self((0..=HOUSEKEEPER).map(|_| T::default()).collect())
    }
}

impl EniMetrics {
    /// The slot of a worker.
    #[inline]
    pub fn slot(&self, worker: usize) -> &EniSlot {
        &self.0.0[worker]
    }

    /// Delivered to the ENI, by all workers.
    pub fn received(&self) -> Traffic {
        sum(self.0.0.iter().map(|slot| slot.received.value()))
    }

    /// Sent by the ENI, by all workers.
    pub fn sent(&self) -> Traffic {
        sum(self.0.0.iter().map(|slot| slot.sent.value()))
    }

    /// Discards by reason, by all workers; reasons that did not occur are left out.
    pub fn discards(&self) -> Vec<Discards> {
        discards(self.0.0.iter().map(|slot| &slot.discards))
    }
}

impl NatGatewayMetrics {
    /// The slot of a worker.
    #[inline]
    pub fn slot(&self, worker: usize) -> &NatGatewaySlot {
        &self.slots.0[worker]
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = &NatGatewaySlot> {
        self.slots.0.iter()
    }

    /// From inside to a destination, by all workers.
    pub fn out_to_destination(&self) -> Traffic {
        sum(self.slots().map(|slot| slot.out_to_destination.value()))
    }

    /// From a destination to inside, by all workers.
    pub fn out_to_source(&self) -> Traffic {
        sum(self.slots().map(|slot| slot.out_to_source.value()))
    }

    /// What it discarded on its way in a direction, by all workers; outbound is from inside.
    pub fn refused(&self, direction: Direction) -> Traffic {
        sum(self.slots().map(|slot| slot.refused[direction as usize].value()))
    }

    /// Notes for [`peaks`](Self::peaks) what was carried until now. To be called every second or so.
    pub fn sample(&self, now: Time) {
        self.lock_peaks().sample(self.carried(), now);
    }

    /// The highest packets and bytes per second, over ten seconds, of the last minute.
    pub fn peaks(&self, now: Time) -> Traffic {
        self.lock_peaks().highest(self.carried(), now)
    }

    fn carried(&self) -> Traffic {
        sum([self.out_to_destination(), self.out_to_source()].into_iter())
    }

    fn lock_peaks(&self) -> MutexGuard<'_, Peaks> {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All counters, by id.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Every discard, whether or not an ENI is known for it.
    discards: PerWorker<DiscardCounters>,
    enis: Mutex<HashMap<EniId, Arc<EniMetrics>, RandomState>>,
    nat_gateways: Mutex<HashMap<NatGatewayId, Arc<NatGatewayMetrics>, RandomState>>,
    /// What each ENI uses of its allowance.
    pub allowances: Arc<Allowances>,
}

impl Metrics {
    /// The counters of an ENI, made on first use.
    pub fn eni(&self, id: EniId) -> Arc<EniMetrics> {
        self.enis.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    /// The counters of a NAT gateway, made on first use.
    pub fn nat_gateway(&self, id: NatGatewayId) -> Arc<NatGatewayMetrics> {
        self.nat_gateways.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    /// A worker's discards.
    #[inline]
    pub fn discards(&self, worker: usize) -> &DiscardCounters {
        &self.discards.0[worker]
    }

    /// All discards; reasons that did not occur are left out.
    pub fn all_discards(&self) -> Vec<Discards> {
        discards(self.discards.0.iter())
    }

    /// Forgets what the tables no longer have.
    pub fn retain(&self, eni: impl Fn(EniId) -> bool, nat_gateway: impl Fn(NatGatewayId) -> bool) {
        self.enis.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| eni(*id));
        self.nat_gateways.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| nat_gateway(*id));
    }
}

fn sum(parts: impl Iterator<Item = Traffic>) -> Traffic {
    parts.fold(Traffic::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

fn discards<'a>(parts: impl Iterator<Item = &'a DiscardCounters>) -> Vec<Discards> {
    let mut sums = [0; DiscardReason::COUNT];
    for part in parts {
        part.add_to(&mut sums);
    }
    DiscardReason::ALL
        .iter()
        .zip(sums)
        .filter(|(_, packets)| *packets > 0)
        .map(|(&reason, packets)| Discards { reason, packets })
        .collect()
}

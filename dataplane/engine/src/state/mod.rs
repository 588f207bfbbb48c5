//! What outlives packets and pushes: connections, NAT leases, counters.
//!
//! This is the truth; the flow caches of the workers only stand in for it.

pub mod activity;
pub mod allowance;
pub mod conntrack;
pub mod fragments;
pub mod identification;
pub mod index;
pub mod leases;
pub mod lock;
pub mod nat_ports;
pub mod place;
pub mod tcp;

use localvpc_api::DiscardReason;
use localvpc_api::report::ConnectionState;

use crate::Time;
use crate::metrics::{HOUSEKEEPER, Metrics};
use crate::packet::{Kind, Packet};
use crate::tables::Tables;

/// How much a dataplane remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tracked connections, over all ENIs.
    pub connections: u32,
    /// NAT leases, over all gateways.
    pub leases: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1 << 19, leases: 1 << 19 }
    }
}

/// Shared by all workers.
#[derive(Debug)]
pub struct State {
    /// What security groups have admitted.
    pub connections: conntrack::Connections,
    /// What NAT gateways have translated.
    pub leases: leases::Leases,
    /// What became of first fragments.
    pub fragments: fragments::Fragments,
    /// Numbers for what leaves NAT gateways.
    pub identifications: identification::Identifications,
    /// What was counted.
    pub metrics: Metrics,
}

impl State {
    /// Nothing remembered yet, room for `limits`.
    pub fn new(limits: Limits) -> Self {
        let metrics = Metrics::default();
        Self {
            connections: conntrack::Connections::new(limits.connections, metrics.allowances.clone()),
            leases: leases::Leases::new(limits.leases),
            fragments: fragments::Fragments::new(fragments::Bounds::default()),
            identifications: identification::Identifications::default(),
            metrics,
        }
    }

    /// For devices with so many queues, one for each worker ([`localvpc_api::steering`]).
    #[must_use]
    pub fn with_queues(mut self, queues: u32) -> Self {
        self.leases.choose_for(queues);
        self
    }

    /// Has the kernel give the memory of all connections and leases now, so that the first packets do not wait for it: 275 bytes for each
    /// of one and the other.
    pub fn populate(&mut self) {
        self.connections.populate();
        self.leases.populate();
    }

    /// Ends what has idled out in one part of the state, numbered from 0 and taken modulo [`parts`](Self::parts);
    /// returns how much ended.
    ///
    /// Each call holds a lock only while one connection ends: call it for one part after the other, for all of them every second or so,
    /// from one thread at a time: it counts in the slot of the [`HOUSEKEEPER`].
    pub fn expire(&self, tables: &Tables, part: usize, now: Time) -> usize {
        if part.is_multiple_of(self.parts()) {
            self.metrics.allowances.retain(|eni| tables.has_eni(eni));
            for gateway in &tables.nat_gateways {
                gateway.metrics.sample(now);
            }
        }
        let connections = self.connections.sweep(part, now, |eni| !tables.has_eni(eni));
        let leases = self.leases.sweep(
            part,
            now,
            |nat_gateway, address| !tables.has_nat_address(nat_gateway, address),
            |nat_gateway| {
                let metrics = self.metrics.nat_gateway(nat_gateway);
                metrics.idle_timeouts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            },
        );
        let fragments = self.fragments.sweep(part, now, |source| {
            let reason = DiscardReason::FragmentTimeout;
            self.metrics.discards(HOUSEKEEPER).add(reason, 1);
            let link = tables.links.get(&source.link);
            if let Some(eni) = link.and_then(|link| tables.sender(link, source.address)) {
                tables.eni(eni).metrics.slot(HOUSEKEEPER).discards.add(reason, 1);
            }
        });
        connections + leases + fragments
    }

    /// Number of parts that [`expire`](Self::expire) takes.
    pub const fn parts(&self) -> usize {
        self.connections.parts()
    }
}

/// Whether `packet` begins a new connection on the tuple of a closed one.
pub fn reopens(packet: &Packet, activity: &activity::Activity) -> bool {
    matches!(&packet.kind, Kind::Tcp(facts) if facts.begins_connection())
        && activity.state() == ConnectionState::Closed
}

//! Shows counters, connections and leases in the form of the contract.

use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::report::{
    Connection, ConnectionState, Discards, EniCounters, Lease, NatGatewayCounters, Traffic,
};
use localvpc_api::trace::{Direction, Protocol, Tuple};
use localvpc_api::{DiscardReason, NatGatewayId};

use crate::Time;
use crate::metrics::NatGatewayMetrics;
use crate::state::State;
use crate::tables::Tables;

/// Counters of every ENI in the tables.
pub fn enis(tables: &Tables) -> Vec<EniCounters> {
    let of = |eni: &crate::tables::Eni| {
        let discards = eni.metrics.discards();
        let exceeded = discards.iter().find(|row| row.reason == DiscardReason::ConnectionAllowanceExceeded);
        EniCounters {
            eni: eni.id,
            received: eni.metrics.received(),
            sent: eni.metrics.sent(),
            conntrack_allowance_available: eni.max_connections.saturating_sub(eni.allowance.tracked()).into(),
            conntrack_allowance_exceeded: exceeded.map_or(0, |row| row.packets),
            conntrack_half_open_evicted: eni.allowance.evicted(),
            discards,
        }
    };
    tables.enis.iter().map(of).collect()
}

/// Counters of every NAT gateway in the tables.
pub fn nat_gateways(tables: &Tables, state: &State, now: Time) -> Vec<NatGatewayCounters> {
    let mut live: HashMap<NatGatewayId, (u64, u64), RandomState> = HashMap::default();
    state.leases.for_each(now, |key, _, activity| {
        let (leases, active) = live.entry(key.nat_gateway).or_default();
        *leases += 1;
        let open = activity.state() != ConnectionState::Closed;
        *active += u64::from(open && key.tuple.protocol == Protocol::TCP);
    });
    tables
        .nat_gateways
        .iter()
        .map(|gateway| {
            let metrics = &gateway.metrics;
            let sum = |part: fn(&crate::metrics::NatGatewaySlot) -> u64| metrics.slots().map(part).sum();
            let (leases, active_connections) = live.get(&gateway.id).copied().unwrap_or_default();
            let plus = |mut left: Traffic, refused: Traffic| {
                left += refused;
                left
            };
            let (to_destination, to_source) = (metrics.out_to_destination(), metrics.out_to_source());
            let refused = [Direction::Outbound, Direction::Inbound].map(|way| metrics.refused(way));
            let peaks = metrics.peaks(now);
            NatGatewayCounters {
                nat_gateway: gateway.id,
                leases,
                active_connections,
                connections_established: sum(|slot| slot.connections_established.value()),
                connection_attempts: sum(|slot| slot.connection_attempts.value()),
                error_port_allocation: sum(|slot| slot.error_port_allocation.value()),
                idle_timeouts: idle_timeouts(metrics),
                in_from_source: plus(to_destination, refused[0]),
                out_to_destination: to_destination,
                in_from_destination: plus(to_source, refused[1]),
                out_to_source: to_source,
                packets_dropped: refused.iter().map(|refused| refused.packets).sum(),
                peak_bytes_per_second: peaks.bytes,
                peak_packets_per_second: peaks.packets,
            }
        })
        .collect()
}

/// All discards by reason.
pub fn discards(state: &State) -> Vec<Discards> {
    state.metrics.all_discards()
}

/// Every tracked connection, by ENI and tuple.
pub fn connections(state: &State, now: Time) -> Vec<Connection> {
    let mut connections = Vec::new();
    state.connections.for_each(now, |key, initiator, activity| {
        connections.push(Connection {
            eni: key.eni,
            outbound: key.outbound,
            initiator,
            state: activity.state(),
            idle_ms: activity.idle_ms(now),
            timeout_ms: activity.timeout_ms(),
            sent: activity.traffic(Direction::Outbound),
            received: activity.traffic(Direction::Inbound),
        });
    });
    connections.sort_by_key(|connection| (connection.eni, order(&connection.outbound)));
    connections
}

/// Every NAT lease, by gateway, destination and port.
pub fn leases(state: &State, now: Time) -> Vec<Lease> {
    let mut leases = Vec::new();
    state.leases.for_each(now, |key, translation, activity| {
        leases.push(Lease {
            nat_gateway: key.nat_gateway,
            inside: key.tuple,
            address: translation.address,
            port: translation.port,
            protocol: key.tuple.protocol,
            state: activity.state(),
            idle_ms: activity.idle_ms(now),
            timeout_ms: activity.timeout_ms(),
            out: activity.traffic(Direction::Outbound),
            back: activity.traffic(Direction::Inbound),
        });
    });
    leases.sort_by_key(|lease| (lease.nat_gateway, order(&lease.inside), lease.port));
    leases
}

fn idle_timeouts(metrics: &NatGatewayMetrics) -> u64 {
    metrics.idle_timeouts.load(Ordering::Relaxed)
}

fn order(tuple: &Tuple) -> (std::net::IpAddr, u16, std::net::IpAddr, u16, Protocol) {
    (tuple.destination, tuple.destination_port, tuple.source, tuple.source_port, tuple.protocol)
}

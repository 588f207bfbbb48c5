//! Shows counters, connections and leases in the form of the contract.

use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::NatGatewayId;
use localvpc_api::report::{Connection, Discards, EniCounters, Lease, NatGatewayCounters};
use localvpc_api::trace::{Direction, Protocol, Tuple};

use crate::Time;
use crate::metrics::NatGatewayMetrics;
use crate::state::State;
use crate::tables::Tables;

/// Counters of every ENI in the tables.
pub fn enis(tables: &Tables) -> Vec<EniCounters> {
    let of = |eni: &crate::tables::Eni| EniCounters {
        eni: eni.id,
        received: eni.metrics.received(),
        sent: eni.metrics.sent(),
        discards: eni.metrics.discards(),
    };
    tables.enis.iter().map(of).collect()
}

/// Counters of every NAT gateway in the tables.
pub fn nat_gateways(tables: &Tables, state: &State, now: Time) -> Vec<NatGatewayCounters> {
    let mut active: HashMap<NatGatewayId, u64, RandomState> = HashMap::default();
    state.leases.for_each(now, |key, _, _| *active.entry(key.nat_gateway).or_default() += 1);
    tables
        .nat_gateways
        .iter()
        .map(|gateway| {
            let metrics = &gateway.metrics;
            let sum = |part: fn(&crate::metrics::NatGatewaySlot) -> u64| metrics.slots().map(part).sum();
            NatGatewayCounters {
                nat_gateway: gateway.id,
                active_connections: active.get(&gateway.id).copied().unwrap_or(0),
                connection_attempts: sum(|slot| slot.connection_attempts.value()),
                error_port_allocation: sum(|slot| slot.error_port_allocation.value()),
                idle_timeouts: idle_timeouts(metrics),
                out_to_destination: metrics.out_to_destination(),
                in_from_destination: metrics.in_from_destination(),
                packets_dropped: sum(|slot| slot.packets_dropped.value()),
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

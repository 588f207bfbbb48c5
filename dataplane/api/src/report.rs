//! Counters, connections and NAT leases as the dataplane shows them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::discard::DiscardReason;
use crate::ids::*;
use crate::settings::Settings;
use crate::trace::{Protocol, Tuple};

/// What the dataplane is and how it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// The tables in force; 0 before the first push.
    pub generation: Generation,
    /// How it works.
    #[serde(default)]
    pub settings: Settings,
    /// Links it holds.
    pub links: Vec<LinkId>,
    /// Of these, those whose device has failed, deleted perhaps: nothing passes them any more.
    #[serde(default)]
    pub broken_links: Vec<LinkId>,
    /// Tracked connections now.
    pub connections: u64,
    /// NAT leases now.
    pub leases: u64,
    /// One entry per worker thread.
    pub workers: Vec<WorkerCounters>,
}

/// Packets (segments of a super-packet counted singly) and their bytes from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Every counter since the dataplane started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Per ENI of an instance.
    pub enis: Vec<EniCounters>,
    /// Per NAT gateway.
    pub nat_gateways: Vec<NatGatewayCounters>,
    /// Per link.
    pub links: Vec<LinkCounters>,
    /// All discards; reasons that did not occur are left out.
    pub discards: Vec<Discards>,
    /// One entry per worker thread.
    pub workers: Vec<WorkerCounters>,
}

/// How often packets were discarded for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discards {
    /// Why.
    pub reason: DiscardReason,
    /// Packets.
    pub packets: u64,
}

/// Counters of an ENI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniCounters {
    /// The ENI.
    pub eni: EniId,
    /// Delivered to it.
    pub received: Traffic,
    /// Sent by it and forwarded.
    pub sent: Traffic,
    /// Packets discarded at it: on their way out before they came to another ENI, or on arrival.
    pub discards: Vec<Discards>,
    /// Connections that it may track in addition to those it tracks now (SG-39).
    pub conntrack_allowance_available: u64,
    /// Packets discarded because it tracked as many as it may (SG-39).
    pub conntrack_allowance_exceeded: u64,
    /// Half-open TCP connections that gave way to new ones.
    pub conntrack_half_open_evicted: u64,
}

/// Counters of a NAT gateway, after AWS/NATGateway in CloudWatch (NATGW-48).
///
/// *Source* is the inside, *destination* the far end. What arrives and what leaves differ by what the gateway itself
/// discards (NATGW-49).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGatewayCounters {
    /// The gateway.
    pub nat_gateway: NatGatewayId,
    /// Leases now, of all protocols.
    pub leases: u64,
    /// TCP connections now that are not closed.
    pub active_connections: u64,
    /// TCP connections that a SYN from inside began; a repeated SYN is none.
    pub connection_attempts: u64,
    /// Of these, those whose handshake came to its end.
    pub connections_established: u64,
    /// Packets it had no source port for.
    pub error_port_allocation: u64,
    /// Connections that ended by idling.
    pub idle_timeouts: u64,
    /// Arrived from inside.
    pub in_from_source: Traffic,
    /// Left for a destination.
    pub out_to_destination: Traffic,
    /// Arrived from a destination.
    pub in_from_destination: Traffic,
    /// Left for the inside.
    pub out_to_source: Traffic,
    /// Packets it discarded.
    pub packets_dropped: u64,
    /// Highest average over 10 seconds within the last minute, both directions, in bytes per second.
    pub peak_bytes_per_second: u64,
    /// The same in packets per second.
    pub peak_packets_per_second: u64,
}

/// Counters of a link's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// The link.
    pub link: LinkId,
    /// read() calls that brought a packet or super-packet.
    pub reads: u64,
    /// Their bytes from the IP header on. Divided by `reads`: how well offload works.
    pub read_bytes: u64,
    /// Packets in them, segments of a super-packet counted singly.
    pub read_segments: u64,
    /// write() calls that succeeded.
    pub writes: u64,
    /// Packets that left in a super-packet made of several, see [`Merge`](crate::settings::Merge).
    #[serde(default)]
    pub merged: u64,
    /// Their bytes from the IP header on.
    pub written_bytes: u64,
    /// write() calls that failed.
    pub write_errors: u64,
}

/// Counters of a worker thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounters {
    /// Batches of packets handled.
    pub batches: u64,
    /// Packets and super-packets handled.
    pub packets: u64,
    /// Of these, decided by the flow cache.
    pub cache_hits: u64,
    /// Of these, walked.
    pub walks: u64,
    /// Flows in the cache now.
    pub cached_flows: u64,
    /// Table swaps seen.
    pub table_swaps: u64,
    /// Longest time in microseconds between two batches while packets were waiting (a push, a stall).
    pub longest_gap_us: u64,
}

/// A tracked connection at an ENI, seen from the ENI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The ENI that tracks it.
    pub eni: EniId,
    /// The tuple of its outbound packets: the ENI's side is the source.
    pub outbound: Tuple,
    /// Who sent the first packet.
    pub initiator: Initiator,
    /// TCP state or how far it has come.
    pub state: ConnectionState,
    /// Milliseconds since its last packet.
    pub idle_ms: u64,
    /// Milliseconds of silence after which it ends.
    pub timeout_ms: u64,
    /// Sent by the ENI.
    pub sent: Traffic,
    /// Delivered to the ENI.
    pub received: Traffic,
}

/// Who sent the first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    /// The ENI's side.
    Local,
    /// The far end.
    Remote,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// One direction seen.
    New,
    /// Both directions seen; TCP: the handshake is complete.
    Established,
    /// TCP: a FIN was seen.
    Closing,
    /// TCP: both FINs or a RST were seen.
    Closed,
}

/// A source port in use at a NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The gateway.
    pub nat_gateway: NatGatewayId,
    /// The packet from inside, before translation.
    pub inside: Tuple,
    /// The gateway's private address in use.
    pub address: IpAddr,
    /// The source port (or ICMP identifier) in use there.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// How far the connection has come.
    pub state: ConnectionState,
    /// Milliseconds since its last packet.
    pub idle_ms: u64,
    /// Milliseconds of silence after which it ends.
    pub timeout_ms: u64,
    /// From inside to the destination.
    pub out: Traffic,
    /// From the destination to inside.
    pub back: Traffic,
}

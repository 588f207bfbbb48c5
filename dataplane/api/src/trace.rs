//! What a dry-run walk reports, stage by stage.
//!
//! A trace names rows by id and position (the third rule of a group, the entry
//! with number 100), never by name: whoever pushed the tables knows what stands
//! behind them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::discard::DiscardReason;
use crate::ids::*;
use crate::tables::{Action, RouteTarget};

/// IANA number of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// Addresses and ports of a packet as a stage sees them.
///
/// ICMP echo carries its identifier in both ports. Other ICMP carries its type
/// in `source_port` and its code in `destination_port`; a protocol without ports has 0 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port, or ICMP echo identifier.
    pub source_port: u16,
    /// Destination port, or ICMP echo identifier.
    pub destination_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Tuple {
    /// The tuple of a reply.
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// A packet to walk through the live tables without sending it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The link it enters on.
    pub link: LinkId,
    /// The first packet of a connection: TCP is a SYN, ICMP an echo request.
    pub tuple: Tuple,
    /// Whether the reply is walked too, as if the connection had been made.
    pub reply: bool,
}

/// What happened to a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// The tables it was walked through.
    pub generation: Generation,
    /// The packet itself.
    pub forward: TraceWalk,
    /// Its reply, when it was asked for and the packet was delivered.
    pub reply: Option<TraceWalk>,
}

/// One walk from link to link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceWalk {
    /// Stages in the order in which AWS applies them (ORD-1, ORD-2).
    pub steps: Vec<TraceStep>,
    /// How it ended.
    pub outcome: TraceOutcome,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceOutcome {
    /// It leaves on this link.
    Delivered(LinkId),
    /// It was discarded at the last step.
    Discarded(DiscardReason),
}

/// What one stage decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The packet as it came to the stage.
    pub tuple: Tuple,
    /// The stage and its decision.
    pub decision: Decision,
}

/// A frame of reference for filters: always the ENI's or the subnet's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Into the subnet, to the ENI.
    Inbound,
    /// Out of the subnet, from the ENI.
    Outbound,
}

impl Direction {
    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

/// A stage and what it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Source/destination check of an ENI.
    SourceDestCheck {
        /// The ENI.
        eni: EniId,
        /// Outbound: the source is checked; inbound: the destination.
        direction: Direction,
        /// What it said.
        pass: bool,
    },
    /// The security groups of an ENI.
    SecurityGroup {
        /// The ENI.
        eni: EniId,
        /// From or to the ENI.
        direction: Direction,
        /// What they said.
        verdict: SecurityGroupVerdict,
    },
    /// The route table of a subnet.
    Route {
        /// The subnet that the packet leaves.
        subnet: SubnetId,
        /// Its route table.
        route_table: RouteTableId,
        /// The route that matched, if one did.
        matched: Option<MatchedRoute>,
    },
    /// Delivery inside one subnet: neither route table nor network ACL is consulted (ORD-6).
    SameSubnet {
        /// The subnet.
        subnet: SubnetId,
    },
    /// The network ACL of a subnet.
    NetworkAcl {
        /// The subnet.
        subnet: SubnetId,
        /// Its network ACL.
        network_acl: NetworkAclId,
        /// Into or out of the subnet.
        direction: Direction,
        /// The entry that decided; `None` is the final `*` entry, which denies.
        entry: Option<u16>,
        /// What it said.
        action: Action,
    },
    /// A NAT gateway.
    NatGateway {
        /// The gateway.
        nat_gateway: NatGatewayId,
        /// Outbound: the source is translated; inbound: the destination is translated back.
        direction: Direction,
        /// The packet afterwards; `None` where it was discarded.
        translated: Option<Tuple>,
        /// Whether a lease existed; a new one would be made otherwise.
        established: bool,
    },
    /// An internet gateway.
    InternetGateway {
        /// The gateway; `None` where none has the destination address.
        internet_gateway: Option<InternetGatewayId>,
        /// Outbound: the source is translated; inbound: the destination.
        direction: Direction,
        /// The packet afterwards; `None` where it was discarded.
        translated: Option<Tuple>,
    },
    /// The internet itself.
    Internet {
        /// Whether a host has the destination address.
        found: bool,
    },
    /// The address is owned by nothing, or the packet is malformed: nothing decided but the path ended.
    End,
}

/// What the security groups of an ENI said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityGroupVerdict {
    /// The packet belongs to a tracked connection; no rule was consulted (SG-9).
    Tracked,
    /// An ICMP error about a tracked connection (SG-42).
    Related,
    /// A rule admits it.
    Rule {
        /// The group that holds the rule.
        security_group: SecurityGroupId,
        /// Position among the group's rules of this direction, from 0.
        rule: u32,
        /// Whether the connection is tracked from here on (SG-32, SG-35).
        tracked: bool,
    },
    /// No rule admits it.
    NoMatch {
        /// Whether there was any rule to consult in this direction.
        any_rules: bool,
    },
}

/// A route that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRoute {
    /// Its destination.
    pub destination: IpNet,
    /// Its target.
    pub target: RouteTarget,
}

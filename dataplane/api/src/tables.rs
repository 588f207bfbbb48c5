//! The whole configuration of a dataplane, as flat rows that refer to each other by id.
//!
//! A push always carries all rows. The dataplane validates every reference before
//! it takes any of them, see [`InvalidRow`](crate::message::InvalidRow).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::*;

/// The whole configuration: what one push carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Version of this configuration; must be greater than the one installed.
    pub generation: Generation,
    /// Scopes of addresses.
    pub vpcs: Vec<Vpc>,
    /// Subnets, disjoint within their VPC.
    pub subnets: Vec<Subnet>,
    /// Route tables, local routes included.
    pub route_tables: Vec<RouteTable>,
    /// Network ACLs. The final deny (`*`) is implied and not a row.
    pub network_acls: Vec<NetworkAcl>,
    /// Security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// Network interfaces of instances.
    pub enis: Vec<Eni>,
    /// Internet gateways, at most one per VPC.
    pub internet_gateways: Vec<InternetGateway>,
    /// Elastic IPs and automatic public addresses: one row per association.
    pub public_addresses: Vec<PublicAddress>,
    /// NAT gateways.
    pub nat_gateways: Vec<NatGateway>,
    /// TUN devices.
    pub links: Vec<Link>,
    /// Addresses that exist on the internet side.
    pub internet_hosts: Vec<IpAddr>,
}

/// A scope of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Stable id.
    pub id: VpcId,
    /// Primary CIDR first, then secondary ones.
    pub cidrs: Vec<IpNet>,
}

/// A subnet with the route table and network ACL that apply to it (VPC-21: always exactly one each).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Stable id.
    pub id: SubnetId,
    /// The VPC it belongs to.
    pub vpc: VpcId,
    /// Its address range.
    pub cidr: IpNet,
    /// Decides where traffic that leaves the subnet goes.
    pub route_table: RouteTableId,
    /// Filters what enters and leaves the subnet.
    pub network_acl: NetworkAclId,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// Stable id.
    pub id: RouteTableId,
    /// The VPC it belongs to.
    pub vpc: VpcId,
    /// One route per destination; the longest prefix wins.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The destination prefix, without host bits.
    pub destination: IpNet,
    /// Where matching packets go.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// To the owner of the address inside the VPC.
    Local,
    /// To the internet, for sources that have a public address.
    InternetGateway(InternetGatewayId),
    /// Through source translation.
    NatGateway(NatGatewayId),
    /// To an instance that forwards (a NAT instance, a firewall).
    NetworkInterface(EniId),
    /// The target is gone: matching packets are discarded (RT-17).
    Blackhole,
}

/// An ordered, stateless filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAcl {
    /// Stable id.
    pub id: NetworkAclId,
    /// Entries for packets that enter a subnet, by ascending number.
    pub inbound: Vec<NetworkAclEntry>,
    /// Entries for packets that leave a subnet, by ascending number.
    pub outbound: Vec<NetworkAclEntry>,
}

/// A numbered entry of a network ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAclEntry {
    /// 1 to 32766; the lowest number that matches decides.
    pub number: u16,
    /// What happens to a match.
    pub action: Action,
    /// The traffic it matches.
    pub traffic: Traffic,
    /// Source of inbound packets, destination of outbound ones.
    pub cidr: IpNet,
}

/// What a network ACL entry does with a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Discard it.
    Deny,
}

/// A set of allow rules around an ENI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// Stable id.
    pub id: SecurityGroupId,
    /// The VPC it belongs to.
    pub vpc: VpcId,
    /// Rules for packets that arrive at a member.
    pub inbound: Vec<SecurityGroupRule>,
    /// Rules for packets that a member sends.
    pub outbound: Vec<SecurityGroupRule>,
}

/// An allow rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupRule {
    /// The traffic it admits.
    pub traffic: Traffic,
    /// The far end it admits.
    pub peer: Peer,
}

/// The far end of a security group rule: the source of inbound packets, the destination of outbound ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Every address in the range.
    Cidr(IpNet),
    /// The private addresses of the ENIs that carry the group (SG-20).
    SecurityGroup(SecurityGroupId),
}

/// What a rule says about protocol, ports and ICMP types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Every protocol (AWS: `-1`).
    All,
    /// TCP to these destination ports.
    Tcp(PortRange),
    /// UDP to these destination ports.
    Udp(PortRange),
    /// ICMP of this type and code.
    Icmp(IcmpMatch),
    /// Another protocol by its IANA number, all of it (SG-8, NACL-9).
    Protocol(u8),
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First port.
    pub from: u16,
    /// Last port, not smaller than `from`.
    pub to: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { from: 0, to: u16::MAX };

    /// The range of one port.
    pub const fn one(port: u16) -> Self {
        Self { from: port, to: port }
    }

    /// Whether `port` lies within.
    pub const fn contains(self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }
}

/// ICMP type and code; `None` matches every one. A code without a type is invalid (SG-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpMatch {
    /// ICMP type.
    pub kind: Option<u8>,
    /// ICMP code.
    pub code: Option<u8>,
}

/// The network interface of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eni {
    /// Stable id.
    pub id: EniId,
    /// Where its packets enter and leave. Several ENIs share a link when their subnet is one namespace.
    pub link: LinkId,
    /// The subnet its addresses are in.
    pub subnet: SubnetId,
    /// Primary private address first.
    pub addresses: Vec<IpAddr>,
    /// The groups it carries, at most 16 (SG-1).
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether packets must be from or to one of its addresses (ENI-4).
    pub source_dest_check: SourceDestCheck,
    /// Idle timeouts of its tracked connections.
    pub tracking: TrackingTimeouts,
    /// Most connections that it tracks at a time (SG-39), at least one.
    pub max_connections: u32,
    /// Most IP fragments that it sends in a second (ENI-13).
    pub fragments_per_second: u32,
}

/// What an ENI tracks unless it is told otherwise (SG-39). AWS's number depends on the instance type; one was measured
/// at about 77,000.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 1 << 18;

/// Fragments that an ENI sends in a second unless it is told otherwise (ENI-13).
pub const DEFAULT_FRAGMENTS_PER_SECOND: u32 = 1024;

/// The source/destination check of an ENI (ENI-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceDestCheck {
    /// Only packets from or to its own addresses.
    #[default]
    Enabled,
    /// Any packet: the ENI forwards for others.
    Disabled,
}

/// Idle timeouts of tracked connections, in milliseconds (SG-37, SG-30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingTimeouts {
    /// Established TCP.
    pub tcp_established_ms: u64,
    /// UDP seen in one direction, or one request and its reply.
    pub udp_ms: u64,
    /// UDP with more than one request and reply.
    pub udp_stream_ms: u64,
    /// Protocols other than TCP, UDP and ICMP.
    pub other_ms: u64,
}

impl Default for TrackingTimeouts {
    /// AWS's defaults: five days, 30 s, 180 s (SG-37), 600 s (SG-30).
    fn default() -> Self {
        Self { tcp_established_ms: 432_000_000, udp_ms: 30_000, udp_stream_ms: 180_000, other_ms: 600_000 }
    }
}

/// An internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternetGateway {
    /// Stable id.
    pub id: InternetGatewayId,
    /// The VPC it is attached to.
    pub vpc: VpcId,
}

/// A 1:1 association of a public with a private address at an internet gateway (IGW-3, IGW-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicAddress {
    /// The gateway that translates.
    pub internet_gateway: InternetGatewayId,
    /// Unique in the lab.
    pub public: IpAddr,
    /// An address of an ENI or NAT gateway in the gateway's VPC; unique per VPC.
    pub private: IpAddr,
}

/// A NAT gateway, an ENI of its own in a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatGateway {
    /// Stable id.
    pub id: NatGatewayId,
    /// The subnet it stands in: its network ACL and route table apply (NATGW-31, ORD-8).
    pub subnet: SubnetId,
    /// Its private addresses, primary first, one to eight (NATGW-7).
    pub addresses: Vec<IpAddr>,
    /// Idle timeout of a lease in milliseconds; AWS: 350,000 (NATGW-22).
    pub idle_timeout_ms: u64,
}

/// A TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Stable id.
    pub id: LinkId,
    /// What stands behind it.
    pub kind: LinkKind,
    /// Largest IP packet it takes, in bytes.
    pub mtu: u16,
}

/// What stands behind a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The ENIs that name this link: one for an instance of its own, several for a shared namespace.
    Enis,
    /// The internet: all its hosts. A lab has at most one.
    Internet,
}

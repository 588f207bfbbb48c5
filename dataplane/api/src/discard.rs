//! The single list of reasons for which a packet is discarded.
//!
//! Counters, traces, `explain`, metrics and documentation are all derived from
//! [`DiscardReason`]. Where Reachability Analyzer has an explanation code for the
//! case, [`DiscardReason::code`] is that code (aws-vpc.md §20.2); the others are ours.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)*) => {
        /// Why a packet was discarded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum DiscardReason {
            $($(#[doc = $doc])+ $name,)*
        }

        impl DiscardReason {
            /// Every reason, in the order in which a packet can meet them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable code that outputs show.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// The packet is shorter than its headers say.
    Truncated = "TRUNCATED_PACKET";
    /// The packet is not IPv4 (IPv6 is not carried yet).
    NotIpv4 = "NOT_IPV4";
    /// The IPv4 header is malformed: header length below 20 bytes, or total length below the header's.
    MalformedIpHeader = "MALFORMED_IP_HEADER";
    /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2).
    WrongIpChecksum = "WRONG_IP_CHECKSUM";
    /// The packet carries IP options, source routing included; they are not carried.
    IpOptions = "IP_OPTIONS";
    /// The fragment is malformed: without data, not a multiple of 8 bytes though more follow, or part of an ICMP error, whose quote nobody could check.
    MalformedFragment = "FRAGMENT_MALFORMED";
    /// The fragment ends beyond the 65,535 bytes of the largest datagram.
    OversizedFragment = "FRAGMENT_BEYOND_65535";
    /// The first fragment does not hold the whole transport header, or a later one begins within it (RFC 1858, RFC 3128).
    TinyFragment = "FRAGMENT_TINY";
    /// The TCP, UDP or ICMP header is malformed.
    MalformedTransportHeader = "MALFORMED_TRANSPORT_HEADER";
    /// The ICMP checksum is wrong (RFC 5508 REQ-3).
    WrongIcmpChecksum = "WRONG_ICMP_CHECKSUM";
    /// The virtio header of the TUN contradicts the packet.
    HostileOffload = "HOSTILE_OFFLOAD_HEADER";
    /// The packet came in on a link that the tables do not know (yet, or any more).
    UnknownLink = "UNKNOWN_LINK";
    /// The source or destination is no unicast address; a VPC carries neither broadcast nor multicast (VPC-30).
    NotUnicast = "NOT_UNICAST";
    /// The source/destination check of the ENI rejects the packet: it is not from, or not to, one of its addresses (ENI-4).
    SourceDestCheck = "ENI_SOURCE_DEST_CHECK_RESTRICTION";
    /// The ENI sends more fragments in a second than it may (ENI-13).
    FragmentAllowanceExceeded = "FRAGMENT_ALLOWANCE_EXCEEDED";
    /// The fragment overlaps or contradicts another one of its datagram, all of which is discarded from here on (RFC 1858, RFC 5722).
    FragmentOverlap = "FRAGMENT_OVERLAP";
    /// The first fragment of the datagram, which says where the others go, did not come in time.
    FragmentTimeout = "FRAGMENT_FIRST_MISSING";
    /// Too many datagrams are on their way in fragments, or too many fragments wait for their first, from this source or in all.
    FragmentTableFull = "FRAGMENT_TABLE_FULL";
    /// No security group rule of the ENI admits the packet.
    SecurityGroup = "ENI_SG_RULES_MISMATCH";
    /// The security groups of the ENI have no rule at all in this direction.
    SecurityGroupEmpty = "SG_HAS_NO_RULES";
    /// The network ACL of the subnet does not admit the packet.
    NetworkAcl = "SUBNET_ACL_RESTRICTION";
    /// The route table of the subnet has no route to the destination.
    NoRoute = "NO_ROUTE_TO_DESTINATION";
    /// The route is a blackhole: its target is gone (RT-17).
    Blackhole = "BAD_STATE_ROUTE";
    /// Nothing in the VPC owns the destination address.
    NoSuchAddress = "NO_POSSIBLE_DESTINATION";
    /// The packet would go round in circles between gateways.
    Loop = "ROUTING_LOOP";
    /// The TTL ran out at a NAT gateway.
    TtlExceeded = "TTL_EXCEEDED";
    /// The NAT gateway forwards fragments of UDP only (NATGW-27).
    NatFragment = "NGW_FRAGMENT";
    /// The NAT gateway translates TCP, UDP and ICMP echo only (NATGW-9).
    NatProtocol = "PROTOCOL_RESTRICTION";
    /// The NAT gateway has no connection for this packet: it lets nothing in that was not asked for from inside (NATGW-18), and answers no ping (NATGW-19).
    NatNoConnection = "NGW_NO_CONNECTION";
    /// The NAT gateway has no source port left for this destination (NATGW-12, NATGW-15).
    NatPortsExhausted = "NGW_ERROR_PORT_ALLOCATION";
    /// The NAT gateway serves only sources in its own VPC (NATGW-32).
    NatForeignSource = "NGW_REQUIRES_SOURCE_IN_VPC";
    /// The source has no public address, so the internet gateway cannot let it out (IGW-9).
    NoPublicAddress = "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS";
    /// The destination is not the public address of anything behind an internet gateway (IGW-6).
    NoPublicAssociation = "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS";
    /// The internet gateway lets nothing out to a private destination, RFC 1918 (IGW-8).
    PrivateDestination = "IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS";
    /// The internet gateway lets nothing out to a shared destination, RFC 6598 (IGW-8).
    SharedDestination = "IGW_DESTINATION_ADDRESS_NOT_IN_RFC6598_EGRESS";
    /// The internet gateway lets nothing in from a private source, RFC 1918 (IGW-8).
    PrivateSource = "IGW_SOURCE_ADDRESS_NOT_IN_RFC1918_INGRESS";
    /// The internet gateway lets nothing in from a shared source, RFC 6598 (IGW-8).
    SharedSource = "IGW_SOURCE_ADDRESS_NOT_IN_RFC6598_INGRESS";
    /// No host on the internet of this lab has the destination address.
    NoSuchHost = "INTERNET_HOST_UNKNOWN";
    /// The packet is larger than the next hop takes and must not be fragmented (DF is set); the sender was told (MTU-3).
    TooBig = "FRAGMENTATION_NEEDED";
    /// An ICMP error about a connection that is not known here.
    UnrelatedIcmpError = "UNRELATED_ICMP_ERROR";
    /// The ENI tracks as many connections as it may, and none of them is half-open (SG-39).
    ConnectionAllowanceExceeded = "CONNTRACK_ALLOWANCE_EXCEEDED";
    /// One ICMP error too many: the dataplane sends only so many a second (RFC 1812 §4.3.2.8).
    IcmpErrorRate = "ICMP_ERROR_RATE_LIMITED";
    /// The table of tracked connections is full.
    ConnectionTableFull = "CONNTRACK_TABLE_FULL";
    /// The table of NAT leases is full.
    LeaseTableFull = "NGW_LEASE_TABLE_FULL";
    /// The link's device took no more packets, or refused this one.
    LinkWrite = "LINK_WRITE_FAILED";
    /// A defect in the dataplane: the packet was thrown away, the dataplane goes on.
    Internal = "INTERNAL_ERROR";
}

impl std::fmt::Display for DiscardReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_code_of_its_own_and_a_sentence() {
        let codes: HashSet<_> = DiscardReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), DiscardReason::COUNT);
        for (at, reason) in DiscardReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at, "counters index by discriminant");
            assert!(reason.explanation().ends_with('.'), "{reason:?}");
        }
    }
}

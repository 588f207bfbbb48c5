//! Ranges of addresses that nothing in the lab can have.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::subject::Pair;

/// Whether no packet in a VPC can be from or to such an address: it is private, not of the VPC, and nothing in
/// the VPC forwards for others.
pub fn nobody_has(pair: Pair<'_>, range: IpNet) -> bool {
    let meets = |cidr: &IpNet| cidr.contains(&range) || range.contains(cidr);
    is_private(range) && !pair.vpc.cidrs.iter().any(meets) && !pair.has_forwarder()
}

/// `10.0.0.0/16, 10.1.0.0/16`.
pub fn list(ranges: &[IpNet]) -> String {
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

/// RFC 1918 and RFC 6598, which the internet gateway takes in neither direction (IGW-8).
pub const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// Whether a range is in one of these.
pub fn is_private(range: IpNet) -> bool {
    PRIVATE.iter().any(|net| IpNet::V4(*net).contains(&range))
}

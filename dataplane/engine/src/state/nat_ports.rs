//! Hands out the source ports of NAT gateways, exactly and in constant time.

use std::net::IpAddr;

use localvpc_api::NatGatewayId;
use localvpc_api::trace::Protocol;

/// What the quota of 55,000 counts for: an address of a gateway towards a unique destination (NATGW-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The gateway.
    pub nat_gateway: NatGatewayId,
    /// Its private address.
    pub address: IpAddr,
    /// The far end.
    pub remote: IpAddr,
    /// The far end's port; 0 for ICMP.
    pub remote_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Ports in use, by destination. Shared by all workers.
#[derive(Debug, Default)]
pub struct NatPorts {}

impl NatPorts {
    /// Connections per destination and address (NATGW-12).
    pub const QUOTA: u32 = 55_000;

    /// Takes a random free port in 1024–65535 (NATGW-10, RFC 6056), or `None` if the quota is used up.
    pub fn reserve(&self, destination: &Destination, random: u64) -> Option<u16> {
        let _ = (destination, random);
        None
    }

    /// Gives a port back.
    pub fn release(&self, destination: &Destination, port: u16) {
        let _ = (destination, port);
    }

    /// Ports in use towards a destination.
    pub fn in_use(&self, destination: &Destination) -> u32 {
        let _ = destination;
        0
    }
}

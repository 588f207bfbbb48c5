//! Which addresses the internet knows.

use std::net::IpAddr;

/// Where an address can be: an internet gateway lets only public ones pass (IGW-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// RFC 1918, or IPv6's unique local addresses.
    Private,
    /// RFC 6598.
    Shared,
    /// Anywhere else.
    Public,
}

impl Scope {
    /// That of an address.
    #[inline]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) if v4.is_private() => Self::Private,
            IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0b1100_0000 == 64 => Self::Shared,
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Private,
            _ => Self::Public,
        }
    }
}

//! Matches packets against security group rules and network ACL entries.

use std::net::IpAddr;

use localvpc_api::SecurityGroupId;
use localvpc_api::tables::Action;
use localvpc_api::trace::Protocol;

/// What rules look at beside addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// TCP, by destination port.
    Tcp(u16),
    /// UDP, by destination port.
    Udp(u16),
    /// ICMP by type and code.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Any other protocol.
    Other(Protocol),
}

/// Which rule of a set admits a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The group that holds the first rule that matches (groups in the order of the ENI, rules in the order of the group).
    pub security_group: SecurityGroupId,
    /// Its position among the group's rules of this direction.
    pub rule: u32,
    /// Whether any matching rule is a TCP/UDP (or all-traffic) rule for 0.0.0.0/0: one half of an untracked flow (SG-32).
    pub anywhere: bool,
}

/// The rules of all security groups of an ENI, one direction.
#[derive(Debug, Default)]
pub struct RuleSet {}

impl RuleSet {
    /// Whether some rule admits a packet from or to `peer`.
    pub fn admit(&self, peer: IpAddr, selector: Selector) -> Option<Admission> {
        let _ = (peer, selector);
        None
    }

    /// Whether a rule opens every port of the protocol to 0.0.0.0/0: the other half of an untracked flow (SG-32).
    pub fn opens_everything(&self, protocol: Protocol) -> bool {
        let _ = protocol;
        false
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        true
    }
}

/// The entries of a network ACL, one direction.
#[derive(Debug, Default)]
pub struct AclRules {}

impl AclRules {
    /// The entry with the lowest number that matches; `None`: the final `*` entry, which denies.
    pub fn first_match(&self, address: IpAddr, selector: Selector) -> Option<(u16, Action)> {
        let _ = (address, selector);
        None
    }
}

//! Matches packets against security group rules and network ACL entries.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use localvpc_api::SecurityGroupId;
use localvpc_api::tables::{Action, IcmpMatch, NetworkAclEntry, Peer, SecurityGroupRule, Traffic};
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
    /// Never for another protocol than TCP and UDP (SG-34).
    pub anywhere: bool,
}

/// The rules of all security groups of an ENI, one direction.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    security_group: SecurityGroupId,
    rule: u32,
    traffic: Traffic,
    peer: CompiledPeer,
}

#[derive(Debug)]
enum CompiledPeer {
    Cidr(IpNet),
    Members(Arc<[IpAddr]>),
}

impl RuleSet {
    /// Merges the rules of `groups`, in the order of the ENI. `members` tells the private addresses of a group's ENIs (SG-20).
    pub fn build<'a>(
        groups: impl IntoIterator<Item = (SecurityGroupId, &'a [SecurityGroupRule])>,
        members: impl Fn(SecurityGroupId) -> &'a [IpAddr],
    ) -> Self {
        let mut rules = Vec::new();
        for (security_group, group) in groups {
            rules.extend((0..).zip(group).map(|(rule, row)| Rule {
                security_group,
                rule,
                traffic: row.traffic,
                peer: match row.peer {
                    Peer::Cidr(cidr) => CompiledPeer::Cidr(cidr),
                    Peer::SecurityGroup(group) => CompiledPeer::Members(members(group).into()),
                },
            }));
        }
        Self { rules }
    }

    /// Whether some rule admits a packet from or to `peer`.
    pub fn admit(&self, peer: IpAddr, selector: Selector) -> Option<Admission> {
        let mut matching = self.rules.iter().filter(|rule| rule.matches(peer, selector));
        let first = matching.next()?;
        let ports = matches!(selector, Selector::Tcp(_) | Selector::Udp(_));
        let anywhere = ports && (first.anywhere() || matching.any(Rule::anywhere));
        Some(Admission { security_group: first.security_group, rule: first.rule, anywhere })
    }

    /// Whether a rule opens every port of the protocol to 0.0.0.0/0: the other half of an untracked flow (SG-32).
    pub fn opens_everything(&self, protocol: Protocol) -> bool {
        self.rules.iter().any(|rule| rule.anywhere() && opens_every_port(rule.traffic, protocol))
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    fn matches(&self, peer: IpAddr, selector: Selector) -> bool {
        matches(self.traffic, selector)
            && match &self.peer {
                CompiledPeer::Cidr(cidr) => cidr.contains(&peer),
                CompiledPeer::Members(members) => members.contains(&peer),
            }
    }

    fn anywhere(&self) -> bool {
        matches!(self.peer, CompiledPeer::Cidr(cidr) if cidr.prefix_len() == 0)
    }
}

fn opens_every_port(traffic: Traffic, protocol: Protocol) -> bool {
    match (traffic, protocol) {
        (Traffic::All, Protocol::TCP | Protocol::UDP) => true,
        (Traffic::Tcp(ports), Protocol::TCP) | (Traffic::Udp(ports), Protocol::UDP) => {
            ports.from == 0 && ports.to == u16::MAX
        }
        (Traffic::Protocol(number), Protocol::TCP | Protocol::UDP) => Protocol(number) == protocol,
        _ => false,
    }
}

fn matches(traffic: Traffic, selector: Selector) -> bool {
    match (traffic, selector) {
        (Traffic::All, _) => true,
        (Traffic::Tcp(ports), Selector::Tcp(port)) | (Traffic::Udp(ports), Selector::Udp(port)) => {
            ports.contains(port)
        }
        (
            Traffic::Icmp(IcmpMatch { kind, code }),
            Selector::Icmp { kind: packet_kind, code: packet_code },
        ) => kind.is_none_or(|kind| kind == packet_kind) && code.is_none_or(|code| code == packet_code),
        (Traffic::Protocol(number), selector) => Protocol(number) == selector.protocol(),
        _ => false,
    }
}

impl Selector {
    fn protocol(self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::TCP,
            Self::Udp(_) => Protocol::UDP,
            Self::Icmp { .. } => Protocol::ICMP,
            Self::Other(protocol) => protocol,
        }
    }
}

/// The entries of a network ACL, one direction.
#[derive(Debug, Default)]
pub struct AclRules {
    entries: Vec<NetworkAclEntry>,
}

impl AclRules {
    /// Compiles entries, which ascend by number.
    pub fn build(entries: &[NetworkAclEntry]) -> Self {
        Self { entries: entries.to_vec() }
    }

    /// The entry with the lowest number that matches; `None`: the final `*` entry, which denies.
    pub fn first_match(&self, address: IpAddr, selector: Selector) -> Option<(u16, Action)> {
        self.entries
            .iter()
            .find(|entry| entry.cidr.contains(&address) && matches(entry.traffic, selector))
            .map(|entry| (entry.number, entry.action))
    }
}

//! What security groups and network ACLs say of a set of ports.

use std::net::IpAddr;

use localvpc_api::SecurityGroupId;
use localvpc_api::tables::*;
use localvpc_api::trace::{Direction, Protocol};

use super::fabric::Fabric;
use super::ranges::Ranges;

/// What rules see of packets beside the far address: protocol, ICMP type and code, destination ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The protocol.
    pub protocol: Protocol,
    /// Type and code of ICMP.
    pub icmp: (u8, u8),
    /// Destination ports.
    pub ports: Ranges,
}

/// A part of the ports, and the entry that decides about it; no entry is the final `*`, which denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclPart {
    /// Number of the entry.
    pub entry: Option<u16>,
    /// What it says.
    pub action: Action,
    /// To which ports.
    pub ports: Ranges,
}

/// What the entries of one direction say to packets from, or to, `far`: the first match decides (NACL-2). The parts are
/// disjoint and together all the ports.
pub fn network_acl(entries: &[NetworkAclEntry], far: IpAddr, load: &Load) -> Vec<AclPart> {
    let mut left = load.ports.clone();
    let mut parts = Vec::new();
    for entry in entries {
        if left.is_empty() {
            break;
        }
        if !entry.cidr.contains(&far) {
            continue;
        }
        let ports = left.and(&matched(entry.traffic, load));
        if !ports.is_empty() {
            left = left.without(&ports);
            parts.push(AclPart { entry: Some(entry.number), action: entry.action, ports });
        }
    }
    if !left.is_empty() {
        parts.push(AclPart { entry: None, action: Action::Deny, ports: left });
    }
    parts
}

/// What the security groups of an interface say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The rules that admit something, each with the ports that no rule before it admits.
    pub parts: Vec<(SecurityGroupId, u32, Ranges)>,
    /// Ports that no rule admits.
    pub refused: Ranges,
    /// Whether a rule for 0.0.0.0/0 is among those that match: half of an untracked flow (SG-32).
    pub anywhere: bool,
    /// Whether there is any rule.
    pub any_rules: bool,
}

/// What the rules of an interface say to packets from, or to, `far`: any match admits (SG-2).
pub fn security_groups(
    fabric: &Fabric<'_>,
    eni: &Eni,
    direction: Direction,
    far: IpAddr,
    load: &Load,
) -> Admission {
    let mut admission = Admission { refused: load.ports.clone(), ..Admission::default() };
    for (group, position, rule) in rules(fabric, eni, direction) {
        admission.any_rules = true;
        let is_peer = match rule.peer {
            Peer::Cidr(cidr) => cidr.contains(&far),
            Peer::SecurityGroup(group) => fabric.is_member(group, far),
        };
        let matched = if is_peer { load.ports.and(&matched(rule.traffic, load)) } else { Ranges::default() };
        if matched.is_empty() {
            continue;
        }
        admission.anywhere |= is_anywhere(rule) && has_ports(load.protocol);
        let new = matched.and(&admission.refused);
        if !new.is_empty() {
            admission.refused = admission.refused.without(&new);
            admission.parts.push((group, position, new));
        }
    }
    admission
}

/// Whether rules of this direction open every port of the protocol to everybody (SG-32).
pub fn opens_everything(fabric: &Fabric<'_>, eni: &Eni, direction: Direction, protocol: Protocol) -> bool {
    has_ports(protocol)
        && rules(fabric, eni, direction).any(|(_, _, rule)| {
            is_anywhere(rule)
                && match rule.traffic {
                    Traffic::All => true,
                    Traffic::Tcp(ports) => protocol == Protocol::TCP && ports == PortRange::ALL,
                    Traffic::Udp(ports) => protocol == Protocol::UDP && ports == PortRange::ALL,
                    Traffic::Protocol(number) => protocol == Protocol(number),
                    Traffic::Icmp(_) => false,
                }
        })
}

/// The groups of an interface that have a rule which names a group, would match the load, and has `member` in it.
pub fn references(fabric: &Fabric<'_>, eni: &Eni, direction: Direction, member: IpAddr, load: &Load) -> bool {
    rules(fabric, eni, direction).any(|(_, _, rule)| {
        matches!(rule.peer, Peer::SecurityGroup(group) if fabric.is_member(group, member))
            && !load.ports.and(&matched(rule.traffic, load)).is_empty()
    })
}

fn rules<'a>(
    fabric: &'a Fabric<'_>,
    eni: &'a Eni,
    direction: Direction,
) -> impl Iterator<Item = (SecurityGroupId, u32, &'a SecurityGroupRule)> {
    let groups = eni.security_groups.iter().filter_map(|id| fabric.security_group(*id));
    groups.flat_map(move |group| {
        let rules = match direction {
            Direction::Inbound => &group.inbound,
            Direction::Outbound => &group.outbound,
        };
        (0..).zip(rules).map(|(position, rule)| (group.id, position, rule))
    })
}

/// The destination ports that a rule is about; what has no ports has all of them (SG-8, NACL-9).
fn matched(traffic: Traffic, load: &Load) -> Ranges {
    let all = || Ranges::ports(PortRange::ALL);
    match traffic {
        Traffic::All => all(),
        Traffic::Tcp(ports) if load.protocol == Protocol::TCP => Ranges::ports(ports),
        Traffic::Udp(ports) if load.protocol == Protocol::UDP => Ranges::ports(ports),
        Traffic::Icmp(IcmpMatch { kind, code })
            if load.protocol == Protocol::ICMP
                && kind.is_none_or(|kind| kind == load.icmp.0)
                && code.is_none_or(|code| code == load.icmp.1) =>
        {
            all()
        }
        Traffic::Protocol(number) if load.protocol == Protocol(number) => all(),
        _ => Ranges::default(),
    }
}

fn is_anywhere(rule: &SecurityGroupRule) -> bool {
    matches!(rule.peer, Peer::Cidr(cidr) if cidr.prefix_len() == 0)
}

fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP)
}

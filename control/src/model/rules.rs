//! Security groups and network ACLs: what was written, expanded and checked.

use localvpc_api::tables::{Action, IcmpMatch, PortRange, Traffic};
use localvpc_api::trace::Direction;

use crate::config::decode::OneOrMany;
use crate::config::document::{AclEntrySection, SgRuleSection};
use crate::config::values::{PeerWord, ProtocolWord};
use crate::config::{Span, Spanned};

use super::build::{Scope, check_cidr, place};
use super::id::Kind;
use super::{NetworkAcl, NetworkAclEntry, Peer, SecurityGroup, SecurityGroupRule};

/// The security group and the network ACL that every VPC has (VPC-13).
pub const DEFAULT: &str = "default";

/// All security groups of a VPC.
pub fn security_groups(scope: &mut Scope<'_>) -> Vec<SecurityGroup> {
    let vpc = scope.vpc;
    let mut groups = Vec::new();
    for named in vpc.value.security_groups.iter() {
        let (name, section) = (&named.name, &named.value);
        if name == "self" || name.starts_with("sg-") {
            let message = format!("a security group cannot be called `{name}`");
            let help =
                "`self` stands for the group that holds a rule, and AWS keeps names that begin with `sg-`.";
            scope.errors.error(named.span, message).help(help);
        }
        let outbound = match &section.outbound {
            Some(rules) => sg_rules(scope, name, rules, Direction::Outbound),
            None => vec![allow_all_out()],
        };
        groups.push(SecurityGroup {
            name: name.clone(),
            id: scope.id(Kind::SecurityGroup, name),
            place: Some(place(named.span)),
            description: section.description.as_ref().map(|text| text.value.0.clone()).unwrap_or_default(),
            inbound: sg_rules(scope, name, &section.inbound, Direction::Inbound),
            outbound,
        });
    }
    if !groups.iter().any(|group| group.name == DEFAULT) {
        groups.push(SecurityGroup {
            name: DEFAULT.into(),
            id: scope.id(Kind::SecurityGroup, DEFAULT),
            place: None,
            description: "default VPC security group".into(),
            inbound: vec![SecurityGroupRule {
                traffic: Traffic::All,
                peer: Peer::SecurityGroup(DEFAULT.into()),
                description: String::new(),
                place: None,
            }],
            outbound: vec![allow_all_out()],
        });
    }
    groups
}

/// All network ACLs of a VPC.
pub fn network_acls(scope: &mut Scope<'_>) -> Vec<NetworkAcl> {
    let vpc = scope.vpc;
    let mut acls = Vec::new();
    for named in vpc.value.network_acls.iter() {
        acls.push(NetworkAcl {
            name: named.name.clone(),
            id: scope.id(Kind::NetworkAcl, &named.name),
            place: Some(place(named.span)),
            inbound: acl_entries(scope, &named.name, &named.value.inbound, Direction::Inbound),
            outbound: acl_entries(scope, &named.name, &named.value.outbound, Direction::Outbound),
        });
    }
    if !acls.iter().any(|acl| acl.name == DEFAULT) {
        // NACL-6.
        let allow = NetworkAclEntry {
            number: 100,
            action: Action::Allow,
            traffic: Traffic::All,
            cidr: anywhere(),
            place: None,
        };
        acls.push(NetworkAcl {
            name: DEFAULT.into(),
            id: scope.id(Kind::NetworkAcl, DEFAULT),
            place: None,
            inbound: vec![allow.clone()],
            outbound: vec![allow],
        });
    }
    acls
}

/// Every IPv4 address.
pub fn anywhere() -> ipnet::IpNet {
    ipnet::Ipv4Net::default().into()
}

/// The rule a new group has (SG-3).
fn allow_all_out() -> SecurityGroupRule {
    SecurityGroupRule {
        traffic: Traffic::All,
        peer: Peer::Cidr(anywhere()),
        description: String::new(),
        place: None,
    }
}

/// The rules of one direction. A written rule with several ports or peers stands for several rules.
fn sg_rules(
    scope: &mut Scope<'_>,
    group: &str,
    sections: &[SgRuleSection],
    direction: Direction,
) -> Vec<SecurityGroupRule> {
    let mut rules: Vec<(SecurityGroupRule, Span)> = Vec::new();
    for section in sections {
        let traffic = sg_traffic(scope, section);
        let peers = sg_peers(scope, group, section, direction);
        for traffic in traffic {
            for peer in &peers {
                let same =
                    |(rule, _): &&(SecurityGroupRule, Span)| rule.traffic == traffic && rule.peer == *peer;
                if let Some((_, first)) = rules.iter().find(same) {
                    let first = *first;
                    let message = format!("security group `{group}` has this rule twice");
                    scope
                        .errors
                        .error(section.span, message)
                        .related(first, "the first one")
                        .help("remove one.");
                    continue;
                }
                let description =
                    section.description.as_ref().map(|text| text.value.0.clone()).unwrap_or_default();
                let place = Some(place(section.span));
                rules.push((
                    SecurityGroupRule { traffic, peer: peer.clone(), description, place },
                    section.span,
                ));
            }
        }
    }
    rules.into_iter().map(|(rule, _)| rule).collect()
}

fn sg_traffic(scope: &mut Scope<'_>, section: &SgRuleSection) -> Vec<Traffic> {
    let mut traffic = Vec::new();
    traffic.extend(section.tcp.iter().map(|ports| Traffic::Tcp(ports.value)));
    traffic.extend(section.udp.iter().map(|ports| Traffic::Udp(ports.value)));
    if let Some(icmp) = &section.icmp {
        traffic.extend(icmp_traffic(scope, icmp.kind.value.0.kind, icmp.code));
    }
    if let Some(number) = &section.protocol {
        traffic.push(protocol_traffic(number.value.0));
    }
    let all = section.all.filter(|all| all.value);
    match (all, traffic.is_empty()) {
        (Some(_), true) => traffic.push(Traffic::All),
        (Some(all), false) => {
            scope
                .errors
                .error(all.span, "`all` admits every protocol, so naming another is contradictory")
                .help("leave `all` out to admit only what is named, or leave the others out.");
        }
        (None, true) if section.icmp.is_none() => {
            let help = "write `tcp: 443`, `udp: 53`, `icmp: echo-request`, `protocol: 50` or `all: true`.";
            scope.errors.error(section.span, "the rule names no protocol").help(help);
        }
        (None, _) => {}
    }
    traffic
}

fn sg_peers(scope: &mut Scope<'_>, group: &str, section: &SgRuleSection, direction: Direction) -> Vec<Peer> {
    let (right, wrong, key, other) = match direction {
        Direction::Inbound => (&section.from, &section.to, "from", "to"),
        Direction::Outbound => (&section.to, &section.from, "to", "from"),
    };
    if let Some(first) = wrong.first() {
        let message = format!("an {} rule takes `{key}`, not `{other}`", word(direction));
        scope.errors.error(first.span, message).help(match direction {
            Direction::Inbound => "`from` is who may send to the members of the group.",
            Direction::Outbound => "`to` is who the members of the group may send to.",
        });
    } else if right.is_empty() {
        let message = format!("the rule has no `{key}`");
        let help =
            format!("write `{key}:` with a CIDR (`0.0.0.0/0` is everyone), a security group or `self`.");
        scope.errors.error(section.span, message).help(help);
    }
    peers(scope, group, right)
}

fn peers(scope: &mut Scope<'_>, group: &str, words: &OneOrMany<Spanned<PeerWord>>) -> Vec<Peer> {
    let vpc = scope.vpc;
    let mut peers = Vec::new();
    for word in words.iter() {
        match &word.value {
            PeerWord::Itself => peers.push(Peer::SecurityGroup(group.to_owned())),
            PeerWord::Cidr(cidr) => {
                if check_cidr(
                    scope.errors,
                    &Spanned { value: *cidr, span: word.span },
                    &format!("range {cidr}"),
                ) {
                    peers.push(Peer::Cidr(*cidr));
                }
            }
            PeerWord::Group(name) => {
                let known =
                    name == DEFAULT || vpc.value.security_groups.iter().any(|named| named.name == *name);
                if known {
                    peers.push(Peer::SecurityGroup(name.clone()));
                } else if vpc.value.instances.iter().any(|named| named.name == *name) {
                    let message = format!("`{name}` is an instance; a rule names a security group or a CIDR");
                    let help = format!("give `{name}` a security group of its own and name that here.");
                    scope.errors.error(word.span, message).help(help);
                } else {
                    scope.undefined(
                        "security group",
                        "security_groups",
                        name,
                        word.span,
                        &group_names(scope),
                    );
                }
            }
        }
    }
    peers
}

/// Names of the security groups of a VPC.
pub fn group_names<'a>(scope: &Scope<'a>) -> Vec<&'a str> {
    let names = scope.vpc.value.security_groups.iter().map(|named| named.name.as_str());
    names.chain([DEFAULT]).collect()
}

fn acl_entries(
    scope: &mut Scope<'_>,
    acl: &str,
    sections: &[AclEntrySection],
    direction: Direction,
) -> Vec<NetworkAclEntry> {
    let mut entries: Vec<(NetworkAclEntry, Span)> = Vec::new();
    for section in sections {
        let Some(entry) = acl_entry(scope, section, direction) else { continue };
        if let Some((_, first)) = entries.iter().find(|(other, _)| other.number == entry.number) {
            let first = *first;
            let message = format!(
                "network ACL `{acl}` has two {} entries with number {}",
                word(direction),
                entry.number
            );
            let numbers: Vec<u16> = entries.iter().map(|(other, _)| other.number).collect();
            let free = (entry.number..=HIGHEST_RULE).find(|number| !numbers.contains(number));
            let error = scope.errors.error(section.rule.span, message).related(first, "the first one");
            if let Some(free) = free {
                error.help(format!("the lowest number that matches decides; {free} is free."));
            }
            continue;
        }
        entries.push((entry, section.rule.span));
    }
    entries.sort_by_key(|(entry, _)| entry.number);
    entries.into_iter().map(|(entry, _)| entry).collect()
}

/// The highest number of a network ACL entry (NACL-2).
const HIGHEST_RULE: u16 = 32766;

fn acl_entry(
    scope: &mut Scope<'_>,
    section: &AclEntrySection,
    direction: Direction,
) -> Option<NetworkAclEntry> {
    let number = u16::try_from(section.rule.value).ok().filter(|number| (1..=HIGHEST_RULE).contains(number));
    if number.is_none() {
        let message = format!("rule number {} is out of range", section.rule.value);
        let help = format!("rule numbers go from 1 to {HIGHEST_RULE}.");
        scope.errors.error(section.rule.span, message).help(help);
    }
    let (action, protocol) = match (&section.allow, &section.deny) {
        (Some(protocol), None) => (Action::Allow, protocol),
        (None, Some(protocol)) => (Action::Deny, protocol),
        (None, None) => {
            let help = "write `allow: tcp` or `deny: all`, for example.";
            scope.errors.error(section.span, "the entry neither allows nor denies").help(help);
            return None;
        }
        (Some(_), Some(deny)) => {
            scope
                .errors
                .error(deny.span, "the entry allows and denies")
                .help("make it two entries with two numbers.");
            return None;
        }
    };
    let traffic = acl_traffic(scope, section, protocol)?;
    let cidr = acl_cidr(scope, section, direction)?;
    Some(NetworkAclEntry { number: number?, action, traffic, cidr, place: Some(place(section.span)) })
}

fn acl_traffic(
    scope: &mut Scope<'_>,
    section: &AclEntrySection,
    protocol: &Spanned<ProtocolWord>,
) -> Option<Traffic> {
    let ports = section.ports.map_or(PortRange::ALL, |ports| ports.value);
    let with_ports = matches!(protocol.value, ProtocolWord::Tcp | ProtocolWord::Udp);
    if let Some(ports) = section.ports.filter(|_| !with_ports) {
        let message = "ports go with tcp and udp only";
        scope.errors.error(ports.span, message).help("leave `ports` out, or name tcp or udp.");
        return None;
    }
    let icmp_span = section.r#type.map(|kind| kind.span).or(section.code.map(|code| code.span));
    if let Some(span) = icmp_span.filter(|_| protocol.value != ProtocolWord::Icmp) {
        scope.errors.error(span, "`type` and `code` go with icmp only").help("leave them out, or name icmp.");
        return None;
    }
    Some(match protocol.value {
        ProtocolWord::All => Traffic::All,
        ProtocolWord::Tcp => Traffic::Tcp(ports),
        ProtocolWord::Udp => Traffic::Udp(ports),
        ProtocolWord::Icmp => {
            icmp_traffic(scope, section.r#type.and_then(|kind| kind.value.0.kind), section.code)?
        }
        ProtocolWord::Number(number) => Traffic::Protocol(number),
    })
}

fn acl_cidr(scope: &mut Scope<'_>, section: &AclEntrySection, direction: Direction) -> Option<ipnet::IpNet> {
    let (right, wrong, key, other) = match direction {
        Direction::Inbound => (&section.from, &section.to, "from", "to"),
        Direction::Outbound => (&section.to, &section.from, "to", "from"),
    };
    if let Some(wrong) = wrong {
        let message = format!("an {} entry takes `{key}`, not `{other}`", word(direction));
        scope.errors.error(wrong.span, message).help(match direction {
            Direction::Inbound => "inbound entries look at the source of packets that enter the subnet.",
            Direction::Outbound => {
                "outbound entries look at the destination of packets that leave the subnet."
            }
        });
        return None;
    }
    let Some(cidr) = right else {
        let message = format!("the entry has no `{key}`");
        scope.errors.error(section.span, message).help(format!("`{key}: 0.0.0.0/0` is everyone."));
        return None;
    };
    check_cidr(scope.errors, cidr, &format!("range {}", cidr.value)).then_some(cidr.value)
}

/// ICMP of a type and code; a code needs a type (SG-8).
fn icmp_traffic(scope: &mut Scope<'_>, kind: Option<u8>, code: Option<Spanned<u8>>) -> Option<Traffic> {
    if let Some(code) = code.filter(|_| kind.is_none()) {
        scope.errors.error(code.span, "an ICMP code needs a type").help("write `type:` beside it.");
        return None;
    }
    Some(Traffic::Icmp(IcmpMatch { kind, code: code.map(|code| code.value) }))
}

fn protocol_traffic(number: u8) -> Traffic {
    match number {
        1 => Traffic::Icmp(IcmpMatch { kind: None, code: None }),
        6 => Traffic::Tcp(PortRange::ALL),
        17 => Traffic::Udp(PortRange::ALL),
        other => Traffic::Protocol(other),
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

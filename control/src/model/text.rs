//! Rules in words, as plans, `inspect` and `explain` show them.

use localvpc_api::tables::{Action, IcmpMatch, PortRange, Traffic};

use super::{NetworkAclEntry, Peer, Route, SecurityGroupRule, Target, Vpc};
use crate::config::values::icmp_type_name;

/// `tcp 443`, `udp 1024-65535`, `icmp echo-request`, `all`.
pub fn traffic(traffic: Traffic) -> String {
    match traffic {
        Traffic::All => "all".into(),
        Traffic::Tcp(ports) => format!("tcp {}", port_range(ports)),
        Traffic::Udp(ports) => format!("udp {}", port_range(ports)),
        Traffic::Icmp(IcmpMatch { kind: None, .. }) => "icmp all".into(),
        Traffic::Icmp(IcmpMatch { kind: Some(kind), code: None }) => format!("icmp {}", icmp_type_name(kind)),
        Traffic::Icmp(IcmpMatch { kind: Some(kind), code: Some(code) }) => {
            format!("icmp {} code {code}", icmp_type_name(kind))
        }
        Traffic::Protocol(number) => format!("protocol {number}"),
    }
}

/// `rule 100 allow tcp 443`.
pub fn acl_entry(entry: &NetworkAclEntry) -> String {
    format!("rule {} {} {}", entry.number, action(entry.action), traffic(entry.traffic))
}

/// `allow` or `deny`.
pub fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

/// `tcp 5432 from security group web`, `all traffic`; `word` is `from` or `to`.
pub fn rule(rule: &SecurityGroupRule, word: &str) -> String {
    let traffic = match (rule.traffic, &rule.peer) {
        (Traffic::All, Peer::Cidr(cidr)) if cidr.prefix_len() == 0 => return "all traffic".into(),
        (Traffic::All, _) => "all traffic".into(),
        (other, _) => traffic(other),
    };
    format!("{traffic} {word} {}", peer(&rule.peer))
}

/// `0.0.0.0/0`, `security group web`.
pub fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Cidr(cidr) => cidr.to_string(),
        Peer::SecurityGroup(name) => format!("security group {name}"),
    }
}

/// `0.0.0.0/0 → nat-a`; `0.0.0.0/0 → nat-a (deleted)` for a target that is gone.
pub fn route(vpc: &Vpc, route: &Route) -> String {
    let gone = matches!(route.target, Target::NatGateway(_)) && vpc.is_blackhole(route);
    let gone = if gone { " (deleted)" } else { "" };
    format!("{} → {}{gone}", route.destination, target(vpc, &route.target))
}

/// The word that a file has after `via:`.
pub fn target<'a>(vpc: &'a Vpc, target: &'a Target) -> &'a str {
    match target {
        Target::Local => "local",
        Target::Blackhole => "blackhole",
        Target::NatGateway(name) | Target::Instance(name) => name,
        Target::InternetGateway => vpc.internet_gateway.as_ref().map_or("blackhole", |gateway| &gateway.name),
    }
}

fn port_range(range: PortRange) -> String {
    match range {
        PortRange::ALL => "all".into(),
        PortRange { from, to } if from == to => from.to_string(),
        PortRange { from, to } => format!("{from}-{to}"),
    }
}

/// A sentence without the fact ids in parentheses that our own documentation has: `(NATGW-9)`.
pub fn without_facts(sentence: &str) -> String {
    let is_fact = |id: &str| {
        id.split_once('-').is_some_and(|(area, number)| {
            !area.is_empty()
                && area.bytes().all(|byte| byte.is_ascii_uppercase())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let mut out = String::new();
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once(" (") {
        match after.split_once(')') {
            Some((ids, end)) if ids.split(", ").all(is_fact) => {
                out += before;
                rest = end;
            }
            _ => {
                out += before;
                out += " (";
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_for_us() {
        for (ours, theirs) in [
            ("No port is left (NATGW-12, NATGW-15).", "No port is left."),
            ("Nothing in (NATGW-18), and no ping (NATGW-19).", "Nothing in, and no ping."),
            ("It is not IPv4 (IPv6 is not carried yet).", "It is not IPv4 (IPv6 is not carried yet)."),
            ("The checksum is wrong (RFC 1812 §5.2.2).", "The checksum is wrong (RFC 1812 §5.2.2)."),
        ] {
            assert_eq!(without_facts(ours), theirs);
        }
        for reason in localvpc_api::DiscardReason::ALL {
            let shown = without_facts(reason.explanation());
            assert!(!shown.contains("W-") && !shown.contains("T-1") && shown.ends_with('.'), "{shown}");
        }
    }
}

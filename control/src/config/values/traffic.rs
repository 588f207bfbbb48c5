//! What rules, routes and expectations say of packets: protocols, ports, ICMP types, and who sends them.

use ipnet::IpNet;
use localvpc_api::tables::{IcmpMatch, PortRange};
use schemars::{Schema, json_schema};

use super::super::decode::{Scalar, is_name};
use super::{choice, decimal};

/// The number of a protocol in a security group rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolNumber(pub u8);

/// The far end of a security group rule as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerWord {
    /// A range of addresses.
    Cidr(IpNet),
    /// The members of a group.
    Group(String),
    /// The members of the group that holds the rule.
    Itself,
}

/// The protocol of a network ACL entry as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolWord {
    /// Every protocol.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// Another one by number.
    Number(u8),
}

/// An ICMP type by name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpWord(pub IcmpMatch);

impl Scalar for ProtocolNumber {
    const NOUN: &'static str = "the number of a protocol";

    fn parse(text: &str) -> Option<Self> {
        decimal(text).map(Self)
    }

    fn help(text: &str) -> String {
        match text.to_lowercase().as_str() {
            "-1" | "all" => {
                "every protocol is written `all: true`; `0` is a protocol of its own, HOPOPT.".into()
            }
            "tcp" => "TCP is written with its ports: `tcp: 443`, or `tcp: all`.".into(),
            "udp" => "UDP is written with its ports: `udp: 53`, or `udp: all`.".into(),
            "icmp" => "ICMP is written with its type: `icmp: echo-request`, or `icmp: all`.".into(),
            _ => "write a whole number from 0 to 255; TCP, UDP and ICMP have keys of their own.".into(),
        }
    }

    fn schema() -> Schema {
        u8::schema()
    }
}

impl Scalar for PortRange {
    const NOUN: &'static str = "a port or a range of ports";

    fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::ALL);
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let range = Self { from: decimal(from.trim())?, to: decimal(to.trim())? };
        (range.from <= range.to).then_some(range)
    }

    fn help(text: &str) -> String {
        if text.contains(',') {
            return format!(
                "several are a list: `[{}]`; a network ACL entry takes one port or range.",
                text.split(',').map(str::trim).collect::<Vec<_>>().join(", ")
            );
        }
        if let Some((from, to)) = text.split_once('-')
            && let (Some(from), Some(to)) = (decimal::<u16>(from.trim()), decimal::<u16>(to.trim()))
        {
            return format!("the first port must not be greater than the last: `{to}-{from}`.");
        }
        "write one port (`443`), a range (`1024-65535`) or `all`; ports go from 0 to 65535.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 65535 },
            { "type": "string", "pattern": "^([0-9]+( *- *[0-9]+)?|all)$", "examples": ["1024-65535", "all"] },
        ] })
    }
}

impl Scalar for PeerWord {
    const NOUN: &'static str = "a CIDR, a security group or `self`";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "self" => Some(Self::Itself),
            _ if is_name(text) => Some(Self::Group(text.to_owned())),
            _ => text.parse().ok().map(Self::Cidr),
        }
    }

    fn help(text: &str) -> String {
        match text {
            _ if text.contains(['.', ':', '/']) => IpNet::help(text),
            _ => "write a CIDR (`0.0.0.0/0`), the name of a security group, or `self`.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": ["0.0.0.0/0", "self"] })
    }
}

impl Scalar for ProtocolWord {
    const NOUN: &'static str = "a protocol";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "icmp" => Some(Self::Icmp),
            number => decimal(number).map(|number| match number {
                1 => Self::Icmp,
                6 => Self::Tcp,
                17 => Self::Udp,
                other => Self::Number(other),
            }),
        }
    }

    fn help(text: &str) -> String {
        if text == "-1" {
            return "every protocol is written `all`; `0` is a protocol of its own, HOPOPT.".into();
        }
        choice(
            text,
            &["tcp", "udp", "icmp", "all"],
            "`tcp`, `udp`, `icmp`, `all` or a protocol number up to 255.",
        )
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["tcp", "udp", "icmp", "all"] },
            { "type": "integer", "minimum": 0, "maximum": 255 },
        ] })
    }
}

/// ICMP types that have a name here, with their number (IANA icmp-parameters).
const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

impl Scalar for IcmpWord {
    const NOUN: &'static str = "an ICMP type";

    fn parse(text: &str) -> Option<Self> {
        let kind = match ICMP_TYPES.iter().find(|(name, _)| *name == text) {
            _ if text == "all" => None,
            Some((_, number)) => Some(*number),
            None => Some(decimal(text)?),
        };
        Some(Self(IcmpMatch { kind, code: None }))
    }

    fn help(text: &str) -> String {
        let names: Vec<&str> = ICMP_TYPES.iter().map(|(name, _)| *name).collect();
        choice(
            text,
            &names,
            "`echo-request`, `all`, another type's name or number, or `{ type: 3, code: 4 }`.",
        )
    }

    fn schema() -> Schema {
        let names: Vec<&str> = ICMP_TYPES.iter().map(|(name, _)| *name).chain(["all"]).collect();
        json_schema!({ "anyOf": [{ "enum": names }, { "type": "integer", "minimum": 0, "maximum": 255 }] })
    }
}

/// The name of an ICMP type, or its number.
pub fn icmp_type_name(kind: u8) -> String {
    ICMP_TYPES
        .iter()
        .find(|(_, number)| *number == kind)
        .map_or_else(|| format!("type {kind}"), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(PortRange::parse("443"), Some(PortRange::one(443)));
        assert_eq!(PortRange::parse("1024-65535"), Some(PortRange { from: 1024, to: 65535 }));
        assert_eq!(PortRange::parse("all"), Some(PortRange::ALL));
        for wrong in ["65536", "2000-1000", "-1", "", "80-", "+80", "1-2-3"] {
            assert_eq!(PortRange::parse(wrong), None, "{wrong}");
        }
        assert!(PortRange::help("2000-1000").contains("`1000-2000`"));
    }

    #[test]
    fn peers() {
        assert_eq!(PeerWord::parse("self"), Some(PeerWord::Itself));
        assert_eq!(PeerWord::parse("web"), Some(PeerWord::Group("web".into())));
        assert!(matches!(PeerWord::parse("0.0.0.0/0"), Some(PeerWord::Cidr(_))));
        assert_eq!(PeerWord::parse("10.0.0.1"), None);
        assert!(PeerWord::help("10.0.0.1").contains("10.0.0.1/32"));
    }
}

//! Words and numbers of the document and how they are written.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::{Schema, json_schema};

use localvpc_api::tables::{IcmpMatch, PortRange};

use super::decode::{LONGEST_LAB, LONGEST_NAME, NAME_PATTERN, Scalar, is_lab_name, is_name, name_help};
use super::diagnostic::nearest;

/// Any text: a description, a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

/// A name of something in the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

/// The name of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabName(pub String);

/// The number of a protocol in a security group rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolNumber(pub u8);

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);

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

/// How the instances of a subnet map to namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// One namespace per instance.
    #[default]
    Instance,
    /// One namespace for the whole subnet.
    Shared,
}

/// Whether a NAT gateway has Elastic IPs (NATGW-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connectivity {
    /// Towards the internet, with an Elastic IP.
    #[default]
    Public,
    /// Towards other networks, without.
    Private,
}

/// Whether a NAT gateway exists still (NATGW-41).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatStateWord {
    /// It does.
    #[default]
    Available,
    /// It was deleted; routes may still lead to it.
    Deleted,
}

/// Whose quotas a lab keeps to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaWord {
    /// Nobody's.
    #[default]
    Off,
    /// Those of AWS.
    Aws,
}

/// Whether a device carries super-packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffloadWord {
    /// It does.
    #[default]
    On,
    /// Packets up to the MTU, checksums complete.
    Off,
}

/// The network namespace to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPath(pub PathBuf);

impl Scalar for Text {
    const NOUN: &'static str = "a text";

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn help(_: &str) -> String {
        "write one line of text.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl Scalar for Name {
    const NOUN: &'static str = "a name";

    fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    fn help(text: &str) -> String {
        name_help(text, LONGEST_NAME)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": NAME_PATTERN, "maxLength": LONGEST_NAME })
    }
}

impl Scalar for LabName {
    const NOUN: &'static str = "a name for a lab";

    fn parse(text: &str) -> Option<Self> {
        is_lab_name(text).then(|| Self(text.to_owned()))
    }

    fn help(text: &str) -> String {
        name_help(text, LONGEST_LAB)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": NAME_PATTERN, "maxLength": LONGEST_LAB })
    }
}

impl Scalar for ProtocolNumber {
    const NOUN: &'static str = "the number of a protocol";

    fn parse(text: &str) -> Option<Self> {
        decimal(text).map(Self)
    }

    fn help(text: &str) -> String {
        match text.to_lowercase().as_str() {
            "-1" | "all" => "every protocol is written `all: true`.".into(),
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

impl Scalar for bool {
    const NOUN: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(_: &str) -> String {
        "write `true` or `false`.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A number from 0 to 255: an ICMP type or code.
impl Scalar for u8 {
    const NOUN: &'static str = "a number from 0 to 255";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "write a whole number from 0 to 255.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 255 })
    }
}

/// A port.
impl Scalar for u16 {
    const NOUN: &'static str = "a port";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "ports go from 0 to 65535.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 65535 })
    }
}

/// A number, checked against its range by the model.
impl Scalar for u32 {
    const NOUN: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "write a whole number.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

impl Scalar for IpNet {
    const NOUN: &'static str = "a CIDR";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(text: &str) -> String {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                format!("a prefix length is missing: {address}/32 is the address alone.")
            }
            _ => "a CIDR is an address and a prefix length, such as 10.0.0.0/16.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+/[0-9]+$", "examples": ["10.0.0.0/16"] })
    }
}

impl Scalar for IpAddr {
    const NOUN: &'static str = "an address";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(text: &str) -> String {
        match text.parse::<IpNet>() {
            Ok(net) => format!("leave the prefix length out: {}.", net.addr()),
            Err(_) => "an address has four numbers from 0 to 255, such as 10.0.1.10.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+$", "examples": ["10.0.1.10"] })
    }
}

impl Scalar for Millis {
    const NOUN: &'static str = "a time";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim_start() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit).map(Self)
    }

    fn help(text: &str) -> String {
        match text.parse::<u64>() {
            Ok(number) => format!("a time has a unit (ms, s, m, h, d): `{number}s`."),
            Err(_) => "a time is a whole number with a unit (ms, s, m, h, d), such as `350s`.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|min|h|d)$", "examples": ["350s"] })
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ms if ms % 86_400_000 == 0 => write!(f, "{} d", ms / 86_400_000),
            ms if ms % 1_000 == 0 => write!(f, "{} s", ms / 1_000),
            ms => write!(f, "{ms} ms"),
        }
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

impl Scalar for NamespaceMode {
    const NOUN: &'static str = "a kind of namespace";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "instance" => Some(Self::Instance),
            "shared" => Some(Self::Shared),
            _ => None,
        }
    }

    fn help(_: &str) -> String {
        "`instance` (one namespace per instance, the default) or `shared` (one for the whole subnet).".into()
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["instance", "shared"] })
    }
}

impl Scalar for Connectivity {
    const NOUN: &'static str = "a kind of NAT gateway";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "public" => Some(Self::Public),
            "private" => Some(Self::Private),
            _ => None,
        }
    }

    fn help(_: &str) -> String {
        "`public` (with an `eip`, the default) or `private` (without).".into()
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["public", "private"] })
    }
}

impl Scalar for NatStateWord {
    const NOUN: &'static str = "a state of a NAT gateway";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "available" => Some(Self::Available),
            "deleted" => Some(Self::Deleted),
            _ => None,
        }
    }

    fn help(_: &str) -> String {
        "`available` (the default) or `deleted` (routes to it become blackholes).".into()
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["available", "deleted"] })
    }
}

impl Scalar for QuotaWord {
    const NOUN: &'static str = "a set of quotas";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "aws" => Some(Self::Aws),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    fn help(_: &str) -> String {
        "`aws` or `off` (the default).".into()
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["aws", "off"] })
    }
}

impl Scalar for OffloadWord {
    const NOUN: &'static str = "whether a device has offloads";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "on" => Some(Self::On),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    fn help(_: &str) -> String {
        "`on` (super-packets of up to 64 KiB, the default) or `off` (packets up to the MTU, checksums complete).".into()
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["on", "off"] })
    }
}

impl Scalar for AttachPath {
    const NOUN: &'static str = "a network namespace";

    fn parse(text: &str) -> Option<Self> {
        let inside = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if inside(text) {
            return Some(Self(PathBuf::from("/run/netns").join(text)));
        }
        if let Some(name) = text.strip_prefix("/run/netns/").or_else(|| text.strip_prefix("/var/run/netns/"))
        {
            return inside(name).then(|| Self(PathBuf::from("/run/netns").join(name)));
        }
        let pid = text.strip_prefix("/proc/")?.strip_suffix("/ns/net")?;
        decimal::<u32>(pid).map(|_| Self(PathBuf::from(text)))
    }

    fn help(_: &str) -> String {
        "write a name that `ip netns` lists, or `/proc/PID/ns/net`.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": ["NAME", "/proc/PID/ns/net"] })
    }
}

/// A decimal number without sign.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn choice(text: &str, words: &[&str], all: &str) -> String {
    match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected {all}"),
    }
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
    fn times() {
        assert_eq!(Millis::parse("350s"), Some(Millis(350_000)));
        assert_eq!(Millis::parse("5d"), Some(Millis(432_000_000)));
        for wrong in ["350", "s", "-1s", "1y", "99999999999999999999s", ""] {
            assert_eq!(Millis::parse(wrong), None, "{wrong}");
        }
        assert!(Millis::help("350").contains("`350s`"));
    }

    #[test]
    fn attach_takes_nothing_but_namespaces() {
        let path = |text: &str| AttachPath::parse(text).map(|path| path.0.display().to_string());
        assert_eq!(path("box").as_deref(), Some("/run/netns/box"));
        assert_eq!(path("/var/run/netns/box").as_deref(), Some("/run/netns/box"));
        assert_eq!(path("/proc/42/ns/net").as_deref(), Some("/proc/42/ns/net"));
        for wrong in ["", "..", "/etc/passwd", "/run/netns/../x", "/proc/self/ns/net", "/proc/1/../2/ns/net"]
        {
            assert_eq!(path(wrong), None, "{wrong}");
        }
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

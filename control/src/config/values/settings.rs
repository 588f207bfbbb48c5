//! Settings that are one of a few words, and the namespaces that instances attach to.

use std::path::PathBuf;

use schemars::{Schema, json_schema};

use super::super::decode::Scalar;
use super::decimal;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}

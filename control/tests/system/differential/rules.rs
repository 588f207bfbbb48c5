//! Random rules of security groups and a network ACL, written as YAML for a lab and as nftables for a router.

use std::fmt::Write;

/// SplitMix64: the same seed, the same rules and probes.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Instances with their addresses. Each has a security group of its own name.
pub const INSTANCES: [(&str, &str); 3] = [("web", "10.0.1.10"), ("app", "10.0.2.20"), ("db", "10.0.2.30")];

/// Far ends that rules name: ranges, and groups.
const PEERS: [&str; 9] = [
    "0.0.0.0/0",
    "0.0.0.0/0",
    "10.0.0.0/16",
    "10.0.2.0/24",
    "10.0.1.10/32",
    "198.51.100.10/32",
    "web",
    "app",
    "db",
];

/// What a rule matches beside addresses.
#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    /// Every protocol.
    All,
    /// TCP to these ports.
    Tcp(u16, u16),
    /// UDP to these ports.
    Udp(u16, u16),
    /// All of ICMP.
    Icmp,
}

/// A rule of a security group.
#[derive(Clone, Copy, Debug)]
pub struct GroupRule(Traffic, &'static str);

/// An entry of the network ACL around app and db.
#[derive(Clone, Copy, Debug)]
pub struct AclEntry(bool, Traffic, &'static str);

/// Everything that filters: rules in and out of each instance's group, entries into and out of the private subnet.
#[derive(Clone, Debug)]
pub struct Rules {
    groups: [(Vec<GroupRule>, Vec<GroupRule>); 3],
    acl: (Vec<AclEntry>, Vec<AclEntry>),
}

impl Rules {
    /// Some that let a good part of what is tried pass.
    pub fn random(random: &mut Random) -> Self {
        let mut group = || {
            let inbound =
                (0..2 + random.below(3)).map(|_| GroupRule(traffic(random), random.pick(&PEERS))).collect();
            let outbound = match random.below(3) {
                0 => (0..2 + random.below(3))
                    .map(|_| GroupRule(traffic(random), random.pick(&PEERS)))
                    .collect(),
                1 => ["tcp", "udp"].map(everything).into(),
                _ => vec![GroupRule(Traffic::All, "0.0.0.0/0")],
            };
            (inbound, outbound)
        };
        let groups = [group(), group(), group()];
        let mut entries = || {
            let some = (0..random.below(4)).map(|_| {
                let range = random.pick(&["0.0.0.0/0", "10.0.1.0/24", "198.51.100.0/24", "198.51.100.10/32"]);
                AclEntry(random.below(2) == 0, traffic(random), range)
            });
            let mut all: Vec<AclEntry> = some.collect();
            // Replies go to high ports; of the clients' half is below 40,000.
            let from = random.pick(&[1024, 1024, 40_000]);
            all.push(AclEntry(true, Traffic::Tcp(from, 65_535), "0.0.0.0/0"));
            all.push(AclEntry(true, Traffic::Udp(from, 65_535), "0.0.0.0/0"));
            if random.below(3) > 0 {
                all.push(AclEntry(true, Traffic::All, "0.0.0.0/0"));
            }
            all
        };
        Self { groups, acl: (entries(), entries()) }
    }

    /// The sections `network_acls` and `security_groups` of a VPC.
    pub fn yaml(&self) -> String {
        let mut text = String::from("    network_acls:\n      guard:\n");
        for (way, key, entries) in [("inbound", "from", &self.acl.0), ("outbound", "to", &self.acl.1)] {
            writeln!(text, "        {way}:").unwrap();
            for (number, AclEntry(allow, traffic, range)) in (1..).zip(entries) {
                let action = if *allow { "allow" } else { "deny" };
                let what = match traffic {
                    Traffic::All => "all".to_owned(),
                    Traffic::Icmp => "icmp".to_owned(),
                    Traffic::Tcp(from, to) => format!("tcp, ports: {from}-{to}"),
                    Traffic::Udp(from, to) => format!("udp, ports: {from}-{to}"),
                };
                writeln!(text, "          - {{ rule: {number}, {action}: {what}, {key}: {range} }}").unwrap();
            }
        }
        text += "    security_groups:\n";
        for ((name, _), (inbound, outbound)) in INSTANCES.iter().zip(&self.groups) {
            writeln!(text, "      {name}:").unwrap();
            for (way, key, rules) in [("inbound", "from", inbound), ("outbound", "to", outbound)] {
                writeln!(text, "        {way}:").unwrap();
                for GroupRule(traffic, peer) in once_each(rules) {
                    let what = match traffic {
                        Traffic::All => "all: true".to_owned(),
                        Traffic::Icmp => "icmp: all".to_owned(),
                        Traffic::Tcp(from, to) => format!("tcp: {from}-{to}"),
                        Traffic::Udp(from, to) => format!("udp: {from}-{to}"),
                    };
                    writeln!(text, "          - {{ {what}, {key}: {peer} }}").unwrap();
                }
            }
        }
        text
    }

    /// The chains `acl_in`, `acl_out`, and `in_<instance>`, `out_<instance>`: `return` admits.
    pub fn nft(&self) -> String {
        let mut text = String::new();
        for (chain, end, entries) in [("acl_in", "saddr", &self.acl.0), ("acl_out", "daddr", &self.acl.1)] {
            writeln!(text, "chain {chain} {{").unwrap();
            for AclEntry(allow, traffic, range) in entries {
                let action = if *allow { "return" } else { "drop" };
                writeln!(text, "  ip {end} {range} {} {action}", matches(traffic)).unwrap();
            }
            text += "  drop\n}\n";
        }
        for ((name, _), (inbound, outbound)) in INSTANCES.iter().zip(&self.groups) {
            for (way, end, rules) in [("in", "saddr", inbound), ("out", "daddr", outbound)] {
                writeln!(text, "chain {way}_{name} {{").unwrap();
                for GroupRule(traffic, peer) in rules {
                    let range =
                        INSTANCES.iter().find(|(name, _)| name == peer).map_or(*peer, |(_, address)| address);
                    writeln!(text, "  ip {end} {range} {} return", matches(traffic)).unwrap();
                }
                text += "  drop\n}\n";
            }
        }
        text
    }
}

fn traffic(random: &mut Random) -> Traffic {
    match random.below(8) {
        0 => Traffic::All,
        1 => Traffic::Icmp,
        2 | 3 => Traffic::Tcp(80, 80),
        4 => Traffic::Tcp(22, 443),
        5 => Traffic::Udp(53, 53),
        6 => Traffic::Udp(53, 5000),
        _ => Traffic::Tcp(0, 65_535),
    }
}

fn everything(protocol: &str) -> GroupRule {
    match protocol {
        "tcp" => GroupRule(Traffic::Tcp(0, 65_535), "0.0.0.0/0"),
        _ => GroupRule(Traffic::Udp(0, 65_535), "0.0.0.0/0"),
    }
}

/// A file with a rule twice is refused.
fn once_each(rules: &[GroupRule]) -> Vec<GroupRule> {
    let mut all: Vec<GroupRule> = Vec::new();
    for rule in rules {
        if !all.iter().any(|other| format!("{other:?}") == format!("{rule:?}")) {
            all.push(*rule);
        }
    }
    all
}

fn matches(traffic: &Traffic) -> String {
    match traffic {
        Traffic::All => String::new(),
        Traffic::Icmp => "ip protocol icmp".to_owned(),
        Traffic::Tcp(from, to) => format!("tcp dport {from}-{to}"),
        Traffic::Udp(from, to) => format!("udp dport {from}-{to}"),
    }
}

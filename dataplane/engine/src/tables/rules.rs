//! Matches packets against security group rules and network ACL entries.

mod matcher;

use std::net::IpAddr;

use ipnet::IpNet;
use localvpc_api::SecurityGroupId;
use localvpc_api::tables::{Action, NetworkAclEntry, Peer, PortRange, SecurityGroupRule, Traffic};
use localvpc_api::trace::Protocol;

use matcher::{Matcher, Pattern, PatternPeer};

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
#[derive(Debug)]
pub struct RuleSet {
    matcher: Matcher,
    /// Where each rule comes from.
    origins: Box<[(SecurityGroupId, u32)]>,
    /// Bits of the rules for 0.0.0.0/0, as the matcher has them.
    anywhere: Box<[u64]>,
    opens_all_tcp: bool,
    opens_all_udp: bool,
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::build([], |_| &[])
    }
}

impl RuleSet {
    /// Merges the rules of `groups`, in the order of the ENI. `members` tells the private addresses of the ENIs
    /// that carry a group (SG-20).
    pub fn build<'a>(
        groups: impl IntoIterator<Item = (SecurityGroupId, &'a [SecurityGroupRule])>,
        members: impl Fn(SecurityGroupId) -> &'a [IpAddr],
    ) -> Self {
        let (mut patterns, mut origins) = (Vec::new(), Vec::new());
        for (group, rules) in groups {
            for (position, rule) in (0..).zip(rules) {
                let peer = match rule.peer {
                    Peer::Cidr(cidr) => PatternPeer::Cidr(cidr),
                    Peer::SecurityGroup(group) => PatternPeer::Addresses(members(group)),
                };
                patterns.push(Pattern { traffic: rule.traffic, peer });
                origins.push((group, position));
            }
        }
        let mut anywhere = vec![0; patterns.len().div_ceil(64)];
        for (at, _) in patterns.iter().enumerate().filter(|(_, pattern)| is_anywhere(pattern.peer)) {
            anywhere[at / 64] |= 1 << (at % 64);
        }
        let opens = |protocol| patterns.iter().any(|pattern| opens_every_port(pattern, protocol));
        Self {
            matcher: Matcher::build(&patterns),
            origins: origins.into(),
            anywhere: anywhere.into(),
            opens_all_tcp: opens(Protocol::TCP),
            opens_all_udp: opens(Protocol::UDP),
        }
    }

    /// Whether some rule admits a packet from or to `peer`.
    #[inline]
    pub fn admit(&self, peer: IpAddr, selector: Selector) -> Option<Admission> {
        let (mut first, mut anywhere) = (None, 0);
        for (word, (matching, for_anywhere)) in
            self.matcher.matching(peer, selector).zip(&self.anywhere).enumerate()
        {
            if first.is_none() && matching != 0 {
                first = Some(word * 64 + matching.trailing_zeros() as usize);
            }
            anywhere |= matching & for_anywhere;
        }
        let (security_group, rule) = self.origins[first?];
        let has_ports = matches!(selector, Selector::Tcp(_) | Selector::Udp(_));
        Some(Admission { security_group, rule, anywhere: has_ports && anywhere != 0 })
    }

    /// Whether a rule opens every port of the protocol to 0.0.0.0/0: the other half of an untracked flow (SG-32).
    /// Never for another protocol than TCP and UDP.
    #[inline]
    pub fn opens_everything(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::TCP => self.opens_all_tcp,
            Protocol::UDP => self.opens_all_udp,
            _ => false,
        }
    }

    /// Whether there is no rule at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }
}

/// The entries of a network ACL, one direction.
#[derive(Debug)]
pub struct AclRules {
    matcher: Matcher,
    entries: Box<[(u16, Action)]>,
}

impl Default for AclRules {
    fn default() -> Self {
        Self::build(&[])
    }
}

impl AclRules {
    /// Compiles entries, which ascend by number.
    pub fn build(entries: &[NetworkAclEntry]) -> Self {
        let pattern =
            |entry: &NetworkAclEntry| Pattern { traffic: entry.traffic, peer: PatternPeer::Cidr(entry.cidr) };
        let patterns: Vec<_> = entries.iter().map(pattern).collect();
        Self {
            matcher: Matcher::build(&patterns),
            entries: entries.iter().map(|entry| (entry.number, entry.action)).collect(),
        }
    }

    /// The entry with the lowest number that matches; `None`: the final `*` entry, which denies.
    #[inline]
    pub fn first_match(&self, address: IpAddr, selector: Selector) -> Option<(u16, Action)> {
        let mut matching = self.matcher.matching(address, selector).enumerate();
        let (word, bits) = matching.find(|(_, bits)| *bits != 0)?;
        Some(self.entries[word * 64 + bits.trailing_zeros() as usize])
    }

    /// The first and the last of the TCP ports around this one that match the same entries, whatever the address.
    pub fn tcp_ports_like(&self, port: u16) -> (u16, u16) {
        self.matcher.tcp_ports_like(port)
    }
}

fn is_anywhere(peer: PatternPeer) -> bool {
    matches!(peer, PatternPeer::Cidr(cidr) if cidr.prefix_len() == 0)
}

fn opens_every_port(pattern: &Pattern, protocol: Protocol) -> bool {
    let every_port = match pattern.traffic {
        Traffic::All => true,
        Traffic::Tcp(ports) => protocol == Protocol::TCP && ports == PortRange::ALL,
        Traffic::Udp(ports) => protocol == Protocol::UDP && ports == PortRange::ALL,
        Traffic::Protocol(number) => protocol == Protocol(number),
        Traffic::Icmp(_) => false,
    };
    every_port && matches!(pattern.peer, PatternPeer::Cidr(IpNet::V4(cidr)) if cidr.prefix_len() == 0)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use localvpc_api::tables::IcmpMatch;
    use proptest::prelude::*;

    use super::*;

    const GROUPS: [SecurityGroupId; 2] = [SecurityGroupId(1), SecurityGroupId(2)];

    fn peer(cidr: &str) -> Peer {
        Peer::Cidr(cidr.parse().unwrap())
    }

    fn rule(traffic: Traffic, peer: Peer) -> SecurityGroupRule {
        SecurityGroupRule { traffic, peer }
    }

    fn tcp(from: u16, to: u16) -> Traffic {
        Traffic::Tcp(PortRange { from, to })
    }

    fn set(rules: &[SecurityGroupRule]) -> RuleSet {
        RuleSet::build([(GROUPS[0], rules)], |_| &[])
    }

    fn admitted_by(rules: &RuleSet, peer: &str, selector: Selector) -> Option<(u32, bool)> {
        rules.admit(peer.parse().unwrap(), selector).map(|admission| (admission.rule, admission.anywhere))
    }

    #[test]
    fn no_rule_admits_nothing() {
        assert!(RuleSet::default().is_empty());
        assert_eq!(admitted_by(&RuleSet::default(), "10.0.0.1", Selector::Tcp(80)), None);
        assert_eq!(AclRules::default().first_match(IpAddr::from([10, 0, 0, 1]), Selector::Tcp(80)), None);
    }

    #[test]
    fn a_port_range_includes_both_ends() {
        let rules =
            set(&[rule(tcp(80, 81), peer("10.0.0.0/8")), rule(tcp(65_535, 65_535), peer("10.0.0.0/8"))]);
        let expected = [
            (79, None),
            (80, Some(0)),
            (81, Some(0)),
            (82, None),
            (65_534, None),
            (65_535, Some(1)),
            (0, None),
        ];
        for (port, by) in expected {
            let admission = admitted_by(&rules, "10.0.0.1", Selector::Tcp(port));
            assert_eq!(admission.map(|(rule, _)| rule), by, "{port}");
        }
        assert_eq!(admitted_by(&rules, "10.0.0.1", Selector::Udp(80)), None);
        assert_eq!(admitted_by(&rules, "11.0.0.0", Selector::Tcp(80)), None);
        assert_eq!(admitted_by(&rules, "9.255.255.255", Selector::Tcp(80)), None);
    }

    /// SG-8: another protocol by its number is matched whole.
    #[test]
    fn protocols_match_by_number() {
        let rules = set(&[
            rule(Traffic::Protocol(47), peer("0.0.0.0/0")),
            rule(Traffic::Protocol(6), peer("0.0.0.0/0")),
        ]);
        assert_eq!(admitted_by(&rules, "10.0.0.1", Selector::Other(Protocol(47))), Some((0, false)));
        assert_eq!(admitted_by(&rules, "10.0.0.1", Selector::Other(Protocol(50))), None);
        assert_eq!(admitted_by(&rules, "10.0.0.1", Selector::Tcp(80)), Some((1, true)));
        assert!(rules.opens_everything(Protocol::TCP) && !rules.opens_everything(Protocol::UDP));
    }

    /// SG-36: port 22 is tracked, 80 is not, ICMP is.
    #[test]
    fn tells_both_halves_of_an_untracked_flow() {
        let inbound = set(&[
            rule(tcp(22, 22), peer("203.0.113.1/32")),
            rule(tcp(80, 80), peer("0.0.0.0/0")),
            rule(Traffic::Icmp(IcmpMatch { kind: None, code: None }), peer("0.0.0.0/0")),
        ]);
        assert_eq!(admitted_by(&inbound, "203.0.113.1", Selector::Tcp(22)), Some((0, false)));
        assert_eq!(admitted_by(&inbound, "203.0.113.1", Selector::Tcp(80)), Some((1, true)));
        assert_eq!(
            admitted_by(&inbound, "203.0.113.1", Selector::Icmp { kind: 8, code: 0 }),
            Some((2, false))
        );
        assert!(!inbound.opens_everything(Protocol::TCP));
        let outbound = set(&[rule(Traffic::All, peer("0.0.0.0/0"))]);
        assert!(outbound.opens_everything(Protocol::TCP) && outbound.opens_everything(Protocol::UDP));
        assert!(!outbound.opens_everything(Protocol::ICMP), "ICMP is always tracked (SG-34)");
        let narrow = set(&[rule(tcp(1, 65_535), peer("0.0.0.0/0")), rule(Traffic::All, peer("0.0.0.0/1"))]);
        assert!(!narrow.opens_everything(Protocol::TCP));
    }

    #[test]
    fn any_matching_rule_can_be_for_anywhere() {
        let rules = set(&[rule(tcp(22, 22), peer("10.0.0.0/8")), rule(tcp(0, 1000), peer("0.0.0.0/0"))]);
        assert_eq!(admitted_by(&rules, "10.0.0.1", Selector::Tcp(22)), Some((0, true)));
    }

    /// NACL-2.
    #[test]
    fn the_lowest_matching_entry_decides() {
        let entry = |number, action, traffic, cidr: &str| NetworkAclEntry {
            number,
            action,
            traffic,
            cidr: cidr.parse().unwrap(),
        };
        let acl = AclRules::build(&[
            entry(90, Action::Deny, tcp(22, 22), "10.0.3.0/24"),
            entry(100, Action::Allow, tcp(0, 1023), "10.0.0.0/16"),
            entry(32_766, Action::Deny, Traffic::All, "0.0.0.0/0"),
        ]);
        let first = |address: &str, port| acl.first_match(address.parse().unwrap(), Selector::Tcp(port));
        assert_eq!(first("10.0.3.1", 22), Some((90, Action::Deny)));
        assert_eq!(first("10.0.3.1", 23), Some((100, Action::Allow)));
        assert_eq!(first("10.0.4.1", 22), Some((100, Action::Allow)));
        assert_eq!(first("10.1.4.1", 22), Some((32_766, Action::Deny)));
        assert_eq!(acl.first_match(IpAddr::V6(Ipv6Addr::LOCALHOST), Selector::Tcp(22)), None, "NACL-10");
    }

    /// What the documentation says, word by word.
    mod naive {
        use super::*;

        pub fn traffic(traffic: Traffic, selector: Selector) -> bool {
            let protocol = match selector {
                Selector::Tcp(_) => Protocol::TCP,
                Selector::Udp(_) => Protocol::UDP,
                Selector::Icmp { .. } => Protocol::ICMP,
                Selector::Other(protocol) => protocol,
            };
            match (traffic, selector) {
                (Traffic::All, _) => true,
                (Traffic::Tcp(ports), Selector::Tcp(port)) | (Traffic::Udp(ports), Selector::Udp(port)) => {
                    ports.contains(port)
                }
                (Traffic::Icmp(rule), Selector::Icmp { kind, code }) => {
                    rule.kind.is_none_or(|it| it == kind) && rule.code.is_none_or(|it| it == code)
                }
                (Traffic::Protocol(number), _) => Protocol(number) == protocol,
                _ => false,
            }
        }

        pub fn admit(
            groups: &[Vec<SecurityGroupRule>; 2],
            members: &[Vec<IpAddr>; 2],
            from: IpAddr,
            selector: Selector,
        ) -> Option<Admission> {
            let peers = |peer| match peer {
                Peer::Cidr(cidr) => cidr.contains(&from),
                Peer::SecurityGroup(id) => members[id.0 as usize - 1].contains(&from),
            };
            let all = GROUPS
                .iter()
                .zip(groups)
                .flat_map(|(group, rules)| (0..).zip(rules).map(move |(at, rule)| (*group, at, rule)));
            let mut matching =
                all.filter(|(_, _, rule)| traffic(rule.traffic, selector) && peers(rule.peer)).peekable();
            let (security_group, rule, _) = *matching.peek()?;
            let anywhere =
                matching.any(|(_, _, rule)| matches!(rule.peer, Peer::Cidr(cidr) if cidr.prefix_len() == 0));
            let anywhere = anywhere && matches!(selector, Selector::Tcp(_) | Selector::Udp(_));
            Some(Admission { security_group, rule, anywhere })
        }
    }

    /// Few distinct values, so that rules overlap and packets meet their edges.
    fn port() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0), Just(1), 78..84u16, 1022..1026u16, Just(65_534), Just(65_535), any::<u16>()]
    }

    fn ports() -> impl Strategy<Value = PortRange> {
        prop_oneof![
            4 => (port(), port()).prop_map(|(a, b)| PortRange { from: a.min(b), to: a.max(b) }),
            1 => Just(PortRange::ALL),
        ]
    }

    fn octet() -> impl Strategy<Value = u8> {
        prop_oneof![0..4u8, Just(8), Just(255), any::<u8>()]
    }

    fn any_traffic() -> impl Strategy<Value = Traffic> {
        let icmp = prop::option::of((octet(), prop::option::of(octet())));
        prop_oneof![
            1 => Just(Traffic::All),
            4 => ports().prop_map(Traffic::Tcp),
            2 => ports().prop_map(Traffic::Udp),
            2 => icmp.prop_map(|icmp| Traffic::Icmp(IcmpMatch { kind: icmp.map(|it| it.0), code: icmp.and_then(|it| it.1) })),
            1 => prop_oneof![Just(1u8), Just(6), Just(17), Just(47), Just(0), Just(255)].prop_map(Traffic::Protocol),
        ]
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            3 => port().prop_map(Selector::Tcp),
            2 => port().prop_map(Selector::Udp),
            2 => (octet(), octet()).prop_map(|(kind, code)| Selector::Icmp { kind, code }),
            1 => prop_oneof![Just(47u8), Just(0), Just(255)].prop_map(|number| Selector::Other(Protocol(number))),
        ]
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = prop_oneof![0x0a00_0000..0x0a00_0010u32, any::<u32>(), Just(0), Just(u32::MAX)];
        let v6 = prop_oneof![0..8u128, Just(u128::MAX)];
        prop_oneof![9 => v4.prop_map(|bits| Ipv4Addr::from(bits).into()), 1 => v6.prop_map(|bits| Ipv6Addr::from(bits).into())]
    }

    fn cidr() -> impl Strategy<Value = IpNet> {
        let length = prop_oneof![Just(128u8), Just(32), Just(31), Just(29), Just(8), Just(0), 0..32u8];
        (address(), length).prop_map(|(address, length)| match address {
            IpAddr::V4(address) => IpNet::from(Ipv4Net::new_assert(address, length.min(32)).trunc()),
            IpAddr::V6(address) => IpNet::from(Ipv6Net::new_assert(address, length).trunc()),
        })
    }

    fn group() -> impl Strategy<Value = Vec<SecurityGroupRule>> {
        let reference = prop::sample::select(&GROUPS[..]).prop_map(Peer::SecurityGroup);
        let peer = prop_oneof![4 => cidr().prop_map(Peer::Cidr), 1 => reference];
        let rule = (any_traffic(), peer).prop_map(|(traffic, peer)| rule(traffic, peer)).boxed();
        // Now and then more than fit one word of bits.
        prop_oneof![3 => prop::collection::vec(rule.clone(), 0..12), 1 => prop::collection::vec(rule, 60..90)]
    }

    proptest! {
        #[test]
        fn groups_admit_what_any_rule_admits(
            groups in [group(), group()],
            members in [prop::collection::vec(address(), 0..6), prop::collection::vec(address(), 0..6)],
            packets in prop::collection::vec((address(), selector()), 60),
        ) {
            let rules = GROUPS.iter().copied().zip(groups.iter().map(Vec::as_slice));
            let set = RuleSet::build(rules, |id| &members[id.0 as usize - 1]);
            for (from, selector) in packets {
                prop_assert_eq!(set.admit(from, selector), naive::admit(&groups, &members, from, selector));
            }
        }

        #[test]
        fn an_acl_decides_by_its_first_match(
            entries in prop::collection::vec((any_traffic(), cidr(), any::<bool>()), 0..90),
            packets in prop::collection::vec((address(), selector()), 60),
        ) {
            let entry = |(number, (traffic, cidr, allow))| {
                let action = if allow { Action::Allow } else { Action::Deny };
                NetworkAclEntry { number, action, traffic, cidr }
            };
            let entries: Vec<_> = (1..).zip(entries).map(entry).collect();
            let acl = AclRules::build(&entries);
            for (address, selector) in packets {
                let matches = |entry: &&NetworkAclEntry| {
                    entry.cidr.contains(&address) && naive::traffic(entry.traffic, selector)
                };
                let expected = entries.iter().find(matches).map(|entry| (entry.number, entry.action));
                prop_assert_eq!(acl.first_match(address, selector), expected);
            }
        }
    }
}

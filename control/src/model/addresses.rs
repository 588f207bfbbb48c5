//! Which addresses may be used, and which one an instance gets that asks for none.
//!
//! An automatic address starts at a slot that only its owner's name decides and takes the next
//! free one. So adding or removing one instance moves others only where two names meet at a slot,
//! and then never those that stand earlier in the file. Fixed addresses are taken first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::id::stable_hash;
use crate::config::Span;

/// Addresses of one scope (a VPC, the internet) and who has them.
#[derive(Default)]
pub struct Taken {
    owners: BTreeMap<IpAddr, Owner>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// For messages: ``instance `web` ``.
    pub what: String,
    /// Where the address was given to it; `None` for an automatic one.
    pub span: Option<Span>,
}

impl Taken {
    /// Gives `address` to `what`.
    ///
    /// # Errors
    /// Who has it already.
    pub fn claim(&mut self, address: IpAddr, what: &str, span: Span) -> Result<(), Owner> {
        match self.owners.entry(address) {
            Entry::Occupied(other) => Err(other.get().clone()),
            Entry::Vacant(free) => {
                free.insert(Owner { what: what.to_owned(), span: Some(span) });
                Ok(())
            }
        }
    }

    /// Gives `what` an address from `first` to `last`: the slot of `name`, or the next free one.
    pub fn automatic(&mut self, (first, last): (IpAddr, IpAddr), name: &str, what: &str) -> Option<IpAddr> {
        let (low, high) = (bits(first), bits(last));
        let count = (high.checked_sub(low)? + 1).min(u128::from(u64::MAX));
        let start = u128::from(stable_hash(&[name], 0)) % count;
        // One more probe than there are addresses taken is enough.
        let probes = count.min(self.owners.len() as u128 + 1);
        let free = (0..probes)
            .map(|step| from_bits(low + (start + step) % count, first))
            .find(|address| !self.owners.contains_key(address))?;
        self.owners.insert(free, Owner { what: what.to_owned(), span: None });
        Some(free)
    }
}

/// First and last address of a subnet that may be used (VPC-16).
pub fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) =
        (bits(subnet.network()).saturating_add(4), bits(subnet.broadcast()).saturating_sub(1));
    (from_bits(first, subnet.network()), from_bits(last, subnet.network()))
}

/// First and last address of a pool of public addresses.
pub fn pool_range(pool: IpNet) -> (IpAddr, IpAddr) {
    if pool.max_prefix_len() - pool.prefix_len() < 2 {
        return (pool.network(), pool.broadcast());
    }
    (
        from_bits(bits(pool.network()) + 1, pool.network()),
        from_bits(bits(pool.broadcast()) - 1, pool.network()),
    )
}

/// Why AWS keeps an address of a subnet to itself (VPC-16).
pub fn reserved(subnet: IpNet, address: IpAddr) -> Option<&'static str> {
    if address == subnet.broadcast() {
        return Some("the last address of the subnet");
    }
    match bits(address).checked_sub(bits(subnet.network()))? {
        0 => Some("the network address"),
        1 => Some("the VPC router"),
        2 => Some("the DNS server"),
        3 => Some("future use"),
        _ => None,
    }
}

/// What kind of address it is, when it cannot exist on the internet.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    const RANGES: &[(&str, &str)] = &[
        ("10.0.0.0/8", "a private address (RFC 1918)"),
        ("172.16.0.0/12", "a private address (RFC 1918)"),
        ("192.168.0.0/16", "a private address (RFC 1918)"),
        ("100.64.0.0/10", "a shared address (RFC 6598)"),
        ("0.0.0.0/8", "an address of \"this network\""),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    ];
    RANGES.iter().find(|(range, _)| within(range, address)).map(|(_, what)| *what)
}

/// Ranges that no VPC may use (VPC-3).
pub fn forbidden_for_vpc(cidr: IpNet) -> Option<&'static str> {
    const RANGES: &[&str] = &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"];
    RANGES.iter().find(|range| overlap(parsed(range), cidr)).copied()
}

/// Why AWS adds no CIDR `next` to a VPC that has `cidrs`, the primary one first: families of private ranges do not mix (VPC-8).
pub fn forbidden_beside(cidrs: &[IpNet], next: IpNet) -> Option<&'static str> {
    const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    const BENCHMARK: &str = "198.19.0.0/16";
    let primary = *cidrs.first()?;
    let is_in = |range: &str, cidr: IpNet| overlap(parsed(range), cidr);
    let own = PRIVATE.into_iter().find(|range| is_in(range, primary));
    if PRIVATE.into_iter().any(|range| own != Some(range) && is_in(range, next)) {
        return Some(match own {
            Some("10.0.0.0/8") => "a VPC of 10.0.0.0/8 takes none of 172.16.0.0/12 and 192.168.0.0/16",
            Some("172.16.0.0/12") => "a VPC of 172.16.0.0/12 takes none of 10.0.0.0/8 and 192.168.0.0/16",
            Some(_) => "a VPC of 192.168.0.0/16 takes none of 10.0.0.0/8 and 172.16.0.0/12",
            None => "a VPC that begins outside the private ranges (RFC 1918) takes none of them",
        });
    }
    if own.is_some() && is_in(BENCHMARK, next) {
        return Some("a VPC of a private range takes none of 198.19.0.0/16");
    }
    if own == Some("172.16.0.0/12") && is_in("172.31.0.0/16", next) {
        return Some("172.31.0.0/16 is the range of default VPCs");
    }
    let low = cidrs.iter().any(|cidr| is_in("10.0.0.0/15", *cidr));
    (low && is_in("10.0.0.0/16", next))
        .then_some("a VPC with a range in 10.0.0.0/15 takes none of 10.0.0.0/16")
}

/// Whether two ranges share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// A range for a subnet in one of `cidrs` that meets none of `others`: near `wanted`, as large as possible.
pub fn fitting(wanted: IpNet, cidrs: &[IpNet], others: &[IpNet]) -> Option<IpNet> {
    let free = |candidate: &IpNet| {
        cidrs.iter().any(|cidr| cidr.contains(candidate))
            && !others.iter().any(|other| overlap(*other, *candidate))
    };
    let same_start =
        (wanted.prefix_len()..=28).filter_map(|length| IpNet::new(wanted.network(), length).ok());
    let elsewhere = cidrs
        .iter()
        .filter(|cidr| cidr.prefix_len() <= wanted.prefix_len())
        .filter_map(|cidr| cidr.subnets(wanted.prefix_len()).ok())
        .flatten();
    same_start.chain(elsewhere).find(free)
}

fn within(range: &str, address: IpAddr) -> bool {
    parsed(range).contains(&address)
}

/// For the constants of this file; a range that parses to nothing contains nothing.
fn parsed(range: &str) -> IpNet {
    range.parse().unwrap_or(IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with these bits, of the family of `like`.
fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn vpc_16_five_addresses_are_reserved() {
        let subnet = net("10.0.1.0/28");
        let free: Vec<u8> =
            (0..16).filter(|last| reserved(subnet, ip(&format!("10.0.1.{last}"))).is_none()).collect();
        assert_eq!(free, (4..=14).collect::<Vec<_>>());
        assert_eq!(usable(subnet), (ip("10.0.1.4"), ip("10.0.1.14")));
    }

    #[test]
    fn vpc_8_families_of_cidrs_that_do_not_mix() {
        let takes = |first: &str, next: &str| forbidden_beside(&[net(first)], net(next)).is_none();
        let kinds = [
            "10.2.0.0/16",
            "172.16.0.0/16",
            "192.168.0.0/16",
            "198.19.0.0/16",
            "100.64.0.0/16",
            "203.0.112.0/20",
        ];
        let more = [
            "10.3.0.0/16",
            "172.17.0.0/16",
            "192.168.1.0/24",
            "198.19.1.0/24",
            "100.65.0.0/16",
            "8.8.0.0/16",
        ];
        let expected = [
            [true, false, false, false, true, true],
            [false, true, false, false, true, true],
            [false, false, true, false, true, true],
            [false, false, false, true, true, true],
            [false, false, false, true, true, true],
            [false, false, false, true, true, true],
        ];
        for (first, row) in kinds.iter().zip(expected) {
            assert_eq!(more.map(|next| takes(first, next)), row, "beside {first}");
        }
        assert!(!takes("172.16.0.0/16", "172.31.0.0/20"), "default VPCs");
        assert!(!takes("10.0.0.0/24", "10.0.5.0/24") && !takes("10.1.0.0/16", "10.0.0.0/16"));
        assert!(takes("10.0.0.0/16", "10.1.0.0/16") && takes("10.2.0.0/16", "10.0.0.0/16"));
        let low = [net("10.2.0.0/16"), net("10.1.0.0/20")];
        assert!(forbidden_beside(&low, net("10.0.0.0/20")).is_some(), "whichever came first");
        assert!(forbidden_beside(&[], net("10.0.0.0/16")).is_none());
    }

    #[test]
    fn automatic_addresses_do_not_move_when_others_come() {
        let range = usable(net("10.0.1.0/24"));
        let assign = |names: &[&str]| -> Vec<IpAddr> {
            let mut taken = Taken::default();
            names.iter().map(|name| taken.automatic(range, name, name).unwrap()).collect()
        };
        let few = assign(&["a", "b", "c"]);
        assert_eq!(assign(&["a", "b", "c", "d", "e"])[..3], few);
        assert_eq!(assign(&["x", "a"])[1], few[0], "x stands before a and has another slot");
    }

    #[test]
    fn a_full_subnet_has_no_address_left() {
        let mut taken = Taken::default();
        let range = usable(net("10.0.1.0/28"));
        let given: Vec<_> = (0..11).map(|n| taken.automatic(range, &n.to_string(), "x").unwrap()).collect();
        assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 11);
        assert_eq!(taken.automatic(range, "one more", "x"), None);
    }

    #[test]
    fn a_fitting_range_starts_where_it_was_wanted() {
        let vpc = [net("10.0.0.0/16")];
        assert_eq!(fitting(net("10.0.2.0/23"), &vpc, &[net("10.0.3.0/24")]), Some(net("10.0.2.0/24")));
        assert_eq!(fitting(net("10.0.3.0/24"), &vpc, &[net("10.0.2.0/23")]), Some(net("10.0.0.0/24")));
        assert_eq!(fitting(net("10.0.0.0/16"), &vpc, &[net("10.0.0.0/16")]), None);
    }
}

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

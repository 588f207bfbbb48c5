//! What an address is that no instance or internet host can have.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Model, Vpc, not_public, reserved};

/// What `address` is to a sender in `vpc` (or on the internet): a sentence or two where nothing in the lab can
/// have it, so that no rule or route would help; `None` for every other address.
pub fn what_nothing_has(model: &Model, vpc: Option<&Vpc>, address: IpAddr) -> Option<String> {
    if let IpAddr::V4(v4) = address
        && let Some(what) = nowhere(v4)
    {
        return Some(format!("{address} is {what}"));
    }
    match vpc {
        Some(vpc) if vpc.cidrs.iter().any(|cidr| cidr.contains(&address)) => in_vpc(vpc, address),
        Some(vpc) => elsewhere(model, &format!("in VPC {}", vpc.name), address),
        None => elsewhere(model, "on the internet", address),
    }
}

/// Addresses that are the same everywhere.
fn nowhere(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_broadcast() {
        return Some("the broadcast address, which a VPC does not carry: name one instance.");
    }
    if address.is_multicast() {
        return Some("a multicast address, which a VPC does not carry: name one instance.");
    }
    if address.is_link_local() {
        return Some(
            "a link-local address. Link-local services (169.254.169.254: metadata, 169.254.169.253: DNS, \
             169.254.169.123: time) are not implemented yet.",
        );
    }
    if address.octets()[0] == 0 {
        return Some("an address of \"this network\", which nothing can have.");
    }
    None
}

fn in_vpc(vpc: &Vpc, address: IpAddr) -> Option<String> {
    let Some(subnet) = vpc.subnets.iter().find(|subnet| subnet.cidr.contains(&address)) else {
        let name = &vpc.name;
        return Some(format!("{address} is in no subnet of VPC {name}, so nothing can have it."));
    };
    let in_subnet = format!("subnet {} ({})", subnet.name, subnet.cidr);
    Some(match reserved(subnet.cidr, address)? {
        "the VPC router" => format!("{address} is the VPC router of {in_subnet}: it answers nothing."),
        "the DNS server" => format!(
            "{address} is the DNS server of {in_subnet}, which is not implemented yet: names are in /etc/hosts."
        ),
        why => {
            format!(
                "{address} is reserved in {in_subnet}: {why}. No instance can have it, and nothing answers."
            )
        }
    })
}

/// Addresses that exist only inside VPCs, seen from elsewhere.
fn elsewhere(model: &Model, here: &str, address: IpAddr) -> Option<String> {
    let kind = not_public(address)?;
    let other = model.vpcs.iter().find(|vpc| vpc.cidrs.iter().any(|cidr| cidr.contains(&address)));
    Some(match other {
        Some(other) => format!(
            "{address} is an address of VPC {}, which nobody outside it can name: from elsewhere an instance is reached by \
             its Elastic IP.",
            other.name
        ),
        None => format!("{address} is {kind}: {here} nothing has it, and no internet host can."),
    })
}

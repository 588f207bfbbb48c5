//! From words to the ends of a path: names, ids, addresses.

use super::*;

/// What a word stands for.
///
/// # Errors
/// A name that is unknown, an address that several have.
pub(super) fn end<'a>(index: &'a Index, word: &str, side: Side) -> Result<End<'a>, ErrorView> {
    let model = index.model();
    let host = model.internet_hosts.first();
    if word == "internet" {
        if !model.has_internet() {
            let message = "this lab has no internet: give a VPC an `internet_gateway:` or add `internet:`";
            return Err(error("not_found", message.into()));
        }
        return Ok(End::Internet(host));
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return match side {
            Side::Sender => sender_of(index, address),
            Side::Receiver => Ok(End::Address(address, owner_name(index, address))),
        };
    }
    let in_vpc = word.split_once('/').and_then(|(vpc, rest)| {
        Some((model.vpcs.iter().find(|it| it.name == vpc)?, rest.parse::<IpAddr>().ok()?))
    });
    if let Some((vpc, address)) = in_vpc {
        let owner = vpc.instances.iter().find(|instance| instance.has(address));
        return owner.map(|instance| End::Instance(vpc, instance, address)).ok_or_else(|| {
            error("not_found", format!("no instance of VPC {} has the address {address}", vpc.name))
        });
    }
    if let Some((vpc, instance)) = instance(index, word) {
        return Ok(End::Instance(vpc, instance, instance.ip));
    }
    if let Some(host) = model.internet_hosts.iter().find(|host| host.name == word) {
        return Ok(End::Host(host));
    }
    if let Some((vpc, nat)) = one_of(index, word, "NAT gateway", |vpc| {
        vpc.nat_gateways.iter().map(|nat| (nat.name.as_str(), nat.id.as_str(), nat)).collect()
    })? {
        if side == Side::Sender && nat.state == NatGatewayState::Deleted {
            let message = format!("NAT gateway `{word}` is deleted: it sends nothing (BAD_STATE)");
            return Err(error("not_found", message));
        }
        return Ok(End::NatGateway(vpc, nat));
    }
    if let Some((_, gateway)) = one_of(index, word, "internet gateway", |vpc| {
        vpc.internet_gateway.iter().map(|it| (it.name.as_str(), it.id.as_str(), it)).collect()
    })? {
        return Ok(End::InternetGateway(gateway, host));
    }
    Err(other_kind(index, word).unwrap_or_else(|| unknown(index, word)))
}

/// A sender by address: one that somebody has, or any of the internet.
fn sender_of(index: &Index, address: IpAddr) -> Result<End<'_>, ErrorView> {
    let model = index.model();
    if let Some(host) = model.internet_hosts.iter().find(|host| host.ip == address) {
        return Ok(End::Host(host));
    }
    let owns = |instance: &Instance| instance.private_of(address).is_some();
    let owners: Vec<_> = model.instances().filter(|(_, instance)| owns(instance)).collect();
    match owners.as_slice() {
        [(vpc, instance)] => {
            let private = instance.private_of(address).unwrap_or(instance.ip);
            Ok(End::Instance(vpc, instance, private))
        }
        [] if model.has_internet() && crate::model::not_public(address).is_none() => {
            Ok(End::Address(address, None))
        }
        [] => Err(error("not_found", format!("no instance or internet host has the address {address}"))),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, instance)| instance.name.as_str()).collect();
            let which: Vec<String> =
                several.iter().map(|(vpc, _)| format!("{}/{address}", vpc.name)).collect();
            let message = format!(
                "{address} is the address of {}, in different VPCs. Which VPC? Say {}",
                quoted(names),
                quoted(which.iter().map(String::as_str)).replace(" and ", " or ")
            );
            Err(error("invalid_request", message))
        }
    }
}

/// An instance by name, `vpc/name`, or its AWS-style id or that of its interface.
fn instance<'a>(index: &'a Index, word: &str) -> Option<(&'a Vpc, &'a Instance)> {
    index.model().instances().find(|(vpc, instance)| {
        [&instance.name, &instance.id, &instance.eni_id].iter().any(|name| *name == word)
            || word.split_once('/') == Some((&vpc.name, &instance.name))
    })
}

/// Something of a VPC by name, `vpc/name` or id.
fn one_of<'a, T>(
    index: &'a Index,
    word: &str,
    kind: &str,
    list: impl Fn(&'a Vpc) -> Vec<(&'a str, &'a str, &'a T)>,
) -> Result<Option<(&'a Vpc, &'a T)>, ErrorView> {
    let vpcs = index.model().vpcs.iter();
    let all = vpcs.flat_map(|vpc| list(vpc).into_iter().map(move |(name, id, it)| (vpc, name, id, it)));
    let mut found = all.filter(|(vpc, name, id, _)| {
        [*name, *id].contains(&word)
            || word.strip_prefix(&vpc.name).and_then(|rest| rest.strip_prefix('/')) == Some(*name)
    });
    let Some((vpc, name, _, first)) = found.next() else { return Ok(None) };
    let others: Vec<String> = found.map(|(vpc, name, ..)| format!("{}/{name}", vpc.name)).collect();
    if others.is_empty() {
        return Ok(Some((vpc, first)));
    }
    let names = [vec![format!("{}/{name}", vpc.name)], others].concat();
    let names = quoted(names.iter().map(String::as_str));
    Err(error("invalid_request", format!("several VPCs have {} `{word}`: {names}", with_article(kind))))
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with('i') { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Whose address it is, when it is only one's.
fn owner_name(index: &Index, address: IpAddr) -> Option<String> {
    let model = index.model();
    let instances = model.instances().filter(|(_, instance)| instance.private_of(address).is_some());
    let hosts = model.internet_hosts.iter().filter(|host| host.ip == address).map(|host| host.name.clone());
    let nat_gateways =
        model.vpcs.iter().flat_map(|vpc| &vpc.nat_gateways).filter(|nat| {
            nat.addresses.iter().any(|own| own.private == address || own.public == Some(address))
        });
    let names = instances.map(|(_, instance)| instance.name.clone());
    let mut names = names.chain(hosts).chain(nat_gateways.map(|nat| nat.name.clone()));
    let first = names.next()?;
    names.next().is_none().then_some(first)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

/// A name of something that is no end of a path.
fn other_kind(index: &Index, word: &str) -> Option<ErrorView> {
    let kind = index.model().vpcs.iter().find_map(|vpc| {
        if vpc.name == word {
            return Some("VPC");
        }
        let subnet = vpc.subnet(word).map(|_| "subnet");
        let table = vpc.route_table(word).map(|_| "route table");
        let acl = vpc.network_acl(word).map(|_| "network ACL");
        let group = vpc.security_group(word).map(|_| "security group");
        subnet.or(table).or(acl).or(group)
    })?;
    let message = format!(
        "`{word}` is a {kind}, which sends and receives nothing: name an instance, an internet host, an address, \
         `internet`, an internet gateway or a NAT gateway"
    );
    Some(error("invalid_request", message))
}

fn unknown(index: &Index, word: &str) -> ErrorView {
    let model = index.model();
    let mut names: Vec<&str> = model.instances().map(|(_, instance)| instance.name.as_str()).collect();
    names.extend(model.internet_hosts.iter().map(|host| host.name.as_str()));
    names.extend(model.vpcs.iter().flat_map(|vpc| &vpc.nat_gateways).map(|nat| nat.name.as_str()));
    let gateways = model.vpcs.iter().filter_map(|vpc| vpc.internet_gateway.as_ref());
    names.extend(gateways.map(|gateway| gateway.name.as_str()));
    let hint = match nearest(word, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", quoted(names)),
    };
    error("not_found", format!("`{word}` is not in lab {}: {hint}", model.lab))
}

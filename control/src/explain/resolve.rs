//! Names to what is meant.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::LinkId;
use localvpc_api::trace::{Protocol, TraceRequest, Tuple};

use crate::analysis::{Destination, EPHEMERAL, Question, Ranges, Source};
use crate::config::diagnostic::{nearest, quoted};
use crate::lower::Index;
use crate::model::{Instance, InternetGateway, InternetHost, NatGateway, NatGatewayState, Vpc};
use crate::view::{ErrorView, ExplainRequest, Sendable};

use super::Asked;
use super::addresses::what_nothing_has;

/// Resolves a question against a lab.
///
/// # Errors
/// A name that is unknown, an address that several have, a protocol that is none.
pub fn resolve(index: &Index, request: &ExplainRequest) -> Result<Asked, ErrorView> {
    let protocol = protocol(&request.protocol)?;
    let from = end(index, &request.from, Side::Sender)?;
    let to = end(index, &request.to, Side::Receiver)?;
    let port = port(protocol, request)?;
    let source_ports = source_ports(request)?;
    let question = Question {
        from: from.source(index)?,
        source_address: request.source_address,
        to: to.destination(index, &request.to)?,
        protocol,
        ports: Ranges::one(port.into()),
        source_ports,
    };
    let link = from.link(index);
    let source = request.source_address.map(IpAddr::V4).or_else(|| from.sends_as());
    let destination = to.address_for(&from);
    let kernel = kernel(&from, &to, index, source, destination);
    // On the internet nobody has a private address, and a packet to one shows it; in another VPC somebody may.
    let sendable = destination.or_else(|| to.sends_as().filter(|_| from.vpc().is_none()));
    let shown_port = (port != 0).then_some(port);
    // A dry run of the dataplane needs a link and two addresses.
    let trace = match (link, source, sendable) {
        (Some(link), Some(source), Some(destination))
            if kernel.is_none() && is_unicast(source) && is_unicast(destination) =>
        {
            let first = question.source_ports.first().map_or(0, |port| port as u16);
            // A port of Linux's range that few programs are given, and an identifier for ICMP echo.
            let source_port = if request.source_port.is_some() { first } else { 40_000 };
            let (source_port, destination_port) = match protocol {
                Protocol::TCP | Protocol::UDP => (source_port, port),
                Protocol::ICMP => (source_port, source_port),
                _ => (0, 0),
            };
            let tuple = Tuple { source, destination, source_port, destination_port, protocol };
            Some(TraceRequest { link, tuple, reply: true })
        }
        _ => None,
    };
    let send = trace.as_ref().and_then(|trace: &TraceRequest| {
        let to = match destination {
            Some(address) => receiver(index, from.vpc(), address),
            None => to.speaker(index),
        };
        Some(Sendable { from: from.speaker(index)?, packet: trace.tuple, source_ports: Vec::new(), to })
    });
    let nowhere = destination.filter(|_| matches!(to, End::Address(..)));
    Ok(Asked {
        question,
        trace,
        send,
        from: from.label(&request.from, source, None),
        to: to.label(&request.to, destination, shown_port),
        rest: format!(
            "{} {}{}",
            request.to,
            request.protocol,
            request.port.map(|port| format!("/{port}")).unwrap_or_default()
        ),
        nowhere: nowhere.and_then(|address| what_nothing_has(index.model(), from.vpc(), address)),
        kernel,
        unnamed: match destination {
            Some(_) => None,
            None => to.without_public_address(),
        },
    })
}

/// One end of a path.
enum End<'a> {
    Instance(&'a Vpc, &'a Instance),
    NatGateway(&'a Vpc, &'a NatGateway),
    InternetGateway(&'a InternetGateway, Option<&'a InternetHost>),
    /// Any address of the internet; the host that stands for it where one is needed.
    Internet(Option<&'a InternetHost>),
    Host(&'a InternetHost),
    /// An address as it is, and whose it is as far as known.
    Address(IpAddr, Option<String>),
}

impl<'a> End<'a> {
    fn source(&self, index: &Index) -> Result<Source, ErrorView> {
        let lost = || error("internal", "the sender has no row".into());
        Ok(match self {
            Self::Instance(_, instance) => Source::Eni(index.eni_of(&instance.name).ok_or_else(lost)?),
            Self::NatGateway(_, nat) => {
                Source::NatGateway(index.nat_gateway_by_id(&nat.id).ok_or_else(lost)?)
            }
            Self::InternetGateway(gateway, _) => {
                Source::InternetGateway(index.internet_gateway_by_id(&gateway.id).ok_or_else(lost)?)
            }
            Self::Internet(_) => Source::Internet,
            Self::Host(host) => Source::Host(v4(host.ip)?),
            Self::Address(address, _) => Source::Host(v4(*address)?),
        })
    }

    fn destination(&self, index: &Index, word: &str) -> Result<Destination, ErrorView> {
        let lost = || error("internal", "the receiver has no row".into());
        Ok(match self {
            Self::Instance(_, instance) => Destination::Eni(index.eni_of(&instance.name).ok_or_else(lost)?),
            Self::NatGateway(_, nat) if nat.state == NatGatewayState::Deleted => {
                let message = format!("NAT gateway `{word}` is deleted: it has no address (BAD_STATE)");
                return Err(error("not_found", message));
            }
            Self::NatGateway(_, nat) => {
                Destination::NatGateway(index.nat_gateway_by_id(&nat.id).ok_or_else(lost)?)
            }
            Self::InternetGateway(gateway, _) => {
                Destination::InternetGateway(index.internet_gateway_by_id(&gateway.id).ok_or_else(lost)?)
            }
            Self::Internet(_) => Destination::Internet,
            Self::Host(host) => Destination::Address(v4(host.ip)?),
            Self::Address(address, _) => Destination::Address(v4(*address)?),
        })
    }

    /// The VPC it is in; none for what is on the internet.
    fn vpc(&self) -> Option<&'a Vpc> {
        match self {
            Self::Instance(vpc, _) | Self::NatGateway(vpc, _) => Some(vpc),
            _ => None,
        }
    }

    /// The link that it is behind; none for what has no namespace.
    fn link(&self, index: &Index) -> Option<LinkId> {
        match self {
            Self::Instance(_, instance) => index.link_of(index.eni_of(&instance.name)?),
            Self::Host(_) | Self::Internet(_) | Self::InternetGateway(..) => index.internet_link(),
            Self::Address(address, _) => {
                let hosts = &index.model().internet_hosts;
                hosts.iter().any(|host| host.ip == *address).then(|| index.internet_link())?
            }
            Self::NatGateway(..) => None,
        }
    }

    /// The address it sends from; for the internet that of a host which stands for it.
    fn sends_as(&self) -> Option<IpAddr> {
        match self {
            Self::Instance(_, instance) => Some(instance.ip),
            Self::NatGateway(_, nat) => nat.addresses.first().map(|address| address.private),
            Self::InternetGateway(_, host) | Self::Internet(host) => host.map(|host| host.ip),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    /// The instance or host whose namespace sends for it; a host speaks for all of the internet.
    fn speaker(&self, index: &Index) -> Option<String> {
        match self {
            Self::Instance(_, instance) => Some(instance.name.clone()),
            Self::Host(host) | Self::Internet(Some(host)) | Self::InternetGateway(_, Some(host)) => {
                Some(host.name.clone())
            }
            Self::Address(..) => index.model().internet_hosts.first().map(|host| host.name.clone()),
            Self::NatGateway(..) | Self::Internet(None) | Self::InternetGateway(_, None) => None,
        }
    }

    /// The address under which the sender knows it: private inside a VPC, public from elsewhere.
    fn address_for(&self, from: &End<'_>) -> Option<IpAddr> {
        let same = |vpc: &Vpc| from.vpc().is_some_and(|own| own.name == vpc.name);
        match self {
            Self::Instance(vpc, instance) if same(vpc) => Some(instance.ip),
            Self::Instance(_, instance) => instance.public.map(|public| public.ip),
            Self::NatGateway(vpc, nat) if same(vpc) => nat.addresses.first().map(|address| address.private),
            Self::NatGateway(_, nat) => nat.addresses.first().and_then(|address| address.public),
            Self::InternetGateway(_, host) | Self::Internet(host) => host.map(|host| host.ip),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    fn label(&self, word: &str, address: Option<IpAddr>, port: Option<u16>) -> String {
        let address = match self {
            Self::Internet(_) => return port.map_or("internet".into(), |port| format!("internet:{port}")),
            Self::InternetGateway(..) => {
                return port.map_or_else(|| word.into(), |port| format!("{word}:{port}"));
            }
            _ => address.or(self.sends_as()).map_or_else(String::new, |address| address.to_string()),
        };
        let end = port.map_or_else(|| address.clone(), |port| format!("{address}:{port}"));
        let name = match self {
            Self::Instance(_, instance) => Some(instance.name.as_str()),
            Self::NatGateway(_, nat) => Some(nat.name.as_str()),
            Self::Host(host) => Some(host.name.as_str()),
            Self::Address(_, name) => name.as_deref(),
            Self::Internet(_) | Self::InternetGateway(..) => None,
        };
        name.map_or_else(|| end.clone(), |name| format!("{name} {end}"))
    }

    /// What to do about an end that nothing outside its VPC can name (IGW-6).
    fn without_public_address(&self) -> Option<Unnamed> {
        let (vpc, name, subnet) = match self {
            Self::Instance(vpc, instance) => (vpc, &instance.name, &instance.subnet),
            Self::NatGateway(vpc, nat) => (vpc, &nat.name, &nat.subnet),
            _ => return None,
        };
        let advice = match &vpc.internet_gateway {
            _ if matches!(self, Self::NatGateway(..)) => {
                format!("NAT gateway {name} is private, and no NAT gateway lets anything in.")
            }
            Some(gateway) => format!(
                "To let it in, give {name} an `eip:` and route its subnet {subnet} to {}; \
                 to reach it from inside, go through a bastion.",
                gateway.name
            ),
            None => format!(
                "To let it in, give the VPC an `internet_gateway:`, {name} an `eip:`, and its subnet {subnet} a route there."
            ),
        };
        Some(Unnamed { name: name.clone(), advice })
    }
}

/// The instance or host that has an address, seen from a VPC or the internet.
fn receiver(index: &Index, vpc: Option<&Vpc>, address: IpAddr) -> Option<String> {
    let model = index.model();
    let inside = vpc.and_then(|vpc| vpc.instances.iter().find(|instance| instance.has(address)));
    let public = || {
        let mut all = model.instances().map(|(_, instance)| instance);
        all.find(|instance| instance.addresses().any(|(_, public)| public == Some(address)))
    };
    if let Some(instance) = inside.or_else(public) {
        return Some(instance.name.clone());
    }
    model.internet_hosts.iter().find(|host| host.ip == address).map(|host| host.name.clone())
}

/// An end that has no address for the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Its name.
    pub name: String,
    /// What would help.
    pub advice: String,
}

/// Why the kernel of one namespace delivers without a packet that anybody could look at.
fn kernel(
    from: &End<'_>,
    to: &End<'_>,
    index: &Index,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
) -> Option<(LinkId, String)> {
    let link = from.link(index)?;
    let destination = destination?;
    if destination.is_loopback() {
        return Some((
            link,
            format!("{destination} is a loopback address: packets to it stay in the namespace"),
        ));
    }
    if Some(destination) == source {
        return Some((link, format!("{destination} is its own address, so no packet leaves it")));
    }
    let is_behind_it = match to {
        End::Internet(_) | End::InternetGateway(..) | End::Host(_) => to.link(index) == Some(link),
        End::Instance(..) => to.link(index) == Some(link) && to.address_for(from) == to.sends_as(),
        End::Address(address, _) => {
            let neighbour = from.vpc().and_then(|vpc| vpc.instances.iter().find(|it| it.has(*address)));
            let neighbour = neighbour.and_then(|neighbour| index.eni_of(&neighbour.name));
            to.link(index).or(neighbour.and_then(|eni| index.link_of(eni))) == Some(link)
        }
        End::NatGateway(..) => false,
    };
    is_behind_it.then(|| (link, "both addresses are in it, so no packet leaves it".to_owned()))
}

fn end<'a>(index: &'a Index, word: &str, side: Side) -> Result<End<'a>, ErrorView> {
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
        return owner.map(|instance| End::Instance(vpc, instance)).ok_or_else(|| {
            error("not_found", format!("no instance of VPC {} has the address {address}", vpc.name))
        });
    }
    if let Some((vpc, instance)) = instance(index, word) {
        return Ok(End::Instance(vpc, instance));
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
        [(vpc, instance)] => Ok(End::Instance(vpc, instance)),
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
enum Side {
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

fn protocol(word: &str) -> Result<Protocol, ErrorView> {
    match word {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "icmp" => Ok(Protocol::ICMP),
        number => number.parse().map(Protocol).map_err(|_| {
            error(
                "invalid_request",
                format!("`{word}` is not a protocol: tcp, udp, icmp or a number up to 255"),
            )
        }),
    }
}

fn port(protocol: Protocol, request: &ExplainRequest) -> Result<u16, ErrorView> {
    match (protocol, request.port) {
        (Protocol::TCP | Protocol::UDP, Some(port)) => Ok(port),
        (Protocol::TCP | Protocol::UDP, None) => {
            Err(error("invalid_request", format!("{protocol} needs a destination port: {protocol}/443")))
        }
        _ => Ok(0),
    }
}

fn source_ports(request: &ExplainRequest) -> Result<Ranges, ErrorView> {
    let Some(from) = request.source_port else { return Ok(Ranges::of(EPHEMERAL.0, EPHEMERAL.1)) };
    let to = request.source_port_to.unwrap_or(from);
    if to < from {
        let message = format!("the source ports {from}-{to} are none: the first is greater than the last");
        return Err(error("invalid_request", message));
    }
    Ok(Ranges::of(from.into(), to.into()))
}

fn is_unicast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if !matches!(v4.octets()[0], 0 | 127 | 224..))
}

fn v4(address: IpAddr) -> Result<Ipv4Addr, ErrorView> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => Err(error("invalid_request", format!("{v6}: IPv6 is not carried yet"))),
    }
}

/// An error for people.
pub fn error(kind: &str, message: String) -> ErrorView {
    ErrorView { kind: kind.into(), message, positions: Vec::new() }
}

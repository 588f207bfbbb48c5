//! Names to the packet that is meant.

use std::net::IpAddr;

use localvpc_api::trace::{Protocol, TraceRequest, Tuple};
use localvpc_api::{DiscardReason, LinkId};

use crate::config::diagnostic::{nearest, quoted};
use crate::lower::Index;
use crate::model::{Instance, InternetHost, NatGateway, NatGatewayState, Vpc};
use crate::view::{ErrorView, ExplainOutcome, ExplainRequest, ExplainStep, Explanation};

use super::addresses::what_nothing_has;
use super::{Asked, Question};

/// Resolves a question against what runs.
///
/// # Errors
/// A name that is unknown, an address that several have, a protocol that is none.
pub fn resolve(index: &Index, request: &ExplainRequest) -> Result<Question, ErrorView> {
    let protocol = protocol(&request.protocol)?;
    let from = sender(index, &request.from)?;
    let to = receiver(index, &request.to)?;
    let (source_port, destination_port) = ports(protocol, request)?;
    let link = from.link(index)?;
    let source = from.address();
    let labels = |address: Option<IpAddr>| Labels {
        from: from.label(&request.from),
        to: to.label(
            address,
            (destination_port != 0 && protocol != Protocol::ICMP).then_some(destination_port),
        ),
        protocol: protocol.to_string(),
    };
    let Some(destination) = to.address_for(&from) else {
        return Ok(Question::Answered(Box::new(no_public_address(&to, labels(None), source, protocol))));
    };
    let tuple = Tuple { source, destination, source_port, destination_port, protocol };
    let labels = labels(Some(destination));
    if destination.is_loopback() {
        let decision = format!("{destination} is a loopback address: packets to it stay in the namespace");
        return Ok(Question::Answered(Box::new(in_the_kernel(index, link, labels, tuple, decision))));
    }
    if destination == source {
        let decision = format!("{destination} is its own address, so no packet leaves it");
        return Ok(Question::Answered(Box::new(in_the_kernel(index, link, labels, tuple, decision))));
    }
    if to.link(index) == Some(link) {
        let decision = "both addresses are in it, so no packet leaves it".to_owned();
        return Ok(Question::Answered(Box::new(in_the_kernel(index, link, labels, tuple, decision))));
    }
    let port = request.port.map(|port| format!("/{port}")).unwrap_or_default();
    Ok(Question::Trace(Asked {
        request: TraceRequest { link, tuple, reply: true },
        from: labels.from,
        to: labels.to,
        rest: format!("{} {}{port}", request.to, request.protocol),
        destination: what_nothing_has(index.model(), from.vpc(), destination),
    }))
}

/// A source port of Linux's ephemeral range, and an identifier for ICMP echo.
const EPHEMERAL: u16 = 40_000;

struct Labels {
    from: String,
    to: String,
    protocol: String,
}

/// Who sends.
enum Sender<'a> {
    Instance(&'a Vpc, &'a Instance),
    Host(&'a InternetHost),
}

/// Who receives.
enum Receiver<'a> {
    Instance(&'a Vpc, &'a Instance),
    NatGateway(&'a Vpc, &'a NatGateway),
    Host(&'a InternetHost),
    /// An address as it is, and whose it is as far as known.
    Address(IpAddr, Option<String>),
}

impl<'a> Sender<'a> {
    /// The VPC it is in; none for an internet host.
    fn vpc(&self) -> Option<&'a Vpc> {
        match self {
            Self::Instance(vpc, _) => Some(vpc),
            Self::Host(_) => None,
        }
    }

    fn address(&self) -> IpAddr {
        match self {
            Self::Instance(_, instance) => instance.ip,
            Self::Host(host) => host.ip,
        }
    }

    fn link(&self, index: &Index) -> Result<LinkId, ErrorView> {
        let link = match self {
            Self::Instance(_, instance) => index.eni_of(&instance.name).and_then(|eni| index.link_of(eni)),
            Self::Host(_) => index.internet_link(),
        };
        // Everything in a model has a link; a trace without one could not be asked for.
        link.ok_or_else(|| error("internal", "the sender has no link".into()))
    }

    fn label(&self, asked: &str) -> String {
        match self {
            Self::Host(_) if asked == "internet" => "internet".into(),
            Self::Host(host) => format!("{} {}", host.name, host.ip),
            Self::Instance(_, instance) => format!("{} {}", instance.name, instance.ip),
        }
    }
}

impl Receiver<'_> {
    /// The address under which the sender knows it: private inside a VPC, public from elsewhere.
    fn address_for(&self, from: &Sender<'_>) -> Option<IpAddr> {
        let same = |vpc: &Vpc| matches!(from, Sender::Instance(own, _) if own.name == vpc.name);
        match self {
            Self::Instance(vpc, instance) if same(vpc) => Some(instance.ip),
            Self::Instance(_, instance) => instance.public.map(|public| public.ip),
            Self::NatGateway(vpc, nat) if same(vpc) => nat.addresses.first().map(|address| address.private),
            Self::NatGateway(_, nat) => nat.addresses.iter().find_map(|address| address.public),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    /// Its link, where a packet to it could stay in a namespace.
    fn link(&self, index: &Index) -> Option<LinkId> {
        match self {
            Self::Instance(_, instance) => index.link_of(index.eni_of(&instance.name)?),
            Self::Host(_) => index.internet_link(),
            Self::NatGateway(..) | Self::Address(..) => None,
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Instance(_, instance) => Some(&instance.name),
            Self::NatGateway(_, nat) => Some(&nat.name),
            Self::Host(host) => Some(&host.name),
            Self::Address(_, name) => name.as_deref(),
        }
    }

    fn own_address(&self) -> Option<IpAddr> {
        match self {
            Self::Instance(_, instance) => Some(instance.ip),
            Self::NatGateway(_, nat) => nat.addresses.first().map(|address| address.private),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    fn label(&self, address: Option<IpAddr>, port: Option<u16>) -> String {
        let address = address.or(self.own_address()).map_or_else(String::new, |address| address.to_string());
        let end = port.map_or_else(|| address.clone(), |port| format!("{address}:{port}"));
        self.name().map_or_else(|| end.clone(), |name| format!("{name} {end}"))
    }
}

fn sender<'a>(index: &'a Index, word: &str) -> Result<Sender<'a>, ErrorView> {
    let model = index.model();
    if word == "internet" {
        let host = model.internet_hosts.first();
        return host.map(Sender::Host).ok_or_else(|| {
            error(
                "not_found",
                "this lab has no internet: give a VPC an `internet_gateway:` or add `internet:`".into(),
            )
        });
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return sender_of(index, address);
    }
    if let Some((vpc, instance)) = instance(index, word) {
        return Ok(Sender::Instance(vpc, instance));
    }
    if let Some(host) = model.internet_hosts.iter().find(|host| host.name == word) {
        return Ok(Sender::Host(host));
    }
    if nat_gateway(index, word).is_ok_and(|found| found.is_some()) {
        let message = format!(
            "NAT gateway `{word}` sends nothing of its own: ask from an instance that is routed to it"
        );
        return Err(error("invalid_request", message));
    }
    Err(unknown(index, word, Side::Sender))
}

fn sender_of(index: &Index, address: IpAddr) -> Result<Sender<'_>, ErrorView> {
    let model = index.model();
    if let Some(host) = model.internet_hosts.iter().find(|host| host.ip == address) {
        return Ok(Sender::Host(host));
    }
    let owns = |instance: &Instance| {
        instance.ip == address || instance.public.is_some_and(|public| public.ip == address)
    };
    let owners: Vec<_> = model.instances().filter(|(_, instance)| owns(instance)).collect();
    match owners.as_slice() {
        [(vpc, instance)] => Ok(Sender::Instance(vpc, instance)),
        [] => Err(error("not_found", format!("no instance or internet host has the address {address}"))),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, instance)| instance.name.as_str()).collect();
            let message = format!(
                "{address} is the address of {}, in different VPCs: name the one you mean",
                quoted(names)
            );
            Err(error("invalid_request", message))
        }
    }
}

fn receiver<'a>(index: &'a Index, word: &str) -> Result<Receiver<'a>, ErrorView> {
    let model = index.model();
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(Receiver::Address(address, owner_name(index, address)));
    }
    if let Some((vpc, instance)) = instance(index, word) {
        return Ok(Receiver::Instance(vpc, instance));
    }
    let hosts = &model.internet_hosts;
    if let Some(host) =
        hosts.iter().find(|host| host.name == word).or(hosts.first().filter(|_| word == "internet"))
    {
        return Ok(Receiver::Host(host));
    }
    if let Some((vpc, nat)) = nat_gateway(index, word)? {
        return Ok(Receiver::NatGateway(vpc, nat));
    }
    Err(unknown(index, word, Side::Receiver))
}

/// An instance by `name` or `vpc/name`.
fn instance<'a>(index: &'a Index, word: &str) -> Option<(&'a Vpc, &'a Instance)> {
    index.model().instances().find(|(vpc, instance)| {
        instance.name == word || word.split_once('/') == Some((&vpc.name, &instance.name))
    })
}

/// A NAT gateway by `name` or `vpc/name`.
fn nat_gateway<'a>(index: &'a Index, word: &str) -> Result<Option<(&'a Vpc, &'a NatGateway)>, ErrorView> {
    let all = index.model().vpcs.iter().flat_map(|vpc| vpc.nat_gateways.iter().map(move |nat| (vpc, nat)));
    let found: Vec<_> = all
        .filter(|(vpc, nat)| nat.name == word || word.split_once('/') == Some((&vpc.name, &nat.name)))
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [(_, nat)] if nat.state == NatGatewayState::Deleted => {
            Err(error("not_found", format!("NAT gateway `{word}` is deleted: it has no address")))
        }
        [one] => Ok(Some(*one)),
        several => {
            let names: Vec<String> =
                several.iter().map(|(vpc, nat)| format!("{}/{}", vpc.name, nat.name)).collect();
            let names = quoted(names.iter().map(String::as_str));
            Err(error("invalid_request", format!("several VPCs have a NAT gateway `{word}`: {names}")))
        }
    }
}

/// Whose address it is, when it is only one's.
fn owner_name(index: &Index, address: IpAddr) -> Option<String> {
    let model = index.model();
    let instances = model.instances().filter(|(_, instance)| {
        instance.ip == address || instance.public.is_some_and(|public| public.ip == address)
    });
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

fn unknown(index: &Index, word: &str, side: Side) -> ErrorView {
    let model = index.model();
    let mut names: Vec<&str> = model.instances().map(|(_, instance)| instance.name.as_str()).collect();
    names.extend(model.internet_hosts.iter().map(|host| host.name.as_str()));
    if side == Side::Receiver {
        names.extend(model.vpcs.iter().flat_map(|vpc| &vpc.nat_gateways).map(|nat| nat.name.as_str()));
    }
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

fn ports(protocol: Protocol, request: &ExplainRequest) -> Result<(u16, u16), ErrorView> {
    let source = request.source_port.unwrap_or(EPHEMERAL);
    match (protocol, request.port) {
        (Protocol::TCP | Protocol::UDP, Some(port)) => Ok((source, port)),
        (Protocol::TCP | Protocol::UDP, None) => {
            Err(error("invalid_request", format!("{protocol} needs a destination port: {protocol}/443")))
        }
        (Protocol::ICMP, _) => Ok((source, source)),
        _ => Ok((0, 0)),
    }
}

/// Nothing on the internet can name a private address, so there is no packet to trace (IGW-6).
fn no_public_address(to: &Receiver<'_>, labels: Labels, source: IpAddr, protocol: Protocol) -> Explanation {
    let name = to.name().unwrap_or_default().to_owned();
    let (gateway, subnet, private_nat) = match to {
        Receiver::Instance(vpc, instance) => (vpc.internet_gateway.as_ref(), instance.subnet.as_str(), false),
        Receiver::NatGateway(vpc, nat) => (vpc.internet_gateway.as_ref(), nat.subnet.as_str(), true),
        Receiver::Host(_) | Receiver::Address(..) => (None, "", false),
    };
    let gateway = gateway.map(|gateway| gateway.name.as_str());
    let advice = match gateway {
        _ if private_nat => format!("NAT gateway {name} is private, and no NAT gateway lets anything in."),
        Some(gateway) => format!(
            "To let it in, give {name} an `eip:` and route its subnet {subnet} to {gateway}; \
             to reach it from inside, go through a bastion."
        ),
        None => format!(
            "To let it in, give the VPC an `internet_gateway:`, {name} an `eip:`, and its subnet {subnet} a route there."
        ),
    };
    let destination = to.own_address().unwrap_or(source);
    Explanation {
        from: labels.from,
        to: labels.to,
        protocol: labels.protocol,
        outcome: ExplainOutcome::Blocked,
        code: Some(DiscardReason::NoPublicAssociation.code().into()),
        forward: vec![ExplainStep {
            place: gateway.unwrap_or("internet").into(),
            component: format!("{name} has no public address"),
            decision: String::new(),
            source: String::new(),
            pass: false,
            packet: Tuple { source, destination, source_port: 0, destination_port: 0, protocol },
        }],
        back: Vec::new(),
        advice: Some(advice),
    }
}

/// What stays in a namespace: the kernel delivers without a packet that anybody could look at.
fn in_the_kernel(
    index: &Index,
    link: LinkId,
    labels: Labels,
    packet: Tuple,
    decision: String,
) -> Explanation {
    Explanation {
        from: labels.from,
        to: labels.to,
        protocol: labels.protocol,
        outcome: ExplainOutcome::Reachable,
        code: None,
        forward: vec![ExplainStep {
            place: format!("namespace {}", index.link_name(link)),
            component: "kernel".into(),
            decision,
            source: String::new(),
            pass: true,
            packet,
        }],
        back: Vec::new(),
        advice: Some("Inside one namespace neither security groups nor network ACLs apply.".into()),
    }
}

fn error(kind: &str, message: String) -> ErrorView {
    ErrorView { kind: kind.into(), message, positions: Vec::new() }
}

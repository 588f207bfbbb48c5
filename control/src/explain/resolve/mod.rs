//! Names to what is meant.

mod ends;
mod names;

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
pub use ends::Unnamed;
use ends::{End, receiver};
use names::{Side, end};

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
    let destination = to.address_for(&from);
    let question = Question {
        from: from.source(index)?,
        source_address: request.source_address.or_else(|| from.secondary()),
        to: to.destination(index, &request.to, destination)?,
        protocol,
        ports: Ranges::one(port.into()),
        source_ports,
    };
    let link = from.link(index);
    let source = request.source_address.map(IpAddr::V4).or_else(|| from.sends_as());
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
    let unsendable = send.is_none().then(|| {
        let to_name = to.without_public_address().map(|unnamed| unnamed.name);
        match (&kernel, from.nobody(index), sendable, to_name) {
            (Some(_), ..) => "none leaves the namespace, whose kernel delivers by itself".to_owned(),
            (_, Some(nobody), ..) => nobody,
            (_, _, None, Some(name)) => {
                format!("{} knows no address of {name}, which has no public one", request.from)
            }
            (_, _, None, None) => format!("nothing stands for {}: add a host to `internet:`", request.to),
            (_, _, Some(destination), _) => format!("nobody sends from such an address to {destination}"),
        }
    });
    let nowhere = destination.filter(|_| matches!(to, End::Address(..)));
    Ok(Asked {
        question,
        trace,
        send,
        unsendable,
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
    // One host may stand for both ends, which are not the same for that.
    let is_all = matches!(to, End::Internet(_) | End::InternetGateway(..));
    if Some(destination) == source && !is_all {
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

fn protocol(word: &str) -> Result<Protocol, ErrorView> {
    match word {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "icmp" => Ok(Protocol::ICMP),
        // Nobody writes it, but that is how 58 is shown.
        "icmpv6" => Ok(Protocol::ICMPV6),
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

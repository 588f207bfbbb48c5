//! Finds out from the rows alone whether a packet would arrive and its reply come back, for all source ports at once.
//!
//! ```text
//! Question ──▶ Fabric (rows, found by id and address) ──▶ one walk per kind of address ──▶ Analysis
//! ```
//!
//! It does what Reachability Analyzer does (RA-1): it sends nothing and knows no state, so it needs neither a running lab
//! nor root. What it walks is not a packet but all packets that the question is about: source ports are sets
//! ([`Ranges`]) that filters cut, and the internet is cut into the pieces that no rule tells apart. A refusal does not end the
//! walk: it is noted, and the walk goes on as if it had been put right, so that all that is in the way is found at once.
//!
//! [`walk`](mod@walk) is the way of a packet, [`filters`] what security groups and network ACLs say of a set of ports, [`codes`] the
//! codes that AWS has for what is in the way, [`fabric`] the rows, [`insights`] the result in the shape that the EC2 API has for it.

pub mod codes;
pub mod fabric;
pub mod filters;
pub mod insights;
pub mod matrix;
pub mod ranges;
pub mod walk;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use localvpc_api::tables::Tables;
use localvpc_api::trace::{Decision, Protocol, Tuple};
use localvpc_api::{EniId, InternetGatewayId, NatGatewayId};

pub use codes::{Code, Detail};
pub use fabric::Fabric;
pub use ranges::Ranges;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who sends.
    pub from: Source,
    /// Another source address than the sender's own.
    pub source_address: Option<Ipv4Addr>,
    /// Who should receive.
    pub to: Destination,
    /// The protocol. ICMP is an echo request and its reply.
    pub protocol: Protocol,
    /// The destination ports of TCP and UDP, one as a rule; 0 otherwise.
    pub ports: Ranges,
    /// The source ports that the sender may take; [`EPHEMERAL`] unless something else is known.
    pub source_ports: Ranges,
}

/// Source ports of Linux: what `ip_local_port_range` is by default, and so in namespaces (NACL-13).
pub const EPHEMERAL: (u32, u32) = (32_768, 60_999);

/// Source ports of a NAT gateway (NATGW-17).
pub const NAT_PORTS: (u32, u32) = (1024, 65_535);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The interface of an instance.
    Eni(EniId),
    /// A NAT gateway.
    NatGateway(NatGatewayId),
    /// One address of the internet.
    Host(Ipv4Addr),
    /// Any address of the internet.
    Internet,
    /// Any address of the internet, by this gateway.
    InternetGateway(InternetGatewayId),
}

/// Who should receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The interface of an instance, by the address under which the sender can name it.
    Eni(EniId),
    /// The same, by another of its private addresses.
    EniAddress(EniId, Ipv4Addr),
    /// A NAT gateway.
    NatGateway(NatGatewayId),
    /// An address, whosever it is.
    Address(Ipv4Addr),
    /// Any address of the internet.
    Internet,
    /// Any address of the internet, by this gateway.
    InternetGateway(InternetGatewayId),
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// What was asked.
    pub question: Question,
    /// What came out, of all cases together.
    pub outcome: Outcome,
    /// The cases that differ: which addresses of the internet, which address of a NAT gateway. At least one; the
    /// one to show comes first.
    pub cases: Vec<Case>,
}

/// Whether it gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The packet arrives and its reply comes back.
    Reachable,
    /// That depends on ports or addresses that the question leaves open.
    Partial,
    /// An instance that forwards has the packet, and what it does is not known.
    Undecidable,
    /// The packet or its reply is discarded.
    Blocked,
}

/// One way, there and back.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What came out.
    pub outcome: Outcome,
    /// The addresses of the internet that it is about, where the question leaves them open.
    pub addresses: Option<Ranges>,
    /// The way there. After a refusal it goes on as if there were none.
    pub forward: Vec<Hop>,
    /// The way back of the reply; empty where it cannot be told.
    pub back: Vec<Hop>,
    /// What is in the way, and what goes with it, in the order of the hops.
    pub findings: Vec<Finding>,
    /// The ports that were left open: the sender's first, then the destination's, then those of NAT gateways on the way.
    pub ports: Vec<OpenPort>,
}

/// A component, and what it says to the packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// A packet of those that come to it, as it comes.
    pub tuple: Tuple,
    /// What it decides about it.
    pub decision: Decision,
    /// Why it discards it, if it does.
    pub refusal: Option<Code>,
    /// The destination ports that this is about, where it says something else to others.
    pub ports: Option<Ranges>,
    /// All packets that come to it.
    pub before: Header,
    /// All packets that leave it.
    pub after: Header,
}

/// A set of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address; `None` stands for the addresses of the case.
    pub source: Option<IpAddr>,
    /// Destination address; `None` stands for the addresses of the case.
    pub destination: Option<IpAddr>,
    /// Source ports.
    pub source_ports: Ranges,
    /// Destination ports.
    pub destination_ports: Ranges,
}

/// A port that somebody is free to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// Who chooses.
    pub chosen_by: Chooser,
    /// What may be chosen.
    pub all: Ranges,
    /// Of these, the ports with which packet and reply get through.
    pub good: Ranges,
}

/// Who chooses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// The sender its source port.
    Sender,
    /// The question: a destination port.
    Question,
    /// A NAT gateway the source port that it sends from.
    NatGateway(NatGatewayId),
}

/// The packet or its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The packet.
    Forward,
    /// Its reply.
    Back,
}

/// How much a finding is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Nothing gets past.
    Blocks,
    /// Some ports do not get past.
    Narrows,
    /// It cannot be told what happens.
    Unknown,
    /// It goes with another finding.
    Detail,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How much it is in the way.
    pub weight: Weight,
    /// On which way.
    pub way: Way,
    /// At which hop of that way.
    pub hop: usize,
    /// The route that it is about, where it is about one of several of a table.
    pub route: Option<IpNet>,
}

/// Answers a question about tables whose references hold.
pub fn analyse(tables: &Tables, question: &Question) -> Analysis {
    analyse_in(&Fabric::new(tables), question)
}

/// Answers a question: the same, where several are asked of one lab.
pub fn analyse_in(fabric: &Fabric<'_>, question: &Question) -> Analysis {
    let mut cases: Vec<Case> = Vec::new();
    for address in addresses(fabric, question) {
        for choice in 0..nat_addresses(fabric) {
            let mut case =
                walk::walk(fabric, question, address.as_ref().map(|(example, _)| *example), choice);
            case.addresses = address.as_ref().map(|(_, all)| all.clone());
            match cases.iter_mut().find(|other| other.is_like(&case)) {
                Some(other) => {
                    other.addresses = match (other.addresses.take(), case.addresses) {
                        (Some(a), Some(b)) => Some(a.or(&b)),
                        (a, b) => a.or(b),
                    };
                }
                None => cases.push(case),
            }
        }
    }
    // The widest of the best comes first.
    let width = |case: &Case| case.addresses.as_ref().map_or(0, Ranges::count);
    cases.sort_by_key(|case| (case.outcome, std::cmp::Reverse(width(case))));
    let mut outcomes = cases.iter().map(|case| case.outcome);
    let first = outcomes.next().unwrap_or(Outcome::Blocked);
    let outcome = if outcomes.all(|other| other == first) { first } else { Outcome::Partial };
    Analysis { question: question.clone(), outcome, cases }
}

/// The pieces of the internet that differ, where the question leaves the address open; one `None` where it does not.
fn addresses(fabric: &Fabric<'_>, question: &Question) -> Vec<Option<(Ipv4Addr, Ranges)>> {
    let anywhere = |all: Ranges| fabric.pieces(&all).into_iter().map(Some).collect();
    if let (Source::Internet | Source::InternetGateway(_), None) = (question.from, question.source_address) {
        return anywhere(Fabric::internet());
    }
    if let Destination::Internet | Destination::InternetGateway(_) = question.to {
        // What the lab itself has is not the rest of the world.
        let mut rest = Fabric::internet();
        let own = fabric.tables.vpcs.iter().flat_map(|vpc| &vpc.cidrs).copied();
        let public = fabric.tables.public_addresses.iter().map(|row| IpNet::from(row.public));
        for network in own.chain(public) {
            if let IpNet::V4(network) = network {
                rest = rest.without(&Ranges::network(network));
            }
        }
        return anywhere(rest);
    }
    vec![None]
}

/// How many addresses the NAT gateway with the most of them chooses from (NATGW-16).
fn nat_addresses(fabric: &Fabric<'_>) -> usize {
    fabric.tables.nat_gateways.iter().map(|nat| nat.addresses.len()).max().unwrap_or(1).max(1)
}

impl Analysis {
    /// The case to show.
    pub fn main(&self) -> &Case {
        // There is at least one: `addresses` and `nat_addresses` are never empty.
        &self.cases[0]
    }

    /// Every code of all cases, once each, in order.
    pub fn codes(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        for code in self.cases.iter().flat_map(|case| &case.findings).map(|finding| finding.code) {
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        codes
    }
}

impl Case {
    /// What ends the packet or its reply, first things first.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| matches!(finding.weight, Weight::Blocks | Weight::Narrows))
    }

    /// The hop of a finding.
    pub fn hop(&self, finding: &Finding) -> Option<&Hop> {
        match finding.way {
            Way::Forward => self.forward.get(finding.hop),
            Way::Back => self.back.get(finding.hop),
        }
    }

    /// The destination ports that get through, where the question has several.
    pub fn open_ports(&self) -> Option<&Ranges> {
        let asked = self.ports.iter().find(|port| port.chosen_by == Chooser::Question);
        asked.map(|port| &port.good)
    }

    /// Whether the other case took the same way and the same decisions.
    fn is_like(&self, other: &Self) -> bool {
        let same = |a: &[Hop], b: &[Hop]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    (a.refusal, &a.ports) == (b.refusal, &b.ports)
                        && without_packets(a.decision) == without_packets(b.decision)
                })
        };
        (self.outcome, &self.ports, &self.findings) == (other.outcome, &other.ports, &other.findings)
            && same(&self.forward, &other.forward)
            && same(&self.back, &other.back)
    }
}

/// A decision without the example that it was made about.
fn without_packets(decision: Decision) -> Decision {
    const NONE: Tuple = Tuple {
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        source_port: 0,
        destination_port: 0,
        protocol: Protocol(0),
    };
    match decision {
        Decision::NatGateway { nat_gateway, direction, translated, established } => {
            Decision::NatGateway { nat_gateway, direction, translated: translated.map(|_| NONE), established }
        }
        Decision::InternetGateway { internet_gateway, direction, translated } => {
            Decision::InternetGateway { internet_gateway, direction, translated: translated.map(|_| NONE) }
        }
        other => other,
    }
}

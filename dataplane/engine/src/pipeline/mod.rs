//! Walks a packet from the link it came in on to the link it leaves on. Read this first.
//!
//! [`walk`] is the life of a packet: one arm per stage, in the order in which a
//! packet can meet them, one file per arm. A stage reads tables and state, tells the
//! observer what it decided, may change the packet's [`tuple`](Walk::tuple) and propose
//! [`Effects`], and says where the packet is next. It changes nothing else.
//! [`commit`](Effects::commit) makes the proposals true, once, when the whole walk
//! has said yes. A walk that is not committed is a dry run, which is what a trace is.
//!
//! Stages see the packet through its tuple; the bytes are rewritten once, after the
//! walk, by [`rewrite`].

pub mod effects;
mod internet_gateway;
pub mod mss;
mod nat_gateway;
mod network_acl;
pub mod rewrite;
mod route_table;
mod security_group;
pub mod shortcut;
mod source_check;

use std::net::IpAddr;

use arrayvec::ArrayVec;
use localvpc_api::trace::{Decision, Direction, Protocol, Tuple};
use localvpc_api::{DiscardReason, LinkId};

use crate::Time;
use crate::answer::IcmpErrorKind;
use crate::packet::{Kind, Packet};
use crate::state::State;
use crate::tables::rules::Selector;
use crate::tables::{EniIndex, InternetGatewayIndex, NatGatewayIndex, SubnetIndex, Tables};
use effects::{Effect, Effects};

/// Where a packet is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// An ENI sends it.
    Leaving(EniIndex),
    /// A subnet's route table decides where it goes.
    Routing(SubnetIndex),
    /// It leaves a subnet.
    Outbound(SubnetIndex, Next),
    /// It reaches a NAT gateway.
    NatGateway(NatGatewayIndex),
    /// It reaches an internet gateway from inside.
    InternetGateway(InternetGatewayIndex),
    /// It is on the internet, from a host there or out of a gateway.
    Internet,
    /// It enters a subnet.
    Inbound(SubnetIndex, Next),
    /// It reaches an ENI.
    Arriving(EniIndex),
    /// It leaves the dataplane.
    Delivered(LinkId),
}

/// What lies behind a subnet's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An instance's interface.
    Eni(EniIndex),
    /// A NAT gateway.
    NatGateway(NatGatewayIndex),
    /// The internet gateway of the VPC.
    InternetGateway(InternetGatewayIndex),
}

/// Is told what each stage decides.
pub trait Observer {
    /// A stage decided about a packet that came to it with `tuple`; `decision` says what.
    fn decided(&mut self, tuple: &Tuple, decision: impl FnOnce() -> Decision);
}

/// Observes nothing, at no cost.
impl Observer for () {
    #[inline(always)]
    fn decided(&mut self, _: &Tuple, _: impl FnOnce() -> Decision) {}
}

/// A packet on its way: what it was, what it has become, what it would change.
#[derive(Debug)]
pub struct Walk<'a> {
    /// As it came in.
    pub packet: &'a Packet,
    /// As it is now.
    pub tuple: Tuple,
    /// For an ICMP error: the packet it is about, as it is quoted now.
    pub embedded: Option<Tuple>,
    /// TTL used up so far.
    pub ttl_spent: u8,
    /// Largest packet that the whole way takes, as far as it was checked.
    pub mtu: u16,
    /// Largest MSS that a SYN may offer on this way.
    pub mss: u16,
    /// The time of the walk.
    pub now: Time,
    /// Chooses source ports.
    pub random: u64,
    /// What the walk would change.
    pub effects: Effects<'a>,
    /// Effects of an earlier walk that are taken for granted: a trace of a reply.
    pub assumed: &'a [Effect<'a>],
    /// The ENI that sent it, if one did.
    pub sender: Option<EniIndex>,
    /// The ENI it was about to be delivered to, if one was.
    pub receiver: Option<EniIndex>,
    /// The network ACLs that have let it pass.
    pub filtered: Filtered,
    /// The NAT gateway that discarded it, if one did; outbound is from inside.
    pub refused_by: Option<(NatGatewayIndex, Direction)>,
}

/// Network ACLs that have let a packet pass, with the destination port that it had there.
#[derive(Debug, Default)]
pub struct Filtered(ArrayVec<(SubnetIndex, Direction, u16), MOST_FILTERED>);

/// Of more of them than on any sensible path the last ones are not kept.
const MOST_FILTERED: usize = 6;

impl Filtered {
    #[inline]
    fn note(&mut self, subnet: SubnetIndex, direction: Direction, port: u16) {
        // That it is full shows that some may be missing.
        let _ = self.0.try_push((subnet, direction, port));
    }

    /// All of them, unless there may have been more.
    fn all(&self) -> Option<&[(SubnetIndex, Direction, u16)]> {
        (!self.0.is_full()).then_some(&self.0)
    }
}

/// A packet that ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: DiscardReason,
    /// What the sender is told, if anything.
    pub answer: Option<Answer>,
}

impl From<DiscardReason> for Stop {
    fn from(reason: DiscardReason) -> Self {
        Self { reason, answer: None }
    }
}

/// What the component that discards a packet sends back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub kind: AnswerKind,
    /// Its source address.
    pub source: IpAddr,
    /// Where its own walk starts: at the component that made it.
    pub at: At,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// An ICMP error.
    Icmp(IcmpErrorKind),
    /// A TCP RST in place of the far end (NATGW-22).
    Reset,
}

/// More stages than any packet meets on a sensible path: EIP to EIP between two VPCs takes nine.
const MAX_STAGES: usize = 24;

/// Walks a packet to the link it leaves on.
///
/// # Errors
/// [`Stop`]: the packet is discarded, for one reason.
pub fn walk<'a>(
    tables: &Tables,
    state: &'a State,
    mut at: At,
    walk: &mut Walk<'a>,
    seen: &mut impl Observer,
) -> Result<LinkId, Stop> {
    for _ in 0..MAX_STAGES {
        at = match at {
            At::Leaving(eni) => security_group::leave(tables, state, walk, eni, seen)?,
            At::Routing(subnet) => route_table::route(tables, walk, subnet, seen)?,
            At::Outbound(subnet, next) => network_acl::leave(tables, walk, subnet, next, seen)?,
            At::NatGateway(nat) => nat_gateway::translate(tables, state, walk, nat, seen)?,
            At::InternetGateway(igw) => internet_gateway::leave(tables, walk, igw, seen)?,
            At::Internet => internet_gateway::enter(tables, walk, seen)?,
            At::Inbound(subnet, next) => network_acl::enter(tables, walk, subnet, next, seen)?,
            At::Arriving(eni) => security_group::enter(tables, state, walk, eni, seen)?,
            At::Delivered(link) => return Ok(link),
        };
    }
    Err(DiscardReason::Loop.into())
}

/// Where a packet that came in on `link` begins its walk.
///
/// # Errors
/// [`Stop`] if the link is unknown, or the source/destination check rejects the packet.
pub fn admit(
    tables: &Tables,
    link: LinkId,
    walk: &mut Walk<'_>,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    source_check::admit(tables, link, walk, seen)
}

impl<'a> Walk<'a> {
    /// A packet that has just come in.
    pub fn new(packet: &'a Packet, now: Time, random: u64) -> Self {
        Self {
            packet,
            tuple: packet.tuple,
            embedded: match &packet.kind {
                Kind::IcmpError(embedded) => Some(embedded.tuple),
                _ => None,
            },
            ttl_spent: 0,
            mtu: u16::MAX,
            mss: u16::MAX,
            now,
            random,
            effects: Effects::default(),
            assumed: &[],
            sender: None,
            receiver: None,
            filtered: Filtered::default(),
            refused_by: None,
        }
    }

    /// What rules see of it beside addresses.
    pub fn selector(&self) -> Selector {
        self.packet.selector(self.tuple)
    }

    /// Sets source address and port; in the quote of an ICMP error that is the destination.
    fn translate_source(&mut self, address: IpAddr, port: Option<u16>) {
        self.tuple.source = address;
        match &mut self.embedded {
            Some(embedded) => {
                embedded.destination = address;
                set_destination_port(embedded, port);
            }
            None => set_source_port(&mut self.tuple, port),
        }
    }

    /// Sets destination address and port; in the quote of an ICMP error that is the source.
    fn translate_destination(&mut self, address: IpAddr, port: Option<u16>) {
        self.tuple.destination = address;
        match &mut self.embedded {
            Some(embedded) => {
                embedded.source = address;
                set_source_port(embedded, port);
            }
            None => set_destination_port(&mut self.tuple, port),
        }
    }

    /// Notes that the way ahead takes packets of at most `mtu` bytes. One that is larger and may be fragmented goes on; it is cut when it leaves.
    ///
    /// # Errors
    /// [`Stop`] if this one is larger and must not be fragmented; `source` and `at` are those of the answer (MTU-3).
    fn fit(&mut self, mtu: u16, source: IpAddr, at: Option<At>) -> Result<(), Stop> {
        self.mtu = self.mtu.min(mtu);
        if self.packet.segment_length <= mtu || !self.packet.dont_fragment {
            return Ok(());
        }
        let kind = AnswerKind::Icmp(IcmpErrorKind::FragmentationNeeded { mtu });
        Err(Stop { reason: DiscardReason::TooBig, answer: at.map(|at| Answer { kind, source, at }) })
    }
}

/// The identifier of an ICMP echo stands in both ports.
fn set_source_port(tuple: &mut Tuple, port: Option<u16>) {
    if let Some(port) = port {
        tuple.source_port = port;
        if tuple.protocol == Protocol::ICMP {
            tuple.destination_port = port;
        }
    }
}

fn set_destination_port(tuple: &mut Tuple, port: Option<u16>) {
    if let Some(port) = port {
        tuple.destination_port = port;
        if tuple.protocol == Protocol::ICMP {
            tuple.source_port = port;
        }
    }
}

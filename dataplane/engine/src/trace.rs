//! Walks a packet through the live tables without sending it, and tells every step.
//!
//! It is the walk of real packets with another observer; nothing is committed. The
//! reply is walked as if the first packet had been: its connections and its lease are
//! assumed.

use std::net::IpAddr;

use localvpc_api::tables::Action;
use localvpc_api::trace::{
    Decision, Direction, Protocol, TraceOutcome, TraceReport, TraceRequest, TraceStep, TraceWalk, Tuple,
};
use localvpc_api::{DiscardReason, LinkId};

use crate::Time;
use crate::packet::{Checksum, Echo, Kind, Packet, TcpFacts};
use crate::pipeline::effects::Effect;
use crate::pipeline::{self, Observer, Walk};
use crate::state::State;
use crate::tables::Tables;

/// Traces the first packet of a connection, and its reply.
pub fn trace(tables: &Tables, state: &State, request: &TraceRequest, now: Time) -> TraceReport {
    let packet = first_packet(request.tuple);
    let (forward, far, effects, arrived) = run(tables, state, request.link, &packet, &[], now);
    let reply = match (request.reply, far) {
        (true, Some(link)) => {
            let packet = reply_packet(arrived);
            let (reply, ..) = run(tables, state, link, &packet, effects.as_slice(), now);
            Some(reply)
        }
        _ => None,
    };
    TraceReport { generation: tables.generation, forward, reply }
}

/// Traces a packet that is on its way, as it comes in on `link`: what its walk would be now.
pub fn trace_packet(tables: &Tables, state: &State, link: LinkId, packet: &Packet, now: Time) -> TraceWalk {
    run(tables, state, link, packet, &[], now).0
}

type Run<'a> = (TraceWalk, Option<LinkId>, pipeline::effects::Effects<'a>, Tuple);

fn run<'a>(
    tables: &Tables,
    state: &'a State,
    link: LinkId,
    packet: &'a Packet,
    assumed: &'a [Effect<'a>],
    now: Time,
) -> Run<'a> {
    let mut steps = Steps::default();
    let mut walk = Walk::new(packet, now, u64::from(packet.tuple.source_port));
    walk.assumed = assumed;
    let outcome = refuse_family(packet)
        .and_then(|()| pipeline::admit(tables, link, &mut walk, &mut steps))
        .and_then(|at| pipeline::walk(tables, state, at, &mut walk, &mut steps))
        .and_then(|link| Ok(walk.effects.fit(tables, state, now).map(|()| link)?));
    let (outcome, far) = match outcome {
        Ok(link) => (TraceOutcome::Delivered(link), Some(link)),
        Err(stop) => {
            if steps.0.last().is_none_or(|step| passes(&step.decision)) {
                steps.0.push(TraceStep { tuple: walk.tuple, decision: Decision::End });
            }
            (TraceOutcome::Discarded(stop.reason), None)
        }
    };
    (TraceWalk { steps: steps.0, outcome }, far, walk.effects, walk.tuple)
}

fn refuse_family(packet: &Packet) -> Result<(), pipeline::Stop> {
    match (packet.tuple.source, packet.tuple.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ok(()),
        _ => Err(DiscardReason::NotIpv4.into()),
    }
}

/// Collects decisions in the order in which AWS tells them: the network ACL of a subnet before its route table (ORD-1),
/// though whether the subnet is left at all is known only after the route.
#[derive(Default)]
struct Steps(Vec<TraceStep>);

impl Observer for Steps {
    fn decided(&mut self, tuple: &Tuple, decision: impl FnOnce() -> Decision) {
        let decision = decision();
        let step = TraceStep { tuple: *tuple, decision };
        let outbound = matches!(decision, Decision::NetworkAcl { direction: Direction::Outbound, .. });
        match self.0.last() {
            Some(TraceStep { decision: Decision::Route { .. }, .. }) if outbound => {
                let before = self.0.len() - 1;
                self.0.insert(before, step);
                if !passes(&decision) {
                    // The packet never came to the route table.
                    self.0.pop();
                }
            }
            _ => self.0.push(step),
        }
    }
}

/// Whether the packet went on from this step.
fn passes(decision: &Decision) -> bool {
    use localvpc_api::tables::RouteTarget;
    use localvpc_api::trace::SecurityGroupVerdict;
    match decision {
        Decision::SourceDestCheck { pass, .. } => *pass,
        Decision::SecurityGroup { verdict, .. } => !matches!(verdict, SecurityGroupVerdict::NoMatch { .. }),
        Decision::Route { matched, .. } => {
            matched.is_some_and(|matched| matched.target != RouteTarget::Blackhole)
        }
        Decision::SameSubnet { .. } => true,
        Decision::NetworkAcl { action, .. } => *action == Action::Allow,
        Decision::NatGateway { translated, .. } | Decision::InternetGateway { translated, .. } => {
            translated.is_some()
        }
        Decision::Internet { found } => *found,
        Decision::End => false,
    }
}

fn first_packet(tuple: Tuple) -> Packet {
    let kind = match tuple.protocol {
        Protocol::TCP => Kind::Tcp(segment(TcpFacts::SYN)),
        Protocol::UDP => Kind::Udp,
        Protocol::ICMP => Kind::IcmpEcho(Echo::Request),
        _ => Kind::Other,
    };
    packet(tuple, kind)
}

fn reply_packet(arrived: Tuple) -> Packet {
    let kind = match arrived.protocol {
        Protocol::TCP => Kind::Tcp(segment(TcpFacts::SYN | TcpFacts::ACK)),
        Protocol::UDP => Kind::Udp,
        Protocol::ICMP => Kind::IcmpEcho(Echo::Reply),
        _ => Kind::Other,
    };
    packet(arrived.reversed(), kind)
}

fn segment(flags: u8) -> TcpFacts {
    TcpFacts { flags, sequence: 0, acknowledgement: 0, window: u16::MAX, payload: 0 }
}

/// A small packet: 40 bytes fit every way.
fn packet(tuple: Tuple, kind: Kind) -> Packet {
    Packet {
        tuple,
        kind,
        window_scale: None,
        fragment: None,
        ttl: 64,
        dont_fragment: true,
        transport: 20,
        length: 40,
        segments: 1,
        segment_length: 40,
        checksum: Checksum::Complete,
    }
}

//! Do the security groups of this ENI admit the packet?
//!
//! Second stage for a packet that an instance sends, last stage for one that reaches
//! an instance. A packet of a tracked connection passes without a look at the rules
//! (SG-9, SG-31), an ICMP error about one too (SG-42); otherwise any rule of any group
//! that matches admits it (SG-2). A new connection is tracked, except TCP and UDP that a
//! rule for everyone admitted while everything may go the other way (SG-32); such a flow
//! is judged by the rules, packet by packet, both ways. Passing a NAT gateway makes it
//! tracked all the same (SG-35).
//!
//! Only a SYN begins a tracked TCP connection. A TCP packet in mid-stream that belongs to
//! none is judged by the rules as they are and leaves no trace (SG-42 is undocumented): so
//! that an untracked flow that lost its rule is cut and stays cut (SG-33).
//!
//! Reads connections; proposes to make or refresh them.

use localvpc_api::DiscardReason;
use localvpc_api::tables::SourceDestCheck;
use localvpc_api::trace::{Decision, Direction, SecurityGroupVerdict, Tuple};

use super::effects::Effect;
use super::{At, Observer, Stop, Walk};
use crate::packet::{Kind, TcpFacts};
use crate::state::State;
use crate::state::conntrack::{Found, NewConnection};
use crate::tables::rules::{RuleSet, Selector};
use crate::tables::{Eni, EniIndex, Tables};

pub fn leave(
    tables: &Tables,
    state: &State,
    walk: &mut Walk<'_>,
    eni: EniIndex,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let row = tables.eni(eni);
    filter(state, walk, (eni, row), Direction::Outbound, seen)?;
    Ok(At::Routing(row.subnet))
}

pub fn enter(
    tables: &Tables,
    state: &State,
    walk: &mut Walk<'_>,
    eni: EniIndex,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let row = tables.eni(eni);
    walk.receiver = Some(eni);
    let own = row.addresses.contains(&walk.tuple.destination);
    if !own {
        // Only a route to the interface itself brings packets for others here (ENI-4, WALK-12).
        let pass = row.source_dest_check == SourceDestCheck::Disabled;
        seen.decided(&walk.tuple, || Decision::SourceDestCheck {
            eni: row.id,
            direction: Direction::Inbound,
            pass,
        });
        if !pass {
            return Err(DiscardReason::SourceDestCheck.into());
        }
    }
    filter(state, walk, (eni, row), Direction::Inbound, seen)?;
    if let Some(link) = tables.links.get(&row.link) {
        let router = super::route_table::router_address(tables, row.subnet);
        walk.fit(link.mtu, router, Some(At::Routing(row.subnet)))?;
    }
    Ok(At::Delivered(row.link))
}

fn filter(
    state: &State,
    walk: &mut Walk<'_>,
    (at, eni): (EniIndex, &Eni),
    direction: Direction,
    seen: &mut impl Observer,
) -> Result<(), Stop> {
    let verdict = judge(state, walk, (at, eni), direction)?;
    seen.decided(&walk.tuple, || Decision::SecurityGroup { eni: eni.id, direction, verdict });
    match verdict {
        SecurityGroupVerdict::NoMatch { any_rules: false } => Err(DiscardReason::SecurityGroupEmpty.into()),
        SecurityGroupVerdict::NoMatch { any_rules: true } => Err(DiscardReason::SecurityGroup.into()),
        _ => Ok(()),
    }
}

fn judge(
    state: &State,
    walk: &mut Walk<'_>,
    (at, eni): (EniIndex, &Eni),
    direction: Direction,
) -> Result<SecurityGroupVerdict, DiscardReason> {
    if let Some(embedded) = walk.embedded {
        // What is quoted went the other way.
        let place = state.connections.place(eni.id, &embedded, direction.opposite());
        let place = place.ok_or(DiscardReason::NotIpv4)?;
        let known = || matches!(state.connections.find(&place, walk.now), Found::Live(..));
        if walk.assumes_connection(&place) || known() {
            return Ok(SecurityGroupVerdict::Related);
        }
        return Ok(by_rules(walk, eni, direction));
    }
    let place = match walk.packet.kind {
        // TCP and UDP are identified by ports, echo by identifier, all else by addresses and protocol (SG-30).
        Kind::IcmpOther | Kind::Other => {
            let tuple = Tuple { source_port: 0, destination_port: 0, ..walk.tuple };
            state.connections.place(eni.id, &tuple, direction)
        }
        _ => state.connections.place(eni.id, &walk.tuple, direction),
    };
    let place = place.ok_or(DiscardReason::NotIpv4)?;
    if walk.assumes_connection(&place) {
        return Ok(SecurityGroupVerdict::Tracked);
    }
    let absence = state.connections.absence(&place);
    let vacancy = match state.connections.find(&place, walk.now) {
        Found::Live(activity, line) if !crate::state::reopens(walk.packet, line) => {
            walk.effects.propose(Effect::Connection { activity, direction })?;
            return Ok(SecurityGroupVerdict::Tracked);
        }
        Found::Nothing => Some(absence),
        Found::Live(..) | Found::Ended => None,
    };
    let verdict = by_rules(walk, eni, direction);
    if let SecurityGroupVerdict::Rule { tracked, .. } = verdict {
        walk.effects.propose(match begins_connection(&walk.packet.kind) {
            true => {
                let new = NewConnection { place, direction, vacancy };
                Effect::Track { eni: at, new, untracked: !tracked, absence }
            }
            false => Effect::Judge { place, absence },
        })?;
    }
    Ok(verdict)
}

fn by_rules(walk: &Walk<'_>, eni: &Eni, direction: Direction) -> SecurityGroupVerdict {
    let (rules, opposite, peer) = match direction {
        Direction::Inbound => (&eni.inbound, &eni.outbound, walk.tuple.source),
        Direction::Outbound => (&eni.outbound, &eni.inbound, walk.tuple.destination),
    };
    match rules.admit(peer, walk.selector()) {
        Some(admission) => SecurityGroupVerdict::Rule {
            security_group: admission.security_group,
            rule: admission.rule,
            tracked: !(admission.anywhere && opposite.opens_everything(walk.tuple.protocol)
                || answers_untracked(walk, rules, opposite, direction)),
        },
        None => SecurityGroupVerdict::NoMatch { any_rules: !rules.is_empty() },
    }
}

/// Whether the packet is the reply of a flow that the other direction's rules leave untracked (SG-32).
fn answers_untracked(walk: &Walk<'_>, rules: &RuleSet, opposite: &RuleSet, direction: Direction) -> bool {
    let reply = match walk.packet.kind {
        Kind::Tcp(facts) if facts.flags & (TcpFacts::SYN | TcpFacts::ACK) == TcpFacts::SYN => return false,
        Kind::Tcp(_) => Selector::Tcp(walk.tuple.source_port),
        Kind::Udp => Selector::Udp(walk.tuple.source_port),
        _ => return false,
    };
    let peer = match direction {
        Direction::Inbound => walk.tuple.source,
        Direction::Outbound => walk.tuple.destination,
    };
    rules.opens_everything(walk.tuple.protocol) && opposite.admit(peer, reply).is_some_and(|hit| hit.anywhere)
}

fn begins_connection(kind: &Kind) -> bool {
    match kind {
        Kind::Tcp(facts) => facts.begins_connection(),
        _ => true,
    }
}

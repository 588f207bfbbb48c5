//! A report of the dataplane as steps that a person reads.

use std::net::IpAddr;

use localvpc_api::tables::Action;
use localvpc_api::trace::{
    Decision, Direction, Protocol, SecurityGroupVerdict, TraceOutcome, TraceReport, TraceStep, TraceWalk,
    Tuple,
};
use localvpc_api::{DiscardReason, EniId, NatGatewayId};

use crate::lower::{Index, RuleText};
use crate::model::text;
use crate::view::{ExplainOutcome, ExplainStep, Explanation};

use super::Asked;
use super::advice::{Way, advice};

/// Renders the report of a trace.
pub fn render_report(index: &Index, asked: &Asked, report: &TraceReport) -> Explanation {
    let new_leases: Vec<NatGatewayId> = report.forward.steps.iter().filter_map(new_lease).collect();
    let mut explanation = Explanation {
        from: asked.from.clone(),
        to: asked.to.clone(),
        protocol: asked.request.tuple.protocol.to_string(),
        outcome: ExplainOutcome::Reachable,
        code: None,
        forward: steps(index, &report.forward, &new_leases),
        back: report.reply.as_ref().map(|reply| steps(index, reply, &new_leases)).unwrap_or_default(),
        advice: None,
    };
    if let Some((eni, packet)) = forwarder(&report.forward) {
        let name = index.eni_name(eni);
        explanation.outcome = ExplainOutcome::Undecidable;
        explanation.forward.push(forwards(index, eni, packet));
        // What a reply answers is not known: there is no way back to show.
        explanation.back.clear();
        explanation.advice = Some(format!(
            "{name} is not the destination. For the rest of the way ask `localvpc explain {name} {}`.",
            asked.rest
        ));
    } else if let Some((eni, packet)) = report.reply.as_ref().and_then(forwarder) {
        explanation.outcome = ExplainOutcome::Undecidable;
        explanation.back.push(forwards(index, eni, packet));
        explanation.advice = Some(format!(
            "The packet arrives. Its reply is routed to {name}, and comes back if {name} passes it on.",
            name = index.eni_name(eni)
        ));
    } else if let Some((reason, step, way)) = blocker(&report.forward, Way::Forward)
        .or_else(|| report.reply.as_ref().and_then(|reply| blocker(reply, Way::Back)))
    {
        explanation.outcome = ExplainOutcome::Blocked;
        explanation.code = Some(reason.code().into());
        explanation.advice = asked.destination.clone().or_else(|| advice(index, reason, step, way));
    }
    explanation
}

/// The interface that a packet was delivered to without being meant for it, and the packet: its instance forwards
/// for others.
fn forwarder(walk: &TraceWalk) -> Option<(EniId, Tuple)> {
    let TraceOutcome::Delivered(_) = walk.outcome else { return None };
    walk.steps.iter().rev().find_map(|step| match step.decision {
        // It is told only of packets for somebody else.
        Decision::SourceDestCheck { eni, direction: Direction::Inbound, pass: true } => {
            Some((eni, step.tuple))
        }
        _ => None,
    })
}

/// The last step that is known of a packet that is handed to an instance to be forwarded.
fn forwards(index: &Index, eni: EniId, packet: Tuple) -> ExplainStep {
    let name = index.eni_name(eni);
    let defined = index.instance(eni).map(|(_, instance)| index.source(Some(instance.place)));
    ExplainStep {
        place: format!("eni {name}"),
        component: "instance".into(),
        decision: format!("{name} forwards it: what it does with the packet is its own affair"),
        source: defined.unwrap_or_default(),
        pass: true,
        packet,
    }
}

/// `10.0.2.20:40000`, without a port where the protocol has none.
pub fn end(address: IpAddr, port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP | Protocol::UDP => format!("{address}:{port}"),
        _ => address.to_string(),
    }
}

fn blocker(walk: &TraceWalk, way: Way) -> Option<(DiscardReason, Option<&TraceStep>, Way)> {
    match walk.outcome {
        TraceOutcome::Discarded(reason) => Some((reason, walk.steps.last(), way)),
        TraceOutcome::Delivered(_) => None,
    }
}

/// The NAT gateway that would make a lease for the packet: its source port is anybody's guess.
fn new_lease(step: &TraceStep) -> Option<NatGatewayId> {
    match step.decision {
        Decision::NatGateway { nat_gateway, established: false, .. } => Some(nat_gateway),
        _ => None,
    }
}

fn steps(index: &Index, walk: &TraceWalk, new_leases: &[NatGatewayId]) -> Vec<ExplainStep> {
    let discarded = match walk.outcome {
        TraceOutcome::Discarded(reason) => Some(reason),
        TraceOutcome::Delivered(_) => None,
    };
    let last = walk.steps.len().saturating_sub(1);
    walk.steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| self::step(index, step, new_leases, discarded.filter(|_| at == last)))
        .collect()
}

/// One step; `discarded` is the reason when it is the one that ended the walk. A passing source/destination
/// check is not worth a line.
fn step(
    index: &Index,
    step: &TraceStep,
    new_leases: &[NatGatewayId],
    discarded: Option<DiscardReason>,
) -> Option<ExplainStep> {
    let tuple = &step.tuple;
    let [place, component, decision, source] = match step.decision {
        Decision::SourceDestCheck { pass: true, .. } => return None,
        Decision::SourceDestCheck { eni, direction, pass: false } => {
            source_dest_check(index, eni, direction, tuple)
        }
        Decision::SecurityGroup { eni, direction, verdict } => {
            security_group(index, eni, direction, verdict, tuple)
        }
        Decision::Route { subnet, route_table, matched } => {
            let rule = matched.and_then(|matched| index.route(route_table, matched.destination));
            let RuleText { text, source } = rule.unwrap_or_else(|| RuleText {
                text: format!("no route to {}", tuple.destination),
                source: index.source(index.route_table(route_table).and_then(|(_, table)| table.place)),
            });
            let table = index.route_table_name(route_table);
            [format!("subnet {}", index.subnet_name(subnet)), format!("route table {table}"), text, source]
        }
        Decision::SameSubnet { subnet } => {
            let decision = "no route table or network ACL inside a subnet";
            [
                format!("subnet {}", index.subnet_name(subnet)),
                "same subnet".into(),
                decision.into(),
                String::new(),
            ]
        }
        Decision::NetworkAcl { subnet, network_acl, direction, entry, action } => {
            let fallback = || RuleText {
                text: if action == Action::Allow { "allow".into() } else { "deny".into() },
                source: String::new(),
            };
            let RuleText { text, source } =
                index.network_acl_entry(network_acl, direction, entry).unwrap_or_else(fallback);
            let acl = index.network_acl_name(network_acl);
            let component = format!("network ACL {acl} {}", short(direction));
            [format!("subnet {}", index.subnet_name(subnet)), component, text, source]
        }
        Decision::NatGateway { nat_gateway, direction, translated, .. } => {
            let known = !new_leases.contains(&nat_gateway);
            let decision = match translated {
                Some(translated) => nat_translation(tuple, &translated, direction, known),
                None => refusal(discarded, tuple),
            };
            [index.nat_gateway_name(nat_gateway), translated_end(direction), decision, String::new()]
        }
        Decision::InternetGateway { internet_gateway, direction, translated } => {
            let place =
                internet_gateway.map_or_else(|| "internet".into(), |id| index.internet_gateway_name(id));
            let decision = match (translated, direction) {
                (Some(translated), Direction::Outbound) => {
                    format!("{} → {}", tuple.source, translated.source)
                }
                (Some(translated), Direction::Inbound) => {
                    format!("{} → {}", tuple.destination, translated.destination)
                }
                (None, _) => refusal(discarded, tuple),
            };
            [place, translated_end(direction), decision, String::new()]
        }
        Decision::Internet { found } => {
            let hosts = &index.model().internet_hosts;
            let host = hosts.iter().find(|host| host.ip == tuple.destination);
            let component = host.map_or_else(|| "host".into(), |host| format!("host {}", host.name));
            let decision = if found {
                tuple.destination.to_string()
            } else {
                format!("no host has {}", tuple.destination)
            };
            let source = host.map_or_else(String::new, |host| index.source(host.place));
            ["internet".into(), component, decision, source]
        }
        Decision::End => ["".into(), "end".into(), refusal(discarded, tuple), String::new()],
    };
    Some(ExplainStep { place, component, decision, source, pass: discarded.is_none(), packet: *tuple })
}

fn source_dest_check(index: &Index, eni: EniId, direction: Direction, tuple: &Tuple) -> [String; 4] {
    let name = index.eni_name(eni);
    let decision = match direction {
        Direction::Outbound => format!("the source {} is not an address of {name}", tuple.source),
        Direction::Inbound => format!("the destination {} is not an address of {name}", tuple.destination),
    };
    let source =
        index.instance(eni).map(|(_, instance)| index.source(Some(instance.place))).unwrap_or_default();
    [format!("eni {name}"), "source/destination check".into(), decision, source]
}

fn security_group(
    index: &Index,
    eni: EniId,
    direction: Direction,
    verdict: SecurityGroupVerdict,
    tuple: &Tuple,
) -> [String; 4] {
    let place = format!("eni {}", index.eni_name(eni));
    let way = short(direction);
    match verdict {
        SecurityGroupVerdict::Tracked => {
            [place, format!("connection {way}"), "tracked: no rule is consulted".into(), String::new()]
        }
        SecurityGroupVerdict::Related => {
            [place, format!("connection {way}"), "about a tracked connection".into(), String::new()]
        }
        SecurityGroupVerdict::Rule { security_group, rule, tracked } => {
            let component = format!("security group {} {way}", index.security_group_name(security_group));
            let rule = index.security_group_rule(security_group, direction, rule);
            let RuleText { text, source } =
                rule.unwrap_or_else(|| RuleText { text: "a rule".into(), source: String::new() });
            let text = if tracked { text } else { format!("{text} (untracked)") };
            [place, component, text, source]
        }
        SecurityGroupVerdict::NoMatch { any_rules } => {
            let found = index.instance(eni);
            let groups: &[String] =
                found.map(|(_, instance)| instance.security_groups.as_slice()).unwrap_or_default();
            let noun = if groups.len() == 1 { "security group" } else { "security groups" };
            let decision = if any_rules {
                let (word, far) = match direction {
                    Direction::Inbound => ("from", tuple.source),
                    Direction::Outbound => ("to", tuple.destination),
                };
                let port = match tuple.protocol {
                    Protocol::TCP | Protocol::UDP => format!(" {}", tuple.destination_port),
                    _ => String::new(),
                };
                format!("no rule admits {}{port} {word} {far}", tuple.protocol)
            } else {
                format!("no rules for what {} it", if way == "in" { "enters" } else { "leaves" })
            };
            let place_of_group = match (found, groups) {
                (Some((vpc, _)), [only]) => vpc.security_group(only).map(|group| index.source(group.place)),
                (Some((_, instance)), _) => Some(index.source(Some(instance.place))),
                _ => None,
            };
            [
                place,
                format!("{noun} {} {way}", groups.join(" ")),
                decision,
                place_of_group.unwrap_or_default(),
            ]
        }
    }
}

/// What a NAT gateway did; `known` is whether the lease exists.
fn nat_translation(before: &Tuple, after: &Tuple, direction: Direction, known: bool) -> String {
    let (old, new) = match direction {
        Direction::Outbound => ((before.source, before.source_port), (after.source, after.source_port)),
        Direction::Inbound => {
            ((before.destination, before.destination_port), (after.destination, after.destination_port))
        }
    };
    let end = |(address, port): (IpAddr, u16), known: bool| match before.protocol {
        Protocol::TCP | Protocol::UDP if known => format!("{address}:{port}"),
        Protocol::TCP | Protocol::UDP => format!("{address}:*"),
        _ => address.to_string(),
    };
    format!("{} → {}", end(old, known), end(new, known))
}

fn translated_end(direction: Direction) -> String {
    match direction {
        Direction::Outbound => "source".into(),
        Direction::Inbound => "destination".into(),
    }
}

/// Why a gateway refused, in a few words.
fn refusal(reason: Option<DiscardReason>, tuple: &Tuple) -> String {
    let Some(reason) = reason else { return String::new() };
    match reason {
        DiscardReason::NoPublicAddress => format!("{} has no public address", tuple.source),
        DiscardReason::NoPublicAssociation => format!("nothing has the public address {}", tuple.destination),
        DiscardReason::NoSuchAddress => format!("nothing in the VPC has {}", tuple.destination),
        DiscardReason::PrivateDestination | DiscardReason::SharedDestination => {
            format!("{} is not an address of the internet", tuple.destination)
        }
        DiscardReason::PrivateSource | DiscardReason::SharedSource => {
            format!("{} is not an address of the internet", tuple.source)
        }
        DiscardReason::NatNoConnection => "no connection: it lets nothing in that was not asked for".into(),
        DiscardReason::NatProtocol => "translates TCP, UDP and ICMP echo only".into(),
        DiscardReason::NatPortsExhausted => {
            format!("no port left for {}", end(tuple.destination, tuple.destination_port, tuple.protocol))
        }
        other => text::without_facts(other.explanation()).trim_end_matches('.').to_owned(),
    }
}

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

//! A hop of an analysis as a step that a person reads.

use std::net::IpAddr;

use localvpc_api::tables::Action;
use localvpc_api::trace::{Decision, Direction, Protocol, SecurityGroupVerdict, Tuple};
use localvpc_api::{DiscardReason, EniId, SubnetId};

use crate::analysis::{Code, Hop};
use crate::lower::{Index, RuleText};
use crate::model::text;
use crate::view::ExplainStep;

use super::resolve::Unnamed;

/// The last step that is known of a packet that is handed to an instance to be forwarded.
pub fn forwards(index: &Index, eni: EniId, packet: Tuple) -> ExplainStep {
    let name = index.eni_name(eni);
    let defined = index.instance(eni).map(|(_, instance)| index.source(Some(instance.place)));
    ExplainStep {
        place: format!("eni {name}"),
        component: "instance".into(),
        decision: format!("{name} forwards it: what it does with the packet is its own affair"),
        source: defined.unwrap_or_default(),
        pass: true,
        packet,
        code: None,
        component_id: None,
        place_id: index.instance(eni).map(|(_, instance)| instance.eni_id.clone()),
        beyond: false,
    }
}

/// `10.0.2.20:40000`, without a port where the protocol has none.
pub fn end(address: IpAddr, port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP | Protocol::UDP => format!("{address}:{port}"),
        _ => address.to_string(),
    }
}

/// One hop; `refusal` is why it is the end of the packet. A passing source/destination check is not worth a line.
pub fn step(index: &Index, hop: &Hop, unnamed: Option<&Unnamed>) -> Option<ExplainStep> {
    let tuple = &hop.tuple;
    let [place, component, decision, source] = match hop.decision {
        Decision::SourceDestCheck { pass: true, .. } => return None,
        Decision::SourceDestCheck { eni, direction, pass: false } => {
            source_dest_check(index, eni, direction, tuple)
        }
        Decision::SecurityGroup { eni, direction, verdict } => {
            security_group(index, eni, direction, verdict, hop)
        }
        Decision::Route { subnet, route_table, matched } => {
            let rule = matched.and_then(|matched| index.route(route_table, matched.destination));
            let RuleText { text, source } = rule.unwrap_or_else(|| RuleText {
                text: format!("no route to {}", whom(hop.before.destination)),
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
            let decision = match translated {
                Some(translated) if translated == *tuple => "its own connection".into(),
                Some(translated) => nat_translation(tuple, &translated, direction),
                None if hop.refusal == Some(DiscardReason::NatNoConnection.into())
                    && direction == Direction::Outbound =>
                {
                    "a reply to nothing that went through it".into()
                }
                None => refusal(hop.refusal, tuple),
            };
            [index.nat_gateway_name(nat_gateway), translated_end(direction), decision, String::new()]
        }
        Decision::InternetGateway { internet_gateway, translated: None, .. }
            if let Some(unnamed) = unnamed =>
        {
            let place =
                internet_gateway.map_or_else(|| "internet".into(), |id| index.internet_gateway_name(id));
            [place, format!("{} has no public address", unnamed.name), String::new(), String::new()]
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
                (None, _) => refusal(hop.refusal, tuple),
            };
            [place, translated_end(direction), decision, String::new()]
        }
        Decision::Internet { .. } if hop.before.destination.is_none() => {
            ["internet".into(), "any address".into(), String::new(), String::new()]
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
        Decision::End => ["".into(), "end".into(), refusal(hop.refusal, tuple), String::new()],
    };
    let decision = match &hop.ports {
        Some(ports) => format!("{decision} (ports {ports})"),
        None => decision,
    };
    let (place_id, component_id) = ids(index, &hop.decision);
    Some(ExplainStep {
        place,
        component,
        decision,
        source,
        pass: hop.refusal.is_none(),
        packet: *tuple,
        code: hop.refusal.map(|code| code.to_string()),
        component_id,
        place_id,
        beyond: false,
    })
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
    hop: &Hop,
) -> [String; 4] {
    let tuple = &hop.tuple;
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
                    Direction::Inbound => ("from", whom(hop.before.source)),
                    Direction::Outbound => ("to", whom(hop.before.destination)),
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

/// Ids of the place of a decision, and of the component that made it.
fn ids(index: &Index, decision: &Decision) -> (Option<String>, Option<String>) {
    let eni_id = |id: EniId| index.instance(id).map(|(_, instance)| instance.eni_id.clone());
    let subnet_id = |id: SubnetId| index.subnet(id).map(|(_, subnet)| subnet.id.clone());
    match *decision {
        Decision::SourceDestCheck { eni, .. } => (eni_id(eni), eni_id(eni)),
        Decision::SecurityGroup { eni, verdict, .. } => {
            let group = match verdict {
                SecurityGroupVerdict::Rule { security_group, .. } => {
                    index.security_group(security_group).map(|(_, group)| group.id.clone())
                }
                _ => None,
            };
            (eni_id(eni), group)
        }
        Decision::Route { subnet, route_table, .. } => {
            (subnet_id(subnet), index.route_table(route_table).map(|(_, table)| table.id.clone()))
        }
        Decision::SameSubnet { subnet } => (subnet_id(subnet), None),
        Decision::NetworkAcl { subnet, network_acl, .. } => {
            (subnet_id(subnet), index.network_acl(network_acl).map(|(_, acl)| acl.id.clone()))
        }
        Decision::NatGateway { nat_gateway, .. } => {
            let id = index.nat_gateway(nat_gateway).map(|(_, nat)| nat.id.clone());
            (id.clone(), id)
        }
        Decision::InternetGateway { internet_gateway, .. } => {
            let gateway = internet_gateway.and_then(|id| index.internet_gateway(id));
            let id = gateway.map(|(_, gateway)| gateway.id.clone());
            (id.clone(), id)
        }
        Decision::Internet { .. } | Decision::End => (None, None),
    }
}

/// An address, where it is a certain one.
fn whom(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "the internet".into(), |address| address.to_string())
}

/// What a NAT gateway does. Which port it takes is its own choice.
fn nat_translation(before: &Tuple, after: &Tuple, direction: Direction) -> String {
    let (old, new) = match direction {
        Direction::Outbound => (before.source, after.source),
        Direction::Inbound => (before.destination, after.destination),
    };
    let end = |address: IpAddr| match before.protocol {
        Protocol::TCP | Protocol::UDP => format!("{address}:*"),
        _ => address.to_string(),
    };
    format!("{} → {}", end(old), end(new))
}

fn translated_end(direction: Direction) -> String {
    match direction {
        Direction::Outbound => "source".into(),
        Direction::Inbound => "destination".into(),
    }
}

/// Why a gateway refused, in a few words.
fn refusal(code: Option<Code>, tuple: &Tuple) -> String {
    let reason = match code {
        None => return String::new(),
        Some(Code::Detail(detail)) => return detail.explanation().trim_end_matches('.').to_owned(),
        Some(Code::Discard(reason)) => reason,
    };
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

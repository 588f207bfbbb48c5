//! What an analysis says, in words.

use localvpc_api::tables::Tables;
use localvpc_api::trace::{Decision, Direction};

use crate::analysis::{
    Analysis, Case, Chooser, Code, Detail, Finding, Hop, Outcome, Ranges, Way, Weight, analyse,
};
use crate::lower::Index;
use crate::model::Target;
use crate::view::{ExplainOutcome, ExplainStep, Explanation, Sendable};

use super::advice::advice;
use super::insights::{insights, port_ranges};
use super::{Asked, render};

/// Analyses a question, and says in words what comes out.
pub fn answer(index: &Index, tables: &Tables, asked: &Asked) -> Explanation {
    if asked.kernel.is_some() {
        return in_the_kernel(index, asked);
    }
    answer_of(index, asked, analyse(tables, &asked.question))
}

/// What an analysis says, in words.
pub fn answer_of(index: &Index, asked: &Asked, mut analysis: Analysis) -> Explanation {
    for case in &mut analysis.cases {
        tell_of_deleted(index, case);
    }
    let case = analysis.main();
    let unnamed = asked.unnamed.as_ref();
    let end = case.findings.iter().filter(|finding| finding.weight == Weight::Blocks);
    let end = end.map(|finding| (finding.way, finding.hop)).min();
    let mut forward =
        steps(index, &case.forward, unnamed, |at| end.is_some_and(|end| end < (Way::Forward, at)));
    let mut back = steps(index, &case.back, None, |at| end.is_some_and(|end| end < (Way::Back, at)));
    let mut said = Vec::new();
    match forwarder(case) {
        Some((Way::Forward, hop)) => {
            if let Decision::SourceDestCheck { eni, .. } = hop.decision {
                forward.push(render::forwards(index, eni, hop.tuple));
                said.push(format!(
                    "{name} is not the destination. For the rest of the way ask `localvpc explain {name} {}`.",
                    asked.rest,
                    name = index.eni_name(eni)
                ));
            }
        }
        Some((Way::Back, hop)) => {
            if let Decision::SourceDestCheck { eni, .. } = hop.decision {
                back.push(render::forwards(index, eni, hop.tuple));
                said.push(format!(
                    "The packet arrives. Its reply is routed to {name}, and comes back if {name} passes it on.",
                    name = index.eni_name(eni)
                ));
            }
        }
        None => {}
    }
    if case.outcome == Outcome::Blocked {
        said.clear();
    }
    match (&asked.nowhere, case.outcome) {
        (Some(nowhere), Outcome::Blocked) => said.push(nowhere.clone()),
        _ => {
            for finding in case.blockers() {
                let help = match (unnamed, case.hop(finding)) {
                    (Some(unnamed), Some(hop)) if is_unnamed(finding, hop) => Some(unnamed.advice.clone()),
                    (_, hop) => hop.and_then(|hop| advice(index, finding.code, hop, finding.way)),
                };
                said.extend(help.filter(|help| !said.contains(help)).into_iter().collect::<Vec<_>>());
            }
        }
    }
    let first = case.blockers().next().map(|finding| finding.code.to_string());
    Explanation {
        from: asked.from.clone(),
        to: asked.to.clone(),
        protocol: asked.question.protocol.to_string(),
        outcome: outcome(analysis.outcome),
        code: first.or_else(|| main_refusal(&analysis)),
        forward,
        back,
        advice: (!said.is_empty()).then(|| said.join("\n")),
        notes: notes(index, asked, &analysis),
        dataplane: None,
        send: sendable(asked, case),
        unsendable: asked.unsendable.clone(),
        probe: None,
        analysis: Some(insights(index, asked, &analysis)),
    }
}

/// The packet to send, from ports whose replies come back, where there are any.
fn sendable(asked: &Asked, case: &Case) -> Option<Sendable> {
    let mut send = asked.send.clone()?;
    if let Some(port) = case.ports.first().filter(|port| port.chosen_by == Chooser::Sender) {
        let good = if port.good.is_empty() { &port.all } else { &port.good };
        send.source_ports = port_ranges(good);
        if let (false, Some(first)) =
            (good.contains(send.packet.source_port.into()), send.source_ports.first())
        {
            send.packet.source_port = first.from;
        }
    }
    Some(send)
}

/// The explanation's word for an outcome.
pub fn outcome(outcome: Outcome) -> ExplainOutcome {
    match outcome {
        Outcome::Reachable => ExplainOutcome::Reachable,
        Outcome::Partial => ExplainOutcome::Partial,
        Outcome::Undecidable => ExplainOutcome::Undecidable,
        Outcome::Blocked => ExplainOutcome::Blocked,
    }
}

/// Where the case to show gets through and another does not: what is in its way.
fn main_refusal(analysis: &Analysis) -> Option<String> {
    let others = analysis.cases.iter().skip(1);
    others.flat_map(Case::blockers).next().map(|finding| finding.code.to_string())
}

fn is_unnamed(finding: &Finding, hop: &Hop) -> bool {
    finding.way == Way::Forward
        && matches!(
            hop.decision,
            Decision::InternetGateway { direction: Direction::Inbound, translated: None, .. }
        )
}

/// The interface whose instance has the packet to forward.
fn forwarder(case: &Case) -> Option<(Way, &Hop)> {
    let unknown = case.findings.iter().find(|finding| finding.weight == Weight::Unknown)?;
    let hops = if unknown.way == Way::Forward { &case.forward } else { &case.back };
    let check = |hop: &&Hop| matches!(hop.decision, Decision::SourceDestCheck { pass: true, .. });
    Some((unknown.way, hops.iter().rev().find(check)?))
}

/// A blackhole that is one because its NAT gateway is gone has a component in a bad state (RT-19).
fn tell_of_deleted(index: &Index, case: &mut Case) {
    let mut more = Vec::new();
    for (way, hops) in [(Way::Forward, &case.forward), (Way::Back, &case.back)] {
        for (at, hop) in hops.iter().enumerate() {
            let Decision::Route { route_table, matched: Some(matched), .. } = hop.decision else { continue };
            let Some((vpc, table)) = index.route_table(route_table) else { continue };
            let route = table.routes.iter().find(|route| route.destination == matched.destination);
            let gone =
                route.is_some_and(|it| matches!(it.target, Target::NatGateway(_)) && vpc.is_blackhole(it));
            if gone && hop.refusal.is_some() {
                let code = Detail::BadState.into();
                more.push(Finding {
                    code,
                    weight: Weight::Detail,
                    way,
                    hop: at,
                    route: route.map(|it| it.destination),
                });
            }
        }
    }
    case.findings.extend(more);
}

/// `is_beyond` says of a hop whether packets never come to it.
fn steps(
    index: &Index,
    hops: &[Hop],
    mut unnamed: Option<&super::Unnamed>,
    is_beyond: impl Fn(usize) -> bool,
) -> Vec<ExplainStep> {
    let steps = hops.iter().enumerate().filter_map(|(at, hop)| {
        let step = render::step(index, hop, unnamed);
        if matches!(hop.decision, Decision::InternetGateway { direction: Direction::Inbound, .. }) {
            // Only the first of them is about the receiver.
            unnamed = None;
        }
        step.map(|step| ExplainStep { beyond: is_beyond(at), ..step })
    });
    steps.collect()
}

/// What the answer depends on.
fn notes(index: &Index, asked: &Asked, analysis: &Analysis) -> Vec<String> {
    let mut notes = Vec::new();
    let case = analysis.main();
    for finding in &case.findings {
        let told = matches!(
            finding.code,
            Code::Detail(
                Detail::GroupNotPreserved
                    | Detail::NatChangesSource
                    | Detail::MoreSpecificRoute
                    | Detail::DisconnectedVpcs
                    | Detail::IgwOutsideVpc
                    | Detail::RejectsSpoofed
                    | Detail::RemapsPort
            )
        );
        let route = finding.route.map(|route| format!(" (the route to {route})")).unwrap_or_default();
        let note = format!("{}{route}: {}", finding.code, finding.code.explanation());
        if told && finding.weight == Weight::Detail && !notes.contains(&note) {
            notes.push(note);
        }
    }
    if case.outcome == Outcome::Partial {
        for port in case.ports.iter().filter(|port| port.good != port.all) {
            let who = match port.chosen_by {
                Chooser::NatGateway(nat) => format!("NAT gateway {}", index.nat_gateway_name(nat)),
                Chooser::Sender | Chooser::Question => {
                    asked.from.split(' ').next().unwrap_or_default().to_owned()
                }
            };
            let bad = port.all.without(&port.good);
            notes.push(format!(
                "It depends on the source port that {who} takes from {}: replies to {} come back, replies to {bad} do not \
                 ({} of {} ports).",
                port.all,
                port.good,
                bad.count(),
                port.all.count()
            ));
        }
    }
    for other in analysis.cases.iter().skip(1) {
        let what = match other.outcome {
            Outcome::Reachable => "reachable".to_owned(),
            Outcome::Partial => "it depends on the source port".to_owned(),
            Outcome::Undecidable => "it cannot be told".to_owned(),
            Outcome::Blocked => {
                let codes: Vec<String> = other.blockers().map(|it| it.code.to_string()).collect();
                format!("blocked, {}", codes.join(", "))
            }
        };
        notes.push(match &other.addresses {
            Some(addresses) => format!("{}: {what}.", networks(addresses)),
            None => format!("With another address of the NAT gateway: {what}."),
        });
    }
    if let Some(addresses) = &case.addresses
        && analysis.cases.len() > 1
    {
        let others = notes.len() + 1 - analysis.cases.len();
        notes.insert(others, format!("{}: {}.", networks(addresses), word(case.outcome)));
    }
    notes
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Reachable => "reachable",
        Outcome::Partial => "it depends on the source port",
        Outcome::Undecidable => "it cannot be told",
        Outcome::Blocked => "blocked",
    }
}

/// A few networks, or how many there are.
fn networks(addresses: &Ranges) -> String {
    let all = addresses.networks();
    let shown: Vec<String> = all.iter().take(4).map(ToString::to_string).collect();
    match all.len() {
        0..=4 => shown.join(", "),
        more => format!("{} and {} more networks", shown.join(", "), more - 4),
    }
}

/// What stays in a namespace: the kernel delivers without a packet that anybody could look at.
fn in_the_kernel(index: &Index, asked: &Asked) -> Explanation {
    let (place, decision) = asked.kernel.as_ref().map_or_else(Default::default, |(link, why)| {
        (format!("namespace {}", index.link_name(*link)), why.clone())
    });
    let nothing = std::net::IpAddr::from([0, 0, 0, 0]);
    let packet = asked.trace.as_ref().map_or(
        localvpc_api::trace::Tuple {
            source: nothing,
            destination: nothing,
            source_port: 0,
            destination_port: asked.question.ports.first().map_or(0, |port| port as u16),
            protocol: asked.question.protocol,
        },
        |trace| trace.tuple,
    );
    Explanation {
        from: asked.from.clone(),
        to: asked.to.clone(),
        protocol: asked.question.protocol.to_string(),
        outcome: ExplainOutcome::Reachable,
        code: None,
        forward: vec![ExplainStep {
            place,
            component: "kernel".into(),
            decision,
            source: String::new(),
            pass: true,
            packet,
            code: None,
            component_id: None,
            beyond: false,
            place_id: None,
        }],
        back: Vec::new(),
        advice: Some("Inside one namespace neither security groups nor network ACLs apply.".into()),
        notes: Vec::new(),
        dataplane: None,
        send: asked.send.clone(),
        unsendable: asked.unsendable.clone(),
        probe: None,
        analysis: None,
    }
}

//! From an explanation to legs between boxes.

use crate::view::{ExplainOutcome, ExplainStep, Explanation};

use super::plan::vpc_of;
use super::{At, Graph, Kind, Leg, Path, Verdict};

/// The way that an explanation tells of: the packet's, up to where it is stopped; the reply's only where that is
/// what is stopped.
pub fn path(graph: &Graph, explanation: &Explanation) -> Path {
    let verdict = match explanation.outcome {
        ExplainOutcome::Reachable => Verdict::Reachable,
        ExplainOutcome::Blocked => Verdict::Blocked,
        ExplainOutcome::Partial => Verdict::Depends,
        ExplainOutcome::Undecidable => Verdict::Undecidable,
    };
    let start = named_end(graph, &explanation.from);
    let mut legs = legs(graph, start, &explanation.forward, Way::There);
    let mut stop = explanation.forward.iter().find(|step| !step.pass);
    if stop.is_none()
        && let Some(refused) = explanation.back.iter().find(|step| !step.pass)
    {
        stop = Some(refused);
        let arrived = legs.last().map(|leg| leg.to).or(start);
        legs.extend(self::legs(graph, arrived, &explanation.back, Way::Back));
    }
    let blocked = verdict == Verdict::Blocked;
    if let (true, None, Some(last)) = (blocked, stop, legs.last_mut()) {
        last.passes = false;
    }
    let code = explanation.code.clone().filter(|_| blocked);
    let steps = || explanation.forward.iter().chain(&explanation.back);
    let behind = steps().filter(|step| !step.pass).count().saturating_sub(1);
    let reason = stop.map(|step| reason(step, behind));
    Path {
        question: format!("{} → {} {}", explanation.from, explanation.to, explanation.protocol),
        verdict,
        legs,
        reason: reason.or_else(|| code.as_ref().map(|_| explanation.advice.clone().unwrap_or_default())),
        code,
    }
}

/// What refuses, what it says, where that stands, and how many more would refuse behind it.
fn reason(step: &ExplainStep, behind: usize) -> String {
    let mut text = step.component.clone();
    if !step.decision.is_empty() {
        text += &format!(": {}", step.decision);
    }
    if !step.source.is_empty() {
        text += &format!(" ({})", step.source);
    }
    match behind {
        0 => text,
        1 => text + "; and one more thing is in the way",
        more => text + &format!("; and {more} more things are in the way"),
    }
}

/// Which of the two ways.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// The legs of one way, up to the step that refuses.
fn legs(graph: &Graph, start: Option<At>, steps: &[ExplainStep], way: Way) -> Vec<Leg> {
    let mut legs: Vec<Leg> = Vec::new();
    let mut here = start;
    let back = way == Way::Back;
    for step in steps {
        let place = place(graph, step);
        if !step.pass {
            let Some(from) = here.or(place) else { break };
            // What has no way out of its VPC gets no further than its subnet.
            let to =
                place.filter(|to| is_joined(graph, from, *to)).or(graph.nodes[from].parent).unwrap_or(from);
            legs.push(Leg { from, to, passes: false, back });
            break;
        }
        // Lines go from what stands in subnets to what does, not to the subnets.
        let Some(at) = place.filter(|at| !graph.nodes[*at].kind.is_container()) else { continue };
        match here {
            Some(from) if from != at && is_joined(graph, from, at) => {
                legs.push(Leg { from, to: at, passes: true, back })
            }
            _ => {}
        }
        here = Some(at);
    }
    legs
}

/// Whether a line can go from one box to another without a gateway between: in one VPC, or on the internet.
fn is_joined(graph: &Graph, from: At, to: At) -> bool {
    let outside =
        |at: At| matches!(graph.nodes[at].kind, Kind::InternetGateway | Kind::Internet | Kind::InternetHost);
    vpc_of(graph, from) == vpc_of(graph, to) || outside(from) && outside(to)
}

/// The box of a step: `eni app`, `subnet private-a`, `nat-a`, `main/igw`, `internet`.
fn place(graph: &Graph, step: &ExplainStep) -> Option<At> {
    let place = step.place.as_str();
    if let Some(name) = place.strip_prefix("eni ") {
        return find(graph, &[Kind::Instance], name);
    }
    if let Some(name) = place.strip_prefix("subnet ") {
        return find(graph, &[Kind::PublicSubnet, Kind::PrivateSubnet], name);
    }
    if place == "internet" {
        let host =
            step.component.strip_prefix("host ").and_then(|name| find(graph, &[Kind::InternetHost], name));
        return host.filter(|_| step.pass).or_else(|| find(graph, &[Kind::Internet], "internet"));
    }
    find(graph, &[Kind::NatGateway, Kind::InternetGateway], place)
}

/// `app 10.0.2.20`, `internet`, `10.0.2.20:80`.
fn named_end(graph: &Graph, end: &str) -> Option<At> {
    let name = end.split_whitespace().next()?;
    let ends = [Kind::Instance, Kind::InternetHost, Kind::NatGateway];
    let host = || graph.of_kind(Kind::InternetHost).next().map(|(at, _)| at).filter(|_| name == "internet");
    find(graph, &ends, name).or_else(host)
}

/// A box by its name, with its VPC in front where that is needed.
fn find(graph: &Graph, kinds: &[Kind], name: &str) -> Option<At> {
    let of_kinds = || graph.nodes.iter().enumerate().filter(|(_, node)| kinds.contains(&node.kind));
    let by_name = of_kinds().find(|(_, node)| node.name == name);
    let found = match name.contains('/') {
        true => of_kinds().find(|(_, node)| node.id.split_once(':').is_some_and(|(_, id)| id == name)),
        false => by_name,
    };
    found.map(|(at, _)| at)
}

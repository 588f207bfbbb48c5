//! Whether what a file expects comes true.
//!
//! An expectation of `all` protocols is several: each is analysed, sent and judged by itself ([`parts`]), and the line holds if
//! every one of them does.

use std::collections::BTreeSet;

use localvpc_api::tables::{PortRange, Traffic};
use localvpc_api::trace::Protocol;
use serde::Serialize;

use crate::model::{Expectation, Model};
use crate::view::{ExplainOutcome, Explanation, ProbeView};

/// What became of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It cannot be told.
    Unknown,
    /// It does not hold.
    Fails,
}

/// An expectation, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// `web → db tcp/5432`.
    pub question: String,
    /// Where it stands in the file.
    pub line: u32,
    /// What was expected: `reachable via nat-a, igw`.
    pub expected: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Why not, and what would help; empty where it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// What the analysis says.
    pub analysis: ExplainOutcome,
    /// The explanation codes, most important first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// The gateways and instances on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<String>,
    /// What became of a real packet, where one was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeView>,
    /// Why nobody can send one, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsendable: Option<String>,
    /// The protocols that `all` stands for, each by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<Checked>,
}

/// What an expectation is about, one kind of packet at a time.
///
/// `all` is TCP and UDP to the port, ping, every other protocol that some rule of the file names, and one that none does.
pub fn parts(expected: &Expectation, model: &Model) -> Vec<Expectation> {
    if expected.protocol.is_some() {
        return vec![expected.clone()];
    }
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::ICMP].into_iter().chain(others(model));
    protocols
        .map(|protocol| {
            let has_ports = [Protocol::TCP, Protocol::UDP].contains(&protocol);
            Expectation {
                protocol: Some(protocol),
                port: expected.port.filter(|_| has_ports),
                source_ports: expected.source_ports.filter(|_| has_ports),
                ..expected.clone()
            }
        })
        .collect()
}

/// A protocol that no rule means: RFC 3692 keeps it for experiments.
const NOBODYS: Protocol = Protocol(253);

/// Protocols without ports that rules of a file name, and one more.
fn others(model: &Model) -> impl Iterator<Item = Protocol> {
    let groups = model.vpcs.iter().flat_map(|vpc| &vpc.security_groups);
    let rules = groups.flat_map(|group| group.inbound.iter().chain(&group.outbound)).map(|rule| rule.traffic);
    let acls = model.vpcs.iter().flat_map(|vpc| &vpc.network_acls);
    let entries = acls.flat_map(|acl| acl.inbound.iter().chain(&acl.outbound)).map(|entry| entry.traffic);
    let named = rules.chain(entries).filter_map(|traffic| match traffic {
        Traffic::Protocol(number) if ![1, 6, 17].contains(&number) => Some(number),
        _ => None,
    });
    let numbers: BTreeSet<u8> = named.chain([NOBODYS.0]).collect();
    numbers.into_iter().map(Protocol)
}

/// Judges an expectation by what its [`parts`] came to.
pub fn judge_all(expected: &Expectation, parts: &[(Expectation, Explanation)]) -> Checked {
    let mut each: Vec<Checked> = parts.iter().map(|(part, explanation)| judge(part, explanation)).collect();
    if each.len() == 1 {
        return each.remove(0);
    }
    let mut why: Vec<String> = Vec::new();
    let failed = each.iter().zip(parts).filter(|(part, _)| part.verdict != Verdict::Holds);
    for (part, (asked, _)) in failed {
        let what = match (asked.protocol, asked.port) {
            (Some(NOBODYS), _) => format!("any other protocol ({NOBODYS})"),
            (protocol, Some(port)) => format!("{}/{port}", word(protocol)),
            (protocol, None) => word(protocol),
        };
        for (at, line) in part.why.iter().enumerate() {
            let line = if at == 0 { format!("{what}: {line}") } else { line.clone() };
            if !why.contains(&line) {
                why.push(line);
            }
        }
    }
    let mut codes: Vec<String> = Vec::new();
    for code in each.iter().flat_map(|part| &part.codes) {
        if !codes.contains(code) {
            codes.push(code.clone());
        }
    }
    let alike = each.windows(2).all(|two| two[0].analysis == two[1].analysis);
    Checked {
        question: question(expected),
        line: expected.place.line,
        expected: wanted(expected),
        verdict: each.iter().map(|part| part.verdict).max().unwrap_or(Verdict::Unknown),
        why,
        analysis: each.first().filter(|_| alike).map_or(ExplainOutcome::Partial, |part| part.analysis),
        codes,
        passes: each.first().map(|part| part.passes.clone()).unwrap_or_default(),
        probe: None,
        unsendable: None,
        each,
    }
}

/// Judges an expectation by what the analysis says, and by what a real packet, if one was sent, has shown.
pub fn judge(expected: &Expectation, explanation: &Explanation) -> Checked {
    let mut checked = Checked {
        question: question(expected),
        line: expected.place.line,
        expected: wanted(expected),
        verdict: Verdict::Holds,
        why: Vec::new(),
        analysis: explanation.outcome,
        codes: codes(explanation),
        passes: passes(explanation),
        probe: explanation.probe.clone(),
        unsendable: explanation.unsendable.clone(),
        each: Vec::new(),
    };
    let mut fail = |verdict: Verdict, why: String| {
        checked.verdict = checked.verdict.max(verdict);
        checked.why.push(why);
    };
    let answered = explanation.probe.as_ref().map(|probe| probe.answer.is_some());
    match (explanation.outcome, expected.reachable) {
        (ExplainOutcome::Reachable, true) | (ExplainOutcome::Blocked, false) => {}
        (ExplainOutcome::Reachable, false) => fail(Verdict::Fails, "it is reachable".into()),
        (ExplainOutcome::Blocked, true) => fail(Verdict::Fails, "it is blocked".into()),
        (ExplainOutcome::Partial, _) => fail(Verdict::Fails, "that depends".into()),
        (ExplainOutcome::Undecidable, _) => match answered {
            None => fail(
                Verdict::Unknown,
                "the file alone does not say; a packet in the running lab would".into(),
            ),
            Some(answered) if answered == expected.reachable => {}
            Some(true) => fail(Verdict::Fails, "a packet came back".into()),
            Some(false) => fail(Verdict::Fails, "no packet came back".into()),
        },
    }
    if checked.verdict == Verdict::Holds
        && let Some(probe) = &explanation.probe
        && (!probe.agrees || answered != Some(expected.reachable))
    {
        let what = if answered == Some(true) { "came back" } else { "did not come back" };
        let why = format!(
            "the file says so, but a real packet {what}: a program, or a firewall of its own, may be in the way"
        );
        checked.verdict = Verdict::Fails;
        checked.why.push(why);
    }
    if checked.verdict == Verdict::Holds && !on_the_way(&expected.via, &checked.passes) {
        checked.verdict = Verdict::Fails;
        let passes = if checked.passes.is_empty() { "nothing".into() } else { checked.passes.join(", ") };
        checked.why.push(format!("it passes {passes}"));
    }
    if checked.verdict == Verdict::Holds
        && let Some(because) = &expected.because
        && !checked.codes.contains(because)
    {
        checked.verdict = Verdict::Fails;
        checked.why.push(match checked.codes.as_slice() {
            [] => "there is no reason".into(),
            codes => format!("it is, but because of {}", codes.join(", ")),
        });
    }
    if checked.verdict != Verdict::Holds {
        checked.why.extend(explanation.advice.iter().flat_map(|advice| advice.lines()).map(str::to_owned));
        checked.why.extend(explanation.notes.iter().cloned());
    }
    checked
}

/// `web → db tcp/5432`.
pub fn question(expected: &Expectation) -> String {
    let port = expected.port.map(|port| format!("/{port}")).unwrap_or_default();
    let from = expected.source_ports.map(|ports| match ports {
        PortRange { from, to } if from == to => format!(" from port {from}"),
        PortRange { from, to } => format!(" from ports {from}-{to}"),
    });
    let protocol = word(expected.protocol);
    format!("{} → {} {protocol}{port}{}", expected.from, expected.to, from.unwrap_or_default())
}

/// A protocol as files write it.
pub fn word(protocol: Option<Protocol>) -> String {
    protocol.map_or_else(|| "all".to_owned(), |protocol| protocol.to_string())
}

fn wanted(expected: &Expectation) -> String {
    let mut text = if expected.reachable { "reachable" } else { "blocked" }.to_owned();
    if !expected.via.is_empty() {
        text += &format!(" via {}", expected.via.join(", "));
    }
    if let Some(because) = &expected.because {
        text += &format!(" because {because}");
    }
    text
}

/// Every code, those of what is in the way first.
fn codes(explanation: &Explanation) -> Vec<String> {
    let first = explanation.code.iter();
    let analysis = explanation.analysis.iter().flat_map(|analysis| &analysis.explanations);
    let mut codes: Vec<String> = Vec::new();
    for code in first.chain(analysis.map(|explanation| &explanation.explanation_code)) {
        if !codes.contains(code) {
            codes.push(code.clone());
        }
    }
    codes
}

/// What the packet passes on its way there, up to what ends it: gateways, and instances.
fn passes(explanation: &Explanation) -> Vec<String> {
    let mut passes: Vec<String> = Vec::new();
    for step in explanation.forward.iter().filter(|step| !step.beyond) {
        let name = match step.place.strip_prefix("eni ") {
            Some(name) => name,
            None if step.place.starts_with("subnet ") || step.place.starts_with("namespace ") => continue,
            None if ["", "internet"].contains(&step.place.as_str()) => continue,
            None => &step.place,
        };
        if passes.last().map(String::as_str) != Some(name) {
            passes.push(name.to_owned());
        }
    }
    passes
}

/// Whether the places are on the way in this order; a name stands for that of any VPC.
fn on_the_way(via: &[String], passes: &[String]) -> bool {
    let mut left = passes.iter();
    via.iter().all(|via| left.any(|place| place == via || place.rsplit('/').next() == Some(via)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_in_order_and_may_leave_out() {
        let passes = ["app", "nat-a", "a/igw", "b/igw"].map(str::to_owned);
        let on =
            |via: &[&str]| on_the_way(&via.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), &passes);
        assert!(on(&[]) && on(&["igw"]) && on(&["igw", "igw"]) && on(&["nat-a", "b/igw"]));
        assert!(!on(&["igw", "nat-a"]) && !on(&["igw", "igw", "igw"]) && !on(&["c/igw"]));
    }
}

//! What the dataplane says to a question that has been analysed.
//!
//! The dataplane knows what the analysis does not: connections that are tracked already, ports that are used up. What its
//! state says wins; anything else on which the two differ is told.

use localvpc_api::DiscardReason;
use localvpc_api::trace::{Decision, SecurityGroupVerdict, TraceOutcome, TraceReport, TraceWalk};

use crate::analysis::codes::{Code, Detail};
use crate::lower::Index;
use crate::view::{DataplaneAnswer, ExplainOutcome, Explanation};

use super::advice::general;

/// Adds to an explanation what the dataplane's trace of the same packet says.
pub fn compare(index: &Index, explanation: &mut Explanation, report: &TraceReport) {
    let discarded = reason(&report.forward).or_else(|| report.reply.as_ref().and_then(reason));
    let stranger = comes_from_a_stranger(report).then(|| Code::from(Detail::NatChangesSource).as_str());
    let code = discarded.map(DiscardReason::code).or(stranger).map(str::to_owned);
    let reachable = code.is_none();
    if let Some(reason) = discarded.filter(|reason| is_of_state(*reason)) {
        if explanation.outcome != ExplainOutcome::Blocked {
            explanation.outcome = ExplainOutcome::Blocked;
            explanation.code.clone_from(&code);
            explanation.advice = general(reason).map(str::to_owned);
            explanation.notes.push(
                "The file lets it through; the dataplane would discard it now, because of what it carries already."
                    .into(),
            );
        }
        explanation.dataplane = Some(DataplaneAnswer { reachable, code, agrees: true });
        return;
    }
    let known = explanation.analysis.iter().flat_map(|analysis| &analysis.explanations);
    let told = code.as_ref().is_some_and(|code| known.into_iter().any(|it| it.explanation_code == *code));
    let agrees = match explanation.outcome {
        ExplainOutcome::Reachable => reachable,
        ExplainOutcome::Blocked => told,
        // One packet of many, or one leg of the way.
        ExplainOutcome::Partial | ExplainOutcome::Undecidable => reachable || told,
    };
    if !agrees {
        let says = match &code {
            None => "lets packet and reply through".to_owned(),
            Some(code) => format!("discards it: {code}"),
        };
        let tracked = tracked(&report.forward);
        explanation.notes.push(match tracked {
            Some(eni) if reachable => format!(
                "The dataplane {says}: {} tracks this very connection, and what is tracked goes on (SG-31).",
                index.eni_name(eni)
            ),
            _ => format!(
                "The dataplane does not agree: it {says}. This is a bug in localvpc, please report it with the file."
            ),
        });
        if tracked.is_none() {
            explanation.outcome = ExplainOutcome::Undecidable;
        }
    }
    explanation.dataplane = Some(DataplaneAnswer { reachable, code, agrees });
}

fn reason(walk: &TraceWalk) -> Option<DiscardReason> {
    match walk.outcome {
        TraceOutcome::Discarded(reason) => Some(reason),
        TraceOutcome::Delivered(_) => None,
    }
}

/// Whether a reply arrives under another address than the one that was asked: to its receiver it is no reply.
fn comes_from_a_stranger(report: &TraceReport) -> bool {
    let asked = report.forward.steps.first().map(|step| step.tuple.destination);
    let delivered = report.reply.as_ref().filter(|reply| reason(reply).is_none());
    let answers = delivered.and_then(|reply| reply.steps.last()).map(|step| step.tuple.source);
    answers.is_some() && answers != asked
}

/// The first interface that tracks the packet's connection before it has been made.
fn tracked(walk: &TraceWalk) -> Option<localvpc_api::EniId> {
    walk.steps.iter().find_map(|step| match step.decision {
        Decision::SecurityGroup { eni, verdict: SecurityGroupVerdict::Tracked, .. } => Some(eni),
        _ => None,
    })
}

/// Reasons that lie in what is carried already, not in the file.
fn is_of_state(reason: DiscardReason) -> bool {
    matches!(
        reason,
        DiscardReason::NatPortsExhausted
            | DiscardReason::ConnectionAllowanceExceeded
            | DiscardReason::ConnectionTableFull
            | DiscardReason::LeaseTableFull
    )
}

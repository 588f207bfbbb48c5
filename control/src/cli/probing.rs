//! Sending the packet that an explanation is about.

use std::time::{Duration, Instant};

use localvpc_api::trace::{Protocol, Tuple};

use super::Failure;
use super::client::Client;
use super::exec::find;
use crate::analysis::insights::AnalysisPortRange;
use crate::host::{NamespaceRef, RunDir};
use crate::probe::{Expected, Outcome, Probe, send};
use crate::view::{CountersView, ExplainOutcome, Explanation, ProbeView, Sendable, StatusView};

/// Sends the packet of an explanation; nothing where nobody could send it.
///
/// # Errors
/// Where a namespace cannot be entered, or the kernel does not send.
pub fn probe(
    run_dir: &RunDir,
    status: &StatusView,
    explanation: &Explanation,
) -> Result<Option<ProbeView>, Failure> {
    let Some(sendable) = &explanation.send else { return Ok(None) };
    let namespace = |name: &str| -> Result<NamespaceRef, Failure> {
        Ok(NamespaceRef::of(run_dir, &find(status, name)?.namespace))
    };
    let packet = Tuple { source_port: source_port(sendable), ..sendable.packet };
    let packet = match packet.protocol {
        Protocol::ICMP => Tuple { destination_port: packet.source_port, ..packet },
        _ => packet,
    };
    let outcome = send(&Probe {
        from: namespace(&sendable.from)?,
        packet,
        to: sendable.to.as_deref().map(namespace).transpose()?,
        expected: expected(explanation),
    })?;
    Ok(Some(ProbeView {
        sent: sent(&packet),
        arrived: outcome.arrived,
        answer: outcome.answer.map(|answer| answer.as_str().to_owned()),
        agrees: agrees(explanation, &outcome),
        took_us: outcome.took.map(|took| took.as_micros() as u64),
        discarded: Vec::new(),
    }))
}

/// Where packets have been discarded since a look at the counters. A dataplane that has had no processor for as long as the probe
/// was waited for counts it a moment later.
///
/// # Errors
/// Where the lab does not answer.
pub fn discarded(client: &Client, before: &CountersView) -> Result<Vec<String>, Failure> {
    let deadline = Instant::now() + LATE;
    loop {
        let places = differences(before, &client.ask("/v1/counters")?);
        if !places.is_empty() || Instant::now() >= deadline {
            return Ok(places);
        }
        // Nothing tells of a counter.
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How long a packet that was discarded may take to be counted, and how often that is looked at.
const LATE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where packets were discarded between two looks at the counters.
fn differences(before: &CountersView, after: &CountersView) -> Vec<String> {
    let mut places = Vec::new();
    for eni in &after.enis {
        let old = before.enis.iter().find(|old| old.name == eni.name);
        for now in &eni.row.discards {
            let had = old.and_then(|old| old.row.discards.iter().find(|it| it.reason == now.reason));
            if now.packets > had.map_or(0, |had| had.packets) {
                places.push(format!("eni {}: {}", eni.name, now.reason.code()));
            }
        }
    }
    for nat in &after.nat_gateways {
        let old = before.nat_gateways.iter().find(|old| old.name == nat.name);
        if nat.row.packets_dropped > old.map_or(0, |old| old.row.packets_dropped) {
            places.push(format!("NAT gateway {}", nat.name));
        }
    }
    for now in &after.discards {
        let had = before.discards.iter().find(|it| it.code == now.code).map_or(0, |it| it.packets);
        if now.packets > had && !places.iter().any(|place| place.ends_with(&now.code)) {
            places.push(now.code.clone());
        }
    }
    places
}

/// The outcome of an explanation with what its probe has shown: it decides what the analysis could not.
pub fn outcome(explanation: &Explanation) -> ExplainOutcome {
    match (&explanation.probe, explanation.outcome) {
        (Some(probe), _) if !probe.agrees => ExplainOutcome::Undecidable,
        (Some(probe), ExplainOutcome::Undecidable) if probe.answer.is_some() => ExplainOutcome::Reachable,
        (Some(_), ExplainOutcome::Undecidable) => ExplainOutcome::Blocked,
        (_, outcome) => outcome,
    }
}

/// One line about a probe.
pub fn line(probe: &ProbeView) -> String {
    let ProbeView { sent, arrived, answer, took_us, discarded, .. } = probe;
    let what = match (arrived, answer) {
        (_, Some(answer)) => {
            let took =
                took_us.map_or_else(String::new, |us| format!(" after {}.{} ms", us / 1000, us % 1000 / 100));
            format!("arrived; {answer} came back{took}")
        }
        (Some(true), None) => "arrived, but no answer came back".into(),
        (Some(false), None) => "did not arrive".into(),
        (None, None) => "nothing came back".into(),
    };
    let where_to = match discarded.as_slice() {
        [] => String::new(),
        places => format!("; discarded at {}", places.join(", ")),
    };
    format!("{sent}: {what}{where_to}")
}

fn expected(explanation: &Explanation) -> Expected {
    match explanation.outcome {
        ExplainOutcome::Blocked if is_stopped_forward(explanation) => Expected::Nothing,
        ExplainOutcome::Blocked => Expected::Arrival,
        ExplainOutcome::Reachable | ExplainOutcome::Partial | ExplainOutcome::Undecidable => Expected::Answer,
    }
}

fn is_stopped_forward(explanation: &Explanation) -> bool {
    explanation.forward.iter().any(|step| !step.pass)
}

fn agrees(explanation: &Explanation, seen: &Outcome) -> bool {
    let answered = seen.answer.is_some();
    match explanation.outcome {
        ExplainOutcome::Reachable => answered,
        ExplainOutcome::Partial | ExplainOutcome::Undecidable => true,
        ExplainOutcome::Blocked => {
            !answered && seen.arrived.is_none_or(|arrived| arrived != is_stopped_forward(explanation))
        }
    }
}

fn sent(packet: &Tuple) -> String {
    let Tuple { source, destination, source_port, destination_port, protocol } = packet;
    match *protocol {
        Protocol::TCP => format!("SYN {source}:{source_port} → {destination}:{destination_port}"),
        Protocol::UDP => format!("udp {source}:{source_port} → {destination}:{destination_port}"),
        Protocol::ICMP => format!("echo request {source} → {destination}"),
        other => format!("protocol {other} {source} → {destination}"),
    }
}

/// One of the ports, at random: what an earlier packet has left behind should not matter.
fn source_port(sendable: &Sendable) -> u16 {
    use std::hash::{BuildHasher, Hasher};
    if matches!(sendable.packet.protocol, Protocol(number) if ![1, 6, 17].contains(&number)) {
        return 0;
    }
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let all = [AnalysisPortRange { from: 32_768, to: 60_999 }];
    let ranges = if sendable.source_ports.is_empty() { &all[..] } else { &sendable.source_ports };
    let count: u64 = ranges.iter().map(|range| u64::from(range.to - range.from) + 1).sum();
    let mut at = random % count.max(1);
    for range in ranges {
        let width = u64::from(range.to - range.from) + 1;
        if at < width {
            // Less than the width of a range of ports.
            return range.from + at as u16;
        }
        at -= width;
    }
    sendable.packet.source_port
}

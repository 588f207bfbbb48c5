//! Expectations that repeat or contradict each other.

use std::net::IpAddr;

use localvpc_api::tables::PortRange;
use localvpc_api::trace::Protocol;

use crate::config::Span;
use crate::model::{Expectation, Model};

use super::catalog::*;
use super::subject::{Findings, Subject};

/// Looks at every pair of expectations that ask the same.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let sections = &subject.content.expect;
    let asked: Vec<Question> =
        subject.model.expectations.iter().map(|it| Question::of(subject.model, it)).collect();
    for (index, (section, expected)) in sections.iter().zip(&subject.model.expectations).enumerate() {
        let is_wider = |earlier: &usize| {
            asked[*earlier].shares(&asked[index])
                && subject.model.expectations[*earlier].reachable != expected.reachable
        };
        let first = (0..index).find(|earlier| asked[*earlier] == asked[index]);
        let Some(first) = first.or_else(|| (0..index).find(is_wider)) else { continue };
        let (before, there) = (&subject.model.expectations[first], sections[first].reachable.span);
        let same = before.reachable == expected.reachable
            && (before.because == expected.because || before.because.is_none() || expected.because.is_none());
        let question = format!("`{}` to `{}`", expected.from, expected.to);
        let span: Span = section.reachable.span;
        if same {
            findings
                .add(&EXPECTATION_REPEATED, section.from.span, format!("{question} is expected twice"))
                .related(sections[first].from.span, "the first one")
                .help("remove one.");
        } else {
            findings
                .add(
                    &EXPECTATIONS_CONTRADICT,
                    span,
                    format!("{question} cannot be both what these two expect"),
                )
                .related(there, "the first one")
                .help("keep the one that is meant.");
        }
    }
}

/// What is asked, whatever the ends are called.
#[derive(PartialEq, Eq)]
struct Question {
    from: String,
    to: String,
    /// None for every one.
    protocol: Option<Protocol>,
    port: Option<u16>,
    source_ports: Option<PortRange>,
}

impl Question {
    fn of(model: &Model, it: &Expectation) -> Self {
        Self {
            from: end(model, &it.from),
            to: end(model, &it.to),
            protocol: it.protocol,
            port: it.port,
            source_ports: it.source_ports,
        }
    }

    /// Whether one of them asks of `all` protocols, and so of the other's.
    fn shares(&self, other: &Self) -> bool {
        let protocols = match (self.protocol, other.protocol) {
            (None, protocol) | (protocol, None) => protocol,
            _ => return false,
        };
        let has_ports = matches!(protocols, Some(Protocol::TCP | Protocol::UDP));
        let same_port = !has_ports || self.port == other.port;
        same_port && (&self.from, &self.to, self.source_ports) == (&other.from, &other.to, other.source_ports)
    }
}

/// The name of an end: `internet` is its first host, and an address that one thing has is that thing.
fn end(model: &Model, word: &str) -> String {
    if word == "internet" {
        return model.internet_hosts.first().map_or(word, |host| &host.name).to_owned();
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        let instances = model.instances().filter(|(_, it)| it.ip == address).map(|(_, it)| &it.name);
        let hosts = model.internet_hosts.iter().filter(|it| it.ip == address).map(|it| &it.name);
        let mut names = instances.chain(hosts);
        return match (names.next(), names.next()) {
            (Some(only), None) => only.clone(),
            _ => word.to_owned(),
        };
    }
    // Instances have names that are unique in the lab.
    word.rsplit('/').next().unwrap_or(word).to_owned()
}

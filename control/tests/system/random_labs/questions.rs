//! Random questions to a lab, and what the analysis of its file says to them.

use localvpc::explain;
use localvpc::lower::{IdRegistry, Lowered, lower};
use localvpc::model::Model;
use localvpc::view::{ExplainOutcome, ExplainRequest, Explanation};
use localvpc_api::Generation;

use super::file::{host_name, instance_name, ip, vpc_name};
use super::random::Random;
use super::world::{End, World};

/// A question that the file answers.
pub struct Question {
    request: ExplainRequest,
    /// The answer: reachable or blocked.
    pub outcome: ExplainOutcome,
    /// The code of what is in the way first.
    pub code: Option<String>,
}

impl Question {
    /// Whether an end is meant by another address than its first.
    pub fn has_secondary(&self) -> bool {
        [&self.request.from, &self.request.to].iter().any(|word| word.contains('/'))
    }

    /// As a line of `expect:`.
    pub fn expectation(&self) -> String {
        let ExplainRequest { from, to, protocol, port, source_port, .. } = &self.request;
        let word =
            |key: &str, value: Option<String>| value.map_or(String::new(), |it| format!(", {key}: {it}"));
        format!(
            "  - {{ from: {from}, to: {to}, protocol: {protocol}{}{}, reachable: {}{} }}\n",
            word("port", port.map(|it| it.to_string())),
            word("source_ports", source_port.map(|it| it.to_string())),
            self.outcome == ExplainOutcome::Reachable,
            word("because", self.code.clone())
        )
    }
}

/// Questions whose packets somebody can send.
pub fn of(world: &World, random: &mut Random, count: usize) -> Vec<ExplainRequest> {
    let mut questions = Vec::new();
    let mut has_other = false;
    while questions.len() < count {
        let (from, source) = world.sender(random);
        let destination = world.destination(random, from);
        let sender = match from {
            End::Instance(vpc, instance) => name(world, vpc, instance, source),
            End::Host(address) => match world.hosts.iter().position(|host| *host == address) {
                Some(host) if !world.hosts.contains(&destination) => host_name(host),
                _ => continue,
            },
        };
        if source == destination {
            continue;
        }
        let protocol = *random.of(&["tcp", "tcp", "tcp", "udp", "udp", "icmp", "47"]);
        // Without ports a packet in the other direction belongs to the same connection: one of them is enough.
        if protocol == "47" && std::mem::replace(&mut has_other, true) {
            continue;
        }
        let has_ports = ["tcp", "udp"].contains(&protocol);
        // An open source port asks about all of them.
        let one = has_ports && !random.one_in(3);
        questions.push(ExplainRequest {
            from: sender,
            to: receiver(world, from, destination),
            protocol: protocol.to_owned(),
            port: has_ports.then(|| *random.of(&[22, 53, 80, 443, 5432, 8080])),
            source_port: one.then(|| random.port()),
            source_port_to: None,
            source_address: None,
        });
    }
    questions
}

/// The name of what has the address for the sender, or the address.
fn receiver(world: &World, from: End, destination: u32) -> String {
    if let Some(host) = world.hosts.iter().position(|host| *host == destination) {
        return host_name(host);
    }
    if let End::Instance(vpc, _) = from
        && let Some(instance) = world.vpcs[vpc].instances.iter().position(|it| it.has(destination))
    {
        return name(world, vpc, instance, destination);
    }
    ip(destination).to_string()
}

/// What an instance is called by one of its addresses: its name stands for the first.
fn name(world: &World, vpc: usize, instance: usize, address: u32) -> String {
    match world.vpcs[vpc].instances[instance].addresses[0].0 == address {
        true => instance_name(vpc, instance),
        false => format!("{}/{}", vpc_name(vpc), ip(address)),
    }
}

/// Those that the file answers. What depends on a port that a NAT gateway chooses, on any of several source ports, or on what
/// an instance's kernel does, it does not.
#[track_caller]
pub fn decided(text: &str, questions: Vec<ExplainRequest>) -> Vec<Question> {
    let (model, _) = Model::read("random.yaml", text)
        .unwrap_or_else(|errors| panic!("not a legal file: {errors:?}\n{text}"));
    let Lowered { tables, index, .. } = lower(&model, &mut IdRegistry::default(), Generation(0));
    let answers = questions.into_iter().map(|request| {
        let asked = explain::resolve(&index, &request)
            .unwrap_or_else(|error| panic!("{error:?}\n{request:?}\n{text}"));
        let Explanation { outcome, code, send, .. } = explain::answer(&index, &tables, &asked);
        // What stays in one namespace is no packet of the lab's.
        let is_decided = [ExplainOutcome::Reachable, ExplainOutcome::Blocked].contains(&outcome);
        (is_decided && send.is_some()).then_some(Question { request, outcome, code })
    });
    answers.flatten().collect()
}

/// So many of them, half of which are reachable, where there are that many.
pub fn mixed(questions: Vec<Question>, count: usize) -> Vec<Question> {
    let (mut reachable, mut blocked): (Vec<_>, Vec<_>) =
        questions.into_iter().partition(|it| it.outcome == ExplainOutcome::Reachable);
    reachable.truncate(count - blocked.len().min(count / 2));
    blocked.truncate(count - reachable.len());
    reachable.append(&mut blocked);
    reachable
}

//! What a file expects: names that exist, and reasons that there are.

use std::net::IpAddr;

use localvpc_api::trace::Protocol;

use crate::analysis::codes::{Code, cannot_occur};
use crate::config::Spanned;
use crate::config::diagnostic::{Diagnostics, nearest, quoted};
use crate::config::document::{ExpectSection, LabSection};
use crate::config::values::{ProtocolWord, Text};

use super::Expectation;
use super::build::{place, texts};

/// The expectations of a file, for `localvpc check`.
pub fn expectations(content: &LabSection, errors: &mut Diagnostics) -> Vec<Expectation> {
    let names = Names::of(content);
    // A section under a misspelt key has been complained about; what is in it is not missing.
    let all_read = ["vpcs", "instances", "nat_gateways", "internet_gateway", "internet", "hosts"]
        .iter()
        .all(|key| !errors.has_slip(key));
    for section in content.expect.iter().filter(|_| all_read) {
        names.sender(&section.from, errors);
        names.receiver(&section.to, errors);
        section.via.iter().for_each(|word| names.on_the_way(word, errors));
        section.because.iter().for_each(|word| reason(word, errors));
        port(section, errors);
    }
    content.expect.iter().map(expectation).collect()
}

/// What expectations may name.
struct Names<'a> {
    /// Instances and internet hosts.
    ends: Vec<&'a str>,
    nat_gateways: Vec<&'a str>,
    internet_gateways: Vec<&'a str>,
    /// With their VPC, for `vpc/name`.
    vpcs: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Names<'a> {
    fn of(content: &'a LabSection) -> Self {
        let mut names = Self {
            ends: Vec::new(),
            nat_gateways: Vec::new(),
            internet_gateways: Vec::new(),
            vpcs: Vec::new(),
        };
        for vpc in content.vpcs.iter() {
            let instances: Vec<&str> = vpc.value.instances.iter().map(|named| named.name.as_str()).collect();
            let nat_gateways: Vec<&str> =
                vpc.value.nat_gateways.iter().map(|named| named.name.as_str()).collect();
            names
                .internet_gateways
                .extend(vpc.value.internet_gateway.iter().map(|name| name.value.0.as_str()));
            names.ends.extend(&instances);
            names.nat_gateways.extend(&nat_gateways);
            names.vpcs.push((&vpc.name, [instances, nat_gateways].concat()));
        }
        let hosts = content.internet.iter().flat_map(|internet| internet.hosts.iter());
        names.ends.extend(hosts.map(|named| named.name.as_str()));
        if content.internet.is_some() || !names.internet_gateways.is_empty() {
            names.ends.push("internet");
        }
        names
    }

    fn sender(&self, word: &Spanned<Text>, errors: &mut Diagnostics) {
        self.receiver(word, errors);
    }

    fn receiver(&self, word: &Spanned<Text>, errors: &mut Diagnostics) {
        self.check(word, &[&self.ends[..], &self.nat_gateways, &self.internet_gateways].concat(), errors);
    }

    fn on_the_way(&self, word: &Spanned<Text>, errors: &mut Diagnostics) {
        self.check(word, &[&self.internet_gateways[..], &self.nat_gateways, &self.ends].concat(), errors);
    }

    fn check(&self, word: &Spanned<Text>, names: &[&str], errors: &mut Diagnostics) {
        let text = word.value.0.as_str();
        let in_vpc = text.split_once('/').is_some_and(|(vpc, name)| {
            let is_in = |names: &[&str]| names.contains(&name) || name.parse::<IpAddr>().is_ok();
            self.vpcs.iter().any(|(other, names)| *other == vpc && is_in(names))
        });
        if names.contains(&text) || in_vpc || text.parse::<IpAddr>().is_ok() {
            return;
        }
        let help = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "define an instance or an internet host first.".to_owned(),
            None => format!("there are {}.", quoted(names.iter().copied())),
        };
        errors
            .error(word.span, format!("the file expects something of `{text}`, which is not in it"))
            .help(help);
    }
}

/// TCP and UDP have a port, nothing else has one.
fn port(section: &ExpectSection, errors: &mut Diagnostics) {
    let protocol = &section.protocol;
    match (protocol.value, &section.port) {
        (ProtocolWord::Tcp | ProtocolWord::Udp | ProtocolWord::All, None) => {
            errors
                .error(protocol.span, "this expects nothing in particular without `port:`")
                .help("add `port: 443`.");
        }
        (ProtocolWord::Icmp | ProtocolWord::Number(_), Some(port)) => {
            errors.error(port.span, "only tcp and udp have ports").help("leave `port:` out.");
        }
        _ => {}
    }
}

fn reason(word: &Spanned<Text>, errors: &mut Diagnostics) {
    let text = word.value.0.as_str();
    let codes = || Code::all().map(Code::as_str);
    if codes().any(|code| code == text) {
        return;
    }
    if let Some(why) = cannot_occur(text) {
        errors.error(word.span, format!("`{text}` cannot be the reason here: {why}"));
        return;
    }
    let help = match nearest(text, codes()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "`localvpc explain` and `localvpc counters` show codes, such as `SUBNET_ACL_RESTRICTION`.".into()
        }
    };
    errors.error(word.span, format!("`{text}` is not the code of a reason")).help(help);
}

fn expectation(section: &ExpectSection) -> Expectation {
    let protocol = match section.protocol.value {
        ProtocolWord::All => None,
        ProtocolWord::Tcp => Some(Protocol::TCP),
        ProtocolWord::Udp => Some(Protocol::UDP),
        ProtocolWord::Icmp => Some(Protocol::ICMP),
        ProtocolWord::Number(number) => Some(Protocol(number)),
    };
    Expectation {
        place: place(section.span),
        from: section.from.value.0.clone(),
        to: section.to.value.0.clone(),
        protocol,
        port: section.port.map(|port| port.value),
        source_ports: section.source_ports.map(|ports| ports.value),
        reachable: section.reachable.value,
        via: texts(&section.via),
        because: section.because.as_ref().map(|text| text.value.0.clone()),
    }
}

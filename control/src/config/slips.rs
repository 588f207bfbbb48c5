//! Keys that people write who know AWS or other tools, and what is written here instead.

use super::diagnostic::nearest;
use super::tree::{Key, Node, Value};

/// What an unknown key probably means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// What to write instead.
    pub help: String,
    /// The known key that it stands for, where there is one.
    pub meant: Option<&'static str>,
}

/// Looks at the unknown key at `at` of `entries` in what messages call `noun`: `a route`.
pub fn slip(noun: &str, entries: &[(Key, Node)], at: usize, known: &[&'static str]) -> Option<Slip> {
    let key = entries[at].0.text.as_str();
    let meant = |meant: &'static str| {
        Some(Slip { help: format!("it is called `{meant}` here."), meant: Some(meant) })
    };
    let told = |help: &str, meant| Some(Slip { help: help.to_owned(), meant });
    if let Some(slip) = cut_list(entries, at) {
        return Some(slip);
    }
    match (noun, key) {
        ("a route", "destination" | "cidr" | "destination_cidr" | "destination_cidr_block") => meant("to"),
        ("a route", "target" | "gateway" | "gateway_id" | "nat_gateway" | "nat_gateway_id" | "instance") => {
            meant("via")
        }
        ("a security group rule", "deny") => told(ONLY_ALLOWS, Some("protocol")),
        ("a security group rule", "allow") => told(
            "every rule of a security group allows: write `tcp: 443`, `udp: 53` or `all: true`.",
            Some("protocol"),
        ),
        ("a security group", "deny") => told(ONLY_ALLOWS, None),
        ("a security group", "ingress") | ("a network ACL", "ingress") => meant("inbound"),
        ("a security group", "egress") | ("a network ACL", "egress") => meant("outbound"),
        ("a security group rule", "port" | "ports" | "from_port" | "to_port") => port(entries, at),
        ("a network ACL entry", "number" | "rule_number") => meant("rule"),
        ("a network ACL entry", "port") => meant("ports"),
        ("a network ACL entry", "protocol") => {
            told("the protocol stands behind `allow:` or `deny:`: `allow: tcp`.", None)
        }
        ("a VPC" | "a subnet", "cidr_block") => meant("cidr"),
        ("an instance", "private_ip") => meant("ip"),
        ("an instance" | "a NAT gateway", "elastic_ip" | "public_address") => meant("eip"),
        _ => {
            let near = nearest(key, known.iter().copied())?;
            Some(Slip { help: format!("did you mean `{near}`?"), meant: Some(near) })
        }
    }
}

const ONLY_ALLOWS: &str =
    "a security group only allows, and discards what no rule admits; a network ACL can deny.";

/// `{ tcp: 80,443 }`: the comma begins another key.
fn cut_list(entries: &[(Key, Node)], at: usize) -> Option<Slip> {
    let is_ports = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let is_cut = |(key, value): &(Key, Node)| value.value == Value::Null && is_ports(&key.text);
    let before = entries[..at].iter().rposition(|entry| !is_cut(entry))?;
    let (key, value) = &entries[before];
    let Value::Scalar { text, .. } = &value.value else { return None };
    if !is_ports(text) || !is_cut(&entries[at]) {
        return None;
    }
    let cut = entries[before + 1..].iter().take_while(|entry| is_cut(entry));
    let all: Vec<&str> =
        std::iter::once(text.as_str()).chain(cut.map(|(key, _)| key.text.as_str())).collect();
    let help = match key.text.as_str() {
        "ports" => "a network ACL entry takes one range of ports: write an entry for each.".to_owned(),
        key => format!("a comma begins the next key; several are a list: `{key}: [{}]`.", all.join(", ")),
    };
    Some(Slip { help, meant: None })
}

/// `{ protocol: tcp, port: 80 }`.
fn port(entries: &[(Key, Node)], at: usize) -> Option<Slip> {
    let word = |wanted: &str| {
        entries.iter().find_map(|(key, node)| match &node.value {
            Value::Scalar { text, .. } if key.text == wanted => Some(text.as_str()),
            _ => None,
        })
    };
    let protocol = word("protocol").filter(|protocol| ["tcp", "udp"].contains(protocol)).unwrap_or("tcp");
    let ports = word(&entries[at].0.text).filter(|ports| ports.starts_with(|c: char| c.is_ascii_digit()));
    let help = format!(
        "the protocol is the key and its ports are the value: `{protocol}: {}`.",
        ports.unwrap_or("443")
    );
    Some(Slip { help, meant: Some("protocol") })
}

#[cfg(test)]
mod tests {
    use crate::model::Model;

    /// The errors of a file with `rule` in a security group, `entry` in a network ACL and `route` in a table.
    fn errors(rule: &str, entry: &str, route: &str) -> Vec<String> {
        let text = format!(
            "\
lab: x
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    route_tables: {{ main: [ {route} ] }}
    security_groups: {{ web: {{ inbound: [ {rule} ] }} }}
    network_acls: {{ acl: {{ inbound: [ {entry} ] }} }}
"
        );
        Model::read("x.yaml", &text).map_or_else(|errors| errors.rendered(), |_| Vec::new())
    }

    #[track_caller]
    fn one(errors: &[String], help: &str) {
        let [error] = errors else { panic!("one error expected: {}", errors.join("\n\n")) };
        assert!(error.ends_with(&format!("help: {help}")), "{error}");
    }

    const RULE: &str = "{ tcp: 80, from: self }";
    const ENTRY: &str = "{ rule: 1, allow: all, from: 0.0.0.0/0 }";
    const ROUTE: &str = "{ to: 0.0.0.0/0, via: igw }";

    #[test]
    fn what_others_write_is_one_error_with_the_right_word() {
        assert_eq!(errors(RULE, ENTRY, ROUTE), Vec::<String>::new());
        for (rule, help) in [
            (
                "{ tcp: 80,443,8080, from: self }",
                "a comma begins the next key; several are a list: `tcp: [80, 443, 8080]`.",
            ),
            (
                "{ protocol: tcp, port: 80, from: self }",
                "the protocol is the key and its ports are the value: `tcp: 80`.",
            ),
            (
                "{ protocol: -1, from: self }",
                "every protocol is written `all: true`; `0` is a protocol of its own, HOPOPT.",
            ),
            ("{ protocol: tcp, from: self }", "TCP is written with its ports: `tcp: 443`, or `tcp: all`."),
            (
                "{ deny: tcp, from: self }",
                "a security group only allows, and discards what no rule admits; a network ACL can deny.",
            ),
        ] {
            one(&errors(rule, ENTRY, ROUTE), help);
        }
        let entry = "{ rule: 1, allow: tcp, ports: 80,443, from: 0.0.0.0/0 }";
        one(
            &errors(RULE, entry, ROUTE),
            "a network ACL entry takes one range of ports: write an entry for each.",
        );
        let route = errors(RULE, ENTRY, "{ destination: 0.0.0.0/0, target: igw }");
        let [to, via] = &route[..] else { panic!("{route:#?}") };
        assert!(
            to.ends_with("it is called `to` here.") && via.ends_with("it is called `via` here."),
            "{route:#?}"
        );
    }

    #[test]
    fn a_misspelt_parent_is_one_error() {
        let instances: String =
            (0..9).map(|n| format!("      i{n}: {{ subnet: s, security_groups: [web, db] }}\n")).collect();
        let text = format!(
            "\
lab: x
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets: {{ s: {{ cidr: 10.0.0.0/24 }} }}
    security_group: {{ web: {{}}, db: {{}} }}
    instances:
{instances}"
        );
        let errors = Model::read("x.yaml", &text).unwrap_err().rendered();
        one(&errors, "did you mean `security_groups`?");
        let missing = text.replace("    security_group: { web: {}, db: {} }\n", "");
        let errors = Model::read("x.yaml", &missing).unwrap_err().rendered();
        assert_eq!(errors.len(), 2, "web and db: {errors:#?}");
        assert!(errors[0].contains("note: the same in 8 more places"), "{}", errors[0]);
    }
}

//! The difference between two models, resource by resource.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::view::{Change, ChangeAction, Plan, ResourceView};

use super::Model;
use super::describe::{DEFINED_AT, ELASTIC_IP, resources};

/// What has to be done to get from `old` (nothing, for a lab that does not run) to `new`.
///
/// What a VPC brings along (its default security group, network ACL and main route table) comes and goes
/// with it and is not listed. Warnings are left empty.
pub fn diff(old: Option<&Model>, new: &Model) -> Plan {
    let before: Vec<ResourceView> = old.map(resources).unwrap_or_default();
    let after = resources(new);
    let with_vpc = new.vpcs.len() > 1 || old.is_some_and(|old| old.vpcs.len() > 1);
    let by_key: BTreeMap<_, _> = before.iter().map(|resource| (key(resource), resource)).collect();
    let mut plan = Plan::default();
    for resource in after.iter().filter(|resource| resource.kind != ELASTIC_IP) {
        let written = resource.position.is_some();
        let (action, detail) = match by_key.get(&key(resource)) {
            None if written => (ChangeAction::Add, String::new()),
            None => continue,
            Some(earlier) => match changes(&facts(&as_written(earlier)), &facts(&as_written(resource))) {
                Some(detail) => (ChangeAction::Change, detail),
                None => {
                    plan.unchanged += u32::from(written);
                    continue;
                }
            },
        };
        plan.changes.push(change(action, resource, with_vpc, detail));
    }
    let kept: Vec<_> = after.iter().map(key).collect();
    let gone = before.iter().filter(|resource| resource.kind != ELASTIC_IP && !kept.contains(&key(resource)));
    let gone = gone.filter(|resource| resource.position.is_some());
    plan.changes.extend(gone.map(|resource| change(ChangeAction::Remove, resource, with_vpc, String::new())));
    plan
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn key(resource: &ResourceView) -> Key<'_> {
    (&resource.kind, &resource.vpc, &resource.name)
}

fn change(action: ChangeAction, resource: &ResourceView, with_vpc: bool, detail: String) -> Change {
    let name = match resource.vpc.as_str() {
        "" => resource.name.clone(),
        vpc if with_vpc => format!("{vpc}/{}", resource.name),
        _ => resource.name.clone(),
    };
    Change { action, kind: resource.kind.clone(), name, detail }
}

/// The facts of a resource by the words of a file: a public address is an `eip`, or `public_ip` gave it.
fn as_written(resource: &ResourceView) -> Value {
    let mut detail = resource.detail.clone();
    if let Value::Object(fields) = &mut detail
        && fields.remove("public_ip_kind").is_some_and(|kind| kind == "elastic")
        && let Some(address) = fields.insert("public_ip".into(), Value::Null)
    {
        fields.insert("eip".into(), address);
    }
    detail
}

/// The facts of a resource without the lines where they stand.
fn facts(detail: &Value) -> Value {
    match detail {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != DEFINED_AT)
            .map(|(key, value)| (key.clone(), facts(value)))
            .collect(),
        Value::Array(items) => items.iter().map(facts).collect(),
        other => other.clone(),
    }
}

/// What differs, in words; `None` where nothing does.
fn changes(old: &Value, new: &Value) -> Option<String> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| format!("{} → {}", word(old), word(new)));
    };
    let mut words = Vec::new();
    let (mut added, mut removed, mut moved) = (0, 0, false);
    let mut noun = "";
    let gone = before.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(key, _)| (key, &Value::Null));
    for (key, value) in after.iter().chain(gone) {
        let earlier = before.get(key).unwrap_or(&Value::Null);
        match (key.as_str(), earlier, value) {
            _ if earlier == value => {}
            ("inbound" | "outbound" | "routes", Value::Array(earlier), Value::Array(later)) => {
                noun = if key == "routes" { "route" } else { "rule" };
                added += missing(later, earlier);
                removed += missing(earlier, later);
                moved = true;
            }
            _ => words.push(format!("{key}: {} → {}", word(earlier), word(value))),
        }
    }
    words.extend((added > 0).then(|| format!("{} added", count(added, noun))));
    words.extend((removed > 0).then(|| format!("{} removed", count(removed, noun))));
    if moved && added + removed == 0 {
        words.push(format!("{noun}s in another order"));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn missing(of: &[Value], from: &[Value]) -> usize {
    of.iter().filter(|item| !from.contains(item)).count()
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join("; "),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(key, value)| format!("{key} {}", word(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_TIER: &str = include_str!("../../../configs/two-tier.yaml");

    fn model(text: &str) -> Model {
        Model::read("x.yaml", text).unwrap_or_else(|errors| panic!("{errors}")).0
    }

    fn lines(plan: &Plan) -> Vec<String> {
        let sign = |action| match action {
            ChangeAction::Add => '+',
            ChangeAction::Change => '~',
            ChangeAction::Remove => '-',
        };
        plan.changes
            .iter()
            .map(|one| {
                format!("{} {} {} {}", sign(one.action), one.kind, one.name, one.detail).trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn everything_is_new_to_a_lab_that_does_not_run() {
        let plan = diff(None, &model(TWO_TIER));
        let lines = lines(&plan);
        assert!(lines.contains(&"+ subnet private-a".to_owned()), "{lines:#?}");
        assert!(lines.contains(&"+ internet host example".to_owned()), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("default")), "{lines:#?}");
        assert_eq!(plan.unchanged, 0);
    }

    #[test]
    fn the_same_file_changes_nothing_even_when_its_lines_move() {
        let moved = format!("# one more line\n\n{TWO_TIER}");
        let plan = diff(Some(&model(TWO_TIER)), &model(&moved));
        assert_eq!(plan.changes, []);
        assert_eq!(plan.unchanged as usize, diff(None, &model(TWO_TIER)).changes.len());
    }

    #[test]
    fn a_change_says_what_it_is() {
        let changed = TWO_TIER
            .replace("          - { icmp: echo-request, from: 0.0.0.0/0 }\n", "")
            .replace("ip: 10.0.2.20,", "ip: 10.0.2.21,")
            .replace("run: localvpc serve 5432 }", "run: [localvpc serve 5432, sleep 9] }")
            .replace("example: { ip", "sample: { ip")
            .replace("to: example", "to: sample");
        let plan = diff(Some(&model(TWO_TIER)), &model(&changed));
        assert_eq!(
            lines(&plan),
            [
                "~ security group web 1 rule removed",
                "~ instance app ip: 10.0.2.20 → 10.0.2.21",
                "~ instance db run: localvpc serve 5432 → localvpc serve 5432; sleep 9",
                "+ internet host sample",
                "- internet host example",
            ]
        );
    }

    #[test]
    fn a_change_has_the_words_of_the_file() {
        let automatic = TWO_TIER.replace("eip: 203.0.113.10,", "public_ip: true,");
        let none = TWO_TIER.replace("eip: 203.0.113.10,", "");
        let changed = |old: &str, new: &str| lines(&diff(Some(&model(old)), &model(new))).join("\n");
        assert_eq!(changed(TWO_TIER, &none), "~ instance web eip: 203.0.113.10 → none");
        assert_eq!(changed(&none, TWO_TIER), "~ instance web eip: none → 203.0.113.10");
        let both = changed(TWO_TIER, &automatic);
        assert!(
            both.contains("eip: 203.0.113.10 → none") && both.contains("public_ip: none → 203.0.113."),
            "{both}"
        );
        let other = changed(TWO_TIER, &TWO_TIER.replace("eip: 203.0.113.20", "eip: 203.0.113.21"));
        assert_eq!(
            other,
            "~ NAT gateway nat-a addresses: eip 203.0.113.20 ip 10.0.1.100 → eip 203.0.113.21 ip 10.0.1.100"
        );
    }
}

//! `localvpc inspect`: every resource of the lab, or one with all that is known of it.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::client::Client;
use super::{Failure, Format, Global, output};
use crate::view::{Position, ResourceView};

/// Show the resources of the lab, or one with everything about it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kinds: vpc, subnet, route-table (rt), internet-gateway (igw), nat-gateway (nat), elastic-ip (eip),
security-group (sg), network-acl (nacl), instance, internet-host ...

Examples:
  localvpc inspect                       everything
  localvpc inspect subnet                all subnets
  localvpc inspect sg db                 one security group with its rules
  localvpc inspect db                    everything that is called db
  localvpc inspect 10.0.2.30             what has this address
  localvpc inspect eni-0a1b...           what has this id
  localvpc inspect nat -o json")]
pub struct Args {
    /// A kind; or a name, id or address
    kind: Option<String>,
    /// A name (`db`, `main/db`), id (`sg-0a1b...`) or address
    name: Option<String>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let client = Client::of(global)?;
    let all: Vec<ResourceView> = client.ask("/v1/resources")?;
    let picked = pick(&all, &args, client.lab())?;
    match global.output {
        Format::Json => output::print_json(&picked)?,
        // A name asks for the whole of it, a kind for an overview.
        Format::Table if picked.in_full => {
            let sheets: Vec<_> = picked.resources.iter().map(|resource| sheet(resource)).collect();
            output::print(&sheets.join("\n"))?;
        }
        Format::Table => output::print(&overview(&picked.resources))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The resources that were asked for.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
struct Picked<'a> {
    resources: Vec<&'a ResourceView>,
    /// Whether they were asked for by name.
    #[serde(skip)]
    in_full: bool,
}

fn pick<'a>(all: &'a [ResourceView], args: &Args, lab: &str) -> Result<Picked<'a>, Failure> {
    let Some(first) = &args.kind else {
        return Ok(Picked { resources: all.iter().collect(), in_full: false });
    };
    let kind = canonical(first);
    let of_kind: Vec<_> = all.iter().filter(|resource| canonical(&resource.kind) == kind).collect();
    let (candidates, name, what) = match &args.name {
        Some(name) => (of_kind, name, first.replace('_', " ")),
        None if !of_kind.is_empty() => return Ok(Picked { resources: of_kind, in_full: false }),
        None => (all.iter().collect(), first, "kind or resource".to_owned()),
    };
    let is_named = |resource: &&ResourceView| {
        resource.name == *name
            || resource.id == *name
            || format!("{}/{}", resource.vpc, resource.name) == *name
    };
    let bears = |resource: &&ResourceView| bears(&resource.detail, name);
    let resources: Vec<_> = candidates.iter().copied().filter(|it| is_named(it) || bears(it)).collect();
    if resources.is_empty() {
        let mut known: Vec<_> = candidates.iter().map(|resource| resource.name.clone()).collect();
        known.dedup();
        return Err(Failure::NotFound { what, name: name.clone(), lab: lab.to_owned(), known });
    }
    Ok(Picked { resources, in_full: true })
}

/// Whether `name` is an address of the resource, or the id of its network interface.
fn bears(detail: &Value, name: &str) -> bool {
    let is_own = |key: &str| ["ip", "eip", "public_ip", "eni"].contains(&key);
    match detail {
        Value::Object(fields) => fields.iter().any(|(key, value)| match value {
            Value::String(text) => is_own(key) && text == name,
            Value::Array(_) if key == "addresses" => bears(value, name),
            _ => false,
        }),
        Value::Array(items) => items.iter().any(|item| bears(item, name)),
        _ => false,
    }
}

/// `Security_Groups`, `sg` and `security group` are one kind.
fn canonical(kind: &str) -> String {
    let kind = kind.to_lowercase().replace(['-', '_', ' '], "");
    match kind.strip_suffix('s').unwrap_or(&kind) {
        "rt" | "rtb" => "routetable",
        "igw" => "internetgateway",
        "nat" | "natgw" | "ngw" => "natgateway",
        "eip" | "elasticip" => "elasticip",
        "sg" => "securitygroup",
        "nacl" | "acl" => "networkacl",
        "host" => "internethost",
        other => other,
    }
    .to_owned()
}

fn overview(resources: &[&ResourceView]) -> String {
    let mut table = output::table(&["KIND", "NAME", "VPC", "ID", "SUMMARY", "DEFINED AT"]);
    for resource in resources {
        table.add_row([
            &resource.kind,
            &resource.name,
            &resource.vpc,
            &resource.id,
            &resource.summary,
            &defined_at(resource.position.as_ref()),
        ]);
    }
    output::lines(&table, "")
}

/// One resource, its detail indented as in YAML.
fn sheet(resource: &ResourceView) -> String {
    let mut text = format!("{} {}\n", resource.kind, resource.name);
    for (name, value) in [
        ("id", &resource.id),
        ("vpc", &resource.vpc),
        ("summary", &resource.summary),
        ("defined at", &defined_at(resource.position.as_ref())),
    ] {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name}: {value}");
        }
    }
    tree(&mut text, &resource.detail, 1);
    text
}

fn defined_at(position: Option<&Position>) -> String {
    position.map_or_else(|| "default".into(), |at| format!("{}:{}", at.file, at.line))
}

/// A value in the manner of YAML; small lists and objects stay on one line.
fn tree(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                match flat(value) {
                    Some(line) => text.push_str(&format!("{indent}{name}: {line}\n")),
                    None => {
                        text.push_str(&format!("{indent}{name}:\n"));
                        tree(text, value, depth + 1);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match flat(item) {
                    Some(line) => text.push_str(&format!("{indent}- {line}\n")),
                    None => {
                        let mut inner = String::new();
                        tree(&mut inner, item, depth + 1);
                        text.push_str(&format!("{indent}- {}", inner.trim_start()));
                    }
                }
            }
        }
        Value::Null => {}
        scalar => text.push_str(&format!("{indent}{}\n", flat(scalar).unwrap_or_default())),
    }
}

/// The value on one line, where that is readable.
fn flat(value: &Value) -> Option<String> {
    const WIDTH: usize = 90;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let items: Vec<_> =
                items.iter().filter(|item| !item.is_object()).map(flat).collect::<Option<_>>()?;
            let line = format!("[{}]", items.join(", "));
            (line.len() <= WIDTH && value.as_array()?.len() == items.len()).then_some(line)
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| Some(format!("{name}: {}", flat(value)?)))
                .collect::<Option<_>>()?;
            let line = format!("{{ {} }}", fields.join(", "));
            (line.len() <= WIDTH).then_some(line)
        }
        scalar => Some(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, name: &str) -> ResourceView {
        ResourceView {
            kind: kind.into(),
            name: name.into(),
            id: format!("{kind}-{name}"),
            vpc: "main".into(),
            position: None,
            summary: String::new(),
            detail: serde_json::json!({ "rules": [{ "protocol": "tcp", "ports": [80, 443] }], "none": null }),
        }
    }

    fn picked(kind: Option<&str>, name: Option<&str>) -> Result<Vec<String>, String> {
        let all =
            [resource("subnet", "db"), resource("security group", "db"), resource("security group", "web")];
        let args = Args { kind: kind.map(str::to_owned), name: name.map(str::to_owned) };
        pick(&all, &args, "lab")
            .map(|picked| picked.resources.iter().map(|it| it.id.clone()).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn kinds_names_and_ids_pick_resources() {
        assert_eq!(picked(None, None).unwrap().len(), 3);
        assert_eq!(picked(Some("sgs"), None).unwrap(), ["security group-db", "security group-web"]);
        assert_eq!(picked(Some("security-group"), Some("main/web")).unwrap(), ["security group-web"]);
        assert_eq!(picked(Some("db"), None).unwrap(), ["subnet-db", "security group-db"]);
        assert_eq!(picked(Some("subnet-db"), None).unwrap(), ["subnet-db"]);
        let error = picked(Some("sg"), Some("wep")).unwrap_err();
        assert!(error.contains("sg `wep` is not in lab lab: did you mean `web`?"), "{error}");
    }

    #[test]
    fn addresses_and_ids_find_what_has_them() {
        let mut web = resource("instance", "web");
        web.detail = serde_json::json!({ "eni": "eni-0c", "ip": "10.0.1.10", "public_ip": "203.0.113.10", "run": ["10.0.1.11"] });
        let mut nat = resource("NAT gateway", "nat-a");
        nat.detail = serde_json::json!({ "addresses": [{ "ip": "10.0.1.100", "eip": "203.0.113.20" }] });
        let all = [web, nat];
        let found = |word: &str| {
            let args = Args { kind: Some(word.to_owned()), name: None };
            pick(&all, &args, "lab")
                .map_or_else(|_| Vec::new(), |it| it.resources.iter().map(|it| it.name.as_str()).collect())
        };
        for (word, name) in [
            ("10.0.1.10", "web"),
            ("203.0.113.10", "web"),
            ("eni-0c", "web"),
            ("instance-web", "web"),
            ("203.0.113.20", "nat-a"),
            ("10.0.1.100", "nat-a"),
        ] {
            assert_eq!(found(word), [name], "{word}");
        }
        assert_eq!(found("10.0.1.11"), [""; 0], "only its own addresses");
    }

    #[test]
    fn a_sheet_leaves_out_what_is_empty() {
        let text = sheet(&resource("subnet", "a"));
        assert!(text.contains("  rules:\n    - { ports: [80, 443], protocol: tcp }\n"), "{text}");
        assert!(!text.contains("none") && !text.contains("summary"), "{text}");
    }
}

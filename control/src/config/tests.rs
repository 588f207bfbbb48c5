//! The schema for editors says what the parser says.

use serde_json::Value as Json;

use super::diagnostic::{Diagnostics, SourceFile};
use super::schema;
use super::tree::{self, Node, Value};

const CONFIGS: &[&str] = &[
    include_str!("../../../configs/two-tier.yaml"),
    include_str!("../../../configs/peers.yaml"),
    include_str!("../../../configs/shared.yaml"),
];

/// Everything the format has, in one file.
const EVERYTHING: &str = "
lab: x
quotas: aws
vpcs:
  main:
    cidr: 10.0.0.0/16
    cidrs: [10.1.0.0/16]
    internet_gateway: igw
    main_route_table: out
    subnets:
      a: { cidr: 10.0.1.0/24, route_table: out, network_acl: acl, namespace: shared, public_ip: true }
      b: { cidr: 10.0.2.0/24 }
    route_tables:
      out: { main: false, routes: [ { to: 0.0.0.0/0, via: igw } ] }
      nat: [ { to: 0.0.0.0/0, via: nat } ]
    nat_gateways:
      nat: { subnet: b, eip: [203.0.113.1, 203.0.113.2], ip: 10.0.2.9, connectivity: public, idle_timeout: 350s, state: available }
      gone: { subnet: b, eip: 203.0.113.1, state: deleted }
    network_acls:
      acl:
        inbound: [ { rule: 1, allow: 50, from: 0.0.0.0/0 }, { rule: 2, deny: icmp, type: 3, code: 4, from: 0.0.0.0/0 } ]
        outbound: [ { rule: 1, allow: tcp, ports: 1024-65535, to: 0.0.0.0/0 } ]
    security_groups:
      empty: {}
      sg:
        description: all kinds of rules
        inbound:
          - { tcp: [80, 443, 8000-8080], from: [0.0.0.0/0, self], description: web }
          - { udp: all, from: empty }
          - { icmp: echo-request, from: empty }
          - { icmp: { type: 3, code: 4 }, from: empty }
          - { protocol: 50, from: empty }
          - { all: true, from: empty }
        outbound: []
    instances:
      i: { subnet: a, security_groups: sg, run: [localvpc serve 80, sleep 1], source_dest_check: false }
      j: { subnet: b, public_ip: false, attach: /proc/1/ns/net, tracking: { tcp_established: 1h, udp: 30s, udp_stream: 60s }, max_connections: 1000, offload: off }
      k: { subnet: b, ip: 10.0.2.8, eip: 203.0.113.3, secondary_ips: [10.0.2.11, { ip: 10.0.2.10, eip: 203.0.113.4 }], fragments_per_second: 9, tracking: { other: 5s } }
internet:
  public_pool: 203.0.113.128/26
  offload: on
  hosts: { h: { ip: 198.51.100.1, run: localvpc serve 80 } }
expect:
  - { from: k, to: h, protocol: tcp, port: 80, reachable: true, via: igw }
  - { from: h, to: j, protocol: 50, reachable: false, because: NO_ROUTE_TO_DESTINATION }
";

#[test]
fn the_schema_accepts_what_the_parser_accepts() {
    let schema = schema();
    for text in CONFIGS.iter().chain([&EVERYTHING]) {
        crate::model::Model::read("x.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
        check(&schema, &schema, &json(text), "").unwrap();
    }
}

#[test]
fn the_schema_refuses_unknown_keys_and_wrong_kinds() {
    let schema = schema();
    for (right, wrong) in [
        ("cidr: 10.0.0.0/16", "cdir: 10.0.0.0/16"),
        ("public_ip: true", "public_ip: 7"),
        ("connectivity: public", "connectivity: secret"),
        ("state: deleted", "state: gone"),
        ("offload: off", "offload: some"),
        ("secondary_ips: [10.0.2.11,", "secondary_ips: [[10.0.2.11],"),
        ("{ ip: 10.0.2.10,", "{ address: 10.0.2.10,"),
        ("quotas: aws", "quotas: azure"),
        ("{ rule: 1, allow: 50,", "{ rule: 1, alow: 50,"),
        ("idle_timeout: 350s", "idle_timeout: 350"),
    ] {
        let text = EVERYTHING.replacen(right, wrong, 1);
        assert!(check(&schema, &schema, &json(&text), "").is_err(), "{wrong}");
    }
}

#[test]
fn no_file_however_broken_makes_it_panic() {
    let read = |text: &str| match crate::model::Model::read("x.yaml", text) {
        Ok((_, warnings)) => warnings.render(),
        Err(errors) => errors.refusal(),
    };
    for (end, _) in EVERYTHING.char_indices() {
        read(&EVERYTHING[..end]);
    }
    let lines: Vec<&str> = EVERYTHING.lines().collect();
    for left_out in 0..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, it)| *it).collect();
        read(&rest.join("\n"));
    }
    for odd in [
        "0.0.0.0/32",
        "255.255.255.255/32",
        "0.0.0.0/0",
        "::/0",
        "fd00::/64",
        "ü",
        "*x",
        "&x",
        "{}",
        "[]",
        "~",
        "'",
    ] {
        for right in [
            "10.0.0.0/16",
            "10.0.1.0/24",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "203.0.113.128/26",
            "10.0.2.9",
            "198.51.100.1",
            "350s",
            "[self",
        ] {
            read(&EVERYTHING.replace(right, odd));
        }
    }
}

#[test]
fn windows_line_ends_are_fine() {
    let text = EVERYTHING.replace('\n', "\r\n");
    let (model, _) = crate::model::Model::read("x.yaml", &text).unwrap();
    assert_eq!(model.vpcs[0].instances[0].commands, ["localvpc serve 80", "sleep 1"]);
}

#[test]
fn every_key_has_a_description() {
    fn visit(value: &Json, path: &str) {
        if let Some(properties) = value.get("properties").and_then(Json::as_object) {
            for (key, property) in properties {
                assert!(property.get("description").is_some(), "{path}/{key}");
            }
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            visit(value, &format!("{path}/{key}"));
        }
    }
    visit(&schema(), "");
}

/// The file that the comments at the top of the labs refer to. `BLESS=1 cargo test` writes it.
#[test]
fn the_schema_beside_the_labs_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/localvpc.schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == current, "configs/localvpc.schema.json is stale: run the tests with BLESS=1");
}

/// As much of JSON Schema as our schema uses.
fn check(root: &Json, schema: &Json, value: &Json, path: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{path}: {what}: {value}"));
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
        check(root, target, value, path)?;
    }
    if let Some(options) = schema.get("anyOf").and_then(Json::as_array)
        && !options.iter().any(|option| check(root, option, value, path).is_ok())
    {
        return wrong("none of anyOf");
    }
    if let Some(words) = schema.get("enum").and_then(Json::as_array)
        && !words.contains(value)
    {
        return wrong("not in enum");
    }
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let types: Vec<&str> = match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => vec![kind],
    };
    if !types.contains(&kind) {
        return wrong(&format!("not of type {types:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        check(root, schema.get("items").unwrap_or(&Json::Null), item, path)?;
    }
    for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
    {
        if kind == "object" && value.get(key).is_none() {
            return wrong(&format!("{key} is missing"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        match known.or(schema.get("additionalProperties")) {
            Some(Json::Bool(false)) => return Err(format!("{path}: unknown key")),
            Some(schema) => check(root, schema, value, &path)?,
            None => {}
        }
    }
    Ok(())
}

/// A document as an editor sees it.
fn json(text: &str) -> Json {
    let file = SourceFile { path: "x.yaml".into(), text: text.into() };
    let mut errors = Diagnostics::new(file.into());
    to_json(&tree::parse(&mut errors).unwrap())
}

fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, quoted } => match (text.parse::<u64>(), text.parse::<bool>()) {
            (Ok(number), _) if !quoted => number.into(),
            (_, Ok(truth)) if !quoted => truth.into(),
            _ => text.as_str().into(),
        },
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.text.clone(), to_json(value))).collect()
        }
    }
}

//! `explain -o json` beside what the EC2 API says of its analyses: names of fields, their nesting, the order of components.
//!
//! Fields that begin with a capital are the API's, all others are ours.

use std::process::Command;

use serde_json::Value;

/// What `explain` prints as JSON, from a file alone.
fn explain(question: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_localvpc"))
        .arg("explain")
        .args(question.split(' '))
        .args(["-o", "json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"))
        .output()
        .expect("the program runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{question}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Questions whose answers have all there is to see.
const QUESTIONS: &[&str] = &[
    "internet web tcp/80 --offline two-tier.yaml",
    "igw web tcp/80 --offline two-tier.yaml",
    "app example tcp/443 --offline two-tier.yaml",
    "app example udp/53 --offline two-tier.yaml",
    "app example 47 --offline two-tier.yaml",
    "web db tcp/5432 --offline two-tier.yaml",
    "nat-a example icmp --offline two-tier.yaml",
    "internet app tcp/22 --offline two-tier.yaml",
    "lucky example tcp/443 --offline scenarios/stateless-acl.yaml",
    "app partner tcp/443 --offline scenarios/more-specific-route.yaml",
    "stuck example tcp/80 --offline scenarios/nat-instance.yaml",
    "app example tcp/80 --offline scenarios/nat-instance.yaml",
    "dev-app prod-db tcp/5432 --offline scenarios/dev-prod.yaml",
    "web 203.0.113.30 tcp/6379 --offline scenarios/sg-references.yaml",
];

/// Kinds of objects: which fields they have, and of what kind those are; `-` is a value, and the analysis comes first.
const SHAPES: &[(&str, &[(&str, &str)])] = &[
    (
        "NetworkInsightsAnalysis",
        &[
            ("NetworkInsightsAnalysisId", "-"),
            ("NetworkInsightsPathId", "-"),
            ("Status", "-"),
            ("NetworkPathFound", "-"),
            ("ForwardPathComponents", "PathComponent"),
            ("ReturnPathComponents", "PathComponent"),
            ("Explanations", "Explanation"),
            ("AlternatePathHints", "AlternatePathHint"),
        ],
    ),
    (
        "PathComponent",
        &[
            ("SequenceNumber", "-"),
            ("AclRule", "AnalysisAclRule"),
            ("AttachedTo", "AnalysisComponent"),
            ("Component", "AnalysisComponent"),
            ("OutboundHeader", "AnalysisPacketHeader"),
            ("InboundHeader", "AnalysisPacketHeader"),
            ("RouteTableRoute", "AnalysisRouteTableRoute"),
            ("SecurityGroupRule", "AnalysisSecurityGroupRule"),
            ("Subnet", "AnalysisComponent"),
            ("Vpc", "AnalysisComponent"),
            ("Explanations", "Explanation"),
        ],
    ),
    ("AnalysisComponent", &[("Id", "-"), ("Name", "-")]),
    (
        "AnalysisAclRule",
        &[
            ("Cidr", "-"),
            ("Egress", "-"),
            ("PortRange", "PortRange"),
            ("Protocol", "-"),
            ("RuleAction", "-"),
            ("RuleNumber", "-"),
        ],
    ),
    (
        "AnalysisSecurityGroupRule",
        &[
            ("Cidr", "-"),
            ("Direction", "-"),
            ("SecurityGroupId", "-"),
            ("PortRange", "PortRange"),
            ("Protocol", "-"),
        ],
    ),
    (
        "AnalysisRouteTableRoute",
        &[
            ("DestinationCidr", "-"),
            ("GatewayId", "-"),
            ("NatGatewayId", "-"),
            ("NetworkInterfaceId", "-"),
            ("Origin", "-"),
            ("State", "-"),
        ],
    ),
    ("PortRange", &[("From", "-"), ("To", "-")]),
    (
        "AnalysisPacketHeader",
        &[
            ("DestinationAddresses", "-"),
            ("DestinationPortRanges", "PortRange"),
            ("Protocol", "-"),
            ("SourceAddresses", "-"),
            ("SourcePortRanges", "PortRange"),
        ],
    ),
    (
        "Explanation",
        &[
            ("Acl", "AnalysisComponent"),
            ("AclRule", "AnalysisAclRule"),
            ("Address", "-"),
            ("Component", "AnalysisComponent"),
            ("DestinationVpc", "AnalysisComponent"),
            ("Direction", "-"),
            ("ExplanationCode", "-"),
            ("InternetGateway", "AnalysisComponent"),
            ("NatGateway", "AnalysisComponent"),
            ("NetworkInterface", "AnalysisComponent"),
            ("PacketField", "-"),
            ("PortRanges", "PortRange"),
            ("Protocols", "-"),
            ("RouteTable", "AnalysisComponent"),
            ("RouteTableRoute", "AnalysisRouteTableRoute"),
            ("SecurityGroups", "AnalysisComponent"),
            ("SourceVpc", "AnalysisComponent"),
            ("State", "-"),
            ("Subnet", "AnalysisComponent"),
            ("Vpc", "AnalysisComponent"),
        ],
    ),
];

/// Notes in `seen` what is there, and panics about what is not the API's.
fn compare(kind: &str, value: &Value, seen: &mut Vec<String>) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| compare(kind, item, seen));
    }
    let Some((_, fields)) = SHAPES.iter().find(|(name, _)| *name == kind) else {
        assert!(kind == "-" && !value.is_object(), "{kind} is an object of no known kind: {value:#}");
        return;
    };
    let object = value.as_object().unwrap_or_else(|| panic!("{kind} is an object, and not {value}"));
    for (name, inner) in object.iter().filter(|(name, _)| name.starts_with(char::is_uppercase)) {
        let field = fields.iter().find(|(field, _)| field == name);
        let (_, inner_kind) = field.unwrap_or_else(|| panic!("{kind} has no field {name} in the EC2 API"));
        seen.push(format!("{kind}.{name}"));
        compare(inner_kind, inner, seen);
    }
}

#[test]
fn ra_4_ra_10_ra_11_fields_are_those_of_the_api() {
    let mut seen = Vec::new();
    for question in QUESTIONS {
        compare("NetworkInsightsAnalysis", &explain(question), &mut seen);
    }
    // What never occurs was not compared; components that stand for themselves need no `Component` in an explanation.
    let missing: Vec<String> = SHAPES
        .iter()
        .flat_map(|(kind, fields)| fields.iter().map(move |(field, _)| format!("{kind}.{field}")))
        .filter(|field| !seen.contains(field) && field != "Explanation.Component")
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn ra_6_an_analysis_has_ids_that_follow_from_lab_and_question() {
    let id_of = |question: &str, field: &str| {
        let id = explain(question)[field].as_str().unwrap_or_default().to_owned();
        let digits = id.split_once('-').map_or("", |(_, digits)| digits).to_owned();
        assert!(digits.len() == 17 && digits.chars().all(|it| it.is_ascii_hexdigit()), "{id}");
        id
    };
    let [first, other] = [QUESTIONS[0], QUESTIONS[2]];
    assert!(id_of(first, "NetworkInsightsPathId").starts_with("nip-"));
    let analysis = id_of(first, "NetworkInsightsAnalysisId");
    assert!(analysis.starts_with("nia-"));
    assert_eq!(id_of(first, "NetworkInsightsAnalysisId"), analysis);
    assert_ne!(id_of(other, "NetworkInsightsAnalysisId"), analysis);
    let found = |question: &str| explain(question)["NetworkPathFound"].clone();
    assert_eq!(
        [first, QUESTIONS[5], QUESTIONS[11]].map(found),
        [Value::Bool(true), Value::Bool(false), Value::Null]
    );
    assert_eq!(explain(first)["Status"], "succeeded");
}

#[test]
fn ra_8_components_stand_in_the_order_of_the_analyzer() {
    let said = explain("igw web tcp/80 --offline two-tier.yaml");
    let order = |way: &str| -> Vec<String> {
        let components = said[way].as_array().expect("a list");
        let kind = |component: &Value| {
            let id = component["Component"]["Id"].as_str().expect("an id");
            id.split('-').next().unwrap_or_default().to_owned()
        };
        components.iter().map(kind).collect()
    };
    assert_eq!(order("ForwardPathComponents"), ["igw", "acl", "sg", "eni", "i"]);
    assert_eq!(order("ReturnPathComponents"), ["i", "eni", "sg", "acl", "rtb", "igw"]);
    let igw = &said["ForwardPathComponents"][0];
    assert_eq!(igw["InboundHeader"]["DestinationAddresses"][0], "203.0.113.10/32");
    assert_eq!(igw["OutboundHeader"]["DestinationAddresses"][0], "10.0.1.10/32");
    assert_eq!(said["ForwardPathComponents"][1]["AclRule"]["Egress"], false);
    assert_eq!(said["ReturnPathComponents"][3]["AclRule"]["Egress"], true);
    assert_eq!(said["ReturnPathComponents"][4]["RouteTableRoute"]["Origin"], "createroute");
}

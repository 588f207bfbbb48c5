//! Every explanation code that AWS documents: a test that produces it, or the reason why it cannot occur.
//!
//! `control/EXPLANATION_CODES.md` is made from this: `CODES=write cargo test -p localvpc --test explanation_codes` writes it.

use std::fs;
use std::path::Path;

use localvpc::analysis::codes::ALL;
use localvpc::explain::{answer, resolve};
use localvpc::lower::{IdRegistry, lower};
use localvpc::model::Model;
use localvpc::view::ExplainRequest;
use localvpc_api::Generation;

const TWO_TIER: &str = include_str!("../../configs/two-tier.yaml");
const PEERS: &str = include_str!("../../configs/peers.yaml");
const DEV_PROD: &str = include_str!("../../configs/scenarios/dev-prod.yaml");
const NAT_INSTANCE: &str = include_str!("../../configs/scenarios/nat-instance.yaml");
const WRONG_NAT: &str = include_str!("../../configs/scenarios/nat-in-the-wrong-subnet.yaml");

/// What is replaced in a file, and by what.
type Edit = (&'static str, &'static str);

const DELETED: Edit = ("nat-a: { subnet", "nat-a: { state: deleted, subnet");
const NO_ROUTES: Edit = ("private: [ { to: 0.0.0.0/0, via: nat-a } ]", "private: []");
const BY_IGW: Edit =
    ("private: [ { to: 0.0.0.0/0, via: nat-a } ]", "private: [ { to: 0.0.0.0/0, via: igw } ]");
const OTHER_ROUTE: Edit =
    ("private: [ { to: 0.0.0.0/0, via: nat-a } ]", "private: [ { to: 192.0.2.0/24, via: nat-a } ]");
const BLACKHOLE: Edit = (
    "private: [ { to: 0.0.0.0/0, via: nat-a } ]",
    "private: [ { to: 0.0.0.0/0, via: nat-a }, { to: 198.51.100.0/24, via: blackhole } ]",
);
const APP_UNCHECKED: Edit = ("ip: 10.0.2.20,", "ip: 10.0.2.20, source_dest_check: false,");
const WEB_UNCHECKED: Edit = ("ip: 10.0.1.10,", "ip: 10.0.1.10, source_dest_check: false,");
const APP_PUBLIC: Edit = ("ip: 10.0.2.20,", "ip: 10.0.2.20, eip: 203.0.113.22,");
const DB_PUBLIC: Edit = ("ip: 10.0.2.30,", "ip: 10.0.2.30, eip: 203.0.113.30,");
const NARROW_ACL: Edit = (
    "    network_acls:\n",
    "    network_acls:\n      narrow: { inbound: [ { rule: 90, allow: all, from: 10.0.0.0/16 }, { rule: 100, allow: tcp, ports: 32768-60999, from: 0.0.0.0/0 } ], outbound: [ { rule: 100, allow: all, to: 0.0.0.0/0 } ] }\n",
);
const WITH_NARROW_ACL: Edit = ("route_table: public }", "route_table: public, network_acl: narrow }");

/// The codes in the answer to `FROM TO PROTOCOL[/PORT] [SOURCE-ADDRESS]`.
fn codes(file: &str, edits: &[Edit], question: &str) -> Vec<String> {
    let mut text = file.to_owned();
    for (old, new) in edits {
        assert!(text.contains(old), "the file has no `{old}`");
        text = text.replace(old, new);
    }
    let (model, _) = Model::read("lab.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let lab = lower(&model, &mut IdRegistry::default(), Generation(1));
    let words: Vec<&str> = question.split(' ').collect();
    let (protocol, port) = words[2].split_once('/').map_or((words[2], None), |(it, port)| (it, Some(port)));
    let port = port.map(|port| port.parse().unwrap());
    let request = ExplainRequest {
        source_address: words.get(3).map(|address| address.parse().unwrap()),
        ..ExplainRequest::new(words[0], words[1], protocol, port)
    };
    let asked = resolve(&lab.index, &request).unwrap_or_else(|error| panic!("{}", error.message));
    let explanation = answer(&lab.index, &lab.tables, &asked);
    let analysis = explanation.analysis.expect("it was analysed");
    // What is said of a component is said of the whole, too.
    let hops = analysis.forward_path_components.iter().chain(&analysis.return_path_components);
    let said: Vec<String> = analysis.explanations.iter().map(|it| it.explanation_code.clone()).collect();
    for told in hops.flat_map(|hop| &hop.explanations) {
        assert!(said.contains(&told.explanation_code));
    }
    said
}

macro_rules! codes {
    ($($code:ident $test:ident: $file:expr, [$($edit:expr),*], $question:literal;)*) => {
        $(#[test]
        fn $test() {
            let said = codes($file, &[$($edit),*], $question);
            assert!(said.iter().any(|code| code == stringify!($code)), "{said:?}");
        })*

        /// Codes, and the tests that produce them.
        const TESTED: &[(&str, &str)] = &[$((stringify!($code), stringify!($test))),*];
    };
}

codes! {
    BAD_STATE bad_state: TWO_TIER, [DELETED], "app example tcp/443";
    BAD_STATE_ROUTE bad_state_route: TWO_TIER, [DELETED], "app example tcp/443";
    CANNOT_ROUTE cannot_route: TWO_TIER, [OTHER_ROUTE], "app example tcp/443";
    ENI_ADDRESS_RESTRICTION eni_address_restriction: TWO_TIER, [], "nat-a example tcp/443 10.0.1.99";
    ENI_SG_RULES_MISMATCH eni_sg_rules_mismatch: TWO_TIER, [], "web db tcp/5432";
    ENI_SOURCE_DEST_CHECK_RESTRICTION eni_source_dest_check_restriction: TWO_TIER, [], "app example tcp/443 10.0.2.99";
    GATEWAY_REJECTS_SPOOFED_TRAFFIC gateway_rejects_spoofed_traffic: TWO_TIER, [WEB_UNCHECKED], "web example tcp/443 10.0.1.99";
    IGW_DESTINATION_ADDRESS_IN_VPC_CIDRS igw_destination_address_in_vpc_cidrs: PEERS, [], "a/igw right tcp/80";
    IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS igw_destination_address_not_in_rfc1918_egress: TWO_TIER, [], "web 192.168.1.1 tcp/80";
    IGW_DESTINATION_ADDRESS_NOT_IN_RFC6598_EGRESS igw_destination_address_not_in_rfc6598_egress: TWO_TIER, [], "web 100.64.0.1 tcp/80";
    IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS igw_private_ip_association_for_ingress: TWO_TIER, [], "internet app tcp/22";
    IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS igw_public_ip_association_for_egress: TWO_TIER, [BY_IGW], "app example tcp/443";
    IGW_SOURCE_ADDRESS_NOT_IN_RFC1918_INGRESS igw_source_address_not_in_rfc1918_ingress: TWO_TIER, [], "internet web tcp/80 10.9.9.9";
    IGW_SOURCE_ADDRESS_NOT_IN_RFC6598_INGRESS igw_source_address_not_in_rfc6598_ingress: TWO_TIER, [], "internet web tcp/80 100.64.9.9";
    MORE_SPECIFIC_ROUTE more_specific_route: TWO_TIER, [BLACKHOLE], "app example tcp/443";
    NGW_DEST_ADDRESS_PRESERVATION ngw_dest_address_preservation: TWO_TIER, [], "internet nat-a tcp/22";
    NGW_REQUIRES_SOURCE_IN_VPC ngw_requires_source_in_vpc: TWO_TIER, [APP_UNCHECKED], "app example tcp/443 10.0.2.99";
    NGW_SOURCE_ADDRESS_REASSIGN ngw_source_address_reassign: TWO_TIER, [APP_PUBLIC], "example app udp/53";
    NO_POSSIBLE_DESTINATION no_possible_destination: TWO_TIER, [], "app 10.0.2.99 tcp/80";
    NO_ROUTE_TO_DESTINATION ra_20_no_route_to_destination: TWO_TIER, [NO_ROUTES], "app igw tcp/443";
    PROTOCOL_RESTRICTION protocol_restriction: TWO_TIER, [], "app example 47";
    REMAP_EPHEMERAL_PORT remap_ephemeral_port: TWO_TIER, [NARROW_ACL, WITH_NARROW_ACL], "app example tcp/443";
    SG_HAS_NO_RULES sg_has_no_rules: TWO_TIER, [], "web app tcp/22";
    SG_REFERENCES_NOT_PRESERVED sg_references_not_preserved: TWO_TIER, [DB_PUBLIC], "app 203.0.113.30 tcp/5432";
    SUBNET_ACL_RESTRICTION subnet_acl_restriction: TWO_TIER, [], "app example udp/53";
    UNKNOWN_DESTINATION unknown_destination: NAT_INSTANCE, [], "app example tcp/80";
    VPC_LOCAL_ROUTE_CIDR_RESTRICTION vpc_local_route_cidr_restriction: TWO_TIER, [NO_ROUTES], "app example tcp/443";
    DISCONNECTED_VPCS disconnected_vpcs: DEV_PROD, [], "dev-app prod-db tcp/5432";
    NO_PATH no_path: WRONG_NAT, [], "lost example tcp/443";
    IGW_EXPECTS_PUBLIC_ADDRESS igw_expects_public_address: TWO_TIER, [], "internet 10.0.2.20 tcp/22";
    UNIDIRECTIONAL_PATH_ANALYSIS_ONLY unidirectional_path_analysis_only: NAT_INSTANCE, [], "app example tcp/80";
}

#[test]
fn every_code_is_tested_or_cannot_occur() {
    let problems: Vec<String> = ALL
        .iter()
        .filter(|(code, why)| TESTED.iter().any(|(tested, _)| tested == code) == why.is_some())
        .map(|(code, why)| {
            format!("{code} is {}", if why.is_some() { "tested, and cannot occur" } else { "not tested" })
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    for (code, test) in TESTED {
        assert!(ALL.iter().any(|(known, _)| known == code), "AWS does not know {code}");
        assert!(test.ends_with(&code.to_lowercase()), "{test} is named for another code");
    }
}

#[test]
fn the_table_is_up_to_date() {
    let mut table = String::from(
        "# Explanation codes\n\nEvery code that AWS documents for Reachability Analyzer, and the test in\n\
         [tests/explanation_codes.rs](tests/explanation_codes.rs) that produces it, or why it cannot occur. Made by that file.\n\n\
         | code | test, or why not |\n|---|---|\n",
    );
    for (code, why) in ALL {
        let test = TESTED.iter().find(|(tested, _)| tested == code).map(|(_, test)| format!("`{test}`"));
        table += &format!("| {code} | {} |\n", test.or(why.map(str::to_owned)).unwrap_or_default());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("EXPLANATION_CODES.md");
    if std::env::var("CODES").is_ok_and(|value| value == "write") {
        fs::write(&path, &table).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, table, "run `CODES=write cargo test -p localvpc --test explanation_codes`");
}

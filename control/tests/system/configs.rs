//! The files in `configs/` do what their `expect:` says: by analysis, and by a real packet for every line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use localvpc::model::Model;
use serde_json::Value;

use crate::harness::Lab;

/// Brings the file up, and checks it.
fn check(path: &str) {
    let text = fs::read_to_string(configs().join(path)).expect("the file is there");
    let (model, _) = Model::read(path, &text).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(!model.expectations.is_empty(), "{path} expects nothing");
    let Some(lab) = Lab::up(&text) else { return };
    let file = lab.file().to_string_lossy().into_owned();
    let junit = lab.run_dir().join("check.xml").to_string_lossy().into_owned();
    let done = lab.localvpc(&["check", &file, "--junit", &junit, "-o", "json"]).ok();
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(report["mode"], "probe", "{done}");
    for (result, expected) in report["results"].as_array().into_iter().flatten().zip(&model.expectations) {
        assert_eq!(result["verdict"], "holds", "{result:#}");
        let parts = result["each"].as_array().cloned().unwrap_or_else(|| vec![result.clone()]);
        for part in parts {
            // An instance of another VPC without a public address cannot be named at all.
            let nameless = part["codes"].to_string().contains("DISCONNECTED_VPCS");
            assert_eq!(nameless, part["unsendable"].is_string(), "{part:#}");
            assert!(nameless || part["probe"].is_object(), "no packet was sent: {part:#}");
            assert_eq!(part["probe"]["answer"].is_string(), expected.reachable, "{part:#}");
        }
    }
    let xml = fs::read_to_string(junit).expect("the file that was asked for");
    assert_eq!(xml.matches("<testcase ").count(), model.expectations.len(), "{xml}");
    assert!(xml.contains("failures=\"0\""), "{xml}");
}

fn configs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("configs")
}

macro_rules! checked {
    ($($test:ident $path:literal;)*) => {
        $(#[test]
        fn $test() {
            check($path);
        })*

        /// The files that are checked.
        const CHECKED: &[&str] = &[$($path),*];
    };
}

checked! {
    two_tier "two-tier.yaml";
    shared "shared.yaml";
    peers "peers.yaml";
    bastion "scenarios/bastion.yaml";
    dev_prod "scenarios/dev-prod.yaml";
    more_specific_route "scenarios/more-specific-route.yaml";
    nat_in_the_wrong_subnet "scenarios/nat-in-the-wrong-subnet.yaml";
    nat_instance "scenarios/nat-instance.yaml";
    route_tables "scenarios/route-tables.yaml";
    rule_order "scenarios/rule-order.yaml";
    sg_references "scenarios/sg-references.yaml";
    stateless_acl "scenarios/stateless-acl.yaml";
    three_tier "scenarios/three-tier.yaml";
    tracked_untracked "scenarios/tracked-untracked.yaml";
}

#[test]
fn every_file_is_checked() {
    let mut files = BTreeSet::new();
    for directory in ["", "scenarios"] {
        for entry in fs::read_dir(configs().join(directory)).expect("the directory is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".yaml") {
                files.insert(Path::new(directory).join(name).to_string_lossy().into_owned());
            }
        }
    }
    assert_eq!(files, CHECKED.iter().map(|path| (*path).to_owned()).collect());
}

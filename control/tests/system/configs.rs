//! The files in `configs/` do what their `expect:` says, on the real machine.

use localvpc::model::Model;
use serde_json::Value;

use crate::harness::Lab;

/// Brings the file up and asks for each of its expectations.
fn check(file: &str, text: &str) {
    let (model, _) = Model::read(file, text).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(!model.expectations.is_empty(), "{file} expects nothing");
    let Some(lab) = Lab::up(text) else { return };
    for expected in &model.expectations {
        let port = expected.port.map(|port| format!("/{port}")).unwrap_or_default();
        let question = format!("{} {} {}{port}", expected.from, expected.to, expected.protocol);
        let answer = lab.explain(&question, if expected.reachable { 0 } else { 1 });
        assert_eq!(answer["code"].as_str(), expected.because.as_deref(), "{question}: {answer:#}");
        let steps = answer["forward"].as_array().into_iter().flatten();
        let mut places: Vec<&str> = steps.filter_map(|step| step["place"].as_str()).collect();
        places.dedup();
        let mut left = places.iter();
        let passes = expected.via.iter().all(|via| left.any(|place| place.rsplit('/').next() == Some(via)));
        assert!(passes, "{question} should pass {:?}, but passes {places:?}", expected.via);
    }
    let _: Value = lab.json(&["inspect"]);
}

#[test]
fn two_tier() {
    check("two-tier.yaml", include_str!("../../../configs/two-tier.yaml"));
}

#[test]
fn shared() {
    check("shared.yaml", include_str!("../../../configs/shared.yaml"));
}

#[test]
fn peers() {
    check("peers.yaml", include_str!("../../../configs/peers.yaml"));
}

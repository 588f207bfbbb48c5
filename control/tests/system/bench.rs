//! `localvpc bench`: figures on both sides, and reasons where there are none.

use serde_json::Value;

use crate::harness::command::run_line;
use crate::harness::{Lab, TWO_TIER, edit};

/// app may reach db on the default port too, over TCP only.
fn with_iperf_port() -> String {
    edit(
        TWO_TIER,
        "- { tcp: 5432, from: app,",
        "- { tcp: 5201, from: app }\n          - { tcp: 5432, from: app,",
    )
}

fn rows(report: &Value) -> Vec<&str> {
    let rows = report["rows"].as_array().expect("rows");
    for row in rows {
        for field in ["lab", "linux", "ratio"] {
            assert!(row[field].as_f64().is_some_and(|value| value > 0.0), "{row}");
        }
    }
    rows.iter().map(|row| row["name"].as_str().expect("a name")).collect()
}

#[test]
fn load_bench_measures_what_rules_let_through_and_names_what_they_do_not() {
    let Some(lab) = Lab::up(&with_iperf_port()) else { return };
    let report: Value = lab.json(&["bench", "app", "db", "--time", "0.2"]);
    let expected = [
        "TCP throughput, 1 stream",
        "TCP throughput, 4 streams",
        "TCP connections",
        "TCP round trip, p50",
        "TCP round trip, p99",
        "TCP round trip, p99.9",
    ];
    assert_eq!(rows(&report), expected, "{report}");
    assert_eq!((&report["address"], &report["port"]), (&Value::from("10.0.2.30"), &Value::from(5201)));
    let notes = report["notes"].as_array().expect("notes");
    assert_eq!(notes.len(), 1, "{notes:?}");
    let note = notes[0].as_str().expect("text");
    assert!(note.contains("udp/5201 is blocked") && note.contains("ENI_SG_RULES_MISMATCH"), "{note}");

    // The namespaces of the Linux router had no names, so nothing of them can be left; the processes have gone too.
    let list = run_line("ip netns list").ok().stdout;
    assert!(!list.contains("bench"), "{list}");
}

#[test]
fn load_bench_goes_through_the_nat_gateway_and_to_public_addresses() {
    let open = edit(&with_iperf_port(), "rule: 110, allow: tcp, ports: 443", "rule: 110, allow: all");
    let open = edit(
        &open,
        "- { tcp: 80, from: 0.0.0.0/0,",
        "- { udp: 5201, from: 0.0.0.0/0 }\n          - { tcp: 80, from: 0.0.0.0/0,",
    );
    let open = edit(&open, "rule: 100, allow: tcp, ports: 1024-65535, from", "rule: 100, allow: all, from");
    let Some(lab) = Lab::up(&open) else { return };
    let report: Value = lab.json(&["bench", "app", "example", "--time", "0.2"]);
    assert_eq!(rows(&report).len(), 7, "{report}");
    assert_eq!(report["notes"], Value::Array(vec![]));
    assert!(lab.leases().iter().any(|lease| lease.row.out.bytes > 0), "through the NAT gateway");

    lab.localvpc(&["up", "--poll", "busy"]).ok();
    let report: Value = lab.json(&["bench", "internet", "web", "--time", "0.1"]);
    assert_eq!(rows(&report), ["UDP packet rate, 64 bytes"], "{report}");
    assert_eq!(report["address"], "203.0.113.10", "the public address: {report}");
    let says_so = |report: &Value| report["notes"].to_string().contains("never sleep");
    assert!(says_so(&report), "the Linux router had less of the machine: {report}");
    let report: Value = lab.json(&["bench", "internet", "web", "--time", "0.1", "--no-linux"]);
    assert!(!says_so(&report), "nothing is compared: {report}");
}

#[test]
fn bench_says_why_it_cannot() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let done = lab.localvpc(&["bench", "web", "db"]).exits(1);
    assert!(done.stderr.contains("neither tcp/5201 nor udp/5201 gets through from web to db"), "{done}");
    assert!(done.stderr.contains("ENI_SG_RULES_MISMATCH") && done.stderr.contains("lab.yaml:"), "{done}");
    assert!(done.stdout.is_empty(), "{done}");

    let done = lab.localvpc(&["bench", "ap", "db"]).exits(1);
    assert!(done.stderr.contains("did you mean `app`?"), "{done}");
    let done = lab.localvpc(&["bench", "app", "app"]).exits(1);
    assert!(done.stderr.contains("in one namespace"), "{done}");
    let done =
        lab.localvpc(&["bench", "app", "db", "--port", "5432", "--time", "0.1", "--no-linux"]).exits(1);
    assert!(done.stderr.contains("somebody listens there already"), "{done}");
    lab.localvpc(&["bench", "app", "db", "--time", "0"]).exits(2);
}

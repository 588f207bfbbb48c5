//! The verbs that talk to a daemon, against one that gives fixed answers.

use std::path::Path;
use std::process::{Command, Output};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;

/// A lab called `fixed` whose daemon gives fixed answers, and a run directory that has only this one.
struct Lab {
    run_dir: TempDir,
    /// Ends the daemon with the test.
    _runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn start() -> Self {
        Self::start_as(&["fixed"])
    }

    fn start_as(names: &[&str]) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        for name in names {
            std::fs::create_dir(run_dir.path().join(name)).unwrap();
            let listener = UnixListener::bind(run_dir.path().join(name).join("control.sock")).unwrap();
            runtime.spawn(async move { axum::serve(listener, router()).await });
        }
        Self { run_dir, _runtime: runtime }
    }

    fn run(&self, args: &[&str]) -> Output {
        command(self.run_dir.path()).args(args).output().unwrap()
    }

    /// Standard output of a run that must succeed.
    fn out(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.out(&[args, &["-o", "json"]].concat())).unwrap()
    }

    fn file(&self, text: &str) -> String {
        let path = self.run_dir.path().join("lab.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn command(run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localvpc"));
    command.env("LOCALVPC_RUN_DIR", run_dir).env_remove("LOCALVPC_LAB").current_dir(run_dir);
    command
}

const FILE: &str = "lab: fixed\nvpcs: { main: { cidr: 10.0.0.0/16 } }\n";

fn router() -> Router {
    Router::new()
        .route("/v1/status", get(async || Json(status())))
        .route("/v1/resources", get(async || Json(resources())))
        .route("/v1/connections", get(async || Json(connections())))
        .route("/v1/nat", get(async || Json(leases())))
        .route("/v1/counters", get(async || Json(counters())))
        .route("/v1/explain", post(explain))
        .route("/v1/plan", post(async || Json(plan())))
        .route("/v1/apply", post(apply))
        .route("/v1/down", post(async || Json(json!({}))))
        .with_state(())
}

fn instance(name: &str, vpc: &str, ip: &str, public: Value, processes: Value) -> Value {
    json!({
        "name": name, "kind": if vpc.is_empty() { "internet host" } else { "instance" }, "vpc": vpc,
        "subnet": if vpc.is_empty() { "" } else { "a" }, "ip": ip, "public_ip": public,
        "security_groups": ["default"], "namespace": format!("fixed-{name}"), "shared": false,
        "processes": processes,
    })
}

fn status() -> Value {
    let serve = json!([{ "command": "localvpc serve 80", "pid": 7, "ended": null, "log": "/nowhere.log" }]);
    json!({
        "lab": "fixed", "file": "fixed.yaml", "control_pid": 11, "uptime_s": 192,
        "dataplane": { "pid": 12, "version": "1", "generation": 3, "settings": { "poll": "busy", "merge": "off" }, "links": [1, 2], "broken_links": [], "connections": 4, "leases": 1,
                       "workers": [worker()] },
        "dataplane_restarts": 0, "problems": [], "resources": { "subnet": 1, "vpc": 2 },
        "instances": [
            instance("web", "main", "10.0.1.10", json!("203.0.113.10"), json!([])),
            instance("app", "main", "10.0.2.20", Value::Null, json!([])),
            instance("example", "", "198.51.100.10", Value::Null, serve),
        ],
    })
}

fn worker() -> Value {
    json!({ "batches": 1, "packets": 20, "cache_hits": 15, "walks": 5, "cached_flows": 2, "table_swaps": 1,
            "longest_gap_us": 80 })
}

fn resources() -> Value {
    json!([
        { "kind": "vpc", "name": "main", "id": "vpc-0a", "vpc": "", "position": { "file": "f.yaml", "line": 3, "column": 1 },
          "summary": "10.0.0.0/16", "detail": { "cidr": "10.0.0.0/16" } },
        { "kind": "security_group", "name": "db", "id": "sg-0b", "vpc": "main", "position": null,
          "summary": "", "detail": { "inbound": [{ "tcp": 5432, "from": "web" }] } },
        { "kind": "NAT gateway", "name": "nat-a", "id": "nat-0c", "vpc": "main", "position": null, "summary": "",
          "detail": { "addresses": [{ "ip": "10.0.1.100", "eip": "203.0.113.20" }] } },
        { "kind": "instance", "name": "web", "id": "i-0d", "vpc": "main", "position": null, "summary": "",
          "detail": { "ip": "10.0.1.10", "eni": "eni-0e" } },
    ])
}

fn tuple() -> Value {
    json!({ "source": "10.0.2.20", "destination": "198.51.100.10", "source_port": 40312, "destination_port": 80,
            "protocol": 6 })
}

fn traffic() -> Value {
    json!({ "packets": 2, "bytes": 2048 })
}

fn connections() -> Value {
    json!([{ "name": "app", "eni": 1, "outbound": tuple(), "initiator": "local", "state": "established",
             "idle_ms": 1500, "timeout_ms": 432_000_000, "sent": traffic(), "received": traffic() }])
}

fn leases() -> Value {
    json!([{ "name": "nat-a", "nat_gateway": 1, "inside": tuple(), "address": "10.0.1.100", "port": 1024,
             "protocol": 6, "state": "new", "idle_ms": 10, "timeout_ms": 350_000, "out": traffic(), "back": traffic() }])
}

fn nat_gateway(name: &str, id: u32) -> Value {
    let traffic = |packets: u32| json!({ "packets": packets, "bytes": packets * 100 });
    json!({ "name": name, "nat_gateway": id, "leases": 9, "active_connections": 5, "connection_attempts": 8,
            "connections_established": 7, "error_port_allocation": 1, "idle_timeouts": 2, "in_from_source": traffic(30),
            "out_to_destination": traffic(28), "in_from_destination": traffic(21), "out_to_source": traffic(20),
            "packets_dropped": 3, "peak_bytes_per_second": 400, "peak_packets_per_second": 4 })
}

fn counters() -> Value {
    json!({
        "enis": [{ "name": "app", "eni": 1, "received": traffic(), "sent": traffic(),
                   "discards": [{ "reason": "network_acl", "packets": 3 }], "conntrack_allowance_available": 262_143,
                   "conntrack_allowance_exceeded": 7, "conntrack_half_open_evicted": 5 }],
        "nat_gateways": [nat_gateway("nat-a", 1), nat_gateway("nat-b", 2)],
        "links": [{ "name": "app", "link": 1, "reads": 2, "read_bytes": 128_000, "read_segments": 90, "writes": 0, "merged": 0,
                    "written_bytes": 0, "write_errors": 0 }],
        "discards": [{ "code": "SUBNET_ACL_RESTRICTION", "explanation": "The network ACL says no.", "packets": 3 }],
        "workers": [worker()],
    })
}

async fn explain(State(()): State<()>, Json(request): Json<Value>) -> (StatusCode, Json<Value>) {
    let to = request["to"].as_str().unwrap();
    let outcome = match to {
        "yes" | "example" => "reachable",
        "no" => "blocked",
        "perhaps" => "undecidable",
        _ => {
            let error = json!({ "kind": "not_found", "message": format!("nothing is called {to}") });
            return (StatusCode::NOT_FOUND, Json(error));
        }
    };
    let step = json!({ "place": "subnet a", "component": "network ACL default out", "decision": "no rule",
                       "source": "default", "pass": outcome != "blocked", "packet": tuple() });
    let code = (outcome == "blocked").then_some("SUBNET_ACL_RESTRICTION");
    let answer = json!({ "from": "app 10.0.2.20", "to": format!("{to} 198.51.100.10:{}", request["port"]),
                         "protocol": request["protocol"], "outcome": outcome, "code": code, "forward": [step],
                         "back": [], "advice": "Add a rule." });
    (StatusCode::OK, Json(answer))
}

fn plan() -> Value {
    json!({ "changes": [{ "action": "change", "kind": "security group", "name": "main/db", "detail": "1 rule added" }],
            "unchanged": 14, "warnings": [] })
}

/// A stream whose pieces end in the middle of lines.
async fn apply(Json(request): Json<Value>) -> axum::body::Body {
    let mut plan = plan();
    plan["event"] = json!("plan");
    let end = if request["text"].as_str().unwrap().contains("# fail") {
        json!({ "event": "failed", "kind": "host", "message": "namespace taken" })
    } else {
        json!({ "event": "applied", "generation": 1, "warnings": [], "took_ms": 12 })
    };
    let step = json!({ "event": "step", "done": 0, "total": 1, "what": "namespace web" });
    let text = format!("{plan}\n{step}\n{end}\n");
    let (mut sender, body) =
        http_body_util::channel::Channel::<axum::body::Bytes, std::convert::Infallible>::new(1);
    tokio::spawn(async move {
        for piece in text.as_bytes().chunks(29) {
            if sender.send_data(piece.to_vec().into()).await.is_err() {
                return;
            }
        }
    });
    axum::body::Body::new(body)
}

#[test]
fn explain_exits_with_the_outcome() {
    let lab = Lab::start();
    for (to, code, word) in [("yes", 0, "reachable"), ("no", 1, "blocked"), ("perhaps", 3, "undecidable")] {
        let output = lab.run(&["explain", "app", to, "tcp/80"]);
        assert_eq!(output.status.code(), Some(code), "{to}");
        let text = String::from_utf8(output.stdout).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.starts_with(&format!("app 10.0.2.20 → {to} 198.51.100.10:80 tcp")), "{text}");
        assert!(first.ends_with(word), "{text}");
        assert!(!text.contains('\x1b'), "colours are for terminals");
        assert_eq!(text.contains("default  SUBNET_ACL_RESTRICTION\n"), to == "no", "{text}");
    }
    let output = lab.run(&["explain", "app", "nobody", "tcp/80"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: nothing is called nobody\n");
    let output = lab.run(&["explain", "app", "no", "tcp/80", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["outcome"]), (Some(1), &json!("blocked")));
}

#[test]
fn tables_show_what_the_daemon_says() {
    let lab = Lab::start();
    let screen = lab.out(&["status"]);
    assert!(
        screen.contains(
            "process 12, tables of generation 3, 2 links, 1 worker, 0 restarts, polling busy, merging off"
        ),
        "{screen}"
    );
    assert!(screen.lines().count() <= 24 && screen.contains("up for 3m 12s"), "{screen}");
    let list = lab.out(&["ls"]);
    assert!(list.contains("web      main/a    10.0.1.10      203.0.113.10  default"), "{list}");
    let connections = lab.out(&["connections"]);
    assert!(connections.contains("10.0.2.20:40312  →  198.51.100.10:80  established  1 s"), "{connections}");
    let nat = lab.out(&["nat", "nat-a"]);
    assert!(nat.contains("10.0.2.20:40312  10.0.1.100:1024  198.51.100.10:80  new"), "{nat}");
    assert_eq!(lab.out(&["connections", "main/web"]), "", "it has none");
    for (args, said) in [
        (["nat", "nat-b"], "error: NAT gateway `nat-b` is not in lab fixed: did you mean `nat-a`?\n"),
        (["connections", "wbe"], "error: instance `wbe` is not in lab fixed: did you mean `web`?\n"),
    ] {
        let output = lab.run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
    }
    let counters = lab.out(&["counters"]);
    for part in ["3 SUBNET_ACL_RESTRICTION", "The network ACL says no.", "64000", "80 us"] {
        assert!(counters.contains(part), "{part} is missing in\n{counters}");
    }
    assert!(counters.contains("app  3 / 2.1 KiB") || counters.contains("262143"), "{counters}");
    assert!(counters.contains("ENI  SENT"), "{counters}");
}

#[test]
fn natgw_48_metrics_have_cloudwatchs_names() {
    let lab = Lab::start();
    let all = lab.json(&["nat", "--metrics"]);
    let expected = json!({
        "Name": "nat-b", "ActiveConnectionCount": 5, "BytesInFromDestination": 2100, "BytesInFromSource": 3000,
        "BytesOutToDestination": 2800, "BytesOutToSource": 2000, "ConnectionAttemptCount": 8,
        "ConnectionEstablishedCount": 7, "ErrorPortAllocation": 1, "IdleTimeoutCount": 2, "PacketsDropCount": 3,
        "PacketsInFromDestination": 21, "PacketsInFromSource": 30, "PacketsOutToDestination": 28,
        "PacketsOutToSource": 20, "PeakBytesPerSecond": 400, "PeakPacketsPerSecond": 4,
    });
    assert_eq!((all.as_array().unwrap().len(), &all[1]), (2, &expected));
    assert_eq!(lab.json(&["nat", "nat-b", "--metrics"]), json!([expected]));
    let table = lab.out(&["nat", "--metrics"]);
    assert!(
        table.starts_with("METRIC                      nat-a  nat-b\nActiveConnectionCount       5      5\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 17, "{table}");
    assert_eq!(lab.run(&["nat", "nat-c", "--metrics"]).status.code(), Some(1), "there is none");
}

#[test]
fn inspect_shows_all_a_kind_or_one() {
    let lab = Lab::start();
    assert!(lab.out(&["inspect"]).contains("vpc             main"));
    assert!(lab.out(&["inspect", "10.0.1.10"]).starts_with("instance web\n"));
    assert!(lab.out(&["inspect", "eni-0e"]).starts_with("instance web\n"));
    assert_eq!(lab.json(&["inspect", "sg"]).as_array().unwrap().len(), 1);
    let sheet = lab.out(&["inspect", "sg", "db"]);
    assert!(sheet.contains("id: sg-0b\n") && sheet.contains("- { from: web, tcp: 5432 }"), "{sheet}");
    let output = lab.run(&["inspect", "vpc", "mian"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("did you mean `main`?"));
}

#[test]
fn json_is_what_the_daemon_says() {
    let lab = Lab::start();
    assert_eq!(lab.json(&["status"]), status());
    assert_eq!(lab.json(&["ls"]), status()["instances"]);
    assert_eq!(lab.json(&["inspect"]), resources());
    assert_eq!(lab.json(&["connections"]), connections());
    assert_eq!(lab.json(&["nat"]), leases());
    assert_eq!(lab.json(&["counters"]), counters());
}

#[test]
fn up_shows_the_plan_and_what_to_try() {
    let lab = Lab::start();
    let file = lab.file(FILE);
    let text = lab.out(&["up", &file]);
    let expected = "\
~ security group main/db: 1 rule added
= 14 unchanged

lab fixed is up: generation 1, after 12 ms
Try:
  localvpc exec app -- curl -s http://example/
  localvpc explain app example tcp/80
";
    assert!(text.starts_with(expected), "{text}");
    let plan_only = "~ security group main/db: 1 rule added\n= 14 unchanged\n";
    assert_eq!(lab.out(&["up", &file, "--dry-run"]), plan_only);
    assert_eq!(lab.json(&["up", "--dry-run"]), plan());
    let events = lab.out(&["up", &file, "-o", "json"]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.last().unwrap()["event"], "applied");
}

#[test]
fn hints_name_the_lab_where_several_run() {
    let lab = Lab::start_as(&["fixed", "other"]);
    let text = lab.out(&["up", &lab.file(FILE)]);
    assert!(text.contains("  localvpc --lab fixed exec app -- curl -s http://example/\n"), "{text}");
    assert!(text.ends_with("  localvpc --lab fixed down\n"), "{text}");
}

#[test]
fn an_empty_variable_names_no_lab() {
    let lab = Lab::start();
    let output = command(lab.run_dir.path()).env("LOCALVPC_LAB", "").arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let output = command(lab.run_dir.path()).env("LOCALVPC_LAB", "other").arg("status").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("lab other is not running"));
}

#[test]
fn logs_have_json() {
    let lab = Lab::start();
    let logs = lab.run_dir.path().join("fixed/logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("control.log"), "one\ntwo\n").unwrap();
    assert_eq!(lab.json(&["logs", "control"]), json!([{ "instance": "control", "log": "one\ntwo\n" }]));
    assert_eq!(lab.json(&["logs", "web"]), json!([]), "it runs nothing");
}

#[test]
fn up_fails_with_the_daemon() {
    let lab = Lab::start();
    let file = lab.file(&format!("{FILE}# fail\n"));
    let output = lab.run(&["up", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: namespace taken\n");
    let output = lab.run(&["up", &file, "--lab", "other"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("describes lab fixed"));
}

#[test]
fn of_several_labs_one_must_be_named() {
    let lab = Lab::start_as(&["fixed", "other"]);
    let output = lab.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "error: several labs are running (fixed, other): say which with `--lab NAME`\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    assert!(lab.out(&["status", "--lab", "other"]).contains("process 12"));
    lab.file(FILE);
    assert!(lab.out(&["down"]).contains("lab fixed is down"), "the file in the working directory says which");
}

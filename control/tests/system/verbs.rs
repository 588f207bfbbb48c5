//! The verbs, on a lab that is up.

use localvpc::view::CountersView;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::command::run_line;
use crate::harness::{Lab, Running, TWO_TIER, edit, wait};

#[test]
fn exec_is_the_command() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    assert_eq!(lab.localvpc(&["exec", "app", "--", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(lab.localvpc(&["exec", "app", "--", "sh", "-c", "kill -9 $$"]).code, 128 + 9);
    let out = lab.localvpc(&["exec", "app", "--", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    lab.exec("app", "no-such-command").exits(127);
    let unknown = lab.exec("ap", "true").exits(1);
    assert!(unknown.stderr.contains("did you mean `app`?"), "{unknown}");

    let own = lab.exec("app", "ip -4 -o address show dev eth0").ok().stdout;
    assert!(own.contains("10.0.2.20/32") && !own.contains("203.0.113"), "{own}");
    let body = lab.ip_netns_exec("app", "curl -sS --max-time 20 http://198.51.100.10/").ok();
    assert!(body.stdout.starts_with("you are 203.0.113.20:"), "{body}");
    let six = lab.ip_netns_exec("app", "ip -6 -o address show").ok();
    assert_eq!(six.stdout, "", "the kernel sends on its own otherwise");
}

/// The file may have changed since: what runs is what was applied.
#[test]
fn lint_and_graph_look_at_what_runs() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    lab.write("lab: another\n");
    let lint: Value = lab.json(&["lint", "--lab", &lab.name]);
    assert_eq!(
        (lint["lab"].as_str(), lint["findings"].as_array().map(Vec::len)),
        (Some(lab.name.as_str()), Some(0))
    );
    let svg = lab.localvpc(&["graph", "--lab", &lab.name, "--path", "web", "db", "tcp/5432"]).ok().stdout;
    assert!(svg.starts_with("<svg ") && svg.contains("ENI_SG_RULES_MISMATCH"), "{svg}");
    let unknown = lab.localvpc(&["graph", "--lab", &lab.name, "--path", "wbe", "db", "tcp/5432"]).exits(1);
    assert!(unknown.stderr.contains("did you mean `web`?"), "{unknown}");
}

#[test]
fn explain_tells_the_stages_and_its_exit_status_the_outcome() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let line_of = |text: &str| {
        let file = std::fs::read_to_string(lab.file()).expect("the file of the lab");
        1 + file.lines().position(|line| line.contains(text)).expect("a line of the file")
    };
    let before = lab.counters();

    let reachable = lab.explain("app example tcp/443", 0);
    let steps = reachable["forward"].as_array().expect("steps").clone();
    let acl = steps.iter().find(|step| step["decision"].as_str().is_some_and(|it| it.contains("110")));
    let source = acl.expect("the entry that decided")["source"].as_str().unwrap_or_default().to_owned();
    assert!(
        source.ends_with(&format!("lab.yaml:{}", line_of("rule: 110, allow: tcp"))),
        "{source}: {steps:#?}"
    );
    assert!(steps.iter().any(|step| step["place"].as_str() == Some("nat-a")), "{steps:#?}");
    assert!(!reachable["back"].as_array().expect("steps").is_empty());

    let blocked = lab.explain("web db tcp/5432", 1);
    assert_eq!(blocked["code"], "ENI_SG_RULES_MISMATCH");
    assert!(blocked["advice"].is_string(), "{blocked:#}");
    let text = lab.localvpc(&["explain", "app", "example", "tcp/22"]).exits(1);
    assert!(text.stdout.contains("SUBNET_ACL_RESTRICTION"), "{text}");
    assert_eq!(lab.explain("internet app tcp/22", 1)["code"], "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS");

    lab.localvpc(&["explain", "app", "nobody", "tcp/22"]).exits(2);
    lab.localvpc(&["explain", "app", "example", "tcp"]).exits(2);

    // Nothing was sent, and nothing is left of the questions.
    let after = lab.counters();
    let discarded = |counters: &CountersView| counters.discards.iter().map(|it| it.packets).sum::<u64>();
    assert_eq!(discarded(&after), discarded(&before));
    assert!(lab.leases().is_empty() && lab.connections().is_empty());
}

#[test]
fn every_verb_that_shows_something_has_json() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    lab.curl("app", "http://198.51.100.10/");

    let status = lab.status();
    assert_eq!(status.lab, lab.name);
    assert_eq!(status.instances.len(), 4);
    let dataplane = status.dataplane.expect("it runs");
    assert_eq!((dataplane.links.len(), dataplane.workers.len(), dataplane.generation.0), (4, 2, 1));

    let connections = lab.connections();
    assert!(connections.iter().any(|it| it.name == "app" && it.row.received.bytes > 0), "{connections:?}");
    assert_eq!(lab.leases()[0].row.timeout_ms % 1_000, 0);
    // The last packets of the connection may still be on their way.
    let (counters, app) = wait::until("what app sent to be passed on", || {
        let counters = lab.counters();
        let app = counters.enis.iter().find(|it| it.name == "app").expect("app's ENI").row.clone();
        let is_whole = app.sent.packets >= 5 && app.received.packets >= 4;
        (is_whole && counters.nat_gateways[0].row.out_to_destination == app.sent).then_some((counters, app))
    });
    let nat = &counters.nat_gateways[0];
    assert_eq!((nat.name.as_str(), nat.row.connection_attempts, nat.row.packets_dropped), ("nat-a", 1, 0));
    assert_eq!(nat.row.out_to_destination, app.sent, "what app sent, it passed on");

    let list: Value = lab.json(&["ls"]);
    let names: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["web", "app", "db", "example"]);
    let everything: Vec<localvpc::view::ResourceView> = lab.json(&["inspect"]);
    let kinds: std::collections::BTreeSet<&str> = everything.iter().map(|it| it.kind.as_str()).collect();
    assert!(kinds.len() >= 8, "{kinds:?}");
    let db: Vec<localvpc::view::ResourceView> = lab.json(&["inspect", "sg", "db"]);
    assert!(db.len() == 1 && db[0].id.starts_with("sg-") && db[0].position.is_some(), "{db:?}");

    for verb in ["status", "ls", "inspect", "connections", "nat", "counters"] {
        let table = lab.localvpc(&[verb]).ok();
        assert!(table.stdout.contains("app") || verb == "nat", "{table}");
    }
}

#[test]
fn run_commands_keep_their_output_and_tell_how_they_ended() {
    let two = "security_groups: [app] }";
    let commands = "security_groups: [app], run: [\"echo hello; exit 3\", \"kill -9 $$\", no-such-command] }";
    let Some(lab) = Lab::new() else { return };
    lab.apply(&edit(TWO_TIER, two, commands)).ok();
    let app = wait::until("the commands to end", || {
        let app = lab.status().instances.into_iter().find(|it| it.name == "app")?;
        app.processes.iter().all(|it| it.ended.is_some()).then_some(app)
    });
    let ends: Vec<&str> = app.processes.iter().filter_map(|it| it.ended.as_deref()).collect();
    assert_eq!(ends, ["exit status 3", "signal 9", "exit status 127"], "{:?}", app.processes);
    let log = lab.localvpc(&["logs", "app"]).ok();
    assert!(log.stdout.contains("hello") && log.stdout.contains("no-such-command"), "{log}");
    wait::until("web's log", || {
        lab.localvpc(&["logs", "web"]).stdout.contains("listening on 10.0.1.10:80").then_some(())
    });
}

#[test]
fn a_command_that_ends_at_once_is_a_warning() {
    let two = "security_groups: [app] }";
    let commands = "security_groups: [app], run: [nosuchcommand, 'true', sleep 600, exit 3] }";
    let Some(lab) = Lab::new() else { return };
    let file = edit(TWO_TIER, two, commands);
    let up = lab.apply(&file).ok();
    for failed in ["`nosuchcommand` ended with exit status 127", "`exit 3` ended with exit status 3"] {
        assert!(up.stderr.contains(&format!("warning: app: {failed}; see `localvpc logs app`")), "{up}");
    }
    assert!(!up.stderr.contains("`true`") && !up.stderr.contains("`sleep 600`"), "{up}");
    let status = lab.status();
    let processes = &status.instances.iter().find(|it| it.name == "app").expect("app").processes;
    let commands: Vec<&str> = processes.iter().map(|it| it.command.as_str()).collect();
    assert_eq!(commands, ["nosuchcommand", "true", "sleep 600", "exit 3"], "in the order of the file");
    assert_eq!(processes[1].ended.as_deref(), Some("exit status 0"));
    assert!(processes[2].pid.is_some());
    // The second time there is nothing to start, and nothing to warn of.
    let again = lab.apply(&file).ok();
    assert!(!again.stderr.contains("nosuchcommand"), "{again}");
}

#[test]
fn the_daemon_answers_a_wrong_method_in_json() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let socket = lab.run_dir().join(&lab.name).join("control.sock");
    let curl =
        format!("curl -sS -XPUT -w %{{http_code}} --unix-socket {} http://lab/v1/status", socket.display());
    let said = run_line(&curl).ok().stdout;
    let error: Value = serde_json::from_str(said.strip_suffix("405").expect("the status")).expect("JSON");
    assert_eq!(error["message"], "/v1/status does not take PUT: the header `Allow` says what it takes");
}

#[test]
fn up_in_the_foreground_ends_with_the_lab_and_sigterm_takes_it_down() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(lab) = Lab::new() else { return };
        let file = lab.write(TWO_TIER);
        let up = Running::start(&mut lab.command(&["up", &file, "--foreground"]));
        wait::until("the lab", || (lab.localvpc(&["status"]).code == 0).then_some(()));
        wait::until("its instances", || (lab.status().instances.len() == 4).then_some(()));
        lab.wait_for_servers();
        lab.curl("app", "http://198.51.100.10/");
        up.signal(signal);
        up.end().ok();
        lab.nothing_is_left();
    }
}

#[test]
fn without_a_lab_every_verb_says_so() {
    let Some(lab) = Lab::new() else { return };
    for verb in ["status", "ls", "inspect", "connections", "nat", "counters", "down"] {
        let done = lab.localvpc(&[verb]).exits(1);
        assert!(done.stderr.contains("is not running") && done.stdout.is_empty(), "{done}");
    }
}

//! The command line as a user without root meets it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use localvpc::serve::Answer;

const VERBS: &[&str] = &[
    "up",
    "validate",
    "lint",
    "graph",
    "schema",
    "down",
    "status",
    "ls",
    "inspect",
    "exec",
    "shell",
    "explain",
    "connections",
    "nat",
    "counters",
    "logs",
    "doctor",
    "serve",
    "completion",
    "version",
];

/// `localvpc` with a run directory of its own, so that no lab of this machine is seen.
fn localvpc(run_dir: &Path, args: &[&str]) -> Output {
    command(run_dir).args(args).output().expect("the program runs")
}

fn command(run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localvpc"));
    command.env("LOCALVPC_RUN_DIR", run_dir).env_remove("LOCALVPC_LAB").env_remove("LOCALVPC_ADDRESS");
    command.current_dir(run_dir);
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_verb_has_help_with_examples() {
    let dir = tempfile::tempdir().unwrap();
    let overview = out(&localvpc(dir.path(), &["--help"]));
    for verb in VERBS {
        assert!(overview.contains(&format!("\n  {verb} ")), "{verb} is missing in\n{overview}");
        let help = localvpc(dir.path(), &[verb, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{verb}");
        assert!(out(&help).contains("Examples:\n"), "{verb}:\n{}", out(&help));
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["nonsense"][..], &["exec"], &["explain", "a", "b", "tcp"], &["serve"], &["serve", "70000"]]
    {
        let output = localvpc(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(out(&output).is_empty() && !err(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn without_a_lab_every_verb_says_so_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code) in [
        (&["down"][..], 1),
        (&["status"], 1),
        (&["ls"], 1),
        (&["inspect"], 1),
        (&["exec", "web", "--", "true"], 1),
        (&["shell", "web"], 1),
        (&["explain", "a", "b", "tcp/80"], 2),
        (&["connections"], 1),
        (&["nat"], 1),
        (&["counters"], 1),
        (&["logs", "web"], 1),
        (&["logs", "control"], 1),
    ] {
        let output = localvpc(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert_eq!(out(&output), "", "{args:?}");
        assert_eq!(err(&output), "error: no lab is running: start one with `localvpc up FILE`\n", "{args:?}");
    }
    let output = localvpc(dir.path(), &["status", "--lab", "mine"]);
    assert_eq!(err(&output), "error: lab mine is not running: start it with `localvpc up FILE`\n");
    let output = localvpc(dir.path(), &["status", "-o", "json"]);
    let error: localvpc::view::ErrorView = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error.kind, "not_running");
}

#[test]
fn leftovers_of_a_lab_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("old")).unwrap();
    let output = localvpc(dir.path(), &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("`localvpc down --lab old` takes it down"), "{}", err(&output));
}

#[test]
fn doctor_says_what_is_there_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let text = out(&localvpc(dir.path(), &["doctor"]));
    for what in ["kernel", "TUN", "privileges", "namespaces", "offloads", "curl"] {
        assert!(text.contains(what), "{what} is missing in\n{text}");
    }
    let output = localvpc(dir.path(), &["doctor", "-o", "json"]);
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    for finding in &findings {
        let is_ok = finding["state"] == "ok";
        assert_eq!(finding.get("advice").is_none(), is_ok, "advice where something lacks: {finding}");
    }
    let is_fit = findings.iter().all(|finding| finding["state"] != "missing");
    assert_eq!(output.status.code(), Some(if is_fit { 0 } else { 1 }));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path())
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(err(&output), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn serve_answers_text_and_json_on_every_port() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["0", "0"]);
    assert_ne!(server.addresses[0], server.addresses[1]);
    for &address in &server.addresses {
        let (me, body) = ask(address, "");
        assert_eq!(body, format!("you are {me}\n"));
        let (me, body) = ask(address, "Accept: application/json\r\n");
        let answer: Answer = serde_json::from_str(&body).unwrap();
        assert_eq!(answer.you, me.into());
        assert_eq!(answer.me, address.into());
        assert_eq!(answer.host.as_deref(), Some("example"));
        assert_eq!((answer.method.as_str(), answer.path.as_str()), ("GET", "/a/path"));
    }
}

/// `localvpc serve` on loopback, ended when dropped.
struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Server {
    fn start(run_dir: &Path, ports: &[&str]) -> Self {
        let mut child = command(run_dir)
            .arg("serve")
            .args(ports)
            .env("LOCALVPC_ADDRESS", "127.0.0.1")
            .env("LOCALVPC_INSTANCE", "example")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .take(ports.len())
            .map(|line| line.unwrap().strip_prefix("listening on ").unwrap().parse().unwrap())
            .collect();
        Self { child, addresses }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: SocketAddr, headers: &str) -> (SocketAddr, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let me = stream.local_addr().unwrap();
    write!(stream, "GET /a/path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (me, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

const VALID: &str = "\
lab: small
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets:
      a: { cidr: 10.0.1.0/24 }
      b: { cidr: 10.0.2.0/24 }
    instances:
      web: { subnet: a }
";

#[test]
fn validate_names_line_and_column_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small.yaml"), VALID).unwrap();
    let output = localvpc(dir.path(), &["validate"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with("small.yaml is valid: lab small with 1 VPC, 2 subnets, 1 instance"));

    fs::write(dir.path().join("broken.yaml"), VALID.replace("10.0.2.0/24", "10.0.1.128/25")).unwrap();
    let output = localvpc(dir.path(), &["validate", "broken.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
    let text = err(&output);
    assert!(
        text.starts_with("error: ") && text.contains("overlaps") && text.contains("broken.yaml:7:"),
        "{text}"
    );
    let output = localvpc(dir.path(), &["validate", "broken.yaml", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["valid"]), (Some(1), &false.into()));
    assert_eq!(json["positions"][0]["line"], 7);

    // `up` refuses it in the same words, before it asks for root or starts anything.
    let output = localvpc(dir.path(), &["up", "broken.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("overlaps") && err(&output).ends_with("Nothing was changed.\n"),
        "{}",
        err(&output)
    );
    assert!(!dir.path().join("small").exists(), "no daemon was started");
}

#[test]
fn lint_exits_as_grave_as_what_it_finds() {
    let dir = tempfile::tempdir().unwrap();
    let lint = |text: &str, args: &[&str]| {
        fs::write(dir.path().join("small.yaml"), text).unwrap();
        localvpc(dir.path(), &[&["lint"], args].concat())
    };
    let clean = lint(VALID, &[]);
    assert_eq!((clean.status.code(), out(&clean).as_str()), (Some(0), "small.yaml: nothing found\n"));

    let unused = format!("{VALID}    network_acls:\n      edge: {{}}\n");
    let warned = lint(&unused, &[]);
    assert_eq!(warned.status.code(), Some(3));
    assert!(
        out(&warned).starts_with("warning[unused-network-acl]: no subnet names network ACL `edge`\n"),
        "{}",
        out(&warned)
    );
    assert!(
        out(&warned).contains("--> small.yaml:11:7\n") && out(&warned).ends_with("small.yaml: 1 warning\n")
    );
    let allowed = lint(&unused.replace("edge: {}", "edge: {}  # lint: allow unused-network-acl"), &[]);
    assert_eq!(allowed.status.code(), Some(0));
    assert_eq!(out(&allowed), "small.yaml: nothing found (1 finding allowed by the file)\n");

    let shadowed = unused.replace("{}", "{ inbound: [ { rule: 1, deny: all, from: 0.0.0.0/0 }, { rule: 2, allow: all, from: 10.0.0.0/16 } ] }");
    let failed = lint(&shadowed, &["-o", "json"]);
    assert_eq!(failed.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(json["findings"][1]["id"], "network-acl-entry-shadowed");
    assert_eq!(json["findings"][1]["severity"], "error");
    assert_eq!(json["findings"][1]["position"]["line"], 11);
    let sarif = lint(&shadowed, &["--sarif"]);
    let json: serde_json::Value = serde_json::from_slice(&sarif.stdout).unwrap();
    let result = &json["runs"][0]["results"][1];
    let rule = result["ruleIndex"].as_u64().unwrap() as usize;
    assert_eq!(json["runs"][0]["tool"]["driver"]["rules"][rule]["id"], "network-acl-entry-shadowed");
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 11);

    let broken = lint(&VALID.replace("10.0.2.0/24", "10.0.1.128/25"), &[]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(err(&broken).starts_with("error: ") && err(&broken).contains("overlaps"), "{}", err(&broken));
    let output = localvpc(dir.path(), &["lint", "nothing.yaml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn graph_draws_a_file_in_the_form_that_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("small.yaml"),
        VALID.replace("subnet: a }", "subnet: a }\n      db: { subnet: b }"),
    )
    .unwrap();
    let svg = out(&localvpc(dir.path(), &["graph"]));
    assert!(svg.starts_with("<svg ") && svg.contains(">web</text>"), "{svg}");
    let output =
        localvpc(dir.path(), &["graph", "small.yaml", "--path", "web", "db", "tcp/80", "--write", "x.mmd"]);
    assert_eq!((output.status.code(), out(&output)), (Some(0), String::new()), "{}", err(&output));
    let text = fs::read_to_string(dir.path().join("x.mmd")).unwrap();
    assert!(text.starts_with("flowchart TB\n") && text.contains(" ==> "), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&out(&localvpc(dir.path(), &["graph", "-o", "json"]))).unwrap();
    assert_eq!(json["nodes"][0]["id"], "vpc:main");

    let output = localvpc(dir.path(), &["graph", "--path", "wbe", "db", "tcp/80"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("did you mean `web`?"), "{}", err(&output));
    let output = localvpc(dir.path(), &["graph", "--path", "web", "db", "tcp"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("tcp needs a port"), "{}", err(&output));
    let output = localvpc(dir.path(), &["graph", "--write", "no/such/place.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("error: cannot write no/such/place.svg: "), "{}", err(&output));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = localvpc(dir.path(), &["validate", "nothing.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output), "error: cannot read nothing.yaml: No such file or directory (os error 2)\n");
    let output = localvpc(dir.path(), &["up"]);
    assert!(
        err(&output).contains("neither a *.vpc.yaml nor a *.yaml with a line `lab:`"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_dry_run_prints_the_plan_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small.yaml"), VALID).unwrap();
    let output = localvpc(dir.path(), &["up", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.lines().all(|line| line.starts_with("+ ")), "all of it is new:\n{text}");
    assert!(text.contains("+ VPC ") && text.contains("+ subnet ") && text.contains("+ instance "), "{text}");
    assert!(!dir.path().join("small").exists(), "no daemon was started");
}

#[test]
fn without_root_up_says_what_works() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small.yaml"), VALID).unwrap();
    // Root becomes nobody, who needs to reach the program and the file.
    let program = dir.path().join("localvpc");
    // By another process: a descriptor for writing that leaked into a child of a test beside this one would keep the
    // program from being run.
    assert!(
        Command::new("cp")
            .args([env!("CARGO_BIN_EXE_localvpc").as_ref(), program.as_os_str()])
            .status()
            .unwrap()
            .success()
    );
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.args(["up", "small.yaml"]).current_dir(dir.path()).env("LOCALVPC_RUN_DIR", dir.path());
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let output = command.env_remove("LOCALVPC_LAB").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = err(&output);
    assert!(text.starts_with("error: `localvpc up` needs root") && text.contains("validate"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn the_schema_is_json_with_the_sections_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let output = localvpc(dir.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in ["lab", "vpcs", "internet", "expect"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

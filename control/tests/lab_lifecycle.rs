//! A lab from `up` to `down` with the real programs, and through every crash. Needs root; skipped without.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A lab with a name and a run directory of its own; down and gone when dropped, whatever happens.
struct Lab {
    name: String,
    root: tempfile::TempDir,
}

impl Lab {
    /// None, and a line that says so, where there is no root.
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs root");
            return None;
        }
        assert!(dataplane().exists(), "{} is missing: cargo build --workspace --bins", dataplane().display());
        Some(Self { name: format!("t{}-{test}", std::process::id()), root: tempfile::tempdir().unwrap() })
    }

    /// One VPC: `web` in a public subnet, `app` in a private one behind a NAT gateway, `example` on the internet.
    fn file(&self, more_instances: &str) -> PathBuf {
        let path = self.root.path().join("lab.yaml");
        let text = format!(
            r#"
lab: {}
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public:  {{ cidr: 10.0.1.0/24, route_table: public }}
      private: {{ cidr: 10.0.2.0/24, route_table: private }}
    route_tables:
      public:  [ {{ to: 0.0.0.0/0, via: igw }} ]
      private: [ {{ to: 0.0.0.0/0, via: nat }} ]
    nat_gateways:
      nat: {{ subnet: public, eip: 203.0.113.20 }}
    security_groups:
      web: {{ inbound: [ {{ tcp: all, from: 0.0.0.0/0 }} ] }}
    instances:
      web: {{ subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: [web], run: localvpc serve 80 }}
      app: {{ subnet: private, ip: 10.0.2.20 }}
{more_instances}
internet:
  hosts:
    example: {{ ip: 198.51.100.10, run: [localvpc serve 80, iperf3 -s] }}
"#,
            self.name
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_localvpc"));
        command.args(arguments).env("LOCALVPC_RUN_DIR", self.runs()).env("LOCALVPC_LAB", &self.name);
        command.env("LOCALVPC_DATAPLANE", dataplane());
        command
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn up(&self, more_instances: &str) -> String {
        let file = self.file(more_instances);
        self.run(&["up", file.to_str().unwrap()])
    }

    /// What the web server on the internet says to `app`: its address as seen from there.
    fn app_curls_example(&self) -> String {
        self.run(&[
            "exec",
            "app",
            "--",
            "curl",
            "-sS",
            "--retry-connrefused",
            "--retry",
            "5",
            "-m5",
            "http://example/",
        ])
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "-o", "json"])).unwrap()
    }

    fn pid_of_run(&self, owner: &str) -> u64 {
        let status = self.status();
        let instances = status["instances"].as_array().unwrap();
        let instance = instances.iter().find(|instance| instance["name"] == owner).unwrap();
        instance["processes"][0]["pid"].as_u64().unwrap_or_else(|| panic!("{instance}"))
    }

    fn kill(&self, pid: &Value) {
        let pid = rustix::process::Pid::from_raw(pid.as_i64().unwrap() as i32).unwrap();
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
        // Its last thread included, and with it its sockets.
        let mut poll = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut poll, Some(&Duration::from_secs(10).try_into().unwrap())), Ok(1));
    }

    fn kill_control(&self) {
        self.kill(&self.status()["control_pid"]);
    }

    fn runs(&self) -> PathBuf {
        self.root.path().join("run")
    }

    fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Everything on the machine that bears the lab's name.
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for directory in ["/run/netns", "/etc/netns"] {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            found.extend(
                names.filter(|name| name.starts_with(&self.name)).map(|name| format!("{directory}/{name}")),
            );
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
            let text = [read("cmdline"), read("environ")].concat();
            let mark = format!("LOCALVPC_OWNER={}:", self.name);
            let socket = self.runs().to_string_lossy().into_owned() + "/";
            let has = |needle: &str| text.windows(needle.len()).any(|window| window == needle.as_bytes());
            if process.file_name() != "self" && (has(&mark) || has(&socket)) {
                found.push(format!("process {:?} {}", process.file_name(), String::from_utf8_lossy(&text)));
            }
        }
        if self.runs().join(&self.name).exists() {
            found.push("the run directory".into());
        }
        found
    }

    fn assert_gone(&self) {
        eventually("everything is gone", || self.leftovers().is_empty());
    }

    fn logs(&self) -> String {
        let directory = self.runs().join(&self.name).join("logs");
        let read = |log: &str| std::fs::read_to_string(directory.join(log)).unwrap_or_default();
        format!("control.log:\n{}dataplane.log:\n{}", read("control.log"), read("dataplane.log"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.logs());
        }
        let _ = self.try_run(&["down"]);
    }
}

fn dataplane() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_localvpc")).with_file_name("localvpc-dataplane")
}

/// Waits for a condition that something else brings about.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A namespace that somebody else made; deleted when dropped.
struct Foreign(String);

impl Foreign {
    fn new(name: String) -> Self {
        ip(&["netns", "add", &name]);
        Self(name)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).stderr(Stdio::null()).status();
    }
}

/// A process in a namespace, which `/proc/PID/ns/net` is then another path to. Ended when dropped.
struct Holder(Child);

impl Holder {
    fn start(namespace: &str) -> Self {
        let child = Command::new("nsenter").args([&format!("--net={namespace}"), "sleep", "600"]).spawn();
        let holder = Self(child.expect("nsenter is installed"));
        let link = format!("/proc/{}/ns/net", holder.0.id());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("nsenter to be inside", || std::fs::read_link(&link).is_ok_and(|there| there != own));
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_private_instance_curls_the_internet_and_nothing_is_left() {
    let Some(lab) = Lab::new("curl") else { return };
    lab.up("");
    // NATGW-3: the server sees the gateway's Elastic IP.
    assert!(lab.app_curls_example().starts_with("you are 203.0.113.20:"));
    let by_hand = Command::new("ip")
        .args(["netns", "exec", &lab.netns("app"), "curl", "-sS", "-m5", "http://web/"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&by_hand.stdout).starts_with("you are 10.0.2.20:"), "{by_hand:?}");
    assert_eq!(lab.try_run(&["exec", "app", "--", "sh", "-c", "exit 42"]).status.code(), Some(42));

    let before = lab.pid_of_run("web");
    lab.up("");
    assert_eq!(lab.status()["dataplane"]["generation"], 1, "the same file again pushes nothing");
    assert_eq!(lab.pid_of_run("web"), before);

    lab.run(&["down"]);
    lab.assert_gone();
}

#[test]
fn a_change_is_applied_in_place_and_interrupts_nothing() {
    let Some(lab) = Lab::new("change") else { return };
    lab.up("      db: { subnet: private, ip: 10.0.2.30, run: localvpc serve 5432 }");
    let (web, db) = (lab.pid_of_run("web"), lab.pid_of_run("db"));
    let traffic = Traffic::start(&lab, 4);
    // One is new, one has another command, one is as it was.
    lab.up(
        "      db: { subnet: private, ip: 10.0.2.30, run: localvpc serve 5433 }\n      new: { subnet: private, ip: 10.0.2.40 }",
    );
    assert_eq!(lab.pid_of_run("web"), web);
    assert_ne!(lab.pid_of_run("db"), db);
    // Names reach namespaces that were there already.
    assert!(lab.run(&["exec", "app", "--", "cat", "/etc/hosts"]).contains("10.0.2.40 new"));
    lab.up("");
    assert!(!Path::new("/run/netns").join(lab.netns("db")).exists());
    assert_eq!(lab.status()["dataplane"]["generation"], 3);
    traffic.assert_uninterrupted();
}

#[test]
fn a_killed_control_disturbs_nothing_and_is_succeeded() {
    let Some(lab) = Lab::new("kill9") else { return };
    lab.up("");
    let web = lab.pid_of_run("web");
    let traffic = Traffic::start(&lab, 4);
    lab.kill_control();
    assert!(!lab.try_run(&["status"]).status.success());
    lab.up("      new: { subnet: private, ip: 10.0.2.40 }");
    let status = lab.status();
    assert_eq!((&status["dataplane_restarts"], &status["dataplane"]["generation"]), (&0.into(), &2.into()));
    assert_eq!(lab.pid_of_run("web"), web);
    traffic.assert_uninterrupted();

    lab.kill_control();
    lab.run(&["down"]);
    lab.assert_gone();
}

#[test]
fn a_killed_dataplane_is_replaced() {
    let Some(lab) = Lab::new("dataplane") else { return };
    lab.up("");
    lab.app_curls_example();
    lab.kill(&lab.status()["dataplane"]["pid"]);
    eventually("another dataplane", || lab.status()["dataplane"]["generation"] == 1);
    assert_eq!(lab.status()["dataplane_restarts"], 1);
    assert!(lab.app_curls_example().starts_with("you are 203.0.113.20:"));
}

#[test]
fn with_both_processes_killed_the_lab_comes_back() {
    let Some(lab) = Lab::new("both") else { return };
    lab.up("");
    let (web, status) = (lab.pid_of_run("web"), lab.status());
    lab.kill(&status["control_pid"]);
    lab.kill(&status["dataplane"]["pid"]);
    lab.up("");
    assert_eq!(lab.pid_of_run("web"), web);
    assert!(lab.app_curls_example().starts_with("you are 203.0.113.20:"));

    let status = lab.status();
    lab.kill(&status["control_pid"]);
    lab.kill(&status["dataplane"]["pid"]);
    lab.run(&["down"]);
    lab.assert_gone();
}

#[test]
fn a_control_killed_in_the_middle_of_up_leaves_what_down_finds() {
    let Some(lab) = Lab::new("midway") else { return };
    let many: String =
        (0..60).map(|i| format!("      i{i}: {{ subnet: private, run: sleep 1000 }}\n")).collect();
    let file = lab.file(&many);
    let mut up = lab
        .command(&["up", file.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lock = lab.runs().join(&lab.name).join("lock");
    eventually("a few namespaces", || Path::new("/run/netns").join(lab.netns("i5")).exists());
    let control = std::fs::read_to_string(lock).unwrap();
    lab.kill(&control.trim().parse::<u64>().unwrap().into());
    up.wait().unwrap();
    lab.run(&["down"]);
    lab.assert_gone();
}

#[test]
fn a_failed_up_is_undone_and_the_lab_stays_as_it_was() {
    let Some(lab) = Lab::new("undo") else { return };
    lab.up("");
    let web = lab.pid_of_run("web");
    let file = lab.file(
        "      new: { subnet: private, ip: 10.0.2.40 }\n      bad: { subnet: private, ip: 10.0.2.50, attach: no-such-namespace }",
    );
    let output = lab.try_run(&["up", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("bad: cannot attach to /run/netns/no-such-namespace: there is no such namespace"),
        "{said}"
    );
    assert!(said.ends_with("Nothing was changed\n"), "{said}");
    assert!(!Path::new("/run/netns").join(lab.netns("new")).exists());
    assert!(!Path::new("/etc/netns").join(lab.netns("new")).exists());
    assert!(!lab.run(&["exec", "app", "--", "cat", "/etc/hosts"]).contains("10.0.2.40"));
    assert_eq!((lab.pid_of_run("web"), &lab.status()["dataplane"]["generation"]), (web, &1.into()));
    // Known too late to be checked before: what was made is removed again.
    let foreign = Foreign::new(lab.netns("taken"));
    let file = lab.file(
        "      new: { subnet: private, ip: 10.0.2.40 }\n      taken: { subnet: private, ip: 10.0.2.50 }",
    );
    let output = lab.try_run(&["up", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with("Rolled back: everything is as it was\n"), "{said}");
    assert!(!Path::new("/run/netns").join(lab.netns("new")).exists());
    assert!(lab.app_curls_example().starts_with("you are 203.0.113.20:"));
    drop(foreign);
}

#[test]
fn what_cannot_be_attached_starts_nothing() {
    let Some(lab) = Lab::new("noattach") else { return };
    let theirs = Foreign::new(format!("{}-theirs", lab.name));
    let by_path = format!("/run/netns/{}", theirs.0);
    let holder = Holder::start(&by_path);
    for (attach, why) in [
        (["no-such-namespace".to_owned(), "other".to_owned()], "there is no such namespace"),
        ([format!("/proc/{}/ns/net", std::process::id()), "other".to_owned()], "own network namespace"),
        (
            [theirs.0.clone(), format!("/proc/{}/ns/net", holder.0.id())],
            "the same namespace that one attaches",
        ),
    ] {
        let [one, two] = &attach;
        let two = if two == "other" { String::new() } else { format!(", attach: {two}") };
        let file = lab.file(&format!(
            "      one: {{ subnet: private, attach: {one} }}\n      two: {{ subnet: private{two} }}"
        ));
        let output = lab.try_run(&["up", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why) && said.ends_with("Nothing was changed\n"), "{said}");
        assert!(!lab.runs().join(&lab.name).exists(), "no daemon was started");
    }
    // The namespace that the lab has made, by another path.
    lab.up("");
    let own = Holder::start(&format!("/run/netns/{}", lab.netns("app")));
    let file = lab.file(&format!("      one: {{ subnet: private, attach: /proc/{}/ns/net }}", own.0.id()));
    let output = lab.try_run(&["up", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it is the namespace that this lab made for app"), "{said}");
}

#[test]
fn a_command_that_ends_at_once_is_a_warning() {
    let Some(lab) = Lab::new("early") else { return };
    let file = lab.file("      new: { subnet: private, run: [nosuchcommand, 'true', sleep 600, exit 3] }");
    let output = lab.try_run(&["up", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for failed in ["`nosuchcommand` ended with exit status 127", "`exit 3` ended with exit status 3"] {
        assert!(said.contains(&format!("warning: new: {failed}; see `localvpc logs new`")), "{said}");
    }
    assert!(!said.contains("`true`") && !said.contains("`sleep 600`"), "{said}");
    let status = lab.status();
    let new = status["instances"].as_array().unwrap().iter().find(|it| it["name"] == "new").unwrap();
    let commands: Vec<_> =
        new["processes"].as_array().unwrap().iter().map(|it| it["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["nosuchcommand", "true", "sleep 600", "exit 3"], "in the order of the file");
    assert_eq!(new["processes"][1]["ended"], "exit status 0");
    assert!(new["processes"][2]["pid"].is_u64());
    // The second time there is nothing to start, and nothing to warn of.
    let again = lab.try_run(&["up", file.to_str().unwrap()]);
    assert!(!String::from_utf8_lossy(&again.stderr).contains("nosuchcommand"));
}

#[test]
fn the_daemon_answers_a_wrong_method_in_json() {
    let Some(lab) = Lab::new("method") else { return };
    lab.up("");
    let socket = lab.runs().join(&lab.name).join("control.sock");
    let output = Command::new("curl")
        .args(["-sS", "-XPUT", "-w", "%{http_code}", "http://lab/v1/status", "--unix-socket"])
        .arg(socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error: Value = serde_json::from_str(said.strip_suffix("405").expect("the status")).unwrap();
    assert_eq!(error["message"], "/v1/status does not take PUT: the header `Allow` says what it takes");
}

#[test]
fn a_namespace_of_others_under_our_name_is_left_alone() {
    let Some(lab) = Lab::new("foreign") else { return };
    let foreign = Foreign::new(lab.netns("app"));
    let file = lab.file("");
    let output = lab.try_run(&["up", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("exists already and does not belong to lab"), "{said}");
    lab.try_run(&["down"]);
    ip(&["-n", &foreign.0, "link", "show", "lo"]);
    drop(foreign);
    lab.assert_gone();
}

#[test]
fn an_attached_namespace_keeps_its_default_route_and_is_let_go_when_it_ends() {
    let Some(lab) = Lab::new("attach") else { return };
    let foreign = Foreign::new(format!("foreign-{}", lab.name));
    for line in [
        "link set lo up",
        "tuntap add theirs mode tun",
        "link set theirs up",
        "address add 192.168.9.1/24 dev theirs",
        "route add default via 192.168.9.2",
    ] {
        ip(&[&["-n", &foreign.0][..], &line.split(' ').collect::<Vec<_>>()].concat());
    }
    let before = ip(&["-n", &foreign.0, "route"]);
    lab.up(&format!(
        "      guest: {{ subnet: public, ip: 10.0.1.20, security_groups: [web], attach: {} }}",
        foreign.0
    ));
    let routes = ip(&["-n", &foreign.0, "route"]);
    assert!(
        routes.contains("default via 192.168.9.2") && routes.contains("10.0.0.0/16 dev vpc-"),
        "{routes}"
    );
    // Its default route is not ours, so the command has to say whose address it speaks from.
    let curl = ["exec", "guest", "--", "curl", "-sS", "-m5", "--interface", "10.0.1.20", "http://web/"];
    assert!(lab.run(&curl).starts_with("you are 10.0.1.20:"));
    lab.up("");
    assert_eq!(ip(&["-n", &foreign.0, "route"]), before, "left as it was found");

    lab.up(&format!("      guest: {{ subnet: public, ip: 10.0.1.20, attach: {} }}", foreign.0));
    let links = |lab: &Lab| lab.status()["dataplane"]["links"].as_array().unwrap().len();
    assert_eq!(links(&lab), 4);
    drop(foreign);
    eventually("the link is closed", || links(&lab) == 3);
}

/// iperf3 from `app` to the internet, through the NAT gateway.
struct Traffic(Child);

impl Traffic {
    fn start(lab: &Lab, seconds: u32) -> Self {
        lab.app_curls_example();
        let client = lab
            .command(&[
                "exec",
                "app",
                "--",
                "iperf3",
                "-J",
                "-t",
                &seconds.to_string(),
                "-c",
                "198.51.100.10",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("traffic flows", || {
            lab.run(&["nat", "-o", "json"]).contains("\"destination_port\": 5201")
        });
        Self(client)
    }

    /// Every tenth of a second brought data, and the connection was not reset.
    fn assert_uninterrupted(self) {
        let output = self.0.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success() && report["error"].is_null(), "{}", report["error"]);
        for interval in report["intervals"].as_array().unwrap() {
            assert!(interval["sum"]["bytes"].as_u64().unwrap() > 0, "{interval}");
        }
    }
}

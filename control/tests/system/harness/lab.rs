//! A lab that is brought up, used, and taken down with nothing left.

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use localvpc::view::{CountersView, Named, StatusView};
use localvpc_api::report::{Connection, Lease};
use serde_json::Value;
use tempfile::TempDir;

use super::command::{Done, Running, run};
use super::watch::Watch;
use super::{leftovers, traffic, wait};

/// The lab that the README shows.
pub const TWO_TIER: &str = include_str!("../../../../configs/two-tier.yaml");

/// A file with a public subnet, and a private one behind a NAT gateway of the public one; security groups, instances and the
/// internet are the test's.
macro_rules! behind_a_nat_gateway {
    ($rest:literal) => {
        concat!(
            "
lab: behind
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public: { cidr: 10.0.1.0/24, route_table: public }
      private: { cidr: 10.0.2.0/24, route_table: private }
    route_tables:
      public: [ { to: 0.0.0.0/0, via: igw } ]
      private: [ { to: 0.0.0.0/0, via: nat } ]
    nat_gateways:
      nat: { subnet: public, ip: 10.0.1.100, eip: 203.0.113.20 }
",
            $rest
        )
    };
}
pub(crate) use behind_a_nat_gateway;

/// A lab. Taken down when dropped, however the test ends; then nothing of it may be left.
pub struct Lab {
    /// Unique on the machine.
    pub name: String,
    directory: TempDir,
    /// For when the test is killed.
    _watch: Watch,
    /// Whether the test itself has killed something: then errors in the logs are no surprise.
    pub expect_errors: bool,
}

impl Lab {
    /// A lab with a name and a run directory, not up yet. None where there is no root, and says so.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            // Past the test runner's capture of output.
            let _ = writeln!(std::io::stderr(), "skipped: needs root");
            return None;
        }
        let dataplane = Path::new(env!("CARGO_BIN_EXE_localvpc")).with_file_name("localvpc-dataplane");
        assert!(
            dataplane.exists(),
            "{} is missing: run scripts/test, or `cargo build --workspace --bins` first",
            dataplane.display()
        );
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = TempDir::with_prefix("localvpc-").expect("a directory for temporary files");
        let watch = Watch::over(&name, directory.path());
        Some(Self { name, directory, _watch: watch, expect_errors: false })
    }

    /// A lab that is up, and whose servers listen. `text` describes it; its `lab:` is replaced.
    #[track_caller]
    pub fn up(text: &str) -> Option<Self> {
        let lab = Self::new()?;
        lab.apply(text).ok();
        lab.wait_for_servers();
        Some(lab)
    }

    /// Writes the file, and `up`s it.
    #[track_caller]
    pub fn apply(&self, text: &str) -> Done {
        let file = self.write(text);
        self.localvpc(&["up", &file])
    }

    /// Writes the file with the name of this lab in it, and returns its path.
    pub fn write(&self, text: &str) -> String {
        let is_name = |line: &&str| line.starts_with("lab:");
        let old = text.lines().find(is_name).expect("a line `lab:`");
        let path = self.file();
        fs::write(&path, text.replacen(old, &format!("lab: {}", self.name), 1))
            .expect("a file can be written");
        path.to_string_lossy().into_owned()
    }

    /// The file that [`write`](Self::write) writes.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("lab.yaml")
    }

    /// `LOCALVPC_RUN_DIR`.
    pub fn run_dir(&self) -> &Path {
        self.directory.path()
    }

    /// The program, about this lab.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_localvpc"));
        command.args(args).current_dir(self.run_dir());
        command.env("LOCALVPC_RUN_DIR", self.run_dir()).env("LOCALVPC_LAB", &self.name);
        command
    }

    /// Runs `localvpc` with these arguments.
    #[track_caller]
    pub fn localvpc(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// What `localvpc … -o json` prints.
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self, args: &[&str]) -> T {
        let done = self.localvpc(&[args, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"))
    }

    /// `status`.
    #[track_caller]
    pub fn status(&self) -> StatusView {
        self.json(&["status"])
    }

    /// `counters`.
    #[track_caller]
    pub fn counters(&self) -> CountersView {
        self.json(&["counters"])
    }

    /// `nat`.
    #[track_caller]
    pub fn leases(&self) -> Vec<Named<Lease>> {
        self.json(&["nat"])
    }

    /// `connections`.
    #[track_caller]
    pub fn connections(&self) -> Vec<Named<Connection>> {
        self.json(&["connections"])
    }

    /// `explain`, with its exit status.
    #[track_caller]
    pub fn explain(&self, question: &str, exit_status: i32) -> Value {
        let words: Vec<&str> =
            ["explain"].into_iter().chain(question.split(' ')).chain(["-o", "json"]).collect();
        let done = self.localvpc(&words).exits(exit_status);
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"))
    }

    /// The namespace of an instance of its own, or of `internet`.
    pub fn netns(&self, who: &str) -> String {
        format!("{}-{who}", self.name)
    }

    /// Runs words, as they would be typed, with `localvpc exec`.
    #[track_caller]
    pub fn exec(&self, who: &str, line: &str) -> Done {
        self.spawn(who, line).end()
    }

    /// Starts words with `localvpc exec`.
    #[track_caller]
    pub fn spawn(&self, who: &str, line: &str) -> Running {
        let words: Vec<&str> = ["exec", who, "--"].into_iter().chain(line.split_whitespace()).collect();
        Running::start(&mut self.command(&words))
    }

    /// Runs words with `ip netns exec`.
    #[track_caller]
    pub fn ip_netns_exec(&self, who: &str, line: &str) -> Done {
        super::command::run_line(&format!("ip netns exec {} {line}", self.netns(who)))
    }

    /// Waits until every port of a `localvpc serve` or `iperf3 -s` is open.
    #[track_caller]
    pub fn wait_for_servers(&self) {
        for instance in self.status().instances {
            for process in &instance.processes {
                let pid = process.pid.unwrap_or_else(|| panic!("{}: {process:?}", instance.name));
                for port in served_ports(&process.command) {
                    wait::until(&format!("{} to listen on port {port}", instance.name), || {
                        listens(&pid.to_string(), Transport::Tcp, port).then_some(())
                    });
                }
            }
        }
    }

    /// Waits until something in the namespace of `who` has the port open.
    #[track_caller]
    pub fn wait_for_port(&self, who: &str, transport: Transport, port: u16) {
        let is_open = || self.inside(who, || listens("thread-self", transport, port));
        wait::until(&format!("{who} to listen on port {port}"), || is_open().then_some(()));
    }

    /// The log of `control`, `dataplane` or an instance.
    pub fn log(&self, owner: &str) -> String {
        let path = self.run_dir().join(&self.name).join("logs").join(format!("{owner}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Takes the lab down and requires that nothing is left.
    #[track_caller]
    pub fn down(&self) -> Done {
        let done = self.localvpc(&["down"]).ok();
        self.nothing_is_left();
        done
    }

    /// Requires that nothing of the lab is on the machine.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        let left = leftovers::of(&self.name, self.run_dir());
        assert!(left.is_empty(), "left of lab {}: {left:#?}", self.name);
    }

    /// Ends the lab, if it has not been; what was wrong with it.
    fn take_down(&self) -> Vec<String> {
        if !self.run_dir().join(&self.name).exists() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if std::thread::panicking() {
            eprintln!("--- control.log\n{}--- dataplane.log\n{}", self.log("control"), self.log("dataplane"));
            eprintln!("{}", self.localvpc(&["counters"]));
        } else if !self.expect_errors {
            problems = self.defects();
        }
        let down = self.localvpc(&["down"]);
        problems.extend((down.code != 0).then(|| down.to_string()));
        problems
    }

    /// Errors in the logs, and discards that are defects.
    fn defects(&self) -> Vec<String> {
        let mut defects: Vec<String> = ["control", "dataplane"]
            .iter()
            .flat_map(|owner| self.log(owner).lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.contains(" ERROR ") || line.contains("panicked"))
            .collect();
        let counters = self.localvpc(&["counters", "-o", "json"]);
        if let Ok(counters) = serde_json::from_str::<CountersView>(&counters.stdout) {
            let internal = traffic::packets(&counters, "INTERNAL_ERROR");
            defects.extend((internal > 0).then(|| format!("{internal} discards with INTERNAL_ERROR")));
        }
        defects
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What fails here must not keep the rest from being cleaned up, nor end the process while another panic unwinds.
        let problems = catch_unwind(AssertUnwindSafe(|| self.take_down()));
        let mut problems = problems.unwrap_or_else(|_| vec!["a panic while it was taken down".to_owned()]);
        problems.extend(leftovers::of(&self.name, self.run_dir()));
        if problems.is_empty() {
            return;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| leftovers::sweep(&self.name, self.run_dir())));
        let report = format!("lab {} did not end well: {problems:#?}", self.name);
        if std::thread::panicking() { eprintln!("{report}") } else { panic!("{report}") }
    }
}

/// The text with something replaced that is in it exactly once.
#[track_caller]
pub fn edit(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` should be once in\n{text}");
    text.replacen(from, to, 1)
}

fn served_ports(command: &str) -> Vec<u16> {
    match command.split_once("localvpc serve ") {
        Some((_, ports)) => ports.split(' ').map_while(|word| word.parse().ok()).collect(),
        None if command.contains("iperf3 -s") => vec![5201],
        None => Vec::new(),
    }
}

/// What carries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Whether anything listens on the port in the network namespace of the process, by its name in `/proc`.
fn listens(process: &str, transport: Transport, port: u16) -> bool {
    // LISTEN, and a datagram socket without far end.
    let (tables, state) = match transport {
        Transport::Tcp => (["tcp", "tcp6"], "0A"),
        Transport::Udp => (["udp", "udp6"], "07"),
    };
    // Columns: number, local address and port, remote ones, state.
    let is_it = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.len() > 3 && columns[1].ends_with(&format!(":{port:04X}")) && columns[3] == state
    };
    tables.iter().any(|table| {
        fs::read_to_string(format!("/proc/{process}/net/{table}")).is_ok_and(|text| text.lines().any(is_it))
    })
}

//! The machinery of `scripts/compare` and `localvpc-levers`, in short: that they measure everything, and leave nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::{Running, wait};

/// `scripts/compare` itself.
fn program() -> Option<PathBuf> {
    built("localvpc-compare")
}

/// A program that is built with the workspace; none where there is no root, and says so.
fn built(program: &str) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        // Past the test runner's capture of output.
        let _ = writeln!(std::io::stderr(), "skipped: needs root");
        return None;
    }
    let path = Path::new(env!("CARGO_BIN_EXE_localvpc")).with_file_name(program);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, or `cargo build --workspace --bins`",
        path.display()
    );
    Some(path)
}

/// What is there that bears the process's id.
fn left_behind(pid: u32) -> Vec<String> {
    let named = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| format!("{directory}/{}", entry.file_name().to_string_lossy())).collect()
    };
    let all = [named("/run/netns"), named("/etc/netns"), named("/run")].concat();
    all.into_iter().filter(|name| name.contains(&format!("compare-{pid}"))).collect()
}

#[test]
fn load_compare_measures_every_way_and_leaves_nothing() {
    let Some(program) = program() else { return };
    let mut command = Command::new(program);
    command.args(["--rounds", "1", "--time", "0.3", "-o", "json"]);
    command.args(["--rows", "tcp/nat/1/back,udp/64/1,connections/sg,round-trip/tcp/sg"]);
    let running = Running::start(&mut command);
    let pid = running.pid();
    let done = running.end().ok();
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"));
    let rows = report["rows"].as_array().expect("rows");
    let figures: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["row"].as_str().expect("a name"), row["figure"].as_str().expect("a name")))
        .collect();
    let expected = [
        ("tcp/nat/1/back", "throughput"),
        ("tcp/nat/1/back", "cpu"),
        ("udp/64/1", "received by socket"),
        ("udp/64/1", "received by device"),
        ("udp/64/1", "cpu"),
        ("connections/sg", "connections"),
        ("round-trip/tcp/sg", "p50"),
        ("round-trip/tcp/sg", "p99"),
        ("round-trip/tcp/sg", "p99.9"),
    ];
    assert_eq!(figures, expected, "{done}");
    for row in rows {
        for field in [
            &row["ours"]["median"],
            &row["null"]["median"],
            &row["linux"]["median"],
            &row["ours_to_null"]["median"],
            &row["ours_to_linux"]["median"],
            &row["null_to_linux"]["median"],
        ] {
            assert!(field.as_f64().is_some_and(|value| value > 0.0), "{row}");
        }
        assert_eq!(row["ours"]["samples"].as_array().map(Vec::len), Some(1), "{row}");
    }
    assert!(rows[0]["bytes_per_read"].as_f64().is_some_and(|bytes| bytes > 1500.0), "{}", rows[0]);
    assert_eq!(report["failures"], Value::Array(vec![]));
    assert_eq!(left_behind(pid), [""; 0]);
}

#[test]
fn load_compare_cleans_up_when_it_is_interrupted_while_it_measures() {
    let Some(program) = program() else { return };
    interrupted(&program, "--rows round-trip/udp", |line| line.contains("round 1/1000"), |_| {});
}

#[test]
fn load_compare_cleans_up_when_it_is_interrupted_while_it_brings_labs_up() {
    let Some(program) = program() else { return };
    interrupted(&program, "--rows instances/100", |line| line.contains("bringing up 101 instances"), |_| {});
}

#[test]
fn load_compare_lets_one_dataplane_at_a_time_be_awake_for_good() {
    let Some(program) = program() else { return };
    let take_turns = |pid| {
        let is_busy = |kind: &str| poll(pid, kind).as_deref() == Some("busy");
        for (one, other) in [("ours", "null"), ("null", "ours")] {
            wait::until("its turn", || {
                let all = (is_busy(one), is_busy(other), is_busy(one));
                assert_ne!(all, (true, true, true), "{other} took processors while it was the turn of {one}");
                (all == (true, false, true)).then_some(())
            });
        }
    };
    // By the row, and because it is asked for.
    for rows in ["--rows busy/round-trip/udp", "--rows round-trip/udp --poll busy"] {
        interrupted(&program, rows, |line| line.contains("round 1/1000"), take_turns);
    }
}

/// How the dataplane of a lab waits for packets; none while it cannot be asked.
fn poll(compare: u32, kind: &str) -> Option<String> {
    let mut status = Command::new(env!("CARGO_BIN_EXE_localvpc"));
    status.args(["--lab", &format!("compare-{compare}-{kind}"), "status", "-o", "json"]);
    let done = status.env("LOCALVPC_RUN_DIR", format!("/run/localvpc-compare-{compare}")).output().ok()?;
    let status: Value = serde_json::from_slice(&done.stdout).ok()?;
    status["dataplane"]["settings"]["poll"].as_str().map(str::to_owned)
}

/// Presses Ctrl-C once a line of a kind has been told, and something been done meanwhile with the process's id.
fn interrupted(program: &Path, rows: &str, is_time: impl Fn(&str) -> bool, meanwhile: impl FnOnce(u32)) {
    // Progress is told on standard error.
    let line = format!("exec {} --rounds 1000 --time 0.1 {rows} 2>&1", program.display());
    let mut command = Command::new("sh");
    // Like a terminal, which sends SIGINT to all processes of the job.
    command.args(["-c", &line]).process_group(0);
    let (running, output) = Running::start_reading(&mut command);
    let pid = running.pid();
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    assert!(lines.any(|line| is_time(&line)), "it begins");
    wait::until("something to take down", || (!left_behind(pid).is_empty()).then_some(()));
    let met = catch_unwind(AssertUnwindSafe(|| meanwhile(pid)));
    let group = Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process_group(group, Signal::INT).expect("it runs");
    // Read on, so that it never waits for a reader.
    let rest: Vec<String> = lines.collect();
    running.end().exits(130);
    // Nothing is left then.
    met.unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(left_behind(pid), [""; 0], "{rest:?}");
}

#[test]
fn load_levers_take_turns_with_the_usual() {
    let Some(program) = built("localvpc-levers") else { return };
    let mut command = Command::new(program);
    command.args([
        "--rounds",
        "1",
        "--time",
        "0.1",
        "--rows",
        "udp/64,round-trip",
        "--levers",
        "batch/16,napi",
    ]);
    let done = Running::start(&mut command).end().ok();
    let lines: Vec<Vec<&str>> = done.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["LEVER", "BESIDE", "udp/64", "round-trip"], "{done}");
    assert!(lines[1][1..].iter().all(|cell| cell.parse::<f64>().is_ok_and(|it| it > 0.0)), "{done}");
    for (line, name) in lines[2..].iter().zip(["batch/16", "napi"]) {
        assert_eq!((line[0], line[1], line.len()), (name, "usual", 6), "a ratio and its range twice: {done}");
    }
    assert_eq!(lines.len(), 4, "{done}");
}

/// What it does takes ten minutes; that it says so does not.
#[test]
fn release_says_what_it_is_for_and_takes_no_arguments() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scripts/release");
    let run = |argument: &str| Command::new(&script).arg(argument).output().expect("bash");
    let help = run("--help");
    let said = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && said.contains("Usage: sudo scripts/release"), "{help:?}");
    assert!(!said.contains('#') && !said.contains("set -"), "its first lines, without their marks: {said}");
    let refused = run("nonsense");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`nonsense` is no argument"), "{refused:?}");
}

//! What of a lab is on the machine, found without asking the lab.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::command::{run_line, signal_process};

/// A line for each namespace, mount, file and process of the lab.
pub fn of(lab: &str, run_dir: &Path) -> Vec<String> {
    let namespaces = in_directory("/run/netns", lab).map(|name| format!("namespace {name}"));
    let files = in_directory("/etc/netns", lab).map(|name| format!("directory /etc/netns/{name}"));
    let processes = processes(run_dir).into_iter().map(|pid| format!("process {pid} ({})", title(pid)));
    let run = in_directory(&run_dir.to_string_lossy(), lab).map(|name| format!("run directory {name}"));
    namespaces.chain(mounts(lab)).chain(files).chain(processes).chain(run).collect()
}

/// Removes all that by force, for the sake of whoever uses the machine next.
pub fn sweep(lab: &str, run_dir: &Path) {
    for pid in processes(run_dir) {
        signal_process(pid, Signal::KILL);
    }
    for name in in_directory("/run/netns", lab) {
        run_line(&format!("ip netns delete {name}"));
    }
    for name in in_directory("/etc/netns", lab) {
        let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
    }
}

/// Processes that name the run directory in their environment or on their command line. Zombies have neither.
pub fn processes(run_dir: &Path) -> Vec<u32> {
    let needle = run_dir.to_string_lossy().into_owned();
    let names_it = |pid: &u32| {
        ["environ", "cmdline"].iter().any(|file| {
            fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|content| String::from_utf8_lossy(&content).contains(&needle))
        })
    };
    let pids = fs::read_dir("/proc").into_iter().flatten();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(names_it).collect()
}

/// Namespaces of the lab, as `/run/netns` shows them.
pub fn namespaces(lab: &str) -> Vec<String> {
    in_directory("/run/netns", lab).collect()
}

fn mounts(lab: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_lab = |line: &&str| line.contains(&format!("/run/netns/{lab}-"));
    table.lines().filter(of_lab).map(|line| format!("mount {line}")).collect()
}

/// Names that are the lab's or begin with `<lab>-`.
fn in_directory(directory: &str, lab: &str) -> impl Iterator<Item = String> + use<> {
    let prefix = format!("{lab}-");
    let lab = lab.to_owned();
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(move |name| *name == lab || name.starts_with(&prefix))
}

fn title(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

//! What a `kill -9` leaves, and who puts it in order.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::command::signal_process;
use crate::harness::{Lab, Running, TWO_TIER, echoes, edit, leftovers, wait};

fn is_gone(pid: u32) -> bool {
    // A zombie has an empty command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

fn kill(pid: u32) {
    signal_process(pid, Signal::KILL);
    wait::until("a killed process to end", || is_gone(pid).then_some(()));
}

#[test]
fn a_killed_control_is_replaced_by_up_and_packets_never_notice() {
    let Some(lab) = Lab::up(&with_echo()) else { return };
    let before = lab.status();
    let dataplane = before.dataplane.expect("it runs").pid;
    let mut connection = lab.connect("app", "10.0.2.30:5432");
    echoes(&mut connection);

    kill(before.control_pid);
    echoes(&mut connection);
    let refused = lab.localvpc(&["status"]).exits(1);
    assert!(refused.stderr.contains("localvpc down") && refused.stderr.contains("localvpc up"), "{refused}");

    let again = lab.apply(&with_echo()).ok();
    assert!(again.stdout.contains("nothing to do"), "{again}");
    let after = lab.status();
    assert_ne!(after.control_pid, before.control_pid);
    assert_eq!(after.dataplane.expect("it runs").pid, dataplane, "adopted, not restarted");
    for (was, is) in before.instances.iter().zip(&after.instances) {
        let pids =
            |it: &localvpc::view::InstanceView| it.processes.iter().map(|it| it.pid).collect::<Vec<_>>();
        assert_eq!(pids(was), pids(is), "{}", was.name);
    }
    echoes(&mut connection);
    // The new control can change things.
    lab.apply(&edit(&with_echo(), "tcp: 5432, from: app", "tcp: 5433, from: app")).ok();
    lab.connect_is_cut("app", "10.0.2.30:5432", "ENI_SG_RULES_MISMATCH");
    echoes(&mut connection);
    lab.down();
}

fn with_echo() -> String {
    edit(TWO_TIER, "run: localvpc serve 5432", "run: localvpc serve 5432 --echo")
}

#[test]
fn a_killed_dataplane_is_replaced_by_control() {
    let Some(mut lab) = Lab::up(TWO_TIER) else { return };
    lab.expect_errors = true;
    let before = lab.status();
    assert_eq!(before.dataplane_restarts, 0);
    let old = before.dataplane.expect("it runs").pid;
    kill(old);
    let new = wait::until("a new dataplane", || lab.status().dataplane.filter(|it| it.pid != old));
    let after = lab.status();
    assert_eq!((after.dataplane_restarts, after.control_pid), (1, before.control_pid));
    assert_eq!(new.links.len(), 4);
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
    assert!(lab.curl("internet", "http://203.0.113.10/").starts_with("you are 198.51.100.10:"));
    lab.down();
}

#[test]
fn after_both_are_killed_down_cleans_up() {
    let Some(mut lab) = Lab::up(TWO_TIER) else { return };
    lab.expect_errors = true;
    let status = lab.status();
    kill(status.control_pid);
    kill(status.dataplane.as_ref().expect("it runs").pid);
    let commands = status.instances.iter().flat_map(|it| &it.processes).filter_map(|it| it.pid);
    assert!(commands.clone().count() == 3 && commands.clone().all(|pid| !is_gone(pid)), "{status:?}");
    assert_eq!(leftovers::namespaces(&lab.name).len(), 4);
    lab.down();
}

#[test]
fn after_both_are_killed_up_starts_again() {
    let Some(mut lab) = Lab::up(TWO_TIER) else { return };
    lab.expect_errors = true;
    let status = lab.status();
    kill(status.control_pid);
    kill(status.dataplane.as_ref().expect("it runs").pid);
    lab.apply(TWO_TIER).ok();
    lab.wait_for_servers();
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
    lab.down();
}

#[test]
fn a_control_killed_in_the_middle_of_up_leaves_nothing_that_down_cannot_remove() {
    // At several moments: right after the first namespace has appeared, and after later ones.
    for namespaces in 1..=4 {
        let Some(mut lab) = Lab::new() else { return };
        lab.expect_errors = true;
        let file = lab.write(TWO_TIER);
        let up = Running::start(&mut lab.command(&["up", &file]));
        wait::until("namespaces", || (leftovers::namespaces(&lab.name).len() >= namespaces).then_some(()));
        for pid in controls(&lab) {
            kill(pid);
        }
        up.end();
        lab.down();
    }
}

/// The daemons of the lab: their command line is `localvpc daemon <lab>`.
fn controls(lab: &Lab) -> Vec<u32> {
    let is_daemon = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line == format!("localvpc\0daemon\0{}\0", lab.name).as_bytes())
    };
    leftovers::processes(lab.run_dir()).into_iter().filter(is_daemon).collect()
}

#[test]
fn down_leaves_alone_what_the_lab_did_not_make() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    // As if somebody had made a namespace whose name looks like ours.
    let foreign = Netns::add(&format!("{}x", lab.name));
    lab.down();
    assert!(std::path::Path::new("/run/netns").join(&foreign.0).exists());
}

/// A namespace made with `ip netns add`, removed when dropped.
struct Netns(String);

impl Netns {
    fn add(name: &str) -> Self {
        let status = Command::new("ip").args(["netns", "add", name]).status();
        assert!(status.is_ok_and(|status| status.success()), "ip netns add {name}");
        Self(name.to_owned())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

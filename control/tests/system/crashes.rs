//! What a `kill -9` leaves, and who puts it in order.

use localvpc::host::proc::{self, ProcessId};
use rustix::process::Signal;

use crate::harness::command::signal_process;
use crate::harness::{Lab, Netns, Running, TWO_TIER, echoes, edit, leftovers, wait};

/// Kills a process, and waits until it has closed whatever it had open.
fn kill(pid: u32) {
    let handle = ProcessId::of(pid).and_then(ProcessId::open);
    let handle = handle.unwrap_or_else(|| panic!("process {pid} should run"));
    signal_process(pid, Signal::KILL);
    // Not its first thread alone: the last one closes.
    let ended = proc::wait(handle, wait::PATIENCE);
    assert!(ended.is_ok_and(|ended| ended), "process {pid} was killed and has not ended");
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
fn a_deleted_device_is_told_with_the_command_that_mends_it_and_costs_only_its_own_packets() {
    let Some(mut lab) = Lab::up(TWO_TIER) else { return };
    lab.expect_errors = true;
    assert_eq!(lab.status().problems, [""; 0]);
    lab.exec("web", "ip link delete eth0").ok();
    let told = |lab: &Lab| lab.status().problems.into_iter().next();
    let problem = wait::until("the loss to be noticed", || told(&lab));
    let command = format!("localvpc down --lab {} && localvpc up {}", lab.name, lab.file().display());
    assert!(problem.contains("network device of web is gone") && problem.contains(&command), "{problem}");
    let screen = lab.localvpc(&["status"]).ok();
    assert!(screen.stdout.contains(&format!("PROBLEM: {problem}")), "{screen}");
    let beyond = || lab.curl("app", "http://198.51.100.10/");
    assert!(beyond().starts_with("you are 203.0.113.20:"));

    // The next dataplane cannot take the dead device over, and takes the others.
    let old = lab.status().dataplane.expect("it runs").pid;
    kill(old);
    wait::until("a new dataplane", || lab.status().dataplane.filter(|it| it.pid != old));
    assert_eq!(told(&lab), Some(problem));
    assert!(beyond().starts_with("you are 203.0.113.20:"));

    lab.localvpc(&["down"]).ok();
    lab.localvpc(&["up", &lab.file().to_string_lossy()]).ok();
    assert_eq!(lab.status().problems, [""; 0]);
    lab.wait_for_servers();
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
    assert!(
        commands.clone().count() == 3 && commands.clone().all(|pid| ProcessId::of(pid).is_some()),
        "{status:?}"
    );
    assert_eq!(leftovers::namespaces(&lab.name).len(), 4);
    lab.down();
}

#[test]
fn down_right_after_a_kill_cleans_up_too() {
    for _ in 0..3 {
        let Some(mut lab) = Lab::up(TWO_TIER) else { return };
        lab.expect_errors = true;
        // Its sockets may still be open.
        signal_process(lab.status().control_pid, Signal::KILL);
        lab.down();
    }
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

/// A lab whose control was killed in the middle of its first `up`, at the moment described.
fn killed_in_the_middle(is_moment: impl Fn(&Lab) -> bool) -> Option<Lab> {
    let mut lab = Lab::new()?;
    lab.expect_errors = true;
    let file = lab.write(TWO_TIER);
    let up = Running::start(&mut lab.command(&["up", &file]));
    wait::until("the moment", || is_moment(&lab).then_some(()));
    for pid in controls(&lab) {
        kill(pid);
    }
    up.end();
    Some(lab)
}

/// Right after the first namespace has appeared, after each later one, and after the first command has started.
fn moments() -> impl Iterator<Item = Box<dyn Fn(&Lab) -> bool>> {
    let namespaces = (1..=4).map(|number| -> Box<dyn Fn(&Lab) -> bool> {
        Box::new(move |lab| leftovers::namespaces(&lab.name).len() >= number)
    });
    namespaces.chain([Box::new(|lab: &Lab| {
        let mark = format!("LOCALVPC_OWNER={}:", lab.name);
        leftovers::processes(lab.run_dir()).iter().any(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&mark))
        })
    }) as Box<dyn Fn(&Lab) -> bool>])
}

#[test]
fn a_control_killed_in_the_middle_of_up_leaves_nothing_that_down_cannot_remove() {
    for moment in moments() {
        let Some(lab) = killed_in_the_middle(moment) else { return };
        lab.down();
    }
}

#[test]
fn after_a_control_was_killed_in_the_middle_of_up_the_next_up_completes_it() {
    for moment in moments() {
        let Some(lab) = killed_in_the_middle(moment) else { return };
        lab.apply(TWO_TIER).ok();
        lab.wait_for_servers();
        assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
        assert!(lab.curl("internet", "http://203.0.113.10/").starts_with("you are 198.51.100.10:"));
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
    let foreign = Netns::add(lab.netns("foreign"));
    lab.localvpc(&["down"]).ok();
    assert!(foreign.exists());
    drop(foreign);
    lab.nothing_is_left();
}

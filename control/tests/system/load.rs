//! Throughput, many connections at once, and what must not disturb them.

use std::collections::HashSet;

use localvpc::view::InstanceView;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::command::{Done, run, signal_process};
use crate::harness::{Lab, Running, behind_a_nat_gateway, edit, wait};

/// app reaches an iperf3 and a web server through a NAT gateway.
const BULK: &str = behind_a_nat_gateway!(
    "    security_groups:
      app: { inbound: [ { tcp: 22, from: 10.0.0.0/16 } ] }
    instances:
      app: { subnet: private, ip: 10.0.2.20, security_groups: app }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: [localvpc serve 80, iperf3 -s] }
"
);

/// Bytes that a read brings on average, at least, when super-packets pass unsplit. They hold up to 65,536; a packet
/// holds 1,500. Measured in debug builds on two busy cores: 60,000 and more.
const UNSPLIT: u64 = 30_000;

/// iperf3 from app, for some seconds.
fn iperf3(lab: &Lab, seconds: u32) -> Running {
    let running = lab.spawn("app", &format!("iperf3 -c 198.51.100.10 -t {seconds} -J"));
    wait::until("iperf3 to send", || {
        let leases = lab.leases();
        // The second connection is the one with the data.
        (leases.iter().any(|it| it.row.out.bytes > 1_000_000)).then_some(())
    });
    running
}

/// Requires that iperf3 came to its end, over one connection; bytes received.
fn carried(done: Done) -> u64 {
    let done = done.ok();
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"));
    assert_eq!(report.get("error"), None, "{done}");
    let bytes = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or_default();
    assert!(bytes > 10_000_000, "{done}");
    // Never for two of its seconds: the machine may have had no processor for one.
    let intervals = report["intervals"].as_array().expect("intervals");
    let stood_still = |interval: &Value| interval["sum"]["bytes"].as_u64().unwrap_or_default() == 0;
    for two in intervals.windows(2) {
        assert!(!two.iter().all(stood_still), "it stood still: {two:?}");
    }
    bytes
}

#[test]
fn load_200_parallel_curls_through_the_nat_gateway_natgw_12() {
    let Some(lab) = Lab::up(BULK) else { return };
    // One process in the namespace that starts them all.
    let script = "
        for n in $(seq 200); do
            curl -sS --connect-timeout 30 --max-time 60 http://198.51.100.10/ & pids=\"$pids $!\"
        done
        for pid in $pids; do wait $pid || exit 1; done";
    let done = run(lab.command(&["exec", "app", "--", "sh", "-c"]).arg(script)).ok();
    let seen: HashSet<&str> = done.stdout.lines().collect();
    assert_eq!(seen.len(), 200, "each with a port of its own: {done}");
    assert!(seen.iter().all(|line| line.starts_with("you are 203.0.113.20:")), "{done}");

    let leases = lab.leases();
    assert_eq!(leases.len(), 200);
    let outside: HashSet<_> = leases
        .iter()
        .map(|it| (it.row.address, it.row.port, it.row.inside.destination, it.row.inside.destination_port))
        .collect();
    assert_eq!(outside.len(), 200, "no two leases share a port towards one destination");
    let ports: HashSet<String> =
        leases.iter().map(|it| format!("you are 203.0.113.20:{}", it.row.port)).collect();
    assert!(seen.iter().all(|line| ports.contains(*line)), "what the server saw is what `nat` lists");
    println!("200 curls took {:?}", done.took);
}

#[test]
fn load_iperf3_through_the_nat_gateway_carries_super_packets_unsplit() {
    let Some(lab) = Lab::up(BULK) else { return };
    let bytes = carried(iperf3(&lab, 3).end());
    let counters = lab.counters();
    let link =
        |name: &str| counters.links.iter().find(|link| link.name == name).expect("a link of the lab").row;
    let (app, internet) = (link("app"), link("internet"));
    let (per_read, per_write) = (app.read_bytes / app.reads, internet.written_bytes / internet.writes);
    println!("{} MB/s, {per_read} bytes per read, {per_write} per write", bytes / 3_000_000);
    assert!(per_read >= UNSPLIT, "{app:?}");
    assert!(per_write >= UNSPLIT, "{internet:?}");
    assert!(app.read_segments > app.reads * 10, "{app:?}");
    let workers = &counters.workers;
    let (packets, hits) = (
        workers.iter().map(|it| it.packets).sum::<u64>(),
        workers.iter().map(|it| it.cache_hits).sum::<u64>(),
    );
    assert!(hits * 10 > packets * 9, "mid-stream packets are decided by the flow cache: {workers:?}");
}

#[test]
fn load_killing_control_does_not_disturb_iperf3_and_down_cleans_up() {
    let Some(mut lab) = Lab::up(BULK) else { return };
    lab.expect_errors = true;
    let dataplane = lab.status().dataplane.expect("it runs").pid;
    let running = iperf3(&lab, 4);
    signal_process(lab.status().control_pid, Signal::KILL);
    carried(running.end());
    assert!(std::path::Path::new(&format!("/proc/{dataplane}")).exists(), "the same dataplane all along");
    lab.down();
}

#[test]
fn load_up_with_a_changed_file_does_not_disturb_iperf3() {
    let Some(lab) = Lab::up(BULK) else { return };
    let running = iperf3(&lab, 4);
    let before = lab.status();
    let changed = edit(BULK, "{ tcp: 22, from: 10.0.0.0/16 }", "{ tcp: [22, 23], from: 10.0.0.0/16 }");
    let changed = edit(
        &changed,
        "internet:\n",
        "      late: { subnet: private, ip: 10.0.2.21, security_groups: app }\ninternet:\n",
    );
    let done = lab.apply(&changed).ok();
    let plan: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with(['+', '~', '-'])).collect();
    assert_eq!(plan.len(), 2, "only the difference: {done}");
    assert!(plan[0].contains("security group app") && plan[1].contains("instance late"), "{done}");
    carried(running.end());

    let after = lab.status();
    let dataplane = after.dataplane.as_ref().expect("it runs");
    let generation = before.dataplane.as_ref().map(|it| it.generation.0);
    assert_eq!(Some(dataplane.generation.0 - 1), generation);
    assert_eq!(Some(dataplane.pid), before.dataplane.as_ref().map(|it| it.pid));
    let pids = |instances: &[InstanceView]| -> Vec<Option<u32>> {
        instances.iter().flat_map(|it| &it.processes).map(|it| it.pid).collect()
    };
    assert_eq!(pids(&before.instances), pids(&after.instances), "no command was started anew");
    let gap = lab.counters().workers.iter().map(|it| it.longest_gap_us).max().unwrap_or_default();
    println!("longest gap between batches: {gap} us");
    assert!(gap > 0, "none was measured");
    lab.exec("late", "true").ok();
}

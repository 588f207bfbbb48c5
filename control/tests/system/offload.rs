//! Devices with and without offload, and how the dataplane waits and joins.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use localvpc_api::report::LinkCounters;
use localvpc_api::settings::{Merge, Poll, Settings};
use rustix::process::Signal;

use crate::harness::command::signal_process;
use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Lab, behind_a_nat_gateway, echoes, edit};

/// `plain` has no offload; anybody may talk to anybody.
const PLAIN: &str = behind_a_nat_gateway!(
    "    security_groups:
      open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      plain: { subnet: private, ip: 10.0.2.20, security_groups: open, offload: off, run: iperf3 -s }
      other: { subnet: private, ip: 10.0.2.30, security_groups: open, run: [iperf3 -s, localvpc serve 7 --echo] }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: [localvpc serve 80, localvpc serve 7 --echo] }
"
);

/// The largest packet inside a VPC: what a link without offload carries at most.
const MTU: u64 = 9001;

fn link(lab: &Lab, name: &str) -> LinkCounters {
    lab.counters().links.iter().find(|link| link.name == name).expect("a link of the lab").row
}

/// Bytes without a pattern that could hide an exchange.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends 8 MiB over TCP and requires that they arrive as they were sent.
fn carries(lab: &Lab, from: &str, to: &str, address: &str) {
    let listener = lab.inside(to, || TcpListener::bind((address, 0))).expect("an address of the namespace");
    let port = listener.local_addr().expect("it is bound").port();
    let mut sender = lab.connect(from, &format!("{address}:{port}"));
    let (mut receiver, _) = listener.accept().expect("it is connected");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a time");
    let sent = noise(8 << 20, u64::from(port));
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            // In pieces of many sizes, some in packets of their own.
            sender.set_nodelay(true).expect("a TCP socket");
            sent.chunks(70_001).for_each(|chunk| sender.write_all(chunk).expect("it takes them"));
            drop(sender);
        });
        receiver.read_to_end(&mut received).expect("they come");
    });
    assert!(received == sent, "from {from} to {to}: {} of {} bytes", received.len(), sent.len());
}

/// Sends a burst of datagrams, large and small, and requires that each arrives as it was sent. One that is sent in fragments may pass the
/// others: it has no ports by which the kernel could choose the same queue.
fn carries_datagrams(lab: &Lab, from: &str, to: &str, address: &str) {
    let receiver = lab.inside(to, || UdpSocket::bind((address, 0))).expect("an address of the namespace");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a time");
    let sender = lab.inside(from, || UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    sender.connect(receiver.local_addr().expect("it is bound")).expect("an address");
    let mut datagrams: Vec<_> = [100, 100, 100, 99, 8000, 8000, 1, 1, 20_000]
        .iter()
        .zip(1..)
        .map(|(&size, seed)| noise(size, seed))
        .collect();
    datagrams
        .iter()
        .for_each(|datagram| assert_eq!(sender.send(datagram).expect("it takes it"), datagram.len()));
    let mut buffer = vec![0; 65_536];
    while !datagrams.is_empty() {
        let length = receiver.recv(&mut buffer).expect("it comes");
        let at = datagrams.iter().position(|datagram| buffer[..length] == **datagram);
        datagrams.remove(at.unwrap_or_else(|| panic!("{length} bytes that were not sent")));
    }
}

#[test]
fn a_link_without_offload_carries_everything_in_packets_of_its_mtu() {
    let Some(lab) = Lab::up(PLAIN) else { return };
    for (from, to, address) in [("plain", "other", "10.0.2.30"), ("other", "plain", "10.0.2.20")] {
        carries(&lab, from, to, address);
        carries_datagrams(&lab, from, to, address);
        let report = lab.exec(from, &format!("iperf3 -c {address} -n 20M -J")).ok();
        assert!(!report.stdout.contains("\"error\""), "{report}");
    }
    let plain = link(&lab, "plain");
    assert!(plain.read_bytes / plain.reads <= MTU && plain.read_segments == plain.reads, "{plain:?}");
    assert!(plain.written_bytes / plain.writes <= MTU && plain.merged == 0, "{plain:?}");
    // Through a NAT gateway and a smaller MTU, both ways.
    let body = "curl -sS --max-time 30 -o /dev/null -w %{size_download} http://198.51.100.10/bytes/4000000";
    assert_eq!(lab.exec("plain", body).ok().stdout, "4000000");
}

#[test]
fn a_link_without_offload_becomes_one_with_and_back_and_the_others_stay() {
    let Some(lab) = Lab::up(PLAIN) else { return };
    // It passes other links only.
    let mut connection = lab.connect("other", "198.51.100.10:7");
    echoes(&mut connection);
    let with = edit(PLAIN, ", offload: off", "");
    let plan = lab.apply(&with).ok();
    assert!(plan.stdout.contains("~ instance plain: offload: off → on"), "{plan}");
    lab.wait_for_servers();
    carries(&lab, "other", "plain", "10.0.2.20");
    let plan = lab.apply(PLAIN).ok();
    assert!(plan.stdout.contains("~ instance plain: offload: on → off"), "{plan}");
    lab.wait_for_servers();
    carries(&lab, "plain", "other", "10.0.2.30");
    echoes(&mut connection);
}

#[test]
fn settings_change_while_it_runs_and_survive_the_dataplane_and_control() {
    let Some(mut lab) = Lab::up(PLAIN) else { return };
    lab.expect_errors = true;
    let settings = |lab: &Lab| lab.status().dataplane.map(|dataplane| dataplane.settings);
    assert_eq!(settings(&lab), Some(Settings { poll: Poll::Adaptive, merge: Merge::On }));
    let mut connection = lab.connect("plain", "10.0.2.30:7");
    echoes(&mut connection);
    let file = lab.write(PLAIN);
    let busy = Settings { poll: Poll::Busy, merge: Merge::Off };
    let done = lab.localvpc(&["up", &file, "--poll", "busy", "--merge", "off"]).ok();
    assert!(done.stdout.contains("nothing to do"), "{done}");
    echoes(&mut connection);
    assert_eq!(settings(&lab), Some(busy));
    let screen = lab.localvpc(&["status"]).ok();
    assert!(screen.stdout.contains("polling busy, merging off"), "{screen}");

    let status = lab.status();
    signal_process(status.dataplane.expect("it runs").pid, Signal::KILL);
    wait::until("another dataplane", || (settings(&lab) == Some(busy)).then_some(()));
    signal_process(lab.status().control_pid, Signal::KILL);
    lab.localvpc(&["up", &file]).ok();
    assert_eq!(settings(&lab), Some(busy), "as before");
    lab.localvpc(&["up", &file, "--poll", "block"]).ok();
    assert_eq!(settings(&lab), Some(Settings { poll: Poll::Block, merge: Merge::Off }));
    let refused = lab.localvpc(&["up", &file, "--poll", "sometimes"]).exits(2);
    assert!(refused.stderr.contains("adaptive, busy, block"), "{refused}");
    carries(&lab, "plain", "other", "10.0.2.30");
}

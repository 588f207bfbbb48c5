//! Files over a path of 9001, 8500 and 1500 bytes arrive as they were sent, with path MTU discovery and without.

use std::path::PathBuf;

use crate::harness::command::{run, run_line};
use crate::harness::{Capture, Lab, Running, Transport, edit, wait};

/// app sends through a NAT gateway, web through the internet gateway alone. Their groups track, so errors are related.
const FILE: &str = "
lab: files
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public: { cidr: 10.0.1.0/24, route_table: public, network_acl: guard }
      private: { cidr: 10.0.2.0/24, route_table: private, network_acl: guard }
    route_tables:
      public: [ { to: 0.0.0.0/0, via: igw } ]
      private: [ { to: 0.0.0.0/0, via: nat } ]
    nat_gateways:
      nat: { subnet: public, ip: 10.0.1.100, eip: 203.0.113.20 }
    network_acls:
      guard:
        outbound: [ { rule: 100, allow: all, to: 0.0.0.0/0 } ]
        inbound:
          - { rule: 100, allow: all, from: 0.0.0.0/0 }
    security_groups:
      closed: {}
    instances:
      app: { subnet: private, ip: 10.0.2.20, security_groups: closed }
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: closed }
internet:
  hosts:
    example: { ip: 198.51.100.10 }
";

/// The network ACL lets no "fragmentation needed" in: nobody learns what the path takes (MTU-5).
fn without_pmtud() -> String {
    let rule = "          - { rule: 100, allow: all, from: 0.0.0.0/0 }\n";
    edit(
        FILE,
        rule,
        &format!("          - {{ rule: 90, deny: icmp, type: 3, code: 4, from: 0.0.0.0/0 }}\n{rule}"),
    )
}

const PORT: u16 = 9000;
const TOO_BIG: &str = "FRAGMENTATION_NEEDED";

/// A file on its way from an instance to the internet.
struct Transfer {
    over: Transport,
    sent: PathBuf,
    received: PathBuf,
    sender: Running,
    receiver: Running,
}

impl Transfer {
    /// Starts nc at both ends.
    #[track_caller]
    fn start(lab: &Lab, from: &str, over: Transport, bytes: usize) -> Self {
        let udp = if over == Transport::Udp { "-u" } else { "" };
        let file = |name: &str| lab.run_dir().join(name);
        let (sent, received) = (file("sent"), file("received"));
        let content: Vec<u8> =
            (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(&sent, content).expect("a file can be written");
        let nc =
            |who: &str, line: String| Running::start(lab.command(&["exec", who, "--", "sh", "-c"]).arg(line));
        let receiver =
            nc("internet", format!("exec nc {udp} -l 198.51.100.10 {PORT} > {}", received.display()));
        lab.wait_for_port("internet", over, PORT);
        let sender = nc(from, format!("exec nc {udp} -N 198.51.100.10 {PORT} < {}", sent.display()));
        Self { over, sent, received, sender, receiver }
    }

    fn arrived(&self) -> u64 {
        std::fs::metadata(&self.received).map_or(0, |file| file.len())
    }

    /// Requires that all of it arrives, and that it is the same.
    #[track_caller]
    fn arrives_identical(self, what: &str) {
        let bytes = std::fs::metadata(&self.sent).expect("what was sent").len();
        wait::until(&format!("{what}: the file"), || (self.arrived() >= bytes).then_some(()));
        match self.over {
            Transport::Tcp => drop((self.sender.end().ok(), self.receiver.end().ok())),
            // Datagrams have no end.
            Transport::Udp => drop((self.sender, self.receiver)),
        }
        let sums = run_line(&format!("sha256sum {} {}", self.sent.display(), self.received.display())).ok();
        let sums: Vec<&str> = sums.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{what}: {sums:?}");
    }
}

/// Lets the far end offer segments larger than its own link takes, as if the narrow part of the path lay in between.
#[track_caller]
fn offer_large_segments(lab: &Lab) {
    run_line(&format!(
        "ip -n {} route change default dev inet0 scope link advmss 8960",
        lab.netns("internet")
    ))
    .ok();
}

/// Forgets what MTUs of paths were learnt.
#[track_caller]
fn forget_paths(lab: &Lab, who: &str) {
    run_line(&format!("ip -n {} route flush cache", lab.netns(who))).ok();
}

#[test]
fn mtu_3_natgw_28_path_mtu_discovery_brings_a_file_across() {
    let Some(lab) = Lab::up(FILE) else { return };
    offer_large_segments(&lab);
    for who in ["app", "web"] {
        let mut seen = Capture::start(&lab, who, "icmp or tcp[tcpflags] & tcp-syn != 0");
        lab.discards(TOO_BIG, || Transfer::start(&lab, who, Transport::Tcp, 3 << 20).arrives_identical(who));
        seen.packet("the error", |it| it.source == "10.0.1.1" && it.what.contains("need to frag (mtu 1500)"));
        // The NAT gateway lowers what both ends offer; the internet gateway does not.
        let mss = if who == "app" { "mss 8460" } else { "mss 8960" };
        seen.packet(mss, |it| it.what.starts_with("Flags [S.]") && it.what.contains(mss));
    }
}

#[test]
fn mtu_5_without_errors_a_large_segment_never_arrives_until_they_pass() {
    let Some(lab) = Lab::up(&without_pmtud()) else { return };
    offer_large_segments(&lab);
    for who in ["app", "web"] {
        let (too_big, denied) = (lab.discarded(TOO_BIG), lab.discarded("SUBNET_ACL_RESTRICTION"));
        let transfer = Transfer::start(&lab, who, Transport::Tcp, 1 << 20);
        // What was sent, and what was sent again.
        wait::until("segments to be discarded", || (lab.discarded(TOO_BIG) >= too_big + 3).then_some(()));
        assert_eq!(transfer.arrived(), 0, "{who}");
        assert!(lab.discarded("SUBNET_ACL_RESTRICTION") >= denied + 3, "{who}: nobody tells it");
        lab.apply(FILE).ok();
        transfer.arrives_identical(who);
        forget_paths(&lab, who);
        lab.apply(&without_pmtud()).ok();
    }
}

#[test]
fn mtu_5_natgw_28_segments_that_fit_and_those_that_may_be_cut_need_no_error() {
    let Some(lab) = Lab::up(&without_pmtud()) else { return };
    for who in ["app", "web"] {
        // The far end offers what its own link takes, 1460 bytes.
        Transfer::start(&lab, who, Transport::Tcp, 1 << 20).arrives_identical(who);
    }
    offer_large_segments(&lab);
    for who in ["app", "web"] {
        run(lab.command(&["exec", who, "--", "sh", "-c"]).arg("echo 1 > /proc/sys/net/ipv4/ip_no_pmtu_disc"))
            .ok();
        let mut pieces = Capture::start(&lab, "internet", "ip[6:2] & 0x3fff != 0");
        // DF is clear: the internet gateway cuts. No NAT gateway sees a fragment, which it would drop (NATGW-27).
        Transfer::start(&lab, who, Transport::Tcp, 1 << 20).arrives_identical(who);
        let public = if who == "app" { "203.0.113.20" } else { "203.0.113.10" };
        pieces.packet("a fragment", |it| it.source.starts_with(public));
    }
    assert_eq!(lab.discarded(TOO_BIG), 0);
}

#[test]
fn natgw_27_igw_12_a_file_in_large_datagrams_arrives() {
    let Some(lab) = Lab::up(&without_pmtud()) else { return };
    for who in ["app", "web"] {
        // 16 KiB each: cut by the sender, and again by the internet gateway. As many as the receiver's buffer holds.
        Transfer::start(&lab, who, Transport::Udp, 96 << 10).arrives_identical(who);
    }
    assert_eq!(lab.discarded(TOO_BIG), 0);
}

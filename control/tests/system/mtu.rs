//! 9001 bytes inside a VPC, 1500 towards the internet: MTU-1, MTU-2, MTU-3, IGW-12, WALK-13.

use crate::harness::{Capture, Lab, TWO_TIER};

#[test]
fn mtu_3_what_is_too_big_for_the_internet_is_answered_with_its_mtu() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let mut seen = Capture::start(&lab, "web", "icmp[icmptype] == 3");
    let done = lab.exec("web", "ping -n -M do -s 2000 -c 1 -W 10 198.51.100.10").exits(1);
    assert!(done.stdout.contains("Frag needed") && done.stdout.contains("mtu = 1500"), "{done}");
    // 576 bytes (RFC 1812 §4.3.2.3), 20 of them the header.
    seen.packet("the error", |it| {
        it.is("10.0.1.1", "10.0.1.10")
            && it.what == "ICMP 198.51.100.10 unreachable - need to frag (mtu 1500), length 556"
    });
    assert_eq!(lab.discarded("FRAGMENTATION_NEEDED"), 1);
    // The kernel remembers: what is too big is not even sent.
    let again = lab.exec("web", "ping -n -M do -s 2000 -c 1 -W 1 198.51.100.10").exits(1);
    assert!(again.stderr.contains("mtu=1500") || again.stdout.contains("mtu=1500"), "{again}");
    lab.exec("web", "ping -n -M do -s 1472 -c 1 -W 10 198.51.100.10").ok();
}

#[test]
fn natgw_28_what_is_too_big_for_the_nat_gateway_is_answered_with_its_mtu() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let mut seen = Capture::start(&lab, "app", "icmp[icmptype] == 3");
    // First by the NAT gateway; what fits through it, by the internet gateway.
    for (size, from, mtu) in [(8473, "10.0.1.100", 8500), (8472, "10.0.1.1", 1500)] {
        let done = lab.exec("app", &format!("ping -n -M do -s {size} -c 1 -W 10 198.51.100.10")).exits(1);
        assert!(done.stdout.contains(&format!("mtu = {mtu}")), "{done}");
        let error = format!("ICMP 198.51.100.10 unreachable - need to frag (mtu {mtu}), length 556");
        seen.packet(&error, |it| it.is(from, "10.0.2.20") && it.what == error);
    }
    lab.exec("app", "ping -n -M do -s 1472 -c 1 -W 10 198.51.100.10").ok();
}

#[test]
fn mtu_1_inside_a_vpc_9001_bytes_pass_and_not_one_more() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    // 20 bytes of IP and 8 of ICMP.
    lab.exec("app", "ping -n -M do -s 8973 -c 1 -W 10 10.0.1.10").ok();
    let done = lab.exec("app", "ping -n -M do -s 8974 -c 1 -W 1 10.0.1.10").exits(1);
    assert!(done.stderr.contains("mtu=9001") || done.stdout.contains("mtu=9001"), "{done}");
}

#[test]
fn igw_12_what_is_larger_and_may_be_cut_passes_in_fragments() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    // Cut by the dataplane; the answer is cut by the kernel.
    lab.exec("web", "ping -n -M dont -s 3000 -c 1 -W 10 198.51.100.10").ok();
    // Cut by the kernel, and again by the dataplane.
    lab.exec("web", "ping -n -M dont -s 20000 -c 1 -W 10 198.51.100.10").ok();
}

#[test]
fn options_and_multicast_are_discarded_and_counted() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    lab.ping_is_cut("web", "-R 198.51.100.10", "IP_OPTIONS");
    // VPC-30.
    lab.ping_is_cut("web", "224.0.0.1", "NOT_UNICAST");
}

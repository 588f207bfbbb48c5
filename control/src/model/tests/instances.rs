//! Instances: timers, limits, devices, namespaces that exist already.

use super::*;

#[test]
fn eni_13_fragments_of_an_instance() {
    let with = |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public{more} }}\n"));
    let of = |model: &Model| model.vpcs[0].instances[0].fragments_per_second;
    assert_eq!((of(&read(&with(""))), of(&read(&with(", fragments_per_second: 9")))), (1024, 9));
    refuse(&with(", fragments_per_second: many"), "15:50", "`many` is not a number");
}

#[test]
fn sg_39_most_connections_of_an_instance() {
    let with = |more: &str| {
        lab(&format!("    instances:\n      a: {{ subnet: public, max_connections: {more} }}\n"))
    };
    assert_eq!(read(&with("76957")).vpcs[0].instances[0].max_connections, 76_957);
    assert_eq!(read(&with("~")).vpcs[0].instances[0].max_connections, 262_144);
    refuse(&with("0"), "15:45", "`max_connections` is zero");
    refuse(&with("-1"), "15:45", "`-1` is not a number");
    refuse(&with("lots"), "15:45", "`lots` is not a number");
}

#[test]
fn offload_is_as_the_instance_says_or_its_subnet() {
    use localvpc_api::message::Offload;
    let with = |more: &str| lab(&format!("    instances:\n      a: {{ subnet: public{more} }}\n"));
    let offload = |text: &str| read(text).vpcs[0].instances[0].offload;
    assert_eq!(offload(&with("")), Offload::VirtioHeader);
    assert_eq!(offload(&with(", offload: off")), Offload::Off);
    let bare = |more| with(more).replace("10.0.1.0/24,", "10.0.1.0/24, offload: off,");
    assert_eq!(offload(&bare("")), Offload::Off);
    assert_eq!(offload(&bare(", offload: on")), Offload::VirtioHeader);
    refuse(&with(", offload: maybe"), "15:37", "`maybe` is not whether a device has offloads");
    let shared = bare(", offload: on").replace("offload: off,", "offload: off, namespace: shared,");
    let said = refuse(&shared, "15:37", "instance `a` has no device of its own: subnet `public` is shared");
    assert!(said.contains("write `offload` on subnet `public`"), "{said}");
    assert_eq!(read(&lab("")).internet_offload, Offload::VirtioHeader);
    assert_eq!(read(&(lab("") + "internet: { offload: off }\n")).internet_offload, Offload::Off);
}

#[test]
fn timers_outside_awss_range_are_a_warning() {
    let nat = lab("    nat_gateways:\n      nat: { subnet: public, eip: 203.0.113.9, idle_timeout: 5s }\n");
    let model = warn(&nat, "15:62", "`idle_timeout` is 5 s; AWS always uses 350 s");
    assert_eq!(model.vpcs[0].nat_gateways[0].idle_timeout_ms, 5_000);
    let tracking =
        lab("    instances:\n      a: { subnet: public, tracking: { tcp_established: 10s, udp: 30s } }\n");
    let model = warn(&tracking, "15:57", "`tcp_established` is 10 s; AWS takes 60 s to 5 d");
    assert_eq!(model.vpcs[0].instances[0].tracking.tcp_established_ms, 10_000);
    assert_eq!(model.vpcs[0].instances[0].tracking.udp_stream_ms, 180_000);
    let other = lab("    instances:\n      a: { subnet: public, tracking: { other: 5s } }\n");
    let model = warn(&other, "15:47", "`other` is 5 s; AWS always uses 600 s");
    assert_eq!(model.vpcs[0].instances[0].tracking.other_ms, 5_000, "SG-30");
    refuse(&nat.replace("5s", "0s"), "15:62", "`idle_timeout` is zero");
    let said = refuse(&nat.replace("5s", "5"), "15:62", "`5` is not a time");
    assert!(said.contains("`5s`"), "{said}");
}

#[test]
fn attached_namespaces() {
    let with =
        |attach: &str| lab(&format!("    instances:\n      a: {{ subnet: public, attach: {attach} }}\n"));
    assert_eq!(read(&with("box")).vpcs[0].instances[0].attach, Some("/run/netns/box".into()));
    refuse(&with("/etc/passwd"), "15:36", "`/etc/passwd` is not a network namespace");
    refuse(
        &format!("{}      b: {{ subnet: public, attach: box }}\n", with("box")),
        "16:36",
        "instance `a` attaches to this namespace already",
    );
    let own = format!("{}      b: {{ subnet: public }}\n", with("bad-b"));
    refuse(&own, "15:36", "instance `a` attaches to the namespace that this lab makes for `b`");
    refuse(
        &with("bad-internet"),
        "15:36",
        "instance `a` attaches to the namespace that this lab makes for `internet`",
    );
    read(&with("bad-a"));
    let shared = with("box").replace("route_table: out", "route_table: out, namespace: shared");
    refuse(&shared, "15:36", "instance `a` is in a shared subnet, so it has no namespace to attach");
}

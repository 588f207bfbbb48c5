//! Shared and attached namespaces, and names in all of them.

use std::process::Command;

use localvpc::view::Named;
use localvpc_api::report::LinkCounters;

use crate::harness::command::run_line;
use crate::harness::{Lab, Netns, Running, TWO_TIER, edit, wait};

const SHARED: &str = include_str!("../../../configs/shared.yaml");

#[test]
fn a_shared_namespace_holds_the_instances_of_its_subnet() {
    let Some(lab) = Lab::up(SHARED) else { return };
    let addresses = lab.ip_netns_exec("workers", "ip -4 -o address show dev eth0").ok().stdout;
    for address in ["10.20.1.11", "10.20.1.12", "10.20.1.13"] {
        assert!(addresses.contains(&format!("{address}/32")), "{addresses}");
    }
    assert!(lab.curl("worker-1", "http://store/").starts_with("you are 10.20.1.11:"));
    // An ENI is only its source address here: exec refuses to let one instance speak as another.
    let refused = lab.exec("worker-2", "curl -sS --max-time 5 http://store/").exits(1);
    assert!(refused.stderr.contains("10.20.1.11") && refused.stderr.contains("10.20.1.12"), "{refused}");
    assert!(
        refused.stderr.contains("shares namespace") && refused.stderr.contains("--any-address"),
        "{refused}"
    );
    let anyway =
        lab.localvpc(&["exec", "--any-address", "worker-2", "--", "curl", "-sS", "http://store/"]).ok();
    assert!(anyway.stdout.starts_with("you are 10.20.1.11:"), "{anyway}");
    let shell = lab.localvpc(&["shell", "worker-2"]).ok();
    assert!(shell.stderr.starts_with("note: worker-2 shares namespace"), "{shell}");
    assert_eq!(shell.stderr.lines().count(), 1, "{shell}");
    assert!(lab.curl("worker-2", "--interface 10.20.1.12 http://store/").starts_with("you are 10.20.1.12:"));
    // The same namespace, another security group.
    lab.curl_is_cut("stranger", "--interface 10.20.1.13 http://store/", "ENI_SG_RULES_MISMATCH");
    // An address of nobody.
    lab.exec("worker-1", "ip address add 10.20.1.99/32 dev eth0").ok();
    lab.ping_is_cut("worker-1", "-I 10.20.1.99 10.20.1.1", "ENI_SOURCE_DEST_CHECK_RESTRICTION");
    // Between two of its addresses the kernel needs nobody.
    let reads =
        |links: &[Named<LinkCounters>]| links.iter().find(|it| it.name == "workers").map(|it| it.row.reads);
    let before = reads(&lab.counters().links);
    lab.exec("worker-1", "ping -n -c 1 -W 10 10.20.1.12").ok();
    assert_eq!(reads(&lab.counters().links), before);
}

/// app is in a namespace that exists already.
fn attached(to: &str) -> String {
    edit(
        TWO_TIER,
        "ip: 10.0.2.20, security_groups: [app] }",
        &format!("ip: 10.0.2.20, security_groups: [app], attach: {to} }}"),
    )
}

#[test]
fn an_attached_namespace_keeps_its_default_route_and_is_left_as_it_was() {
    let Some(lab) = Lab::new() else { return };
    let theirs = Netns::add(format!("of-{}", lab.name));
    theirs.ip("tuntap add name own mode tun");
    theirs.ip("address add 192.0.2.2/24 dev own");
    theirs.ip("link set own up");
    theirs.ip("route add default via 192.0.2.1");
    let (routes, links) = (theirs.ip("-4 route show"), theirs.ip("-o link show"));

    lab.apply(&attached(&theirs.name)).ok();
    lab.wait_for_servers();
    let default = theirs.ip("-4 route show default");
    assert_eq!(default.trim(), "default via 192.0.2.1 dev own linkdown", "never replaced");
    // Its own default route goes with a source address of its own: exec makes sure that app is meant.
    let refused = lab.exec("app", "curl http://10.0.2.30:5432/").exits(1);
    assert!(refused.stderr.contains("app is attached to"), "{refused}");
    let curl = "--interface 10.0.2.20 http://";
    assert!(lab.curl("app", &format!("{curl}10.0.2.30:5432/")).starts_with("you are 10.0.2.20:"));
    assert!(lab.curl("app", &format!("{curl}db:5432/")).starts_with("you are 10.0.2.20:"), "names too");

    lab.down();
    assert_eq!((theirs.ip("-4 route show"), theirs.ip("-o link show")), (routes, links), "as it was");
}

#[test]
fn an_attached_namespace_without_a_default_route_gets_one_and_may_end() {
    let Some(lab) = Lab::new() else { return };
    let theirs = Netns::add(format!("of-{}", lab.name));
    theirs.ip("link set lo up");
    lab.apply(&attached(&theirs.name)).ok();
    lab.wait_for_servers();
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
    let links = || lab.status().dataplane.map(|it| it.links.len());
    assert_eq!(links(), Some(4));

    // An open TUN keeps a deleted namespace alive: control watches for its end, and lets go.
    run_line(&format!("ip netns delete {}", theirs.name)).ok();
    wait::until("the link to be let go", || (links() == Some(3)).then_some(()));
    assert!(
        lab.curl("internet", "http://203.0.113.10/").starts_with("you are 198.51.100.10:"),
        "the rest goes on"
    );
    lab.down();
}

#[test]
fn the_namespace_of_a_process_is_attached_until_the_process_ends() {
    let Some(lab) = Lab::new() else { return };
    let container = Running::start(Command::new("unshare").args(["--net", "sleep", "600"]));
    let path = format!("/proc/{}/ns/net", container.pid());
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    wait::until("unshare", || std::fs::read_link(&path).ok().filter(|other| *other != own));
    lab.apply(&attached(&path)).ok();
    lab.wait_for_servers();
    assert!(lab.curl("app", "http://example/").starts_with("you are 203.0.113.20:"), "names too");
    assert_eq!(
        lab.status().instances.iter().find(|it| it.name == "app").map(|it| it.namespace.clone()),
        Some(path)
    );

    drop(container);
    wait::until("the link to be let go", || lab.status().dataplane.filter(|it| it.links.len() == 3));
    lab.down();
}

/// Another path to a namespace: a process in it.
fn holder(of: &str) -> (Running, String) {
    let sleep = Running::start(Command::new("ip").args(["netns", "exec", of, "sleep", "600"]));
    let path = format!("/proc/{}/ns/net", sleep.pid());
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    wait::until("it to be inside", || std::fs::read_link(&path).ok().filter(|there| *there != own));
    (sleep, path)
}

#[test]
fn what_cannot_be_attached_starts_nothing() {
    let Some(lab) = Lab::new() else { return };
    let routes = run_line("ip route show table all").ok().stdout;
    let theirs = Netns::add(format!("of-{}", lab.name));
    let (_holder, by_process) = holder(&theirs.name);
    let own = format!("/proc/{}/ns/net", std::process::id());
    let db = "security_groups: [db], run";
    let both =
        edit(&attached(&theirs.name), db, &format!("security_groups: [db], attach: {by_process}, run"));
    for (file, why) in [
        (attached("no-such-namespace"), "there is no such namespace"),
        (attached(&own), "own network namespace"),
        (both, "the same namespace that app attaches"),
    ] {
        let refused = lab.apply(&file).exits(1);
        assert!(refused.stderr.contains(why), "{refused}");
        assert!(refused.stderr.ends_with("Nothing was changed\n"), "{refused}");
        lab.nothing_is_left();
    }
    assert_eq!(run_line("ip route show table all").ok().stdout, routes);

    // The namespace that the lab has made, by another path.
    lab.apply(TWO_TIER).ok();
    let (_holder, made) = holder(&lab.netns("web"));
    let refused = lab.apply(&attached(&made)).exits(1);
    assert!(refused.stderr.contains("it is the namespace that this lab made for web"), "{refused}");
}

#[test]
fn a_namespace_of_others_under_our_name_is_left_alone() {
    let Some(lab) = Lab::new() else { return };
    let foreign = Netns::add(lab.netns("app"));
    let refused = lab.apply(TWO_TIER).exits(1);
    assert!(refused.stderr.contains("exists already and does not belong to lab"), "{refused}");
    lab.localvpc(&["down"]);
    foreign.ip("link show lo");
    drop(foreign);
    lab.nothing_is_left();
}

#[test]
fn names_of_the_lab_resolve_and_others_fail_at_once() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    assert!(lab.curl("app", "http://example/").starts_with("you are 203.0.113.20:"));
    assert!(
        lab.curl("internet", "http://web/").starts_with("you are 198.51.100.10:"),
        "outside, its Elastic IP"
    );
    let by_name = lab.ip_netns_exec("app", "curl -sS --max-time 20 http://db:5432/").ok();
    assert!(by_name.stdout.starts_with("you are 10.0.2.20:"), "{by_name}");

    let unknown = lab.exec("app", "curl -sS http://no-such-host.invalid/").exits(6);
    // Not after the 5 s for which a name server is waited for.
    assert!(unknown.took.as_millis() < 4_500, "{unknown}");
}

#[test]
fn names_follow_a_changed_file() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let more =
        edit(TWO_TIER, "expect:\n", "    second: { ip: 198.51.100.11, run: localvpc serve 80 }\n\nexpect:\n");
    lab.apply(&more).ok();
    lab.wait_for_servers();
    assert!(lab.curl("app", "http://second/").starts_with("you are 203.0.113.20:"));
}

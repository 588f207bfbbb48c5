//! Namespaces, devices and name files on the real machine, one at a time. Needs root; skipped without.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use localvpc::host::netns::{self, Deletion, Namespace};
use localvpc::host::plan::{HostRoute, LinkPlan};
use localvpc::host::{Error, NamespaceRef, netlink, tun};
use localvpc_api::message::Offload;
use localvpc_api::{LinkId, steering};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// A namespace's name that no other test has; removed when dropped, whatever happens.
struct Netns(String);

impl Netns {
    fn new(name: &str) -> Self {
        Self(format!("lvpctest{}-{name}", std::process::id()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if netns::path(&self.0).exists() {
            let _ = Command::new("ip").args(["netns", "delete", &self.0]).stderr(Stdio::null()).status();
        }
    }
}

/// Says so and is false where there is no root.
fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs root");
    }
    root
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip(8) is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn link(offload: Offload) -> LinkPlan {
    let route = |destination: &str, mtu| HostRoute {
        destination: destination.parse().unwrap(),
        source: Some("10.0.1.10".parse().unwrap()),
        mtu,
    };
    LinkPlan {
        id: LinkId(7),
        device: "eth0".into(),
        mtu: 9001,
        queue_length: 1000,
        offload,
        addresses: vec!["10.0.1.10".parse().unwrap()],
        routes: vec![route("10.0.0.0/16", None), route("0.0.0.0/0", Some(1500))],
    }
}

#[test]
fn a_namespace_is_marked_works_with_ip_netns_and_goes() {
    if !privileged("a_namespace_is_marked_works_with_ip_netns_and_goes") {
        return;
    }
    let name = Netns::new("a");
    let mark = netns::mark("lab", "a");
    let made = netns::create("lab", &name.0, &mark).unwrap();
    assert_eq!(made.mark().unwrap().as_deref(), Some(mark.as_str()));
    let lo = ip(&["-n", &name.0, "addr", "show", "lo"]) + &ip(&["-n", &name.0, "link", "show", "lo"]);
    assert!(
        lo.contains(&format!("alias {mark}")) && lo.contains("127.0.0.1/8") && !lo.contains("inet6"),
        "{lo}"
    );
    assert!(matches!(netns::create("lab", &name.0, &mark), Err(Error::NamespaceTaken { .. })));

    assert_eq!(netns::delete(&name.0, &netns::mark("lab-2", "a")).unwrap(), Deletion::Foreign);
    assert_eq!(netns::delete(&name.0, &mark).unwrap(), Deletion::Deleted);
    assert_eq!(netns::delete(&name.0, &mark).unwrap(), Deletion::Absent);
    assert!(!netns::path(&name.0).exists());
}

#[test]
fn a_namespace_of_others_is_never_touched() {
    if !privileged("a_namespace_of_others_is_never_touched") {
        return;
    }
    let name = Netns::new("foreign");
    ip(&["netns", "add", &name.0]);
    let mark = netns::mark("lab", "foreign");
    assert!(matches!(netns::create("lab", &name.0, &mark), Err(Error::NamespaceTaken { .. })));
    assert_eq!(netns::delete(&name.0, &mark).unwrap(), Deletion::Foreign);
    assert!(Namespace::open(&netns::path(&name.0)).is_ok());
}

#[test]
fn what_an_interrupted_creation_leaves_is_removed() {
    if !privileged("what_an_interrupted_creation_leaves_is_removed") {
        return;
    }
    let name = Netns::new("half");
    // Exactly what is there between making the file and binding the namespace to it.
    std::fs::create_dir_all(netns::NETNS_DIR).unwrap();
    let file = netns::path(&name.0);
    std::os::unix::fs::OpenOptionsExt::mode(std::fs::OpenOptions::new().write(true).create_new(true), 0)
        .open(&file)
        .unwrap();
    assert_eq!(netns::delete(&name.0, &netns::mark("lab", "half")).unwrap(), Deletion::Deleted);
    assert!(!file.exists());
}

#[test]
fn a_device_has_its_addresses_and_routes_and_changes_in_place() {
    if !privileged("a_device_has_its_addresses_and_routes_and_changes_in_place") {
        return;
    }
    let name = Netns::new("dev");
    let namespace = netns::create("lab", &name.0, &netns::mark("lab", "dev")).unwrap();
    let plan = link(Offload::VirtioHeader);
    let queues = namespace
        .run(|| {
            let queues = tun::open(&plan.device, plan.offload, 2)?;
            netlink::configure("localvpc:lab:link#7", None, &plan)?;
            Ok(queues)
        })
        .unwrap();
    assert_eq!(queues.len(), 2);
    let device =
        ip(&["-n", &name.0, "addr", "show", "eth0"]) + &ip(&["-n", &name.0, "-d", "link", "show", "eth0"]);
    for expected in [
        "mtu 9001",
        "qlen 1000",
        "numqueues 2",
        "vnet_hdr on",
        "alias localvpc:lab:link#7",
        "10.0.1.10/32",
        "UP",
    ] {
        assert!(device.contains(expected), "{expected} in {device}");
    }
    assert!(!device.contains("inet6") && !device.contains("brd"), "{device}");
    let routes = ip(&["-n", &name.0, "route"]);
    assert!(routes.contains("default dev eth0 proto static scope link src 10.0.1.10 mtu 1500"), "{routes}");
    assert!(routes.contains("10.0.0.0/16 dev eth0 proto static scope link src 10.0.1.10"), "{routes}");

    // Somebody's own route stays when ours change.
    ip(&["-n", &name.0, "route", "add", "192.0.2.0/24", "dev", "eth0"]);
    let mut next = plan.clone();
    next.mtu = 1500;
    next.addresses = vec!["10.0.1.11".parse().unwrap(), "10.0.1.12".parse().unwrap()];
    next.routes = vec![HostRoute {
        destination: "0.0.0.0/0".parse().unwrap(),
        source: Some("10.0.1.11".parse().unwrap()),
        mtu: None,
    }];
    namespace.run(|| netlink::configure("localvpc:lab:link#7", Some(&plan), &next)).unwrap();
    let device = ip(&["-n", &name.0, "addr", "show", "eth0"]);
    assert!(device.contains("10.0.1.11/32") && device.contains("10.0.1.12/32"), "{device}");
    assert!(!device.contains("10.0.1.10/32") && device.contains("mtu 1500"), "{device}");
    let routes = ip(&["-n", &name.0, "route"]);
    assert!(routes.contains("default dev eth0 proto static scope link src 10.0.1.11"), "{routes}");
    assert!(routes.contains("192.0.2.0/24") && !routes.contains("10.0.0.0/16"), "{routes}");

    drop(queues);
    assert!(!ip(&["-n", &name.0, "link"]).contains("eth0"), "the device ends with its descriptors");
}

#[test]
fn a_link_without_offload_carries_bare_packets() {
    if !privileged("a_link_without_offload_carries_bare_packets") {
        return;
    }
    let name = Netns::new("bare");
    let namespace = netns::create("lab", &name.0, &netns::mark("lab", "bare")).unwrap();
    let plan = link(Offload::Off);
    let queues = namespace
        .run(|| {
            let queues = tun::open(&plan.device, plan.offload, 2)?;
            netlink::configure("localvpc:lab:link#7", None, &plan)?;
            Ok(queues)
        })
        .unwrap();
    assert_eq!(queues.len(), 1);
    let in_namespace = NamespaceRef { path: netns::path(&name.0), names: "/nonexistent".into() };
    assert!(in_namespace.path.exists());
    Command::new("ip")
        .args(["netns", "exec", &name.0, "ping", "-c1", "-W1", "10.0.0.9"])
        .stdout(Stdio::null())
        .status()
        .expect("ping is installed");
    let mut packet = [0; 2048];
    let length = rustix::io::read(&queues[0], &mut packet).unwrap();
    assert_eq!((packet[0], &packet[16..20], length), (0x45, &[10, 0, 0, 9][..], 84));
    assert_eq!(rustix::io::read(&queues[0], &mut packet), Err(rustix::io::Errno::AGAIN), "non-blocking");
}

/// As [`localvpc_api::steering`] says.
#[test]
fn the_queue_of_a_packet_follows_from_its_ports() {
    if !privileged("the_queue_of_a_packet_follows_from_its_ports") {
        return;
    }
    let name = Netns::new("steered");
    let namespace = netns::create("lab", &name.0, &netns::mark("lab", "steered")).unwrap();
    let plan = link(Offload::VirtioHeader);
    namespace
        .run(|| {
            let queues = tun::open(&plan.device, plan.offload, 3)?;
            netlink::configure("localvpc:lab:link#7", None, &plan)?;
            let mut seen = BTreeSet::new();
            for (port, other) in
                [(40_000, 80), (40_001, 80), (40_002, 80), (40_004, 443), (65_535, 65_535), (1, 2)]
            {
                let expected = steering::queue(port, other, 3) as usize;
                let udp = UdpSocket::bind(("10.0.1.10", port)).unwrap();
                udp.send_to(b"any", ("10.0.0.9", other)).unwrap();
                assert_eq!(arrivals(&queues), [expected], "UDP, {port} to {other}");
                // No fragment goes by its ports, also not the first, which has them.
                udp.send_to(&[0; 12_000], ("10.0.0.9", other)).unwrap();
                let by_addresses = ((0x010a + 0x0009) % 3) as usize;
                assert_eq!(arrivals(&queues), [by_addresses; 2], "fragments, {port} to {other}");

                let tcp = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                    .unwrap();
                bind(&tcp, &SocketAddrV4::new([10, 0, 1, 10].into(), port)).unwrap();
                let connecting = connect(&tcp, &SocketAddrV4::new([10, 0, 0, 9].into(), other));
                assert_eq!(connecting, Err(Errno::INPROGRESS));
                assert_eq!(arrivals(&queues), [expected], "TCP, {port} to {other}");
                seen.insert(expected);
            }
            assert_eq!(seen.len(), 3, "every queue is used");
            Ok(())
        })
        .unwrap();
}

/// The queues of the packets that wait.
fn arrivals(queues: &[OwnedFd]) -> Vec<usize> {
    let mut packet = [0; 16_384];
    let mut waiting = |queue| std::iter::from_fn(|| rustix::io::read(queue, &mut packet).ok()).count();
    queues.iter().enumerate().flat_map(|(at, queue)| vec![at; waiting(queue)]).collect()
}

#[test]
fn a_thread_that_enters_sees_the_namespaces_names_and_devices() {
    if !privileged("a_thread_that_enters_sees_the_namespaces_names_and_devices") {
        return;
    }
    let name = Netns::new("enter");
    netns::create("lab", &name.0, &netns::mark("lab", "enter")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let names = root.path().join("names");
    localvpc::host::names::write(&names, "lab", "10.0.1.10 web\n", "options timeout:1\n").unwrap();
    let target = NamespaceRef { path: netns::path(&name.0), names };
    let (hosts, devices) = std::thread::spawn(move || {
        localvpc::host::enter(&target).unwrap();
        let devices = std::fs::read_dir("/sys/class/net").unwrap().count();
        (std::fs::read_to_string("/etc/hosts").unwrap(), devices)
    })
    .join()
    .unwrap();
    assert_eq!(hosts, "# made by localvpc for lab lab\n10.0.1.10 web\n");
    assert_eq!(devices, 1, "lo and nothing else");
    assert_ne!(std::fs::read_to_string(Path::new("/etc/hosts")).unwrap(), hosts);
}

//! Between real TUN devices in namespaces of their own, as root: the program itself, and its workers over an older kernel's devices.

mod namespace;
mod older_kernel;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use localvpc_api::message::{Error, Offload, PROTOCOL, Reply, Request};
use localvpc_api::report::{Counters, LinkCounters};
use localvpc_api::socket::Channel;
use localvpc_api::{LinkId, Tables};
use localvpc_engine::testing::lab;

use namespace::{Namespace, run};

macro_rules! skip_without_privileges {
    () => {
        if let Some(hindrance) = $crate::namespace::hindrance() {
            eprintln!("skipped: {hindrance}");
            return;
        }
    };
}

pub(crate) use skip_without_privileges;

/// The program, ended at the end.
struct Dataplane {
    process: Child,
    channel: Channel,
    _directory: tempfile::TempDir,
}

impl Dataplane {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // Standard output serves as the descriptor to say `ready` on: a copy of it is number 3.
        let command = format!(
            "exec '{}' --socket '{}' --ready-fd 3 3>&1 >/dev/null",
            env!("CARGO_BIN_EXE_localvpc-dataplane"),
            path.display()
        );
        let mut process = Command::new("sh").args(["-c", &command]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let channel = Channel::connect(&path).unwrap();
        channel.limit(Some(Duration::from_secs(20))).unwrap();
        let dataplane = Self { process, channel, _directory: directory };
        let welcome = dataplane.ask(&Request::Hello { protocol: PROTOCOL });
        assert!(matches!(welcome, Reply::Welcome { workers: 2, .. }), "{welcome:?}");
        dataplane
    }

    fn ask(&self, request: &Request) -> Reply {
        self.ask_with(request, &[]).0
    }

    fn ask_with(&self, request: &Request, descriptors: &[OwnedFd]) -> (Reply, Vec<OwnedFd>) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.channel.send(1, request, &descriptors).unwrap();
        let reply = self.channel.receive().unwrap();
        (reply.content, reply.descriptors)
    }

    fn attach(&self, link: LinkId, offload: Offload, queues: &[OwnedFd]) {
        let (reply, _) = self.ask_with(&Request::AttachLink { link, offload }, queues);
        assert_eq!(reply, Reply::Done);
    }

    fn counters(&self) -> Counters {
        let Reply::Counters(counters) = self.ask(&Request::Counters) else { panic!("no counters") };
        counters
    }

    fn link(&self, link: LinkId) -> LinkCounters {
        self.counters().links.into_iter().find(|counters| counters.link == link).unwrap()
    }

    /// What the kernel says about every thread.
    fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect()
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `web`, `app`, `db` and the internet of the worked packet walks; `db` with a link of the given kind.
struct Lab {
    dataplane: Dataplane,
    _web: Namespace,
    app: Namespace,
    db: Namespace,
    internet: Namespace,
    /// As control does, the test keeps duplicates.
    _kept: Vec<(LinkId, Offload, Vec<OwnedFd>)>,
}

impl Lab {
    fn start(db_offload: Offload) -> Self {
        let dataplane = Dataplane::start();
        let [web, app, db, internet] = ["web", "app", "db", "internet"].map(Namespace::new);
        let virtio = Offload::VirtioHeader;
        let kept = vec![
            (lab::WEB.1, virtio, web.tun("10.0.1.10/32", 9001, virtio)),
            (lab::APP.1, virtio, app.tun("10.0.2.20/32", 9001, virtio)),
            (lab::DB.1, db_offload, db.tun("10.0.2.30/32", 9001, db_offload)),
            (lab::INTERNET, virtio, internet.tun("203.0.113.5/32", 1500, virtio)),
        ];
        for (link, offload, queues) in &kept {
            dataplane.attach(*link, *offload, queues);
        }
        let installed = dataplane.ask(&Request::Install(lab::tables()));
        assert!(matches!(installed, Reply::Installed { .. }), "{installed:?}");
        Self { dataplane, _web: web, app, db, internet, _kept: kept }
    }
}

/// Sends `bytes` over TCP and returns whom the listener saw and a sum over what it received.
fn transfer(from: &Namespace, to: &Namespace, address: &str, bytes: usize) -> (SocketAddr, u64) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.inside(move || TcpListener::bind(address).unwrap()).join().unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        (peer, sum(&received))
    });
    let sender = from.inside(move || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        stream.write_all(&data).unwrap();
        sum(&data)
    });
    let expected = sender.join().unwrap();
    let (peer, sum) = receiver.join().unwrap();
    assert_eq!(sum, expected, "the data changed on its way");
    (peer, sum)
}

/// Depends on every byte and its place.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
}

const MEGABYTES: usize = 1 << 20;

#[test]
fn ping_and_tcp_cross_and_super_packets_stay_whole() {
    skip_without_privileges!();
    let mut lab = Lab::start(Offload::VirtioHeader);
    run("ip", &["netns", "exec", &lab.app.0, "ping", "-c", "3", "-i", "0.2", "-W", "5", "10.0.1.10"]);
    let (peer, _) = transfer(&lab.app, &lab.db, "10.0.2.30:5432", 64 * MEGABYTES);
    assert_eq!(peer.ip(), lab::ip("10.0.2.20"));
    // Through the NAT gateway: the listener sees its Elastic IP.
    let (peer, _) = transfer(&lab.app, &lab.internet, "203.0.113.5:80", 16 * MEGABYTES);
    assert_eq!(peer.ip(), lab::ip("198.51.100.20"));
    let app = lab.dataplane.link(lab::APP.1);
    let mean = app.read_bytes / app.reads;
    assert!(mean > 10_000, "{mean} bytes per read: super-packets came split ({app:?})");
    let db = lab.dataplane.link(lab::DB.1);
    assert!(db.written_bytes / db.writes > 10_000, "super-packets left split ({db:?})");

    for status in lab.dataplane.threads() {
        for line in
            ["CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
        {
            assert!(status.contains(line), "{line:?} is missing in {status}");
        }
    }
    assert_eq!(lab.dataplane.terminate(), Some(0));
}

#[test]
fn a_link_without_offloads_gets_segments_with_right_checksums() {
    skip_without_privileges!();
    let lab = Lab::start(Offload::Off);
    transfer(&lab.app, &lab.db, "10.0.2.30:5432", 16 * MEGABYTES);
    let (app, db) = (lab.dataplane.link(lab::APP.1), lab.dataplane.link(lab::DB.1));
    assert!(app.read_bytes / app.reads > 10_000, "super-packets are read: {app:?}");
    assert!(db.written_bytes / db.writes <= 9001, "and not written: {db:?}");
    assert_eq!(db.write_errors, 0);
    let discards = lab.dataplane.counters().discards;
    assert!(discards.is_empty(), "{discards:?}");
}

#[test]
fn links_are_handed_back_detached_and_attached_again() {
    skip_without_privileges!();
    let lab = Lab::start(Offload::VirtioHeader);
    let (reply, queues) = lab.dataplane.ask_with(&Request::HandBack { link: lab::WEB.1 }, &[]);
    let offload = Offload::VirtioHeader;
    assert_eq!((reply, queues.len()), (Reply::Link { link: lab::WEB.1, offload }, 2));
    assert_eq!(lab.dataplane.ask(&Request::DetachLink { link: lab::WEB.1 }), Reply::Done);
    let ping = ["netns", "exec", &lab.app.0, "ping", "-c", "1", "-W", "1", "10.0.1.10"];
    let unanswered = Command::new("ip").args(ping).output().unwrap();
    assert_eq!(unanswered.status.code(), Some(1), "a detached link is not served");
    let framing = Request::AttachLink { link: lab::WEB.1, offload: Offload::Off };
    let (refusal, _) = lab.dataplane.ask_with(&framing, &queues);
    assert!(matches!(refusal, Reply::Error(Error::BadDescriptor { index: 0, .. })), "{refusal:?}");
    lab.dataplane.attach(lab::WEB.1, offload, &queues);
    run("ip", &["netns", "exec", &lab.app.0, "ping", "-c", "1", "-W", "5", "10.0.1.10"]);
}

#[test]
fn a_device_that_goes_away_harms_no_other() {
    skip_without_privileges!();
    let Lab { dataplane, _web, app, db: _db, internet, _kept } = Lab::start(Offload::VirtioHeader);
    app.ip(&["link", "delete", "vpc"]);
    let is_told = || {
        let Reply::Status(status) = dataplane.ask(&Request::Status) else { panic!("no status") };
        status.broken_links == [lab::APP.1]
    };
    let patience = Duration::from_secs(20);
    let began = Instant::now();
    while !is_told() {
        assert!(began.elapsed() < patience, "the status does not name the link");
        thread::park_timeout(Duration::from_millis(5));
    }
    // Packets between the others go on: the internet reaches web on its Elastic IP.
    run("ip", &["netns", "exec", &internet.0, "ping", "-c", "1", "-W", "5", "198.51.100.10"]);
    let batches =
        |dataplane: &Dataplane| dataplane.counters().workers.iter().map(|worker| worker.batches).sum::<u64>();
    let before = batches(&dataplane);
    thread::park_timeout(Duration::from_millis(200));
    assert!(batches(&dataplane) < before + 100, "a worker spins on the dead device");
    assert_eq!(dataplane.ask(&Request::DetachLink { link: lab::APP.1 }), Reply::Done);
}

#[test]
fn pushes_during_a_transfer_interrupt_nothing() {
    skip_without_privileges!();
    let lab = Lab::start(Offload::VirtioHeader);
    let (app, internet) = (&lab.app, &lab.internet);
    let mut generation = 1;
    // Again where the machine had little time for pushes.
    while generation <= 10 {
        thread::scope(|scope| {
            let transfer = scope.spawn(|| transfer(app, internet, "203.0.113.5:80", 64 * MEGABYTES));
            while !transfer.is_finished() {
                generation += 1;
                let rows = Tables { generation: localvpc_api::Generation(generation), ..lab::tables() };
                let installed = lab.dataplane.ask(&Request::Install(rows));
                assert!(matches!(installed, Reply::Installed { .. }), "{installed:?}");
            }
            transfer.join().unwrap();
        });
    }
    let longest = lab.dataplane.counters().workers.iter().map(|worker| worker.longest_gap_us).max();
    assert!(longest.is_some_and(|gap| gap > 0), "no gap was measured");
    let discards = lab.dataplane.counters().discards;
    assert!(discards.is_empty(), "{discards:?}");
}

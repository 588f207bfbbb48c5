//! Kernels before Linux 6.2 take no UDP super-packets: they are segmented in software, and each datagram arrives as it was sent.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use localvpc_api::LinkId;
use localvpc_api::message::Offload as Framing;
use localvpc_api::report::LinkCounters;
use localvpc_dataplane::device::tun::TunQueue;
use localvpc_dataplane::device::{Device, HEADROOM, Outgoing, Written};
use localvpc_dataplane::fleet::Fleet;
use localvpc_dataplane::links::Link;
use localvpc_engine::merge::Takes;
use localvpc_engine::packet::Segmentation;
use localvpc_engine::tables::build;
use localvpc_engine::testing::{craft, lab};

use crate::namespace::Namespace;
use crate::skip_without_privileges;

/// Bytes of each datagram but the last.
const SIZE: usize = 1000;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const HOST: &str = "203.0.113.5:53";

/// No two alike, the last one shorter.
fn datagrams(count: usize) -> Vec<Vec<u8>> {
    let byte = |datagram: usize, at: usize| (datagram * 31 + at) as u8;
    let length = |datagram| if datagram + 1 == count { SIZE / 3 } else { SIZE };
    (0..count).map(|datagram| (0..length(datagram)).map(|at| byte(datagram, at)).collect()).collect()
}

/// A socket of a host, on the address of [`HOST`].
fn receiver(host: &Namespace) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind(HOST).unwrap()).join().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2 * SIZE];
    let one = |at| {
        socket
            .recv(&mut buffer)
            .map(|length| buffer[..length].to_vec())
            .unwrap_or_else(|error| panic!("{at}: {error}"))
    };
    (0..count).map(one).collect()
}

fn older(queues: Vec<OwnedFd>) -> impl Iterator<Item = TunQueue> {
    TunQueue::adopt(queues, Framing::VirtioHeader).unwrap().into_iter().map(TunQueue::without_uso)
}

#[test]
fn what_was_joined_and_is_refused_arrives_datagram_by_datagram() {
    skip_without_privileges!();
    let host = Namespace::new("host");
    let queue = older(host.tun("203.0.113.5/32", 1500, Framing::VirtioHeader)).next().unwrap();
    let socket = receiver(&host);
    assert_eq!(queue.takes(), Takes::TcpAndUdp, "nothing has been refused yet");
    let sent = datagrams(5);
    let whole = craft::udp("203.0.113.9:4000", HOST, &sent.concat());
    let (mut bytes, offload) = craft::offloaded(whole, Segmentation::Udp { size: SIZE as u16 });
    // The headers and the first payload in one piece, the others beside it.
    let mut head = vec![0; HEADROOM];
    head.append(&mut bytes);
    head.truncate(HEADROOM + 28 + SIZE);
    let payloads: Vec<_> = sent[1..].iter().map(|payload| IoSlice::new(payload)).collect();
    let written = queue.write(Outgoing::joined(&mut head, &payloads, offload)).unwrap();
    let total: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(written, Written { calls: 5, bytes: (5 * 28 + total) as u32 });
    assert_eq!(receive(&socket, 5), sent);
    assert_eq!(queue.takes(), Takes::Tcp, "from now on nothing is joined for it");
}

/// Has the kernel take what is sent as super-packets, segmented into datagrams of [`SIZE`].
fn segmenting(socket: &UdpSocket) {
    let size = SIZE as libc::c_int;
    let length = size_of_val(&size) as libc::socklen_t;
    // SAFETY: UDP_SEGMENT reads one int, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            length,
        )
    };
    assert_eq!(set, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
}

#[test]
fn joined_and_super_packets_cross_a_nat_gateway_to_a_device_that_takes_neither() {
    skip_without_privileges!();
    let [app, internet] = ["app", "internet"].map(Namespace::new);
    let fleet = Fleet::start(2, 7).unwrap();
    fleet.install(build(&lab::tables(), &fleet.state().metrics).unwrap()).unwrap();
    let attach = |link, queues: &mut dyn Iterator<Item = TunQueue>| {
        let queues = queues.map(|queue| Box::new(queue) as Box<dyn Device>).collect();
        fleet.attach(Link::new(link, Framing::VirtioHeader, queues)).unwrap();
    };
    let near = TunQueue::adopt(app.tun_with_uso("10.0.2.20/32", 9001), Framing::VirtioHeader).unwrap();
    attach(lab::APP.1, &mut near.into_iter());
    attach(lab::INTERNET, &mut older(internet.tun("203.0.113.5/32", 1500, Framing::VirtioHeader)));

    let receiver = receiver(&internet);
    let sender = app.inside(|| UdpSocket::bind("10.0.2.20:4000").unwrap()).join().unwrap();
    sender.connect(HOST).unwrap();
    // One by one: what waits together is joined, and refused the first time.
    for sent in [datagrams(30), datagrams(30)] {
        sent.iter().for_each(|datagram| assert_eq!(sender.send(datagram).unwrap(), datagram.len()));
        assert_eq!(receive(&receiver, sent.len()), sent);
    }
    let single = 60;
    // As super-packets, which `app`'s device hands out whole.
    segmenting(&sender);
    let sent = datagrams(40);
    for _ in 0..5 {
        assert_eq!(sender.send(&sent.concat()).unwrap(), 39 * SIZE + SIZE / 3);
        assert_eq!(receive(&receiver, sent.len()), sent);
    }
    let link = |id: LinkId| -> LinkCounters {
        fleet.link_counters().into_iter().find(|link| link.link == id).unwrap()
    };
    // Workers count after they write.
    let (written, began) = (single + 5 * 40, Instant::now());
    while link(lab::INTERNET).writes < written && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    let (near, far) = (link(lab::APP.1), link(lab::INTERNET));
    assert_eq!(
        (near.reads, near.read_segments),
        (single + 5, single + 5 * 40),
        "super-packets are read whole"
    );
    assert_eq!((far.writes, far.merged, far.write_errors), (written, 0, 0), "and written in pieces");
    assert_eq!(fleet.state().metrics.all_discards(), []);
}

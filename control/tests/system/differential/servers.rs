//! Servers that tell whoever asks, as often as it asks, which address and port they see; of a ping, its identifier.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use localvpc::host::netns::{self, Namespace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType, ipproto};

use super::echo;
use crate::harness::command::run_line;

/// Ports with a server; the others that are tried have none.
const TCP: [u16; 3] = [22, 80, 5432];
const UDP: [u16; 2] = [53, 5000];

/// Servers in one namespace, on all of these addresses. They end when this is dropped.
pub struct Servers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Listening, when this returns.
    #[track_caller]
    pub fn start(netns: &str, addresses: &[&str]) -> Self {
        // These servers answer pings, not Linux.
        run_line(&format!("ip netns exec {netns} sysctl -q -w net.ipv4.icmp_echo_ignore_all=1")).ok();
        let namespace = Namespace::open(&netns::path(netns)).expect("a namespace of the test");
        let addresses: Vec<Ipv4Addr> = addresses.iter().map(|it| it.parse().expect("an address")).collect();
        let ends = |ports: &[u16]| -> Vec<(Ipv4Addr, u16)> {
            addresses.iter().flat_map(|address| ports.iter().map(|port| (*address, *port))).collect()
        };
        let (tcp, udp) = (ends(&TCP), ends(&UDP));
        let sockets = namespace.run(|| {
            let tcp = tcp.into_iter().map(|end| TcpListener::bind(end).expect("a free port"));
            let udp = udp.into_iter().map(|end| UdpSocket::bind(end).expect("a free port"));
            let pings = addresses.iter().map(|address| raw(*address).expect("root may"));
            Ok((tcp.collect::<Vec<_>>(), udp.collect::<Vec<_>>(), pings.collect::<Vec<_>>()))
        });
        let (listeners, sockets, pings) = sockets.expect("root can enter a namespace");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || serve(&stop, &listeners, &sockets, &pings)
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A socket for ICMP to this address.
fn raw(address: Ipv4Addr) -> std::io::Result<UdpSocket> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, 0))?;
    // It sends and receives as this does.
    Ok(UdpSocket::from(socket))
}

fn serve(stop: &AtomicBool, listeners: &[TcpListener], sockets: &[UdpSocket], pings: &[UdpSocket]) {
    let step = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut streams: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<PollFd> = Vec::new();
        fds.extend(listeners.iter().map(|it| PollFd::new(it, PollFlags::IN)));
        fds.extend(sockets.iter().map(|it| PollFd::new(it, PollFlags::IN)));
        fds.extend(pings.iter().map(|it| PollFd::new(it, PollFlags::IN)));
        fds.extend(streams.iter().map(|it| PollFd::new(it, PollFlags::IN)));
        if !poll(&mut fds, Some(&step)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (to_listeners, rest) = ready.split_at(listeners.len());
        let (to_sockets, rest) = rest.split_at(sockets.len());
        let (to_pings, to_streams) = rest.split_at(pings.len());
        let mut to_streams = to_streams.iter();
        streams.retain_mut(|stream| to_streams.next() != Some(&true) || tell(stream));
        for (socket, _) in sockets.iter().zip(to_sockets).filter(|(_, ready)| **ready) {
            if let Ok((_, peer)) = socket.recv_from(&mut [0; 32]) {
                let _ = socket.send_to(peer.to_string().as_bytes(), peer);
            }
        }
        for (socket, _) in pings.iter().zip(to_pings).filter(|(_, ready)| **ready) {
            let mut datagram = [0; 2048];
            if let Ok((length, SocketAddr::V4(peer))) = socket.recv_from(&mut datagram)
                && let Some(reply) = echo::reply(peer, &datagram[..length])
            {
                let _ = socket.send_to(&reply, peer);
            }
        }
        for (listener, _) in listeners.iter().zip(to_listeners).filter(|(_, ready)| **ready) {
            // Whoever has gone meanwhile is none.
            let accepted =
                listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream));
            streams.extend(accepted);
        }
    }
}

/// Answers a question; false when the connection has ended.
fn tell(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 32]) {
        Ok(0) => false,
        Ok(_) => stream.peer_addr().is_ok_and(|peer| stream.write_all(peer.to_string().as_bytes()).is_ok()),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

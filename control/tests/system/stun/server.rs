//! A STUN server with two addresses and two ports.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use super::message::{read_request, success};

const PORTS: [u16; 2] = [3478, 3479];

/// Answers until it is dropped.
pub struct Server {
    addresses: [Ipv4Addr; 2],
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, in the namespace of the thread, when this returns.
    #[track_caller]
    pub fn start(addresses: [&str; 2]) -> Self {
        let addresses = addresses.map(|it| it.parse::<Ipv4Addr>().expect("an address"));
        let bind = |address, port| UdpSocket::bind((address, port)).expect("a free port");
        let sockets = addresses.map(|address| PORTS.map(|port| bind(address, port)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || serve(&stop, &sockets)
        });
        Self { addresses, stop, thread: Some(thread) }
    }

    /// Where a client begins.
    pub fn primary(&self) -> Ends {
        Ends { addresses: self.addresses, ports: PORTS }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The addresses and ports of a server; the first of each is where it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
}

impl Ends {
    /// One of the four: 0 or 1 for each.
    pub fn at(&self, address: usize, port: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.addresses[address], self.ports[port])
    }
}

fn serve(stop: &AtomicBool, sockets: &[[UdpSocket; 2]; 2]) {
    let step = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let all = || sockets.iter().flatten();
        let mut fds: Vec<_> = all().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let _ = poll(&mut fds, Some(&step));
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        for at in (0..4).filter(|at| ready[*at]) {
            let (address, port) = (at / 2, at % 2);
            let mut bytes = [0; 512];
            let Ok((length, SocketAddr::V4(client))) = sockets[address][port].recv_from(&mut bytes) else {
                continue;
            };
            if let Some((transaction, change)) = read_request(&bytes[..length]) {
                let from = &sockets[address ^ usize::from(change.address)][port ^ usize::from(change.port)];
                // Whoever has gone needs no answer.
                let _ = from.send_to(&success(transaction, client), client);
            }
        }
    }
}

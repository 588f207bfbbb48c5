//! Probes: a connection, a datagram or a ping from one namespace, and what came of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use localvpc::host::netns::{self, Namespace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType};

/// Ports with a server; the others that are tried have none.
const TCP: [u16; 3] = [22, 80, 5432];
const UDP: [u16; 2] = [53, 5000];

/// Protocols that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Ping,
}

/// One thing that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The namespace it comes from.
    pub from: &'static str,
    /// Its source.
    pub source: SocketAddrV4,
    /// Its destination.
    pub to: SocketAddrV4,
    /// How.
    pub kind: Kind,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer; TCP and UDP servers tell which address they saw.
    Answered(Option<Ipv4Addr>),
    /// A RST, or port unreachable.
    Refused,
    /// Another unreachable.
    Unreachable,
    /// Nothing.
    Silent,
}

impl Probe {
    /// Tries it in the namespace called `netns`.
    pub fn run(&self, netns: &str, patience: Duration) -> Outcome {
        if self.kind == Kind::Ping {
            return ping(netns, self, patience);
        }
        let namespace = Namespace::open(&netns::path(netns)).expect("a namespace of the test");
        let outcome = namespace.run(|| {
            Ok(match self.kind {
                Kind::Tcp => tcp(self, patience),
                _ => udp(self, patience),
            })
        });
        match outcome.expect("root can enter a namespace") {
            Ok(seen) => Outcome::Answered(Some(seen)),
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => Outcome::Refused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silent,
                _ => panic!("{self:?}: {error}"),
            },
        }
    }
}

fn tcp(probe: &Probe, patience: Duration) -> std::io::Result<Ipv4Addr> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::bind(&socket, &probe.source)?;
    match rustix::net::connect(&socket, &probe.to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let patience_given = rustix::time::Timespec::try_from(patience).map_err(std::io::Error::other)?;
    let ready = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&patience_given))?;
    if ready == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    rustix::net::sockopt::socket_error(&socket)??;
    rustix::io::ioctl_fionbio(&socket, false)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    said.parse().map_err(std::io::Error::other)
}

fn udp(probe: &Probe, patience: Duration) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind(probe.source)?;
    socket.connect(probe.to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who am I?")?;
    let mut said = [0; 32];
    let length = socket.recv(&mut said)?;
    String::from_utf8_lossy(&said[..length]).parse().map_err(std::io::Error::other)
}

fn ping(netns: &str, probe: &Probe, patience: Duration) -> Outcome {
    let seconds = patience.as_secs_f32().to_string();
    let output = Command::new("ip")
        .args(["netns", "exec", netns, "ping", "-n", "-c", "1", "-W", &seconds])
        .args(["-I", &probe.source.ip().to_string(), &probe.to.ip().to_string()])
        .output()
        .expect("ping");
    match output.status.code() {
        Some(0) => Outcome::Answered(None),
        _ if String::from_utf8_lossy(&output.stdout).contains("nreachable") => Outcome::Unreachable,
        _ => Outcome::Silent,
    }
}

/// Servers in one namespace, on all of these addresses. They end when this is dropped.
pub struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Listening, when this returns.
    #[track_caller]
    pub fn start(netns: &str, addresses: &[&str]) -> Self {
        let namespace = Namespace::open(&netns::path(netns)).expect("a namespace of the test");
        let addresses: Vec<Ipv4Addr> = addresses.iter().map(|it| it.parse().expect("an address")).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses {
            let sockets = namespace.run(|| {
                let listeners = TCP.map(|port| TcpListener::bind((address, port)).expect("a free port"));
                Ok((listeners, UDP.map(|port| UdpSocket::bind((address, port)).expect("a free port"))))
            });
            let (listeners, sockets) = sockets.expect("root can enter a namespace");
            let (tcp_stop, udp_stop) = (stop.clone(), stop.clone());
            threads.push(std::thread::spawn(move || {
                until_stopped(&tcp_stop, &listeners, |listener| {
                    if let Ok((mut stream, peer)) = listener.accept() {
                        // Whoever has gone does not read it.
                        let _ = stream.write_all(peer.ip().to_string().as_bytes());
                    }
                });
            }));
            threads.push(std::thread::spawn(move || {
                until_stopped(&udp_stop, &sockets, |socket| {
                    if let Ok((_, peer)) = socket.recv_from(&mut [0; 32]) {
                        let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
                    }
                });
            }));
        }
        Self { stop, threads }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn until_stopped<T: std::os::fd::AsFd>(stop: &AtomicBool, sockets: &[T], serve: impl Fn(&T)) {
    let step = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        if !poll(&mut fds, Some(&step)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        sockets.iter().zip(ready).filter(|(_, ready)| *ready).for_each(|(socket, _)| serve(socket));
    }
}

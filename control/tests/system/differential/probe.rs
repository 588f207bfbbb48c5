//! Probes: a connection, a datagram, a ping or a lost segment from one namespace, and what came of it; then and later.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use localvpc::host::netns::{self, Namespace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType, ipproto};

use super::echo;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Ping,
    /// A segment in mid-stream of a connection that nobody has.
    LostAck,
}

/// One thing that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The namespace it comes from.
    pub from: &'static str,
    /// Its source. The port is a ping's identifier.
    pub source: SocketAddrV4,
    /// Its destination.
    pub to: SocketAddrV4,
    /// How.
    pub kind: Kind,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer; servers tell what they saw, a router does not.
    Answered(Option<Seen>),
    /// A RST, or port unreachable.
    Refused,
    /// Another unreachable.
    Unreachable,
    /// Nothing.
    Silent,
}

/// Where a probe came from, as the far end saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address.
    pub address: Ipv4Addr,
    /// The port, or a ping's identifier.
    pub port: Port,
}

/// A source port at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The one that was sent.
    Kept,
    /// Another one, of 1024 to 65535 if it is a port: Linux uses all identifiers.
    Translated,
    /// Another one.
    Low,
}

/// A probe whose socket is open still: it can be tried again, later and under other rules.
#[derive(Debug)]
pub struct Open {
    probe: Probe,
    // For TCP and raw sockets as well: whatever is connected can send and receive.
    socket: UdpSocket,
}

impl Probe {
    /// Tries it in the namespace called `netns`. Open is what was answered.
    pub fn run(&self, netns: &str, patience: Duration) -> (Outcome, Option<Open>) {
        let namespace = Namespace::open(&netns::path(netns)).expect("a namespace of the test");
        let connected = namespace.run(|| Ok(self.connect(patience))).expect("root can enter a namespace");
        let open = connected.map(|socket| Open { probe: *self, socket: UdpSocket::from(socket) });
        let mut open = match open {
            Ok(open) => open,
            Err(error) => return (self.outcome_of(&error), None),
        };
        let outcome = open.again(patience);
        (outcome, matches!(outcome, Outcome::Answered(_)).then_some(open))
    }

    fn connect(&self, patience: Duration) -> std::io::Result<OwnedFd> {
        let (kind, protocol) = match self.kind {
            Kind::Tcp => (SocketType::STREAM, None),
            Kind::Udp => (SocketType::DGRAM, None),
            Kind::Ping => (SocketType::RAW, Some(ipproto::ICMP)),
            Kind::LostAck => (SocketType::RAW, Some(ipproto::TCP)),
        };
        let socket = rustix::net::socket(AddressFamily::INET, kind, protocol)?;
        if self.kind == Kind::Tcp {
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            // What is closed is gone at once, whether or not the other end can be told.
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            rustix::io::ioctl_fionbio(&socket, true)?;
        }
        rustix::net::bind(&socket, &self.source)?;
        match rustix::net::connect(&socket, &self.to) {
            Ok(()) => {}
            Err(rustix::io::Errno::INPROGRESS) => {
                let patience = rustix::time::Timespec::try_from(patience).map_err(std::io::Error::other)?;
                if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&patience))? == 0 {
                    return Err(ErrorKind::TimedOut.into());
                }
                rustix::net::sockopt::socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(socket)
    }

    fn outcome_of(&self, error: &std::io::Error) -> Outcome {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silent,
            _ => panic!("{self:?}: {error}"),
        }
    }

    /// What is sent.
    fn question(&self) -> Vec<u8> {
        match self.kind {
            Kind::Tcp | Kind::Udp => b"who am I?".to_vec(),
            Kind::Ping => echo::request(self.source.port()),
            Kind::LostAck => {
                let ports = [self.source.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
                // Sequence and acknowledgement, header length, ACK, window.
                let mut segment =
                    [&ports[..], &[0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0]].concat();
                let pseudo =
                    [&self.source.ip().octets()[..], &self.to.ip().octets(), &[0, 6, 0, 20]].concat();
                let sum = echo::checksum(&[&pseudo[..], &segment].concat());
                segment[16..18].copy_from_slice(&sum.to_be_bytes());
                segment
            }
        }
    }

    /// What an answer says, if it is one to this probe. Raw sockets bring the IP header along, and what is for others.
    fn read(&self, answer: &[u8]) -> Option<Outcome> {
        match self.kind {
            Kind::Tcp | Kind::Udp => {
                let seen: SocketAddrV4 = std::str::from_utf8(answer).ok()?.parse().ok()?;
                Some(Outcome::Answered(Some(self.seen(seen))))
            }
            Kind::Ping => {
                let seen = echo::seen(self.source.port(), answer)?;
                Some(Outcome::Answered(seen.map(|seen| self.seen(seen))))
            }
            Kind::LostAck => {
                let segment = answer.get(echo::IP_HEADER..)?;
                let ends = [self.to.port().to_be_bytes(), self.source.port().to_be_bytes()].concat();
                let reset = segment.get(13)? & 0x04 != 0;
                (segment.get(..4)? == ends && reset).then_some(Outcome::Refused)
            }
        }
    }

    fn seen(&self, seen: SocketAddrV4) -> Seen {
        let port = match seen.port() {
            port if port == self.source.port() => Port::Kept,
            _ if self.kind == Kind::Ping => Port::Translated,
            1024.. => Port::Translated,
            _ => Port::Low,
        };
        Seen { address: *seen.ip(), port }
    }
}

impl Open {
    /// What was tried.
    pub fn probe(&self) -> Probe {
        self.probe
    }

    /// Tries it once more, with the same socket.
    pub fn again(&mut self, patience: Duration) -> Outcome {
        self.ask(patience).unwrap_or_else(|error| self.probe.outcome_of(&error))
    }

    fn ask(&mut self, patience: Duration) -> std::io::Result<Outcome> {
        let deadline = std::time::Instant::now() + patience;
        self.socket.send(&self.probe.question())?;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut answer = [0; 2048];
            let length = self.socket.recv(&mut answer)?;
            if self.probe.kind == Kind::Tcp && length == 0 {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if let Some(outcome) = self.probe.read(&answer[..length]) {
                return Ok(outcome);
            }
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

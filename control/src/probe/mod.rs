//! Sends one real packet and watches for it at both ends.
//!
//! The packet is made here and sent from the sender's namespace by a raw socket, so that its sequence number, or what it
//! carries, is known; packet sockets in both namespaces look for exactly that one, whatever became of its addresses and
//! ports on the way. TCP and ICMP are answered by the receiver's kernel, whether anything listens or not (a RST has
//! come back, too); to a datagram we answer ourselves. It leaves nothing behind: what was half-open is reset by the sender's
//! kernel, which knows nothing of the connection.

mod packet;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use localvpc_api::trace::{Protocol, Tuple};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::host::{self, NamespaceRef};
use packet::{Ends, Seen, Token};

/// A packet to send, and where to look for it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The sender's namespace.
    pub from: NamespaceRef,
    /// The packet.
    pub packet: Tuple,
    /// The receiver's namespace; none where nobody can look.
    pub to: Option<NamespaceRef>,
    /// What should become of it, which says how long to wait.
    pub expected: Expected,
}

/// What should become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Its answer comes back.
    Answer,
    /// It arrives, and no answer comes back.
    Arrival,
    /// It does not arrive.
    Nothing,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it came to the receiver's namespace; none where nobody could look.
    pub arrived: Option<bool>,
    /// What came back to the sender's.
    pub answer: Option<Answer>,
    /// From sending to the answer.
    pub took: Option<Duration>,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A server listens.
    SynAck,
    /// Nothing listens, but the packet arrived and its reply came back.
    Reset,
    /// A ping came back.
    EchoReply,
    /// Our own reply, sent from where the packet arrived.
    Datagram,
}

impl Answer {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SynAck => "SYN-ACK",
            Self::Reset => "RST",
            Self::EchoReply => "echo reply",
            Self::Datagram => "reply",
        }
    }
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace cannot be entered, or refuses the sockets.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The kernel would not send it.
    #[error("{destination} cannot be sent to from there: {source}")]
    Send {
        /// Where it should have gone.
        destination: Ipv4Addr,
        /// What the kernel said.
        source: Errno,
    },
    /// Looking for it failed.
    #[error("cannot look at what arrives: {0}")]
    Look(Errno),
    /// IPv6 is not carried.
    #[error("{0} is not IPv4, and nothing else is carried yet")]
    NotIpv4(IpAddr),
}

/// How long something is waited for that should come.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long something is waited for that should not come.
const SILENCE: Duration = Duration::from_millis(400);

/// Pause before it is sent again: a first packet may meet a queue that is full.
const AGAIN: Duration = Duration::from_millis(150);

/// Sends the packet, and waits until its answer is back or patience has run out.
///
/// # Errors
/// Where it could not be sent at all.
pub fn send(probe: &Probe) -> Result<Outcome, Error> {
    let Tuple { source, destination, source_port, destination_port, protocol } = probe.packet;
    let ends = Ends { source: (v4(source)?, source_port), destination: (v4(destination)?, destination_port) };
    let token = Token(token(ends));
    let here = Sockets::in_namespace(&probe.from)?;
    let there = probe.to.as_ref().map(Sockets::in_namespace).transpose()?;
    let bytes = packet::request(ends, protocol, token);
    // Our reply to a datagram carries another token, so that nobody takes it for the request.
    let reply_token = Token(!token.0);
    let mut outcome = Outcome { arrived: there.as_ref().map(|_| false), ..Outcome::default() };
    let began = Instant::now();
    let mut next = began;
    // Where nobody can look, an arrival is as silent as nothing.
    let mut deadline = began
        + match probe.expected {
            Expected::Arrival if there.is_none() => SILENCE,
            Expected::Answer | Expected::Arrival => PATIENCE,
            Expected::Nothing => SILENCE,
        };
    while Instant::now() < deadline {
        if Instant::now() >= next {
            here.send(ends.destination.0, &bytes)?;
            next = Instant::now() + AGAIN;
        }
        wait(&here, there.as_ref(), next.min(deadline))?;
        if let Some(there) = &there {
            while let Some(bytes) = there.receive().map_err(Error::Look)? {
                let Some(Seen::Probe(seen)) = packet::look(&bytes, protocol, token) else { continue };
                if outcome.arrived.replace(true) != Some(true) && probe.expected == Expected::Arrival {
                    deadline = Instant::now() + SILENCE;
                }
                if !matches!(protocol, Protocol::TCP | Protocol::ICMP) {
                    let back = seen.reversed();
                    // If its kernel has no way back, the sender will see no answer.
                    let _ = there.send(back.destination.0, &packet::datagram(back, protocol, reply_token));
                }
            }
        }
        while let Some(bytes) = here.receive().map_err(Error::Look)? {
            // From somebody else it is no answer, though ours made it: a NAT gateway changed its sender.
            if !packet::is_from(&bytes, ends.destination.0) {
                continue;
            }
            let answer = match packet::look(&bytes, protocol, token) {
                Some(Seen::SynAck) => Some(Answer::SynAck),
                Some(Seen::Reset) => Some(Answer::Reset),
                Some(Seen::EchoReply) => Some(Answer::EchoReply),
                _ => packet::look(&bytes, protocol, reply_token).map(|_| Answer::Datagram),
            };
            if answer.is_some() {
                outcome.answer = answer;
                outcome.took = Some(began.elapsed());
                return Ok(outcome);
            }
        }
    }
    Ok(outcome)
}

/// Sockets of one namespace.
struct Sockets {
    /// Sees what comes in.
    capture: OwnedFd,
    /// Sends whole packets.
    raw: OwnedFd,
}

impl Sockets {
    fn in_namespace(namespace: &NamespaceRef) -> Result<Self, Error> {
        Ok(host::enter::in_network(namespace, || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Both are numbers of the kernel's interface: IPv4 in network byte order, and IPPROTO_RAW.
            let ipv4 = NonZeroU32::new(u32::from(0x0800_u16.to_be())).map(rustix::net::Protocol::from_raw);
            let raw = NonZeroU32::new(255).map(rustix::net::Protocol::from_raw);
            Ok(Self {
                capture: rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, ipv4)?,
                raw: rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, raw)?,
            })
        })?)
    }

    fn send(&self, destination: Ipv4Addr, bytes: &[u8]) -> Result<(), Error> {
        let to = SocketAddrV4::new(destination, 0);
        match rustix::net::sendto(&self.raw, bytes, SendFlags::empty(), &to) {
            // A queue that is full: it is sent again.
            Ok(_) | Err(Errno::NOBUFS | Errno::AGAIN) => Ok(()),
            Err(source) => Err(Error::Send { destination, source }),
        }
    }

    /// The next packet that came in, if there is one.
    fn receive(&self) -> Result<Option<Vec<u8>>, Errno> {
        // All that is looked for is in front.
        let mut bytes = vec![0; 256];
        match rustix::net::recv(&self.capture, &mut bytes[..], RecvFlags::TRUNC) {
            Ok((length, _)) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Waits until something comes in, or the moment has come.
fn wait(here: &Sockets, there: Option<&Sockets>, until: Instant) -> Result<(), Error> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let sockets = [Some(here), there];
    let mut fds: Vec<PollFd<'_>> = sockets
        .iter()
        .flatten()
        .map(|it| PollFd::from_borrowed_fd(it.capture.as_fd(), PollFlags::IN))
        .collect();
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Look(error)),
    }
}

/// A number that no other probe has: time and ends, mixed.
fn token(ends: Ends) -> u32 {
    use std::hash::BuildHasher;
    // Seeded at random by the standard library.
    let random = std::collections::hash_map::RandomState::new();
    random.hash_one((ends.source, ends.destination, std::process::id())) as u32
}

fn v4(address: IpAddr) -> Result<Ipv4Addr, Error> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        other => Err(Error::NotIpv4(other)),
    }
}

//! The tests of RFC 5780 §4: how does what is between us and the server map, filter and hairpin?

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use super::message::{Change, Transaction, read_success, request};
use super::server::Ends;
use crate::harness::wait;

/// Pause before a request is sent again, and how often one is sent that may stay without answer.
const AGAIN: Duration = Duration::from_millis(200);
const TRIES: u8 = 3;

/// On what of the far end something depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing: endpoint-independent.
    None,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// What becomes of a datagram to one's own public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// It is lost.
    No,
    /// It comes, from this address.
    As(Ipv4Addr),
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// The public address.
    pub public: Ipv4Addr,
    /// Whether the public port is the private one.
    pub port_kept: bool,
    /// Whether the public port depends on the far end (§4.3).
    pub mapping: Dependence,
    /// From whom something comes in (§4.4).
    pub filtering: Dependence,
    /// §4.5.
    pub hairpin: Hairpin,
}

/// Finds out, from `local` in the namespace of the thread.
#[track_caller]
pub fn discover(local: &str, server: Ends) -> Behaviour {
    let local: SocketAddrV4 = local.parse().expect("an address and a port");
    let client = Client::bind(local);
    let mapped = |to| client.ask(to);

    // Mapping, test I to III.
    let first = mapped(server.at(0, 0));
    let mapping = if mapped(server.at(1, 0)) == first {
        Dependence::None
    } else if mapped(server.at(1, 1)) == mapped(server.at(1, 0)) {
        Dependence::Address
    } else {
        Dependence::AddressAndPort
    };

    // Filtering, test II and III, by a socket that has asked nobody but the primary address.
    let fresh = Client::bind(SocketAddrV4::new(*local.ip(), local.port() + 100));
    fresh.ask(server.at(0, 0));
    let filtering = if fresh.is_answered(server.at(0, 0), Change { address: true, port: true }) {
        Dependence::None
    } else if fresh.is_answered(server.at(0, 0), Change { address: false, port: true }) {
        Dependence::Address
    } else {
        Dependence::AddressAndPort
    };

    let other = Client::bind(SocketAddrV4::new(*local.ip(), local.port() + 200));
    let hairpin = other.reaches(&client, first, server.at(0, 0)).map_or(Hairpin::No, Hairpin::As);
    Behaviour { public: *first.ip(), port_kept: first.port() == local.port(), mapping, filtering, hairpin }
}

struct Client {
    socket: UdpSocket,
    /// The number of the last question: what comes late must not pass for the answer to another.
    last: Cell<u32>,
}

impl Client {
    #[track_caller]
    fn bind(local: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind(local).expect("an address of the namespace");
        socket.set_read_timeout(Some(AGAIN)).expect("a time");
        Self { socket, last: Cell::new(0) }
    }

    /// Asks until there is an answer: where the request came from.
    #[track_caller]
    fn ask(&self, to: SocketAddrV4) -> SocketAddrV4 {
        let question = self.question();
        wait::until(&format!("an answer of {to}"), || {
            self.send(to, question, Change::default());
            self.answer_to(question)
        })
    }

    /// Whether there is an answer that comes from elsewhere. On a busy machine it takes its time: it is waited for as long as
    /// one takes that surely comes, and a while longer.
    #[track_caller]
    fn is_answered(&self, to: SocketAddrV4, change: Change) -> bool {
        let question = self.question();
        (0..TRIES).any(|_| {
            self.send(to, question, change);
            // It asks by another socket, so that all that comes to this one is still there.
            Self::bind(SocketAddrV4::new(self.address(), 0)).ask(to);
            self.answer_to(question).is_some()
        })
    }

    /// Whether what is sent to the public address of another socket comes to it, and from whom. `server` surely answers.
    #[track_caller]
    fn reaches(&self, other: &Self, public: SocketAddrV4, server: SocketAddrV4) -> Option<Ipv4Addr> {
        const HELLO: &[u8] = b"to myself";
        (0..TRIES).find_map(|_| {
            self.socket.send_to(HELLO, public).expect("it can be sent");
            self.ask(server);
            let mut bytes = [0; 512];
            while let Ok((length, from)) = other.socket.recv_from(&mut bytes) {
                match from {
                    SocketAddr::V4(from) if bytes[..length] == *HELLO => return Some(*from.ip()),
                    _ => {}
                }
            }
            None
        })
    }

    fn address(&self) -> Ipv4Addr {
        match self.socket.local_addr() {
            Ok(SocketAddr::V4(local)) => *local.ip(),
            other => panic!("it is bound to an IPv4 address: {other:?}"),
        }
    }

    /// Another transaction.
    fn question(&self) -> Transaction {
        self.last.set(self.last.get() + 1);
        let mut transaction = [7; 12];
        transaction[..4].copy_from_slice(&self.last.get().to_be_bytes());
        transaction
    }

    fn send(&self, to: SocketAddrV4, question: Transaction, change: Change) {
        self.socket.send_to(&request(question, change), to).expect("it can be sent");
    }

    /// The answer to a question, if it comes within a while.
    fn answer_to(&self, question: Transaction) -> Option<SocketAddrV4> {
        let mut bytes = [0; 512];
        while let Ok((length, _)) = self.socket.recv_from(&mut bytes) {
            match read_success(&bytes[..length]) {
                Some((answered, seen)) if answered == question => return Some(seen),
                _ => {}
            }
        }
        None
    }
}

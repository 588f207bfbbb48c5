//! The tests of RFC 5780 §4: how does what is between us and the server map, filter and hairpin?

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use super::message::{Change, read_success, request};
use super::server::Ends;

/// How long an answer is waited for, and how often it is asked for.
const TIMEOUT: Duration = Duration::from_millis(200);
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
    let nothing = Change::default();
    let mapped = |to| client.ask(to, nothing).unwrap_or_else(|| panic!("{to} does not answer"));

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
    fresh.ask(server.at(0, 0), nothing).expect("the primary address answers");
    let filtering = if fresh.ask(server.at(0, 0), Change { address: true, port: true }).is_some() {
        Dependence::None
    } else if fresh.ask(server.at(0, 0), Change { address: false, port: true }).is_some() {
        Dependence::Address
    } else {
        Dependence::AddressAndPort
    };

    let hairpin =
        match Client::bind(SocketAddrV4::new(*local.ip(), local.port() + 200)).reaches(&client, first) {
            Some(from) => Hairpin::As(from),
            None => Hairpin::No,
        };
    Behaviour { public: *first.ip(), port_kept: first.port() == local.port(), mapping, filtering, hairpin }
}

struct Client(UdpSocket);

impl Client {
    #[track_caller]
    fn bind(local: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind(local).expect("an address of the namespace");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a time");
        Self(socket)
    }

    /// Asks until there is an answer: where the request came from. None if there is none.
    fn ask(&self, to: SocketAddrV4, change: Change) -> Option<SocketAddrV4> {
        (0..TRIES).find_map(|number| {
            let flags = [u8::from(change.address), u8::from(change.port), number];
            let mut transaction = [7; 12];
            transaction[..3].copy_from_slice(&flags);
            self.0.send_to(&request(transaction, change), to).expect("it can be sent");
            loop {
                let mut bytes = [0; 512];
                let (length, _) = self.0.recv_from(&mut bytes).ok()?;
                match read_success(&bytes[..length]) {
                    // Late answers are answers, too; those to another question are not.
                    Some((answered, seen)) if answered[..2] == flags[..2] => return Some(seen),
                    _ => {}
                }
            }
        })
    }

    /// Whether what is sent to the public address of another socket comes to it, and from whom.
    fn reaches(&self, other: &Self, public: SocketAddrV4) -> Option<Ipv4Addr> {
        const HELLO: &[u8] = b"to myself";
        (0..TRIES).find_map(|_| {
            self.0.send_to(HELLO, public).expect("it can be sent");
            loop {
                let mut bytes = [0; 512];
                let (length, from) = other.0.recv_from(&mut bytes).ok()?;
                match from {
                    SocketAddr::V4(from) if bytes[..length] == *HELLO => return Some(*from.ip()),
                    _ => {}
                }
            }
        })
    }
}

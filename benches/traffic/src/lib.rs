//! Sends and receives real traffic between two network namespaces, and measures what arrives.
//!
//! `localvpc bench` and `scripts/compare` share it. A measurement takes [`Endpoint`]s, makes its sockets inside their
//! namespaces, and runs for a [`Span`]; nothing of it is left when it returns. All of them are IPv4.
//!
//! - [`tcp`]: bytes per second over one or more streams
//! - [`udp`]: datagrams per second, by `sendmmsg` and `recvmmsg`
//! - [`connections`]: TCP connections opened and closed per second
//! - [`round_trips`]: how long a request and its response take
//! - [`cpu`]: what all that costs the machine

pub mod connections;
pub mod cpu;
mod endpoint;
pub mod round_trips;
mod socket;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

pub use endpoint::Endpoint;

/// How long a measurement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Traffic before it counts: windows open, caches fill.
    pub warm_up: Duration,
    /// What counts.
    pub time: Duration,
}

impl Span {
    /// A warm-up that suits `time`: a sixth of it, at most half a second.
    pub fn of(time: Duration) -> Self {
        Self { warm_up: (time / 6).min(Duration::from_millis(500)), time }
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be opened or entered.
    #[error("cannot enter {namespace}: {source}")]
    Namespace {
        /// Its path.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The receiving side could not take its place.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sending side did not get through.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket failed in mid-traffic, or would not be set up.
    #[error("cannot {action}: {source}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Everything was sent, and nothing arrived.
    #[error("nothing arrived at {address} within {} ms", .within.as_millis())]
    Nothing {
        /// Where it should have arrived.
        address: SocketAddrV4,
        /// For how long it was waited.
        within: Duration,
    },
}

/// Names what was tried when a call on a socket fails.
trait Trying<T> {
    fn trying(self, action: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Trying<T> for Result<T, E> {
    fn trying(self, action: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Socket { action, source: source.into() })
    }
}

/// How long a peer that must answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

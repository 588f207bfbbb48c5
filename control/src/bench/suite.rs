//! What `localvpc bench` measures between two ends: throughput, packet rate, connection rate and latency.

use std::time::Duration;

use localvpc_traffic::tcp::{self, Direction, Stream};
use localvpc_traffic::udp::{self, Flood, Framing, Handing};
use localvpc_traffic::{Endpoint, Error, Span, connections, round_trips};
use serde::Serialize;

/// Two ends, and the port of the server at the second.
#[derive(Debug)]
pub struct Ends {
    /// Who sends, and connects.
    pub from: Endpoint,
    /// Who receives, and listens.
    pub to: Endpoint,
    /// The port there.
    pub port: u16,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// TCP throughput over some streams.
    Throughput {
        /// How many.
        streams: usize,
    },
    /// Small UDP datagrams from one sender.
    PacketRate,
    /// TCP connections.
    ConnectionRate,
    /// TCP round trips.
    Latency,
}

/// Its protocol decides whether rules let it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One number of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    /// What it is: `TCP throughput, 4 streams`.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more or less of it is better.
    pub better: Better,
    /// The number.
    pub value: f64,
}

/// Which numbers are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times.
    Lower,
}

/// Payload of the small datagrams, in bytes.
const SMALL: u16 = 64;

impl Test {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Throughput { streams: 1 },
        Self::Throughput { streams: 4 },
        Self::PacketRate,
        Self::ConnectionRate,
        Self::Latency,
    ];

    /// What it uses.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::PacketRate => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// Its name, for progress.
    pub fn name(self) -> String {
        match self {
            Self::Throughput { streams: 1 } => "TCP throughput, 1 stream".into(),
            Self::Throughput { streams } => format!("TCP throughput, {streams} streams"),
            Self::PacketRate => format!("UDP packet rate, {SMALL} bytes"),
            Self::ConnectionRate => "TCP connections".into(),
            Self::Latency => "TCP round trip".into(),
        }
    }

    /// Measures.
    ///
    /// # Errors
    ///
    /// The first thing that failed.
    pub fn run(self, ends: &Ends, time: Duration) -> Result<Vec<Value>, Error> {
        let Ends { from, to, port } = ends;
        let span = Span::of(time);
        let rate = |unit, value| Value { name: self.name(), unit, better: Better::Higher, value };
        match self {
            Self::Throughput { streams } => {
                let stream = Stream { client: from, server: to, direction: Direction::There };
                let it = tcp::throughput(&vec![stream; streams], *port, span)?;
                Ok(vec![rate("Gbit/s", it.bits_per_second / 1e9)])
            }
            Self::PacketRate => {
                let flood = Flood { payload: SMALL, senders: 1, handing: Handing::Single };
                // What a socket gets counts here, so the framing of devices does not matter.
                let it = udp::flood(from, to, *port, flood, Framing::Ip, span)?;
                Ok(vec![rate("packets/s", it.by_socket)])
            }
            Self::ConnectionRate => {
                Ok(vec![rate("connections/s", connections::per_second(from, to, *port, span)?)])
            }
            Self::Latency => {
                let it = round_trips::tcp(from, to, *port, span)?;
                let time = |what: &str, value| Value {
                    name: format!("{}, {what}", self.name()),
                    unit: "µs",
                    better: Better::Lower,
                    value,
                };
                Ok(vec![time("p50", it.p50_us), time("p99", it.p99_us), time("p99.9", it.p999_us)])
            }
        }
    }
}

//! What is measured: a list of rows, each with a name that says its parameters.

use std::time::Duration;

use localvpc_traffic::connections;
use localvpc_traffic::round_trips;
use localvpc_traffic::tcp::{self, Direction, Stream};
use localvpc_traffic::udp::{self, Flood, Handing};
use localvpc_traffic::{Endpoint, Error, Span};

use crate::scene::{Links, Poll, Scene, Way};

/// A row: one kind of traffic in one scene. It may yield several figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// Parameters and all: `tcp/nat/4/both`.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// Where.
    pub scene: Scene,
    traffic: Traffic,
}

/// One figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub what: What,
    /// In the unit of `what`.
    pub value: f64,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// TCP payload that was read.
    Throughput,
    /// Datagrams that a socket received.
    BySocket,
    /// Datagrams that the receiver's device received.
    ByDevice,
    /// Connections opened and closed.
    Connections,
    /// Median round trip.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Processor time of the machine per gigabyte.
    Cpu,
}

#[derive(Clone, Copy, Debug)]
enum Traffic {
    Tcp {
        path: Path,
        streams: usize,
        flow: Flow,
    },
    /// One stream in each pair of instances.
    TcpInPairs,
    Udp {
        payload: u16,
        senders: usize,
        handing: Handing,
    },
    Connections(Path),
    RoundTrips {
        path: Path,
        protocol: Protocol,
    },
}

/// Between which ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From one instance to another in another subnet: through security groups and network ACLs.
    SecurityGroups,
    /// From an instance through the NAT gateway to an internet host.
    NatGateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Out,
    Back,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// The port of every server here.
pub const PORT: u16 = 5201;

/// All of them, in the order of the table.
pub fn all() -> Vec<Row> {
    let usual = Scene { pairs: 1, links: Links::Offload, poll: Poll::AsAsked };
    let bare = Scene { links: Links::Bare, ..usual };
    let busy = Scene { poll: Poll::Busy, ..usual };
    let paths = [Path::SecurityGroups, Path::NatGateway];
    let mut rows = Vec::new();
    let mut add = |scene, name: String, about: String, traffic| {
        rows.push(Row { name, about, scene, traffic });
    };
    for path in paths {
        for streams in [1, 4] {
            for flow in [Flow::Out, Flow::Back, Flow::Both] {
                let name = format!("tcp/{}/{streams}/{}", path.name(), flow.name());
                let plural = if streams == 1 { "" } else { "s" };
                let each = if flow == Flow::Both { " each way" } else { "" };
                let about =
                    format!("TCP, {streams} stream{plural}{each}, {}, {}", path.about(), flow.about());
                add(usual, name, about, Traffic::Tcp { path, streams, flow });
            }
        }
    }
    let floods =
        [("64", 64, Handing::Single), ("1400", 1400, Handing::Single), ("gso", 1400, Handing::Segmented)];
    for (name, payload, handing) in floods {
        for senders in [1, 2] {
            let how =
                if handing == Handing::Segmented { ", segmented by the kernel (UDP_SEGMENT)" } else { "" };
            let plural = if senders == 1 { "" } else { "s" };
            let about = format!("UDP, {payload} bytes of payload{how}, {senders} sender{plural}");
            add(usual, format!("udp/{name}/{senders}"), about, Traffic::Udp { payload, senders, handing });
        }
    }
    for path in paths {
        let about = format!("TCP connections opened and closed, {}", path.about());
        add(usual, format!("connections/{}", path.name()), about, Traffic::Connections(path));
    }
    for (path, protocol) in [
        (Path::SecurityGroups, Protocol::Tcp),
        (Path::SecurityGroups, Protocol::Udp),
        (Path::NatGateway, Protocol::Tcp),
    ] {
        let (word, upper) = match protocol {
            Protocol::Tcp => ("tcp", "TCP"),
            Protocol::Udp => ("udp", "UDP"),
        };
        let about = format!("request and response of 64 bytes over {upper}, {}", path.about());
        add(
            usual,
            format!("round-trip/{word}/{}", path.name()),
            about,
            Traffic::RoundTrips { path, protocol },
        );
    }
    for instances in [2, 10, 100] {
        let scene = Scene { pairs: instances / 2, ..usual };
        let about = format!("TCP, one stream in each of {} pairs of instances at once", instances / 2);
        add(scene, format!("instances/{instances}"), about, Traffic::TcpInPairs);
    }
    let path = Path::SecurityGroups;
    for (streams, plural) in [(1, ""), (4, "s")] {
        let about = format!("TCP, {streams} stream{plural}, links without offload");
        let traffic = Traffic::Tcp { path, streams, flow: Flow::Out };
        add(bare, format!("offload-off/tcp/{streams}"), about, traffic);
    }
    let about = "UDP, 64 bytes of payload, 1 sender, links without offload".to_owned();
    let traffic = Traffic::Udp { payload: 64, senders: 1, handing: Handing::Single };
    add(bare, "offload-off/udp/64".into(), about, traffic);
    let traffic = Traffic::Tcp { path, streams: 1, flow: Flow::Out };
    add(busy, "busy/tcp/1".into(), "TCP, 1 stream, dataplanes that never sleep".into(), traffic);
    for (word, protocol) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)] {
        let about = format!("request and response over {}, dataplanes that never sleep", word.to_uppercase());
        add(busy, format!("busy/round-trip/{word}"), about, Traffic::RoundTrips { path, protocol });
    }
    rows
}

impl Row {
    /// Measures it once.
    ///
    /// # Errors
    ///
    /// The first thing that failed.
    pub fn measure(&self, way: &Way, time: Duration) -> Result<Vec<Figure>, Error> {
        let span = Span::of(time);
        let figure = |what, value| Figure { what, value };
        let throughput = |streams: &[Stream<'_>]| {
            let it = tcp::throughput(streams, PORT, span)?;
            let cpu = it.cpu_seconds_per_gigabyte.map(|cpu| figure(What::Cpu, cpu));
            Ok([figure(What::Throughput, it.bits_per_second / 1e9)].into_iter().chain(cpu).collect())
        };
        match self.traffic {
            Traffic::Tcp { path, streams, flow } => {
                let (client, server) = way.ends(path);
                let stream = |direction| Stream { client, server, direction };
                let all: Vec<_> =
                    (0..streams).flat_map(|_| flow.directions().iter().copied().map(stream)).collect();
                throughput(&all)
            }
            Traffic::TcpInPairs => {
                let stream = |pair| {
                    let (client, server): &(Endpoint, Endpoint) = pair;
                    Stream { client, server, direction: Direction::There }
                };
                throughput(&way.pairs.iter().map(stream).collect::<Vec<_>>())
            }
            Traffic::Udp { payload, senders, handing } => {
                let (from, to) = way.ends(Path::SecurityGroups);
                let flood = Flood { payload, senders, handing };
                let it = udp::flood(from, to, PORT, flood, way.framing, span)?;
                let cpu = it.cpu_seconds_per_gigabyte.map(|cpu| figure(What::Cpu, cpu));
                let counted =
                    [figure(What::BySocket, it.by_socket / 1e3), figure(What::ByDevice, it.by_device / 1e3)];
                Ok(counted.into_iter().chain(cpu).collect())
            }
            Traffic::Connections(path) => {
                let (client, server) = way.ends(path);
                let per_second = connections::per_second(client, server, PORT, span)?;
                Ok(vec![figure(What::Connections, per_second / 1e3)])
            }
            Traffic::RoundTrips { path, protocol } => {
                let (client, server) = way.ends(path);
                let it = match protocol {
                    Protocol::Tcp => round_trips::tcp(client, server, PORT, span)?,
                    Protocol::Udp => round_trips::udp(client, server, PORT, span)?,
                };
                Ok(vec![
                    figure(What::P50, it.p50_us),
                    figure(What::P99, it.p99_us),
                    figure(What::P999, it.p999_us),
                ])
            }
        }
    }

    /// The links that bulk data comes in and goes out by, where it goes one way over TCP: bytes per read and per write
    /// tell whether super-packets pass unsplit.
    pub fn data_links(&self) -> Option<(&'static str, &'static str)> {
        let (near, far) = match self.traffic {
            Traffic::Tcp { path: Path::SecurityGroups, .. } => ("l0", "r0"),
            Traffic::Tcp { path: Path::NatGateway, .. } => ("app", "internet"),
            _ => return None,
        };
        match self.traffic {
            Traffic::Tcp { flow: Flow::Out, .. } => Some((near, far)),
            Traffic::Tcp { flow: Flow::Back, .. } => Some((far, near)),
            _ => None,
        }
    }
}

impl What {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Cpu => "cpu",
            Self::BySocket => "received by socket",
            Self::ByDevice => "received by device",
            Self::Connections => "connections",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }

    /// The unit of its value.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::Cpu => "CPU s/GB",
            Self::BySocket | Self::ByDevice => "k/s",
            Self::Connections => "k/s",
            Self::P50 | Self::P99 | Self::P999 => "µs",
        }
    }

    /// Whether less of it is better.
    pub fn is_cost(self) -> bool {
        matches!(self, Self::Cpu | Self::P50 | Self::P99 | Self::P999)
    }
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::SecurityGroups => "sg",
            Self::NatGateway => "nat",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::SecurityGroups => "through security groups and network ACLs",
            Self::NatGateway => "through the NAT gateway",
        }
    }
}

impl Flow {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Back => "back",
            Self::Both => "both",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Out => "from who connects",
            Self::Back => "to who connects",
            Self::Both => "both ways at once",
        }
    }

    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Out => &[Direction::There],
            Self::Back => &[Direction::Back],
            Self::Both => &[Direction::There, Direction::Back],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let rows = all();
        let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
        assert_eq!(names.len(), rows.len());
        for name in ["tcp/sg/1/out", "tcp/nat/4/both", "udp/64/2", "connections/sg", "instances/100"] {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
    }
}

//! TCP throughput over one or more streams.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::socket::{accept, connect, listen, wait_until};
use crate::{Endpoint, Error, Span, cpu};

/// A stream of bytes from one end to the other; the sender opens the connection.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// Who connects.
    pub client: &'a Endpoint,
    /// Who listens.
    pub server: &'a Endpoint,
    /// Which way the bytes go.
    pub direction: Direction,
}

/// Which way the bytes of a stream go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to who listens.
    There,
    /// The other way.
    Back,
}

/// What all streams together carried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Payload that was read by the receivers, per second.
    pub bits_per_second: f64,
    /// Processor time of the whole machine per 10⁹ bytes of payload; none where it cannot be read.
    pub cpu_seconds_per_gigabyte: Option<f64>,
}

/// Sends as fast as it goes, over all streams at once. Bytes count when their receiver has read them.
///
/// # Errors
///
/// The first thing that failed; [`Error::Nothing`] when a stream was open and carried nothing.
pub fn throughput(streams: &[Stream<'_>], port: u16, span: Span) -> Result<Throughput, Error> {
    let mut pairs = Vec::with_capacity(streams.len());
    for stream in streams {
        pairs.push(open(stream, port)?);
    }
    let received = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (sender, receiver) in &pairs {
            scope.spawn(|| write_on(sender));
            scope.spawn(|| read_on(receiver, &received));
        }
        let sample = || (Instant::now(), received.load(Ordering::Relaxed), cpu::busy());
        wait_until(Instant::now() + span.warm_up);
        let (began, before, busy_before) = sample();
        wait_until(began + span.time);
        let (ended, after, busy_after) = sample();
        for (sender, receiver) in &pairs {
            // Threads that sit in a call return; one that is gone already needs nothing.
            let _ = sender.shutdown(Shutdown::Both);
            let _ = receiver.shutdown(Shutdown::Both);
        }
        let bytes = (after - before) as f64;
        if bytes == 0.0 {
            let address = streams.first().map_or(([0; 4], port), |it| (it.server.reached_at.octets(), port));
            return Err(Error::Nothing {
                address: std::net::SocketAddrV4::new(address.0.into(), address.1),
                within: span.time,
            });
        }
        let busy = busy_after.zip(busy_before).map(|(after, before)| after.saturating_sub(before));
        Ok(Throughput {
            bits_per_second: bytes * 8.0 / seconds(ended - began),
            cpu_seconds_per_gigabyte: busy.map(|busy| seconds(busy) / (bytes / 1e9)),
        })
    })
}

/// The sending and the receiving end of a connection. Listeners come and go, so that any number of pairs may use a port.
fn open(stream: &Stream<'_>, port: u16) -> Result<(TcpStream, TcpStream), Error> {
    let listener = listen(stream.server, port)?;
    let client = connect(stream.client, stream.server, port)?;
    let server = accept(&listener)?;
    Ok(match stream.direction {
        Direction::There => (client, server),
        Direction::Back => (server, client),
    })
}

fn write_on(mut stream: &TcpStream) {
    let block = vec![0x5a_u8; BLOCK];
    while stream.write_all(&block).is_ok() {}
}

fn read_on(mut stream: &TcpStream, received: &AtomicU64) {
    let mut block = vec![0; BLOCK];
    while let Ok(count @ 1..) = stream.read(&mut block) {
        received.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// As iperf3 does it.
const BLOCK: usize = 128 << 10;

//! How long a request and its response take, one after the other.

use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::socket::{GLANCE, accept, connect, is_timeout, listen, receive, send};
use crate::{Endpoint, Error, PATIENCE, Span, Trying};

/// How long round trips took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTrips {
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 % of them took no longer.
    pub p99_us: f64,
    /// 99.9 % of them took no longer.
    pub p999_us: f64,
    /// How many there were.
    pub count: usize,
    /// Requests without a response (UDP only).
    pub lost: usize,
}

/// Over one TCP connection without Nagle's delay.
///
/// # Errors
///
/// The first thing that failed.
pub fn tcp(client: &Endpoint, server: &Endpoint, port: u16, span: Span) -> Result<RoundTrips, Error> {
    let listener = listen(server, port)?;
    let near = connect(client, server, port)?;
    let far = accept(&listener)?;
    for stream in [&near, &far] {
        stream.set_nodelay(true).trying("set up a connection")?;
    }
    near.set_read_timeout(Some(PATIENCE)).trying("set up a connection")?;
    std::thread::scope(|scope| {
        scope.spawn(|| echo_stream(&far));
        let outcome = measure(span, || {
            let mut message = [0; MESSAGE];
            (&near).write_all(&message)?;
            (&near).read_exact(&mut message).map(|()| Response::Came)
        });
        // Ends the other side too.
        drop(near);
        outcome
    })
}

/// Over UDP; a request without a response within 200 ms is lost.
///
/// # Errors
///
/// The first thing that failed; [`Error::Nothing`] when no response came at all.
pub fn udp(client: &Endpoint, server: &Endpoint, port: u16, span: Span) -> Result<RoundTrips, Error> {
    let far = receive(server, port)?;
    let near = send(client, server, port)?;
    far.set_read_timeout(Some(GLANCE)).trying("set up a socket")?;
    near.set_read_timeout(Some(LOST_AFTER)).trying("set up a socket")?;
    let over = AtomicBool::new(false);
    let mut number = 0_u64;
    std::thread::scope(|scope| {
        scope.spawn(|| echo_datagrams(&far, &over));
        let outcome = measure(span, || {
            let mut message = [0; MESSAGE];
            number += 1;
            message[..8].copy_from_slice(&number.to_ne_bytes());
            near.send(&message)?;
            loop {
                let mut back = [0; MESSAGE];
                match near.recv(&mut back) {
                    // What comes late answers an earlier one.
                    Ok(_) if back != message => {}
                    Ok(_) => return Ok(Response::Came),
                    Err(error) if is_timeout(&error) => return Ok(Response::Lost),
                    Err(error) => return Err(error),
                }
            }
        });
        over.store(true, Ordering::Relaxed);
        match outcome {
            Ok(trips) if trips.count == 0 => {
                Err(Error::Nothing { address: server.connect_to(port), within: span.time })
            }
            outcome => outcome,
        }
    })
}

enum Response {
    Came,
    Lost,
}

fn measure(span: Span, mut trip: impl FnMut() -> io::Result<Response>) -> Result<RoundTrips, Error> {
    let warm = Instant::now() + span.warm_up;
    while Instant::now() < warm {
        trip().trying("wait for a response")?;
    }
    let mut took = Vec::with_capacity(1 << 16);
    let mut lost = 0;
    let mut before = Instant::now();
    let end = before + span.time;
    while before < end {
        let response = trip().trying("wait for a response")?;
        let after = Instant::now();
        match response {
            Response::Came => took.push(after - before),
            Response::Lost => lost += 1,
        }
        before = after;
    }
    Ok(summary(took, lost))
}

fn summary(mut took: Vec<Duration>, lost: usize) -> RoundTrips {
    took.sort_unstable();
    let at = |per_mille: usize| {
        let rank = (took.len() * per_mille).div_ceil(1000);
        took.get(rank.max(1) - 1).map_or(0.0, |time| time.as_nanos() as f64 / 1e3)
    };
    RoundTrips { p50_us: at(500), p99_us: at(990), p999_us: at(999), count: took.len(), lost }
}

fn echo_stream(mut stream: &TcpStream) {
    let mut message = [0; MESSAGE];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

fn echo_datagrams(socket: &UdpSocket, over: &AtomicBool) {
    let mut message = [0; MESSAGE];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut message) {
            // One that is lost is counted by who asked.
            let _ = socket.send_to(&message[..length], from);
        }
    }
}

/// Bytes of a request and of its response.
const MESSAGE: usize = 64;

const LOST_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let took = |count: u64| (1..=count).rev().map(Duration::from_micros).collect::<Vec<_>>();
        let trips = summary(took(1000), 2);
        assert_eq!((trips.p50_us, trips.p99_us, trips.p999_us), (500.0, 990.0, 999.0));
        assert_eq!((trips.count, trips.lost), (1000, 2));
        let one = summary(took(1), 0);
        assert_eq!((one.p50_us, one.p999_us), (1.0, 1.0));
        assert_eq!(summary(took(0), 7).p50_us, 0.0);
    }
}

//! TCP connections opened and closed per second.
//!
//! Each is a whole one: SYN, SYN-ACK, ACK, a FIN from the server as soon as it has accepted, one from the client when
//! it has seen that. So TIME-WAIT is the server's, and the client's ports are free at once.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::socket::{GLANCE, connect, connect_here, listen, wait_until};
use crate::{Endpoint, Error, PATIENCE, Span, Trying};

/// Connections opened and closed per second, several at a time.
///
/// # Errors
///
/// The first thing that failed; [`Error::Connect`] when the first connection does not come about.
pub fn per_second(client: &Endpoint, server: &Endpoint, port: u16, span: Span) -> Result<f64, Error> {
    let listener = listen(server, port)?;
    listener.set_nonblocking(true).trying("set up a listener")?;
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..ACCEPTORS {
            scope.spawn(|| close_what_comes(&listener, &over));
        }
        let outcome = (|| {
            // Says why, where there is no way through.
            drop(connect(client, server, port)?);
            let clients: Vec<_> = (0..AT_ONCE)
                .map(|_| scope.spawn(|| client.inside(|| open_and_close(client, server, port, &over, &done))))
                .collect();
            wait_until(Instant::now() + span.warm_up);
            let (began, before) = (Instant::now(), done.load(Ordering::Relaxed));
            wait_until(began + span.time);
            let (ended, after) = (Instant::now(), done.load(Ordering::Relaxed));
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            match after - before {
                0 => Err(Error::Nothing { address: server.connect_to(port), within: span.time }),
                count => Ok(count as f64 / (ended - began).as_secs_f64()),
            }
        })();
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

fn open_and_close(
    client: &Endpoint,
    server: &Endpoint,
    port: u16,
    over: &AtomicBool,
    done: &AtomicU64,
) -> Result<(), Error> {
    let to = server.connect_to(port);
    while !over.load(Ordering::Relaxed) {
        let mut stream = connect_here(client, to)?;
        stream.set_read_timeout(Some(PATIENCE)).trying("set up a connection")?;
        match stream.read(&mut [0; 1]) {
            Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
            // At the end of the measurement nobody accepts any more.
            Err(_) if over.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error).trying("wait for the end of a connection"),
        }
    }
    Ok(())
}

fn close_what_comes(listener: &TcpListener, over: &AtomicBool) {
    let glance = Timespec { tv_sec: 0, tv_nsec: GLANCE.as_nanos() as i64 };
    loop {
        match listener.accept() {
            Ok((stream, _)) => drop(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Whoever is in the queue is still served, so that no client is left waiting.
                let mut ready = [PollFd::new(listener, PollFlags::IN)];
                let waiting = rustix::event::poll(&mut ready, Some(&glance));
                if over.load(Ordering::Relaxed) && waiting == Ok(0) {
                    return;
                }
            }
            // A connection that broke off before it was accepted.
            Err(_) if !over.load(Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

/// Connections under way at a time.
const AT_ONCE: usize = 16;

const ACCEPTORS: usize = 2;

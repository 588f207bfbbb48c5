//! What does a short connection cost while the processor's caches are full of something else?
//!
//! A worker that forwards short connections has a few packets at a time, and between them the kernel runs: the worker waits for its lines of memory and of
//! code. A benchmark that does nothing else shows little of that. Here, between any two batches, the kernel opens and closes a TCP
//! connection on the loopback device.
//!
//! ```sh
//! cargo bench -p localvpc-benches --bench cold
//! ```

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use localvpc_benches::scenes::ShortConnections;

/// So many that the records of those before are no longer in the processor's caches.
const CONNECTIONS: u32 = 6_000;
const ROUNDS: u32 = 3;

/// What is slower than 98 of 100 was interrupted.
const KEPT: usize = 98;

/// Median times would hide what waits now and then: the mean of all but the slowest.
fn mean(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.truncate((times.len() * KEPT).div_ceil(100));
    times.iter().sum::<Duration>() / times.len() as u32
}

fn measure(together: u32, mut between: impl FnMut()) {
    let mut connections = ShortConnections::new(CONNECTIONS, together);
    let mut times = ShortConnections::PACKETS.map(|_| Vec::new());
    let batches = CONNECTIONS / together;
    // The first round has their memory taken.
    for batch in 0..(ROUNDS + 1) * batches {
        connections.open_and_close(|packet, forward| {
            between();
            let start = Instant::now();
            forward();
            let took = start.elapsed();
            if batch >= batches {
                times[packet].push(took);
            }
        });
    }
    let times = times.map(|times| mean(times).as_nanos() as f64 / f64::from(together));
    for (name, time) in ShortConnections::PACKETS.iter().zip(times) {
        print!("  {name} {time:.0}");
    }
    println!("  together {:.0}", times.iter().sum::<f64>());
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test` runs this, too.
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback device");
    let address = listener.local_addr().expect("it was bound");
    println!("ns per packet of connections that are opened and closed through the NAT gateway");
    for together in [1, 5, 15] {
        print!("cold/connection/{together}_at_a_time");
        measure(together, || {
            let _client = TcpStream::connect(address).expect("somebody listens");
            let _server = listener.accept().expect("somebody has connected");
        });
        print!("warm/connection/{together}_at_a_time");
        measure(together, || ());
    }
}

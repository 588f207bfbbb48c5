//! Traffic in a lab: what gets through, and what is discarded and why.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use localvpc::host::netns::{self, Namespace};
use localvpc::view::CountersView;

use super::{Lab, wait};

/// What is sent to echo servers.
const LINE: &[u8; 5] = b"line\n";

/// How long something is waited for that must not come, where a counter tells that it was discarded.
const SILENCE: Duration = Duration::from_millis(700);

impl Lab {
    /// The body that curl gets.
    #[track_caller]
    pub fn curl(&self, who: &str, url: &str) -> String {
        self.exec(who, &format!("curl -sS --connect-timeout 10 --max-time 20 {url}")).ok().stdout
    }

    /// Requires that curl times out, and that packets are discarded meanwhile for this reason.
    #[track_caller]
    pub fn curl_is_cut(&self, who: &str, url: &str, reason: &str) {
        self.discards(reason, || {
            // curl: 28 is a timeout. Not a refusal: what is discarded is discarded in silence (SG-9).
            self.exec(who, &format!("curl -sS --connect-timeout {} {url}", SILENCE.as_secs_f32())).exits(28);
        });
    }

    /// Requires that no ping is answered, and that packets are discarded meanwhile for this reason.
    #[track_caller]
    pub fn ping_is_cut(&self, who: &str, arguments: &str, reason: &str) {
        self.discards(reason, || {
            let done = self
                .exec(who, &format!("ping -n -c 2 -i 0.2 -W {} {arguments}", SILENCE.as_secs_f32()))
                .exits(1);
            assert!(done.stdout.contains(" 0 received"), "{done}");
        });
    }

    /// Requires that packets are discarded for this reason while `doing`.
    #[track_caller]
    pub fn discards(&self, reason: &str, doing: impl FnOnce()) {
        let before = self.discarded(reason);
        doing();
        // On a busy machine what was sent may wait for longer than whoever sent it.
        wait::until(&format!("a packet to be discarded for {reason}"), || {
            (self.discarded(reason) > before).then_some(())
        });
    }

    /// Packets discarded so far for this reason.
    #[track_caller]
    pub fn discarded(&self, reason: &str) -> u64 {
        packets(&self.counters(), reason)
    }

    /// Does something in the namespace of `who`: a socket that is made there stays there.
    #[track_caller]
    pub fn inside<T: Send>(&self, who: &str, doing: impl FnOnce() -> T + Send) -> T {
        let namespace = Namespace::open(&netns::path(&self.netns(who))).expect("a namespace of the lab");
        namespace.run(|| Ok(doing())).expect("root can enter a namespace")
    }

    /// A TCP connection from the namespace of `who`.
    #[track_caller]
    pub fn connect(&self, who: &str, to: &str) -> TcpStream {
        let to: SocketAddr = to.parse().expect("an address and a port");
        let stream = self.inside(who, || TcpStream::connect_timeout(&to, wait::PATIENCE));
        stream.unwrap_or_else(|error| panic!("{who} to {to}: {error}"))
    }

    /// Requires that a TCP connection from `who` times out, and that packets are discarded meanwhile for this reason.
    #[track_caller]
    pub fn connect_is_cut(&self, who: &str, to: &str, reason: &str) {
        let to: SocketAddr = to.parse().expect("an address and a port");
        self.discards(reason, || match self.inside(who, || TcpStream::connect_timeout(&to, SILENCE)) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            other => panic!("{who} to {to} should have timed out: {other:?}"),
        });
    }
}

/// Requires that a line goes to an echo server and comes back.
#[track_caller]
pub fn echoes(stream: &mut TcpStream) {
    stream.write_all(LINE).unwrap_or_else(|error| panic!("the connection is broken: {error}"));
    comes_back(stream);
}

/// Requires that a line that was sent comes back.
#[track_caller]
pub fn comes_back(stream: &mut TcpStream) {
    let mut back = [0; LINE.len()];
    let outcome = stream.set_read_timeout(Some(wait::PATIENCE)).and_then(|()| stream.read_exact(&mut back));
    outcome.unwrap_or_else(|error| panic!("the connection is broken: {error}"));
    assert_eq!(&back, LINE);
}

/// Requires that nothing comes back, and no reset either.
#[track_caller]
pub fn is_silent(stream: &mut TcpStream) {
    let outcome = stream
        .set_read_timeout(Some(SILENCE))
        .and_then(|()| stream.write_all(LINE))
        .and_then(|()| stream.read(&mut [0; LINE.len()]));
    match outcome {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("the connection should be silent: {other:?}"),
    }
}

/// Packets discarded for a reason.
pub fn packets(counters: &CountersView, reason: &str) -> u64 {
    counters.discards.iter().filter(|it| it.code == reason).map(|it| it.packets).sum()
}

//! tcpdump in a namespace of a lab.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use rustix::process::Signal;

use super::wait::PATIENCE;
use super::{Lab, Running, wait};

/// A packet as tcpdump shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Time to live.
    pub ttl: u8,
    /// `198.51.100.10:40312`, without port for ICMP.
    pub source: String,
    /// The same of the destination.
    pub destination: String,
    /// The rest: `Flags [S], ...`, `ICMP echo request, ...`.
    pub what: String,
}

impl Packet {
    /// Whether it goes from there to there.
    pub fn is(&self, source: &str, destination: &str) -> bool {
        self.source == source && self.destination == destination
    }

    /// Whether it is the first of a TCP connection.
    pub fn is_syn(&self) -> bool {
        self.what.starts_with("Flags [S],")
    }
}

/// tcpdump, running.
pub struct Capture {
    tcpdump: Running,
    incoming: Receiver<Packet>,
    seen: Vec<Packet>,
}

impl Capture {
    /// Starts tcpdump on the device of `who`, an instance's namespace or `internet`, and returns once it listens.
    #[track_caller]
    pub fn start(lab: &Lab, who: &str, filter: &str) -> Self {
        let device = if who == "internet" { "inet0" } else { "eth0" };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.netns(who), "tcpdump", "-i", device]);
        // Standard error goes where the packets go, so that one reader sees `listening on`.
        command.args(["-nn", "-t", "-v", "-l", "--immediate-mode", filter]);
        let mut through_shell = Command::new("sh");
        through_shell.args(["-c", "exec \"$@\" 2>&1", "sh"]);
        through_shell.arg(command.get_program()).args(command.get_args());
        let (tcpdump, stdout) = Running::start_reading(&mut through_shell);

        let (listens, is_listening) = channel();
        let (packets, incoming) = channel();
        std::thread::spawn(move || {
            read(stdout, |line| drop(listens.send(line.to_owned())), |packet| drop(packets.send(packet)));
        });
        let mut said = String::new();
        loop {
            match is_listening.recv_timeout(PATIENCE) {
                Ok(line) if line.contains("listening on") => break,
                Ok(line) => said += &line,
                Err(_) => panic!("tcpdump does not listen: {said}"),
            }
        }
        Self { tcpdump, incoming, seen: Vec::new() }
    }

    /// The first packet that `is_it`, which may have been seen already or is waited for.
    #[track_caller]
    pub fn packet(&mut self, what: &str, is_it: impl Fn(&Packet) -> bool) -> Packet {
        if let Some(packet) = self.seen.iter().find(|packet| is_it(packet)) {
            return packet.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(packet) => {
                    self.seen.push(packet.clone());
                    if is_it(&packet) {
                        return packet;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{what} was not seen, but {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("tcpdump ended; it saw {:#?}", self.seen),
            }
        }
    }

    /// Ends tcpdump and returns all that it saw.
    pub fn all(mut self) -> Vec<Packet> {
        self.tcpdump.signal(Signal::INT);
        wait::until("tcpdump to end", || (!self.tcpdump.runs()).then_some(()));
        self.seen.extend(self.incoming.iter());
        std::mem::take(&mut self.seen)
    }
}

/// Reads `-v` output: a line with the IP header, then an indented one with the rest.
fn read(from: impl Read, mut say: impl FnMut(&str), mut tell: impl FnMut(Packet)) {
    let mut header: Option<u8> = None;
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if line.starts_with("IP ") {
            header = line.split_once("ttl ").and_then(|(_, rest)| rest.split_once(',')?.0.parse().ok());
        } else if let Some(ttl) = header.filter(|_| line.starts_with(' ')) {
            header = None;
            if let Some(packet) = packet(ttl, line.trim()) {
                tell(packet);
            }
        } else if !line.starts_with([' ', '\t']) {
            say(&line);
        }
    }
}

fn packet(ttl: u8, line: &str) -> Option<Packet> {
    let (ends, what) = line.split_once(": ")?;
    let (source, destination) = ends.split_once(" > ")?;
    Some(Packet { ttl, source: end(source), destination: end(destination), what: what.to_owned() })
}

/// `10.0.1.10.80` is `10.0.1.10:80`.
fn end(text: &str) -> String {
    match text.rsplit_once('.') {
        Some((address, port)) if address.split('.').count() == 4 => format!("{address}:{port}"),
        _ => text.to_owned(),
    }
}

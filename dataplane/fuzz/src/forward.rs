//! Any packets through a whole lab, on workers with and without a flow cache.
//!
//! - A cache, large or so small that flows are evicted all the time, changes no packet, no connection, no lease and no counter.
//! - What leaves has a right IP header, fits its link's MTU, carries the data it came with, and its transport checksum is
//!   as right as it was.
//! - Every packet is forwarded, held back, or discarded and counted once; every ENI counts what it sent and received.
//! - Only what is discarded is answered, and answers are right.

use std::collections::HashMap;

use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::{Checksum, Kind, Offload, Packet, parse};
use localvpc_engine::testing::craft;
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::{Limits, Worker, report};

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: steps, each a packet, a push, or time.
pub fn forward(bytes: &[u8]) {
    let mut lab = Lab {
        nets: [0, 4, 64].map(|flows| {
            let workers = vec![Worker::with_cache(0, 5, flows), Worker::with_cache(1, 6, flows)];
            Fabric::with_workers(lab::tables(), workers, Limits { connections: 60, leases: 60 })
        }),
        last: None,
        counts: Counts::default(),
    };
    let mut input = Input::new(bytes);
    while lab.step(&mut input).is_some() {}
    lab.end();
}

struct Lab {
    /// Without a cache, with a tiny one, with one that is large enough.
    nets: [Fabric; 3],
    /// What a link has received last, whole, with its offload.
    last: Option<(LinkId, Vec<u8>)>,
    counts: Counts,
}

/// What must be counted.
#[derive(Default)]
struct Counts {
    refused: u64,
    held: u64,
    released: u64,
    answers_due: u64,
    sent: HashMap<LinkId, u64>,
    received: HashMap<LinkId, u64>,
    /// Pieces of fragments that were held back cannot be told from each other.
    uncertain: bool,
}

const FLOWS: &[(LinkId, &str, &str)] = &[
    (APP.1, "10.0.2.20:5000", "203.0.113.5:443"),
    (APP.1, "10.0.2.20:5001", "203.0.113.5:443"),
    (APP.1, "10.0.2.20:5000", "10.0.2.30:5432"),
    (APP.1, "10.0.2.20:5000", "10.0.1.10:80"),
    (WEB.1, "10.0.1.10:5000", "10.0.2.30:5432"),
    (WEB.1, "10.0.1.10:5000", "203.0.113.5:443"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.10:80"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.20:1024"),
    (APP.1, "10.0.2.20:5000", "198.51.100.10:80"),
    (DB.1, "10.0.2.30:5000", "203.0.113.5:443"),
    (DB.1, "10.0.2.30:5432", "10.0.2.20:5000"),
    (WEB.1, "10.0.1.10:80", "203.0.113.5:5000"),
    (WEB.1, "10.0.1.10:80", "10.0.2.20:5000"),
];

impl Lab {
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let how = input.byte()?;
        let worker = usize::from(how >> 7);
        match how & 0x0F {
            0..=4 => {
                let (link, source, destination) = input.choose(FLOWS)?;
                let packet = traffic::honest(input, source, destination)?;
                self.send(worker, link, packet, Offload::default());
            }
            5..=7 => {
                let (link, received) = self.last.clone()?;
                let packet = reply(input, &received)?;
                self.send(worker, link, packet, Offload::default());
            }
            8 => {
                let (link, source, destination) = input.choose(FLOWS)?;
                let packet = traffic::honest(input, source, destination)?;
                let packet = traffic::damaged(input, packet)?;
                let offload = traffic::offload(input)?;
                self.send(worker, link, packet, offload);
            }
            9 => {
                let (link, source, destination) = input.choose(FLOWS)?;
                let packet = traffic::honest(input, source, destination)?;
                let room = 8 + usize::from(input.byte()?) * 8;
                let parts = craft::fragments(&packet, u16::from(input.byte()?) & 3, room);
                let from = usize::from(input.byte()?);
                for at in 0..parts.len().min(4) {
                    let part = parts[(at + from) % parts.len()].clone();
                    self.send(worker, link, part, Offload::default());
                }
            }
            10 => {
                let (link, received) = self.last.clone()?;
                let packet = refusal(input, &received)?;
                self.send(worker, link, packet, Offload::default());
            }
            11 => {
                let (link, ..) = input.choose(FLOWS)?;
                let packet = traffic::any(input)?;
                let offload = traffic::offload(input)?;
                self.send(worker, link, packet, offload);
            }
            12 | 13 => {
                let (link, source, destination) = input.choose(FLOWS)?;
                let (packet, offload) = super_packet(input, source, destination)?;
                self.send(worker, link, packet, offload);
            }
            14 => {
                let ms = input.choose(&[1, 1000, 29_999, 30_000, 60_000, 120_000, 350_000, 432_000_000])?;
                self.nets.iter_mut().for_each(|net| net.now.0 += ms);
                if how & 0x10 != 0 {
                    self.nets.iter_mut().for_each(|net| net.pass_ms(0));
                }
                if how & 0x20 != 0 {
                    self.nets[1..].iter_mut().flat_map(|net| &mut net.workers).for_each(Worker::drop_cache);
                }
            }
            _ => {
                let what = input.byte()?;
                self.nets.iter_mut().for_each(|net| push(net, what));
            }
        }
        Some(())
    }

    fn send(&mut self, worker: usize, from: LinkId, bytes: Vec<u8>, offload: Offload) {
        let [expected, tiny, large] =
            self.nets.each_mut().map(|net| net.offer_on(worker, from, bytes.clone(), offload));
        assert_eq!(tiny, expected, "a tiny cache");
        assert_eq!(large, expected, "a large cache");
        let parsed = parse(&bytes, offload);
        let Some(outcome) = expected else {
            assert!(parsed.is_ok_and(|packet| packet.fragment.is_some()));
            self.counts.held += 1;
            return;
        };
        self.leaves(&outcome, parsed.ok());
        match (outcome.verdict, parsed) {
            (Ok(out), Ok(packet)) => {
                assert!(outcome.answers.is_empty());
                *self.counts.sent.entry(from).or_default() += u64::from(packet.segments);
                *self.counts.received.entry(out).or_default() += u64::from(packet.segments);
                if outcome.bytes.is_empty() {
                    // The internet gateway takes 1500 bytes, the least that there is.
                    assert!(packet.segment_length > 1500, "cut without need");
                } else {
                    carried(&packet, &bytes, &outcome.bytes);
                    if packet.fragment.is_none() && offload == Offload::default() {
                        self.last = Some((out, outcome.bytes));
                    }
                }
            }
            (Ok(_), Err(reason)) => panic!("forwarded: {reason:?}"),
            (Err(_), Ok(packet)) => {
                self.counts.refused += u64::from(packet.segments);
                self.counts.answers_due += 1;
            }
            (Err(reason), Err(refused)) => {
                assert_eq!(reason, refused);
                self.counts.refused += 1;
            }
        }
    }

    /// Checks everything that leaves beside the packet, and the packet.
    fn leaves(&mut self, outcome: &Outcome, packet: Option<Packet>) {
        for (out, bytes) in &outcome.answers {
            sums::assert_right_header(bytes);
            assert_eq!(sums::error(bytes), Some(0));
            assert!(bytes.len() <= 576);
            *self.counts.received.entry(*out).or_default() += 1;
        }
        for (out, bytes) in &outcome.fragments {
            sums::assert_right_header(bytes);
            assert!(bytes.len() <= self.mtu(*out).into());
        }
        if !outcome.fragments.is_empty() && packet.is_some_and(|packet| packet.fragment.is_some()) {
            // Some of them may be pieces of others.
            self.counts.uncertain = true;
            self.counts.released += outcome.fragments.len() as u64;
        }
        if let (Ok(out), Some(packet), false) = (outcome.verdict, packet, outcome.bytes.is_empty()) {
            sums::assert_right_header(&outcome.bytes);
            assert!(packet.segment_length <= self.mtu(out), "{out} takes less");
        }
    }

    fn mtu(&self, link: LinkId) -> u16 {
        self.nets[0].rows.links.iter().find(|row| row.id == link).expect("a link of the tables").mtu
    }

    fn end(mut self) {
        let [without, ..] = &self.nets;
        for with in &self.nets[1..] {
            assert_eq!(
                report::connections(&with.state, with.now),
                report::connections(&without.state, without.now)
            );
            assert_eq!(report::leases(&with.state, with.now), report::leases(&without.state, without.now));
            assert_eq!(report::enis(&with.tables), report::enis(&without.tables));
            assert_eq!(report::discards(&with.state), report::discards(&without.state));
            assert_eq!(
                report::nat_gateways(&with.tables, &with.state, with.now),
                report::nat_gateways(&without.tables, &without.state, without.now)
            );
        }
        let net = &mut self.nets[0];
        let counts = &self.counts;
        if !counts.uncertain {
            for (eni, link) in [WEB, APP, DB] {
                let expected = [&counts.received, &counts.sent].map(|by| by.get(&link).copied().unwrap_or(0));
                assert_eq!(<[u64; 2]>::from(net.counted(eni)), expected, "{eni} received and sent");
            }
        }
        net.pass_ms(40_000);
        net.pass_ms(40_000);
        let discarded: u64 = report::discards(&net.state).iter().map(|row| row.packets).sum();
        let least = if counts.uncertain { counts.refused } else { counts.refused + counts.held };
        let most = counts.refused + counts.held + counts.answers_due;
        assert!(least <= discarded && discarded <= most, "{least} {discarded} {most}");
        for row in report::nat_gateways(&net.tables, &net.state, net.now) {
            assert!(row.in_from_source.packets >= row.out_to_destination.packets);
            assert!(row.in_from_destination.packets >= row.out_to_source.packets);
            assert!(row.connections_established <= row.connection_attempts);
        }
        assert!(net.discarded(DiscardReason::Internal) == 0 && net.discarded(DiscardReason::Loop) == 0);
    }
}

/// The packet that left has the data of the one that came, and its damage.
fn carried(packet: &Packet, came: &[u8], left: &[u8]) {
    let came = &came[..packet.length as usize];
    assert_eq!(left.len(), came.len());
    let headers = match packet.kind {
        Kind::IcmpError(_) => {
            assert_eq!(sums::error(left), Some(0));
            came.len()
        }
        Kind::LaterFragment | Kind::Other | Kind::IcmpOther => 20,
        // The MSS in the options of a SYN may be lowered.
        Kind::Tcp(facts) => (packet.length - facts.payload) as usize,
        Kind::Udp | Kind::IcmpEcho(_) => 28,
    };
    assert_eq!(left[headers..], came[headers..], "data");
    match packet.checksum {
        // A later fragment has no checksum, and that of an ICMP error is made anew.
        _ if matches!(packet.kind, Kind::LaterFragment | Kind::IcmpError(_)) => {}
        Checksum::Complete => assert_eq!(sums::error(left), sums::error(came)),
        Checksum::Partial { start, offset } => {
            let at = usize::from(start + offset);
            assert_eq!(sums::partial_error(left, at), sums::partial_error(came, at));
        }
    }
    assert!(left[8] <= came[8] && left[8] > 0 || came[8] == 0, "TTL");
}

/// A packet from the receiver of another to its sender.
fn reply(input: &mut Input<'_>, received: &[u8]) -> Option<Vec<u8>> {
    let packet = parse(received, Offload::default()).ok()?;
    let tuple = packet.tuple.reversed();
    if packet.kind == Kind::IcmpEcho(localvpc_engine::packet::Echo::Request) {
        let (from, to) = (tuple.source.to_string(), tuple.destination.to_string());
        let echo = localvpc_engine::packet::Echo::Reply;
        return Some(craft::ping(echo, &from, &to, tuple.source_port, input.byte()?.into()));
    }
    let end = |address, port| format!("{address}:{port}");
    let (source, destination) =
        (end(tuple.source, tuple.source_port), end(tuple.destination, tuple.destination_port));
    let honest = traffic::honest(input, &source, &destination)?;
    // Of the same protocol, so that it is one.
    if honest[9] == packet.tuple.protocol.0 {
        return Some(honest);
    }
    Some(match packet.tuple.protocol {
        Protocol::TCP => craft::tcp(honest[9], source.as_str(), destination.as_str()),
        Protocol::UDP => craft::udp(source.as_str(), destination.as_str(), &[1]),
        _ => honest,
    })
}

/// An ICMP error about a packet, from its receiver.
fn refusal(input: &mut Input<'_>, received: &[u8]) -> Option<Vec<u8>> {
    let (icmp_type, code) = (input.choose(&[3, 3, 11, 12])?, input.byte()? & 7);
    let quoted = usize::from(input.byte()?) * 3;
    let octets =
        |at: usize| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&received[at..at + 4]).expect("four"));
    let (source, destination) = (octets(16).to_string(), octets(12).to_string());
    let about = &received[..received.len().min(quoted)];
    Some(craft::icmp_message(icmp_type, code, [0, 0, 5, 0xDC], &source, &destination, about))
}

/// A packet as a kernel hands it over for a link with offloads, its partial checksum right.
fn super_packet(input: &mut Input<'_>, source: &str, destination: &str) -> Option<(Vec<u8>, Offload)> {
    let mut offload = traffic::offload(input)?;
    let packet = traffic::honest(input, source, destination)?;
    let protocol = Protocol(packet[9]);
    if protocol != Protocol::TCP && protocol != Protocol::UDP || packet.len() < 28 {
        return Some((packet, offload));
    }
    let (packet, right) = craft::offloaded(packet, offload.segmentation);
    offload.checksum = right.checksum;
    Some((packet, offload))
}

fn push(net: &mut Fabric, what: u8) {
    net.push(|rows| match what % 9 {
        7 => rows.enis[1].max_connections = u32::from(what >> 4).max(1),
        what => lab::change(rows, what.into()),
    });
}

//! ICMP errors about packets that have crossed NAT gateway and internet gateway, either way.
//!
//! - One that is forwarded has right checksums. If it is about a packet that was there, it goes to the link that sent it, and quotes it as it was sent, as far as it quotes it (RFC 5508 REQ-4, REQ-5).
//! - Whatever comes, no connection and no lease is made, ended or refreshed by it (RFC 5508 REQ-6).

use localvpc_api::LinkId;
use localvpc_engine::packet::{Echo, Kind, Offload, TcpFacts, parse};
use localvpc_engine::testing::craft;
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, APP, DB, INTERNET, WEB};
use localvpc_engine::{Limits, Worker, report};

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: which packet, type, code and rest of the error, its sender, how much it quotes, damage to the quotation and to the error.
pub fn icmp_error(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

/// A packet that was forwarded.
struct Crossed {
    from: LinkId,
    sent: Vec<u8>,
    to: LinkId,
    received: Vec<u8>,
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let mut net = Fabric::with_workers(
        lab::tables(),
        vec![Worker::with_cache(0, 5, 16)],
        Limits { connections: 100, leases: 100 },
    );
    let crossed = cross(&mut net);
    net.now.0 += 1000;
    let before = remembered(&net);

    let about = &crossed[usize::from(input.byte()?) % crossed.len()];
    let icmp_type = input.choose(&[3, 3, 11, 12, 4, 5])?;
    let code = input.byte()?;
    let rest = input.long()?.to_be_bytes();
    let source = input.choose(&["192.0.2.1", "203.0.113.5", "10.0.2.20", "10.0.1.10", "10.0.2.30"])?;
    let quoted = usize::from(input.byte()?) * 2;
    let intact = input.byte()? & 1 == 0;
    let mut quotation = about.received.clone();
    if !intact {
        quotation = traffic::damaged(input, quotation)?;
    }
    quotation.truncate(quoted);
    let to = u32::from_be_bytes(about.received[12..16].try_into().expect("four bytes"));
    let destination = std::net::Ipv4Addr::from(to).to_string();
    let mut error = craft::icmp_message(icmp_type, code, rest, source, &destination, &quotation);
    let intact = intact && input.byte().is_none_or(|damage| damage & 1 == 0);
    if !intact {
        error = traffic::damaged(input, error)?;
    }
    let outcome = net.offer_on(0, about.to, error.clone(), Offload::default());
    if parse(&error, Offload::default()).is_ok_and(|packet| matches!(packet.kind, Kind::IcmpError(_))) {
        assert_eq!(remembered(&net), before, "an error neither makes nor refreshes nor ends anything");
    }
    let outcome = outcome?;
    let out = outcome.verdict.ok()?;
    let packet = parse(&outcome.bytes, Offload::default()).expect("what leaves is right");
    sums::assert_right_header(&outcome.bytes);
    if let Kind::IcmpError(quote) = packet.kind {
        assert_eq!(sums::error(&outcome.bytes), Some(0));
        // One about a packet that never was is no error to anybody, and rules may admit it.
        if intact {
            assert_eq!(out, about.from);
            assert_eq!(quote.tuple.source, packet.tuple.destination, "about a packet of the receiver's");
            quotes(about, &outcome.bytes[28..], &quotation);
        }
    }
    Some(())
}

/// Connections both ways, and each of their packets.
fn cross(net: &mut Fabric) -> Vec<Crossed> {
    let mut all = Vec::new();
    let mut send = |from, sent: Vec<u8>| {
        let outcome = net.offer_on(0, from, sent.clone(), Offload::default()).expect("no fragment");
        let to = outcome.verdict.expect("it is forwarded");
        all.push(Crossed { from, sent, to, received: outcome.bytes.clone() });
        let port = |at: usize| u16::from_be_bytes([outcome.bytes[at], outcome.bytes[at + 1]]);
        (port(20), port(24))
    };
    let (syn, syn_ack) = (TcpFacts::SYN, TcpFacts::SYN | TcpFacts::ACK);
    let gateway = |port: u16| format!("198.51.100.20:{port}");
    let (port, _) = send(APP.1, craft::tcp(syn, "10.0.2.20:5000", "203.0.113.5:443"));
    send(INTERNET, craft::tcp(syn_ack, "203.0.113.5:443", gateway(port).as_str()));
    let (port, _) = send(APP.1, craft::udp("10.0.2.20:5000", "203.0.113.5:53", b"question"));
    send(INTERNET, craft::udp("203.0.113.5:53", gateway(port).as_str(), b"answer"));
    let (_, identifier) = send(APP.1, craft::ping(Echo::Request, "10.0.2.20", "203.0.113.5", 77, 1));
    send(INTERNET, craft::ping(Echo::Reply, "203.0.113.5", "198.51.100.20", identifier, 1));
    send(WEB.1, craft::udp("10.0.1.10:5000", "203.0.113.5:53", &[7; 100]));
    send(INTERNET, craft::udp("203.0.113.5:53", "198.51.100.10:5000", &[]));
    send(INTERNET, craft::tcp(syn, "203.0.113.5:6000", "198.51.100.10:80"));
    send(APP.1, craft::tcp(syn, "10.0.2.20:5000", "10.0.2.30:5432"));
    send(DB.1, craft::tcp(syn_ack, "10.0.2.30:5432", "10.0.2.20:5000"));
    all
}

/// What must stay as it is.
fn remembered(net: &Fabric) -> impl PartialEq + std::fmt::Debug + use<> {
    let connections = report::connections(&net.state, net.now).into_iter();
    let leases = report::leases(&net.state, net.now).into_iter();
    (
        connections
            .map(|one| (one.eni, one.outbound, one.state, one.idle_ms, one.timeout_ms))
            .collect::<Vec<_>>(),
        leases.map(|one| (one.inside, one.port, one.state, one.idle_ms, one.timeout_ms)).collect::<Vec<_>>(),
    )
}

/// The error quotes the packet as it was sent, with the TTL that it had at the end, and no more of it than before.
fn quotes(about: &Crossed, quote: &[u8], received: &[u8]) {
    let mut sent = about.sent.clone();
    sent = craft::with_ttl(sent, received[8]);
    assert_eq!(quote.len(), received.len());
    sent.truncate(quote.len());
    let mut quote = quote.to_vec();
    if sent[9] == sums::TCP && quote.len() == 37 {
        // Half a checksum cannot be updated.
        (quote[36], sent[36]) = (0, 0);
    }
    assert_eq!(quote, sent);
}

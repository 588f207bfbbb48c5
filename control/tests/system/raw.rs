//! Packets that no system sends by itself, made with scapy: what becomes of each, byte for byte. The steps are in `scapy/`.

use std::path::Path;
use std::process::Command;

use crate::harness::command::run;
use crate::harness::{Lab, behind_a_nat_gateway};

/// app is behind a NAT gateway and takes nothing in; web has an Elastic IP and takes TCP and UDP, but no ICMP.
const FILE: &str = behind_a_nat_gateway!(
    "    security_groups:
      web: { inbound: [ { tcp: all, from: 0.0.0.0/0 }, { udp: all, from: 0.0.0.0/0 } ] }
      app: {}
    instances:
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: web }
      app: { subnet: private, ip: 10.0.2.20, security_groups: app }
internet:
  hosts:
    one: { ip: 198.51.100.10 }
    two: { ip: 198.51.100.11 }
"
);

/// What became of each step.
struct Found(Vec<(String, String)>);

/// Brings the lab up and runs these cases in it.
#[track_caller]
fn found(cases: &str) -> Option<Found> {
    let lab = Lab::up(FILE)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/scapy/raw.py");
    // Not `python3`: what comes first in PATH need not be the one that scapy was installed for.
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-B").arg(script).args([cases, &lab.name]).arg(lab.run_dir());
    let done = run(&mut python).ok();
    Some(Found(serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"))))
}

impl Found {
    /// Takes a step out.
    #[track_caller]
    fn take(&mut self, step: &str) -> String {
        let at = self.0.iter().position(|(name, _)| name == step).expect("a step of this name");
        self.0.remove(at).1
    }

    /// Requires that these are the steps, and this is what became of them; and that nothing else came to anybody.
    #[track_caller]
    fn are(&self, expected: &[(&str, &str)]) {
        let expected = expected.iter().chain([&("nobody else got anything", "nobody")]);
        let expected: Vec<String> = expected.map(|(step, outcome)| format!("{step}: {outcome}")).collect();
        let found: Vec<String> = self.0.iter().map(|(step, outcome)| format!("{step}: {outcome}")).collect();
        let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
        let surplus: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "expected {missing:#?}\nfound {surplus:#?}");
    }
}

#[test]
fn rfc5961_natgw_18_natgw_22_segments_that_do_not_fit() {
    let Some(found) = found("tcp") else { return };
    found.are(&[
        // RFC 5961 §3: a RST closes at exactly the number that comes next. All pass, for AWS documents no checks; none is believed.
        ("RST before the window", "arrives, established"),
        ("RST in the window, not next", "arrives, established"),
        ("RST beyond the window", "arrives, established"),
        ("the challenge ACK", "arrives"),
        ("data after them", "arrives"),
        // It is believed; data behind it shows that it was not its sender's own (RFC 7857 §2).
        ("RST that is next", "arrives, closed"),
        ("data after that", "arrives, established"),
        // Both ends are judged alike.
        ("RST from inside, not next", "arrives, established"),
        ("RST from inside", "arrives, closed"),
        // RFC 5961 §4: it changes nothing; the challenge ACK passes, and so does the RST that answers that. Then it may begin anew.
        ("SYN on an established connection", "arrives, established"),
        ("its challenge ACK", "arrives, established"),
        ("the RST that follows", "arrives, closed"),
        ("the SYN once more", "arrives, new"),
        // Data that was acknowledged already passes again.
        ("data", "arrives"),
        ("the acknowledgement of data", "arrives"),
        ("the same data", "arrives"),
        ("the acknowledgement of the same data", "arrives"),
        ("data far beyond the window", "arrives, established"),
        // A late SYN-ACK of an earlier connection passes, and so does the RST about it; the connection still opens.
        ("SYN", "arrives, new"),
        ("an old SYN-ACK", "arrives, new"),
        ("the RST about it", "arrives, new"),
        ("the right SYN-ACK", "arrives, new"),
        ("the ACK", "arrives, established"),
        // TCP Fast Open (RFC 7413).
        ("SYN with data", "arrives, new"),
        ("its SYN-ACK", "arrives, new"),
        ("its ACK", "arrives, established"),
        // RFC 5382 REQ-2.
        ("SYN out", "arrives, new"),
        ("SYN in", "arrives, new"),
        ("SYN-ACK out", "arrives, new"),
        ("SYN-ACK in", "arrives, established"),
        // A RST that refuses must acknowledge the SYN.
        ("SYN to a closed port", "arrives"),
        ("RST that acknowledges something else", "arrives, new"),
        ("RST that acknowledges the SYN", "arrives, closed"),
        // A closed connection is not opened from outside (NATGW-18); from inside the same ports begin another one, by the same port of
        // the gateway (NATGW-14: the far end may still hold the old one).
        ("FIN", "arrives, closing"),
        ("FIN of the other", "arrives, closed"),
        ("the last ACK", "arrives, closed"),
        ("SYN from outside on the closed connection", "NGW_NO_CONNECTION"),
        ("SYN from inside on the closed connection", "arrives, new"),
        ("its port", "the same"),
        ("the reply to it", "arrives"),
        // NATGW-22: as if the server had said so, though app's ENI lets nothing in. A RST is not answered.
        (
            "A out of the blue",
            "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP R seq 88 ack 0",
        ),
        (
            "PA out of the blue",
            "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP R seq 88 ack 0",
        ),
        (
            "FA out of the blue",
            "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP R seq 88 ack 0",
        ),
        (
            "SA out of the blue",
            "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP R seq 88 ack 0",
        ),
        ("RA out of the blue", "NGW_NO_CONNECTION"),
        ("R out of the blue", "NGW_NO_CONNECTION"),
        // NATGW-18: a lease is for one far end.
        ("SYN from another host", "NGW_NO_CONNECTION"),
        ("ACK from another host", "NGW_NO_CONNECTION"),
        ("RST from another host", "NGW_NO_CONNECTION"),
        ("ACK from another port", "NGW_NO_CONNECTION"),
        ("the connection goes on", "arrives"),
        // Whatever is no SYN is out of the blue.
        ("no flags", "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP RA seq 0 ack 10"),
        ("Xmas", "NGW_NO_CONNECTION; answered 198.51.100.10 > 10.0.2.20 ttl 64 TCP RA seq 0 ack 11"),
        ("SYN and FIN", "arrives"),
        ("SYN and RST", "NGW_NO_CONNECTION"),
        ("all flags", "NGW_NO_CONNECTION"),
    ]);
}

#[test]
fn natgw_27_rfc1858_rfc5722_fragments_in_any_order_and_those_that_attack() {
    let Some(found) = found("fragments") else { return };
    found.are(&[
        // NATGW-27: UDP fragments pass, in whatever order; what came before the first leaves behind it. The checksum, in the first alone,
        // is that of the whole translated datagram.
        ("UDP out, in order", "arrives"),
        ("UDP out, backwards", "arrives"),
        ("UDP out, the first in the middle", "arrives"),
        ("UDP out, a fragment twice", "arrives"),
        ("UDP out, 8 bytes each", "arrives"),
        ("UDP in, in order", "arrives"),
        ("UDP in, backwards", "arrives"),
        ("UDP in, the first in the middle", "arrives"),
        ("UDP in, unasked", "3 NGW_NO_CONNECTION"),
        // NATGW-27, and IGW: all of them pass there.
        ("TCP through the NAT gateway", "NGW_FRAGMENT"),
        ("TCP through the internet gateway", "arrives"),
        ("ping through the NAT gateway", "NGW_FRAGMENT"),
        ("ping through the internet gateway", "arrives"),
        // RFC 1858, RFC 5722: what overlaps ends its datagram. What has left has left; a receiver without the rest drops it.
        ("before one that overlaps the first by 8 bytes", "arrives"),
        ("one that overlaps the first by 8 bytes", "FRAGMENT_OVERLAP"),
        ("the rest after one that overlaps the first by 8 bytes", "FRAGMENT_OVERLAP"),
        ("before teardrop: one inside the first", "arrives"),
        ("teardrop: one inside the first", "FRAGMENT_OVERLAP"),
        ("the rest after teardrop: one inside the first", "FRAGMENT_OVERLAP"),
        ("before one that covers the first", "arrives"),
        ("one that covers the first", "FRAGMENT_OVERLAP"),
        ("the rest after one that covers the first", "FRAGMENT_OVERLAP"),
        ("before an end that contradicts", "arrives"),
        ("the end", "arrives"),
        ("one beyond the end", "FRAGMENT_OVERLAP"),
        // RFC 1858 §3, RFC 3128: no TCP header in two fragments.
        ("TCP, 8 bytes first", "FRAGMENT_TINY"),
        ("TCP, 16 bytes first", "FRAGMENT_TINY"),
        ("TCP at offset 8", "FRAGMENT_TINY"),
        ("TCP at offset 16", "FRAGMENT_TINY"),
        // RFC 6274 §3.7: nothing beyond 65,535 bytes.
        ("ping of death", "FRAGMENT_BEYOND_65535"),
        ("no multiple of 8, and more follow", "FRAGMENT_MALFORMED"),
        ("without data", "FRAGMENT_MALFORMED"),
        ("an ICMP error in fragments", "FRAGMENT_MALFORMED"),
    ]);
}

#[test]
fn igw_17_natgw_20_rfc5508_icmp_errors_both_ways_forged_and_made_here() {
    let Some(mut found) = found("icmp") else { return };
    let flood = found.take("a flood");
    let count = |word: usize| flood.split(' ').nth(word).and_then(|it| it.parse().ok()).unwrap_or(0);
    // RFC 1812 §4.3.2.8. How many exactly depends on the time that it takes to send them.
    let (answered, not): (u32, u32) = (count(0), count(2));
    assert!(answered >= 100 && not > 0 && answered + not == 600, "{flood}");
    found.are(&[
        // RFC 5508 REQ-4, IGW-17: translated back to what app has sent, checksums included; related, so app's group need not admit it.
        ("a datagram", "arrives"),
        ("fragmentation needed about TCP", "arrives"),
        ("time exceeded about TCP", "arrives"),
        ("port unreachable about TCP", "arrives"),
        ("source quench about TCP", "arrives"),
        ("time exceeded that quotes 8 bytes of TCP", "arrives"),
        ("fragmentation needed about UDP", "arrives"),
        ("time exceeded about UDP", "arrives"),
        ("port unreachable about UDP", "arrives"),
        ("source quench about UDP", "arrives"),
        ("time exceeded that quotes 8 bytes of UDP", "arrives"),
        // RFC 5508 REQ-5: with the public address, outside and in the quote.
        ("a reply", "arrives"),
        ("port unreachable about the reply", "arrives"),
        ("host unreachable about a ping", "arrives"),
        // About what nobody has sent (RFC 5508 REQ-4), and for the last from inside.
        ("forged: another port", "UNRELATED_ICMP_ERROR"),
        ("forged: another far port", "UNRELATED_ICMP_ERROR"),
        ("forged: another far host", "UNRELATED_ICMP_ERROR"),
        ("forged: the quote is of somebody else", "UNRELATED_ICMP_ERROR"),
        ("forged: another protocol", "UNRELATED_ICMP_ERROR"),
        ("forged: an error about an error", "UNRELATED_ICMP_ERROR"),
        ("forged: from inside, about nothing", "UNRELATED_ICMP_ERROR"),
        ("the connection goes on", "arrives"),
        // RFC 5508 REQ-3, REQ-3a; RFC 792: the header and 64 bits are quoted.
        ("a wrong ICMP checksum", "WRONG_ICMP_CHECKSUM"),
        ("a wrong checksum in the quoted header", "WRONG_ICMP_CHECKSUM"),
        ("a quote of 4 bytes behind the header", "TRUNCATED_PACKET"),
        ("half a header quoted", "TRUNCATED_PACKET"),
        ("nothing quoted", "TRUNCATED_PACKET"),
        // SG-41: web's rules leave UDP untracked and do not admit ICMP.
        ("about an untracked datagram", "ENI_SG_RULES_MISMATCH"),
        ("a reply to web", "arrives"),
        ("web's error about it", "arrives"),
        // NATGW-20: from the address that its sender knows. What is for the gateway itself is not forwarded, so its TTL does not matter.
        // No error about an error (RFC 1812 §4.3.2.7).
        ("TTL 1 out", "TTL_EXCEEDED; answered 10.0.1.100 > 10.0.2.20 ttl 64 ICMP 11/0 about 10.0.2.20 > 198.51.100.10"),
        ("TTL 1 in", "TTL_EXCEEDED; answered 203.0.113.20 > 198.51.100.10 ttl 64 ICMP 11/0 about 198.51.100.10 > 203.0.113.20"),
        ("TTL 1, to the gateway itself", "NGW_NO_CONNECTION"),
        ("TTL 1, an error", "TTL_EXCEEDED"),
    ]);
}

#[test]
fn natgw_9_sg_30_rfc1812_packets_that_are_wrong_or_rare() {
    let Some(found) = found("odd") else { return };
    found.are(&[
        // RFC 1812 §5.2.2: discarded in silence, and counted.
        ("a wrong header checksum", "WRONG_IP_CHECKSUM"),
        ("IP version 6 over IPv4", "NOT_IPV4"),
        ("IP version 0", "NOT_IPV4"),
        ("a header of 16 bytes", "MALFORMED_IP_HEADER"),
        ("a header longer than the packet", "MALFORMED_IP_HEADER"),
        ("a total length below the header's", "MALFORMED_IP_HEADER"),
        ("a total length beyond the packet", "TRUNCATED_PACKET"),
        ("half a header", "TRUNCATED_PACKET"),
        // What links add at the end is not carried. Internet gateways are no hops (PKT-2): the TTL does not matter.
        ("padding behind the packet", "arrives"),
        ("TTL 0", "arrives"),
        ("the reserved flag", "arrives"),
        // RFC 6274 §3.13: options are not carried.
        ("option: record route", "IP_OPTIONS"),
        ("option: loose source route", "IP_OPTIONS"),
        ("option: timestamp", "IP_OPTIONS"),
        // Updated, never repaired (RFC 1812 §5.3.14): they are as wrong as before.
        ("a wrong UDP checksum", "arrives"),
        ("a wrong TCP checksum", "arrives"),
        ("UDP without a checksum", "arrives"),
        // RFC 9293 §3.1, RFC 768, RFC 792.
        ("half a TCP header", "MALFORMED_TRANSPORT_HEADER"),
        ("a TCP header of 16 bytes", "MALFORMED_TRANSPORT_HEADER"),
        ("a TCP header beyond the segment", "MALFORMED_TRANSPORT_HEADER"),
        ("half a UDP header", "MALFORMED_TRANSPORT_HEADER"),
        ("a UDP length below the header's", "MALFORMED_TRANSPORT_HEADER"),
        ("a UDP length beyond the datagram", "MALFORMED_TRANSPORT_HEADER"),
        ("half an ICMP header", "MALFORMED_TRANSPORT_HEADER"),
        // PKT-7, ENI-4: the source must be one's own. app's group admits nobody, not even app. What comes from outside under web's public
        // address is for web from elsewhere.
        ("land: app to itself", "SG_HAS_NO_RULES"),
        ("land: from outside, as web to web", "arrives"),
        ("land: from outside, as the NAT gateway to itself", "NGW_NO_CONNECTION"),
        ("as a neighbour", "ENI_SOURCE_DEST_CHECK_RESTRICTION"),
        ("as the router", "ENI_SOURCE_DEST_CHECK_RESTRICTION"),
        ("as web's Elastic IP, from web", "ENI_SOURCE_DEST_CHECK_RESTRICTION"),
        // VPC-30, RFC 1812 §5.3.7.
        ("from outside, as loopback", "NOT_UNICAST"),
        ("from outside, as 0.0.0.0", "NOT_UNICAST"),
        ("from outside, as broadcast", "NOT_UNICAST"),
        ("from outside, as multicast", "NOT_UNICAST"),
        ("to loopback", "NOT_UNICAST"),
        ("to 0.0.0.0", "NOT_UNICAST"),
        ("to broadcast", "NOT_UNICAST"),
        ("to the subnet's broadcast", "NO_POSSIBLE_DESTINATION"),
        // NATGW-9: TCP, UDP and ICMP only. The internet gateway translates addresses (IGW-3); the reply of the same protocol is admitted (SG-30).
        ("GRE through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("GRE to the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("GRE through the internet gateway", "arrives"),
        ("GRE in reply", "arrives"),
        ("ESP through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("ESP to the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("ESP through the internet gateway", "arrives"),
        ("ESP in reply", "arrives"),
        ("SCTP through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("SCTP to the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("SCTP through the internet gateway", "arrives"),
        ("SCTP in reply", "arrives"),
        ("protocol 253 through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("protocol 253 to the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("protocol 253 through the internet gateway", "arrives"),
        ("protocol 253 in reply", "arrives"),
        ("ESP that nobody asked for", "ENI_SG_RULES_MISMATCH"),
        ("an empty packet", "arrives"),
        // RFC 5508 REQ-11: of ICMP only echo, and errors.
        ("ICMP timestamp through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("ICMP information through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("ICMP address mask through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("ICMP router solicitation through the NAT gateway", "PROTOCOL_RESTRICTION"),
        ("an echo reply that answers nothing", "NGW_NO_CONNECTION"),
        ("the same from outside", "NGW_NO_CONNECTION"),
        ("ICMP timestamp through the internet gateway", "arrives"),
    ]);
}

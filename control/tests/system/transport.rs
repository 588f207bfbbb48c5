//! Bulk TCP, UDP, and ICMP errors about them, through everything.

use std::io::ErrorKind;
use std::net::UdpSocket;

use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Lab, behind_a_nat_gateway, edit};

/// Anybody may talk to the server, on any protocol.
const OPEN: &str = behind_a_nat_gateway!(
    "    security_groups:
      open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: open, run: localvpc serve 80 }
      app: { subnet: private, ip: 10.0.2.20, security_groups: open }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: localvpc serve 80 }
"
);

#[test]
fn bulk_tcp_crosses_from_9001_to_1500_and_back() {
    let Some(lab) = Lab::up(OPEN) else { return };
    let megabytes = 20 << 20;
    for (who, url) in [
        ("app", "http://198.51.100.10"),
        ("web", "http://198.51.100.10"),
        ("internet", "http://203.0.113.10"),
        ("app", "http://10.0.1.10"),
    ] {
        let body = lab.exec(
            who,
            &format!("curl -sS --max-time 30 -o /dev/null -w %{{size_download}} {url}/bytes/{megabytes}"),
        );
        assert_eq!(body.ok().stdout, megabytes.to_string(), "{who} from {url}");
    }
}

#[test]
fn mtu_3_and_natgw_27_datagrams_that_need_fragments_arrive_identical() {
    let Some(lab) = Lab::up(OPEN) else { return };
    let bind = |who: &str, address: &str| {
        let socket = lab.inside(who, || UdpSocket::bind(address)).expect("an address of the namespace");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        // Kernels set DF on what fits their own link, unless they are asked not to.
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT).expect("an option of Linux");
        socket
    };
    let server = bind("internet", "198.51.100.10:9000");
    let mut buffer = [0; 65_536];
    for (who, address, public) in
        [("app", "10.0.2.20:0", "203.0.113.20"), ("web", "10.0.1.10:0", "203.0.113.10")]
    {
        let client = bind(who, address);
        // One that only the dataplane cuts; one that the sender cuts, and the dataplane cuts again; the largest.
        for size in [3_000, 30_000, 65_507] {
            let payload: Vec<u8> = (0..size).map(|at| (at * 7 / 3) as u8).collect();
            client.send_to(&payload, "198.51.100.10:9000").expect("it can be sent");
            let (length, from) = server.recv_from(&mut buffer).expect("it arrives");
            assert!(buffer[..length] == payload, "{who}: {size} bytes arrive identical");
            assert_eq!(from.ip().to_string(), public);
            server.send_to(&payload, from).expect("it can be answered");
            let length = client.recv(&mut buffer).expect("the answer arrives");
            assert!(buffer[..length] == payload, "{who}: {size} bytes come back identical");
        }
    }
}

#[test]
fn natgw_27_a_ping_in_fragments_passes_the_internet_gateway_but_no_nat_gateway() {
    let Some(lab) = Lab::up(OPEN) else { return };
    lab.exec("web", "ping -n -M dont -s 10000 -c 1 -W 10 198.51.100.10").ok();
    lab.exec("app", "ping -n -M dont -s 10000 -c 1 -W 10 10.0.1.10").ok();
    lab.ping_is_cut("app", "-M dont -s 10000 198.51.100.10", "NGW_FRAGMENT");
}

#[test]
fn udp_passes_between_subnets_and_through_the_nat_gateway() {
    let Some(lab) = Lab::up(OPEN) else { return };
    let bind = |who: &str, address: &str| {
        let socket = lab.inside(who, || UdpSocket::bind(address)).expect("an address of the namespace");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket
    };
    let app = bind("app", "10.0.2.20:0");
    let mut buffer = [0; 10_000];
    for (who, address, size) in [("web", "10.0.1.10:9000", 8_900), ("internet", "198.51.100.10:9000", 1_400)]
    {
        let server = bind(who, address);
        let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
        app.send_to(&payload, address).expect("it can be sent");
        let (length, from) = server.recv_from(&mut buffer).expect("it arrives");
        assert_eq!(buffer[..length], payload);
        let expected = if who == "internet" { "203.0.113.20" } else { "10.0.2.20" };
        assert_eq!(from.ip().to_string(), expected);
        server.send_to(&payload, from).expect("it can be answered");
        let (length, from) = app.recv_from(&mut buffer).expect("the answer arrives");
        assert_eq!((&buffer[..length], from.to_string()), (&payload[..], address.to_owned()));
    }
}

#[test]
fn udp_larger_than_the_internet_takes_is_told_so() {
    let Some(lab) = Lab::up(&edit(OPEN, "run: localvpc serve 80 }\n      app", "}\n      app")) else {
        return;
    };
    lab.discards("FRAGMENTATION_NEEDED", || {
        let error = lab.inside("web", || {
            let socket = UdpSocket::bind("10.0.1.10:0").expect("an address of the namespace");
            socket.connect("198.51.100.10:9000").expect("a route");
            // The kernel sets DF; the answer makes a later send fail.
            wait::until("EMSGSIZE", || socket.send(&[0; 3_000]).err())
        });
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
    });
}

#[test]
fn sg_42_icmp_errors_about_a_connection_come_back_through_the_nat_gateway() {
    // Nobody may send to app, and an error about what it has sent arrives all the same.
    let open = "open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }";
    let config = edit(OPEN, open, &format!("{open}\n      closed: {{}}"));
    let config =
        edit(&config, "ip: 10.0.2.20, security_groups: open", "ip: 10.0.2.20, security_groups: closed");
    let Some(lab) = Lab::up(&config) else { return };
    let error = lab.inside("app", || {
        let socket = UdpSocket::bind("10.0.2.20:0").expect("an address of the namespace");
        // Nothing listens there: the host answers with port unreachable.
        socket.connect("198.51.100.10:9").expect("a route");
        wait::until("an error", || socket.send(b"anybody?").err())
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

//! UDP datagrams per second: `sendmmsg` on one side, `recvmmsg` on the other.
//!
//! They are counted twice: by the devices of the receiver's namespace, and by the receiving socket. The device may
//! count super-packets of many datagrams as one packet, so datagrams are told from bytes:
//!
//! ```text
//! datagrams = (bytes - packets × headers) / payload
//! ```

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::socket::{GLANCE, receive, send, set, wait_until};
use crate::{Endpoint, Error, Span, Trying, cpu};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Bytes of payload in a datagram.
    pub payload: u16,
    /// Sockets that send, each from a thread of its own.
    pub senders: usize,
    /// How datagrams are handed to the kernel.
    pub handing: Handing,
}

/// How datagrams are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handing {
    /// Each for itself, 64 to a system call.
    Single,
    /// As super-packets of up to 64 datagrams, which the kernel splits as late as it can (`UDP_SEGMENT`).
    Segmented,
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Arrived {
    /// Datagrams per second that the receiving socket got.
    pub by_socket: f64,
    /// Datagrams per second that the devices of the receiver's namespace got.
    pub by_device: f64,
    /// Datagrams per second that the senders' kernel took.
    pub sent: f64,
    /// Processor time of the whole machine per 10⁹ bytes that the socket got; none where it cannot be read.
    pub cpu_seconds_per_gigabyte: Option<f64>,
}

/// What stands before the payload where a device counts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// IP and UDP: a TUN device.
    Ip,
    /// Ethernet, IP and UDP: a veth device.
    Ethernet,
}

/// Sends as fast as it goes, without regard to what arrives.
///
/// # Errors
///
/// The first thing that failed; [`Error::Nothing`] when nothing arrived.
pub fn flood(
    from: &Endpoint,
    to: &Endpoint,
    port: u16,
    flood: Flood,
    framing: Framing,
    span: Span,
) -> Result<Arrived, Error> {
    let receiver = receive(to, port)?;
    receiver.set_read_timeout(Some(GLANCE)).trying("set up a socket")?;
    let mut senders = Vec::with_capacity(flood.senders);
    for _ in 0..flood.senders {
        senders.push(sender(from, to, port, flood)?);
    }
    let (over, sent, got) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for socket in &senders {
            scope.spawn(|| send_on(socket, flood, &over, &sent));
        }
        scope.spawn(|| receive_on(&receiver, &over, &got));
        let outcome = (|| {
            let sample = || {
                let device = to.received()?;
                let (sent, got) = (sent.load(Ordering::Relaxed), got.load(Ordering::Relaxed));
                Ok::<_, Error>((Instant::now(), sent, got, device, cpu::busy()))
            };
            wait_until(Instant::now() + span.warm_up);
            let (began, sent_before, got_before, device_before, busy_before) = sample()?;
            wait_until(began + span.time);
            let (ended, sent_after, got_after, device_after, busy_after) = sample()?;
            let time = (ended - began).as_secs_f64();
            let got = (got_after - got_before) as f64;
            if got == 0.0 {
                return Err(Error::Nothing { address: to.connect_to(port), within: span.time });
            }
            let bytes = device_after.bytes - device_before.bytes;
            let packets = device_after.packets - device_before.packets;
            let payload = bytes.saturating_sub(packets * framing.headers());
            let busy = busy_after.zip(busy_before).map(|(after, before)| after.saturating_sub(before));
            let gigabytes = got * f64::from(flood.payload) / 1e9;
            Ok(Arrived {
                by_socket: got / time,
                by_device: payload as f64 / f64::from(flood.payload) / time,
                sent: (sent_after - sent_before) as f64 / time,
                cpu_seconds_per_gigabyte: busy.map(|busy| busy.as_secs_f64() / gigabytes),
            })
        })();
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

impl Framing {
    fn headers(self) -> u64 {
        const IP_AND_UDP: u64 = 20 + 8;
        match self {
            Self::Ip => IP_AND_UDP,
            Self::Ethernet => IP_AND_UDP + 14,
        }
    }
}

fn sender(from: &Endpoint, to: &Endpoint, port: u16, flood: Flood) -> Result<UdpSocket, Error> {
    let socket = send(from, to, port)?;
    if flood.handing == Handing::Segmented {
        set(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, flood.payload.into())
            .trying("have datagrams segmented by the kernel (UDP_SEGMENT, Linux 4.18)")?;
    }
    // However full the device: the thread must see the end.
    socket.set_write_timeout(Some(GLANCE)).trying("set up a socket")?;
    Ok(socket)
}

fn send_on(socket: &UdpSocket, flood: Flood, over: &AtomicBool, sent: &AtomicU64) {
    let (messages, datagrams) = match flood.handing {
        Handing::Single => (BATCH, 1),
        Handing::Segmented => (SUPER_BATCH, (LARGEST / usize::from(flood.payload).max(1)).clamp(1, SEGMENTS)),
    };
    let message = vec![0x5a_u8; usize::from(flood.payload) * datagrams];
    let mut batch = Batch::of(message, messages);
    while !over.load(Ordering::Relaxed) {
        // A device that is full, or a host that answers with an error: the next may get through.
        let count = batch.send(socket).unwrap_or(0);
        sent.fetch_add((count * datagrams) as u64, Ordering::Relaxed);
    }
}

fn receive_on(socket: &UdpSocket, over: &AtomicBool, got: &AtomicU64) {
    let mut batch = Batch::of(vec![0; RECEIVED], BATCH);
    while !over.load(Ordering::Relaxed) {
        let count = batch.receive(socket).unwrap_or(0);
        got.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Messages of one system call. All are the same bytes: what is in them is nobody's business.
struct Batch {
    /// Pointed to by every element of `parts`.
    _content: Vec<u8>,
    /// Pointed to by the elements of `headers`.
    _parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    fn of(mut content: Vec<u8>, messages: usize) -> Self {
        let part = libc::iovec { iov_base: content.as_mut_ptr().cast(), iov_len: content.len() };
        let mut parts = vec![part; messages];
        let headers = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: an all-zero mmsghdr is valid: it is plain data, without address and control messages.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self { _content: content, _parts: parts, headers }
    }

    /// How many messages were taken.
    fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (headers, length) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        // SAFETY: `length` headers, with the vectors and buffers they point to, live in `self`.
        check(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, length, 0) })
    }

    /// How many messages came: those that wait, or the next.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (headers, length) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        let flags = libc::MSG_WAITFORONE;
        // SAFETY: as in `send`; the kernel writes into the one buffer again and again, which nobody reads.
        check(unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, length, flags, std::ptr::null_mut()) })
    }
}

fn check(count: libc::c_int) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Messages to a system call.
const BATCH: usize = 64;

/// Super-packets to a system call.
const SUPER_BATCH: usize = 4;

/// Datagrams to a super-packet: `UDP_MAX_SEGMENTS` of the kernels before 6.9.
const SEGMENTS: usize = 64;

/// Bytes to a super-packet, headers left out.
const LARGEST: usize = 65_507;

/// Room for a datagram; the rest of a larger one is dropped, and it counts.
const RECEIVED: usize = 2048;

//! Carries envelopes with their descriptors over `dataplane.sock`; both sides use it.
//!
//! One packet of the SOCK_SEQPACKET socket is one [`Envelope`]. Content that does not
//! fit into [`MAX_MESSAGE`] bytes goes into a sealed memfd, and comes out of one,
//! without the caller noticing. Descriptors that arrive beside a message are owned from
//! the moment of receipt: whatever is wrong with the message, they are closed.
//!
//! A [`Channel`] blocks when its socket does. On a non-blocking socket every call may
//! fail with [`std::io::ErrorKind::WouldBlock`], and nothing was sent or received.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::message::{Body, Envelope, Error, MAX_BODY, MAX_DESCRIPTORS, MAX_MESSAGE};

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A message that arrived whole.
#[derive(Debug)]
pub struct Received<T> {
    /// The number that ties a reply to its request.
    pub id: u64,
    /// What it carries.
    pub content: T,
    /// Descriptors that came beside it, close-on-exec; a memfd that held the content is not among them.
    pub descriptors: Vec<OwnedFd>,
}

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The message is larger than the protocol allows, or carries too many descriptors. Nothing was sent.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The socket, or the memfd of a large message, failed.
    #[error("sending to the other side failed: {0}")]
    Io(#[from] io::Error),
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// A packet came, and is no message of this protocol. Its descriptors are closed.
    #[error("{error}")]
    Refused {
        /// The number of the message as far as it could be read, otherwise 0.
        id: u64,
        /// What is wrong with it: what the other side should be told.
        error: Error,
    },
    /// The socket failed.
    #[error("receiving from the other side failed: {0}")]
    Io(#[from] io::Error),
}

impl Channel {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says: nothing there (`NotFound`), nobody listens
    /// (`ConnectionRefused`), a path beyond 107 bytes (`InvalidInput`).
    pub fn connect(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)?;
        Ok(Self { socket })
    }

    /// Two connected channels, for tests and for parent and child.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Bounds every later send and receive; `None` waits for ever. What takes longer fails with `WouldBlock`.
    ///
    /// # Errors
    ///
    /// A zero duration is invalid.
    pub fn limit(&self, patience: Option<Duration>) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, patience)?;
        Ok(sockopt::set_socket_timeout(&self.socket, Timeout::Send, patience)?)
    }

    /// Sends one message with descriptors beside it; the caller keeps its own copies.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent.
    pub fn send<T: Serialize>(
        &self,
        id: u64,
        content: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        let packet = to_json(&Envelope { id, body: Body::Inline(content) })?;
        if packet.len() <= MAX_MESSAGE {
            return self.send_packet(&packet, descriptors);
        }
        let body = to_json(content)?;
        let length = body.len() as u64;
        if length > MAX_BODY {
            return Err(Error::TooLarge { limit: MAX_BODY }.into());
        }
        let memfd = sealed_memfd(&body)?;
        let packet = to_json(&Envelope { id, body: Body::<()>::Memfd { length } })?;
        let mut all = descriptors.to_vec();
        all.push(memfd.as_fd());
        self.send_packet(&packet, &all)
    }

    /// Receives one message.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; after `Refused` the connection is in order, but the other side
    /// is not to be trusted to go on.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, ReceiveError> {
        // One byte more than allowed, so that a packet of the largest size is told from a larger one.
        let mut packet = vec![0; MAX_MESSAGE + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut into = [IoSliceMut::new(&mut packet)];
            match rustix::net::recvmsg(&self.socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(ReceiveError::Io(error.into())),
            }
        };
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let packet = &packet[..got.bytes.min(MAX_MESSAGE + 1)];
        if packet.is_empty() && descriptors.is_empty() {
            return Err(ReceiveError::Closed);
        }
        let refused = |error| ReceiveError::Refused { id: readable_id(packet), error };
        if packet.len() > MAX_MESSAGE || got.flags.contains(ReturnFlags::TRUNC) {
            return Err(refused(Error::TooLarge { limit: MAX_MESSAGE as u64 }));
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            let detail = "descriptors beside the message were lost: raise the limit of open files".into();
            return Err(refused(Error::Failed { detail }));
        }
        let envelope: Envelope<T> = from_json(packet).map_err(refused)?;
        let content = match envelope.body {
            Body::Inline(content) => content,
            Body::Memfd { length } => {
                let index = descriptors.len().saturating_sub(1) as u32;
                let memfd = descriptors
                    .pop()
                    .ok_or_else(|| refused(Error::Descriptors { received: 0, expected: 1 }))?;
                let body = read_sealed(memfd, index, length).map_err(refused)?;
                from_json(&body).map_err(refused)?
            }
        };
        Ok(Received { id: envelope.id, content, descriptors })
    }

    fn send_packet(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            let (received, expected) = (descriptors.len() as u32, MAX_DESCRIPTORS as u32);
            return Err(Error::Descriptors { received, expected }.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            unreachable!("the space is for MAX_DESCRIPTORS");
        }
        loop {
            match rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(packet)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(SendError::Io(error.into())),
            }
        }
    }
}

impl From<OwnedFd> for Channel {
    /// Wraps a connected SOCK_SEQPACKET socket.
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a memfd must not allow any more when it is handed over: its content is fixed.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

fn sealed_memfd(body: &[u8]) -> io::Result<OwnedFd> {
    let memfd =
        rustix::fs::memfd_create("localvpc-message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memfd);
    file.write_all(body)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

fn read_sealed(memfd: OwnedFd, index: u32, length: u64) -> Result<Vec<u8>, Error> {
    let unusable = |detail: String| Error::BadDescriptor { index, detail };
    if length > MAX_BODY {
        return Err(Error::TooLarge { limit: MAX_BODY });
    }
    let seals = rustix::fs::fcntl_get_seals(&memfd)
        .map_err(|error| unusable(format!("the body must be in a memfd, and this is none ({error})")))?;
    if !seals.contains(SEALS) {
        return Err(unusable("the memfd must be sealed against writing, shrinking and growing".into()));
    }
    let file = File::from(memfd);
    let size = file.metadata().map_err(|error| unusable(error.to_string()))?.len();
    if size != length {
        return Err(unusable(format!("the memfd holds {size} bytes, {length} were announced")));
    }
    let mut body = Vec::new();
    body.try_reserve_exact(length as usize)
        .map_err(|_| Error::Failed { detail: format!("no memory for a body of {length} bytes") })?;
    body.resize(length as usize, 0);
    file.read_exact_at(&mut body, 0).map_err(|error| unusable(error.to_string()))?;
    Ok(body)
}

/// The id of a message whose rest may be unreadable; 0 where there is none.
fn readable_id(packet: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Id {
        id: u64,
    }
    serde_json::from_slice::<Id>(packet).map_or(0, |message| message.id)
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, SendError> {
    // Only I/O errors, and maps with keys that are no strings, make this fail.
    serde_json::to_vec(value).map_err(|error| SendError::Io(error.into()))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Malformed { detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(channel: &Channel) -> (u64, Error) {
        match channel.receive::<T>() {
            Err(ReceiveError::Refused { id, error }) => (id, error),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn send_raw(channel: &Channel, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        channel.send_packet(packet, descriptors).unwrap();
    }

    /// Whether every descriptor for the pipe's write end but ours is closed.
    fn hung_up(reader: &OwnedFd) -> bool {
        rustix::io::read(reader, &mut [0; 1]) == Ok(0)
    }

    #[test]
    fn a_small_message_arrives_with_its_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let file = sealed_memfd(b"first").unwrap();
        one.send(7, &"hello".to_string(), &[file.as_fd()]).unwrap();
        let got = other.receive::<String>().unwrap();
        assert_eq!((got.id, got.content.as_str(), got.descriptors.len()), (7, "hello", 1));
        let mut text = [0; 5];
        File::from(got.descriptors.into_iter().next().unwrap()).read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"first");
    }

    #[test]
    fn a_large_message_travels_in_a_memfd_and_keeps_its_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let file = sealed_memfd(b"first").unwrap();
        let large = "x".repeat(3 * MAX_MESSAGE);
        one.send(8, &large, &[file.as_fd()]).unwrap();
        let got = other.receive::<String>().unwrap();
        assert_eq!((got.id, got.content == large, got.descriptors.len()), (8, true, 1));
    }

    #[test]
    fn garbage_is_malformed_and_its_descriptors_are_closed() {
        let (one, other) = Channel::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send_raw(&one, b"{\"id\":3,\"body\":", &[writer.as_fd()]);
        drop(writer);
        assert!(matches!(refusal::<String>(&other), (0, Error::Malformed { .. })));
        assert!(hung_up(&reader.into()));
        send_raw(&one, b"{\"id\":3,\"body\":{\"inline\":9}}", &[]);
        assert!(matches!(refusal::<String>(&other), (3, Error::Malformed { .. })));
    }

    #[test]
    fn a_packet_beyond_the_limit_is_too_large() {
        let (one, other) = Channel::pair().unwrap();
        send_raw(&one, &vec![b' '; MAX_MESSAGE + 1], &[]);
        assert_eq!(refusal::<String>(&other).1, Error::TooLarge { limit: MAX_MESSAGE as u64 });
        send_raw(&one, &vec![b' '; 2 * MAX_MESSAGE], &[]);
        assert_eq!(refusal::<String>(&other).1, Error::TooLarge { limit: MAX_MESSAGE as u64 });
    }

    #[test]
    fn a_body_must_be_a_sealed_memfd_of_the_announced_length() {
        let (one, other) = Channel::pair().unwrap();
        let announce = |length: u64| {
            serde_json::to_vec(&Envelope { id: 1, body: Body::<()>::Memfd { length } }).unwrap()
        };
        send_raw(&one, &announce(4), &[]);
        assert_eq!(refusal::<String>(&other).1, Error::Descriptors { received: 0, expected: 1 });

        let sealed = sealed_memfd(b"\"ab\"").unwrap();
        send_raw(&one, &announce(5), &[sealed.as_fd()]);
        assert!(refusal::<String>(&other).1.to_string().contains("holds 4 bytes, 5 were announced"));
        send_raw(&one, &announce(MAX_BODY + 1), &[sealed.as_fd()]);
        assert_eq!(refusal::<String>(&other).1, Error::TooLarge { limit: MAX_BODY });
        send_raw(&one, &announce(4), &[sealed.as_fd()]);
        assert_eq!(other.receive::<String>().unwrap().content, "ab");

        let open = rustix::fs::memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        send_raw(&one, &announce(0), &[open.as_fd()]);
        assert!(refusal::<String>(&other).1.to_string().contains("must be sealed"));
        let (reader, _writer) = std::io::pipe().unwrap();
        send_raw(&one, &announce(0), &[reader.as_fd()]);
        assert!(refusal::<String>(&other).1.to_string().contains("must be in a memfd"));
    }

    #[test]
    fn the_end_of_the_connection_is_told_apart_and_patience_ends() {
        let (one, other) = Channel::pair().unwrap();
        other.limit(Some(Duration::from_millis(1))).unwrap();
        match other.receive::<String>() {
            Err(ReceiveError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            unexpected => panic!("{unexpected:?}"),
        }
        drop(one);
        assert!(matches!(other.receive::<String>(), Err(ReceiveError::Closed)));
    }

    #[test]
    fn more_descriptors_than_the_kernel_takes_are_refused_before_sending() {
        let (one, _other) = Channel::pair().unwrap();
        let file = sealed_memfd(b"").unwrap();
        let many = vec![file.as_fd(); MAX_DESCRIPTORS + 1];
        assert!(matches!(one.send(1, &1u8, &many), Err(SendError::Refused(Error::Descriptors { .. }))));
    }
}

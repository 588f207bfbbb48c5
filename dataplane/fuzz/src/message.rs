//! Any bytes on the dataplane's socket, or in the memfd of a large message.
//!
//! - They are refused, or they say something that comes back the same when it is sent again.
//! - Tables among them are built or refused.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use localvpc_api::message::{Body, Envelope, Reply, Request};
use localvpc_api::socket::{Channel, ReceiveError};
use localvpc_engine::metrics::Metrics;
use localvpc_engine::tables;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Bytes: how the message travels and whom it is for, the message.
pub fn message(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let (one, other) = Channel::pair().expect("a pair of sockets");
    let sent = match how & 1 {
        0 => rustix::net::send(&one, bytes, SendFlags::NOSIGNAL).map(drop),
        _ => in_memfd(&one, bytes),
    };
    if sent.is_err() {
        // Larger than a socket takes.
        return;
    }
    match how & 2 {
        0 => {
            if let Some(Request::Install(rows)) = understood(&one, &other) {
                let metrics = Metrics::default();
                let built = tables::build(&rows, &metrics).map(drop);
                assert_eq!(tables::build(&rows, &metrics).map(drop), built);
            }
        }
        _ => {
            understood::<Reply>(&one, &other);
        }
    }
}

fn understood<T>(one: &Channel, other: &Channel) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let received = match other.receive::<T>() {
        Ok(received) => received,
        Err(ReceiveError::Refused { error, .. }) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
        Err(ReceiveError::Closed) => return None,
        Err(ReceiveError::Io(error)) => panic!("{error}"),
    };
    one.send(received.id, &received.content, &[]).expect("what was received can be sent");
    let again = other.receive::<T>().expect("what was sent is received");
    assert_eq!((again.id, &again.content), (received.id, &received.content));
    Some(received.content)
}

fn in_memfd(channel: &Channel, bytes: &[u8]) -> rustix::io::Result<()> {
    let memfd = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memfd);
    file.write_all(bytes).map_err(|_| rustix::io::Errno::NOSPC)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    let envelope = Envelope { id: 1, body: Body::<()>::Memfd { length: bytes.len() as u64 } };
    let packet = serde_json::to_vec(&envelope).expect("an envelope is JSON");
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one");
    rustix::net::sendmsg(channel, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

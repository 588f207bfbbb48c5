//! One requester: whether it may talk to us, its hello, its requests, its end.
//!
//! What is malformed is answered with a typed error and ends the connection. A request that is
//! understood but cannot be fulfilled is answered with an error and the connection goes on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use localvpc_api::message::{Error, PROTOCOL, Reply, Request};
use localvpc_api::socket::{Channel, ReceiveError, Received};
use rustix::process::Uid;

use super::request::{self, Answer};
use crate::fleet::Fleet;

/// A requester that is connected.
pub(super) struct Connection {
    channel: Channel,
    /// How far it has come.
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    /// Nothing but a hello is answered.
    Silent,
    /// Both sides speak the same protocol.
    Greeted,
}

/// What happens after a request.
#[derive(PartialEq, Eq)]
pub(super) enum Next {
    /// The connection stays open.
    Stay,
    /// The connection is closed.
    Close,
    /// The process ends.
    End,
}

impl Connection {
    /// Takes a requester in, or tells it why not: it must be this user or root, and there must be room.
    pub(super) fn admit(socket: OwnedFd, peer: Uid, own: Uid, room: usize) -> Option<Self> {
        let channel = Channel::from(socket);
        let refusal = if peer != own && !peer.is_root() {
            Error::NotPermitted { uid: peer.as_raw() }
        } else if room == 0 {
            Error::Failed { detail: "too many connections are open; close one".into() }
        } else {
            return Some(Self { channel, stage: Stage::Silent });
        };
        tracing::warn!("a requester was turned away: {refusal}");
        // Whether it listens or not, it is turned away.
        let _ = channel.send(0, &Reply::Error(refusal), &[]);
        None
    }

    /// Answers the request that waits.
    pub(super) fn serve(&mut self, fleet: &Fleet) -> Next {
        let Received { id, content, descriptors } = match self.channel.receive::<Request>() {
            Ok(request) => request,
            Err(ReceiveError::Closed) => return Next::Close,
            Err(ReceiveError::Refused { id, error }) => return self.refuse(id, error),
            Err(ReceiveError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Next::Stay;
            }
            Err(ReceiveError::Io(error)) => {
                tracing::warn!("a connection broke: {error}");
                return Next::Close;
            }
        };
        if let Err(error) = self.greet(&content) {
            return self.refuse(id, error);
        }
        if let Err(error) = request::check_descriptors(&content, descriptors.len(), fleet) {
            return self.refuse(id, error);
        }
        let ends = content == Request::Shutdown;
        // A defect in what serves a request must not end the forwarding.
        let performed = catch_unwind(AssertUnwindSafe(|| request::perform(content, descriptors, fleet)));
        let answer = performed.unwrap_or_else(|_| {
            let detail =
                "a defect in the dataplane, see its log; the tables in force stay as they were".into();
            Answer::from(Reply::Error(Error::Failed { detail }))
        });
        match self.reply(id, &answer) {
            _ if ends => Next::End,
            next => next,
        }
    }

    /// Insists on a hello in our protocol before anything else.
    fn greet(&mut self, request: &Request) -> Result<(), Error> {
        match (request, &self.stage) {
            (&Request::Hello { protocol }, _) if protocol != PROTOCOL => {
                Err(Error::WrongProtocol { offered: protocol, supported: PROTOCOL })
            }
            (Request::Hello { .. }, _) => {
                self.stage = Stage::Greeted;
                Ok(())
            }
            (_, Stage::Silent) => Err(Error::ExpectedHello),
            (_, Stage::Greeted) => Ok(()),
        }
    }

    fn refuse(&self, id: u64, error: Error) -> Next {
        tracing::warn!("a request was refused and its connection closed: {error}");
        // It is closed in any case.
        let _ = self.reply(id, &Answer::from(Reply::Error(error)));
        Next::Close
    }

    fn reply(&self, id: u64, answer: &Answer) -> Next {
        match self.channel.send(id, &answer.reply, &answer.descriptors()) {
            Ok(()) => Next::Stay,
            Err(error) => {
                tracing::warn!("a reply could not be delivered, its connection is closed: {error}");
                Next::Close
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

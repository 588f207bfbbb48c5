//! Answers control on `dataplane.sock`, one request at a time, on the main thread.
//!
//! Requests are served one after the other, so no two pushes overlap. Sockets do not
//! block: a requester that does not take its replies loses its connection, and delays nobody.
//! There is no runtime and no thread per connection: after the start no thread is made
//! any more, and the system call filter forbids it.
//!
//! - `connection`: one requester, from hello to close
//! - `request`: what each request does

mod connection;
mod request;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::fleet::Fleet;
use connection::{Connection, Next};

/// The listening socket and the connections on it.
pub struct Server {
    listener: OwnedFd,
    connections: Vec<Connection>,
}

/// Why the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A requester asked for it.
    Requested,
    /// The descriptor that says so became readable.
    Told,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit into a socket address.
    #[error("{0} is longer than the 107 bytes that a socket's path may have; use a shorter directory")]
    PathTooLong(PathBuf),
    /// Another dataplane lives there.
    #[error("{0} is in use by a running dataplane; stop it first, or use another path")]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot open the socket {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Connections served at a time. Control has one; a few more for a second command beside it.
const MAX_CONNECTIONS: usize = 16;

impl Server {
    /// Listens at `path`, for this user (and root) only. A socket that a dead dataplane left there is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`]
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let address = SocketAddrUnix::new(path).map_err(|_| BindError::PathTooLong(path.into()))?;
        let refused = |errno: Errno| BindError::Io { path: path.into(), source: errno.into() };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let listener = socket().map_err(refused)?;
        // The socket is made with these permissions, so that nobody slips in before they are set.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let mut bound = rustix::net::bind(&listener, &address);
        if bound == Err(Errno::ADDRINUSE) {
            if rustix::net::connect(&socket().map_err(refused)?, &address) != Err(Errno::CONNREFUSED) {
                rustix::process::umask(mask);
                return Err(BindError::InUse(path.into()));
            }
            bound = rustix::fs::unlink(path).and_then(|()| rustix::net::bind(&listener, &address));
        }
        rustix::process::umask(mask);
        bound.and_then(|()| rustix::net::listen(&listener, MAX_CONNECTIONS as i32)).map_err(refused)?;
        Ok(Self { listener, connections: Vec::new() })
    }

    /// Serves until a requester asks for the end, or `end` becomes readable.
    ///
    /// # Errors
    ///
    /// When waiting fails, which it does for want of memory only.
    pub fn run(&mut self, fleet: &Fleet, end: &OwnedFd) -> io::Result<Ending> {
        loop {
            let (ended, connecting, ready) = self.wait(end)?;
            if ended {
                return Ok(Ending::Told);
            }
            let mut requested = false;
            let mut ready = ready.into_iter();
            self.connections.retain_mut(|connection| {
                // One flag per connection, in their order.
                if !ready.next().unwrap_or(false) {
                    return true;
                }
                let next = connection.serve(fleet);
                requested |= next == Next::End;
                next == Next::Stay
            });
            if requested {
                return Ok(Ending::Requested);
            }
            if connecting {
                self.accept();
            }
        }
    }

    /// Waits until something is readable: the end, the listener, each connection.
    fn wait(&self, end: &OwnedFd) -> io::Result<(bool, bool, Vec<bool>)> {
        let mut waited = vec![PollFd::new(end, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let connections = self.connections.iter().map(|connection| connection.as_fd());
        waited.extend(connections.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        while let Err(errno) = poll(&mut waited, None) {
            if errno != Errno::INTR {
                return Err(errno.into());
            }
        }
        let mut ready = waited.iter().map(|waited| !waited.revents().is_empty());
        // The first two are always there.
        let (ended, connecting) = (ready.next() == Some(true), ready.next() == Some(true));
        Ok((ended, connecting, ready.collect()))
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            // Gone again, or out of descriptors: the next one may have more luck.
            Err(errno) => return tracing::debug!("a connection was not accepted: {errno}"),
        };
        let peer = match sockopt::socket_peercred(&socket) {
            Ok(peer) => peer.uid,
            Err(errno) => return tracing::warn!("a requester without credentials was turned away: {errno}"),
        };
        let admitted = Connection::admit(
            socket,
            peer,
            rustix::process::geteuid(),
            MAX_CONNECTIONS - self.connections.len(),
        );
        self.connections.extend(admitted);
    }
}

//! One end of a measurement: an address in a network namespace.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::thread::LinkNameSpaceType;

use crate::Error;

/// An address in a network namespace.
#[derive(Debug)]
pub struct Endpoint {
    /// What the namespace is called, for messages.
    name: String,
    namespace: OwnedFd,
    /// The address that sockets here are bound to.
    pub address: Ipv4Addr,
    /// The address under which the other end reaches it: another one behind an internet gateway.
    pub reached_at: Ipv4Addr,
}

/// What the devices of a namespace, `lo` aside, have received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Endpoint {
    /// An address in the namespace at `path`: `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] when there is none.
    pub fn open(path: &Path, address: Ipv4Addr) -> Result<Self, Error> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(namespace) => Ok(Self::of(&name, namespace.into(), address)),
            Err(source) => Err(Error::Namespace { namespace: name, source }),
        }
    }

    /// An address in a namespace that is open; `name` is for messages.
    pub fn of(name: &str, namespace: OwnedFd, address: Ipv4Addr) -> Self {
        Self { name: name.to_owned(), namespace, address, reached_at: address }
    }

    /// The same, reached by others at another address.
    #[must_use]
    pub fn reached_at(self, reached_at: Ipv4Addr) -> Self {
        Self { reached_at, ..self }
    }

    /// Where a server here binds `port`.
    pub(crate) fn bind_to(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, port)
    }

    /// Where others reach that server.
    pub(crate) fn connect_to(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.reached_at, port)
    }

    /// Runs `task` in a thread inside the namespace and waits for it. Sockets that it makes stay there.
    pub(crate) fn inside<T: Send>(&self, task: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let joined = scope
                .spawn(|| {
                    rustix::thread::move_into_link_name_space(
                        self.namespace.as_fd(),
                        Some(LinkNameSpaceType::Network),
                    )
                    .map_err(|errno| Error::Namespace {
                        namespace: self.name.clone(),
                        source: errno.into(),
                    })?;
                    task()
                })
                .join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What its devices have received.
    pub(crate) fn received(&self) -> Result<Received, Error> {
        self.inside(|| {
            let path = "/proc/thread-self/net/dev";
            fs::read_to_string(path).and_then(|text| received(&text)).map_err(|source| Error::Namespace {
                namespace: format!("{} of {}", path, self.name),
                source,
            })
        })
    }
}

/// Two lines of header, then `name: bytes packets …` for each device.
fn received(text: &str) -> io::Result<Received> {
    let mut sum = Received::default();
    for line in text.lines().skip(2) {
        let (name, numbers) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten().ok_or(io::ErrorKind::InvalidData);
        sum.bytes += next()?;
        sum.packets += next()?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_summed_without_the_loopback() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    9000      90    0    0    0     0          0         0     9000      90    0    0    0     0       0          0
  eth0: 1500000    1000    0    0    0     0          0         0        0       0    0    0    0     0       0          0
 inet0:      28       1    0    0    0     0          0         0        0       0    0    0    0     0       0          0
";
        assert_eq!(received(text).unwrap(), Received { bytes: 1_500_028, packets: 1001 });
        assert!(received("a\nb\nno colon").is_err());
    }
}

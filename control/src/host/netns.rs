//! Makes, marks, opens and removes named network namespaces.
//!
//! A namespace is made as `ip netns add` does it, so that `ip netns exec` works: a thread unshares its
//! network namespace and binds it to a file in `/run/netns`. Before that file shows it, the alias of its
//! `lo` says whose it is: a namespace that can be seen can be told to be ours or not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use super::{Error, IoContext, netlink};

/// Where `ip netns` keeps namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// Opens the namespace at a path.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).doing("open", path)?;
        let kind = rustix::fs::fstatfs(&file).doing("look at", path)?.f_type;
        if kind != NSFS_MAGIC {
            return Err(io::Error::other("it is not a namespace")).doing("open", path);
        }
        Ok(Self { file: file.into() })
    }

    /// Runs `task` in a thread inside the namespace and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when the namespace cannot be entered, and those of `task`.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        in_thread(|| {
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .trying(|| "enter a network namespace".to_owned())?;
            task()
        })
    }

    /// What tells this namespace from all others, for as long as it exists.
    ///
    /// # Errors
    ///
    /// [`Error::System`], hardly ever.
    pub fn identity(&self) -> Result<Identity, Error> {
        let stat = rustix::fs::fstat(&self.file).trying(|| "look at a network namespace".to_owned())?;
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
    }

    /// The mark of its `lo`, where it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] or [`Error::System`] when it cannot be read.
    pub fn mark(&self) -> Result<Option<String>, Error> {
        self.run(netlink::loopback_alias)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What tells a namespace from all others that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the namespace at a path, where there is one.
    pub fn at(path: &Path) -> Option<Self> {
        let stat = fs::metadata(path).ok()?;
        Some(Self { device: stat.dev(), inode: stat.ino() })
    }
}

/// The path under which a named namespace is found.
pub fn path(netns: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(netns)
}

/// The mark of a lab's namespace.
pub fn mark(lab: &str, name: &str) -> String {
    format!("localvpc:{lab}:{name}")
}

/// Makes a namespace with `lo` up and IPv6 off, marked with `mark`.
///
/// # Errors
///
/// [`Error::NamespaceTaken`] when one of that name is there, whoever made it; else what the kernel refused.
pub fn create(lab: &str, netns: &str, mark: &str) -> Result<Namespace, Error> {
    let target = path(netns);
    share_directory()?;
    match OpenOptions::new().write(true).create_new(true).mode(0o000).open(&target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::NamespaceTaken { netns: netns.to_owned(), lab: lab.to_owned() });
        }
        other => drop(other.doing("make", &target)?),
    }
    let made = in_thread(|| {
        let namespace = unshare(netns, mark)?;
        let own = Path::new(OWN);
        rustix::mount::mount_bind(own, &target).doing("bind a namespace to", &target)?;
        Ok(namespace)
    });
    if made.is_err() {
        // Best effort: the empty file says nothing and holds nothing, and the journal names it.
        let _ = fs::remove_file(&target);
    }
    made
}

/// Makes a namespace without a name, with `lo` up and IPv6 off, marked with `mark`. It ends with its last process and
/// descriptor, so that nothing of it can be left behind.
///
/// # Errors
///
/// What the kernel refused.
pub fn unnamed(mark: &str) -> Result<Namespace, Error> {
    in_thread(|| unshare(mark, mark))
}

/// Takes this thread, which is there for nothing else, into a namespace of its own.
fn unshare(name: &str, mark: &str) -> Result<Namespace, Error> {
    // SAFETY: NEWNET changes no memory and closes no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .trying(|| format!("make the network namespace {name}"))?;
    netlink::prepare_loopback(mark)?;
    disable_ipv6()?;
    Namespace::open(Path::new(OWN))
}

/// What [`delete`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It was ours and is gone.
    Deleted,
    /// There was nothing.
    Absent,
    /// It is not ours and was left alone.
    Foreign,
}

/// Removes a namespace's name if its mark begins with `mark`; it ends with its last process and descriptor.
///
/// A file without a namespace behind it is what is left of a [`create`] that was interrupted. It is
/// removed: it holds nothing.
///
/// # Errors
///
/// [`Error::Io`] when it is ours and cannot be removed.
pub fn delete(netns: &str, mark: &str) -> Result<Deletion, Error> {
    let target = path(netns);
    if !target.exists() {
        return Ok(Deletion::Absent);
    }
    match Namespace::open(&target) {
        Ok(namespace) => {
            if namespace.mark()?.as_deref() != Some(mark) {
                return Ok(Deletion::Foreign);
            }
            rustix::mount::unmount(&target, UnmountFlags::DETACH).doing("unmount", &target)?;
        }
        Err(_) if is_leftover(&target) => {}
        Err(_) => return Ok(Deletion::Foreign),
    }
    fs::remove_file(&target).doing("remove", &target)?;
    Ok(Deletion::Deleted)
}

/// Names in `/run/netns` whose namespace bears a mark of this lab, each with the mark.
pub fn marked(lab: &str) -> Vec<(String, String)> {
    let prefix = mark(lab, "");
    fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|netns| netns.starts_with(lab))
        .filter_map(|netns| {
            let mark = Namespace::open(&path(&netns)).ok()?.mark().ok()??;
            mark.starts_with(&prefix).then_some((netns, mark))
        })
        .collect()
}

/// Whether the file is empty, without permissions and without a namespace: made by [`create`], not yet bound.
fn is_leftover(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0 && file.mode() & 0o777 == 0)
}

/// Makes `/run/netns` a mount that propagates, as iproute2 does, so that every mount namespace sees names come and
/// go. Locked against an `ip netns add` that does the same at this moment.
fn share_directory() -> Result<(), Error> {
    let directory = Path::new(NETNS_DIR);
    fs::create_dir_all(directory).doing("make", directory)?;
    let lock = File::open(directory).doing("open", directory)?;
    lock.lock().doing("lock", directory)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if rustix::mount::mount_change(directory, shared) == Err(rustix::io::Errno::INVAL) {
        // Not a mount yet.
        let bind = MountFlags::BIND | MountFlags::REC;
        rustix::mount::mount(directory, directory, "none", bind, None).doing("mount", directory)?;
        rustix::mount::mount_change(directory, shared).doing("share", directory)?;
    }
    Ok(())
}

/// The kernel sends router solicitations and the like on its own otherwise.
fn disable_ipv6() -> Result<(), Error> {
    for which in ["all", "default"] {
        let knob = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"));
        match fs::write(&knob, "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).doing("write", &knob),
            _ => {}
        }
    }
    Ok(())
}

/// Runs `task` in a fresh thread, whose namespaces may be changed.
pub(super) fn in_thread<T: Send>(task: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| match scope.spawn(task).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

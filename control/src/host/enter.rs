//! How a process gets into an instance's namespace: `exec`, `shell` and `run:` commands.
//!
//! The same steps as `ip netns exec`: the network namespace is entered, a private mount
//! namespace made, `/sys` mounted afresh so that it shows the namespace's devices, and the
//! namespace's `hosts` and `resolv.conf` are bound over those in `/etc`.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::names::ETC_NETNS;
use super::plan::NamespaceOrigin;
use super::{Error, IoContext, RunDir, netns};

/// A namespace and its name files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRef {
    /// The namespace: `/run/netns/<name>` or `/proc/<pid>/ns/net`.
    pub path: PathBuf,
    /// The directory with its `hosts` and `resolv.conf`.
    pub names: PathBuf,
}

impl NamespaceRef {
    /// From [`InstanceView::namespace`](crate::view::InstanceView::namespace): a name for `ip netns exec` when
    /// the namespace is the lab's own, a path when it is attached.
    pub fn of(run_dir: &RunDir, namespace: &str) -> Self {
        if namespace.starts_with('/') {
            let path = PathBuf::from(namespace);
            Self { names: run_dir.names(&path), path }
        } else {
            Self { path: netns::path(namespace), names: Path::new(ETC_NETNS).join(namespace) }
        }
    }
}

impl NamespaceOrigin {
    /// Where the namespace is found.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Create { netns } => netns::path(netns),
            Self::Attach { path } => path.clone(),
        }
    }
}

impl fmt::Display for NamespaceOrigin {
    /// As the outside names it, and as [`NamespaceRef::of`] reads it: a name for `ip netns exec`, or a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { netns } => f.write_str(netns),
            Self::Attach { path } => path.display().fmt(f),
        }
    }
}

/// Takes the calling thread into the namespace, for good. Call it right before `exec()`, in a process with one
/// thread, or in a thread that is there for nothing else: other threads stay where they are.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::System`]: no such namespace, or no privilege. The thread may be half-way in.
pub fn enter(namespace: &NamespaceRef) -> Result<(), Error> {
    let file = File::open(&namespace.path).doing("open", &namespace.path)?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .doing("enter", &namespace.path)?;
    own_mounts()?;
    show_own_devices();
    for name in ["hosts", "resolv.conf"] {
        let ours = namespace.names.join(name);
        let theirs = Path::new("/etc").join(name);
        // As `ip netns exec`: without a file to cover there is nothing to bind over.
        if ours.exists() && theirs.exists() {
            rustix::mount::mount_bind(&ours, &theirs).doing("bind over", &theirs)?;
        }
    }
    Ok(())
}

/// Does something in the network namespace and comes back with its result: sockets made there stay there. It runs in
/// a thread that ends with it; mounts and names in `/etc` are ours.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::System`]: no such namespace, no privilege, or what `work` failed with.
pub fn in_network<T: Send>(
    namespace: &NamespaceRef,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<T, Error> {
    let inside = || {
        let file = File::open(&namespace.path).doing("open", &namespace.path)?;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .doing("enter", &namespace.path)?;
        work().doing("open sockets in", &namespace.path)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, inside);
        let done = thread.trying(|| "start a thread".to_owned())?.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A mount namespace of its own, out of which nothing propagates.
fn own_mounts() -> Result<(), Error> {
    // SAFETY: NEWNS (which implies unsharing the working directory) changes no memory and closes no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .trying(|| "make a mount namespace".to_owned())?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing("make private", Path::new("/"))
}

/// `/sys/class/net` shows the devices of the namespace in which sysfs was mounted. Containers without
/// the right to mount it keep the old view, which no connection depends on.
fn show_own_devices() {
    let read_only =
        rustix::fs::statvfs("/sys").is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let _ = rustix::mount::mount("localvpc", "/sys", "sysfs", flags, None);
}

//! Gives up what a dataplane does not need once it has started.
//!
//! Packets come from guests that nobody vouches for, so the process that parses them can do
//! little else: it has no capabilities and cannot gain any, sees no file, reaches no
//! network but through the queues it was handed, and may make a short list of system calls.
//! What a kernel does not offer is named, and the process goes on without.
//!
//! [`close_inherited`] comes first, [`confine`] before the first thread is started (it binds a
//! thread and those it starts), [`filter_system_calls`] after the last (it forbids more).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::device::tun;

/// A part of the sandbox that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Shortfall {
    /// Capabilities are still there, or may be gained.
    #[error("capabilities cannot be dropped ({0}); the dataplane keeps those it was started with")]
    Capabilities(Errno),
    /// Files can still be opened.
    #[error("landlock is not available ({0}); the dataplane can still open files that its user may open")]
    Files(String),
    /// Every system call can still be made.
    #[error("the system call filter was refused ({0}); the dataplane can make any system call")]
    SystemCalls(String),
}

/// Closes every descriptor but the standard ones and `keep`. To be called before anything else is opened.
///
/// # Errors
///
/// On a kernel before 5.9.
pub fn close_inherited(keep: Option<RawFd>) -> io::Result<()> {
    let first = libc::STDERR_FILENO as u32 + 1;
    match keep.map(|keep| keep as u32).filter(|keep| *keep >= first) {
        None => close_range(first, u32::MAX),
        Some(keep) => {
            if keep > first {
                close_range(first, keep - 1)?;
            }
            close_range(keep + 1, u32::MAX)
        }
    }
}

/// Drops all capabilities for good and hides every file. Binds this thread and those it starts from here on.
pub fn confine() -> Vec<Shortfall> {
    let capabilities = drop_capabilities().map_err(Shortfall::Capabilities);
    let files = hide_files().map_err(Shortfall::Files);
    [capabilities, files].into_iter().filter_map(Result::err).collect()
}

/// Forbids every system call that forwarding and serving do not make, to all threads. A forbidden one
/// fails with EPERM: a call that was overlooked must not end the forwarding.
///
/// # Errors
///
/// [`Shortfall::SystemCalls`]
pub fn filter_system_calls() -> Result<(), Shortfall> {
    let refused = |error: &dyn std::fmt::Display| Shortfall::SystemCalls(error.to_string());
    let filter = SeccompFilter::new(
        rules().map_err(|error| refused(&error))?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().map_err(|error| refused(&error))?,
    );
    let program: BpfProgram =
        filter.and_then(TryInto::try_into).map_err(|error: seccompiler::BackendError| refused(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| refused(&error))
}

fn drop_capabilities() -> Result<(), Errno> {
    let nothing = CapabilitySet::empty();
    for bit in 0..u64::BITS {
        match thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Beyond the last capability that the kernel knows.
            Err(Errno::INVAL) => break,
            // Not ours to remove: whoever has none cannot gain any after no_new_privs.
            Err(Errno::PERM) => break,
            Err(errno) => return Err(errno),
        }
    }
    thread::set_no_new_privs(true)?;
    let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    thread::set_capabilities(None, sets)
}

fn hide_files() -> Result<(), String> {
    let restrict = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .restrict_self()
    };
    match restrict() {
        // The file rights of the first version suffice; what later ones add is welcome.
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            Err("not built into this kernel, or not enabled at boot".into())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The newest version whose rights are asked for; older kernels grant fewer.
const NEWEST: ABI = ABI::V7;

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<_, _> = SYSTEM_CALLS.iter().map(|&call| (call, Vec::new())).collect();
    // The wait calls that only older architectures have.
    #[cfg(target_arch = "x86_64")]
    rules.extend([(libc::SYS_epoll_wait, Vec::new()), (libc::SYS_poll, Vec::new())]);
    let request = |number: u32| {
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number.into())?;
        SeccompRule::new(vec![is])
    };
    rules.insert(libc::SYS_ioctl, tun::IOCTLS.into_iter().map(request).collect::<Result<_, _>>()?);
    Ok(rules)
}

/// What the loops, the server, the allocator and the end of the process need.
const SYSTEM_CALLS: &[i64] = &[
    // Packets and readiness.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    // The server: connections, descriptors, memfd bodies.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_memfd_create,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_pread64,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // Standard error.
    libc::SYS_writev,
    // Memory, time, threads that wait for each other.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // The end, orderly or not.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller says that nothing is open yet whose owner would miss its descriptor.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_thread_has_no_capabilities_and_sees_no_file() {
        // It binds the thread that calls it, so that the other tests go on unconfined.
        std::thread::spawn(|| {
            assert!(std::fs::File::open("/proc/self/status").is_ok());
            let missing = confine();
            assert!(!missing.iter().any(|part| matches!(part, Shortfall::Capabilities(_))), "{missing:?}");
            let sets = thread::capabilities(None).unwrap();
            assert!(sets.permitted.is_empty() && sets.effective.is_empty() && sets.inheritable.is_empty());
            if missing.is_empty() {
                let refused = std::fs::File::open("/proc/self/status").unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
                assert!(std::fs::write(std::env::temp_dir().join("localvpc-confined"), "").is_err());
                assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
            } else {
                eprintln!("skipped in part: {missing:?}");
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_filter_compiles_for_this_machine() {
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let allow = SeccompAction::Allow;
        let filter = SeccompFilter::new(rules().unwrap(), SeccompAction::Errno(1), allow, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        assert!(program.len() > SYSTEM_CALLS.len());
    }
}

//! Ctrl-C: notes that it came, so that what was made is removed before the end.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static CAME: AtomicBool = AtomicBool::new(false);

/// Has SIGINT, SIGTERM and SIGHUP noted instead of ending the process.
///
/// # Errors
///
/// What the kernel said.
pub fn watch() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the action outlives the call, and its handler only stores to an atomic, which may be done at any moment.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether one has come.
pub fn came() -> bool {
    CAME.load(Ordering::Relaxed)
}

extern "C" fn note(_: libc::c_int) {
    CAME.store(true, Ordering::Relaxed);
}

//! A dataplane's process from its command line to its end, around whatever decides about packets.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use localvpc_api::settings::{Merge, Poll, Settings};
use localvpc_engine::metrics::MAX_WORKERS;

use crate::engine::Engine;
use crate::fleet::Fleet;
use crate::sandbox;
use crate::server::{Ending, Server};

/// Forwards packets between TUN devices. `localvpc up` starts it; there is little reason to do so by hand.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen for control.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Worker threads, and so queues that a link should have.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=MAX_WORKERS as i64))]
    workers: u16,
    /// How workers wait for packets: adaptive, busy or block.
    #[arg(long, value_name = "HOW", default_value_t)]
    poll: Poll,
    /// Whether consecutive small packets of a flow leave as one super-packet: on or off.
    #[arg(long, value_name = "ON", default_value_t)]
    merge: Merge,
    /// A descriptor to write `ready` to, and close, once the socket listens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<RawFd>,
    /// Keep privileges, files and system calls, for debuggers and profilers.
    #[arg(long)]
    no_sandbox: bool,
}

/// Parses the command line and forwards until the end. `engine` makes what decides: for a worker's index and a seed.
pub fn main<E: Engine>(engine: impl Fn(usize, u64) -> E) -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even that cannot be written, the exit status says it.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run<E: Engine>(
    arguments: &Arguments,
    engine: impl Fn(usize, u64) -> E,
) -> Result<(), Box<dyn std::error::Error>> {
    sandbox::close_inherited(arguments.ready_fd)?;
    let ready = arguments.ready_fd.map(adopt).transpose()?;
    log_to_stderr();
    let end = block_signals()?;

    let mut server = Server::bind(&arguments.socket)?;
    let mut missing = Vec::new();
    if !arguments.no_sandbox {
        missing = sandbox::confine();
    }
    let fleet =
        Fleet::start_with(arguments.workers.into(), RandomState::new().hash_one(std::process::id()), engine)?;
    fleet.configure(Settings { poll: arguments.poll, merge: arguments.merge })?;
    if !arguments.no_sandbox {
        missing.extend(sandbox::filter_system_calls().err());
    }
    for shortfall in missing {
        tracing::warn!("{shortfall}");
    }

    tracing::info!(
        "{} workers, listening on {}, protocol {}",
        arguments.workers,
        arguments.socket.display(),
        localvpc_api::message::PROTOCOL
    );
    if let Some(mut ready) = ready {
        // Whoever waited may have gone; control can still connect.
        let _ = ready.write_all(b"ready\n");
    }
    match server.run(&fleet, &end)? {
        Ending::Requested => tracing::info!("control asked for the end"),
        Ending::Told => tracing::info!("a signal asked for the end"),
    }
    Ok(())
}

fn adopt(ready: RawFd) -> io::Result<File> {
    // SAFETY: fcntl is safe with any number; it says whether this one is open.
    if unsafe { libc::fcntl(ready, libc::F_GETFD) } == -1 {
        let problem = format!("--ready-fd {ready} is not open: {}", io::Error::last_os_error());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: it is open, and was given to this process for this purpose; nothing else here owns it.
    Ok(unsafe { File::from_raw_fd(ready) })
}

/// Logs to standard error, at the level in `LOCALVPC_LOG` or else `info`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOCALVPC_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        // Control may be gone, and its end of the pipe with it; that must not stop us.
        .log_internal_errors(false)
        .init();
}

/// A descriptor that is readable once SIGTERM or SIGINT came. SIGHUP is ignored: the end of a session is not ours.
fn block_signals() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero signal set is valid, and sigemptyset makes it an empty one.
    let mut signals = unsafe { std::mem::zeroed() };
    // SAFETY: `signals` is a valid set, the signals exist, and no thread has been started that could miss the mask.
    let descriptor = unsafe {
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGINT);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signalfd(-1, &signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

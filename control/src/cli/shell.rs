//! `localvpc shell`: a shell where an instance is.

use std::ffi::OsString;
use std::process::ExitCode;

use super::{Failure, Global, exec};

/// Open a shell where an instance is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The shell is $SHELL, or /bin/sh. LOCALVPC_INSTANCE and LOCALVPC_ADDRESS say where it is. Where commands send from
another address than the instance's, a line says so.

Examples:
  sudo localvpc shell app
  sudo SHELL=/bin/bash localvpc shell internet")]
pub struct Args {
    /// An instance or internet host; `internet` is the first internet host
    instance: String,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| OsString::from("/bin/sh"));
    exec::enter("shell", &args.instance, vec![shell], exec::OtherSource::Note, global)
}

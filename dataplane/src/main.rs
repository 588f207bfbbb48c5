//! `localvpc-dataplane`: started by control, or by hand for a test.

use std::process::ExitCode;

fn main() -> ExitCode {
    localvpc_dataplane::process::main(localvpc_engine::Worker::new)
}

//! `localvpc-null-dataplane`: a dataplane that decides nothing. What comes out of one link goes into its neighbour.
//!
//! It is the dataplane's own program around another engine: the same process, worker loop, devices, offloads, polling
//! and batching. So the difference between the two is what deciding costs, and this one is the limit that TUN sets.
//!
//! `LOCALVPC_DATAPLANE` has `localvpc up` start it in the dataplane's place. It takes tables, and disregards them.

use std::process::ExitCode;

use localvpc_null::Null;

fn main() -> ExitCode {
    localvpc_dataplane::process::main(|index, _seed| Null::new(index))
}

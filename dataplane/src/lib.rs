//! The dataplane process: forwards packets between TUN devices under tables that control pushes.
//!
//! What happens to a packet is decided by [`localvpc_engine`]; here is what touches the world:
//!
//! - [`process`]: from the command line to the end
//! - [`engine`]: what the loop asks of whatever decides
//! - [`device`]: where packets come from and go to
//! - [`links`]: the devices that are attached, with their queues
//! - [`poll`]: waiting for packets
//! - `worker`: the loop that reads, forwards and writes
//! - [`fleet`]: the worker threads, switched together
//! - [`server`]: requests from control
//! - [`sandbox`]: what the process gives up once it has started
//! - [`clock`]: the time that all of them use

pub mod clock;
pub mod device;
pub mod engine;
pub mod fleet;
pub mod links;
pub mod poll;
pub mod process;
pub mod sandbox;
pub mod server;
mod worker;

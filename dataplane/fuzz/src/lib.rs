//! What the fuzz targets do with their bytes: one function per target, each in a file of its own.
//!
//! A target makes something of any bytes, lets the code under test have it, and panics where a property does not
//! hold; each file begins with its properties. The programs around the targets are in `libfuzzer/`, run by
//! `scripts/fuzz`. What fuzzing has found is kept in `regressions/<target>/`, and `tests/regressions.rs` runs
//! it, with a few inputs that reach far, in every `cargo test`.

mod config;
mod forward;
mod fragments;
mod icmp_error;
mod input;
mod merge;
mod message;
mod packet;
mod segments;
mod sums;
mod tables;
mod tcp_options;
mod tcp_tracking;
mod traffic;
mod virtio;

pub use config::config;
pub use forward::forward;
pub use fragments::fragments;
pub use icmp_error::icmp_error;
pub use merge::merge;
pub use message::message;
pub use packet::packet;
pub use segments::segments;
pub use tables::tables;
pub use tcp_options::tcp_options;
pub use tcp_tracking::tcp_tracking;
pub use virtio::virtio;

/// A target: it panics where a property does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its program and of its directory in `regressions/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("packet", packet),
    ("virtio", virtio),
    ("tcp_options", tcp_options),
    ("tcp_tracking", tcp_tracking),
    ("icmp_error", icmp_error),
    ("fragments", fragments),
    ("segments", segments),
    ("merge", merge),
    ("forward", forward),
    ("tables", tables),
    ("message", message),
    ("config", config),
];

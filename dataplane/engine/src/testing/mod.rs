//! Helps tests and benchmarks, of this crate and of others (feature `testing`).

pub mod craft;
#[cfg(test)]
pub(crate) mod generate;

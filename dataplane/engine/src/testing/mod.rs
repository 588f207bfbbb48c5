//! Helps tests and benchmarks, of this crate and of others (feature `testing`).
//!
//! - [`craft`] packets
//! - [`segment`]s in words
//! - [`lab`] the tables of the worked packet walks (aws-vpc.md §33), to be changed by a test
//! - [`fabric`] workers, state and a virtual clock around tables; sends packets and says where they come out

pub mod craft;
pub mod fabric;
#[cfg(test)]
pub(crate) mod generate;
pub mod lab;
pub mod segment;

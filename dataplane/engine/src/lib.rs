//! Decides what happens to a packet.

pub mod metrics;
pub mod state;
pub mod tables;

//! Decides what happens to a packet.

pub mod answer;
pub mod metrics;
pub mod packet;
pub mod pipeline;
pub mod state;
pub mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

//! What outlives packets and pushes.

pub mod nat_ports;

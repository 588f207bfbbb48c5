//! Decides what happens to a packet.

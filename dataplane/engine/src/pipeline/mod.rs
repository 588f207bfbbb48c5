//! Walks a packet through the stages of a VPC.

pub mod rewrite;

//! The dataplane.
fn main() {}

//! Tells the compiler which ways packets rarely take, so that the others go straight on.
//!
//! After the kernel has run, the processor knows few of the engine's jumps: those that a short connection does not take cost it nothing.

/// Marks the block that it is called in as one that packets rarely come to. [`std::hint::cold_path`] does the same, in Rust 1.95 and later.
#[cold]
#[inline]
pub fn cold_path() {}

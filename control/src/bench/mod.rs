//! What a lab's speed is measured beside.
//!
//! - [`linux_router`]: the same instances around a Linux router, in namespaces of its own

pub mod linux_router;

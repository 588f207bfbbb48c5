//! How fast a lab is, and what it is measured beside.
//!
//! - [`linux_router`]: the same instances around a Linux router, in namespaces of its own
//! - [`suite`]: what `localvpc bench` measures

pub mod linux_router;
pub mod suite;

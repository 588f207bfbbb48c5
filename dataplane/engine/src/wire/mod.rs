//! Views headers in the bytes of a packet.
//!
//! Every file has the same shape: the header as a struct laid over the bytes in
//! network order, `checked`, which refuses bytes that cannot be such a header,
//! getters for what is packed into bits, tests over literal bytes at the foot.
//! Nothing here copies or allocates.

pub mod checksum;
pub mod icmp;
pub mod ipv4;
pub mod tcp;
pub mod udp;

pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use tcp::Tcp;
pub use udp::Udp;

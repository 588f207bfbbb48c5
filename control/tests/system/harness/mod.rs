//! What the tests have in common.
//!
//! - [`Lab`]: a lab that is brought up, asked, used (`traffic`), and taken down; also when the test is killed (`watch`)
//! - [`Capture`]: tcpdump in one of its namespaces
//! - [`Netns`]: a namespace that is not the lab's
//! - [`command`]: programs that are run to their end, or until they are not needed any more
//! - [`wait`]: for conditions, never for time

mod capture;
pub mod command;
mod lab;
pub mod leftovers;
mod netns;
mod traffic;
pub mod wait;
mod watch;

pub use capture::Capture;
pub use command::Running;
pub(crate) use lab::behind_a_nat_gateway;
pub use lab::{Lab, TWO_TIER, Transport, edit};
pub use netns::{Netns, tell_always};
pub use traffic::{comes_back, echoes, is_silent};

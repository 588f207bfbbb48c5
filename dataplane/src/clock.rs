//! Tells the time: the system's monotonic clock, which a successor of this process reads alike.

use std::time::Duration;

use localvpc_engine::Time;
use rustix::time::{ClockId, clock_gettime};

/// Time since the system started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// Now.
pub fn now() -> Instant {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock starts at 0 and its nanoseconds are below 10^9.
    Instant(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

impl Instant {
    /// The time since an earlier instant; 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Microseconds since an earlier instant; 0 if it is not earlier.
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).as_micros() as u64
    }
}

impl From<Instant> for Time {
    fn from(instant: Instant) -> Self {
        Self(instant.0.as_millis() as u64)
    }
}

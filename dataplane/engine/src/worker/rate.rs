//! How many ICMP errors may a worker send? A token bucket (RFC 1812 §4.3.2.8).

use crate::Time;

/// ICMP errors a second that one worker sends: Linux's `icmp_msgs_per_sec`.
pub const ICMP_ERRORS_PER_SECOND: u64 = 1000;
/// ICMP errors that it sends at once after a pause: three `traceroute`s with all their probes under way.
pub const ICMP_ERROR_BURST: u64 = 100;

/// Grants so many events a second, and some more after a pause.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// Thousandths of an event.
    tokens: u64,
    refilled: Time,
}

impl TokenBucket {
    /// A full one.
    pub(super) fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst, tokens: burst * 1000, refilled: Time::default() }
    }

    /// Takes one event out, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let passed = now.0.saturating_sub(self.refilled.0);
        // So many events a second are as many thousandths of an event a millisecond.
        let earned = passed.saturating_mul(self.per_second);
        self.tokens = self.tokens.saturating_add(earned).min(self.burst * 1000);
        self.refilled = self.refilled.max(now);
        let granted = self.tokens >= 1000;
        if granted {
            self.tokens -= 1000;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        let mut granted = |now, tries| (0..tries).filter(|_| bucket.take(Time(now))).count();
        assert_eq!(granted(5_000, 9), 3);
        assert_eq!(granted(5_099, 9), 0);
        assert_eq!(granted(5_100, 9), 1);
        assert_eq!(granted(5_350, 9), 2, "halves are kept");
        assert_eq!(granted(5_400, 9), 1);
        assert_eq!(granted(5_000, 9), 0, "a clock that goes back earns nothing");
        assert_eq!(granted(u64::MAX, 9), 3, "however long the pause");
    }
}

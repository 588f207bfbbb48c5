//! May it happen once more in this second? Token buckets.

use crate::Time;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In every second.
    pub per_second: u64,
    /// At once after a pause.
    pub burst: u64,
}

/// What is left of a [`Rate`]. It begins full.
#[derive(Debug)]
pub struct TokenBucket {
    /// Thousandths of an event.
    tokens: u64,
    refilled: Time,
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self { tokens: u64::MAX, refilled: Time::default() }
    }
}

impl TokenBucket {
    /// Takes one event out, if there is one.
    pub fn take(&mut self, rate: Rate, now: Time) -> bool {
        let passed = now.0.saturating_sub(self.refilled.0);
        // So many events a second are as many thousandths of an event a millisecond.
        let earned = passed.saturating_mul(rate.per_second);
        self.tokens = self.tokens.saturating_add(earned).min(rate.burst.saturating_mul(1000));
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
        let mut bucket = TokenBucket::default();
        let mut granted = |now, tries| {
            let rate = Rate { per_second: 10, burst: 3 };
            (0..tries).filter(|_| bucket.take(rate, Time(now))).count()
        };
        assert_eq!(granted(5_000, 9), 3);
        assert_eq!(granted(5_099, 9), 0);
        assert_eq!(granted(5_100, 9), 1);
        assert_eq!(granted(5_350, 9), 2, "halves are kept");
        assert_eq!(granted(5_400, 9), 1);
        assert_eq!(granted(5_000, 9), 0, "a clock that goes back earns nothing");
        assert_eq!(granted(u64::MAX, 9), 3, "however long the pause");
    }

    #[test]
    fn another_rate_is_in_force_at_once() {
        let mut bucket = TokenBucket::default();
        let mut granted =
            |burst, tries| (0..tries).filter(|_| bucket.take(Rate { per_second: 0, burst }, Time(1))).count();
        assert_eq!(granted(5, 2), 2);
        assert_eq!(granted(1, 9), 1, "what is beyond a smaller burst is lost");
        assert_eq!(granted(9, 9), 0);
        assert_eq!(granted(0, 9), 0);
    }
}

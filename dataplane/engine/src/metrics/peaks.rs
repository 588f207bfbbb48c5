//! Remembers the highest rates of the last minute, as CloudWatch's Peak metrics show them (NATGW-48).
//!
//! Time is cut into intervals of ten seconds; the peak is the highest average of the last six, and of the one that
//! runs. Somebody has to come by every second or so, and say how much there has been in all.

use arrayvec::ArrayVec;
use localvpc_api::report::Traffic;

use crate::Time;

/// Rates of a counter that only grows.
#[derive(Debug, Default)]
pub struct Peaks {
    /// When the running interval began, and what there had been until then.
    begun: Option<(Time, Traffic)>,
    /// Ends and rates of the last intervals, oldest first.
    done: ArrayVec<(Time, Traffic), INTERVALS>,
}

const INTERVAL_MS: u64 = 10_000;
const INTERVALS: usize = 6;
const MINUTE_MS: u64 = 60_000;

impl Peaks {
    /// Notes how much there has been so far.
    pub fn sample(&mut self, total: Traffic, now: Time) {
        let Some((begun, before)) = self.begun else {
            // What came before anybody came by belongs to the first interval.
            self.begun = Some((now, Traffic::default()));
            return;
        };
        if now.0.saturating_sub(begun.0) >= INTERVAL_MS {
            if self.done.is_full() {
                self.done.remove(0);
            }
            self.done.push((now, rate(before, total, begun, now)));
            self.begun = Some((now, total));
        }
    }

    /// The highest averages per second within the last minute.
    pub fn highest(&self, total: Traffic, now: Time) -> Traffic {
        let recent = self.done.iter().filter(|(end, _)| now.0.saturating_sub(end.0) < MINUTE_MS);
        // Before anybody has come by, everything is new.
        let (begun, before) = self.begun.unwrap_or((now, Traffic::default()));
        let rates = recent.map(|(_, rate)| *rate).chain([rate(before, total, begun, now)]);
        rates.fold(Traffic::default(), |peak, rate| Traffic {
            packets: peak.packets.max(rate.packets),
            bytes: peak.bytes.max(rate.bytes),
        })
    }
}

/// The average per second; of an interval that is not over, as if nothing more came.
fn rate(before: Traffic, after: Traffic, begun: Time, now: Time) -> Traffic {
    let ms = now.0.saturating_sub(begun.0).max(INTERVAL_MS);
    let per_second = |before: u64, after: u64| {
        let rate = u128::from(after.saturating_sub(before)) * 1_000 / u128::from(ms);
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    Traffic {
        packets: per_second(before.packets, after.packets),
        bytes: per_second(before.bytes, after.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(packets: u64) -> Traffic {
        Traffic { packets, bytes: packets * 100 }
    }

    #[test]
    fn natgw_48_the_highest_ten_seconds_of_the_last_minute() {
        let mut peaks = Peaks::default();
        let mut sent = 0;
        // 50 packets a second for ten seconds, 5 a second for the next fifty.
        for second in 0..60 {
            peaks.sample(traffic(sent), Time(second * 1_000));
            sent += if second < 10 { 50 } else { 5 };
        }
        assert_eq!(peaks.highest(traffic(sent), Time(60_000)), traffic(50));
        for second in 60..80 {
            peaks.sample(traffic(sent), Time(second * 1_000));
            sent += 5;
        }
        assert_eq!(
            peaks.highest(traffic(sent), Time(80_000)),
            traffic(5),
            "the burst is more than a minute ago"
        );
    }

    #[test]
    fn an_interval_that_runs_counts_as_if_nothing_more_came() {
        let mut peaks = Peaks::default();
        peaks.sample(traffic(0), Time(0));
        assert_eq!(peaks.highest(traffic(20), Time(1_000)), traffic(2));
    }
}

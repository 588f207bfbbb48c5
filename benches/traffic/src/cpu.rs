//! How busy the machine is: processor time of everything that runs, interrupts included.
//!
//! A router in the kernel works in interrupts that are nobody's, so only the whole machine can be compared. It should
//! have nothing else to do.

use std::fs;
use std::time::Duration;

/// Processor time that all processors together have been busy since the machine started; none where it cannot be
/// read. Precise to a tick of 10 ms per processor.
pub fn busy() -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    Some(Duration::from_secs_f64(busy_ticks(text.lines().next()?)? as f64 / ticks_per_second()))
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice`: idle times are none, nor is what other
/// machines on the host stole; guests are part of user.
fn busy_ticks(line: &str) -> Option<u64> {
    let numbers: Vec<u64> =
        line.strip_prefix("cpu ")?.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6];
    busy.iter().map(|index| numbers.get(*index).copied()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 20 300 99999 99999 4000 50000 99999 7 7"), Some(54_321));
        assert_eq!(busy_ticks("cpu0 1 2 3"), None);
        assert_eq!(busy_ticks("cpu  1 2 3"), None);
    }
}

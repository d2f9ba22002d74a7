//! How long reads take, and when a second request is worth it.

use std::collections::VecDeque;
use std::time::Duration;

/// Reads that are remembered.
const REMEMBERED: usize = 128;
/// Reads after which their times say something.
const ENOUGH: usize = 16;
/// Patience until then.
const AT_FIRST: Duration = Duration::from_secs(2);
/// Below this no second request is sent.
const AT_LEAST: Duration = Duration::from_millis(50);

/// The times of the last reads, and how many second requests may be sent.
#[derive(Debug)]
pub(super) struct Latency {
    /// Oldest first.
    times: VecDeque<Duration>,
    /// Share of reads that may be asked for twice.
    percent: u32,
    /// Hundredths of a second request that may be sent now: a burst is bounded.
    credit: u32,
}

impl Latency {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            times: VecDeque::with_capacity(REMEMBERED),
            percent,
            credit: if percent > 0 { 100 } else { 0 },
        }
    }

    /// How long an answer is waited for before it is asked for again: longer than 95 % of the last ones took.
    pub(super) fn patience(&self) -> Duration {
        if self.times.len() < ENOUGH {
            return AT_FIRST;
        }
        let mut sorted: Vec<_> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        // Half as much again, so that a store whose answers all take equally long is not asked twice for one
        // in twenty.
        (sorted[sorted.len() * 95 / 100] * 3 / 2).max(AT_LEAST)
    }

    /// Takes the right to a second request, if there is one.
    pub(super) fn may_hedge(&mut self) -> bool {
        let may = self.credit >= 100;
        if may {
            self.credit -= 100;
        }
        may
    }

    /// A read that succeeded.
    pub(super) fn record(&mut self, time: Duration) {
        if self.times.len() == REMEMBERED {
            self.times.pop_front();
        }
        self.times.push_back(time);
        self.credit = (self.credit + self.percent).min(400);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_slow_reads() {
        let mut latency = Latency::new(10);
        assert_eq!(latency.patience(), AT_FIRST);
        (0..100).for_each(|n| latency.record(Duration::from_millis(100 + n)));
        assert_eq!(latency.patience(), Duration::from_millis(195) * 3 / 2);
        (0..REMEMBERED).for_each(|_| latency.record(Duration::from_millis(1)));
        assert_eq!(latency.patience(), AT_LEAST);
    }

    #[test]
    fn second_requests_are_a_bounded_share() {
        let mut latency = Latency::new(10);
        let mut sent = 0;
        for _ in 0..1000 {
            sent += usize::from(latency.may_hedge());
            latency.record(Duration::from_millis(1));
        }
        assert!((95..=101).contains(&sent), "{sent}");
        assert!(!Latency::new(0).may_hedge());
    }
}

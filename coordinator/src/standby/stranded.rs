//! A leader that answers but reaches no worker, while the run's workers come to the one that stands by.

use std::time::Duration;

/// A worker looks for its coordinator at least this often.
const WORKERS_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whether the leader is cut off from all workers and those are not cut off from here. Times count from any
/// fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Stranded {
    /// Since when the leader waits and has no worker.
    alone: Option<Duration>,
    /// Since when, and when last, workers of the run came here meanwhile.
    came: Option<(Duration, Duration)>,
}

impl Stranded {
    /// The leader has answered: whether it waits for workers, and how many it has.
    pub fn leader_has(&mut self, now: Duration, waits: bool, workers: usize) {
        if !waits || workers > 0 {
            *self = Self::default();
        } else {
            self.alone.get_or_insert(now);
        }
    }

    /// A worker that is part of the run came here and not to the leader.
    pub fn worker_came(&mut self, now: Duration) {
        if self.alone.is_some() {
            let is_recent = |last: &Duration| now.saturating_sub(*last) <= WORKERS_LOOK_EVERY;
            let first = self.came.filter(|(_, last)| is_recent(last)).map_or(now, |(first, _)| first);
            self.came = Some((first, now));
        }
    }

    /// Whether it is time to take over: workers keep coming here for as long as a leader may be silent.
    pub fn is_certain(&self, now: Duration, patience: Duration) -> bool {
        let keeps_coming = |(first, last): (Duration, Duration)| {
            now.saturating_sub(first) >= patience && now.saturating_sub(last) <= WORKERS_LOOK_EVERY
        };
        self.came.is_some_and(keeps_coming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn workers_that_keep_coming_to_another_have_lost_their_leader() {
        let mut stranded = Stranded::default();
        stranded.worker_came(at(0));
        stranded.leader_has(at(1), true, 0);
        assert!(!stranded.is_certain(at(9), PATIENCE), "it came before the leader was alone");
        for second in [2, 4] {
            assert!(!stranded.is_certain(at(second), PATIENCE));
            stranded.worker_came(at(second));
        }
        assert!(stranded.is_certain(at(5), PATIENCE));
        assert!(!stranded.is_certain(at(10), PATIENCE), "nobody comes any more");
    }

    #[test]
    fn a_leader_with_a_worker_or_with_work_is_left_alone() {
        for (waits, workers) in [(true, 1), (false, 0)] {
            let mut stranded = Stranded::default();
            stranded.leader_has(at(0), true, 0);
            stranded.worker_came(at(1));
            stranded.leader_has(at(3), waits, workers);
            stranded.worker_came(at(4));
            assert!(!stranded.is_certain(at(5), PATIENCE));
        }
    }
}

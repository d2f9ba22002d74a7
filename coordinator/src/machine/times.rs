//! Time by what it was spent on.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_proto::v1::Spent;

/// Time of a run by what it was spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) useful: Duration,
    pub(super) start_up: Duration,
    pub(super) data: Duration,
    pub(super) save: Duration,
    pub(super) restore: Duration,
    pub(super) wasted: Duration,
    /// Between what a coordinator told last and the begin of the next one's lead.
    pub(super) no_leader: Duration,
}

/// What a run's time was spent on up to a commit, and when that was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) times: Times,
    /// Since 1970, by the clock of the host where it was told, if it is known.
    pub(super) at: Option<Duration>,
}

impl Times {
    /// What earlier coordinators had spent in all, as they told it with the steps they committed, for one
    /// that began to lead at `began` (since 1970) and goes on from `committed` steps: what came behind these
    /// is done again, and was wasted.
    pub(super) fn carried(earlier: &BTreeMap<u64, Told>, committed: u64, began: Duration) -> Self {
        let Some(newest) = earlier.values().max_by_key(|told| told.times.total()) else {
            return Self::default();
        };
        let at = |last: u64| earlier.get(&last).map(|told| told.times);
        let before = committed.checked_sub(1).map_or(Some(Self::default()), at);
        let kept = before.unwrap_or(newest.times);
        let lost = newest.times.led().saturating_sub(kept.led());
        // The clock of the host before may be ahead of this one's.
        let unled = newest.at.map_or(Duration::ZERO, |at| began.saturating_sub(at));
        Self {
            wasted: kept.wasted.saturating_add(lost),
            no_leader: newest.times.no_leader.saturating_add(unled),
            ..kept
        }
    }

    pub(super) fn total(&self) -> Duration {
        self.led().saturating_add(self.no_leader)
    }

    /// As long as anybody led the run.
    fn led(&self) -> Duration {
        let Self { useful, start_up, data, save, restore, wasted, no_leader: _ } = *self;
        [start_up, data, save, restore, wasted].into_iter().fold(useful, Duration::saturating_add)
    }

    /// For those who go on from here; `at`: when this is told, since 1970.
    pub(super) fn told(&self, at: Duration) -> Spent {
        Spent {
            useful: self.useful.as_secs_f64(),
            start_up: self.start_up.as_secs_f64(),
            data: self.data.as_secs_f64(),
            save: self.save.as_secs_f64(),
            restore: self.restore.as_secs_f64(),
            wasted: self.wasted.as_secs_f64(),
            no_leader: self.no_leader.as_secs_f64(),
            told_at: at.as_secs_f64(),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            useful: self.useful.saturating_add(other.useful),
            start_up: self.start_up.saturating_add(other.start_up),
            data: self.data.saturating_add(other.data),
            save: self.save.saturating_add(other.save),
            restore: self.restore.saturating_add(other.restore),
            wasted: self.wasted.saturating_add(other.wasted),
            no_leader: self.no_leader.saturating_add(other.no_leader),
        }
    }

    /// What was not useful, by cause.
    pub(super) fn not_useful(&self) -> [(&'static str, Duration); 6] {
        [
            ("start_up", self.start_up),
            ("data", self.data),
            ("save", self.save),
            ("restore", self.restore),
            ("wasted", self.wasted),
            ("no_leader", self.no_leader),
        ]
    }
}

impl From<&Spent> for Told {
    /// Numbers that are no time are none.
    fn from(spent: &Spent) -> Self {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let times = Times {
            useful: time(spent.useful),
            start_up: time(spent.start_up),
            data: time(spent.data),
            save: time(spent.save),
            restore: time(spent.restore),
            wasted: time(spent.wasted),
            no_leader: time(spent.no_leader),
        };
        Self { times, at: Some(time(spent.told_at)).filter(|at| !at.is_zero()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn times(useful: u64, wasted: u64) -> Times {
        Times { useful: seconds(useful), start_up: seconds(1), wasted: seconds(wasted), ..Times::default() }
    }

    /// Told so many seconds after the run was first led, at 1000.
    fn told(times: Times) -> Told {
        Told { times, at: Some(seconds(1000) + times.total()) }
    }

    #[test]
    fn what_is_done_again_was_wasted() {
        let earlier = BTreeMap::from([(3, told(times(40, 2))), (6, told(times(70, 5)))]);
        let at_once = seconds(1000 + 76);
        let carried = |committed| Times::carried(&earlier, committed, at_once);
        assert_eq!(carried(7), times(70, 5), "all of it is kept");
        assert_eq!(carried(4), times(40, 2 + 30 + 3));
        assert_eq!(carried(4).total(), times(70, 5).total());
        assert_eq!((carried(0).useful, carried(0).wasted), (Duration::ZERO, seconds(76)));
        assert_eq!(carried(9), times(70, 5), "of step 8 nothing is known");
        assert_eq!(Times::carried(&BTreeMap::new(), 9, at_once), Times::default());
    }

    #[test]
    fn nobody_led_from_what_was_told_last_to_the_next_begin_by_clocks_that_may_differ() {
        let second = Times { no_leader: seconds(8), ..times(70, 5) };
        let earlier = BTreeMap::from([(3, told(times(40, 2))), (6, told(second))]);
        for (committed, began) in [(7, 1114), (4, 1114), (0, 1114), (9, 1114)] {
            let carried = Times::carried(&earlier, committed, seconds(began));
            assert_eq!(carried.no_leader, seconds(8 + 30), "{committed}");
            assert_eq!(carried.total(), seconds(began - 1000), "{committed}: all since the run began");
        }
        // This host's clock is behind.
        let behind = Times::carried(&earlier, 7, seconds(500));
        assert_eq!((behind.no_leader, behind.total()), (seconds(8), second.total()));
        let unknown = BTreeMap::from([(6, Told { at: None, ..told(second) })]);
        assert_eq!(Times::carried(&unknown, 7, seconds(9999)), second, "told by an older program");
    }

    #[test]
    fn numbers_that_are_no_time_do_no_harm() {
        let spent = Spent {
            useful: f64::NAN,
            data: -1.0,
            save: f64::MAX,
            wasted: 1e19,
            told_at: f64::INFINITY,
            ..Spent::default()
        };
        let Told { times, at } = Told::from(&spent);
        assert_eq!((times.useful, times.data, times.save, at), Default::default());
        assert!(times.plus(times).plus(times).total() > seconds(1));
        let known =
            Told { times: Times { no_leader: seconds(2), ..self::times(3, 4) }, at: Some(seconds(9)) };
        assert_eq!(Told::from(&known.times.told(seconds(9))), known);
    }
}

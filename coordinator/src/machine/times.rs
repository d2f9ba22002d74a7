//! Time by what it was spent on.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_proto::v1::Spent;

/// Time by what it was spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) useful: Duration,
    pub(super) start_up: Duration,
    pub(super) data: Duration,
    pub(super) save: Duration,
    pub(super) restore: Duration,
    pub(super) wasted: Duration,
}

impl Times {
    /// What earlier coordinators had spent in all, as they said it with the steps they committed, for one
    /// that goes on from `committed` steps: what came behind these is done again, and was wasted.
    pub(super) fn carried(earlier: &BTreeMap<u64, Times>, committed: u64) -> Self {
        let Some(newest) = earlier.values().max_by_key(|times| times.total()) else { return Self::default() };
        let before =
            committed.checked_sub(1).map_or(Some(Self::default()), |last| earlier.get(&last).copied());
        let kept = before.unwrap_or(*newest);
        let lost = newest.total().saturating_sub(kept.total());
        Self { wasted: kept.wasted.saturating_add(lost), ..kept }
    }

    pub(super) fn total(&self) -> Duration {
        let Self { useful, start_up, data, save, restore, wasted } = *self;
        [start_up, data, save, restore, wasted].into_iter().fold(useful, Duration::saturating_add)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            useful: self.useful.saturating_add(other.useful),
            start_up: self.start_up.saturating_add(other.start_up),
            data: self.data.saturating_add(other.data),
            save: self.save.saturating_add(other.save),
            restore: self.restore.saturating_add(other.restore),
            wasted: self.wasted.saturating_add(other.wasted),
        }
    }

    /// What was not useful, by cause.
    pub(super) fn not_useful(&self) -> [(&'static str, Duration); 5] {
        [
            ("start_up", self.start_up),
            ("data", self.data),
            ("save", self.save),
            ("restore", self.restore),
            ("wasted", self.wasted),
        ]
    }
}

impl From<&Spent> for Times {
    /// Numbers that are no time are none.
    fn from(spent: &Spent) -> Self {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self {
            useful: time(spent.useful),
            start_up: time(spent.start_up),
            data: time(spent.data),
            save: time(spent.save),
            restore: time(spent.restore),
            wasted: time(spent.wasted),
        }
    }
}

impl From<Times> for Spent {
    fn from(times: Times) -> Self {
        Self {
            useful: times.useful.as_secs_f64(),
            start_up: times.start_up.as_secs_f64(),
            data: times.data.as_secs_f64(),
            save: times.save.as_secs_f64(),
            restore: times.restore.as_secs_f64(),
            wasted: times.wasted.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(useful: u64, wasted: u64) -> Times {
        let seconds = Duration::from_secs;
        Times { useful: seconds(useful), start_up: seconds(1), wasted: seconds(wasted), ..Times::default() }
    }

    #[test]
    fn what_is_done_again_was_wasted() {
        let earlier = BTreeMap::from([(3, times(40, 2)), (6, times(70, 5))]);
        assert_eq!(Times::carried(&earlier, 7), times(70, 5), "all of it is kept");
        assert_eq!(Times::carried(&earlier, 4), times(40, 2 + 30 + 3));
        assert_eq!(Times::carried(&earlier, 4).total(), times(70, 5).total());
        let afresh = Times::carried(&earlier, 0);
        assert_eq!((afresh.useful, afresh.wasted), (Duration::ZERO, Duration::from_secs(76)));
        assert_eq!(Times::carried(&earlier, 9), times(70, 5), "of step 8 nothing is known");
        assert_eq!(Times::carried(&BTreeMap::new(), 9), Times::default());
    }

    #[test]
    fn numbers_that_are_no_time_do_no_harm() {
        let spent = Spent { useful: f64::NAN, data: -1.0, save: f64::MAX, wasted: 1e19, ..Spent::default() };
        let times = Times::from(&spent);
        assert_eq!((times.useful, times.data, times.save), Default::default());
        assert!(times.plus(times).plus(times).total() > Duration::from_secs(1));
        assert_eq!(Times::from(&Spent::from(self::times(3, 4))), self::times(3, 4));
    }
}

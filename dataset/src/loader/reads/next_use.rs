//! When the plan needs a row group next: computed from the plan, window by window, as far as a cache can
//! profit.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::plan::{PartId, Plan, RowGroupId};

/// Uses that are known at a time; what is needed later counts as not needed.
const HORIZON: usize = 1 << 16;

/// The windows that need each row group, from the current one on.
#[derive(Debug)]
pub(crate) struct NextUses {
    plan: Arc<Plan>,
    slots: Range<u32>,
    windows: BTreeMap<RowGroupId, VecDeque<u64>>,
    /// The row groups of each window that was looked at, the current one first.
    ahead: VecDeque<Vec<RowGroupId>>,
    current: u64,
    last: u64,
    known: usize,
}

impl NextUses {
    /// For some slots of a plan, from window 0 to `last`.
    pub(crate) fn new(plan: Arc<Plan>, slots: Range<u32>, last: u64) -> Self {
        Self { plan, slots, windows: BTreeMap::new(), ahead: VecDeque::new(), current: 0, last, known: 0 }
    }

    /// Forgets what is before `window`, and looks ahead.
    pub(crate) fn advance(&mut self, window: u64) {
        if self.ahead.is_empty() {
            self.current = self.current.max(window);
        }
        while self.current < window {
            let Some(passed) = self.ahead.pop_front() else {
                self.current = window;
                break;
            };
            for id in passed {
                self.known -= 1;
                if let Some(windows) = self.windows.get_mut(&id) {
                    windows.pop_front();
                    if windows.is_empty() {
                        self.windows.remove(&id);
                    }
                }
            }
            self.current += 1;
        }
        while self.known < HORIZON && self.current + self.ahead.len() as u64 <= self.last {
            let window = self.current + self.ahead.len() as u64;
            let of_slot = |slot| self.plan.row_groups_of_part(PartId { window, slot });
            let mut groups: Vec<_> = self.slots.clone().flat_map(of_slot).collect();
            groups.sort_unstable();
            groups.dedup();
            for id in &groups {
                self.windows.entry(*id).or_default().push_back(window);
            }
            self.known += groups.len();
            self.ahead.push_back(groups);
        }
    }

    /// The first window after `done` (from the current one on, if it was never used) that needs a row group;
    /// the end of time if none is known.
    pub(crate) fn next(&self, id: RowGroupId, done: Option<u64>) -> u64 {
        let after = |window: &&u64| done.is_none_or(|done| **window > done);
        self.windows.get(&id).and_then(|windows| windows.iter().find(after)).copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::PlanKey;
    use crate::test_assets::manifest;
    use blip2_test_corpus::properties::cases;

    proptest! {
        #![proptest_config(cases(60))]

        /// As a search through the plan's windows finds it, wherever the loader has come to.
        #[test]
        fn the_next_window_is_the_plan_s(
            files in prop::collection::vec(prop::collection::vec(1u32..20, 1..10), 1..4),
            (slots, own, window) in (1u32..6).prop_flat_map(|slots| (Just(slots), 0..slots, 1u32..4)),
            steps in prop::collection::vec(0u64..8, 1..6),
            last in 0u64..40,
            seed in any::<u64>(),
        ) {
            let files: Vec<&[u32]> = files.iter().map(Vec::as_slice).collect();
            let plan = Plan::new(&manifest(&files), PlanKey { seed, stage: 1 }, slots, window).unwrap();
            let plan = Arc::new(plan);
            let needs = |window, id| (own..slots).any(|slot| plan.row_groups_of_part(PartId { window, slot }).contains(&id));
            let mut uses = NextUses::new(Arc::clone(&plan), own..slots, last);
            let mut window = 0;
            for step in steps {
                window += step;
                uses.advance(window);
                for (file, groups) in (0u32..).zip(&files) {
                    for id in (0..groups.len() as u32).map(|row_group| RowGroupId { file, row_group }) {
                        let from = |first: u64| (first..=last).find(|window| needs(*window, id)).unwrap_or(u64::MAX);
                        prop_assert_eq!(uses.next(id, None), from(window));
                        prop_assert_eq!(uses.next(id, Some(window + 1)), from(window + 2));
                    }
                }
            }
        }
    }

    #[test]
    fn starting_anywhere_costs_the_horizon_alone() {
        let manifest = manifest(&[&[10; 100]]);
        let plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 1, stage: 1 }, 2, 2).unwrap());
        let mut uses = NextUses::new(plan, 0..2, u64::MAX - 1);
        uses.advance(1 << 40);
        assert!(uses.known >= HORIZON && uses.known < HORIZON + 100);
        let before = uses.known;
        uses.advance((1 << 40) + 5);
        assert!(uses.known.abs_diff(before) < 100);
    }
}

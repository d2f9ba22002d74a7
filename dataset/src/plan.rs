//! The sample plan: which row every position of every slot is, computed and never stored.
//!
//! An epoch of a source is its rows with its row groups in the order of a keyed permutation. All its epochs,
//! one after the other, are one endless sequence of rows. The sequences of several sources are merged into
//! one by a schedule that gives each exactly its share (`mixture`); a corpus of one source is that source's
//! sequence. The merged sequence is cut into windows of `slots` equal shares, here called parts; part `s` of
//! a window feeds slot `s`, in the order of a permutation of its own. So every row is used exactly once in
//! an epoch of its source, epochs join without a short batch, a slot touches few row groups at a time, and
//! any worker can compute any slot at any step.

pub mod audit;
mod candidates;
mod mixture;
mod place;
pub mod quality;
mod sample_plan;
mod sequence;
mod source_order;
mod view;

pub(crate) use candidates::SUBSTITUTE_TRIES;
pub use place::{PartId, PlanKey, RowAddress, RowGroupId};
pub use sample_plan::Plan;

#[cfg(test)]
mod bijection;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::error::DatasetError;
    use crate::test_assets::manifest;

    fn plan(files: &[&[u32]], slots: u32, window: u32) -> Plan {
        Plan::new(&manifest(files), PlanKey { seed: 5, stage: 1 }, slots, window).unwrap()
    }

    /// How often each row is used in each complete epoch, over enough positions of all slots.
    fn uses(plan: &Plan, epochs: u64) -> BTreeMap<(u64, u32, u32, u32), u32> {
        let windows = (epochs * plan.rows()).div_ceil(u64::from(plan.slots()) * plan.part_rows());
        let mut uses = BTreeMap::new();
        for slot in 0..plan.slots() {
            for position in 0..windows * plan.part_rows() {
                let row = plan.locate(slot, position);
                if row.epoch < epochs {
                    *uses.entry((row.epoch, row.file, row.row_group, row.row)).or_insert(0) += 1;
                }
            }
        }
        uses
    }

    #[test]
    fn every_row_once_an_epoch() {
        for (files, slots, window) in [
            (&[&[10u32, 7, 3][..], &[5, 0, 8][..]][..], 4, 2),
            (&[&[1][..]][..], 8, 4),
            (&[&[256; 20][..]][..], 16, 1),
            (&[&[3, 1, 4, 1, 5, 9, 2, 6][..]][..], 1, 3),
            (&[&[97, 31][..]][..], 5, 100),
        ] {
            let plan = plan(files, slots, window);
            let uses = uses(&plan, 3);
            assert_eq!(uses.len() as u64, 3 * plan.rows(), "{files:?} {slots} {window}");
            assert!(uses.values().all(|count| *count == 1), "{files:?} {slots} {window}");
        }
    }

    #[test]
    fn any_order_of_access_gives_the_same_rows() {
        let files: &[&[u32]] = &[&[16; 9], &[5; 11]];
        let (forward, backward) = (plan(files, 4, 2), plan(files, 4, 2));
        let positions: Vec<(u32, u64)> =
            (0..4).flat_map(|slot| (0..400).map(move |position| (slot, position))).collect();
        let a: Vec<_> = positions.iter().map(|(slot, position)| forward.locate(*slot, *position)).collect();
        let mut b: Vec<_> =
            positions.iter().rev().map(|(slot, position)| backward.locate(*slot, *position)).collect();
        b.reverse();
        assert_eq!(a, b);
        assert!(a.iter().any(|row| row.epoch > 4));
    }

    #[test]
    fn a_part_touches_few_row_groups() {
        let plan = plan(&[&[64; 400]], 8, 3);
        assert_eq!(plan.part_rows(), 192);
        for slot in 0..8 {
            for window in 0..20 {
                let positions = window * plan.part_rows()..(window + 1) * plan.part_rows();
                let rows: Vec<_> = positions.map(|position| plan.locate(slot, position)).collect();
                let touched: BTreeSet<_> =
                    rows.iter().map(|row| RowGroupId { file: row.file, row_group: row.row_group }).collect();
                assert!(touched.len() <= 5, "{}", touched.len());
                let listed: BTreeSet<_> =
                    plan.row_groups_of_part(PartId { window, slot }).into_iter().collect();
                assert_eq!(touched, listed);
            }
        }
    }

    #[test]
    fn parts_hold_the_rows_that_positions_find() {
        let plan = plan(&[&[10, 7, 3], &[5, 8]], 3, 2);
        let (slot, window) = (1, 5);
        let part = plan.part(slot, window * plan.part_rows());
        let by_offset: BTreeSet<_> =
            (0..plan.part_rows()).map(|offset| plan.row_of_part(part, offset)).collect();
        let by_position: BTreeSet<_> =
            (0..plan.part_rows()).map(|j| plan.locate(slot, window * plan.part_rows() + j)).collect();
        assert_eq!(by_offset, by_position);
    }

    #[test]
    fn the_order_depends_on_seed_stage_epoch_and_slot() {
        let manifest = manifest(&[&[32; 64]]);
        let rows = |seed, stage, slot, first: u64| -> Vec<_> {
            let plan = Plan::new(&manifest, PlanKey { seed, stage }, 4, 4).unwrap();
            (first..first + 64)
                .map(|position| plan.locate(slot, position))
                .map(|row| (row.row_group, row.row))
                .collect()
        };
        let base = rows(1, 1, 0, 0);
        assert_eq!(base, rows(1, 1, 0, 0));
        for other in [rows(2, 1, 0, 0), rows(1, 2, 0, 0), rows(1, 1, 1, 0), rows(1, 1, 0, 512)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        let key = PlanKey { seed: 1, stage: 1 };
        for (files, slots, window) in
            [(&[&[4u32][..]][..], 0, 1), (&[&[4][..]][..], 1, 0), (&[&[0][..]][..], 1, 1), (&[][..], 1, 1)]
        {
            assert!(matches!(Plan::new(&manifest(files), key, slots, window), Err(DatasetError::Setting(_))));
        }
    }

    #[test]
    fn plans_are_shared_between_threads() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Plan>();
    }
}

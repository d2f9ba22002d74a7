//! The plan as a bijection, over random shapes: any files, row groups, sources, weights, slots and windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use blip2_random::KeyedPermutation;
use blip2_test_corpus::properties::cases;
use proptest::prelude::*;

use super::*;
use crate::corpus::manifest::{Manifest, ManifestSource};

/// Rows walked through in a case, at least one epoch of the whole and two windows.
const ROWS_WALKED: u128 = 600;

#[derive(Debug, Clone)]
struct Shape {
    /// Of each source: its weight, and the rows of the row groups of its files.
    sources: Vec<(Option<f64>, Vec<Vec<u32>>)>,
    slots: u32,
    window: u32,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let file = prop::collection::vec(0u32..24, 0..5);
    let weight = prop::option::of(prop_oneof![0.01f64..100.0, Just(1.0)]);
    let source = (weight, prop::collection::vec(file, 1..4));
    (prop::collection::vec(source, 1..5), 1u32..10, 1u32..7, any::<u64>())
        .prop_map(|(sources, slots, window, seed)| Shape { sources, slots, window, seed })
}

impl Shape {
    fn manifest(&self) -> Manifest {
        let files: Vec<&[u32]> =
            self.sources.iter().flat_map(|(_, files)| files).map(Vec::as_slice).collect();
        let source = |(number, (weight, files)): (usize, &(Option<f64>, Vec<Vec<u32>>))| ManifestSource {
            name: format!("source-{number}"),
            weight: *weight,
            files: files.len() as u32,
        };
        let sources = self.sources.iter().enumerate().map(source).collect();
        Manifest { sources, ..crate::test_assets::manifest(&files) }
    }

    fn plan(&self) -> Option<Plan> {
        // Sources without rows, or too small for their weights, are refused.
        Plan::new(&self.manifest(), PlanKey { seed: self.seed, stage: 1 }, self.slots, self.window).ok()
    }
}

/// How often each row is used, by source and epoch.
type Uses = BTreeMap<(usize, u64), BTreeMap<(u32, u32, u32), u32>>;

/// Uses of rows by source and epoch, over some whole windows of all slots: `world` members share these, each
/// with a plan of its own.
fn walk(shape: &Shape, world: u32, windows: u64) -> Uses {
    let mut uses = Uses::new();
    for member in 0..world {
        let Some(plan) = shape.plan() else { continue };
        let first = |member: u32| (u64::from(member) * u64::from(plan.slots()) / u64::from(world)) as u32;
        walk_slots(&plan, first(member)..first(member + 1), windows, &mut uses);
    }
    uses
}

fn walk_slots(plan: &Plan, slots: Range<u32>, windows: u64, uses: &mut Uses) {
    let ranges: Vec<_> = plan.sequence().source_uses(0).into_iter().map(|source| source.groups).collect();
    let source_of: BTreeMap<RowGroupId, usize> = (0..)
        .zip(&ranges)
        .flat_map(|(number, range)| range.clone().map(move |group| (plan.sequence().groups[group].0, number)))
        .collect();
    for slot in slots {
        for position in 0..windows * plan.part_rows() {
            let row = plan.locate(slot, position);
            let group = RowGroupId { file: row.file, row_group: row.row_group };
            *uses.entry((source_of[&group], row.epoch)).or_default().entry(row.row_id()).or_default() += 1;
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    /// Epochs of a source follow each other: all before the last are whole, and no row comes twice in one,
    /// however many members share the slots.
    #[test]
    fn every_row_once_in_an_epoch_of_its_source(shape in shapes(), world in 1u32..12) {
        let Some(plan) = shape.plan() else { return Ok(()) };
        let window = u128::from(plan.slots()) * u128::from(plan.part_rows());
        let windows = ROWS_WALKED.max(u128::from(plan.rows())).div_ceil(window).max(2) as u64;
        let uses = walk(&shape, world, windows);
        for (number, source) in plan.sequence().source_uses(u128::from(windows) * window).into_iter().enumerate() {
            let rows = u128::from(source.rows);
            for epoch in 0..source.used.div_ceil(rows) as u64 {
                let of_epoch = uses.get(&(number, epoch)).cloned().unwrap_or_default();
                let wanted = (source.used - u128::from(epoch) * rows).min(rows);
                prop_assert_eq!(of_epoch.len() as u128, wanted, "source {} epoch {}", number, epoch);
                prop_assert!(of_epoch.values().all(|count| *count == 1));
            }
            let beyond = source.used.div_ceil(rows) as u64;
            prop_assert!(!uses.keys().any(|(other, epoch)| *other == number && *epoch >= beyond));
        }
    }

    /// A source's share of the samples is its weight's, to within a few row groups, wherever one looks.
    #[test]
    fn sources_have_their_shares(shape in shapes(), windows in 1u64..100_000) {
        let Some(plan) = shape.plan() else { return Ok(()) };
        let rows = u128::from(windows) * u128::from(plan.slots()) * u128::from(plan.part_rows());
        let uses = plan.sequence().source_uses(rows);
        let manifest = shape.manifest();
        let weights: Vec<f64> = match uses.len() {
            1 => vec![1.0],
            _ => manifest.sources.iter().zip(&uses).map(|(s, used)| s.weight_of(used.rows).unwrap()).collect(),
        };
        let total: f64 = weights.iter().sum();
        let block = plan.rows().div_ceil(plan.sequence().groups.len() as u64) as f64;
        prop_assert_eq!(uses.iter().map(|source| source.used).sum::<u128>(), rows);
        for (source, weight) in uses.iter().zip(weights) {
            let exact = rows as f64 * weight / total;
            prop_assert!((source.used as f64 - exact).abs() <= 4.0 * block + 1e-9 * exact, "{} {}", source.used, exact);
        }
    }

    /// A plan that is asked for one position alone, anywhere, gives what one that went through all of them
    /// gives.
    #[test]
    fn any_position_can_be_computed_alone(shape in shapes(), far in any::<u32>(), slot in any::<u32>()) {
        let (Some(plan), Some(fresh)) = (shape.plan(), shape.plan()) else { return Ok(()) };
        let slot = slot % plan.slots();
        let first = u64::from(far);
        let rows: Vec<_> = (first..first + 50).map(|position| plan.locate(slot, position)).collect();
        for (position, row) in (first..first + 50).zip(&rows).collect::<Vec<_>>().into_iter().rev() {
            prop_assert_eq!(fresh.locate(slot, position), *row);
            let part = plan.part(slot, position);
            let listed: BTreeSet<_> = fresh.row_groups_of_part(part).into_iter().collect();
            let group = RowGroupId { file: row.file, row_group: row.row_group };
            prop_assert!(listed.contains(&group));
        }
    }
}

#[test]
fn shapes_that_no_plan_can_have_are_refused_by_name() {
    let shape = |sources: Vec<(Option<f64>, Vec<Vec<u32>>)>| {
        let shape = Shape { sources, slots: 1, window: 4, seed: 1 };
        Plan::new(&shape.manifest(), PlanKey { seed: 1, stage: 1 }, 1, 4).unwrap_err().to_string()
    };
    let whole = (None, vec![vec![100_000; 8]]);
    assert!(shape(vec![whole.clone(), (None, vec![vec![0, 0], vec![]])]).contains("`source-1` has no rows"));
    assert!(shape(vec![whole.clone(), (Some(1e9), vec![vec![2]])]).contains("data.sources.source-1.weight"));
    assert!(shape(vec![whole, (Some(f64::NAN), vec![vec![2]])]).contains("positive"));
}

/// The order of runs that are under way, written down a second time: a plan of one source must go on giving
/// it.
#[test]
fn the_order_of_one_source_is_pinned() {
    let files: &[&[u32]] = &[&[10, 7, 3], &[5, 0, 8], &[21]];
    let (seed, stage, slots, window) = (42, 1, 2u64, 2);
    let mut groups = Vec::new();
    for (file, rows) in files.iter().enumerate() {
        groups.extend(
            rows.iter().enumerate().filter(|(_, rows)| **rows > 0).map(|(group, rows)| (file, group, *rows)),
        );
    }
    let rows: u64 = groups.iter().map(|(_, _, rows)| u64::from(*rows)).sum();
    let part_rows = window * rows / groups.len() as u64;
    let sequence = |epoch: u64| {
        let shuffle = KeyedPermutation::keyed(seed, "epoch order", &[stage, epoch], groups.len() as u64);
        let order = (0..groups.len() as u64).map(move |index| shuffle.apply(index) as usize);
        let all = order.flat_map(|index| (0..groups[index].2).map(move |row| (index, row)));
        all.map(|(index, row)| RowAddress {
            file: groups[index].0 as u32,
            row_group: groups[index].1 as u32,
            row,
            epoch,
        })
        .collect::<Vec<_>>()
    };
    let endless: Vec<_> = (0..20).flat_map(sequence).collect();

    let key = PlanKey { seed, stage: stage as u32 };
    let plan = Plan::new(&crate::test_assets::manifest(files), key, slots as u32, window as u32).unwrap();
    assert_eq!(plan.part_rows(), part_rows);
    for (slot, position) in (0..slots).flat_map(|slot| (0..200).map(move |position| (slot, position))) {
        let number = position / part_rows;
        let shuffle = KeyedPermutation::keyed(seed, "part order", &[stage, number, slot], part_rows);
        let index = (number * slots + slot) * part_rows + shuffle.apply(position % part_rows);
        assert_eq!(plan.locate(slot as u32, position), endless[index as usize]);
    }
}

//! How well a plan shuffles and what it costs to read, measured by walking through its first windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;

use super::place::{PartId, RowAddress, RowGroupId};
use super::sample_plan::Plan;
use crate::corpus::manifest::Manifest;
use crate::error::{DatasetError, Result};

/// What a plan is measured for.
#[derive(Debug, Clone, Copy)]
pub struct QualitySpec<'a> {
    /// The corpus.
    pub manifest: &'a Manifest,
    /// Its plan.
    pub plan: &'a Plan,
    /// Samples of a slot in a step.
    pub batch_per_slot: u32,
    /// Workers that share the slots.
    pub workers: u32,
    /// Windows to walk through.
    pub windows: u64,
    /// Row groups that a worker reads at the same time.
    pub read_concurrency: u32,
    /// Seconds from a request to the first byte of its answer.
    pub latency_s: f64,
    /// Bytes a second that a worker reads.
    pub bandwidth: f64,
}

/// How a plan shuffles and what it reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanQuality {
    /// Samples looked at.
    pub samples: u64,
    /// Median distance, in rows of the corpus, between two samples that follow each other in a slot.
    pub neighbour_distance_median: u64,
    /// Mean of it, over that of rows drawn at random (a third of the corpus): 1 is a perfect shuffle.
    pub neighbour_distance_mean_ratio: f64,
    /// Share of these neighbours that come from one row group.
    pub neighbours_of_one_row_group: f64,
    /// Share of the pairs of samples in a global batch that come from one row group.
    pub batch_pairs_of_one_row_group: f64,
    /// The same for a batch drawn at random.
    pub random_pairs_of_one_row_group: f64,
    /// Row groups in a global batch.
    pub row_groups_in_a_batch: f64,
    /// Row groups that a slot draws from in a window.
    pub row_groups_of_a_part: f64,
    /// Bytes read for each byte used.
    pub read_amplification: f64,
    /// Bytes of the row groups that a worker needs for a window and the next, at most.
    pub cache_bytes: u64,
    /// Bytes that all workers read in an epoch of the corpus.
    pub egress_bytes: u64,
    /// Bytes read for a sample.
    pub bytes_per_sample: f64,
    /// Seconds until the slowest worker has all it needs for its first batch.
    pub first_batch_s: f64,
}

/// Walks through the first windows of a plan.
///
/// A worker is taken to keep the row groups of the window it is in and of the one before: what both need is
/// read once.
///
/// # Errors
/// [`DatasetError::Setting`] for a number that must not be 0, or more workers than slots.
pub fn plan_quality(spec: &QualitySpec<'_>) -> Result<PlanQuality> {
    let numbers = [u64::from(spec.batch_per_slot), spec.windows, u64::from(spec.read_concurrency)];
    let rates = spec.bandwidth > 0.0 && spec.latency_s >= 0.0;
    if numbers.contains(&0) || !rates {
        let reason = "batch, windows, concurrency and bandwidth must be positive".to_owned();
        return Err(DatasetError::Setting(reason));
    }
    if spec.workers == 0 || spec.workers > spec.plan.slots() {
        let reason = format!("{} workers cannot share {} slots", spec.workers, spec.plan.slots());
        return Err(DatasetError::Setting(reason));
    }
    let walk = Walk::new(spec);
    let neighbours = walk.neighbours();
    let batches = walk.batches();
    let reads = walk.reads();
    let rows = spec.plan.rows() as f64;
    let random =
        spec.plan.sequence().groups.iter().map(|(_, rows_of)| (f64::from(*rows_of) / rows).powi(2)).sum();
    Ok(PlanQuality {
        samples: walk.samples(),
        neighbour_distance_median: neighbours.median,
        neighbour_distance_mean_ratio: neighbours.mean / (rows / 3.0),
        neighbours_of_one_row_group: neighbours.of_one_group,
        batch_pairs_of_one_row_group: batches.pairs_of_one_group,
        random_pairs_of_one_row_group: random,
        row_groups_in_a_batch: batches.groups,
        row_groups_of_a_part: reads.groups_of_a_part,
        read_amplification: reads.amplification,
        cache_bytes: reads.cache_bytes,
        egress_bytes: (reads.amplification * spec.manifest.bytes() as f64) as u64,
        bytes_per_sample: reads.amplification * spec.manifest.bytes() as f64 / rows,
        first_batch_s: walk.first_batch_s(),
    })
}

struct Walk<'a> {
    spec: &'a QualitySpec<'a>,
    /// Rows of the corpus before each row group of the plan.
    first_rows: Vec<u64>,
    /// Bytes of a row, by file.
    row_bytes: Vec<f64>,
}

struct Neighbours {
    median: u64,
    mean: f64,
    of_one_group: f64,
}

struct Batches {
    pairs_of_one_group: f64,
    groups: f64,
}

struct Reads {
    groups_of_a_part: f64,
    amplification: f64,
    cache_bytes: u64,
}

impl<'a> Walk<'a> {
    fn new(spec: &'a QualitySpec<'a>) -> Self {
        let mut before = 0;
        let first_rows = spec.plan.sequence().group_rows().map(|rows| {
            before += u64::from(rows);
            before - u64::from(rows)
        });
        let row_bytes = spec.manifest.files.iter().map(|file| {
            let rows: u64 = file.row_groups.iter().map(|rows| u64::from(*rows)).sum();
            file.bytes as f64 / rows.max(1) as f64
        });
        Self { spec, first_rows: first_rows.collect(), row_bytes: row_bytes.collect() }
    }

    /// Positions of a slot that are walked through.
    fn positions(&self) -> u64 {
        self.spec.windows.saturating_mul(self.spec.plan.part_rows())
    }

    fn samples(&self) -> u64 {
        self.positions().saturating_mul(u64::from(self.spec.plan.slots()))
    }

    /// Index of the row's row group in the plan.
    fn group(&self, row: RowAddress) -> usize {
        let id = RowGroupId { file: row.file, row_group: row.row_group };
        self.spec.plan.sequence().groups.partition_point(|(other, _)| *other < id)
    }

    /// The slots of each worker, as they are dealt.
    fn shares(&self) -> impl Iterator<Item = Range<u32>> {
        let (slots, workers) = (u64::from(self.spec.plan.slots()), u64::from(self.spec.workers));
        // Both ends are at most the number of slots.
        (0..workers).map(move |w| (w * slots / workers) as u32..((w + 1) * slots / workers) as u32)
    }

    fn neighbours(&self) -> Neighbours {
        let mut distances = Vec::new();
        let mut same = 0u64;
        for slot in 0..self.spec.plan.slots() {
            let mut before: Option<(usize, u64)> = None;
            for position in 0..self.positions() {
                let row = self.spec.plan.locate(slot, position);
                let group = self.group(row);
                let index = self.first_rows[group] + u64::from(row.row);
                if let Some((last_group, last_index)) = before.replace((group, index)) {
                    same += u64::from(last_group == group);
                    distances.push(index.abs_diff(last_index));
                }
            }
        }
        let count = distances.len().max(1) as f64;
        let mean = distances.iter().map(|distance| *distance as f64).sum::<f64>() / count;
        let middle = distances.len() / 2;
        let median = match distances.is_empty() {
            true => 0,
            false => *distances.select_nth_unstable(middle).1,
        };
        Neighbours { median, mean, of_one_group: same as f64 / count }
    }

    fn batches(&self) -> Batches {
        let batch = u64::from(self.spec.batch_per_slot);
        let (mut pairs, mut same, mut groups, mut batches) = (0.0, 0.0, 0.0, 0.0);
        for step in 0..(self.positions() / batch).max(1) {
            let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
            for slot in 0..self.spec.plan.slots() {
                for position in step * batch..(step + 1) * batch {
                    *counts.entry(self.group(self.spec.plan.locate(slot, position))).or_default() += 1.0;
                }
            }
            let samples: f64 = counts.values().sum();
            pairs += samples * (samples - 1.0);
            same += counts.values().map(|count| count * (count - 1.0)).sum::<f64>();
            groups += counts.len() as f64;
            batches += 1.0;
        }
        let share = if pairs > 0.0 { same / pairs } else { 0.0 };
        Batches { pairs_of_one_group: share, groups: groups / batches }
    }

    fn reads(&self) -> Reads {
        let plan = self.spec.plan;
        let (mut read, mut used, mut cache, mut groups, mut parts) = (0.0, 0.0, 0.0f64, 0.0, 0.0);
        for share in self.shares() {
            let mut before: BTreeSet<u32> = BTreeSet::new();
            for window in 0..self.spec.windows {
                let mut now = BTreeSet::new();
                for slot in share.clone() {
                    let segments = plan.sequence().segments(PartId { window, slot });
                    used += segments.iter().map(|part| self.bytes(part.group, part.rows.len())).sum::<f64>();
                    let of_part: BTreeSet<u32> = segments.iter().map(|segment| segment.group).collect();
                    groups += of_part.len() as f64;
                    parts += 1.0;
                    now.extend(of_part);
                }
                read += now.difference(&before).map(|group| self.whole(*group)).sum::<f64>();
                cache = cache.max(now.union(&before).map(|group| self.whole(*group)).sum());
                before = now;
            }
        }
        let amplification = if used > 0.0 { read / used } else { 1.0 };
        Reads { groups_of_a_part: groups / parts, amplification, cache_bytes: cache as u64 }
    }

    /// Bytes of some rows of a row group.
    fn bytes(&self, group: u32, rows: usize) -> f64 {
        self.row_bytes[self.spec.plan.sequence().group(group).file as usize] * rows as f64
    }

    fn whole(&self, group: u32) -> f64 {
        self.bytes(group, self.spec.plan.sequence().groups[group as usize].1 as usize)
    }

    /// Each file costs a look-up and its footer, each row group a request; as many at a time as are allowed.
    fn first_batch_s(&self) -> f64 {
        let spec = self.spec;
        let seconds = self.shares().map(|share| {
            let rows = share.flat_map(|slot| {
                (0..u64::from(spec.batch_per_slot)).map(move |position| spec.plan.locate(slot, position))
            });
            // Row groups are counted in 32 bits.
            let groups: BTreeSet<u32> = rows.map(|row| self.group(row) as u32).collect();
            let files: BTreeSet<u32> =
                groups.iter().map(|group| spec.plan.sequence().group(*group).file).collect();
            let turns = |requests: usize| requests.div_ceil(spec.read_concurrency as usize) as f64;
            let bytes: f64 = groups.iter().map(|group| self.whole(*group)).sum();
            spec.latency_s * (2.0 * turns(files.len()) + turns(groups.len())) + bytes / spec.bandwidth
        });
        seconds.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanKey;

    fn quality(window: u32, workers: u32) -> PlanQuality {
        let files = [[100u32; 10]; 40];
        let files: Vec<&[u32]> = files.iter().map(|groups| groups.as_slice()).collect();
        let mut manifest = crate::test_assets::manifest(&files);
        manifest.files.iter_mut().for_each(|file| file.bytes = 1_000_000);
        let plan = Plan::new(&manifest, PlanKey { seed: 3, stage: 1 }, 8, window).unwrap();
        let spec = QualitySpec {
            manifest: &manifest,
            plan: &plan,
            batch_per_slot: 10,
            workers,
            windows: 6,
            read_concurrency: 8,
            latency_s: 0.1,
            bandwidth: 1e6,
        };
        plan_quality(&spec).unwrap()
    }

    #[test]
    fn a_wider_window_mixes_better_and_needs_more_memory() {
        let (narrow, wide) = (quality(1, 1), quality(8, 1));
        assert_eq!((narrow.samples, wide.samples), (8 * 6 * 100, 8 * 6 * 800));
        assert!(narrow.neighbours_of_one_row_group > 0.9 && wide.neighbours_of_one_row_group < 0.3);
        assert!(narrow.batch_pairs_of_one_row_group > wide.batch_pairs_of_one_row_group);
        assert!(narrow.neighbour_distance_median < 100 && wide.neighbour_distance_median > 1000);
        assert!(wide.cache_bytes > 3 * narrow.cache_bytes && wide.first_batch_s > narrow.first_batch_s);
        assert!((wide.random_pairs_of_one_row_group - 1.0 / 400.0).abs() < 1e-9);
    }

    /// Whole row groups, each in one slot: what is used is what is read.
    #[test]
    fn what_is_read_is_counted() {
        let whole = quality(1, 8);
        assert!((whole.read_amplification - 1.0).abs() < 1e-9, "{whole:?}");
        assert_eq!((whole.cache_bytes, whole.egress_bytes), (200_000, 40_000_000));
        // A file's look-up and footer, the row group, and its bytes.
        assert!((whole.first_batch_s - (0.3 + 0.1)).abs() < 1e-9, "{whole:?}");
        assert!((whole.bytes_per_sample - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let manifest = crate::test_assets::manifest(&[&[4]]);
        let plan = Plan::new(&manifest, PlanKey { seed: 3, stage: 1 }, 2, 1).unwrap();
        let fine = QualitySpec {
            manifest: &manifest,
            plan: &plan,
            batch_per_slot: 1,
            workers: 2,
            windows: 1,
            read_concurrency: 1,
            latency_s: 0.0,
            bandwidth: 1.0,
        };
        assert!(plan_quality(&fine).is_ok());
        for bad in [
            QualitySpec { workers: 3, ..fine },
            QualitySpec { windows: 0, ..fine },
            QualitySpec { bandwidth: 0.0, ..fine },
        ] {
            assert!(matches!(plan_quality(&bad), Err(DatasetError::Setting(_))));
        }
    }
}

//! What is trained on, and what comes out when nothing goes wrong: the reference every run is held against.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use blip2_dataset::corpus::manifest::{Manifest, ManifestFile};
use blip2_dataset::coverage::Coverage;
use blip2_dataset::plan::{PartId, RowAddress};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_run::schedule::{Schedule, Stage};

use crate::random::mix;

/// Slots of the simulated run.
pub(crate) const SLOTS: u32 = 8;
/// Steps of each stage.
pub(crate) const STEPS: [u64; 2] = [23, 17];
/// Global batch of each stage.
pub(crate) const BATCH: [u32; 2] = [16, 24];
/// Steps of the run.
pub(crate) const TOTAL: u64 = STEPS[0] + STEPS[1];
/// The state before the first step.
pub(crate) const FRESH: u64 = 0xF8E5_44D1_D00D_5EED;

/// What one slot uses in one step.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) coverage: Coverage,
    pub(crate) samples: u64,
    pub(crate) quarantined: Vec<QuarantineRecord>,
}

/// The samples of every step and slot, and the fault-free run.
#[derive(Debug)]
pub(crate) struct Corpus {
    schedule: Schedule,
    shares: Vec<Vec<Share>>,
    states: Vec<u64>,
    coverage: Vec<BTreeMap<u32, Coverage>>,
    quarantine: Vec<QuarantineList>,
}

/// The corpus of all simulations.
pub(crate) static CORPUS: LazyLock<Corpus> = LazyLock::new(Corpus::new);

/// What a slot adds to the gradient of a step.
pub(crate) fn contribution(state: u64, step: u64, slot: u32) -> u64 {
    mix(mix(state ^ mix(step)) ^ (u64::from(slot) << 32))
}

/// The state after a step with this gradient.
pub(crate) fn applied(state: u64, step: u64, gradient: u64) -> u64 {
    if is_skipped(step) {
        return state;
    }
    mix(state ^ mix(gradient) ^ (step << 7))
}

/// Whether what a step comes to is not a finite number: it changes no state.
pub(crate) fn is_skipped(step: u64) -> bool {
    step % 7 == 3
}

/// Contributions of all slots, in slot order, as one gradient.
pub(crate) fn gradient(contributions: impl IntoIterator<Item = u64>) -> u64 {
    contributions.into_iter().fold(0, |sum, next| mix(sum.rotate_left(9) ^ next))
}

/// The stages of the run.
pub(crate) fn schedule() -> Schedule {
    let named = [("represent", "contrast"), ("generate", "generate")];
    let stage = |(place, (name, task)): (usize, (&str, &str))| Stage {
        name: name.into(),
        task: task.into(),
        steps: STEPS[place],
        batch: BATCH[place],
    };
    named.into_iter().enumerate().map(stage).collect()
}

impl Corpus {
    fn new() -> Self {
        let file = |name: &str, rows: &[u32]| ManifestFile {
            location: format!("/corpus/{name}.parquet"),
            bytes: 1000,
            etag: None,
            row_groups: rows.to_vec(),
            failed: Vec::new(),
        };
        let files = vec![file("a", &[17, 9, 21]), file("b", &[30]), file("c", &[5, 5, 40, 12])];
        let manifest = Manifest::of(files);
        let schedule = schedule();
        let shares: Vec<Vec<Share>> = (0..TOTAL).map(|step| shares_of(&manifest, &schedule, step)).collect();
        let mut corpus = Self {
            schedule,
            shares,
            states: vec![FRESH],
            coverage: vec![BTreeMap::new()],
            quarantine: vec![QuarantineList::default()],
        };
        for step in 0..TOTAL {
            corpus.extend(step);
        }
        corpus
    }

    fn extend(&mut self, step: u64) {
        let at = step as usize;
        let state = self.states[at];
        let gradient = gradient((0..SLOTS).map(|slot| contribution(state, step, slot)));
        self.states.push(applied(state, step, gradient));
        let mut coverage = self.coverage[at].clone();
        let mut quarantine = self.quarantine[at].clone();
        for share in &self.shares[at] {
            *coverage.entry(self.schedule.stage_of(step)).or_default() += share.coverage;
            quarantine.extend(share.quarantined.iter().cloned());
        }
        self.coverage.push(coverage);
        self.quarantine.push(quarantine);
    }

    /// What a slot uses in a step.
    pub(crate) fn share(&self, step: u64, slot: u32) -> &Share {
        &self.shares[step as usize][slot as usize]
    }

    /// The stage of a step.
    pub(crate) fn stage_of(&self, step: u64) -> u32 {
        self.schedule.stage_of(step)
    }

    /// The state after `committed` steps of the fault-free run.
    pub(crate) fn state(&self, committed: u64) -> Option<u64> {
        self.states.get(committed as usize).copied()
    }

    /// What `committed` steps have used of each stage begun.
    pub(crate) fn coverage(&self, committed: u64) -> &BTreeMap<u32, Coverage> {
        &self.coverage[committed as usize]
    }

    /// The rows that `committed` steps have met and could not use.
    pub(crate) fn quarantine(&self, committed: u64) -> &QuarantineList {
        &self.quarantine[committed as usize]
    }
}

fn shares_of(manifest: &Manifest, schedule: &Schedule, step: u64) -> Vec<Share> {
    let stage = schedule.stage_of(step);
    let key = PlanKey { seed: 7, stage };
    let plan = Plan::new(manifest, key, SLOTS, 2).expect("a corpus with rows");
    let batch = u64::from(BATCH[stage as usize - 1] / SLOTS);
    let stage_step = step - STEPS[..stage as usize - 1].iter().sum::<u64>();
    let share = |slot: u32| {
        let mut share = Share { coverage: Coverage::default(), samples: batch, quarantined: Vec::new() };
        for index in 0..batch {
            let sample = (stage_step * u64::from(SLOTS) + u64::from(slot)) * batch + index;
            let position = stage_step * batch + index;
            take_row(&plan, manifest, &mut share, (sample, slot, position));
        }
        share
    };
    (0..SLOTS).map(share).collect()
}

/// Uses the planned row, or the next usable one of its part.
fn take_row(plan: &Plan, manifest: &Manifest, share: &mut Share, place: (u64, u32, u64)) {
    let (sample, slot, position) = place;
    let stage = plan.key().stage;
    let part: PartId = plan.part(slot, position);
    let mut row = plan.locate(slot, position);
    for attempt in 0.. {
        if is_usable(row) {
            share.coverage += Coverage::of(stage, sample, (row.file, row.row_group, row.row));
            return;
        }
        let file = manifest.files[row.file as usize].location.clone();
        let record = QuarantineRecord {
            key: format!("{}-{}", row.row_group, row.row),
            file,
            row_group: row.row_group,
            row: row.row,
            reason: "not an image".into(),
            sample,
            stage,
        };
        if !share.quarantined.contains(&record) {
            share.quarantined.push(record);
        }
        row = plan.row_of_part(part, attempt % plan.part_rows());
    }
}

/// One row in nine is none.
fn is_usable(row: RowAddress) -> bool {
    let place = u64::from(row.file) << 40 | u64::from(row.row_group) << 20 | u64::from(row.row);
    !mix(place).is_multiple_of(9)
}

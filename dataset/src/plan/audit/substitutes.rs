//! The samples whose planned row is quarantined, and the rows they used instead.

use std::collections::{BTreeMap, BTreeSet};

use super::spec::AuditSpec;
use crate::corpus::manifest::Manifest;
use crate::coverage::Coverage;
use crate::plan::place::RowAddress;
use crate::plan::sample_plan::Plan;
use crate::quarantine::QuarantineRecord;

/// A sample that used another row than the planned one.
#[derive(Debug, Clone, PartialEq)]
pub struct Substitution {
    /// Global index of the sample within the stage.
    pub sample: u64,
    /// Step of the stage that used it.
    pub step: u64,
    /// The planned row.
    pub planned: RowAddress,
    /// The row used in its place.
    pub used: RowAddress,
    /// The rows met before it, the planned one first.
    pub unusable: Vec<QuarantineRecord>,
}

/// What the quarantine list says of the audited steps.
pub(super) struct Substitutes {
    pub(super) found: Vec<Substitution>,
    pub(super) problems: Vec<String>,
}

impl Substitutes {
    pub(super) fn find(plan: &Plan, spec: &AuditSpec<'_>) -> Self {
        let end = spec.marks.last().copied().unwrap_or_default();
        let stage = spec.key.stage;
        let mut of_sample: BTreeMap<u64, Vec<&QuarantineRecord>> = BTreeMap::new();
        for record in spec.quarantined.iter().filter(|record| record.stage == stage) {
            of_sample.entry(record.sample).or_default().push(record);
        }
        let mut substitutes = Self { found: Vec::new(), problems: Vec::new() };
        let places = Places::new(spec.manifest);
        for (sample, records) in of_sample {
            let place = SamplePlace::of(sample, plan, spec.batch_per_slot);
            if place.step >= end {
                substitutes.problems.push(format!(
                    "stage {stage}: a row is quarantined for sample {sample}, which the {end} committed steps do not use"
                ));
                continue;
            }
            match substitution(plan, &places, place, &records) {
                Ok(found) => substitutes.found.push(found),
                Err(problem) => substitutes.problems.push(format!("stage {stage}: {problem}")),
            }
        }
        substitutes
    }

    /// Puts the rows really used in the place of the planned ones.
    pub(super) fn correct(&self, spec: &AuditSpec<'_>, between: &mut [Coverage]) {
        for Substitution { sample, step, planned, used, .. } in &self.found {
            let mark = spec.marks.partition_point(|mark| mark <= step);
            let of = |row: &RowAddress| Coverage::of(spec.key.stage, *sample, row.row_id());
            between[mark] = between[mark].without(of(planned)) + of(used);
        }
    }
}

/// Where a sample is in the plan.
#[derive(Clone, Copy)]
struct SamplePlace {
    sample: u64,
    step: u64,
    slot: u32,
    position: u64,
}

impl SamplePlace {
    fn of(sample: u64, plan: &Plan, batch_per_slot: u32) -> Self {
        let batch = u64::from(batch_per_slot);
        let (of_slot, index) = (sample / batch, sample % batch);
        let (step, slot) = (of_slot / u64::from(plan.slots()), of_slot % u64::from(plan.slots()));
        // A remainder of the slots, which are counted in 32 bits.
        Self { sample, step, slot: slot as u32, position: step * batch + index }
    }
}

/// The manifest's files by name.
struct Places<'a> {
    files: BTreeMap<&'a str, u32>,
}

impl<'a> Places<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self { files: (0u32..).zip(&manifest.files).map(|(i, file)| (file.location.as_str(), i)).collect() }
    }

    fn row(&self, record: &QuarantineRecord) -> Option<(u32, u32, u32)> {
        Some((*self.files.get(record.file.as_str())?, record.row_group, record.row))
    }
}

/// The row a sample used, given those it could not.
fn substitution(
    plan: &Plan,
    places: &Places<'_>,
    place: SamplePlace,
    records: &[&QuarantineRecord],
) -> Result<Substitution, String> {
    let sample = place.sample;
    let named = |record: &QuarantineRecord| {
        format!("row {} of row group {} of {}", record.row, record.row_group, record.file)
    };
    let mut unusable = BTreeSet::new();
    for record in records {
        let row = places.row(record).ok_or_else(|| {
            format!("sample {sample}: the quarantined {} is not in the manifest", named(record))
        })?;
        unusable.insert(row);
    }
    let planned = plan.locate(place.slot, place.position);
    let mut met = BTreeSet::new();
    let candidates = plan.candidates(place.slot, place.position, sample);
    let used = candidates.into_iter().find(|row| {
        let bad = unusable.contains(&row.row_id());
        if bad {
            met.insert(row.row_id());
        }
        !bad
    });
    let never = records.iter().find(|record| places.row(record).is_none_or(|row| !met.contains(&row)));
    if let Some(record) = never {
        return Err(format!("sample {sample}: it does not meet the quarantined {}", named(record)));
    }
    let used = used.ok_or_else(|| format!("sample {sample}: every row it may use is quarantined"))?;
    let mut unusable: Vec<QuarantineRecord> = records.iter().map(|record| (*record).clone()).collect();
    unusable.sort_by_key(|record| places.row(record) != Some(planned.row_id()));
    Ok(Substitution { sample, step: place.step, planned, used, unusable })
}

//! The audit of a run, from its store alone: what the committed steps must have used, beside what every
//! COMMIT says.

mod simulation;

use std::collections::BTreeMap;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::coverage::Coverage;
use blip2_dataset::plan::audit::{AuditSpec, StageAudit, Substitution, audit_stage};
use blip2_dataset::plan::{PlanKey, RowAddress};
use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_run::RunError;
use blip2_run::catalogue::{Catalogue, Damaged, Listing};
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochRecord;
use blip2_run::history::{self, damage};
use blip2_run::schedule::Schedule;
use blip2_store::Location;
use blip2_worker::config_hash;
use serde::Serialize;

use crate::config::RunConfig;
use crate::error::CliError;
use crate::run_folder::{stored_configuration, stored_manifest};

pub(crate) use simulation::{Corpus, simulate};

/// What an audit found.
#[derive(Debug, Serialize)]
pub(crate) struct AuditReport {
    pub(crate) run: String,
    /// Whether nothing differs; what is noted is no difference.
    pub(crate) exact: bool,
    /// Steps up to the newest checkpoint, which is where an audit ends.
    pub(crate) steps: u64,
    /// Checkpoints compared.
    pub(crate) checkpoints: usize,
    /// Membership epochs compared.
    pub(crate) epochs: usize,
    /// Rows of the corpus whose download failed; no part of the plan.
    pub(crate) not_downloaded: u64,
    pub(crate) stages: Vec<StageReport>,
    pub(crate) substitutions: Vec<Replaced>,
    /// Committed steps that changed no parameter, because what they came to is not a finite number.
    pub(crate) skipped_steps: Vec<u64>,
    /// What happened and is explained: roll-backs, and damaged checkpoints that the run passed over.
    pub(crate) notes: Vec<String>,
    pub(crate) differences: Vec<String>,
}

/// The committed steps of a stage.
#[derive(Debug, Serialize)]
pub(crate) struct StageReport {
    pub(crate) stage: u32,
    pub(crate) steps: u64,
    pub(crate) samples: u64,
    pub(crate) rows: u64,
    /// Epochs that are wholly behind, and those that have begun: every row must be used at least and at most
    /// so often.
    pub(crate) finished_epochs: u64,
    pub(crate) begun_epochs: u64,
    pub(crate) fewest_uses: u64,
    pub(crate) most_uses: u64,
    pub(crate) digest: String,
}

/// A sample that used another row than the planned one.
#[derive(Debug, Serialize)]
pub(crate) struct Replaced {
    pub(crate) stage: u32,
    pub(crate) step: u64,
    pub(crate) sample: u64,
    pub(crate) used: Place,
    /// The planned row, and substitutes that could not be used either.
    pub(crate) quarantined: Vec<Place>,
}

/// A row.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) row_group: u32,
    pub(crate) row: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// Everything an audit reads.
struct Stored {
    config: RunConfig,
    manifest: Manifest,
    listing: Listing,
    /// The list of the newest checkpoint.
    quarantine: QuarantineList,
    notes: Vec<String>,
    differences: Vec<String>,
}

/// Audits the run in `root` with this many threads.
///
/// # Errors
/// There is no run, or none that has saved anything; or the store fails. What differs is in the report.
pub(crate) async fn audit(root: &Location, threads: usize) -> Result<AuditReport, CliError> {
    let found = history::read(root).await?;
    let mut stored = read(root, &found.records).await?;
    stored.differences.extend(found.problems);
    let slots = stored.config.train.slots;
    let saved = damage::saved(&stored.listing);
    let checked = history::check(&found.records, &found.torn, &stored.listing.valid, &saved, slots);
    stored.differences.extend(checked.problems);
    stored.notes.extend(checked.notes);
    let epochs = found.records.len();
    tokio::task::spawn_blocking(move || compare(stored, epochs, threads))
        .await
        .map_err(|error| CliError::failed(format!("the audit thread failed: {error}")))?
}

async fn read(root: &Location, epochs: &[EpochRecord]) -> Result<Stored, CliError> {
    let config = stored_configuration(root).await?;
    let manifest = stored_manifest(root).await?;
    let catalogue = Catalogue::new(root);
    let listing = catalogue.list().await?;
    let Some(newest) = listing.valid.last() else {
        let damaged: Vec<String> = listing.damaged.iter().map(damage::words).collect();
        return Err(CliError::failed(match &damaged[..] {
            [] => format!("{root} has no checkpoint yet: there is nothing to audit"),
            damaged => format!("{root} has no checkpoint that can be read: {}", damaged.join("; ")),
        }));
    };
    let (mut notes, mut differences) = (Vec::new(), Vec::new());
    let mut found = listing.damaged.clone();
    let schedule = config.schedule();
    let mut quarantine = QuarantineList::default();
    // Newest first: its list is what the others are compared with.
    for record in listing.valid.iter().rev() {
        match catalogue.read_quarantine(record).await {
            Ok(list) if record.name == newest.name => quarantine = list,
            Ok(list) => differences.extend(compare_lists(record, &list, &quarantine, &schedule)),
            Err(RunError::Checkpoint { name, reason }) => found.push(Damaged { name, reason }),
            Err(error) => return Err(error.into()),
        }
    }
    for damaged in found {
        match damage::is_passed_over(&damaged.name, newest, epochs) {
            true => notes.push(format!("{}; the run passed it over", damage::words(&damaged))),
            false => differences.push(damage::words(&damaged)),
        }
    }
    Ok(Stored { config, manifest, listing, quarantine, notes, differences })
}

/// An older checkpoint's list must be the newest one's, up to its own step.
fn compare_lists(
    record: &CheckpointRecord,
    list: &QuarantineList,
    newest: &QuarantineList,
    schedule: &Schedule,
) -> Option<String> {
    let is_before = |row: &&QuarantineRecord| {
        schedule.step_of(row.stage, row.sample).is_some_and(|step| step < record.step)
    };
    let wanted: QuarantineList = newest.iter().filter(is_before).cloned().collect();
    (*list != wanted).then(|| {
        format!(
            "checkpoint {}: its list of {} quarantined rows is not that of the newest checkpoint, which has {} up to \
             step {}",
            record.name,
            list.len(),
            wanted.len(),
            record.step
        )
    })
}

fn compare(stored: Stored, epochs: usize, threads: usize) -> Result<AuditReport, CliError> {
    let Stored { config, manifest, listing, quarantine, notes, mut differences } = stored;
    let records = &listing.valid;
    let hashes = (config_hash(&config.worker()), manifest.digest());
    differences.extend(records.iter().flat_map(|record| compare_identity(record, &config, &hashes)));
    let quarantined: Vec<QuarantineRecord> = quarantine.iter().cloned().collect();
    let steps = records.last().map_or(0, |record| record.step);
    let mut report = AuditReport {
        run: config.run.id.clone(),
        exact: false,
        steps,
        checkpoints: records.len(),
        epochs,
        not_downloaded: manifest.failed_rows(),
        stages: Vec::new(),
        substitutions: Vec::new(),
        skipped_steps: records.last().map_or_else(Vec::new, |record| record.skipped_steps.clone()),
        notes,
        differences,
    };
    report
        .differences
        .extend(records.iter().filter_map(|record| compare_skipped(record, &report.skipped_steps)));
    let mut first = 0;
    for (number, stage) in (1..).zip(config.schedule().stages()) {
        let within = |step: u64| step.clamp(first, first + stage.steps) - first;
        let mut marks: Vec<u64> = records.iter().map(|record| within(record.step)).collect();
        marks.dedup();
        let mut wanted: BTreeMap<u64, Coverage> = BTreeMap::new();
        if within(steps) > 0 {
            let spec = AuditSpec {
                manifest: &manifest,
                key: PlanKey { seed: config.train.seed, stage: number },
                slots: config.train.slots,
                window_row_groups: config.data.window_row_groups,
                batch_per_slot: stage.batch / config.train.slots.max(1),
                marks: &marks,
                quarantined: &quarantined,
                threads,
            };
            let audit = audit_stage(&spec)?;
            wanted.extend(marks.iter().copied().zip(audit.coverage.iter().copied()));
            report.add(number, within(steps), audit, &manifest, first);
        }
        for record in records {
            let wanted = wanted.get(&within(record.step)).copied().unwrap_or_default();
            report.differences.extend(compare_coverage(record, number, wanted));
        }
        first += stage.steps;
    }
    report.exact = report.differences.is_empty();
    Ok(report)
}

/// A checkpoint must be one of this run.
fn compare_identity(
    record: &CheckpointRecord,
    config: &RunConfig,
    (config_hash, manifest_hash): &(String, String),
) -> Vec<String> {
    let of_run = [
        (&record.run_id, &config.run.id, "it is of run"),
        (
            &record.config_hash,
            config_hash,
            "run.toml is another configuration than the one it was written with,",
        ),
        (
            &record.manifest_hash,
            manifest_hash,
            "manifest.parquet is another corpus than the one it was written on,",
        ),
    ];
    let differs = of_run.iter().filter(|(found, wanted, _)| found != wanted);
    differs.map(|(found, _, what)| format!("checkpoint {}: {what} {found}", record.name)).collect()
}

/// An older checkpoint's skipped steps must be the newest one's, up to its own step.
fn compare_skipped(record: &CheckpointRecord, newest: &[u64]) -> Option<String> {
    let wanted: Vec<u64> = newest.iter().copied().filter(|step| *step < record.step).collect();
    (record.skipped_steps != wanted).then(|| {
        format!(
            "checkpoint {}: its COMMIT says that the steps {:?} were skipped, the newest checkpoint {wanted:?}",
            record.name, record.skipped_steps
        )
    })
}

fn compare_coverage(record: &CheckpointRecord, stage: u32, wanted: Coverage) -> Option<String> {
    let found = record.coverage.of(stage);
    let (name, step) = (&record.name, record.step);
    if found.samples != wanted.samples {
        return Some(format!(
            "checkpoint {name}: its COMMIT counts {} samples of stage {stage}; {step} committed steps use {}",
            found.samples, wanted.samples
        ));
    }
    (found.digest != wanted.digest).then(|| {
        format!(
            "checkpoint {name}: the samples and rows of stage {stage} that its COMMIT stands for are not those of the \
             plan (digest {:032x}, the plan's {:032x})",
            found.digest, wanted.digest
        )
    })
}

impl AuditReport {
    /// Takes over what the pass over a stage found; `first` is the stage's first step.
    fn add(&mut self, stage: u32, steps: u64, audit: StageAudit, manifest: &Manifest, first: u64) {
        let uses = audit.uses;
        if !uses.is_exact() {
            self.differences.push(format!(
                "stage {stage}: rows are used {} to {} times; {} to {} would be right",
                uses.fewest, uses.most, uses.finished_epochs, uses.begun_epochs
            ));
        }
        self.differences.extend(audit.problems);
        self.stages.push(StageReport {
            stage,
            steps,
            samples: uses.samples,
            rows: uses.rows,
            finished_epochs: uses.finished_epochs,
            begun_epochs: uses.begun_epochs,
            fewest_uses: uses.fewest,
            most_uses: uses.most,
            digest: format!("{:032x}", audit.coverage.last().copied().unwrap_or_default().digest),
        });
        let replaced = |found: Substitution| Replaced {
            stage,
            step: first + found.step,
            sample: found.sample,
            used: place(manifest, found.used),
            quarantined: found
                .unusable
                .into_iter()
                .map(|row| Place {
                    file: row.file,
                    row_group: row.row_group,
                    row: row.row,
                    reason: row.reason,
                })
                .collect(),
        };
        self.substitutions.extend(audit.substitutions.into_iter().map(replaced));
    }
}

fn place(manifest: &Manifest, row: RowAddress) -> Place {
    Place {
        file: manifest.files[row.file as usize].location.clone(),
        row_group: row.row_group,
        row: row.row,
        reason: String::new(),
    }
}

#[cfg(test)]
mod tests;

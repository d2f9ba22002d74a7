//! What a run's store says of it when no coordinator answers.

use std::collections::BTreeMap;

use blip2_proto::v1::{NamedValue, StatusReply};
use blip2_records::values::{HELD_OUT, serialize_values};
use blip2_records::{FaultRecord, StepRecord, newest_fault, read, read_newest};
use blip2_run::catalogue::Catalogue;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::{EpochRecord, Epochs};
use blip2_run::layout;
use blip2_store::Location;
use serde::Serialize;

use crate::config::RunConfig;
use crate::error::CliError;
use crate::figures::held_out;
use crate::run_folder::{metrics_folder, stored_configuration};

/// A run that lies in a store.
#[derive(Debug)]
pub(crate) struct StoredRun {
    pub(crate) root: Location,
    pub(crate) config: RunConfig,
}

/// How far a run is, and whether it has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StoredStatus {
    pub(crate) run: String,
    /// `done`, `interrupted`, `failed`; `unreachable`: it has not ended, and nobody who leads it answers;
    /// `new`: nobody has led it yet.
    pub(crate) state: String,
    pub(crate) epoch: u64,
    pub(crate) stage: u32,
    /// The stage by its name, and its task; empty where there is none.
    pub(crate) stage_name: String,
    pub(crate) task: String,
    /// Committed steps, as far as they are known here.
    pub(crate) step: u64,
    pub(crate) total_steps: u64,
    pub(crate) last_checkpoint: String,
    /// Where the newest coordinator was reached.
    pub(crate) address: String,
    /// Why the coordinator there does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Values of the last committed step, and the newest ones on held-out rows with the committed steps
    /// behind them, as far as the metrics can be read here.
    #[serde(serialize_with = "serialize_values")]
    pub(crate) values: Values,
    #[serde(serialize_with = "serialize_values")]
    pub(crate) held_out: Values,
    pub(crate) held_out_step: u64,
    /// The fault that was noticed last, if this machine knows of any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_fault: Option<String>,
}

/// Values by name; null where one is not finite.
type Values = BTreeMap<String, Option<f64>>;

impl StoredRun {
    /// The run in this folder or URL.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub(crate) async fn open(root: Location) -> Result<Self, CliError> {
        let mut config = stored_configuration(&root).await?;
        // It may have been moved since.
        config.run.root = root.to_string();
        Ok(Self { root, config })
    }

    /// The newest membership epoch that can be read.
    pub(crate) async fn newest_epoch(&self) -> Result<Option<EpochRecord>, CliError> {
        let epochs = Epochs::new(&self.root, String::new(), String::new());
        for number in epochs.numbers().await?.into_iter().rev() {
            match epochs.read(number).await {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an epoch is passed over"),
            }
        }
        Ok(None)
    }

    /// The newest records of committed steps, those that were measured on held-out rows among them, as far as
    /// they can be read.
    pub(crate) async fn newest_records(&self) -> Vec<StepRecord> {
        if self.config.eval.while_training.every_steps == 0 {
            self.newest_records_up_to(|_| true).await
        } else {
            self.newest_records_up_to(is_measured).await
        }
    }

    async fn newest_records_up_to(&self, is_wanted: fn(&StepRecord) -> bool) -> Vec<StepRecord> {
        if !self.root.is_local() {
            match read_newest(&self.root, is_wanted).await {
                Ok(records) if records.is_empty() => {}
                Ok(records) => return records,
                Err(error) => tracing::warn!(%error, "the run's metrics cannot be read"),
            }
        }
        read(&metrics_folder(&self.config).join(layout::METRICS)).unwrap_or_default()
    }

    /// The fault that was noticed last, as far as that can be read.
    async fn newest_fault(&self) -> Option<FaultRecord> {
        let newest = newest_fault(&self.root, &metrics_folder(&self.config)).await;
        newest.unwrap_or_else(|error| {
            tracing::warn!(%error, "the run's faults cannot be read");
            None
        })
    }

    /// What the store says, beside its newest epoch.
    pub(crate) async fn status(&self, newest: Option<EpochRecord>) -> Result<StoredStatus, CliError> {
        let checkpoint = Catalogue::new(&self.root).list().await?.valid.pop();
        let schedule = self.config.schedule();
        let records = self.newest_records().await;
        let step = committed(newest.as_ref(), checkpoint.as_ref(), &records);
        let number = schedule.stage_of(step);
        let stage = schedule.stage(number);
        let measured = records.iter().rev().find(|record| is_measured(record));
        let state = match &newest {
            None => "new".to_owned(),
            Some(record) => record.end.clone().unwrap_or_else(|| "unreachable".to_owned()),
        };
        Ok(StoredStatus {
            run: self.config.run.id.clone(),
            state,
            epoch: newest.as_ref().map_or(0, |record| record.epoch),
            stage: number,
            stage_name: stage.map(|stage| stage.name.clone()).unwrap_or_default(),
            task: stage.map(|stage| stage.task.clone()).unwrap_or_default(),
            step,
            total_steps: schedule.total(),
            last_checkpoint: checkpoint.map(|record| record.name).unwrap_or_default(),
            address: newest.map(|record| record.address).unwrap_or_default(),
            reason: None,
            values: records.last().map(|record| values(record, false)).unwrap_or_default(),
            held_out: measured.map(|record| values(record, true)).unwrap_or_default(),
            held_out_step: measured.map_or(0, |record| record.step + 1),
            last_fault: self.newest_fault().await.map(|record| record.fault),
        })
    }
}

/// Whether the step was measured on held-out rows.
fn is_measured(record: &StepRecord) -> bool {
    record.values.keys().any(|name| name.starts_with(HELD_OUT))
}

/// Committed steps: an epoch that closes the run names them; the metrics, where they are on this machine,
/// tell how far the newest epoch came.
fn committed(
    newest: Option<&EpochRecord>,
    checkpoint: Option<&CheckpointRecord>,
    records: &[StepRecord],
) -> u64 {
    let saved = checkpoint.map_or(0, |record| record.step);
    let Some(newest) = newest else { return saved };
    if newest.end.is_some() {
        return newest.step;
    }
    let last = records.last().filter(|record| record.epoch == newest.epoch);
    newest.step.max(last.map_or(0, |record| record.step + 1)).max(saved)
}

/// A step's values: those on held-out rows, or the others.
fn values(record: &StepRecord, held_out: bool) -> Values {
    let wanted = record.values.iter().filter(|(name, _)| name.starts_with(HELD_OUT) == held_out);
    wanted.map(|(name, value)| (name.clone(), *value)).collect()
}

impl StoredStatus {
    /// Whether the run has ended: done, interrupted or failed.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(&self.state)
    }

    /// The newest numbers on held-out rows, on one line.
    pub(crate) fn held_out_line(&self) -> Option<String> {
        let value = |(name, value): (&String, &Option<f64>)| NamedValue {
            name: name.clone(),
            value: value.unwrap_or(f64::NAN),
        };
        held_out(&StatusReply {
            held_out: self.held_out.iter().map(value).collect(),
            held_out_step: self.held_out_step,
            ..StatusReply::default()
        })
    }

    /// For people, on one line.
    pub(crate) fn line(&self) -> String {
        let Self { run, state, step, total_steps, address, .. } = self;
        let checkpoint = match self.last_checkpoint.as_str() {
            "" => "no checkpoint".to_owned(),
            name => format!("checkpoint {name}"),
        };
        match state.as_str() {
            "new" => format!("run {run}: nobody has led it yet; {checkpoint}"),
            "unreachable" => {
                let nobody = self.reason.as_ref().map_or(String::new(), |reason| {
                    format!(
                        ", and nobody answers at {address} ({reason}); continue it with the command that started it \
                         and --resume, if no coordinator leads it"
                    )
                });
                format!("run {run}: step {step}/{total_steps}, {checkpoint}; it has not ended{nobody}")
            }
            _ => ending(state, *step, *total_steps, &self.last_checkpoint, self.last_fault.as_deref()),
        }
    }
}

/// Whether a state is an end.
pub(crate) fn has_ended(state: &str) -> bool {
    matches!(state, "done" | "interrupted" | "failed")
}

/// How a run ended, as its coordinator said last.
pub(crate) fn ending_of(status: &StatusReply) -> String {
    let fault = status.faults.last().map(String::as_str);
    ending(&status.state, status.step, status.total_steps, &status.last_checkpoint, fault)
}

fn ending(state: &str, step: u64, total: u64, checkpoint: &str, fault: Option<&str>) -> String {
    let saved =
        if checkpoint.is_empty() { "nothing saved".to_owned() } else { format!("checkpoint {checkpoint}") };
    match state {
        "done" => format!("the run is done: {step} steps, {saved}"),
        "interrupted" => {
            format!(
                "the run was interrupted at step {step}/{total}, {saved}; continue it with the command that started it and --resume"
            )
        }
        _ => format!(
            "the run failed at step {step}/{total}, {saved}{}",
            fault.map_or(String::new(), |fault| format!(": {fault}"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(state: &str) -> StoredStatus {
        StoredStatus {
            run: "r".into(),
            state: state.into(),
            epoch: 4,
            stage: 1,
            stage_name: "represent".into(),
            task: "contrast".into(),
            step: 12,
            total_steps: 40,
            last_checkpoint: "00000010-000003".into(),
            address: "http://127.0.0.1:9".into(),
            reason: Some("connection refused".into()),
            values: Values::new(),
            held_out: Values::from([("eval_loss".to_owned(), Some(2.5))]),
            held_out_step: 12,
            last_fault: Some("worker 1 is lost".into()),
        }
    }

    #[test]
    fn the_end_of_a_run_is_told_in_words() {
        let done = StoredStatus { step: 40, ..stored("done") };
        assert_eq!(done.line(), "the run is done: 40 steps, checkpoint 00000010-000003");
        assert!(stored("interrupted").line().contains("step 12/40") && stored("interrupted").has_ended());
        assert!(stored("failed").line().ends_with("worker 1 is lost"));
        let unled = stored("unreachable");
        assert_eq!(unled.held_out_line().as_deref(), Some("held out after step 12  loss 2.500"));
        assert!(unled.line().contains("nobody answers at http://127.0.0.1:9 (connection refused)"));
        assert!(!unled.has_ended());
    }

    #[tokio::test]
    async fn a_damaged_newest_epoch_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let epochs = Epochs::new(&root, "c".into(), "http://127.0.0.1:9".into());
        epochs.take(1, 0, Vec::new()).await.unwrap();
        epochs.take(2, 3, Vec::new()).await.unwrap();
        layout::epoch_object(&root, 3).put(bytes::Bytes::new()).await.unwrap();
        let mut config = RunConfig::default();
        config.run.root = folder.path().display().to_string();
        (config.stages[0].steps, config.stages[0].batch) = (9, 4);
        let run = StoredRun { root, config };
        let newest = run.newest_epoch().await.unwrap();
        assert_eq!(newest.as_ref().map(|record| record.epoch), Some(2));
        let status = run.status(newest).await.unwrap();
        assert_eq!((status.state.as_str(), status.step, status.total_steps), ("unreachable", 3, 9));
    }
}

//! What a report says of a run's training.

use blip2_pages::chart::Series;
use blip2_records::StepRecord;
use blip2_worker::config::stage::{NumberedStage, StageSettings};

use crate::config::RunConfig;
use crate::figures::duration;
use crate::metrics::series;
use crate::session::Finished;

/// The losses of a stage as its task names them.
pub(super) fn loss_curves(records: &[StepRecord], stage: &NumberedStage) -> (String, Vec<Series>) {
    let task = &stage.settings.task;
    let names: Vec<(&str, &str)> = task.losses().iter().map(|loss| (loss.name, loss.title)).collect();
    (format!("Stage {}: {}", stage.number, task.title()), series(records, stage.number, &names))
}

/// A fact of every stage.
fn of_stages(config: &RunConfig, between: &str, of: impl Fn(&StageSettings) -> String) -> String {
    config.stages.iter().map(of).collect::<Vec<_>>().join(between)
}

/// What is said of a run's training: time, steps, samples, members.
pub(super) fn training_facts(
    config: &RunConfig,
    finished: &Finished,
    records: &[StepRecord],
) -> Vec<(&'static str, String)> {
    let samples: u64 = records.iter().map(|record| record.samples).sum();
    let busy: f64 = records.iter().map(|record| record.seconds).sum();
    let waiting: f64 = records.iter().map(|record| record.data_wait_seconds).sum();
    let share = |part: f64| if busy > 0.0 { part / busy * 100.0 } else { 0.0 };
    vec![
        ("Time", duration(if finished.was_done { busy } else { finished.seconds })),
        ("Throughput", format!("{:.0} pictures/s", if busy > 0.0 { samples as f64 / busy } else { 0.0 })),
        ("Steps", of_stages(config, " + ", |stage| stage.steps.to_string())),
        ("Batch", of_stages(config, " and ", |stage| stage.batch.to_string())),
        ("Pictures seen", samples.to_string()),
        ("Worker processes", config.coordinator.workers.to_string()),
        ("Waiting for data", format!("{:.1} % of the time", share(waiting))),
        ("Rows quarantined", finished.status.quarantined.to_string()),
        ("Run", config.run.root.clone()),
        ("Checkpoint", finished.checkpoint.clone()),
    ]
}
